"""One step under the loupe: does FGSM leave an image because its gradient is lost, or by going too far?

For every image the accuracy is followed along four directions of signs, from the image to the full step:

- "cross-entropy": its gradient in float32, as an attack takes it;
- "log-odds": the gradient of log((1 - p) / p) in double precision. In exact arithmetic its signs are those of
  the cross-entropy, so what the two leave differs by rounding alone;
- "turned": the same, without the true class where float32 loses it, and nothing else rounded (see
  `nodelib.experiment.horizon`). What it leaves is what that one lost term does;
- "margin": the gradient of the nearest wrong logit minus the true one. What it and the log odds leave differs
  by the loss alone: the one looks at the nearest wrong class, the other at all of them.

An image is *overshot* by a direction that breaks it at a smaller step but not at the full one.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.attacks.common import attacking, check_images, input_gradient
from nodelib.attacks.losses import logit_gap
from nodelib.experiment import artifacts, horizon
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.evaluation import subset_for
from nodelib.experiment.measurement import SEED_BATCH
from nodelib.experiment.records import record
from nodelib.networks import ODENet, check_labels
from nodelib.solver.kernel import unbalanced

DIRECTIONS = ("cross-entropy", "log-odds", "turned", "margin")
EPSILONS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.275, 0.3)
MEASURED = ("step_cause", "step_left", "turned_signs")  # names of the records; the last not of every network


def turned_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The log odds against the true class in double precision, its logit left out where p rounds to 1 in
    float32.

    Its gradient is that of the cross-entropy with the one term missing that float32 loses first, and no
    underflow."""
    z = logits.double()
    true = labels[:, None]
    lost = F.log_softmax(logits.detach().float(), 1).gather(1, true)[:, 0] == 0
    wrong = z.scatter(1, true, float("-inf")).logsumexp(1)
    return (wrong - torch.where(lost, 0.0, z.gather(1, true)[:, 0])).mean()


@dataclass(frozen=True)
class Steps:
    """What single steps do to images of one network at one end time, its logits multiplied by a factor.

    epsilons: lengths of the step, rising from 0, shape (E,); right: direction -> whether each image is
    classified correctly at each length, bool, shape (E, N); gap: factor times the distance of the two largest
    logits, shape (N,); zero: whether the gradient of the cross-entropy is zero in every pixel; signs: pair of
    directions -> share of an image's pixels whose signs agree, of those where the second is not zero, shape
    (N,).
    """

    t1: float
    factor: float
    epsilons: np.ndarray
    right: dict[str, np.ndarray]
    gap: np.ndarray
    zero: np.ndarray
    signs: dict[tuple[str, str], np.ndarray]

    @property
    def n(self) -> int:
        return len(self.gap)

    def left(self, direction: str) -> np.ndarray:
        """Accuracy in per cent at each length along a direction, shape (E,)."""
        return 100 * self.right[direction].mean(1)


def follow(model: ODENet, images: Tensor, labels: Tensor, t1: float, factor: float = 1.0, *,
           epsilons: Sequence[float] = EPSILONS, gradient: str = "exact", batch: int = SEED_BATCH) -> Steps:
    """Take the four steps at every length, unclipped, for a model in eval mode with fixed pooling.

    The exact gradient is taken without the engine's balancing of tiny cotangents, which would cure part of
    what is to be seen.

    Args:
        images: (N, 1, 28, 28) in [0, 1]; labels: (N,), 0 to 9.
        factor: on the logits before the loss, above 0. It changes no prediction.
        epsilons: lengths, rising from 0.
        gradient: one of `nodelib.solver.integrate.GRADIENTS`; batch: images per mean loss, 32 in the post.

    Raises:
        ValueError: lengths that do not rise from 0, a factor of 0 or below, or images and labels of another
            kind.
    """
    check_images(images)
    labels = check_labels(labels, len(images))
    lengths = np.asarray(epsilons, dtype=float)
    if len(lengths) < 2 or lengths[0] != 0 or not (np.diff(lengths) > 0).all():
        raise ValueError(f"epsilons are {list(epsilons)}; they must rise from 0, such as "
                         f"{list(EPSILONS[:3])}")
    if not factor > 0:
        raise ValueError(f"factor is {factor}; it must be above 0")
    right: dict[str, list[Tensor]] = {name: [] for name in DIRECTIONS}
    gaps, zeros = [], []
    agreement: dict[tuple[str, str], list[Tensor]] = {
        ("cross-entropy", "log-odds"): [], ("cross-entropy", "margin"): [], ("log-odds", "margin"): []}
    with attacking(model, gradient), unbalanced() if gradient == "exact" else contextlib.nullcontext():
        for x, y in zip(images.split(batch), labels.split(batch)):
            sign = {}
            for name in DIRECTIONS:
                loss = turned_loss if name == "turned" else name
                ascent, logits = input_gradient(model, x, y, t1, loss=loss, logit_scale=factor)
                sign[name] = ascent.sign()
            gaps.append(factor * logit_gap(logits).double())
            zeros.append((sign["cross-entropy"] == 0).flatten(1).all(1))
            for (first, second), shares in agreement.items():
                there = (sign[second] != 0).flatten(1)
                same = (sign[first] == sign[second]).flatten(1) & there
                shares.append(same.sum(1) / there.sum(1).clamp(min=1))
            for name, move in sign.items():
                with torch.no_grad():
                    found = [model(x + e * move, t1).argmax(1) == y for e in lengths.tolist()]
                right[name].append(torch.stack(found))
    return Steps(t1, factor, lengths,
                 {name: torch.cat(parts, 1).cpu().numpy() for name, parts in right.items()},
                 torch.cat(gaps).cpu().numpy(), torch.cat(zeros).cpu().numpy(),
                 {pair: torch.cat(parts).cpu().numpy() for pair, parts in agreement.items()})


