"""What every attack shares: checked inputs and outputs, the input gradient, the projection."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.attacks.losses import Loss, logit_gap, resolve_loss
from nodelib.solver.errors import NodelibError

BALL_SLACK = 1e-6  # of a pixel's distance: x + epsilon is rounded to single precision


class AttackError(NodelibError, RuntimeError):
    """An attack returned images that break its own rules."""


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


def check_result(adversarial: Tensor, images: Tensor, epsilon: float, clip: bool, name: str = "the attack") -> Tensor:
    """The adversarial images, if they obey the threat model; every attack's last act.

    Raises:
        AttackError: another shape, a number that is not finite, a pixel further than epsilon from the
            image's, or, if `clip`, outside [0, 1].
    """
    if adversarial.shape != images.shape:
        raise AttackError(f"{name} returned shape {tuple(adversarial.shape)} for images of shape {tuple(images.shape)}; an attack must "
                          f"return one image for each, in their shape")
    if adversarial.numel() == 0:
        return adversarial
    if not torch.isfinite(adversarial).all():
        raise AttackError(f"{name} returned pixels that are not finite; do not use its result, and check the model's gradients, "
                          f"whose overflow is the usual cause (a smaller logit_scale or end time avoids it)")
    furthest = (adversarial - images).abs().max().item()
    if furthest > epsilon + BALL_SLACK:
        raise AttackError(f"{name} moved a pixel by {furthest:.6g}; the ball allows {epsilon:g}. Project its result onto "
                          f"the ball (nodelib.attacks.common.project) and score it again")
    low, high = adversarial.min().item(), adversarial.max().item()
    if clip and (low < 0 or high > 1):
        raise AttackError(f"{name} returned pixels from {low:.6g} to {high:.6g}; the allowed range is [0, 1]. Clamp them, "
                          f"or ask for clip=False if the threat model has no box")
    return adversarial


def check_model(model: nn.Module, allow_random_forward: bool, allow_training_mode: bool = False) -> None:
    """ValueError for a model in training mode, or with a random forward pass nobody asked for."""
    parts = list(model.modules())  # a wrapper, or a part of the network, may be in another mode than the whole
    if not allow_training_mode and any(part.training for part in parts):
        raise ValueError("the model, or a part of it, is in training mode, where batch statistics leak between images; "
                         "call model.eval() first")
    if any(getattr(part, "pooling", "fixed") == "random" for part in parts) and not allow_random_forward:
        raise ValueError("the model's forward pass is random (pooling='random'), which a deterministic attack "
                         "does not expect; set model.pooling = 'fixed', or pass allow_random_forward=True")


def check_gradient_options(logit_scale: float | str, draws: int, loss: Loss | str = F.cross_entropy,
                           gradient: str | None = None) -> None:
    """ValueError unless the factor of the logits is above 0 or "gap", draws a whole number from 1 on, and the names known."""
    resolve_loss(loss)
    check_gradient(gradient)
    if logit_scale != "gap" and not (isinstance(logit_scale, (int, float)) and 0 < logit_scale < math.inf):
        raise ValueError(f"logit_scale is {logit_scale!r}; it must be a number above 0, or 'gap'")
    if draws < 1 or int(draws) != draws:
        raise ValueError(f"draws is {draws}; it must be a whole number of at least 1")


def check_noise(noise: float) -> None:
    """ValueError unless a radius of noise lies from 0 to 1."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {noise}; it must be from 0 to 1, a radius in pixel units")


def check_momentum(momentum: float) -> None:
    """ValueError unless a decay of summed gradients lies from 0 to 1."""
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; it must be from 0 (every gradient alone) to 1 (the sum of all so far)")


def check_gradient(gradient: str | None) -> None:
    """ValueError unless the gradient method is one of `nodelib.solver.integrate.GRADIENTS`, or None."""
    from nodelib.solver.integrate import GRADIENTS

    if gradient is not None and gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")


@contextlib.contextmanager
def attacking(model: nn.Module, gradient: str | None) -> Iterator[None]:
    """Switch parameters' gradients off and the block's gradient method over, and restore both."""
    block = getattr(model, "block", None)
    before = block.gradient if block is not None else None
    required = [p.requires_grad for p in model.parameters()]
    try:
        check_gradient(gradient)
        if gradient is not None and block is not None:
            block.gradient = gradient
        for p in model.parameters():
            p.requires_grad_(False)
        yield
    finally:
        for p, r in zip(model.parameters(), required):
            p.requires_grad_(r)
        if block is not None:
            block.gradient = before


def forward(model: nn.Module, images: Tensor, t1: float | None) -> Tensor:
    """Logits at an end time (None: the model's own); ValueError if they are not finite."""
    logits = model(images) if t1 is None else model(images, t1)
    if not torch.isfinite(logits).all():
        raise ValueError("the model's logits are not finite on attacked images; check its weights and end time")
    return logits


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor, t1: float | Sequence[float] | None,
                   loss: Loss | str = F.cross_entropy, logit_scale: float | str = 1.0,
                   draws: int = 1, noise: float = 0.0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the images, shape of images, and the detached logits of the last draw.

    The mean loss is what the post used. The exact gradient does not depend on the loss's scale, the
    continuous adjoint's error does (its solver compares the adjoint with atol).

    Args:
        t1: end time; several are averaged over, as the draws are.
        loss: of (logits, labels), or one of `nodelib.attacks.LOSSES`.
        logit_scale: factor on the logits before the loss; "gap" divides every image's logits by the
            distance of its two largest, so that no softmax is saturated.
        draws: forward passes to average the gradient over (expectation over transformation: Athalye,
            Carlini and Wagner, 2018, section 4.2); above 1 it makes sense for a random forward pass, or with noise.
        noise: radius of uniform noise, in pixel units, that every draw adds to the images, clamped to [0, 1]: the gradient of
            the loss averaged over a neighbourhood, which a loss full of kinks does not show at a point.
        generator: of the noise, on the processor.
    """
    loss = resolve_loss(loss)
    times = t1 if isinstance(t1, Sequence) else [t1]
    images = images.detach().requires_grad_(True)
    total = None
    for time in times:
        for _ in range(draws):
            at = images if not noise else _shaken(images, noise, generator)
            with torch.enable_grad():
                logits = forward(model, at, time)
                scaled = logits / logit_gap(logits.detach())[:, None] if logit_scale == "gap" else logit_scale * logits
                (gradient,) = torch.autograd.grad(loss(scaled, labels), at)
            total = gradient if total is None else total + gradient
    return total / (len(times) * draws), logits.detach()


def _shaken(images: Tensor, noise: float, generator: torch.Generator | None) -> Tensor:
    """The images with uniform noise of that radius, in [0, 1], as a leaf to differentiate by."""
    move = noise * (2 * torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device) - 1)
    return (images.detach() + move).clamp(0, 1).requires_grad_(True)


def project(adversarial: Tensor, images: Tensor, epsilon: float, clip: bool) -> Tensor:
    """The nearest point of the l-infinity ball around images and, if `clip`, of the pixel box [0, 1]."""
    adversarial = torch.minimum(torch.maximum(adversarial, images - epsilon), images + epsilon)
    return adversarial.clamp(0, 1) if clip else adversarial
