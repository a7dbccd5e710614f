"""The fast gradient sign method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.attacks.common import (
    attacking,
    check_epsilon,
    check_gradient_options,
    check_images,
    check_labels,
    check_model,
    check_result,
    input_gradient,
    project,
)
from nodelib.attacks.losses import Loss


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, t1: float | None = None,
         clip: bool = True, gradient: str | None = None, allow_random_forward: bool = False,
         loss: Loss | str = F.cross_entropy, logit_scale: float | str = 1.0, draws: int = 1) -> Tensor:
    """One step of length epsilon along the sign of the loss's input gradient.

    Goodfellow, Shlens and Szegedy, Explaining and harnessing adversarial examples, ICLR 2015, section 4:
    x + epsilon * sign(d loss / d x). A pixel whose gradient is exactly zero does not move. One step is
    the weakest gradient attack: never call a network robust on its word alone, use `pgd`.

    Args:
        model: maps images to logits, in eval mode; called as model(images, t1) if t1 is given.
        images: shape (N, 1, 28, 28), in [0, 1].
        labels: true classes, shape (N,), 0 to 9.
        epsilon: radius of the l-infinity ball in pixel units, at least 0 (the post: 0.3).
        t1: end time attacked; default: the model's own.
        clip: keep pixels in [0, 1]; False, the post's way, leaves them in [-epsilon, 1 + epsilon].
        gradient: gradient method of the ODE block, see `nodelib.solver.integrate.GRADIENTS`; default: its own.
        allow_random_forward: accept a model with random pooling.
        loss: of (logits, labels), scalar, or one of `nodelib.attacks.LOSSES`.
        logit_scale: factor on the logits before the loss, above 0, or "gap", see `input_gradient`.
        draws: forward passes the gradient is averaged over, at least 1.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        ValueError: invalid images, labels, epsilon, model mode or gradient, before any work.
    """
    epsilon = check_epsilon(epsilon)
    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward)
    check_gradient_options(logit_scale, draws, loss, gradient)
    if epsilon == 0 or len(images) == 0:
        return images.detach().clone()
    with attacking(model, gradient):
        slope, _ = input_gradient(model, images, labels, t1, loss, logit_scale, draws)
    with torch.no_grad():
        return check_result(project(images + epsilon * slope.sign(), images, epsilon, clip), images, epsilon, clip, "fgsm")
