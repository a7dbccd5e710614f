"""Accuracy over end times, on clean and attacked test images, with confidence intervals."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodelib import artifacts, mnist
from nodelib.attacks import fgsm, pgd
from nodelib.attacks.common import check_epsilon, check_images, check_labels
from nodelib.configs import TABLE_T1, RunConfig
from nodelib.models import POOLINGS, ODENet, ResNet, check_end_time
from nodelib.odeint import GRADIENTS
from nodelib.progress import Progress

EPSILON = 0.3  # the post's, and the usual one on MNIST
SEED_BATCH = 32  # the post's protocol: the continuous adjoint's error depends on it through atol
BATCH = 250
TEST_IMAGES = 10000


def wilson(correct: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default (Wilson, 1927).

    Args:
        correct: successes, 0 to n.  n: trials, at least 1.  z: normal quantile of the two-sided level.

    Returns:
        lower and upper end, in [0, 1].
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct is {correct} of n = {n}; needed are n >= 1 and 0 <= correct <= n")
    p, spread = correct / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def describe_gradient(gradient: str) -> tuple[str, str]:
    """Method ("exact", "adjoint" or "anchored") and library of a gradient name, as records state them."""
    library, _, method = gradient.rpartition("-")
    return {"backprop": "exact"}.get(method, method), library or "nodelib"


@dataclass(frozen=True)
class Measurement:
    """One accuracy to measure.

    Fields:
        t1: end time of the test (the attack's too).
        n: number of test images, the first n of `test_order()`, 1 to 10,000.
        attack: "none", "fgsm" or "pgd".
        epsilon: radius in pixel units; 0 for "none".
        clip: attacked pixels kept in [0, 1].
        gradient: of the attack, one of `nodelib.odeint.GRADIENTS`.
        pooling: "fixed" or "random"; random regions differ between the attack and the scoring.
        pooling_seed: of the random regions.
        steps, step_size, restarts, seed: of PGD.
        batch: images per solve; they share one step size, so it is part of the protocol.
        rtol, atol: tolerances of scoring and attack.
        label: short name used in the record's id.
    """

    t1: float
    n: int
    attack: str = "none"
    epsilon: float = 0.0
    clip: bool = True
    gradient: str = "exact"
    pooling: str = "fixed"
    pooling_seed: int = 0
    steps: int = 1
    step_size: float = 0.0
    restarts: int = 1
    seed: int = 0
    batch: int = BATCH
    rtol: float = 1e-3
    atol: float = 1e-3
    label: str = ""

    def __post_init__(self) -> None:
        check_end_time(self.t1)
        check_epsilon(self.epsilon)
        if self.attack not in ("none", "fgsm", "pgd"):
            raise ValueError(f"unknown attack {self.attack!r}; the known attacks are none, fgsm, pgd")
        if not 1 <= self.n <= TEST_IMAGES:
            raise ValueError(f"n is {self.n}; it must be from 1 to {TEST_IMAGES}")
        if self.gradient not in GRADIENTS:
            raise ValueError(f"gradient is {self.gradient!r}; it must be one of {', '.join(GRADIENTS)}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r}; it must be one of {', '.join(POOLINGS)}")

    @property
    def id(self) -> str:
        """Name of the record: label and end time, as in "fgsm-seed-t10"."""
        return f"{self.label or self.attack}-t{self.t1:g}"


def table_protocol(config: RunConfig) -> list[Measurement]:
    """What every run is measured on: the table's columns at the post's four end times.

    Per end time: clean accuracy with fixed and with random pooling; FGSM by the post's protocol (not
    clipped, random pooling, continuous adjoint, batch 32); FGSM and PGD-10 with the exact gradient
    (clipped, fixed pooling). Smoke runs use fewer images away from their own end time.
    """
    times = TABLE_T1 if config.architecture == "odenet" else (config.test_t1,)
    smoke = config.scale == "smoke"
    result = []
    for t1 in times:
        own = t1 == config.test_t1
        n = config.test_images if own or not smoke else min(config.test_images, config.attack_images)
        attacked = config.attack_images
        result.append(Measurement(t1, n))
        if attacked:
            result.append(Measurement(t1, attacked, "fgsm", EPSILON, batch=min(BATCH, attacked), label="fgsm-exact"))
        if smoke:
            continue
        result.append(Measurement(t1, n, pooling="random", label="none-random"))
        if attacked:
            result.append(Measurement(t1, attacked, "fgsm", EPSILON, clip=False, gradient="adjoint",
                                      pooling="random", batch=SEED_BATCH, label="fgsm-seed"))
            result.append(Measurement(t1, attacked, "pgd", EPSILON, steps=10, step_size=0.075, label="pgd10-exact"))
    if config.architecture != "odenet":  # no solver, so no gradient method to tell apart
        result = [m for m in result if m.label != "fgsm-seed"]
    return result


def test_order() -> np.ndarray:
    """The order in which test images are used: a fixed shuffle, so that any first n are a fair sample.

    (The first half of MNIST's test set is known to be easier than the second.)
    """
    return np.random.default_rng(0).permutation(TEST_IMAGES)


test_order.__test__ = False  # not a test, whatever pytest thinks of the name


def test_subset(n: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the first n of `test_order()`."""
    images, labels = mnist.load("test")
    index = torch.from_numpy(test_order()[:n])
    return images[index], labels[index]


test_subset.__test__ = False


@contextlib.contextmanager
def _as_measured(model: ODENet | ResNet, measurement: Measurement) -> Iterator[None]:
    """The model in eval mode, with the measurement's pooling and tolerances, for the time being."""
    block = getattr(model, "block", None)
    before = (model.training, model.pooling, model.pool.generator, block and (block.rtol, block.atol))
    model.eval()
    model.pooling = measurement.pooling
    model.pool.generator = torch.Generator().manual_seed(measurement.pooling_seed)
    if block is not None:
        block.rtol, block.atol = measurement.rtol, measurement.atol
    try:
        yield
    finally:
        model.train(before[0])
        model.pooling, model.pool.generator = before[1], before[2]
        if block is not None:
            block.rtol, block.atol = before[3]


def attack(model: ODENet | ResNet, images: Tensor, labels: Tensor, measurement: Measurement) -> Tensor:
    """The images as the measurement's attack changes them (unchanged for "none")."""
    random = measurement.pooling == "random"
    if measurement.attack == "none":
        return images
    common = dict(t1=measurement.t1, clip=measurement.clip, gradient=measurement.gradient,
                  allow_random_forward=random)
    if measurement.attack == "fgsm":
        return fgsm(model, images, labels, measurement.epsilon, **common)
    return pgd(model, images, labels, measurement.epsilon, step_size=measurement.step_size,
               steps=measurement.steps, restarts=measurement.restarts, seed=measurement.seed, **common)


def evaluate(model: ODENet | ResNet, images: Tensor, labels: Tensor, measurement: Measurement,
             progress: bool | None = False) -> tuple[np.ndarray, float]:
    """Which images the model classifies correctly under a measurement, and the mean NFE of a solve.

    Args:
        model: its mode, pooling and tolerances are restored afterwards.
        images: shape (N, 1, 28, 28), in [0, 1]; labels: shape (N,), 0 to 9.
        measurement: what to do to them; its `n` is not used here.
        progress: True or False to show progress or not; None: a bar on a terminal, else plain lines.

    Returns:
        correct, bool, shape (N,); NFE per solve averaged over images (0 without a solver).

    Raises:
        ValueError: invalid images or labels, before any work.
    """
    check_images(images)
    check_labels(labels, len(images))
    correct, nfe = [], 0.0
    batches = range(0, len(images), measurement.batch)
    with (_as_measured(model, measurement),
          Progress(measurement.id, len(batches), "batch", shown=progress) as bar):
        for start in batches:
            x, y = images[start:start + measurement.batch], labels[start:start + measurement.batch]
            x = attack(model, x, y, measurement)
            with torch.no_grad():
                logits = model(x, measurement.t1)
            if not torch.isfinite(logits).all():
                raise ValueError(f"the model's logits are not finite at t1 = {measurement.t1:g}; check its weights")
            correct.append((logits.argmax(1) == y).cpu().numpy())
            nfe += len(x) * getattr(getattr(model, "block", None), "nfe", 0)
            bar.advance()
    return np.concatenate(correct), nfe / len(images)


def evaluate_run(folder: str | Path, measurements: list[Measurement], *, device: str | torch.device = "cpu",
                 progress: bool | None = None, budget: float | None = None) -> list[dict]:
    """Measure a stored run and add one record per measurement; records it has already are kept.

    Each record is stored as soon as it is measured, so an interrupted evaluation resumes where it
    stopped. `budget`: seconds after which no further record is begun.

    Returns:
        all records of the run.
    """
    from nodelib.training import disable_tf32, resolve_device

    folder, device = Path(folder), resolve_device(device)
    disable_tf32()
    run = artifacts.load_run(folder)
    records = list(run.metrics)
    pending = [m for m in measurements if m.id not in {record["id"] for record in records}]
    if not pending:
        return records
    began = time.monotonic()
    model = run.load_model(device)
    order_images, order_labels = test_subset(max(m.n for m in pending))
    order_images, order_labels = order_images.to(device), order_labels.to(device)
    commit = artifacts.source_state()["commit"]
    for measurement in pending:
        if budget is not None and time.monotonic() - began > budget:
            break
        started = time.monotonic()
        correct, nfe = evaluate(model, order_images[:measurement.n], order_labels[:measurement.n], measurement,
                                progress)
        seconds = time.monotonic() - started
        records.append(record(measurement, correct, nfe, seconds, artifacts.describe_device(device), commit))
        # outcomes first: a record is never without them
        artifacts.save_outcomes(folder / "outcomes.safetensors", measurement.id, correct)
        artifacts.write_json(folder / "metrics.json", records)
    return records


def record(measurement: Measurement, correct: np.ndarray, nfe: float, seconds: float, device: str,
           commit: str | None) -> dict:
    """One tidy record of the artifact contract."""
    m, n, hits = measurement, len(correct), int(correct.sum())
    low, high = wilson(hits, n)
    method, library = describe_gradient(m.gradient) if m.attack != "none" else ("none", "nodelib")
    settings = {}
    if m.attack != "none":
        settings = {"loss": "cross-entropy", "steps": m.steps if m.attack == "pgd" else 1,
                    "step_size": m.step_size if m.attack == "pgd" else m.epsilon,
                    "restarts": m.restarts, "random_start": m.attack == "pgd", "draws": 1, "logit_scale": 1.0,
                    "rtol": m.rtol, "atol": m.atol, "dtype": "float32", "batch": m.batch, "pooling": m.pooling,
                    "t1": m.t1, "seed": m.seed, "library": library}
    return {
        "id": m.id, "t1": m.t1, "n": n, "subset": "all" if n == TEST_IMAGES else f"first {n} of shuffle 0",
        "correct": hits, "accuracy": hits / n, "low": low, "high": high, "nfe": round(nfe, 2),
        "seconds": round(seconds, 2), "device": device, "commit": commit,
        "rtol": m.rtol, "atol": m.atol, "dtype": "float32", "batch": m.batch, "pooling": m.pooling,
        "pooling_seed": m.pooling_seed if m.pooling == "random" else None,
        "attack": m.attack, "epsilon": m.epsilon, "clip": m.clip if m.attack != "none" else None,
        "gradient": method, "source": "white-box" if m.attack != "none" else None, "combines": None,
        "settings": settings,
    }
