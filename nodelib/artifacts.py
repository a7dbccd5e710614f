"""One run's folder under `data/runs`: written atomically, verified when read, with provenance.

    config.json             the RunConfig and its provenance, with the SHA-256 of the weights
    history.csv             one row per optimiser step
    metrics.json            tidy records, one per measured accuracy
    outcomes.safetensors    per record id, one packed bit per image: was it classified correctly?
    measurements.json       dynamics and gradient health, where measured
    snapshots.csv           what was measured while it trained, see `nodelib.snapshot_records`, where it was
    model.safetensors       weights and the stored pooling draw
    weights-*.safetensors   the same after some of the epochs, where they are kept
    checkpoint.safetensors  while the run is unfinished, or where it can be prolonged (a constant rate)

No pickle is ever loaded.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from nodelib.configs import RunConfig
from nodelib.models import ODENet, ResNet, build
from nodelib.paths import runs_dir
from nodelib.snapshot_records import SnapshotRecord, from_csv

HISTORY_COLUMNS = ("step", "epoch", "images", "t1", "loss", "accuracy", "nfe_forward", "nfe_backward", "seconds")


class ArtifactError(RuntimeError):
    """A run's folder is missing a file, or a file is damaged or does not fit its config."""


class ForeignCheckpoint(ArtifactError):
    """A checkpoint that belongs to another config than the one it was to be read for."""


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never meets half of it.

    A temporary file in the same folder, fsync, then `os.replace`: on failure the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, one fixed layout, so that equal content means equal bytes."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Restore it with git, or train the run again.") from None
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}). Restore it with git.") from error


@dataclass(frozen=True)
class Run:
    """A finished run, as stored.

    `config` is the RunConfig's dictionary, `provenance` where it was trained, `history` maps a column
    to an array with one entry per step, `metrics` and `measurements` are lists of records.
    """

    name: str
    seed: int
    path: Path
    config: dict
    provenance: dict
    history: dict[str, np.ndarray]
    metrics: list[dict]
    measurements: list[dict]
    snapshots: list[SnapshotRecord] = field(default_factory=list)

    def outcomes(self, record_id: str) -> np.ndarray:
        """Per image, whether it was classified correctly, bool, shape (n,), in the subset's order."""
        n = self.metric(record_id)["n"]
        path = self.path / "outcomes.safetensors"
        try:
            bits = safetensors.numpy.load_file(path)[record_id]
        except (FileNotFoundError, KeyError):
            raise ArtifactError(f"{path} holds no outcomes of record {record_id!r}; evaluate the run again") from None
        return np.unpackbits(bits, count=n).astype(bool)

    def metric(self, record_id: str) -> dict:
        """The record with this id; ArtifactError if there is none."""
        for record in self.metrics:
            if record["id"] == record_id:
                return record
        raise ArtifactError(f"{self.path.name} has no record {record_id!r}; it has "
                            f"{', '.join(r['id'] for r in self.metrics) or 'none'}")

    def load_model(self, device: str | torch.device = "cpu", kept: str | None = None) -> ODENet | ResNet:
        """The trained network in eval mode with fixed pooling; its weights' hash is checked first.

        Args:
            kept: instead of the last weights earlier ones, such as "epoch4" or "nearest" of `weights-epoch4.safetensors`.
        """
        model = build(RunConfig.from_dict(self.config))
        name = "model.safetensors" if kept is None else f"weights-{kept}.safetensors"
        hashes = {"model.safetensors": self.provenance["weights_sha256"], **self.provenance.get("kept", {})}
        if name not in hashes:
            raise ArtifactError(f"{self.path.name} keeps no weights {kept!r}; it keeps {', '.join(sorted(hashes))}")
        path = self.path / name
        content = _read_weights(path, hashes[name])
        model.load_state_dict(safetensors.torch.load(content))
        model.pooling = "fixed"
        return model.to(device).eval()


