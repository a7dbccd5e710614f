"""One run's folder under `data/runs`: written atomically, verified when read, with provenance.

    config.json             the RunConfig and its provenance, with the SHA-256 of the weights
    history.csv             one row per optimiser step; of a run at a constant rate, means over fifty of them
                            in finished epochs
    metrics.csv             tidy records, one line per measured accuracy, see `nodelib.experiment.records`
    outcomes.safetensors    per record id, one packed bit per image: was it classified correctly?
    measurements.csv        dynamics and gradient health, where measured
    snapshots.csv           what was measured while it trained, see `nodelib.experiment.snapshot_records`,
                            where it was
    model.safetensors       weights and the stored pooling draw
    weights-*.safetensors   the same after some of the epochs, where they are kept
    epoch12/                metrics.csv, outcomes.safetensors and checksums.json of weights-epoch12, where
                            measured: a folder that `load_run` reads as the run after twelve epochs
    checkpoint.safetensors  while the run is unfinished, or where it can be prolonged (a constant rate);
                            with its own checksum
    checksums.json          SHA-256 of the tables and the outcomes, see `nodelib.experiment.checksums`

No pickle is ever loaded.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from nodelib.experiment import checksums, records
from nodelib.experiment.configs import RunConfig, build
from nodelib.experiment.files import (
    ArtifactError,
    locked,
    read_json,
    undisturbed,
    write_atomic,
    write_json,
    writing,
)
from nodelib.experiment.paths import published, runs_root
from nodelib.experiment.snapshot_records import SnapshotRecord, from_csv
from nodelib.networks import ODENet, ResNet
from nodelib.solver.errors import InputError

__all__ = ["ArtifactError", "ForeignCheckpoint", "Run", "add_measurements", "add_metric", "check_not_fewer",
           "describe_device", "environment", "find_runs", "load_checkpoint", "load_run", "locked",
           "read_json", "save_checkpoint", "save_model", "save_outcomes", "source_state",
           "stored_runs", "write_atomic", "write_history", "write_json", "writing"]


class ForeignCheckpoint(ArtifactError):
    """A checkpoint that belongs to another config than the one it was to be read for."""


@dataclass(frozen=True)
class Run:
    """A finished run, as stored.

    `config` is the RunConfig's dictionary, `provenance` where it was trained, `history` maps a column
    to an array with one entry per step, `metrics` and `measurements` are lists of records. `kept` names the
    weights, where they are not the last ones; `earlier` are the runs at kept weights that were measured.
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
    kept: str | None = None
    earlier: "list[Run]" = field(default_factory=list)

    def outcomes(self, record_id: str) -> np.ndarray:
        """Per image, whether it was classified correctly, bool, shape (n,), in the subset's order.

        Raises:
            ArtifactError: there are none, or others than the record states: it was evaluated anew since the
                run was read.
        """
        n, stated = (self.metric(record_id)[key] for key in ("n", "correct"))
        path = self.path / "outcomes.safetensors"
        bits = _read_outcomes(path).get(record_id)
        if bits is None:
            raise ArtifactError(f"{path} holds no outcomes of record {record_id!r}; evaluate the run again")
        if 8 * len(bits) < n:
            raise ArtifactError(f"{path} holds outcomes of {8 * len(bits)} images at most for record "
                                f"{record_id!r} on {n}; evaluate the run again")
        found = np.unpackbits(bits, count=n).astype(bool)
        if found.sum() != stated:
            raise ArtifactError(f"{path} holds {found.sum()} correct outcomes of record {record_id!r}, which "
                                f"states {stated}: it was evaluated anew since the run was read, or altered. "
                                "Read the run again, or evaluate it again")
        return found

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

        Raises:
            ArtifactError: the weights are not kept, missing or altered, or the run was trained further since
                it was read.
        """
        model = build(RunConfig.from_dict(self.config))
        kept = kept or self.kept
        name = "model.safetensors" if kept is None else _kept_name(kept)
        hashes = _hashes(self.provenance)
        if name not in hashes:
            raise ArtifactError(f"{self.path.name} keeps no weights {kept!r}; it keeps "
                                f"{', '.join(sorted(hashes))}")
        path = (self.path if self.kept is None else self.path.parent) / name
        try:
            content = _read_weights(path, hashes[name])
        except ArtifactError:
            # training that is storing them states them last, for which this waits
            if _hashes(load_run(path.parent).provenance).get(name) == hashes[name]:
                raise
            raise ArtifactError(f"{path.parent} was trained further since it was read: {name} holds other "
                                "weights by now. Read it again, or run the same command again") from None
        try:
            model.load_state_dict(safetensors.torch.load(content))
        except (safetensors.SafetensorError, RuntimeError) as error:  # no such file, or another network's
            raise ArtifactError(f"{path} does not hold this network's weights ({error}). Restore it and "
                                "config.json with git, or train the run again.") from error
        model.pooling = "fixed"
        return model.to(device).eval()

    def load_ode_net(self, kept: str | None = None) -> ODENet:
        """As `load_model`, of a run from `load_ode_run`."""
        model = self.load_model(kept=kept)
        assert isinstance(model, ODENet)
        return model


def _kept_name(kept: str) -> str:
    return f"weights-{kept}.safetensors"


def _hashes(provenance: dict) -> dict[str, str]:
    """SHA-256 of a run's weights by file, the last ones' and those of the kept ones."""
    return {"model.safetensors": provenance["weights_sha256"], **provenance.get("kept", {})}


def _read_weights(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} is missing or cannot be read ({error.strerror}). Restore it with git, "
                            "or train the run again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ArtifactError(f"{path} is altered: config.json states SHA-256 {expected}, found {found} "
                            f"({len(content)} bytes). Restore it with git, or train the run again.")
    return content


def load_run(path: str | Path) -> Run:
    """Read a finished run's folder, or, as in `<folder>/epoch12`, the run as it was after so many epochs,
    with what was measured of the weights that were kept then.

    While another process replaces the run, this is the older one or the newer one, never a mixture.

    Raises:
        ArtifactError: the folder or one of its files is missing or unreadable, the folder's name is not that
            of the config's name and seed, or another process does not stop writing.
    """
    path = Path(path)
    if not (path / "config.json").exists() and (path.parent / "config.json").exists():
        return _after_epochs(load_run(path.parent), path)
    # training writes the config last, and checksums.json changes with every table
    return undisturbed(lambda: _read_run(path), [path / "config.json", path / checksums.NAME], _settled)


def _settled(run: Run) -> bool:
    """Whether no training is between two of the files by which it prolongs or replaces the run."""
    if not (run.path / "checkpoint.safetensors").exists():  # it comes after the history
        return not (run.history["step"] >= RunConfig.from_dict(run.config).steps).any()
    try:  # the weights come after the records are gone, and before the config
        weights = (run.path / "model.safetensors").read_bytes()
    except OSError:
        return True
    return hashlib.sha256(weights).hexdigest() == run.provenance["weights_sha256"]


def _read_run(path: Path) -> Run:
    stored = read_json(path / "config.json")
    try:
        config = RunConfig.from_dict(stored["config"])
        provenance = {**stored["provenance"], "weights_sha256": str(stored["provenance"]["weights_sha256"])}
        if not all(isinstance(digest, str) for digest in provenance.get("kept", {}).values()):
            raise TypeError("kept is no table of SHA-256 digests")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path / 'config.json'} is not the config of a run ({error}). Restore it with "
                            "git.") from error
    if os.path.basename(os.path.abspath(path)) != config.folder:
        raise ArtifactError(f"{path} holds the run {config.folder}; a run lies in the folder of its own name "
                            "and seed. Rename the folder, or restore config.json with git.")
    if old := [name for name in ("metrics.json", "measurements.json") if (path / name).exists()]:
        raise ArtifactError(f"{path / old[0]} is of an older layout, which nothing reads. Delete it; if "
                            f"there is no {Path(old[0]).stem}.csv beside it, restore that with git, or "
                            f"measure the run again (`python -m nodelib evaluate {config.name}`).")
    history = records.columns_of(path / "history.csv", records.HISTORY)
    # the run is being prolonged: its history is ahead of its weights
    if (path / "checkpoint.safetensors").exists():
        trained = history["step"] < config.steps
        history = {name: values[trained] for name, values in history.items()}
    run = Run(name=config.name, seed=config.seed, path=path, config=stored["config"], provenance=provenance,
              history=history,
              metrics=records.read_metrics(path / "metrics.csv"),
              measurements=records.read_measurements(path / "measurements.csv"),
              snapshots=[r for r in from_csv(path / "snapshots.csv") if r.step <= config.steps])
    return replace(run, earlier=[_after_epochs(run, file.parent) for file in
                                 sorted(path.glob("epoch*/metrics.csv"))])


def _after_epochs(run: Run, path: Path) -> Run:
    """A run as it was at the kept weights of whose records `path` is the folder."""
    epochs, name = path.name.removeprefix("epoch"), _kept_name(path.name)
    kept = run.provenance.get("kept", {})
    if not epochs.isdecimal() or name not in kept:
        raise ArtifactError(f"{path} is for what is measured of weights that {run.path.name} does not keep. "
                            f"It keeps {', '.join(sorted(kept)) or 'none but the last'}; name one after "
                            "whole epochs, such as epoch12.")
    config = {**run.config, "epochs": int(epochs)}
    steps = RunConfig.from_dict(config).steps
    before = run.history["step"] < steps
    return replace(run, path=path, config=config, kept=path.name, earlier=[], measurements=[],
                   provenance={**run.provenance, "weights_sha256": kept[name]},
                   history={column: values[before] for column, values in run.history.items()},
                   metrics=records.read_metrics(path / "metrics.csv"),
                   snapshots=[r for r in run.snapshots if r.step <= steps])


def kept_weights(folder: Path) -> dict[str, dict[str, str]]:
    """The provenance's entry "kept": SHA-256 of a folder's earlier weights by file; none without any."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
             for path in sorted(folder.glob("weights-*.safetensors"))}
    return {"kept": found} if found else {}