def causes(steps: Steps) -> dict[str, float]:
    """Where the accuracy left by the full step on the cross-entropy comes from, in per cent of all images;
    the parts sum to "left".

    lost: its gradient is zero in every pixel. turned: not so, but the log odds' step breaks the image and the
    turned one leaves it: the lost term of the true class saves it. faded: the log odds' step breaks it and
    the turned one does, too: other rounding saves it. loss: none of these, but the margin's step breaks it.
    overshot: none of these, but a smaller step along the margin's direction breaks it. firm: none of these.
    wrong: it was misclassified, and the step made it right."""
    left = steps.right["cross-entropy"][-1]
    wrong = left & ~steps.right["cross-entropy"][0]
    rest = left & ~wrong
    found = {"left": left, "wrong": wrong}
    for name, which in (
        ("lost", steps.zero),
        ("turned", ~steps.right["log-odds"][-1] & steps.right["turned"][-1]),
        ("faded", ~steps.right["log-odds"][-1]),
        ("loss", ~steps.right["margin"][-1]),
        ("overshot", ~steps.right["margin"].all(0)),
    ):
        found[name] = rest & which
        rest = rest & ~which
    found["firm"] = rest
    return {name: 100 * float(which.mean()) for name, which in found.items()}


def records(steps: Steps, **settings: Any) -> list[dict]:
    """What `measurements.csv` keeps of single steps, as shares: causes, what each direction leaves, and
    signs.

    The signs are those of images between the horizons whose signs by the cross-entropy and by the log odds
    agree.

    Args:
        settings: told with every record, such as the gradient method.
    """
    told = {"logit_scale": steps.factor, **settings}
    found = [record("step_cause", share / 100, steps.t1, steps.n, name, **told)
             for name, share in causes(steps).items()]
    found += [record("step_left", left / 100, steps.t1, steps.n, name, epsilon=float(epsilon), **told)
              for name in DIRECTIONS for epsilon, left in zip(steps.epsilons, steps.left(name))]
    between = (steps.right["cross-entropy"][0] & (steps.gap > horizon.true_class_lost()[1])
               & (steps.gap < horizon.gradient_lost(flush=True)))
    if between.any():
        same = steps.signs["cross-entropy", "log-odds"][between].mean()
        found.append(record("turned_signs", same, steps.t1, int(between.sum()), "mean", **told))
    return found


def measure_run(folder: str | Path, n: int = 256, kept: str | None = None) -> list[dict]:
    """Follow the steps of a stored ODE-net at its own end time and write them to its `measurements.csv`.

    Args:
        n: images, the first of the test order; kept: earlier weights, see
            `nodelib.experiment.artifacts.Run.load_model`.

    Raises:
        InputError: the run has no ODE block, or there are not so many images.
        ArtifactError: the run holds the same on more images, or keeps no such weights.
    """
    run = artifacts.load_ode_run(folder)

    def mine(r: dict) -> bool:
        return r["name"] in MEASURED and r["settings"].get("kept") == kept

    images, labels = subset_for(run, n, mine)
    followed = follow(run.load_ode_net(kept), images, labels, RunConfig.from_dict(run.config).test_t1)
    found = records(followed, gradient="exact", kept=kept)
    artifacts.add_measurements(run, found, mine)
    return found
