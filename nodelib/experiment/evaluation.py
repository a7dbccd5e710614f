"""Accuracy over end times, on clean and attacked test images, with confidence intervals."""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodelib.attacks.common import check_images, check_result, forward, project
from nodelib.experiment import artifacts, mnist
from nodelib.experiment.budget import Budget
from nodelib.experiment.device import disable_tf32, resolve_device
from nodelib.experiment.measurement import (
    REFERENCE,
    REFERENCE_TOLERANCE,
    TEST_IMAGES,
    Measurement,
    made_otherwise,
    record,
)
from nodelib.experiment.progress import Progress
from nodelib.experiment.worst_case import survivors
from nodelib.networks import CLASSES, ODEBlock, ODENet, ResNet, check_labels
from nodelib.solver.errors import InputError, NodelibError, is_whole, plain
from nodelib.solver.kernel import unbalanced

# model, images, labels and the signs of their gradient, which FGSM needs again at another epsilon
Directions = dict[tuple, tuple[ODENet | ResNet, Tensor, Tensor, Tensor]]


class MeasurementError(NodelibError, RuntimeError):
    """A record of a run cannot be measured; what was measured before it is stored."""


def test_order() -> np.ndarray:
    """The order in which test images are used: a fixed shuffle, so that any first n are a fair sample.

    (The first half of MNIST's test set is known to be easier than the second.)
    """
    return np.random.default_rng(0).permutation(TEST_IMAGES)


setattr(test_order, "__test__", False)  # not a test, whatever pytest thinks of the name


def check_count(n: int) -> None:
    """InputError unless n is a number of test images, a whole one from 1 to 10,000."""
    if not is_whole(plain(n), 1) or n > TEST_IMAGES:
        raise InputError(f"n is {n!r}; it must be a whole number from 1 to {TEST_IMAGES}, the images of the "
                         "test set")


