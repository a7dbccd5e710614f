"""Train one config: standard or adversarial, resumable to the bit on the same machine."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.experiment import artifacts, checksums, distributed, mnist, own_rays, snapshots
from nodelib.experiment.budget import Budget
from nodelib.experiment.configs import CONTINUES, TRAIN_IMAGES, AttackConfig, RunConfig, build
from nodelib.experiment.device import disable_tf32, resolve_device
from nodelib.experiment.paths import check_scratch, runs_root
from nodelib.experiment.progress import Progress
from nodelib.networks import ODENet, ResNet, count_parameters
from nodelib.solver.errors import NodelibError

CHECKPOINT_SECONDS = 60.0


class OutOfTime(RuntimeError):
    """The time budget ended before the run did; its checkpoint is stored and training can go on."""


class DivergedError(NodelibError, FloatingPointError):
    """The loss or its gradient is no longer finite; the last checkpoint is intact."""


def train(config: RunConfig, root: str | Path | None = None, *, device: str | torch.device = "cpu",
          budget: float | None = None, checkpoint_seconds: float = CHECKPOINT_SECONDS,
          progress: bool | None = None) -> artifacts.Run:
    """Train a config and store its run; resume from a checkpoint if there is one.

    Cross-entropy, Adam (Kingma and Ba, 2015), a random end time per batch where the config asks for one.
    Adversarial training classifies each batch's clean and attacked images together; the attack runs in eval
    mode unless the config says otherwise. All randomness of a step is drawn from (seed, step), so a run that
    was interrupted and resumed gives the bits of one that was not, on the same machine and thread count. A
    stored run that is the first learning-rate cycles of the config is prolonged, and replaced when the longer
    run is complete; one of another name (`configs.CONTINUES`) is prolonged into a folder of its own and
    stays. A run at a constant rate (`RunConfig.endless`) is stored anew after every epoch, with its
    optimiser's state beside it, and prolonged from there bit for bit; what was measured of its older weights
    goes.

    Within `distributed.processes`, or a process group of your own, every process calls this with the same
    arguments and takes its slice of each batch; rank 0 writes, and all must see its folder.

    Args:
        config: what to train.
        root: folder that holds the runs; default `data/runs`.
        device: "cpu" or "cuda".
        budget: seconds after which to stop at a checkpoint, 0 or more and finite, or None.
        checkpoint_seconds: seconds between checkpoints.
        progress: True or False to show progress or not; default: a bar on a terminal, else plain lines.

    Raises:
        OutOfTime: the budget ended first; call again to continue.
        ArtifactError: the folder is being written by another process, or holds a damaged checkpoint or a
            finished run that the config does not prolong.
        DivergedError: the loss or its gradient is not finite.
        KeyboardInterrupt: SIGINT or SIGTERM came; the step in hand was finished and stored.
        InputError: several processes cannot share the config, see `distributed.check`, or the budget is
            negative or not finite.
    """
    distributed.check(config)
    Budget(budget)  # refused before any work
    device = resolve_device(device)
    disable_tf32()
    folder = runs_root(root) / config.folder
    check_scratch(config.scale, folder.parent)
    with artifacts.locked(folder) if distributed.leads() else contextlib.nullcontext():
        return _train(config, folder, device, budget, checkpoint_seconds, progress)


def _resume(config: RunConfig, folder: Path, model: ODENet | ResNet, optimiser: torch.optim.Optimizer,
            device: torch.device) -> tuple[int, list[dict], artifacts.Run | None]:
    """Where training begins: step, history, model and optimiser as they were; the run, if complete."""
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        tensors, start = artifacts.load_checkpoint(checkpoint, fingerprint(config))
        _restore(model, optimiser, tensors)
        if not config.endless and not _outdated(folder, config.epochs):
            return start, [], artifacts.load_run(folder)
        if start > config.steps:
            raise artifacts.ArtifactError(f"{folder} holds {start // config.steps_per_epoch} epochs of this "
                                          f"run, and {config.epochs} are asked for; what was trained is not "
                                          "undone, so ask for more epochs, or give another root or seed")
        rows = artifacts.history_until(folder / "history.csv", start)
        last = start // config.steps_per_epoch - 1
        if config.endless and sum(row["epoch"] == last for row in rows) == config.steps_per_epoch:
            rows = artifacts.thinned(rows, last)  # killed before it was
        complete = start >= config.steps and not _outdated(folder, last + 1)
        return start, rows, artifacts.load_run(folder) if complete else None
    if config.endless and (folder / "config.json").exists():
        raise artifacts.ArtifactError(f"{checkpoint} is missing, without which this run at a constant rate "
                                      "cannot be prolonged bit for bit; restore it with git, or delete the "
                                      "folder to train afresh")
    prefix = stored_prefix(config, folder)
    if prefix is not None:
        model.load_state_dict(prefix.load_model(device).state_dict())
        start = RunConfig.from_dict(prefix.config).steps
        return start, artifacts.history_until(prefix.path / "history.csv", start), None
    if (folder / "config.json").exists() and (
            (folder / "model.safetensors").exists()
            or RunConfig.from_dict(artifacts.load_run(folder).config) != config):
        raise artifacts.ArtifactError(f"{folder} holds a finished run, which this config does not prolong; "
                                      "delete that folder to train it again, or give another root or seed")
    return 0, [], None


def _others(config: RunConfig, images: Tensor, labels: Tensor, step: int,
            count: int) -> tuple[Tensor, Tensor] | None:
    """The images that a step attacks, where they are other ones than the batch's."""
    if not (config.adversarial and config.adversarial.other_images):
        return None
    second = _generator(config.seed, "others", step).permutation(config.train_images)[:count]
    index = torch.from_numpy(second).to(images.device)
    return images[index], labels[index]