def _read_weights(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Restore it with git, or train the run again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ArtifactError(
            f"{path} is altered: config.json states SHA-256 {expected}, found {found} "
            f"({len(content)} bytes). Restore it with git, or train the run again."
        )
    return content


def load_run(path: str | Path) -> Run:
    """Read a finished run's folder.

    Raises:
        ArtifactError: the folder or one of its files is missing or unreadable.
    """
    path = Path(path)
    stored = read_json(path / "config.json")
    measurements = path / "measurements.json"
    metrics = path / "metrics.json"
    config = stored["config"]
    history = read_history(path / "history.csv")
    if (path / "checkpoint.safetensors").exists():  # the run is being prolonged: its history is ahead of its weights
        history = {name: column[:RunConfig.from_dict(config).steps] for name, column in history.items()}
    return Run(
        name=config["name"], seed=config["seed"], path=path, config=config, provenance=stored["provenance"],
        history=history,
        metrics=read_json(metrics) if metrics.exists() else [],
        measurements=read_json(measurements) if measurements.exists() else [],
        snapshots=[record for record in _read_snapshots(path) if record.step <= RunConfig.from_dict(config).steps],
    )


def _read_snapshots(folder: Path) -> list[SnapshotRecord]:
    try:
        return from_csv(folder / "snapshots.csv")
    except ValueError as error:
        raise ArtifactError(f"{error}. Restore it with git.") from error


def kept_weights(folder: Path) -> dict[str, dict[str, str]]:
    """The provenance's entry "kept": SHA-256 of the earlier weights in a folder, by file; nothing where there are none."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("weights-*.safetensors"))}
    return {"kept": found} if found else {}


def still_current(run: Run) -> dict[str, list[dict]]:
    """The records that a run's folder holds by now, "metrics" and "measurements", for adding others to them.

    Raises:
        ArtifactError: its weights are no longer those that were loaded, because it was trained further or again meanwhile;
            what was measured on the old ones must not pose as the new ones' result.
    """
    stored = read_json(run.path / "config.json")["provenance"]["weights_sha256"]
    if stored != run.provenance["weights_sha256"]:
        raise ArtifactError(f"{run.path} has other weights by now ({stored[:12]}…) than those being measured "
                            f"({run.provenance['weights_sha256'][:12]}…); nothing was stored, measure it again")
    return {name: read_json(path) if (path := run.path / f"{name}.json").exists() else [] for name in ("metrics", "measurements")}


def find_runs(root: str | Path | None = None) -> list[Run]:
    """All finished runs below `root` (default: `data/runs`), sorted by name and seed."""
    root = Path(root) if root is not None else runs_dir()
    runs = [load_run(path.parent) for path in root.glob("*/config.json")]
    return sorted(runs, key=lambda run: (run.name, run.seed))


def save_model(path: Path, model: torch.nn.Module) -> str:
    """Write the weights and buffers; return the file's SHA-256."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors)
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def save_outcomes(path: Path, record_id: str, correct: np.ndarray) -> None:
    """Add one record's outcomes to the file, replacing an older record of the same id."""
    stored = safetensors.numpy.load_file(path) if path.exists() else {}
    stored[record_id] = np.packbits(np.asarray(correct, dtype=bool))
    write_atomic(path, safetensors.numpy.save(dict(sorted(stored.items()))))


def save_checkpoint(path: Path, tensors: dict[str, Tensor], step: int, fingerprint: str) -> None:
    """Write weights, optimiser state and generator state, with the step and the config they belong to."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(path, safetensors.torch.save(contiguous, {"step": str(step), "config": fingerprint}))


def load_checkpoint(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], int]:
    """Tensors and step of a checkpoint; ArtifactError if it is damaged or belongs to another config."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path} is damaged ({error}). Delete it to start the run afresh.") from error
    if metadata["config"] != fingerprint:
        raise ForeignCheckpoint(f"{path} belongs to another config of this run. Delete it to start afresh, or "
                            f"restore the config it was written with.")
    return tensors, int(metadata["step"])


def write_history(path: Path, rows: list[dict]) -> None:
    """Write the training history as CSV with the columns `HISTORY_COLUMNS`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_atomic(path, text.getvalue().encode())


def read_history_rows(path: Path) -> list[dict]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    integers = {"step", "epoch", "images"}
    return [{key: int(value) if key in integers else float(value) for key, value in row.items()} for row in rows]


def read_history(path: Path) -> dict[str, np.ndarray]:
    """The training history, one array per column."""
    if not path.exists():
        return {column: np.empty(0) for column in HISTORY_COLUMNS}
    rows = read_history_rows(path)
    return {column: np.array([row[column] for row in rows]) for column in HISTORY_COLUMNS}


def source_state() -> dict[str, Any]:
    """Git commit of the code and whether `nodelib/` differs from it; None where git cannot tell."""
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
                                  timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ".")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def describe_device(device: torch.device) -> str:
    """"cuda" with the card's name, or "cpu" with the processor's architecture."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()})"


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device, threads and precision flags: what a figure may depend on."""
    import importlib.metadata

    names = ("torch", "torchvision", "torchdiffeq", "numpy")
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "precision": {
            "dtype": "float32",
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        },
    }


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder while writing it, so that two processes cannot train the same run."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"{folder} is being written by another process; wait for it to end") from None
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                (folder / ".lock").unlink()