def test_subset(n: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the first n of `test_order()`; InputError unless n is from 1 to 10,000."""
    check_count(n)
    images, labels = mnist.load("test")
    index = torch.from_numpy(test_order()[:n])
    return images[index], labels[index]


setattr(test_subset, "__test__", False)


def subset_for(run: artifacts.Run, n: int, replaces: Callable[[dict], bool]) -> tuple[Tensor, Tensor]:
    """The `test_subset` on which a run's measurements are made anew that `replaces` picks.

    Raises:
        InputError: n is not from 1 to 10,000.
        ArtifactError: the run holds one of them on more images: now, and not when the work is done.
    """
    found = test_subset(n)
    artifacts.check_not_fewer(run, n, replaces)
    return found


@contextlib.contextmanager
def at_tolerance(block: ODEBlock | None, rtol: float, atol: float) -> Iterator[None]:
    """Other tolerances of the ODE block, if there is one, for the time being."""
    if block is None:
        yield
        return
    before = block.rtol, block.atol
    block.rtol, block.atol = rtol, atol
    try:
        yield
    finally:
        block.rtol, block.atol = before


@contextlib.contextmanager
def by_fixed_steps(block: ODEBlock | None, t1: float, steps: int | None) -> Iterator[None]:
    """The ODE block solved to t1 by so many equal steps of RK4 for the time being, or as it is for None."""
    if block is None or steps is None:
        yield
        return
    before = block.method, block.step_size
    block.method, block.step_size = "rk4", t1 / steps
    try:
        yield
    finally:
        block.method, block.step_size = before


@contextlib.contextmanager
def evaluating(model: ODENet | ResNet, pooling: str, seed: int = 0) -> Iterator[None]:
    """The model in eval mode with such pooling regions, drawn from the seed if random, for the time being."""
    modes = [(part, part.training) for part in model.modules()]  # a part may have another than the whole
    before = (model.pooling, model.pool.generator)
    model.eval()
    model.pooling = pooling
    model.pool.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        model.pooling, model.pool.generator = before


def attack(model: ODENet | ResNet, images: Tensor, labels: Tensor, measurement: Measurement, *,
           source: ODENet | ResNet | None = None) -> Tensor:
    """The images as the measurement's attack changes them (unchanged for "none").

    Args:
        model: as `evaluate` sets it up: in eval mode, with the measurement's pooling.
        source: the network that a "transfer" attacks instead, at its own end time.
    """
    m = measurement
    if m.attack == "none":
        return images
    if m.attack == "worst":
        raise InputError("a worst case is computed from a run's records, not attacked; use evaluate_run")
    if m.attack == "transfer":
        if source is None:
            raise InputError(f"no source is given; a transfer attack needs the network of {m.source}")
        return m.as_attack(isinstance(source, ODENet))(source, images, labels)
    rtol, atol = m.attack_tolerance or m.rtol, m.attack_tolerance or m.atol
    if m.gradient == REFERENCE:
        # one generator for both: a copy of it would give the attack the regions of the scoring
        pooling = model.pool.generator
        model, rtol, atol = copy.deepcopy(model).double(), REFERENCE_TOLERANCE, REFERENCE_TOLERANCE
        model.pool.generator = pooling
    block = getattr(model, "block", None)
    if block is None and m.attack_steps is not None:
        raise InputError(f"attack_steps is {m.attack_steps} for a network without a solver; leave it out")
    with (at_tolerance(block, rtol, atol), by_fixed_steps(block, m.t1, m.attack_steps),
          unbalanced(not m.balanced)):
        perturb = m.as_attack(isinstance(model, ODENet))
        return perturb(model, images.to(model.linear.weight.dtype), labels).to(images.dtype)


def _fgsm_again(model: ODENet | ResNet, images: Tensor, labels: Tensor, m: Measurement, start: int,
                directions: Directions) -> Tensor:
    """FGSM from the gradient's signs, which do not depend on epsilon and so are computed once per batch."""
    key = (m.t1, m.gradient, m.rtol, m.atol, m.attack_tolerance, m.attack_steps, m.loss, m.logit_scale,
           m.balanced, m.batch, start, len(images))
    found = directions.get(key)
    if found is None or not (found[0] is model and torch.equal(found[1], images)
                             and torch.equal(found[2], labels)):
        unit = dataclasses.replace(m, epsilon=1.0, clip=False)
        found = (model, images, labels, (attack(model, images, labels, unit) - images).sign())
        directions[key] = found
    moved = project(images + m.epsilon * found[3], images, m.epsilon, m.clip)
    return check_result(moved, images, m.epsilon, m.clip, "fgsm")


def evaluate(model: ODENet | ResNet, images: Tensor, labels: Tensor, measurement: Measurement,
             progress: bool | None = False, *, alive: np.ndarray | None = None,
             source: ODENet | ResNet | None = None,
             directions: Directions | None = None) -> tuple[np.ndarray, float]:
    """Which images the model classifies correctly under a measurement, and the mean NFE of a solve.

    Attacked images are scored in fixed batches, the images in their order, whatever batches the attack
    used: a prediction depends on its batch-mates through the shared step size.

    Args:
        model: an `ODENet` or a `ResNet`, whose pooling a measurement sets; its mode, pooling and tolerances
            are restored afterwards. Any other classifier is attacked by `nodelib.fgsm` and `nodelib.pgd`, and
            scored by itself.
        images: shape (N, 1, 28, 28), in [0, 1], N at least 1; labels: shape (N,), 0 to 9.
        measurement: what to do to them; its `n` is not used here.
        progress: True or False to show progress or not; None: a bar on a terminal, else plain lines.
        alive: bool, shape (N,): attack these only and count the others as broken.
        source: the network that a "transfer" attacks.
        directions: filled with, and read for, what FGSM can use again at another epsilon, of the same model,
            images and labels.

    Returns:
        correct, bool, shape (N,); NFE per solve averaged over images (0 without a solver).

    Raises:
        InputError: another kind of model, or invalid images or labels, before any work.
    """
    if not isinstance(model, (ODENet, ResNet)):
        raise InputError(f"the model is a {type(model).__name__}; a Measurement is of an ODENet or a ResNet, "
                         "whose pooling it sets. Attack another one with nodelib.fgsm or nodelib.pgd, and "
                         "count what it then classifies right")
    check_images(images)
    if not len(images):
        raise InputError("there are 0 images, of which there is no accuracy; give 1 or more")
    check_labels(labels, len(images), CLASSES)
    m, correct, nfe = measurement, [], 0.0
    batches = range(0, len(images), m.batch)
    apart = alive is not None or m.attack_batch is not None  # the attack has batches of its own
    again = m.attack == "fgsm" and m.pooling == "fixed" and not apart
    todo = torch.arange(len(images)) if alive is None else torch.from_numpy(np.flatnonzero(alive))
    parts = todo.split(m.attack_batch or m.batch) if apart else ()
    with (evaluating(model, m.pooling, m.pooling_seed),
          at_tolerance(getattr(model, "block", None), m.rtol, m.atol),
          Progress(m.id, len(batches) + len(parts), "batch", shown=progress) as bar):
        attacked = images.clone() if apart else images
        for part in parts:
            if len(part):
                attacked[part] = attack(model, images[part], labels[part], m, source=source)
            bar.advance()
        for start in batches:
            x, y = attacked[start:start + m.batch], labels[start:start + m.batch]
            if directions is not None and again:
                x = _fgsm_again(model, x, y, m, start, directions)
            elif not apart:
                x = attack(model, x, y, m, source=source)
            with torch.no_grad():
                logits = forward(model, x, m.t1 if isinstance(model, ODENet) else None)
            correct.append((logits.argmax(1) == y).cpu().numpy())
            nfe += len(x) * getattr(getattr(model, "block", None), "nfe", 0)
            bar.advance()
    right = np.concatenate(correct)
    return (right if alive is None else right & alive), nfe / len(images)


def evaluate_run(folder: str | Path, measurements: list[Measurement], *, device: str | torch.device = "cpu",
                 progress: bool | None = None, budget: float | None = None) -> list[dict]:
    """Measure a stored run and add one record per measurement; records it has already are kept.

    A record of the same id on fewer images than asked for, or without outcomes, is measured again and
    replaced; one of another measurement is never taken for it. Each record is stored as soon as it is
    measured, so an interrupted evaluation resumes where it stopped. Worst cases come last, whatever the
    order, and are computed again whenever the records they combine have changed.

    Args:
        folder: of the run, or of weights that it kept, such as `small-10-post-seed0/epoch12`. The sources of
            transfer attacks lie beside the run.
        measurements: what to measure, in this order; each of an id of its own.
        device: "cpu" or "cuda".
        progress: True or False to show progress or not; default: a bar on a terminal, else plain lines.
        budget: seconds, 0 or more, after which no further record is begun (worst cases, which cost nothing,
            still are).

    Returns:
        all records of the run.

    Raises:
        InputError: a record of the same id is of another measurement, two of one id are asked for, the budget
            is negative or not finite, or there is no such device, before any work.
        MeasurementError: a solve or an attack failed for a known reason.
        ArtifactError: the run is damaged, or was trained further meanwhile.
    """
    folder, device = Path(folder), resolve_device(device)
    disable_tf32()
    run = artifacts.load_run(folder)
    _check_ids(run, measurements)
    pending = [m for m in measurements if m.attack != "worst" and not _measured(run, m)]
    worst = [m for m in measurements if m.attack == "worst"]
    time_left = Budget(budget)
    root = (folder if run.kept is None else folder.parent).parent  # kept weights lie within their run
    commit = artifacts.source_state()["commit"] if pending or worst else None
    where = artifacts.describe_device(device)
    model = run.load_model(device)  # damaged weights are refused, also where nothing is left to measure
    directions: Directions = {}
    sources: dict[str, ODENet | ResNet] = {}
    if pending:
        images, labels = (x.to(device) for x in test_subset(max(m.n for m in pending)))
    for m in pending:
        if _measured(run, m):
            continue  # asked for twice, or measured meanwhile by another process
        if time_left.spent:
            break
        if m.source is not None and m.source not in sources:
            sources[m.source] = artifacts.load_run(root / m.source).load_model(device)
        started = time.monotonic()
        alive, combines = survivors(_whole(run), run.outcomes, m) if m.drop else (None, None)
        source = None if m.source is None else sources[m.source]
        try:
            correct, nfe = evaluate(model, images[:m.n], labels[:m.n], m, progress, alive=alive,
                                    source=source, directions=directions)
        except NodelibError as error:
            raise MeasurementError(f"{folder.name}: {m.id} cannot be measured: {error}") from error
        found = record(m, correct, nfe, time.monotonic() - started, where, commit, combines=combines,
                       dropped=None if alive is None else int((~alive).sum()),
                       source_t1=getattr(getattr(source, "block", None), "t1", None))
        run = artifacts.add_metric(run, found, correct)
    for m in worst:
        run = _worst(run, m, where, commit)
    return list(run.metrics)


def _check_ids(run: artifacts.Run, measurements: list[Measurement]) -> None:
    """InputError where an id stands for two measurements, of those asked for or of one and a record."""
    asked: dict[str, Measurement] = {}
    stored = {r["id"]: r for r in run.metrics}
    for m in measurements:
        if dataclasses.replace(asked.setdefault(m.id, m), n=m.n) != m:
            raise InputError(f"two measurements would be stored as {m.id}; give one of them a label")
        if m.id in stored and (other := made_otherwise(m, stored[m.id])):
            raise InputError(f"{run.path.name}: {m.id} is stored with {'; '.join(other)}; give the "
                             "measurement a label of its own")


def missing(measurements: list[Measurement], records: list[dict]) -> list[str]:
    """Ids of the measurements of which there is no record on as many images; of a worst case, which is
    computed from others, none is missed.
    """
    have = {r["id"]: r["n"] for r in records}
    return [m.id for m in measurements if m.attack != "worst" and have.get(m.id, 0) < m.n]


def _whole(run: artifacts.Run) -> list[dict]:
    """The records that have their outcomes; one that lost them counts as not measured."""
    ids = run.outcome_ids()
    return [r for r in run.metrics if r["id"] in ids]


def _measured(run: artifacts.Run, m: Measurement) -> bool:
    return any(r["id"] == m.id and r["n"] >= m.n for r in _whole(run))


def _worst(run: artifacts.Run, m: Measurement, where: str, commit: str | None) -> artifacts.Run:
    stored = next((r for r in _whole(run) if r["id"] == m.id), None)
    if stored is not None and stored["n"] > m.n:
        m = dataclasses.replace(m, n=stored["n"])
    correct, combines = survivors(_whole(run), run.outcomes, m)
    if not combines:
        return run
    if stored and sorted(stored["combines"]) == sorted(combines) \
            and np.array_equal(run.outcomes(m.id), correct):
        return run
    return artifacts.add_metric(run, record(m, correct, 0.0, 0.0, where, commit, combines=combines), correct)