@dataclasses.dataclass
class _Store:
    """What a training writes into its run's folder, by rank 0 alone: checkpoints between steps, and the run.

    Killed anywhere, the older or the newer state stays there, or a resume mends it.
    """
    config: RunConfig
    folder: Path
    model: ODENet | ResNet
    optimiser: torch.optim.Optimizer
    device: torch.device
    start: int
    rows: list[dict]  # of the history, as far as training is
    watch: snapshots.Watch
    began: float  # by the monotonic clock, seconds
    started: datetime

    def __post_init__(self) -> None:
        self.before = self.rows[-1]["seconds"] if self.rows else 0.0

    def passed(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self.began

    def add(self, row: dict) -> None:
        self.rows.append(artifacts.rounded({**row, "seconds": self.before + self.passed()}))

    def _write(self, step: int) -> None:
        # the history first: a checkpoint never knows of steps that the history lacks
        artifacts.write_history(self.folder / "history.csv", self.rows)
        artifacts.save_checkpoint(self.folder / "checkpoint.safetensors", _state(self.model, self.optimiser),
                                  step, fingerprint(self.config))

    def save(self, step: int) -> None:
        """Store a checkpoint as of a step."""
        if distributed.leads():
            with artifacts.writing(self.folder):
                self._write(step)

    def publish(self, step: int) -> None:
        """Store the run as of a step."""
        if not distributed.leads():
            return
        config, folder = self.config, self.folder
        with artifacts.writing(folder):  # who measures the run meanwhile stores nothing between these lines
            if config.endless or (folder / "config.json").exists():
                self._write(step)
            # true of older weights only
            for name in ("metrics.csv", "outcomes.safetensors", "measurements.csv"):
                checksums.store(folder / name, None)
            weights_sha256 = artifacts.save_model(folder / "model.safetensors", self.model)
            # after these, by which a reader knows that the config is still to come
            self.watch.store_nearest(self.model, step)
            artifacts.write_history(folder / "history.csv", self.rows)
            epochs = step // config.steps_per_epoch if config.endless else config.epochs
            done = dataclasses.replace(config, epochs=epochs)
            artifacts.write_json(folder / "config.json", {
                "config": done.to_dict(),
                "provenance": {
                    **artifacts.source_state(), **artifacts.environment(self.device),
                    "dataset_sha256": mnist.fingerprint(), "weights_sha256": weights_sha256,
                    "parameters": count_parameters(self.model), "processes": distributed.size(),
                    "seconds": round(self.rows[-1]["seconds"], 1) if self.rows else 0.0,
                    "started": self.started.isoformat(timespec="seconds"),
                    "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    "resumed": self.start > 0, **artifacts.kept_weights(folder),
                },
            })

    def mend(self) -> None:
        """Of a run that was killed between the checkpoint of an epoch and its store: store it."""
        epochs, rest = divmod(self.start, self.config.steps_per_epoch)
        if self.config.endless and self.start and not rest and _outdated(self.folder, epochs):
            self.publish(self.start)

    def end_epoch(self, step: int, epoch: int) -> None:
        """Of a run at a constant rate: the epoch's history thinned, and the run as of its end stored."""
        self.save(step)  # an older checkpoint must not meet a history that lacks its steps
        self.rows[:] = artifacts.thinned(self.rows, epoch)
        if step < self.config.steps:
            self.publish(step)


def _initial(config: RunConfig, folder: Path, device: torch.device) -> ODENet | ResNet:
    """The network before its first step: built from the seed, or another run's where the config says so."""
    model = build(config).to(device)
    if config.start:
        first = artifacts.load_run(folder.parent / f"{config.start}-seed{config.seed}")
        model.load_state_dict(first.load_model().state_dict())
    model.pooling = config.pooling
    return model


def _train(config: RunConfig, folder: Path, device: torch.device, budget: float | None,
           checkpoint_seconds: float, progress: bool | None) -> artifacts.Run:
    began, started = time.monotonic(), datetime.now(timezone.utc)
    images, labels = mnist.load("train")
    chosen = training_images(config)
    images, labels = images[chosen].to(device), labels[chosen].to(device)
    model = _initial(config, folder, device)
    optimiser = adam(model, config)
    start, rows, finished = _resume(config, folder, model, optimiser, device)
    leads = distributed.leads()
    # it also keeps rank 0 from writing before all have read
    if any(there != (start,) for there in distributed.gather(start)):
        raise artifacts.ArtifactError(f"the processes find different states of the run in {folder}; give a "
                                      "folder that all machines see (--root)")
    if finished is not None:
        if leads and not config.endless:
            (folder / "checkpoint.safetensors").unlink()  # killed after the run was complete
        return finished
    parallel = distributed.shared(model)
    watch = snapshots.Watch(config, folder, start)
    store = _Store(config, folder, model, optimiser, device, start, rows, watch, began, started)
    store.mend()
    if start == 0 and leads:
        watch.take(model, 0)
    saved = time.monotonic()
    with (Progress(config.folder, config.steps, "step", start, progress if leads else False) as bar,
          stop_requests() as stops):
        for step in range(start, config.steps):
            epoch, position = divmod(step, config.steps_per_epoch)
            index = batch(config, step).to(device)
            if config.cycle(step)[1] == step:  # a new cycle knows nothing of the moments of the one before
                optimiser.state.clear()
            set_rate(optimiser, config, step)
            others = _others(config, images, labels, step, len(index))
            row = _step(model, optimiser, images[index], labels[index], config, step, others, parallel)
            store.add({"step": step, "epoch": epoch, "images": row.pop("images"), **row})
            bar.advance(f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, nfe {row['nfe_forward']}")
            if leads:
                watch.take(model, step + 1)
            if config.endless and position + 1 == config.steps_per_epoch:
                store.end_epoch(step + 1, epoch)
                saved = time.monotonic()
            late = budget is not None and store.passed() > budget and step + 1 < config.steps
            stopped, out_of_time = map(any, zip(*distributed.gather(bool(stops), late)))
            if stopped or out_of_time:  # only between steps: a half-made update must never be stored
                store.save(step + 1)
                raise KeyboardInterrupt if stopped else OutOfTime(
                    f"{config.folder}: {step + 1} of {config.steps} steps are done and stored; "
                    "run the same command again to continue")
            if time.monotonic() - saved > checkpoint_seconds:
                store.save(step + 1)
                saved = time.monotonic()
    model.eval()
    store.publish(config.steps)
    if leads and not config.endless:
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    distributed.gather(0)  # until it is stored
    return artifacts.load_run(folder)


def training_images(config: RunConfig) -> np.ndarray:
    """Indices of a config's training images, in their order: the first, or random ones from its seed."""
    if config.subset == "first":
        return np.arange(config.train_images)
    return np.sort(_generator(config.seed, "subset", 0).permutation(TRAIN_IMAGES)[:config.train_images])


def batch(config: RunConfig, step: int) -> Tensor:
    """Which of its training images a config takes in a step, counted from 0: int64, shape (batch_size,) or,
    at the end of an epoch, shorter.
    """
    epoch, position = divmod(step, config.steps_per_epoch)
    order = _order(config.seed, epoch, config.train_images)
    return torch.from_numpy(order[position * config.batch_size:(position + 1) * config.batch_size])


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return _generator(seed, "order", epoch).permutation(images)


def adam(model: ODENet | ResNet, config: RunConfig) -> torch.optim.Adam:
    """A fresh optimiser of a network, as training begins with; `set_rate` sets its rates."""
    return torch.optim.Adam(_parameter_groups(model, config), lr=config.learning_rate)


def set_rate(optimiser: torch.optim.Optimizer, config: RunConfig, step: int) -> None:
    """Give each group of `adam` its rate of a step."""
    for group in optimiser.param_groups:
        group["lr"] = group["scale"] * learning_rate(config, step)


def _outdated(folder: Path, epochs: int) -> bool:
    """Whether a folder does not hold the run after so many epochs whole: a store that was interrupted."""
    try:
        run = artifacts.load_run(folder)
        run.load_model()
    except artifacts.ArtifactError:
        return True
    return run.config["epochs"] < epochs


def stored_prefix(config: RunConfig, folder: Path) -> artifacts.Run | None:
    """The finished run that the config prolongs by further learning-rate cycles: in a folder, or beside it;
    else None.

    Beside it lies the run of another name that a config of `configs.CONTINUES` begins as.
    """
    own = (folder / "config.json").exists()
    if not own and config.name in CONTINUES:
        folder = folder.parent / f"{CONTINUES[config.name]}-seed{config.seed}"
    if not (folder / "config.json").exists():
        return None
    stored = artifacts.load_run(folder)
    shorter = RunConfig.from_dict(stored.config)
    shorter = shorter if own else dataclasses.replace(shorter, name=config.name)
    return stored if config.extends(shorter) else None


def _parameter_groups(model: ODENet | ResNet, config: RunConfig) -> list[dict]:
    """The optimiser's groups: the head's weights with a scaled rate, and all others."""
    head = model.linear.weight
    return [{"params": [p for p in model.parameters() if p is not head], "scale": 1.0},
            {"params": [head], "scale": config.head_scale if config.head_rate is None else config.head_rate}]


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of stopping at once; a second one stops at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return

    def handle(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _step(model: ODENet | ResNet, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor,
          config: RunConfig, step: int, others: tuple[Tensor, Tensor] | None = None,
          parallel: nn.Module | None = None) -> dict:
    """One optimiser step; returns the history's columns, over all processes (of nfe the largest). `others`:
    images and labels to attack instead of the batch's own; `parallel`: see `distributed.shared`.
    """
    draw = _generator(config.seed, "step", step)
    low, high = config.t1
    t1 = float(draw.uniform(low, high)) if high > low else low
    model.pool.generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    inputs, targets = images, labels
    attack = config.adversarial and config.adversarial.in_cycle(config.cycle(step)[0])
    with model.pool.hold() if attack and attack.shared_pooling else contextlib.nullcontext():
        if attack:
            victims = (images, labels) if others is None else others
            inputs = torch.cat([images, attack_batch(model, *victims, config, attack, t1, draw)])
            targets = torch.cat([labels, victims[1]])
        model.train()
        if parallel is not None:
            state, logits, targets = None, parallel(inputs, t1), distributed.own_slice(targets)
        else:
            state = model.block(model.stem(inputs), t1) if isinstance(model, ODENet) else None
            logits = model(inputs) if state is None else model.head(state)
    nfe_forward = _nfe(model)
    loss = F.cross_entropy(logits, targets)
    if config.own_rays and isinstance(model, ODENet) and state is not None:
        points = torch.Generator().manual_seed(int(draw.integers(2**62)))
        loss = loss + config.own_rays * own_rays.penalty(model, state, targets, t1, points)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    losses, accuracies, *nfe = zip(*distributed.gather(
        loss.item(), (logits.argmax(1) == targets).float().mean().item(), nfe_forward,
        _nfe(model, backward=True)))
    value, correct = sum(losses) / len(losses), sum(accuracies) / len(accuracies)
    slope = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    for quantity, number, way_out in (("loss", value, ""),
                                      ("gradient's norm", slope, "shorten the end time, over which it grows, "
                                                                 "or ")):
        if not math.isfinite(number):
            raise DivergedError(f"the {quantity} is {number} at step {step} of {config.folder} (t1 = "
                                f"{t1:g}); the last checkpoint is intact, {way_out}lower the learning rate "
                                f"({config.learning_rate:g})")
    optimiser.step()
    return {"images": (step % config.steps_per_epoch) * config.batch_size + len(images)
            + (step // config.steps_per_epoch) * config.train_images,
            "t1": t1, "loss": value, "accuracy": correct, "nfe_forward": int(max(nfe[0])),
            "nfe_backward": int(max(nfe[1]))}


def attack_batch(model: ODENet | ResNet, images: Tensor, labels: Tensor, config: RunConfig,
                 attack: AttackConfig, t1: float, draw: np.random.Generator) -> Tensor:
    """PGD images for one step of adversarial training, in eval mode or, the post's way, in training mode."""
    model.train(attack.train_mode)
    pgd = attack.pgd(t1=t1 if isinstance(model, ODENet) else None, seed=int(draw.integers(2**62)),
                     allow_random_forward=config.pooling == "random")
    return pgd(model, images, labels)


def _nfe(model: nn.Module, backward: bool = False) -> int:
    return int(getattr(getattr(model, "block", None), "nfe_backward" if backward else "nfe", None) or 0)


def learning_rate(config: RunConfig, step: int) -> float:
    """Adam's rate at a step: constant but for halvings, or a cosine to 0, maybe warmed up over a tenth."""
    number, first, length = config.cycle(step)
    halvings = sum(step >= epoch * config.steps_per_epoch for epoch in config.halve_after)
    peak, step = config.learning_rate * 0.5 ** (number + halvings), step - first
    if config.schedule == "constant":
        return peak
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * step / length))
    warm_up = max(1, length // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, length - warm_up)))


def fingerprint(config: RunConfig) -> str:
    """SHA-256 of the config's identity: what a checkpoint must match to be resumed."""
    return hashlib.sha256(json.dumps(config.identity(), sort_keys=True).encode()).hexdigest()


def _generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """A generator for one purpose and index: no state to carry, so none to lose at a resume."""
    return np.random.default_rng([seed, {"order": 0, "step": 1, "subset": 2, "others": 3}[purpose], index])


def _state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors.update({f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()})
    return tensors


def _restore(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def run(config: RunConfig, root: str | Path | None = None, *, device: str | torch.device = "cpu",
        evaluate: bool = True, progress: bool | None = None) -> artifacts.Run:
    """The stored run of a config, or else train (and evaluate) it now.

    A stored run of the same name and seed but another config is an error, never overwritten, unless the
    config only adds learning-rate cycles: then it is prolonged. One at a constant rate, which can end after
    any epoch, is given back with the epochs it has (`config["epochs"]`), up to those asked for; `train`
    prolongs it.

    Args:
        config: what to train.
        root: folder that holds the runs; default `data/runs`.
        device: "cpu" or "cuda", for training and evaluation.
        evaluate: measure what `nodelib.experiment.protocols.table_protocol` lists and the run lacks.
        progress: True or False to show progress or not; default: a bar on a terminal, else plain lines.

    Returns:
        the stored run, with its records.

    Raises:
        ArtifactError: the folder holds a run of another config, or a damaged one, or is being written by
            another process.
        DivergedError, KeyboardInterrupt, InputError: as `train`.
        MeasurementError: as `nodelib.evaluate_run`.
    """
    from nodelib.experiment import evaluation, protocols

    folder = runs_root(root) / config.folder
    # at a constant rate it is complete after every epoch, and only the command `train` prolongs it
    if unfinished(config, folder) and not (config.endless and (folder / "config.json").exists()):
        train(config, root, device=device, progress=progress)
    if evaluate:
        evaluation.evaluate_run(folder, protocols.table_protocol(config), device=device, progress=progress)
    return artifacts.load_run(folder)


def unfinished(config: RunConfig, folder: Path) -> bool:
    """Whether the folder lacks the run: there is none, a shorter one, one without weights, or one killed with
    its checkpoint left.

    Raises:
        InputError: the run would be one at smoke scale among the published ones.
        ArtifactError: the folder holds a run of another config, which this one does not prolong.
    """
    check_scratch(config.scale, folder.parent)  # first: no other seed is the way out of a published folder
    if not (folder / "config.json").exists() or stored_prefix(config, folder) is not None:
        return True
    stored = artifacts.load_run(folder).config
    if RunConfig.from_dict(stored) != config:
        differing = sorted(key for key, value in config.to_dict().items() if stored.get(key) != value)
        raise artifacts.ArtifactError(f"{folder} holds {config.folder} with another config (differs in "
                                      f"{', '.join(differing)}); give another root or seed, or delete that "
                                      "folder to train it again")
    if not (folder / "model.safetensors").exists():
        return True
    if config.endless or not (checkpoint := folder / "checkpoint.safetensors").exists():
        return False
    with contextlib.suppress(artifacts.ForeignCheckpoint):  # of a longer run that this one becomes
        artifacts.load_checkpoint(checkpoint, fingerprint(config))
        return True
    return False