def add_metric(run: Run, record: dict, correct: np.ndarray) -> Run:
    """Store a record of `metrics.csv` and its outcomes beside what the run's folder holds by now.

    It takes the place of a record with the same id, unless that one is on more images.

    Args:
        correct: per image, whether it was classified correctly, bool, shape (n,).

    Returns:
        the run as it then is, with what other processes stored meanwhile.

    Raises:
        ArtifactError: the record contradicts itself or its outcomes, the weights are no longer those that
            were loaded, the disk does not take it, or another process does not stop writing.
    """
    fault = records.metric_fault(record)
    if not fault and (len(correct), int(correct.sum())) != (record["n"], record["correct"]):
        fault = f"record {record['id']} does not state its outcomes"
    if fault:
        raise ArtifactError(f"{run.path}: {fault}; nothing was stored")
    with writing(run.path):
        run = _as_it_is_now(run)
        stored = next((r for r in run.metrics if r["id"] == record["id"]), None)
        if stored is not None and stored["n"] > record["n"] and record["id"] in run.outcome_ids():
            return run
        run.path.mkdir(exist_ok=True)  # that of kept weights
        kept = [r for r in run.metrics if r["id"] != record["id"]]
        table = records.metrics_csv([*kept, record])  # fails, if it does, before anything is written
        # outcomes first: a record is never without them
        save_outcomes(run.path / "outcomes.safetensors", record["id"], correct)
        checksums.store(run.path / "metrics.csv", table)
        return load_run(run.path)


