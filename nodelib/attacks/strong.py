"""Strong attacks of the library pyautoattack: APGD-CE, targeted APGD, targeted FAB and Square; and the library's own warnings.

These four are the standard set of Croce and Hein, Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks, ICML 2020: two gradient attacks that choose their step size
themselves, one that looks for the nearest decision boundary, and one that needs no gradient at all. The set for
networks whose forward pass is random is APGD on the cross-entropy and on the difference of logits ratio, both with the mean
gradient of twenty draws.
Optional: `pip install 'nodelib[attacks]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

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
from nodelib.solver.errors import NodelibError
from nodelib.solver.seeding import unmoved

STRONG = ("apgd-ce", "apgd-t", "fab-t", "square")
RANDOMISED = ("apgd-ce", "apgd-dlr")
LIBRARY_ATTACKS = tuple(dict.fromkeys((*STRONG, *RANDOMISED)))
OTHER_CLASSES = 9


class MissingLibrary(NodelibError, ImportError):
    """An optional package that an attack needs is not installed."""


def require(module: str) -> None:
    """MissingLibrary, which says what to install, unless the module of the optional packages is there."""
    try:
        __import__(module)
    except ImportError as error:
        raise MissingLibrary(f"{module} is not installed; this attack needs it: pip install "
                             f"'nodelib[attacks]'") from error


def _construct(name: str, model: Callable[[Tensor], Tensor], epsilon: float, seed: int, steps: int, restarts: int,
               draws: int, targets: int, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    common = dict(norm="Linf", eps=epsilon, seed=seed, n_restarts=restarts, verbose=False, device=device)
    if name in ("apgd-ce", "apgd-dlr"):
        return APGDAttack(model, n_iter=steps, eot_iter=draws, rho=0.75, loss=name.removeprefix("apgd-"), **common).perturb
    if name == "apgd-t":
        return APGDAttack_targeted(model, n_iter=steps, eot_iter=draws, rho=0.75, n_target_classes=targets,
                                   **common).perturb
    if name == "fab-t":
        return FABAttack_PT(model, n_iter=steps, targeted=True, n_target_classes=targets, **common).perturb
    return SquareAttack(model, n_queries=steps, p_init=0.8, resc_schedule=False, **common).perturb


def strong(name: str, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int,
           restarts: int = 1, t1: float | None = None, clip: bool = True, gradient: str | None = None, seed: int = 0,
           allow_random_forward: bool = False, draws: int = 1, targets: int = OTHER_CLASSES) -> Tensor:
    """One attack of the standard set on one batch of images, with the published settings as defaults.

    Images that the model misclassifies already are returned unchanged, and so are those the attack does not
    break. A prediction depends on the batch an image is solved in (they share step sizes), so score the
    result anew in the batches the clean images were scored in: that score counts, not the attack's own.

    Args:
        name: one of `LIBRARY_ATTACKS`.
        model, images, labels, epsilon, t1, gradient, allow_random_forward: as in `fgsm`.
        steps: gradient steps per restart and target class; for "square" queries per image.
        restarts: independent starts, at least 1.
        clip: must be True: the library attacks inside the pixel box [0, 1] only.
        seed: of the attack's random numbers; torch's own generator is left as it was.
        draws: forward passes a gradient of APGD is averaged over, for a random forward pass.
        targets: of "apgd-t" and "fab-t", the nearest wrong classes, each tried in turn, 1 to 9.

    Returns:
        adversarial images, same shape, within epsilon of `images` and in [0, 1].

    Raises:
        ImportError: the optional packages are missing.
        ValueError: invalid arguments, before any work, or logits that are not finite.
        AttackError: the library returned images outside the ball or the box.
    """
    require("pyautoattack")
    if name not in LIBRARY_ATTACKS:
        raise ValueError(f"unknown attack {name!r}; the strong attacks are {', '.join(LIBRARY_ATTACKS)}")
    epsilon = check_epsilon(epsilon)
    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward)
    if not clip:
        raise ValueError(f"{name} attacks inside the pixel box only; use clip=True, or pgd for attacks without a box")
    for what, value in (("steps", steps), ("restarts", restarts), ("draws", draws), ("targets", targets)):
        if value < 1 or int(value) != value:
            raise ValueError(f"{what} is {value}; it must be a whole number of at least 1")
    if draws > 1 and not name.startswith("apgd"):
        raise ValueError(f"draws is {draws} with {name}; only the gradients of APGD are averaged, use draws=1")
    if epsilon == 0 or len(images) == 0:
        return images.detach().clone()
    attack = _construct(name, lambda x: forward(model, x, t1), epsilon, seed, steps, restarts, draws, targets, images.device)
    with attacking(model, gradient), unmoved():
        adversarial = attack(images.detach().clone(), labels.detach().clone())
    return check_result(adversarial.detach().to(images.dtype), images, epsilon, clip, name)


class _Collector:
    """What the library would log, as a list."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line.split(" See ")[0])


def library_warnings(model: nn.Module, images: Tensor, labels: Tensor, *, t1: float | None = None,
                     gradient: str | None = None, allow_random_forward: bool = False) -> list[str]:
    """What AutoAttack warns of before it attacks this network: the checks of its library, on these images.

    They look for a forward pass that is random or computes gradients itself, for outputs that are probabilities, and for input
    gradients of the cross-entropy that are exactly zero.

    Args:
        model, images, labels, t1, gradient, allow_random_forward: as in `fgsm`.

    Returns:
        the library's warnings in its own words; empty where it has none.
    """
    require("pyautoattack")
    from pyautoattack import checks

    check_images(images)
    check_labels(labels, len(images))
    check_model(model, allow_random_forward)
    heard, seen = _Collector(), lambda x: forward(model, x, t1)
    with attacking(model, gradient):
        checks.check_randomized(seen, images, labels, logger=heard)
        checks.check_range_output(seen, images, logger=heard)
        checks.check_dynamic(seen, images, logger=heard)
        with torch.enable_grad():
            point = images.detach().clone().requires_grad_(True)
            slope, = torch.autograd.grad(nn.functional.cross_entropy(seen(point), labels, reduction="sum"), point)
        checks.check_zero_gradients(slope, logger=heard)
    return heard.lines


def library_afterthoughts(accuracies: Mapping[str, float]) -> list[str]:
    """What AutoAttack warns of after its attacks: that Square got further than the attacks along gradients.

    Args:
        accuracies: share of images left after each attack, 0 to 1, by its name in `STRONG`.

    Returns:
        the library's warning in its own words, or nothing.
    """
    require("pyautoattack")
    from pyautoattack import checks

    if unknown := sorted(set(accuracies) - set(STRONG)):
        raise ValueError(f"unknown attack {unknown[0]!r}; the attacks of the set are {', '.join(STRONG)}")
    heard = _Collector()
    # the library's dictionary holds the accuracy before all attacks too, and it asks for three entries
    checks.check_square_sr({"clean": 1.0, **accuracies}, logger=heard)
    return heard.lines


apgd_ce = partial(strong, "apgd-ce", steps=100)
apgd_dlr = partial(strong, "apgd-dlr", steps=100)
apgd_t = partial(strong, "apgd-t", steps=100)
fab_t = partial(strong, "fab-t", steps=100)
square = partial(strong, "square", steps=5000)
