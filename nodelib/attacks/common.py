"""What every attack shares: checked inputs and outputs, the input gradient, the projection."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.attacks.losses import Loss, logit_gap, resolve_loss
from nodelib.networks import ODEBlock, check_mode, described
from nodelib.solver.errors import InputError, NodelibError

if TYPE_CHECKING:
    from nodelib.attacks.attack import Attack

END_TIMES = ("t1", "t")  # what an argument that is an end time may be called
PRECISIONS = (torch.float32, torch.float64)  # half precision rounds by more than BALL_SLACK
BALL_SLACK = 1e-6  # of a pixel's distance: x + epsilon is rounded to single precision


class AttackError(NodelibError, RuntimeError):
    """An attack that came to nothing: what the model, the loss or a library returned cannot be used."""


class NonFiniteLogits(AttackError, ValueError):
    """A network's logits are NaN or infinite."""


class NoODEError(InputError):
    """An option about a differential equation, for a network that has none."""


def check_images(images: Tensor) -> None:
    """InputError unless images are float32 or float64, of shape (N, C, H, W) and in [0, 1]."""
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise InputError(f"images have {described(images)}; expected a tensor of shape (N, C, H, W)")
    if not images.is_floating_point():
        raise InputError(f"images have dtype {images.dtype}; expected floating point in [0, 1]: use "
                         "images.float() / 255 for grey levels from 0 to 255")
    if images.dtype not in PRECISIONS:
        raise InputError(f"images have dtype {images.dtype}; expected float32 or float64 (half precision "
                         "rounds a pixel by so much that it leaves the ball): use images.float(), and "
                         "model.float() where the model is in half precision, too")
    if images.numel() == 0:
        return
    low, high = images.min().item(), images.max().item()  # a NaN anywhere makes both NaN
    if math.isnan(low):
        raise InputError("images contain NaN; every pixel must be a number in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"images reach from {low:g} to {high:g}; the allowed range is [0, 1]. Divide grey "
                         "levels by 255, and leave any other normalisation to the model")


def check_result(adversarial: Tensor, images: Tensor, epsilon: float, clip: bool,
                 name: str = "the attack") -> Tensor:
    """The adversarial images, if they obey the threat model; every attack's last act.

    Raises:
        AttackError: another shape, a number that is not finite, a pixel further than epsilon from the
            image's, or, if `clip`, outside [0, 1].
    """
    if adversarial.shape != images.shape:
        raise AttackError(f"{name} returned shape {tuple(adversarial.shape)} for images of shape "
                          f"{tuple(images.shape)}; an attack must return one image for each, in their shape")
    if adversarial.numel() == 0:
        return adversarial
    if not torch.isfinite(adversarial).all():
        raise AttackError(f"{name} returned pixels that are not finite; do not use it, and check the model's "
                          "gradients, whose overflow is the usual cause (a smaller logit_scale or end time "
                          "avoids it)")
    furthest = (adversarial - images).abs().max().item()
    if furthest > epsilon + BALL_SLACK:
        raise AttackError(f"{name} moved a pixel by {furthest:.6g}; the ball allows {epsilon:g}. Project its "
                          "result onto the ball (nodelib.attacks.common.project) and score it again")
    low, high = adversarial.min().item(), adversarial.max().item()
    if clip and (low < 0 or high > 1):
        raise AttackError(f"{name} returned pixels from {low:.6g} to {high:.6g}; the allowed range is [0, "
                          "1]. Clamp them, or ask for clip=False if the threat model has no box")
    return adversarial