def add_measurements(run: Run, found: list[dict], replaces: Callable[[dict], bool]) -> Run:
    """Store records of `measurements.csv` in place of those that `replaces` picks of what the folder holds.

    Returns and raises as `add_metric`; also an ArtifactError, and nothing is stored, if a record would
    replace one of the same quantity on more images, or if one would be there twice.
    """
    if fault := next(filter(None, map(records.measurement_fault, found)), None):
        raise ArtifactError(f"{run.path}: {fault}; nothing was stored, see what is wrong with the network")

    def quantity(r: dict) -> list:
        return [r[key] for key in ("name", "t1", "label", "images")]

    with writing(run.path):
        run = _as_it_is_now(run)
        for r in found:
            if r["images"] != "fooled":  # of those there are as many as there are
                check_not_fewer(run, r["n"], lambda old: replaces(old) and quantity(old) == quantity(r))
        together = [*(r for r in run.measurements if not replaces(r)), *found]
        if twice := records.doubled(together):
            raise ArtifactError(f"{run.path}: {twice[0]['name']} would be stored twice; nothing was stored")
        checksums.store(run.path / "measurements.csv", records.measurements_csv(together))
        return load_run(run.path)


def check_not_fewer(run: Run, n: int, replaces: Callable[[dict], bool]) -> None:
    """ArtifactError if one of the run's measurements that `replaces` picks was made on more than n images."""
    for old in filter(replaces, run.measurements):
        if old["n"] > n:
            what = "steps" if old["name"].startswith("training_") else "images"
            raise ArtifactError(f"{run.path} holds {old['name']} on {old['n']} {what}, and {n} are too few "
                                "to replace it: measure on as many at least, or delete those records from "
                                "measurements.csv first")


