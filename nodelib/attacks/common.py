"""What every gradient attack shares: checked inputs, the input gradient, the projection."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def check_images(images: Tensor, epsilon: float = 0.0, name: str = "images") -> None:
    """ValueError unless images are finite floats of shape (N, 1, 28, 28) in [-epsilon, 1 + epsilon].

    epsilon above 0 is meant for unclipped adversarial images only.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (1, 28, 28):
        raise ValueError(f"{name} have shape {tuple(images.shape)}; expected (N, 1, 28, 28)")
    if not images.is_floating_point():
        raise ValueError(f"{name} have dtype {images.dtype}; expected floating point, grey levels in [0, 1]")
    if images.numel() == 0:
        return
    low, high = images.min().item(), images.max().item()  # a NaN anywhere makes both NaN
    if math.isnan(low):
        raise ValueError(f"{name} contain NaN; every pixel must be a number in [0, 1]")
    slack = 1e-6 if epsilon else 0.0
    if low < -epsilon - slack or high > 1 + epsilon + slack:
        raise ValueError(f"{name} reach from {low:g} to {high:g}; the allowed range is [{0 - epsilon:g}, {1 + epsilon:g}]. "
                         f"Divide grey levels by 255")


def check_labels(labels: Tensor, count: int, classes: int = 10) -> None:
    """ValueError unless labels are `count` integers from 0 to classes - 1."""
    if labels.ndim != 1 or len(labels) != count:
        raise ValueError(f"labels have shape {tuple(labels.shape)}; expected ({count},), one per image")
    if labels.is_floating_point():
        raise ValueError(f"labels have dtype {labels.dtype}; expected integers 0 to {classes - 1}")
    if count and not (0 <= labels.min().item() and labels.max().item() < classes):
        raise ValueError(f"labels reach from {labels.min().item()} to {labels.max().item()}; "
                         f"the allowed range is 0 to {classes - 1}")


def check_epsilon(epsilon: float) -> float:
    """epsilon as a float; ValueError unless finite and at least 0."""
    epsilon = float(epsilon)
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon is {epsilon}; it must be at least 0 (pixels run from 0 to 1, the post used 0.3)")
    return epsilon


def check_model(model: nn.Module, allow_random_forward: bool) -> None:
    """ValueError for a model in training mode, or with a random forward pass nobody asked for."""
    if model.training:
        raise ValueError("the model is in training mode, where batch statistics leak between images; "
                         "call model.eval() first")
    if getattr(model, "pooling", "fixed") == "random" and not allow_random_forward:
        raise ValueError("the model's forward pass is random (pooling='random'), which a deterministic attack "
                         "does not expect; set model.pooling = 'fixed', or pass allow_random_forward=True")


@contextlib.contextmanager
def attacking(model: nn.Module, gradient: str | None) -> Iterator[None]:
    """Switch parameters' gradients off and the block's gradient method over, and restore both."""
    block = getattr(model, "block", None)
    before = block.gradient if block is not None else None
    required = [p.requires_grad for p in model.parameters()]
    try:
        if gradient is not None and block is not None:
            from nodelib.odeint import GRADIENTS

            if gradient not in GRADIENTS:
                raise ValueError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")
            block.gradient = gradient
        for p in model.parameters():
            p.requires_grad_(False)
        yield
    finally:
        for p, r in zip(model.parameters(), required):
            p.requires_grad_(r)
        if block is not None:
            block.gradient = before


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor, t1: float | None,
                   loss: Loss = F.cross_entropy) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the images, shape of images, and the detached logits.

    The mean loss is what the post used. The exact gradient does not depend on the loss's scale, the
    continuous adjoint's error does (its solver compares the adjoint with atol).
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(images) if t1 is None else model(images, t1)
        if not torch.isfinite(logits).all():
            raise ValueError("the model's logits are not finite on attacked images; check its weights and end time")
        (gradient,) = torch.autograd.grad(loss(logits, labels), images)
    return gradient, logits.detach()


def project(adversarial: Tensor, images: Tensor, epsilon: float, clip: bool) -> Tensor:
    """The nearest point of the l-infinity ball around images and, if `clip`, of the pixel box [0, 1]."""
    adversarial = torch.minimum(torch.maximum(adversarial, images - epsilon), images + epsilon)
    return adversarial.clamp(0, 1) if clip else adversarial
