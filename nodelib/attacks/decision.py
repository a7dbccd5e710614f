"""A label-only attack: HopSkipJump of the library foolbox, in the l-infinity ball.

It sees nothing but the predicted class, so no gradient can mislead it: where it gets further than a gradient
attack, the gradient was at fault. Of foolbox's two decision attacks this one measures distance in
l-infinity; its Boundary attack shrinks the Euclidean distance, and with a thousand queries on the small
network it ended two to three times further away in l-infinity. Optional: `pip install 'nodelib[attacks]'`.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from nodelib.attacks.common import (
    attacking,
    check_epsilon,
    check_images,
    check_labels,
    check_model,
    check_result,
    forward,
)
from nodelib.attacks.strong import require
from nodelib.solver.seeding import seeded


class _Done(Exception):
    """The attack may stop: it is inside the ball, or has spent its queries."""


class _LabelOnly(nn.Module):
    """The network as the attack sees it: one image at a time, a class and no more; it counts and remembers.

    One at a time, because images of one batch share step sizes: an image found adversarial among some would
    not be among others, which foolbox takes for a fault of its own.
    """

    def __init__(self, model: nn.Module, image: Tensor, label: int, epsilon: float, t1: float | None, queries: int) -> None:
        super().__init__()
        self.model, self.image, self.label, self.epsilon, self.t1, self.left = model, image, label, epsilon, t1, queries
        self.found: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.left < 1:
            raise _Done
        self.left -= 1
        logits = forward(self.model, x, self.t1)
        if logits.argmax(1).item() != self.label and (x - self.image).abs().max().item() <= self.epsilon:
            self.found = x.detach().clone()
            raise _Done
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)


def hop_skip_jump(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, queries: int = 1000,
                  t1: float | None = None, clip: bool = True, seed: int = 0, gradient: str | None = None,
                  allow_random_forward: bool = False) -> Tensor:
    """HopSkipJump: walk along the decision boundary towards the image, guided by sampled labels.

    Chen, Jordan and Wainwright, HopSkipJumpAttack: a query-efficient decision-based attack, IEEE S&P 2020,
    algorithm 2 with the l-infinity distance. It stops at the first misclassified query inside the ball.

    Args:
        model, images, labels, epsilon, t1, allow_random_forward: as in `fgsm`; the model is asked for one
            image at a time, so score the result one by one too.
        queries: predictions per image, at least 1; the start and its projection take about a hundred.
        clip: must be True: foolbox stays in the pixel box [0, 1].
        seed: of the random starts and directions; torch's own generator is left as it was.
        gradient: accepted for one signature with the other attacks, without effect.

    Returns:
        adversarial images, same shape, within epsilon of `images` and in [0, 1]; an image that is
        misclassified already, or not broken within the queries, comes back unchanged.

    Raises:
        ImportError: the optional packages are missing.
        ValueError: invalid arguments, before any work, or logits that are not finite.
    """
    require("foolbox")
    epsilon = check_epsilon(epsilon)
    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward)
    if not clip:
        raise ValueError("hop-skip-jump attacks inside the pixel box only; use clip=True, or pgd for attacks without a box")
    if queries < 1 or int(queries) != queries:
        raise ValueError(f"queries is {queries}; it must be a whole number of at least 1")
    result = images.detach().clone()
    if epsilon == 0:
        return result
    with attacking(model, gradient), torch.no_grad(), seeded(seed, images.device):
        for i in range(len(images)):
            found = _attack_one(model, images[i:i + 1].detach(), int(labels[i]), epsilon, t1, queries)
            if found is not None:
                result[i:i + 1] = found
    return check_result(result, images, epsilon, clip, "hop-skip-jump")


def _attack_one(model: nn.Module, image: Tensor, label: int, epsilon: float, t1: float | None, queries: int) -> Tensor | None:
    import foolbox

    # the classifier counts its queries and stops the attack by an exception: foolbox knows no query budget
    classifier = _LabelOnly(model, image, label, epsilon, t1, queries).eval()
    attack = foolbox.attacks.HopSkipJumpAttack(
        init_attack=foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(distance=foolbox.distances.linf, steps=25),
        constraint="linf", initial_gradient_eval_steps=30, max_gradient_eval_steps=300)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a start that failed; the failure itself ends below
            attack.run(foolbox.PyTorchModel(classifier, bounds=(0, 1), device=image.device), image,
                       foolbox.criteria.Misclassification(torch.tensor([label], device=image.device)))
    except _Done:
        pass
    except ValueError as error:
        if "init_attack failed" not in str(error):  # no random image is misclassified: no place to start from
            raise
    return classifier.found
