"""One run's folder under `data/runs`: written atomically, verified when read, with provenance.

    config.json             the RunConfig and its provenance, with the SHA-256 of the weights
    history.csv             one row per optimiser step; of a run at a constant rate, means over fifty of them in finished epochs
    metrics.json            tidy records, one per measured accuracy
    outcomes.safetensors    per record id, one packed bit per image: was it classified correctly?
    measurements.json       dynamics and gradient health, where measured
    snapshots.csv           what was measured while it trained, see `nodelib.experiment.snapshot_records`, where it was
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
import math
import os
import platform
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from nodelib.experiment.configs import RunConfig, build
from nodelib.experiment.paths import PUBLISHED, runs_dir
from nodelib.experiment.snapshot_records import SnapshotRecord, from_csv
from nodelib.networks import ODENet, ResNet
from nodelib.solver.errors import NodelibError

WRITE_SECONDS = 60.0  # longest wait for another process that writes: a write takes a fraction of a second
HISTORY_COLUMNS = ("step", "epoch", "images", "t1", "loss", "accuracy", "nfe_forward", "nfe_backward", "seconds")


class ArtifactError(NodelibError, RuntimeError):
    """A run's folder is missing a file, or a file is damaged or does not fit its config."""


class ForeignCheckpoint(ArtifactError):
    """A checkpoint that belongs to another config than the one it was to be read for."""


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never meets half of it.

    A temporary file in the same folder, fsync, then `os.replace`: on failure the old file stays. The
    permissions of a file that is there are kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, one fixed layout, so that equal content means equal bytes."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; ArtifactError if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Restore it with git, or train the run again.") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # no JSON, or no text
        raise ArtifactError(f"{path} is not valid JSON ({error}). Restore it with git.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def not_finite(value: Any) -> bool:
    """Whether a NaN or an infinite number is anywhere in a value as JSON holds it."""
    if isinstance(value, (dict, list, tuple)):
        return any(map(not_finite, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


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
            bits = _read_outcomes(path)[record_id]
        except KeyError:
            raise ArtifactError(f"{path} holds no outcomes of record {record_id!r}; evaluate the run again") from None
        if 8 * len(bits) < n:
            raise ArtifactError(f"{path} holds outcomes of {8 * len(bits)} images at most for record "
                                f"{record_id!r} on {n}; evaluate the "
                                f"run again")
        return np.unpackbits(bits, count=n).astype(bool)

    def outcome_ids(self) -> set[str]:
        """Ids of the records whose outcomes are stored."""
        return set(_read_outcomes(self.path / "outcomes.safetensors"))

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
            kept: instead of the last weights earlier ones, such as "epoch4" or "nearest" of
                `weights-epoch4.safetensors`.
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
        ArtifactError: the folder or one of its files is missing or unreadable, or the folder's name is not
            that of the config's name and seed.
    """
    path = Path(path)
    stored = read_json(path / "config.json")
    try:
        config, provenance = stored["config"], stored["provenance"]
        folder, _ = f"{config['name']}-seed{config['seed']}", provenance["weights_sha256"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path / 'config.json'} is not the config of a run ({error!r}). Restore it with "
                            f"git.") from error
    if os.path.basename(os.path.abspath(path)) != folder:
        raise ArtifactError(f"{path} holds the run {folder}; a run lies in the folder of its own name and "
                            f"seed. Rename the "
                            f"folder, or restore config.json with git.")
    history = read_history(path / "history.csv")
    if (path / "checkpoint.safetensors").exists():  # the run is being prolonged: its history is ahead of its weights
        own = history["step"] < RunConfig.from_dict(config).steps
        history = {name: column[own] for name, column in history.items()}
    return Run(name=config["name"], seed=config["seed"], path=path, config=config, provenance=provenance,
               history=history,
               metrics=_read_records(path / "metrics.json", "id"),
               measurements=_read_records(path / "measurements.json", "name"),
               snapshots=[r for r in _read_snapshots(path) if r.step <= RunConfig.from_dict(config).steps])


def _read_records(path: Path, key: str) -> list[dict]:
    """The records of a file, none if there is no file; ArtifactError unless it is a list of records, each
    with its key.
    """
    records = read_json(path) if path.exists() else []
    if not isinstance(records, list) or not all(isinstance(r, dict) and isinstance(r.get(key), str)
                                                for r in records):
        raise ArtifactError(f"{path} is not a list of records, each with its {key}. Restore it with git.")
    return records


def _read_snapshots(folder: Path) -> list[SnapshotRecord]:
    try:
        return from_csv(folder / "snapshots.csv")
    except ValueError as error:
        raise ArtifactError(f"{error}. Restore it with git.") from error


def kept_weights(folder: Path) -> dict[str, dict[str, str]]:
    """The provenance's entry "kept": SHA-256 of the earlier weights in a folder, by file; nothing where there
    are none.
    """
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("weights-*.safetensors"))}
    return {"kept": found} if found else {}


def add_metric(run: Run, record: dict, correct: np.ndarray) -> Run:
    """Store a record of `metrics.json` and its outcomes beside what the run's folder holds by now.

    It takes the place of a record with the same id, unless that one is on more images.

    Args:
        correct: per image, whether it was classified correctly, bool, shape (n,).

    Returns:
        the run as it then is, with what other processes stored meanwhile.

    Raises:
        ArtifactError: a number is not finite, the weights are no longer those that were loaded, or another
            process does not stop writing.
    """
    _check_finite(run, [record], "id")
    with writing(run.path):
        run = _as_it_is_now(run)
        stored = next((r for r in run.metrics if r["id"] == record["id"]), None)
        if stored is not None and stored["n"] > record["n"] and record["id"] in run.outcome_ids():
            return run
        # outcomes first: a record is never without them
        save_outcomes(run.path / "outcomes.safetensors", record["id"], correct)
        run = replace(run, metrics=[r for r in run.metrics if r["id"] != record["id"]] + [record])
        write_json(run.path / "metrics.json", run.metrics)
    return run


def add_measurements(run: Run, records: list[dict], replaces: Callable[[dict], bool]) -> Run:
    """Store records of `measurements.json` in place of those that `replaces` picks from what the folder holds
    by now.

    Returns and raises as `add_metric`; also an ArtifactError, and nothing is stored, if a record would
    replace one of the same quantity on more images, or if one would be there twice.
    """
    _check_finite(run, records, "name")

    def quantity(r: dict) -> list:
        return [r.get(key) for key in ("name", "t1", "label", "images")]

    with writing(run.path):
        run = _as_it_is_now(run)
        for r in records:
            if r.get("images") != "fooled":  # of those there are as many as there are
                check_not_fewer(run, r["n"], lambda old: replaces(old) and quantity(old) == quantity(r))
        run = replace(run, measurements=[r for r in run.measurements if not replaces(r)] + records)
        if twice := [r for r in doubled(run.measurements) if r in records]:
            raise ArtifactError(f"{run.path}: {twice[0]['name']} would be stored twice; nothing was stored")
        write_json(run.path / "measurements.json", run.measurements)
    return run


def _check_finite(run: Run, records: list[dict], key: str) -> None:
    if wrong := [r[key] for r in records if not_finite(r)]:
        raise ArtifactError(f"{run.path}: {wrong[0]} is not finite; nothing was stored, see what is wrong "
                            f"with the network")


def doubled(measurements: list[dict]) -> list[dict]:
    """Measurements that are there before: of the same quantity in the same settings, but for the interval of
    the value.
    """
    seen, found = set(), []
    for r in measurements:
        settings = {key: value for key, value in (r.get("settings") or {}).items()
                    if key not in ("low", "high")}
        key = json.dumps([[r.get(name) for name in ("name", "t1", "label", "images", "statistic")], settings],
                         sort_keys=True)
        found += [r] if key in seen else []
        seen.add(key)
    return found


def check_not_fewer(run: Run, n: int, replaces: Callable[[dict], bool]) -> None:
    """ArtifactError if one of the run's measurements that `replaces` picks was made on more than n images."""
    for old in filter(replaces, run.measurements):
        if old["n"] > n:
            raise ArtifactError(f"{run.path} holds {old['name']} on {old['n']} images, and {n} are too few "
                                f"to replace it: measure "
                                f"on as many at least, or delete those records from measurements.json first")


def _as_it_is_now(run: Run) -> Run:
    """The run with the records its folder holds by now.

    Raises:
        ArtifactError: it was trained further or again meanwhile; what was measured on the old weights must
            not pose as the new ones' result.
    """
    now = load_run(run.path)
    stored, measured = now.provenance["weights_sha256"], run.provenance["weights_sha256"]
    if stored != measured:
        raise ArtifactError(f"{run.path} has other weights by now ({stored[:12]}…) than those being measured "
                            f"({measured[:12]}…); nothing was stored, measure it again")
    return replace(run, metrics=now.metrics, measurements=now.measurements)


def find_runs(root: str | Path | None = None) -> list[Run]:
    """All finished runs below `root` (default: `data/runs`), sorted by name and seed.

    Raises:
        ArtifactError: there is no such folder, or one of the runs is damaged.
    """
    return sorted(map(load_run, run_folders(root)), key=lambda run: (run.name, run.seed))


def run_folders(root: str | Path | None = None) -> list[Path]:
    """The folders of the finished runs below `root` (default: `data/runs`), sorted, whatever is in them.

    Raises:
        ArtifactError: there is no such folder.
    """
    root = Path(root) if root is not None else runs_dir()
    if not root.is_dir():
        raise ArtifactError(f"there is no folder {root}; name one that holds runs, such as "
                            f"{PUBLISHED / 'runs'}")
    return sorted(path.parent for path in root.glob("*/config.json"))


def save_model(path: Path, model: torch.nn.Module) -> str:
    """Write the weights and buffers; return the file's SHA-256."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors)
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def _read_outcomes(path: Path) -> dict[str, np.ndarray]:
    """Packed bits by record id, none if there is no file."""
    try:
        return safetensors.numpy.load_file(path) if path.exists() else {}
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path} is damaged ({error}). Restore it with git, or delete it and evaluate "
                            f"the run again.") from error


def save_outcomes(path: Path, record_id: str, correct: np.ndarray) -> None:
    """Add one record's outcomes to the file, replacing an older record of the same id."""
    stored = _read_outcomes(path)
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
    """Write the training history as CSV with the columns `HISTORY_COLUMNS`; ArtifactError unless its steps
    rise.
    """
    if any(later["step"] <= earlier["step"] for earlier, later in zip(rows, rows[1:])):
        raise ArtifactError(f"the steps of the history for {path} do not rise; it was not written")
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_atomic(path, text.getvalue().encode())


def rounded(row: dict) -> dict:
    """A row of the history as its file gives it back, so that a resumed run averages what an uninterrupted one does."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}


def thinned(rows: list[dict], epoch: int, steps: int = 50) -> list[dict]:
    """The rows with those of one epoch replaced by means over so many steps, step, images and seconds being the last one's."""
    own = [row for row in rows if row["epoch"] == epoch]
    means = []
    for start in range(0, len(own), steps):
        part = own[start:start + steps]
        last = ("step", "epoch", "images", "seconds")
        means.append(rounded({key: part[-1][key] if key in last else sum(float(row[key]) for row in part) / len(part)
                              for key in part[0]}))
    return [row for row in rows if row["epoch"] < epoch] + means


def history_until(path: Path, step: int) -> list[dict]:
    """The rows of a history that are of steps before this one."""
    return [row for row in read_history_rows(path) if row["step"] < step]


def read_history_rows(path: Path) -> list[dict]:
    """The training history, one dictionary per step; ArtifactError if a row is none."""
    integers = {"step", "epoch", "images"}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{key: int(row[key]) if key in integers else float(row[key]) for key in HISTORY_COLUMNS}
                    for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path} is not a history of training ({error!r}). Restore it with git.") from error
    return rows


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
    """Hold a run for as long as it trains, so that two processes cannot train the same one.

    Who measures it meanwhile is not kept waiting: what the folder stores changes within `writing` alone.

    Raises:
        ArtifactError: another process trains it.
    """
    with _held(folder, "train", 0.0, "is being trained by another process; wait for it to end"):
        yield


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold what a run's folder stores while it is read, changed and written again: for moments only.

    Raises:
        ArtifactError: another process held it for more than `WRITE_SECONDS`.
    """
    with _held(folder, "write", WRITE_SECONDS,
               f"was being written by another process for {WRITE_SECONDS:g} s; "
                                               f"see what hangs there and run the same command again"):
        yield


@contextlib.contextmanager
def _held(folder: Path, purpose: str, seconds: float, refusal: str) -> Iterator[None]:
    # beside the folder, which may be deleted to train the run again, and never removed: whoever waits for a
    # file that is unlinked gets it together with the one who makes it anew
    path = folder.resolve().parent / f".{folder.resolve().name}.{purpose}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ArtifactError(f"{folder} {refusal}") from None
    try:
        yield
    finally:
        lock.release()