def check_model(model: nn.Module, attack: Attack) -> None:
    """InputError for a model that the attack does not fit.

    In training mode, or with a random forward pass, where nobody asked for it; without an ODE, where the
    attack names an end time or a way to differentiate one.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is of type {type(model).__name__}; it must be a torch.nn.Module "
                         "(nn.Sequential makes one of its parts)")
    check_mode(model, attack.allow_training_mode, attack.allow_random_forward)
    if attack.gradient is not None and not any(isinstance(part, ODEBlock) for part in model.modules()):
        raise NoODEError(f"gradient is {attack.gradient!r}, but {type(model).__name__} has no "
                         "nodelib.ODEBlock to differentiate in that way; leave gradient out")
    if attack.t1 is not None:
        _check_takes_end_time(model, attack.t1)


def _check_takes_end_time(model: nn.Module, t1: object) -> None:
    """NoODEError unless a model called as model(images, t1) takes t1 for an end time.

    Whatever a model with an `ODEBlock` calls its second argument, it is taken for one; elsewhere it may as
    well be a mask, and then only its name tells.
    """
    given, name = f"t1 is {t1!r}", type(model).__name__
    try:
        signature = inspect.signature(model.forward)
        taken = [*signature.bind(None, None).arguments]
    except TypeError:
        raise NoODEError(f"{given}, but {name}.forward takes no end time beside the images; leave t1 "
                         "out") from None
    except ValueError:
        raise NoODEError(f"{given}, but {name}.forward has no signature that says what it takes beside the "
                         "images, as a traced module has none; leave t1 out, or attack the module before it "
                         "was traced") from None
    if any(isinstance(part, ODEBlock) for part in model.modules()):
        return
    second = signature.parameters[taken[-1]]
    inner = getattr(model, "_orig_mod", getattr(model, "module", None))  # of torch.compile, DataParallel
    if second.kind is second.VAR_POSITIONAL and isinstance(inner, nn.Module):
        _check_takes_end_time(inner, t1)
    elif second.name not in END_TIMES:
        raise NoODEError(f"{given}, but the second argument of {name}.forward is called {second.name!r}, "
                         "which no end time is; leave t1 out, or call that argument t1 if it is one")


@contextlib.contextmanager
def attacking(model: nn.Module, gradient: str | None) -> Iterator[None]:
    """Switch parameters' gradients off and the ODE blocks' gradient method over, and restore both."""
    blocks = [(part, part.gradient) for part in model.modules() if isinstance(part, ODEBlock)]
    required = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for block, before in blocks:
            block.gradient = gradient or before
        model.requires_grad_(False)
        yield
    finally:
        for p, wanted in required:
            p.requires_grad_(wanted)
        for block, before in blocks:
            block.gradient = before


def forward(model: nn.Module, images: Tensor, t1: float | None, labels: Tensor | None = None,
            least: int = 2) -> Tensor:
    """Logits at an end time (None: the model's own), shape (N, K).

    Raises:
        NonFiniteLogits: they are NaN or infinite.
        InputError: no logits of that shape, fewer than `least` classes, a label that has no logit, or images
            of another type than the model's parameters, which it cannot take.
    """
    given = images.clone()  # a model may change its images in place
    try:
        logits = model(given) if t1 is None else model(given, t1)
    except RuntimeError as error:
        _check_types(model, images, error)
        raise
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape[0] != len(images) or shape[1] < least:
        raise InputError(f"the model's output has {described(logits)}; expected logits of shape "
                         f"({len(images)}, K), K at least {least}")
    if not torch.isfinite(logits).all():
        at = "" if t1 is None else f" at t1 = {t1:g}"
        raise NonFiniteLogits(f"the model's logits are not finite{at}; check its weights and end time")
    if labels is not None and labels.max() >= logits.shape[1]:
        raise InputError(f"labels reach to {labels.max().item()}, but the model has {logits.shape[1]} "
                         f"logits; the allowed range is 0 to {logits.shape[1] - 1}")
    return logits


def _check_types(model: nn.Module, images: Tensor, error: RuntimeError) -> None:
    """InputError if the model failed on images of another type than its first floating parameter.

    Not before: a model may convert its images.
    """
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), images.dtype)
    if own != images.dtype and not isinstance(error, NodelibError):
        instead = f"images.to({own}) or " if own in PRECISIONS else ""
        raise InputError(f"the model fails on images of dtype {images.dtype}, and its parameters are {own}; "
                         f"both must have one type: use {instead}model.to({images.dtype})") from error


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor,
                   t1: float | Sequence[float | None] | None,
                   loss: Loss | str = F.cross_entropy, logit_scale: float | str = 1.0,
                   draws: int = 1, noise: float = 0.0,
                   generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Gradient of the loss with respect to the images, and the detached logits of the last draw.

    The mean loss is what the post used. The exact gradient does not depend on the loss's scale, the
    continuous adjoint's error does (its solver compares the adjoint with atol).

    Args:
        t1: end time; several are averaged over, as the draws are.
        loss: of (logits, labels), or one of `nodelib.attacks.LOSSES`.
        logit_scale: factor on the logits before the loss; "gap" divides every image's logits by the
            distance of its two largest, so that no softmax is saturated.
        draws: forward passes to average the gradient over (expectation over transformation: Athalye,
            Carlini and Wagner, 2018, section 4.2); above 1 it makes sense for a random forward pass, or with
            noise.
        noise: radius of uniform noise, in pixel units, that every draw adds to the images, clamped to [0, 1]:
            the gradient of the loss averaged over a neighbourhood, which a loss full of kinks does not show
            at a point.
        generator: of the noise, on the processor.

    Raises:
        AttackError: the loss, or its gradient in some pixel, is not finite, or does not depend on the images.
    """
    loss = resolve_loss(loss)
    times = t1 if isinstance(t1, Sequence) else [t1]
    images = images.detach().requires_grad_(True)
    total = torch.zeros_like(images, requires_grad=False)
    for time in times:
        for _ in range(draws):
            at = images
            if noise:
                at = shaken(images.detach(), noise, generator).clamp(0, 1).requires_grad_(True)
            with torch.enable_grad():
                logits = forward(model, at, time, labels)
                gap = logit_gap(logits.detach())[:, None]
                scaled = logits / gap if isinstance(logit_scale, str) else logit_scale * logits
                gradient = _ascent(loss(scaled, labels), at)
            total = total + gradient
    return total / (len(times) * draws), logits.detach()


def _ascent(value: Tensor, images: Tensor) -> Tensor:
    """Gradient of a loss with respect to images, every entry finite."""
    if not isinstance(value, Tensor):
        raise InputError(f"the loss is of type {type(value).__name__}; it must be a tensor of one number, "
                         "made of the logits without item() or float()")
    if value.numel() != 1:
        raise InputError(f"the loss has shape {tuple(value.shape)}; it must be one number, such as the mean "
                         "over images")
    if not torch.isfinite(value):
        raise AttackError(f"the loss is {value.item():g}; an attack has nothing to climb there. Check the "
                          "loss, or choose a smaller logit_scale")
    gradient = torch.autograd.grad(value, images, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise AttackError("the loss does not depend on the images through anything that torch can "
                          "differentiate; look for a detach(), a no_grad() or a rounding in the model or the "
                          "loss")
    broken = int((~torch.isfinite(gradient)).flatten(1).any(1).sum())
    if broken:
        raise AttackError(f"the loss's gradient is not finite for {broken} of {len(gradient)} images; its "
                          "sign means nothing there. A shorter end time, a smaller logit_scale or float64 "
                          "avoids an overflow")
    return gradient


def shaken(images: Tensor, radius: float, generator: torch.Generator | None) -> Tensor:
    """The images with uniform noise of that radius, which is drawn on the processor."""
    drawn = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
    return images + radius * (2 * drawn - 1)


def project(adversarial: Tensor, images: Tensor, epsilon: float, clip: bool) -> Tensor:
    """The nearest point of the l-infinity ball around images and, if `clip`, of the pixel box [0, 1]."""
    adversarial = torch.minimum(torch.maximum(adversarial, images - epsilon), images + epsilon)
    return adversarial.clamp(0, 1) if clip else adversarial
