"""Projected gradient descent on the loss, upwards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

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
    check_momentum,
    check_noise,
    check_result,
    forward,
    input_gradient,
    project,
)
from nodelib.attacks.losses import Loss


def pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, step_size: float, steps: int,
        random_start: bool = True, restarts: int = 1, t1: float | Sequence[float] | None = None,
        clip: bool = True, gradient: str | None = None, seed: int = 0, allow_random_forward: bool = False,
        loss: Loss | str = F.cross_entropy, logit_scale: float | str = 1.0, draws: int = 1,
        noise: float = 0.0, momentum: float = 0.0, allow_training_mode: bool = False) -> Tensor:
    """Repeated sign steps, each projected back onto the l-infinity ball; the last iterate of the best restart.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards deep learning models resistant to adversarial
    attacks, ICLR 2018, eq. (3) of section 2.1. With several restarts an image keeps the first restart
    that is misclassified. With momentum, the iterative method of Dong, Liao, Pang, Su, Zhu, Hu and Li, Boosting
    adversarial attacks with momentum, CVPR 2018, eq. (6) and (7).

    Args:
        model, images, labels, epsilon, clip, gradient, allow_random_forward, loss, logit_scale: as in `fgsm`.
        t1: end time attacked (default: the model's own), or several, over which the gradient is averaged:
            the attack on a network whose end time is drawn at random when it is used.
        step_size: length of a step in pixel units, above 0.
        steps: number of steps, at least 1.
        random_start: start uniformly inside the ball instead of at the image.
        restarts: independent starts, at least 1; more than one needs random_start.
        seed: of the random starts; the same seed gives the same starts on every device.
        draws: forward passes every gradient is averaged over, at least 1; for random pooling, or with noise.
        noise: radius, 0 to 1, of uniform noise that every such pass adds to the images, see `input_gradient`.
        momentum: 0 to 1, decay of the sum of gradients, each divided by its mean magnitude, whose sign is stepped along. With
            noise and one draw, a step costs one pass and follows the average over the neighbourhoods of the steps before it.
        allow_training_mode: accept a model in training mode, whose batch statistics mix images and whose
            running ones every pass
            changes: for adversarial training as some do it, never for an evaluation.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        ValueError: invalid arguments, before any work.
    """
    epsilon = check_epsilon(epsilon)
    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward, allow_training_mode)
    if not step_size > 0:
        raise ValueError(f"step_size is {step_size}; it must be above 0 (epsilon is {epsilon:g})")
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1 or int(value) != value:
            raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
    check_gradient_options(logit_scale, draws, loss, gradient)
    check_noise(noise)
    check_momentum(momentum)
    if isinstance(t1, Sequence) and not len(t1):
        raise ValueError("t1 is an empty list of end times; give at least one, or None for the model's own")
    if restarts > 1 and isinstance(t1, Sequence):
        raise ValueError(f"restarts is {restarts} with {len(t1)} end times: no single forward pass says whether an image "
                         f"is broken; use restarts=1")
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts is {restarts} without random_start: every restart would be the same; "
                         f"pass random_start=True or restarts=1")
    if epsilon == 0 or len(images) == 0:
        return images.detach().clone()
    generator = torch.Generator().manual_seed(seed)
    result = images.detach().clone()
    alive = torch.arange(len(images), device=images.device)  # images that no restart has broken yet
    slope = partial(input_gradient, model, t1=t1, loss=loss, logit_scale=logit_scale, draws=draws,
                    noise=noise, generator=generator)
    with attacking(model, gradient):
        for restart in range(restarts):
            adversarial = images[alive]
            if random_start:
                offset = 2 * torch.rand(adversarial.shape, generator=generator, dtype=images.dtype).to(images.device) - 1
                adversarial = project(adversarial + epsilon * offset, adversarial, epsilon, clip)
            velocity = torch.zeros_like(adversarial)
            for _ in range(steps):
                direction = slope(adversarial, labels[alive])[0]
                with torch.no_grad():
                    if momentum:
                        direction = velocity = momentum * velocity + _normalised(direction)
                    adversarial = project(adversarial + step_size * direction.sign(), images[alive], epsilon, clip)
            result[alive] = adversarial
            if restart + 1 < restarts:
                with torch.no_grad():
                    alive = alive[forward(model, adversarial, t1).argmax(1) == labels[alive]]
                if len(alive) == 0:
                    break
    return check_result(result, images, epsilon, clip, "pgd")


def _normalised(gradient: Tensor) -> Tensor:
    """Every image's gradient over its mean magnitude; a gradient of zeros stays zero."""
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