def _as_it_is_now(run: Run) -> Run:
    """The run as its folder holds it by now.

    Raises:
        ArtifactError: it was trained further or again meanwhile; what was measured on the old weights must
            not pose as the new ones' result.
    """
    now = load_run(run.path)
    stored, measured = now.provenance["weights_sha256"], run.provenance["weights_sha256"]
    if stored != measured:
        raise ArtifactError(f"{run.path} has other weights by now ({stored[:12]}…) than those being measured "
                            f"({measured[:12]}…); nothing was stored, measure it again")
    return now


def load_ode_run(folder: str | Path) -> Run:
    """As `load_run`; InputError for a network without a solver."""
    run = load_run(folder)
    if run.config["architecture"] != "odenet":
        raise InputError(f"{run.name} is a {run.config['architecture']}; this is measured of networks with "
                         "an ODE block, such as small-10")
    return run


def find_runs(root: str | Path | None = None) -> list[Run]:
    """All finished runs below `root` (default: `data/runs`), sorted by name and seed.

    Raises:
        ArtifactError: there is no such folder, or runs are damaged; all of these are named.
    """
    runs, faults = stored_runs(root)
    if faults:
        raise ArtifactError("\n".join(faults))
    return runs


def stored_runs(root: str | Path | None = None,
                names: Collection[str] = ()) -> tuple[list[Run], list[str]]:
    """The finished runs below `root` as `find_runs` has them, and of each that is damaged, and left out, why.

    A run with the weights of another one is a copy of it, and no further seed. `names`: of these runs only.

    Raises:
        ArtifactError: there is no such folder.
    """
    runs, faults, root = dict[str, Run](), list[str](), runs_root(root)
    if not root.is_dir():
        raise ArtifactError(f"there is no folder {root}; name one that holds runs, such as "
                            f"{published('runs')}")
    for folder in sorted(path.parent for path in root.glob("*/config.json")):
        if names and folder.name.rpartition("-seed")[0] not in names:
            continue
        try:
            run = load_run(folder)
            run.outcome_ids()
        except ArtifactError as error:
            faults.append(str(error))
            continue
        if (other := runs.setdefault(run.provenance["weights_sha256"], run)) is not run:
            faults.append(f"{folder} holds the weights of {other.path}: a copy is no further seed. Delete "
                          "one of the two.")
    return sorted(runs.values(), key=lambda run: (run.name, run.seed)), faults


