"""Projected gradient descent on the loss, upwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nodelib.attacks.common import (
    Loss, attacking, check_epsilon, check_images, check_labels, check_model, input_gradient, project,
)


def pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, step_size: float, steps: int,
        random_start: bool = True, restarts: int = 1, t1: float | None = None, clip: bool = True,
        gradient: str | None = None, seed: int = 0, allow_random_forward: bool = False,
        loss: Loss = F.cross_entropy) -> Tensor:
    """Repeated sign steps, each projected back onto the l-infinity ball; the last iterate of the best restart.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards deep learning models resistant to adversarial
    attacks, ICLR 2018, eq. (3) of section 2.1. With several restarts an image keeps the first restart
    that is misclassified.

    Args:
        model, images, labels, epsilon, t1, clip, gradient, allow_random_forward, loss: as in `fgsm`.
        step_size: length of a step in pixel units, above 0.
        steps: number of steps, at least 1.
        random_start: start uniformly inside the ball instead of at the image.
        restarts: independent starts, at least 1; more than one needs random_start.
        seed: of the random starts; the same seed gives the same starts on every device.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        ValueError: invalid arguments, before any work.
    """
    epsilon = check_epsilon(epsilon)
    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward)
    if not step_size > 0:
        raise ValueError(f"step_size is {step_size}; it must be above 0 (epsilon is {epsilon:g})")
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1 or int(value) != value:
            raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts is {restarts} without random_start: every restart would be the same; "
                         f"pass random_start=True or restarts=1")
    if epsilon == 0 or len(images) == 0:
        return images.detach().clone()
    generator = torch.Generator().manual_seed(seed)
    result = images.detach().clone()
    alive = torch.arange(len(images), device=images.device)  # images that no restart has broken yet
    with attacking(model, gradient):
        for restart in range(restarts):
            adversarial = _ascend(model, images[alive], labels[alive], epsilon, step_size, steps, random_start,
                                  t1, clip, generator, loss)
            result[alive] = adversarial
            if restart + 1 < restarts:
                with torch.no_grad():
                    logits = model(adversarial) if t1 is None else model(adversarial, t1)
                alive = alive[logits.argmax(1) == labels[alive]]
                if len(alive) == 0:
                    break
    return result


def _ascend(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, step_size: float, steps: int,
            random_start: bool, t1: float | None, clip: bool, generator: torch.Generator, loss: Loss) -> Tensor:
    adversarial = images
    if random_start:
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype).to(images.device)
        adversarial = project(images + epsilon * (2 * noise - 1), images, epsilon, clip)
    for _ in range(steps):
        slope, _ = input_gradient(model, adversarial, labels, t1, loss)
        with torch.no_grad():
            adversarial = project(adversarial + step_size * slope.sign(), images, epsilon, clip)
    return adversarial.detach()
