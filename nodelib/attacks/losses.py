"""What a gradient attack climbs: the cross-entropy, and losses that do not saturate."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.solver.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The true logit minus the largest wrong one, shape (N,): negative where the image is misclassified."""
    true = logits.gather(1, labels[:, None])[:, 0]
    return true - logits.scatter(1, labels[:, None], float("-inf")).amax(1)


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the largest wrong logit minus the true one: positive where the image is misclassified.

    Carlini and Wagner, Towards evaluating the robustness of neural networks, 2017, section V, f_6 without its
    bound. It has no softmax, so its gradient does not vanish when the logits are large.

    Args:
        logits: shape (N, K), K at least 2; labels: true classes, int64, shape (N,), 0 to K - 1.

    Returns:
        the mean over images, 0-dimensional, in the logits' unit.

    Raises:
        InputError: a single class, beside which there is no wrong one.
    """
    if logits.shape[1] < 2:
        raise InputError(f"the logits have shape {tuple(logits.shape)}; this loss compares the true class "
                         "with a wrong one, so it needs two classes or more")
    return (-margins(logits, labels)).mean()


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean difference-of-logits ratio: the margin over the distance of first and third logit.

    Croce and Hein, Reliable evaluation of adversarial robustness, 2020, eq. (6). Blind to scale and shift.

    Args:
        logits: shape (N, K), K at least 3; labels: true classes, int64, shape (N,), 0 to K - 1.

    Returns:
        the mean over images, 0-dimensional, without a unit and at least -1; of an image above 0 where it is
            misclassified.

    Raises:
        InputError: fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise InputError(f"the logits have shape {tuple(logits.shape)}; this loss divides by the distance of "
                         "the first and the third")
    ordered = logits.sort(1, descending=True).values
    return (-margins(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)).mean()


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log((1 - p) / p) of each image, p the softmax of its true class, in double precision, shape (N,)."""
    z = logits.double()
    return (z - z.gather(1, labels[:, None])).scatter(1, labels[:, None], float("-inf")).logsumexp(1)


def log_odds_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of `log_odds`: log sum over wrong classes of exp(z_j - z_y), in double precision.

    The cross-entropy is log(1 + exp(.)) of it, which increases, so that in exact arithmetic a step of
    signs along either is the same; but this one's gradient does not vanish where p rounds to 1.
    """
    return log_odds(logits, labels).mean()


def wrong_classes_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of log sum over wrong classes of exp(z_j), in double precision: the log odds without the true
    class's term.

    What single precision leaves of the cross-entropy once p rounds to 1: a step along it raises wrong
    classes and does not care whether the true one rises as well.
    """
    return logits.double().scatter(1, labels[:, None], float("-inf")).logsumexp(1).mean()


def rounded_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy's ascent as single precision rounds it, from exact pieces in double precision.

    Per image: the log odds; without the true class's term where 1 + exp(log odds) rounds to 1 (24 ln 2);
    nothing where the wrong classes' cotangents, divided by the batch, round to 0 (150 ln 2 less the batch's
    logarithm). If a step along this leaves what a step along the cross-entropy does, rounding is what that
    one leaves.
    """
    odds = log_odds(logits, labels)
    wrong = logits.double().scatter(1, labels[:, None], float("-inf")).logsumexp(1)
    horizon = 150 * math.log(2) - math.log(len(logits))
    kept = torch.where(odds > -24 * math.log(2), odds, torch.where(odds > -horizon, wrong, 0 * wrong))
    return kept.mean()


class _EarlierLogSoftmax(torch.autograd.Function):
    """log softmax of logits of shape (N, K), the normaliser added to the largest logit before it is
    subtracted.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        largest = logits.max(1, keepdim=True).values
        found = logits - (largest + (logits - largest).exp().sum(1, keepdim=True).log())
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        return cotangent - found.exp() * cotangent.sum(1, keepdim=True)


def earlier_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy in the order of operations that torch had until June 2019 on a processor and May
    2020 on a GPU.

    It added the logarithm of the sum to the largest logit M and subtracted the result, so that what is below
    half a unit of M's last digit was lost: the true class's term past a gap of about (24 - k) ln 2 for
    2**k <= M < 2**(k + 1), k >= 0, instead of 24 ln 2. See pytorch's issues 11752 and 38839 and the pull
    requests 21672 and 38945 that mended them.
    """
    return F.nll_loss(_EarlierLogSoftmax.apply(logits), labels)


LOSSES: dict[str, Loss] = {"cross-entropy": F.cross_entropy, "margin": margin_loss, "dlr": dlr_loss,
                           "log-odds": log_odds_loss, "wrong-classes": wrong_classes_loss,
                           "rounded": rounded_loss, "earlier-cross-entropy": earlier_cross_entropy}


def resolve_loss(loss: Loss | str) -> Loss:
    """The loss of this name, or the callable itself; ValueError listing the known names otherwise."""
    if callable(loss):
        return loss
    if not (isinstance(loss, str) and loss in LOSSES):
        raise InputError(f"unknown loss {loss!r}; the known losses are {', '.join(LOSSES)}")
    return LOSSES[loss]


def logit_gap(logits: Tensor) -> Tensor:
    """Distance of the two largest logits of each image, shape (N,), at least 1e-12."""
    first, second = logits.topk(2, 1).values.unbind(1)
    return torch.clamp(first - second, min=1e-12)
