"""Is the gradient that an attack follows any good? Measured per end time and gradient method.

    python -m nodelib health small-10 --images 64

An attack can fail because the network is robust or because its gradient is wrong. The records, defined in
`nodelib.experiment.contract.GRADIENT_MEASUREMENTS`, tell the two apart: gradients that are exactly zero,
signs and directions against a reference in double precision, and the size of the logits, which saturate the
cross-entropy. Batches are the post's, 32 images, because the continuous adjoint's error depends on them.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.attacks.common import attacking, input_gradient
from nodelib.attacks.losses import logit_gap
from nodelib.experiment import artifacts
from nodelib.experiment.configs import TABLE_T1, RunConfig
from nodelib.experiment.contract import GRADIENT_MEASUREMENTS
from nodelib.experiment.evaluation import at_tolerance, subset_for
from nodelib.experiment.measurement import REFERENCE_TOLERANCE, SEED_BATCH
from nodelib.experiment.progress import Progress
from nodelib.experiment.protocols import diagnostic_images
from nodelib.experiment.records import record
from nodelib.networks import ODENet

METHODS: dict[str, tuple[str, float]] = {
    "adjoint": ("adjoint", 1e-3), "anchored": ("anchored", 1e-3), "exact-1e-3": ("exact", 1e-3),
    "exact-1e-5": ("exact", 1e-5),
}
REMEDIES: dict[str, dict] = {"rescaled": dict(logit_scale="gap"), "margin": dict(loss="margin")}
STEP = 1e-5  # of the central difference, in pixel units: below it the solver's own error, 1e-7, shows
DIFFERENCED = 8  # images checked against finite differences
# Four fifths of MNIST's pixels are exactly 0, so pooling regions of the background hold equal values and the
# gradient goes through an arbitrary one of them; noise of this size tells them apart.
OFF_TIES = 1e-3


def gradients(model: ODENet, images: Tensor, labels: Tensor, t1: float, gradient: str, tolerance: float,
              **options: Any) -> Tensor:
    """Input gradients of the mean loss of each batch, shape of images; options go to `input_gradient`."""
    with attacking(model, gradient), at_tolerance(model.block, tolerance, tolerance):
        return torch.cat([input_gradient(model, x, y, t1, **options)[0]
                          for x, y in zip(images.split(SEED_BATCH), labels.split(SEED_BATCH))])


def zero_share(gradient: Tensor) -> float:
    """Share of images whose gradient is exactly zero in every pixel."""
    return (gradient.flatten(1) == 0).all(1).double().mean().item()


def cosines(found: Tensor, expected: Tensor) -> Tensor:
    """Cosine of the angle between vectors, row by row, in float64, shape (N,) for shapes (N, D); 0 where
    either is zero.

    Each is scaled to a largest entry of 1 first: a saturated softmax leaves gradients far below the 1e-8 to
    which torch.nn.functional.cosine_similarity pads lengths.
    """
    tiny = torch.finfo(torch.float64).tiny
    one, other = (x.double() / x.double().abs().amax(1, keepdim=True).clamp(min=tiny)
                  for x in (found, expected))
    return F.cosine_similarity(one, other)


def agreement(gradient: Tensor, reference: Tensor) -> tuple[float, float]:
    """Share of pixels with the reference's sign, and the median cosine with it (0 for a zero gradient)."""
    signs = (gradient.double().sign() == reference.sign()).double().mean().item()
    return signs, cosines(gradient.flatten(1), reference.flatten(1)).median().item()


def relative_error(gradient: Tensor, reference: Tensor) -> float:
    """Median over images of |gradient - reference| / |reference|; 1 for a gradient that is zero."""
    off = (gradient.double() - reference).flatten(1).norm(dim=1)
    return (off / reference.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)).median().item()


def finite_difference(double: ODENet, images: Tensor, labels: Tensor, t1: float) -> float:
    """Median relative difference of g . s and [L(x + h s) - L(x - h s)] / 2h, with s = sign(g), h = 1e-5, in
    float64.

    g is the reference gradient. At an image whose blank background ties in the max pooling the loss has a
    kink, and the two differ although both are right: see `OFF_TIES`.
    """
    errors = []
    for x, y in zip(images.split(SEED_BATCH), labels.split(SEED_BATCH)):
        g = gradients(double, x, y, t1, "exact", REFERENCE_TOLERANCE)
        with torch.no_grad(), at_tolerance(double.block, REFERENCE_TOLERANCE, REFERENCE_TOLERANCE):
            up, down = (F.cross_entropy(double(x + h * g.sign(), t1), y, reduction="none")
                        for h in (STEP, -STEP))
        slope = len(x) * (g * g.sign()).flatten(1).sum(1)  # the gradient is that of the batch's mean
        errors.append(((up - down) / (2 * STEP) - slope).abs() / slope.clamp(min=1e-300))
    return torch.cat(errors).median().item()


