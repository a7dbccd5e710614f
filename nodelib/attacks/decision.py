"""A label-only attack: HopSkipJump of the library foolbox, in the l-infinity ball.

It sees nothing but the predicted class, so no gradient can mislead it: where it gets further than a gradient
attack, the gradient was at fault. Of foolbox's two decision attacks this one measures distance in
l-infinity; its Boundary attack shrinks the Euclidean distance, and with a thousand queries on the small
network it ended two to three times further away in l-infinity. Optional: `pip install 'nodelib[attacks]'`.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import forward
from nodelib.attacks.strong import in_box, require
from nodelib.solver.seeding import seeded


class _Done(Exception):
    """The attack may stop: it is inside the ball, or has spent its queries."""


class _LabelOnly(nn.Module):
    """The network as the attack sees it: one image at a time, a class and no more; it counts and remembers.

    One at a time, because images of one batch share step sizes: an image found adversarial among some would
    not be among others, which foolbox takes for a fault of its own.
    """

    def __init__(self, attack: Attack, model: nn.Module, image: Tensor, label: int) -> None:
        super().__init__()
        self.attack, self.model, self.image, self.label, self.left = attack, model, image, label, attack.steps
        self.found = image

    def forward(self, x: Tensor) -> Tensor:
        if self.left < 1:
            raise _Done
        self.left -= 1
        logits = forward(self.model, x, self.attack.end_times[0], torch.tensor([self.label]))
        away = (x - self.image).abs().max().item()
        if logits.argmax(1).item() != self.label and away <= self.attack.epsilon:
            self.found = x.detach().clone()
            raise _Done
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)


def hop_skip_jump(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, queries: int = 1000,
                  **options: Any) -> Tensor:
    """HopSkipJump: walk along the decision boundary towards the image, guided by sampled labels.

    Chen, Jordan and Wainwright, HopSkipJumpAttack: a query-efficient decision-based attack, IEEE S&P 2020,
    algorithm 2 with the l-infinity distance. It stops at the first misclassified query inside the ball.

    Args:
        model, images, labels, epsilon: as in `fgsm`; the model is asked for one image at a time, so score
            the result one by one too.
        queries: predictions per image, at least 1; the start and its projection take about a hundred.
        options: other fields of `Attack`: seed, t1, clip (True: foolbox stays in the pixel box),
            allow_random_forward.

    Returns:
        adversarial images, same shape, within epsilon of `images` and in [0, 1]; an image that is
        misclassified already, or not broken within the queries, comes back unchanged.

    Raises:
        ImportError: the optional packages are missing.
        otherwise as `Attack`; torch's own generator is left as it was.
    """
    return Attack("hop-skip-jump", epsilon, steps=queries, **options)(model, images, labels)


@method("hop-skip-jump", uses="steps seed", loss="label", library="foolbox", steps=1000)
@torch.no_grad()
def _walk(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    require("foolbox")
    in_box(attack)
    with seeded(attack.seed, images.device):
        return torch.cat([_attack_one(attack, model, image, int(label))
                          for image, label in zip(images.split(1), labels)])


def _attack_one(attack: Attack, model: nn.Module, image: Tensor, label: int) -> Tensor:
    import foolbox

    # the classifier counts its queries and stops the attack by an exception: foolbox knows no query budget
    classifier = _LabelOnly(attack, model, image, label)
    classifier.training = False  # foolbox asks for it; the model's own mode stays
    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(distance=foolbox.distances.linf, steps=25)
    walk = foolbox.attacks.HopSkipJumpAttack(
        init_attack=start, constraint="linf", initial_gradient_eval_steps=30, max_gradient_eval_steps=300)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a start that failed; the failure itself ends below
            walk.run(foolbox.PyTorchModel(classifier, bounds=(0, 1), device=image.device), image,
                     foolbox.criteria.Misclassification(torch.tensor([label], device=image.device)))
    except _Done:
        pass
    except ValueError as error:
        if "init_attack failed" not in str(error):  # no random image is misclassified: no place to start from
            raise
    return classifier.found
