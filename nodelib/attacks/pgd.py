"""Projected gradient descent on the loss, upwards."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import forward, input_gradient, project, shaken
from nodelib.attacks.strong import square_point
from nodelib.solver.errors import InputError, check_whole


def pgd(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, step_size: float, steps: int,
        **options: Any) -> Tensor:
    """Repeated sign steps, each projected back onto the l-infinity ball; the best restart's last iterate.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards deep learning models resistant to adversarial
    attacks, ICLR 2018, eq. (3) of section 2.1. With several restarts an image keeps the first restart
    that is misclassified. With momentum=1, the iterative method of Dong, Liao, Pang, Su, Zhu, Hu and Li,
    Boosting adversarial attacks with momentum, CVPR 2018, eq. (6) and (7) (MI-FGSM). With targeted=True, the
    multi-targeted attack of Gowal, Uesato, Qin, Huang, Mann and Kohli, An alternative surrogate loss for
    PGD-based adversarial testing, 2019, with targets by their distance to the true logit at the image. With
    queries, every restart begins where a search without gradients ends, see `square`; that point is kept
    where it fools the model and the steps lead back to a point that does not.

    Args:
        model, images, labels, epsilon: as in `fgsm`.
        step_size: length of a step in pixel units, above 0.
        steps: number of steps, at least 1.
        options: other fields of `Attack`: random_start, restarts, seed, t1, clip, gradient, loss,
            logit_scale, draws, noise, momentum, targeted, targets, queries, allow_random_forward,
            allow_training_mode.

    Returns:
        adversarial images, same shape, within epsilon of `images` in every pixel.

    Raises:
        as `Attack`.
    """
    check_whole("steps", steps, 1)  # None would be one step
    return Attack("pgd", epsilon, step_size, steps, **options)(model, images, labels)


@method("pgd", uses="step_size steps random_start restarts seed loss logit_scale draws noise momentum "
                    "targeted targets queries")
def _ascend(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    if attack.step_size is None:
        raise InputError("step_size is None; pgd needs the length of a step, such as epsilon / 4")
    epsilon, clip, generator = attack.epsilon, attack.clip, torch.Generator().manual_seed(attack.seed)
    slope = partial(input_gradient, model, t1=attack.end_times, logit_scale=attack.logit_scale,
                    draws=attack.draws, noise=attack.noise, generator=generator)
    result = images.clone()
    alive = torch.arange(len(images), device=images.device)  # images that no restart has broken yet
    wrong = _nearest(attack, model, images, labels) if attack.targeted else None
    runs = attack.restarts * (1 if wrong is None else wrong.shape[1])
    for run in range(runs):
        adversarial, loss = images[alive], attack.loss
        if attack.queries:
            adversarial = start = square_point(attack, model, adversarial, labels[alive], generator)
        elif attack.random_start:
            adversarial = project(shaken(adversarial, epsilon, generator), adversarial, epsilon, clip)
        if wrong is not None:
            loss = partial(_above_the_true, wrong[alive, run % wrong.shape[1]])
        velocity = torch.zeros_like(adversarial)
        for _ in range(attack.steps):
            direction, _ = slope(adversarial, labels[alive], loss=loss)
            if attack.momentum:
                direction = velocity = attack.momentum * velocity + _normalised(direction)
            moved = adversarial + attack.step_size * direction.sign()
            adversarial = project(moved, images[alive], epsilon, clip)
        if attack.queries:
            kept = ~_right(attack, model, start, labels[alive]) & _right(attack, model, adversarial,
                                                                         labels[alive])
            adversarial = torch.where(kept[:, None, None, None], start, adversarial)
        result[alive] = adversarial
        if run + 1 < runs:
            alive = alive[_right(attack, model, adversarial, labels[alive])]
            if len(alive) == 0:
                break
    return result


@torch.no_grad()
def _right(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified right; bool, shape (N,)."""
    return forward(model, images, attack.end_times[0]).argmax(1) == labels


@torch.no_grad()
def _nearest(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The wrong classes of largest logit at the images, largest first, shape (N, targets)."""
    logits = forward(model, images, attack.end_times[0], labels)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.topk(min(attack.targets, logits.shape[1] - 1), 1).indices


def _above_the_true(wrong: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of the logit of each image's target class minus the true one."""
    return (logits.gather(1, wrong[:, None]) - logits.gather(1, labels[:, None])).mean()


def _normalised(gradient: Tensor) -> Tensor:
    """Every image's gradient over its mean magnitude; a gradient of zeros stays zero."""
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