def _zero_gradient(found: Tensor, t1: float, gradient: str, rtol: float, **options: Any) -> dict:
    """The record of `zero_share`; options as of `input_gradient`."""
    settings = {"loss": "cross-entropy", "logit_scale": 1.0, "batch": SEED_BATCH, **options}
    return record("zero_gradient", zero_share(found), t1, len(found), "mean", gradient=gradient, rtol=rtol,
                  **settings)


def health(model: ODENet, images: Tensor, labels: Tensor, times: Iterable[float] = TABLE_T1,
           progress: bool | None = False) -> list[dict]:
    """The records of a network on given images.

    Args:
        model: in eval mode with fixed pooling, float32.
        images, labels: shapes (N, 1, 28, 28) and (N,), all of which get a float64 reference gradient.
    """
    times, n, records = list(times), len(images), []
    double = copy.deepcopy(model).double()
    with Progress("gradient health", len(times), "end time", shown=progress) as bar:
        for t1 in times:
            with torch.no_grad():
                logits = torch.cat([model(x, t1) for x in images.split(SEED_BATCH)])
            records += [record("logit_gap", logit_gap(logits).median(), t1, n),
                        record("logit_size", logits.abs().mean(), t1, n, "mean")]
            reference = gradients(double, images.double(), labels, t1, "exact", REFERENCE_TOLERANCE)
            few = images[:DIFFERENCED].double()
            noise = torch.rand(few.shape, generator=torch.Generator().manual_seed(0), dtype=few.dtype)
            records += [record("finite_difference",
                               finite_difference(double, few + size * noise, labels[:len(few)], t1), t1,
                               len(few), noise=size) for size in (0.0, OFF_TIES)]
            records.append(_zero_gradient(reference, t1, "reference", REFERENCE_TOLERANCE))
            for gradient, tolerance in METHODS.values():
                found = gradients(model, images, labels, t1, gradient, tolerance)
                signs, cosine = agreement(found, reference)
                how: dict[str, Any] = dict(gradient=gradient, rtol=tolerance)
                records += [record("sign_agreement", signs, t1, n, "mean", **how),
                            record("gradient_cosine", cosine, t1, n, **how),
                            record("gradient_error", relative_error(found, reference), t1, n, **how),
                            _zero_gradient(found, t1, **how)]
            for options in REMEDIES.values():
                found = gradients(model, images, labels, t1, "exact", 1e-3, **options)
                records.append(_zero_gradient(found, t1, "exact", 1e-3, **options))
            bar.advance()
    return records


def guess_agreement(model: ODENet, images: Tensor, labels: Tensor) -> float:
    """Share of signs that guessing gets right: half of the pixels with a gradient, and all that the pooling
    passes over.

    Those have gradient zero by every method. Which they are depends on the model's fixed regions and not on
    the end time, unless the softmax is saturated, so that a short one will do: t = 1.
    """
    seen = gradients(model, images, labels, 1.0, "exact", 1e-3) != 0
    return 1 - seen.double().mean().item() / 2


def measure_run(folder: str | Path, count: int | None = None, times: Iterable[float] = TABLE_T1,
                progress: bool | None = None) -> list[dict]:
    """Measure a stored ODE-net on the first images of the test order and write its `measurements.csv`.

    `count`: number of images; default: 256 for the small networks, 32 for the others. Nothing is stored
    before the last end time.

    Raises:
        InputError: the run has no ODE block, or there are not so many images.
        ArtifactError: the run holds the same on more images.
    """
    run, times = artifacts.load_ode_run(folder), list(times)
    config = RunConfig.from_dict(run.config)
    if count is None:
        count = diagnostic_images(config) if config.channels == 16 else min(32, diagnostic_images(config))

    def mine(r: dict) -> bool:
        return r["name"] in GRADIENT_MEASUREMENTS and r["t1"] in times

    images, labels = subset_for(run, count, mine)
    found = health(run.load_ode_net(), images, labels, times, progress)
    artifacts.add_measurements(run, found, mine)
    return found
