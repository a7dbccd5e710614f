"""Projected gradient descent on the loss, upwards."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import forward, input_gradient, project, shaken
from nodelib.solver.errors import InputError


def pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, step_size: float, steps: int,
        **options: Any) -> Tensor:
    """Repeated sign steps, each projected back onto the l-infinity ball; the best restart's last iterate.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards deep learning models resistant to adversarial
    attacks, ICLR 2018, eq. (3) of section 2.1. With several restarts an image keeps the first restart
    that is misclassified. With momentum=1, the iterative method of Dong, Liao, Pang, Su, Zhu, Hu and Li,
    Boosting adversarial attacks with momentum, CVPR 2018, eq. (6) and (7) (MI-FGSM).

    Args:
        model, images, labels, epsilon: as in `fgsm`.
        step_size: length of a step in pixel units, above 0.
        steps: number of steps, at least 1.
        options: other fields of `Attack`: random_start, restarts, seed, t1, clip, gradient, loss,
            logit_scale, draws, noise, momentum, allow_random_forward, allow_training_mode.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        as `Attack`.
    """
    return Attack("pgd", epsilon, step_size, steps, **options)(model, images, labels)


@method("pgd", uses="step_size steps random_start restarts seed loss logit_scale draws noise momentum")
def _ascend(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    if attack.step_size is None:
        raise InputError("step_size is None; pgd needs the length of a step, such as epsilon / 4")
    epsilon, clip, generator = attack.epsilon, attack.clip, torch.Generator().manual_seed(attack.seed)
    slope = partial(input_gradient, model, t1=attack.end_times, loss=attack.loss,
                    logit_scale=attack.logit_scale, draws=attack.draws, noise=attack.noise,
                    generator=generator)
    result = images.clone()
    alive = torch.arange(len(images), device=images.device)  # images that no restart has broken yet
    for restart in range(attack.restarts):
        adversarial = images[alive]
        if attack.random_start:
            adversarial = project(shaken(adversarial, epsilon, generator), adversarial, epsilon, clip)
        velocity = torch.zeros_like(adversarial)
        for _ in range(attack.steps):
            direction, _ = slope(adversarial, labels[alive])
            if attack.momentum:
                direction = velocity = attack.momentum * velocity + _normalised(direction)
            moved = adversarial + attack.step_size * direction.sign()
            adversarial = project(moved, images[alive], epsilon, clip)
        result[alive] = adversarial
        if restart + 1 < attack.restarts:
            with torch.no_grad():
                alive = alive[forward(model, adversarial, attack.end_times[0]).argmax(1) == labels[alive]]
            if len(alive) == 0:
                break
    return result


def _normalised(gradient: Tensor) -> Tensor:
    """Every image's gradient over its mean magnitude; a gradient of zeros stays zero."""
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
