"""What a gradient attack climbs: the cross-entropy, and losses that do not saturate."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the largest wrong logit minus the true one: positive where the image is misclassified.

    Carlini and Wagner, Towards evaluating the robustness of neural networks, 2017, section V, f_6 without its
    bound. It has no softmax, so its gradient does not vanish when the logits are large.
    """
    true = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return (wrong - true).mean()


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean difference-of-logits ratio: the margin over the distance of first and third logit.

    Croce and Hein, Reliable evaluation of adversarial robustness, 2020, eq. (6). Unchanged by scale and shift.
    """
    ordered = logits.sort(1, descending=True).values
    true = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return ((wrong - true) / (ordered[:, 0] - ordered[:, 2] + 1e-12)).mean()


def log_odds_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of log((1 - p) / p), p the softmax of the true class: log sum over wrong classes of exp(z_j - z_y), in double precision.

    The cross-entropy is log(1 + exp(.)) of it, which increases, so that in exact arithmetic a step of signs along either is the same;
    but this one's gradient does not vanish where p rounds to 1.
    """
    z = logits.double()
    true = z.gather(1, labels[:, None])
    return (z - true).scatter(1, labels[:, None], float("-inf")).logsumexp(1).mean()


LOSSES: dict[str, Loss] = {"cross-entropy": F.cross_entropy, "margin": margin_loss, "dlr": dlr_loss, "log-odds": log_odds_loss}


def resolve_loss(loss: Loss | str) -> Loss:
    """The loss of this name, or the callable itself; ValueError listing the known names otherwise."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; the known losses are {', '.join(LOSSES)}")
    return LOSSES[loss]


def logit_gap(logits: Tensor) -> Tensor:
    """Distance of the two largest logits of each image, shape (N,), at least 1e-12."""
    first, second = logits.topk(2, 1).values.unbind(1)
    return torch.clamp(first - second, min=1e-12)