def save_model(path: Path, model: torch.nn.Module) -> str:
    """Write the weights and buffers; return the file's SHA-256."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors)
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def _read_outcomes(path: Path) -> dict[str, np.ndarray]:
    """Packed bits by record id, none if there is no file."""
    try:
        found = safetensors.numpy.load_file(path)
        if odd := [name for name, bits in found.items() if bits.dtype != np.uint8 or bits.ndim != 1]:
            raise TypeError(f"{odd[0]} is not a row of bytes")
    except FileNotFoundError:  # asked for beforehand, it could still go before it is opened
        return {}
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). Restore it with git, or delete it and evaluate "
                            "the run again.") from error
    return found


def save_outcomes(path: Path, record_id: str, correct: np.ndarray) -> None:
    """Add one record's outcomes to the file, within `writing`, replacing an older record of the same id."""
    stored = _read_outcomes(path)
    stored[record_id] = np.packbits(np.asarray(correct, dtype=bool))
    checksums.store(path, safetensors.numpy.save(dict(sorted(stored.items()))))


def save_checkpoint(path: Path, tensors: dict[str, Tensor], step: int, fingerprint: str) -> None:
    """Write weights and optimiser state, with the step and the config they belong to, and a checksum."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    checksum = _checksum(contiguous, str(step), fingerprint)
    metadata = {"step": str(step), "config": fingerprint, "sha256": checksum}
    write_atomic(path, safetensors.torch.save(contiguous, metadata))


def _checksum(tensors: dict[str, Tensor], *stated: str) -> str:
    digest = hashlib.sha256(repr(stated).encode())
    for name, value in sorted(tensors.items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode() + value.numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], int]:
    """Tensors and step of a checkpoint; ArtifactError if it is damaged or belongs to another config."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). Restore it with git, or delete it to start the "
                            "run afresh.") from error
    step, config = metadata.get("step", ""), metadata.get("config", "")
    if metadata.get("sha256") != _checksum(tensors, step, config):
        raise ArtifactError(f"{path} is damaged: it is not what its checksum says. Restore it with git, or "
                            "delete it to start the run afresh.")
    if config != fingerprint:
        raise ForeignCheckpoint(f"{path} belongs to another config of this run. Delete it to start afresh, "
                                "or restore the config it was written with.")
    return tensors, int(step)


def write_history(path: Path, rows: list[dict]) -> None:
    """Write the training history as CSV, within `writing`; ArtifactError unless its steps rise."""
    if any(later["step"] <= earlier["step"] for earlier, later in zip(rows, rows[1:])):
        raise ArtifactError(f"the steps of the history for {path} do not rise; it was not written")
    checksums.store(path, records.to_csv(rows, records.HISTORY, digits=6))


def rounded(row: dict) -> dict:
    """A row of the history as its file gives it back: a resumed run averages what an unstopped one does."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}


def thinned(rows: list[dict], epoch: int) -> list[dict]:
    """The rows, those of one epoch replaced by means over fifty; step, images and seconds of the last."""
    own = [row for row in rows if row["epoch"] == epoch]
    means = []
    for start in range(0, len(own), 50):
        part = own[start:start + 50]
        mean = {key: sum(float(row[key]) for row in part) / len(part) for key in part[0]}
        means.append(rounded(mean | {key: part[-1][key] for key in ("step", "epoch", "images", "seconds")}))
    return [row for row in rows if row["epoch"] < epoch] + means


def history_until(path: Path, step: int) -> list[dict]:
    """The rows of a history before a step; ArtifactError unless the last is of the one before it."""
    rows = [row for row in records.from_csv(path, records.HISTORY) if row["step"] < step]
    if step and (not rows or rows[-1]["step"] != step - 1):
        raise ArtifactError(f"{path} ends at step {rows[-1]['step'] if rows else 'none'}, the weights beside "
                            f"it are of step {step - 1}. Restore it with git, or delete the folder to train "
                            "the run afresh.")
    return rows


def source_state() -> dict[str, Any]:
    """Git commit of the code and whether `nodelib/` differs from it; None where git cannot tell."""
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True,
                                  text=True, timeout=20)
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
    names = ("torch", "torchvision", "torchdiffeq", "numpy")
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "precision": {"dtype": "float32", "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
                      "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32},
    }
