"""Strong attacks of the library pyautoattack (APGD-CE, targeted APGD, FAB, Square), and its warnings.

These four are the standard set of Croce and Hein, Reliable evaluation of adversarial robustness with an
ensemble of diverse parameter-free attacks, ICML 2020: two gradient attacks that choose their step size
themselves, one that looks for the nearest decision boundary, and one that needs no gradient at all. The set
for networks whose forward pass is random is APGD on the cross-entropy and on the difference of logits
ratio, both with the mean gradient of twenty draws.
Optional: `pip install 'nodelib[attacks]'`.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nodelib.attacks.attack import Attack, method
from nodelib.attacks.common import attacking, check_images, check_model, forward
from nodelib.networks import check_labels
from nodelib.solver.errors import InputError, NodelibError, check_choice
from nodelib.solver.seeding import seeded, unmoved

STRONG = ("apgd-ce", "apgd-t", "fab-t", "square")
RANDOMISED = ("apgd-ce", "apgd-dlr")
LIBRARY_ATTACKS = tuple(dict.fromkeys((*STRONG, *RANDOMISED)))
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}  # the differences of logits that they divide by


class MissingLibrary(NodelibError, ImportError):
    """An optional package that an attack needs is not installed."""


def require(module: str) -> None:
    """MissingLibrary, which says what to install, unless the module of the optional packages is there."""
    try:
        __import__(module)
    except ImportError as error:
        raise MissingLibrary(f"{module} is not installed; this attack needs it: pip install "
                             "'nodelib[attacks]'") from error


def _construct(attack: Attack, model: Callable[[Tensor], Tensor], targets: int, device: torch.device,
               ) -> Callable[[Tensor, Tensor], Tensor]:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    name, steps = attack.name, attack.steps
    common = dict(norm="Linf", eps=attack.epsilon, seed=attack.seed, n_restarts=attack.restarts,
                  verbose=False, device=device)
    ascent = dict(n_iter=steps, eot_iter=attack.draws, rho=0.75, **common)
    if name in ("apgd-ce", "apgd-dlr"):
        return APGDAttack(model, loss=name.removeprefix("apgd-"), **ascent).perturb
    if name == "apgd-t":
        return APGDAttack_targeted(model, n_target_classes=targets, **ascent).perturb
    if name == "fab-t":
        return FABAttack_PT(model, n_iter=steps, targeted=True, n_target_classes=targets, **common).perturb
    return SquareAttack(model, n_queries=steps, p_init=0.8, resc_schedule=False, **common).perturb


def strong(name: str, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int,
           **options: Any) -> Tensor:
    """One attack of the standard set on one batch of images, with the published settings as defaults.

    Images that the model misclassifies already are returned unchanged, and so are those the attack does not
    break. All but "square" move images in single precision, and ask the model in the images' own. A
    prediction depends on the batch an image is solved in (they share step sizes), so score the result anew in
    the batches the clean images were scored in: that score counts, not the attack's own.

    Args:
        name: one of `LIBRARY_ATTACKS`.
        model, images, labels, epsilon: as in `fgsm`.
        steps: gradient steps per restart and target class; for "square" queries per image.
        options: other fields of `Attack`: restarts, seed, t1, clip (True: the library stays in the box),
            gradient, draws (of APGD: for a random forward pass), targets (of "apgd-t" and "fab-t"),
            allow_random_forward.

    Returns:
        adversarial images, same shape, within epsilon of `images` and in [0, 1].

    Raises:
        ImportError: the optional packages are missing.
        otherwise as `Attack`; torch's own generator is left as it was.
    """
    check_choice("name", name, LIBRARY_ATTACKS)
    return Attack(name, epsilon, steps=steps, **options)(model, images, labels)


@method("apgd-ce", uses="steps restarts seed draws", loss="cross-entropy", library="pyautoattack", steps=100)
@method("apgd-dlr", uses="steps restarts seed draws", loss="dlr", library="pyautoattack", steps=100)
@method("apgd-t", uses="steps restarts seed draws targets", loss="dlr-targeted", library="pyautoattack",
        steps=100)
@method("fab-t", uses="steps restarts seed targets", loss="boundary", library="pyautoattack", steps=100)
@method("square", uses="steps restarts seed", loss="margin", library="pyautoattack", steps=5000)
def _by_library(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    require("pyautoattack")
    in_box(attack)
    least, (t1,) = FEWEST_CLASSES.get(attack.name, 2), attack.end_times
    # the library computes in a precision of its own
    seen = lambda x: forward(model, x.to(images.dtype), t1, labels, least).to(x.dtype)  # noqa: E731
    targets = attack.targets
    if attack.name in ("apgd-t", "fab-t"):  # asked only then: a pass moves the generator of random pooling
        with torch.no_grad():
            targets = min(targets, seen(images[:1]).shape[1] - 1)
    given = images.contiguous()  # the library takes views of its gradients, which are laid out alike
    if attack.name != "square":  # which computes in any precision, the others in single, FAB halfway
        given = given.float()
    with unmoved():
        found = _construct(attack, seen, targets, images.device)(given.clone(), labels.clone())
    if found.dtype == images.dtype:
        return found
    # an image that was not moved is returned as it was, without the rounding
    moved = (found != given).flatten(1).any(1)
    return torch.where(moved[:, None, None, None], found.to(images.dtype), images)


def square_point(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor,
                 generator: torch.Generator) -> Tensor:
    """Where Square's search of `attack.queries` ends for each image, and another attack may begin: at the
    first point that fools the model, else at that of smallest margin. `generator`: on the processor, moved by
    one draw a search.
    """
    require("pyautoattack")
    from pyautoattack.square import SquareAttack

    search = SquareAttack(lambda x: forward(model, x, attack.end_times[0], labels), norm="Linf",
                          eps=attack.epsilon, n_queries=attack.queries, p_init=0.8, resc_schedule=False,
                          verbose=False, device=images.device)
    with seeded(int(torch.randint(2**62, (1,), generator=generator)), images.device):
        search.init_hyperparam(images)
        _, found = search.attack_single_run(images.clone(), labels.clone())
    return found


def in_box(attack: Attack) -> None:
    """InputError unless the attack stays in the pixel box [0, 1], as those of other libraries do."""
    if not attack.clip:
        raise InputError(f"{attack.name} attacks inside the pixel box only; use clip=True, or pgd for "
                         "attacks without a box")


class _Heard(list):
    """What the library would log."""

    def warning(self, line: str) -> None:
        self.append(line.split(" See ")[0])


def library_warnings(model: nn.Module, images: Tensor, labels: Tensor, *, t1: float | None = None,
                     gradient: str | None = None, allow_random_forward: bool = False) -> list[str]:
    """What AutoAttack warns of before it attacks this network: the checks of its library, on these images.

    They look for a forward pass that is random or computes gradients itself, for outputs that are
    probabilities, and for input gradients of the cross-entropy that are exactly zero.

    Args:
        model, images, labels, t1, gradient, allow_random_forward: as in `fgsm`.

    Returns:
        the library's warnings in its own words; empty where it has none.
    """
    require("pyautoattack")
    from pyautoattack import checks

    check_images(images)
    labels = check_labels(labels, len(images))
    attack = Attack("apgd-ce", 0.0, t1=t1, gradient=gradient, allow_random_forward=allow_random_forward)
    check_model(model, attack)
    heard, seen = _Heard(), lambda x: forward(model, x, t1)
    with attacking(model, gradient):
        checks.check_randomized(seen, images, labels, logger=heard)
        checks.check_range_output(seen, images, logger=heard)
        tracer = sys.gettrace()
        try:
            checks.check_dynamic(seen, images, logger=heard)
        finally:
            sys.settrace(tracer)  # it leaves none: a debugger would stop nowhere any more
        with torch.enable_grad():
            point = images.detach().clone().requires_grad_(True)
            loss = nn.functional.cross_entropy(seen(point), labels, reduction="sum")
            slope, = torch.autograd.grad(loss, point)
        checks.check_zero_gradients(slope.contiguous(), logger=heard)  # of which it takes a view
    return heard


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
        raise InputError(f"unknown attack {unknown[0]!r}; the attacks of the set are {', '.join(STRONG)}")
    heard = _Heard()
    # the library's dictionary holds the accuracy before all attacks too, and it asks for three entries
    checks.check_square_sr({"clean": 1.0, **accuracies}, logger=heard)
    return heard


def apgd_ce(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = 100,
            **options: Any) -> Tensor:
    """APGD on the cross-entropy: steps along the gradient, of a size that halves as progress stalls.

    Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, ICML 2020, algorithm 1.

    Args:
        model, images, labels, epsilon, options: as in `strong`; images of shape (N, C, H, W), labels (N,).
        steps: gradient steps per restart, at least 1.

    Returns:
        adversarial images, (N, C, H, W), within epsilon of `images` and in [0, 1].

    Raises:
        as `strong`.
    """
    return strong("apgd-ce", model, images, labels, epsilon, steps=steps, **options)


def apgd_dlr(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = 100,
             **options: Any) -> Tensor:
    """APGD on the difference of logits ratio, which no scale of the logits saturates; of 3 classes or more.

    Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, ICML 2020, algorithm 1 with eq. (6).

    Args:
        model, images, labels, epsilon, options: as in `strong`; images of shape (N, C, H, W), labels (N,).
        steps: gradient steps per restart, at least 1.

    Returns:
        adversarial images, (N, C, H, W), within epsilon of `images` and in [0, 1].

    Raises:
        as `strong`.
    """
    return strong("apgd-dlr", model, images, labels, epsilon, steps=steps, **options)


def apgd_t(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = 100,
           **options: Any) -> Tensor:
    """APGD on the targeted ratio, towards the nearest wrong classes in turn; of 4 classes or more.

    Croce and Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks, ICML 2020, algorithm 1 with eq. (7).

    Args:
        model, images, labels, epsilon, options: as in `strong`; images of shape (N, C, H, W), labels (N,).
        steps: gradient steps per restart and target class, at least 1.

    Returns:
        adversarial images, (N, C, H, W), within epsilon of `images` and in [0, 1].

    Raises:
        as `strong`.
    """
    return strong("apgd-t", model, images, labels, epsilon, steps=steps, **options)


def fab_t(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = 100,
          **options: Any) -> Tensor:
    """Targeted FAB: projections onto the linearised boundaries to the nearest wrong classes in turn.

    Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack, ICML 2020.

    Args:
        model, images, labels, epsilon, options: as in `strong`; images of shape (N, C, H, W), labels (N,).
        steps: steps per restart and target class, at least 1; each takes a gradient.

    Returns:
        adversarial images, (N, C, H, W), within epsilon of `images` and in [0, 1].

    Raises:
        as `strong`.
    """
    return strong("fab-t", model, images, labels, epsilon, steps=steps, **options)


def square(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, *, steps: int = 5000,
           **options: Any) -> Tensor:
    """Square: random search by squares of pixels that the margin accepts, without any gradient.

    Andriushchenko, Croce, Flammarion and Hein, Square attack: a query-efficient black-box adversarial attack
    via random search, ECCV 2020, algorithm 1.

    Args:
        model, images, labels, epsilon, options: as in `strong`; images of shape (N, C, H, W), labels (N,).
        steps: queries, forward passes per image and restart, at least 1; few say nothing of robustness.

    Returns:
        adversarial images, (N, C, H, W), within epsilon of `images` and in [0, 1].

    Raises:
        as `strong`.
    """
    return strong("square", model, images, labels, epsilon, steps=steps, **options)
