"""An attack, described once: what the public functions, measurements and training agree on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from torch import Tensor, nn

from nodelib.attacks.common import attacking, check_images, check_model, check_result
from nodelib.attacks.losses import Loss, resolve_loss
from nodelib.networks import check_labels
from nodelib.solver.errors import (
    InputError,
    check_choice,
    check_flag,
    check_whole,
    is_number,
    is_whole,
    plain,
)
from nodelib.solver.integrate import GRADIENTS


class Method(NamedTuple):
    """What attacks of a name run, which fields of `Attack` it uses beside those that every attack has, and
    what else a record says of it: `loss`, where its own and no field, `library`, where it is not from here,
    and whether it starts at random. `steps`: how many it takes where nobody says how many.
    """

    run: Callable[[Attack, nn.Module, Tensor, Tensor], Tensor]
    uses: frozenset[str]
    loss: str | None = None
    library: str | None = None
    random_start: bool = True
    steps: int = 1


METHODS: dict[str, Method] = {}
FROM_0_TO_1 = {"epsilon": "as pixels are (the post used 0.3): divide a number of grey levels by 255",
               "noise": "a radius in pixel units", "momentum": "1 for a plain sum"}
OF_ALL = {"name", "epsilon", "t1", "clip", "gradient", "allow_random_forward", "allow_training_mode"}


def method(*names: str, uses: str, **recorded: Any) -> Callable:
    """Decorator: enter a function (attack, model, images, labels) -> adversarial images under these names.

    uses: names of the fields of `Attack` that it reads, separated by spaces; others are refused.
    recorded: the other fields of `Method`, where they are not as usual.
    """
    def enter(run: Callable) -> Callable:
        METHODS.update(dict.fromkeys(names, Method(run, frozenset(uses.split()), **recorded)))
        return run
    return enter


@dataclass(frozen=True)
class Attack:
    """An attack in the l-infinity ball on any classifier of images; call it with (model, images, labels).

    Fields:
        name: one of `METHODS`, such as "pgd".
        epsilon: radius of the ball in pixel units, 0 to 1 (the post: 0.3).
        step_size: length of a step in pixel units, above 0; needed by "pgd".
        steps: gradient steps, at least 1; for "square" and "hop-skip-jump" queries per image. By default as
            many as the function of that name takes (100 of APGD and FAB, 5000 of "square", 1000 of
            "hop-skip-jump"), and 1 of the others.
        random_start: start uniformly inside the ball instead of at the image.
        restarts: independent starts, at least 1; more than one needs random_start.
        t1: end time attacked, for a network that is called as model(images, t1) and has an `ODEBlock` or
            calls that argument t1 or t; None for the network's own.
            For "fgsm" and "pgd" several, over which the gradient is averaged: the attack on a network whose
            end time is drawn at random when it is used.
        clip: keep pixels in [0, 1]; False, the post's way, leaves them in [-epsilon, 1 + epsilon].
        gradient: how the network's `ODEBlock`s are differentiated, one of
            `nodelib.solver.integrate.GRADIENTS`; None for their own way.
        seed: of what is random in the attack; the same seed draws the same on every device.
        loss: of (logits, labels), scalar, or one of `nodelib.attacks.LOSSES`.
        logit_scale: factor on the logits before the loss, above 0, or "gap", see `input_gradient`.
        draws: forward passes every gradient is averaged over, at least 1; for random pooling, or with noise.
        noise: radius, 0 to 1, of uniform noise that every such pass adds to the images, see `input_gradient`.
        momentum: 0 to 1, decay of the sum of gradients, each divided by its mean magnitude, whose sign is
            stepped along. With noise and one draw, a step costs one pass and follows the average over the
            neighbourhoods of the steps before it.
        targets: of "apgd-t", "fab-t" and a targeted "pgd", how many of the nearest wrong classes are tried
            in turn, at least 1.
        targeted: of "pgd", climb the logit of one wrong class over the true one instead of a loss, and try
            the classes in turn; `restarts` are then those of each class.
        queries: of "pgd", 0 or more; above 0 every restart begins where Square ends after so many queries, at
            the first point that fools the model or that of smallest margin.
        allow_random_forward: accept a model whose forward pass is random: with random pooling, or torch's
            fractional pooling without fixed regions.
        allow_training_mode: accept a model in training mode, whose batch statistics mix images and whose
            running ones every pass changes: for adversarial training as some do it, never for an evaluation.
    """

    name: str
    epsilon: float
    step_size: float | None = None
    steps: int = None  # type: ignore[assignment]  # the attack's own number, which takes its place at once
    random_start: bool = True
    restarts: int = 1
    t1: float | Sequence[float] | None = None
    clip: bool = True
    gradient: str | None = None
    seed: int = 0
    loss: Loss | str = "cross-entropy"
    logit_scale: float | str = 1.0
    draws: int = 1
    noise: float = 0.0
    momentum: float = 0.0
    targets: int = 9
    targeted: bool = False
    queries: int = 0
    allow_random_forward: bool = False
    allow_training_mode: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):  # Python's own numbers, so that a value compares and hashes
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        self._check_name()
        for name in ("clip", "random_start", "targeted", "allow_random_forward", "allow_training_mode"):
            check_flag(name, getattr(self, name))
        for name in ("steps", "restarts", "draws", "targets"):
            check_whole(name, getattr(self, name), 1)
        check_whole("queries", self.queries, 0)
        if not (is_whole(self.seed, -2**63) and self.seed < 2**64):
            raise InputError(f"seed is {self.seed!r}; it must be a whole number from -2^63 to 2^64 - 1")
        resolve_loss(self.loss)
        if self.gradient is not None:
            check_choice("gradient", self.gradient, GRADIENTS)
        for name, meaning in FROM_0_TO_1.items():
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise InputError(f"{name} is {value!r}; it must be from 0 to 1, {meaning}")
        if self.step_size is not None and not (is_number(self.step_size) and self.step_size > 0):
            raise InputError(f"step_size is {self.step_size!r}; it must be a number above 0 (epsilon is "
                             f"{self.epsilon:g})")
        if not (self.logit_scale == "gap" if isinstance(self.logit_scale, str)
                else is_number(self.logit_scale) and self.logit_scale > 0):
            raise InputError(f"logit_scale is {self.logit_scale!r}; it must be a number above 0, or 'gap'")
        if self.restarts > 1 and not self.random_start:
            raise InputError(f"restarts is {self.restarts} without random_start: every restart would be the "
                             "same; pass random_start=True or restarts=1")
        self._check_end_times()
        self._check_used()
        self._check_pgd()

    def _check_name(self) -> None:
        if not (isinstance(self.name, str) and self.name in METHODS):
            raise InputError(f"unknown attack {self.name!r}; the known attacks are {', '.join(METHODS)}")
        if self.steps is None:  # fewer than an attack needs would look like robustness
            object.__setattr__(self, "steps", METHODS[self.name].steps)

    def _check_used(self) -> None:
        uses = METHODS[self.name].uses
        for field in fields(self):
            value = getattr(self, field.name)
            default = METHODS[self.name].steps if field.name == "steps" else field.default
            if field.name not in OF_ALL | uses and value != default:
                raise InputError(f"{field.name} is {value!r} with {self.name}, which makes no use of it; "
                                 f"leave it out (beside what every attack has, {self.name} uses "
                                 f"{', '.join(sorted(uses))})")

    def _check_pgd(self) -> None:
        if self.targeted and self.loss != "cross-entropy":
            raise InputError(f"loss is {self.loss!r} with targeted=True, which climbs the difference of two "
                             "logits; leave loss out")
        if self.name == "pgd" and self.targets != type(self).targets and not self.targeted:
            raise InputError(f"targets is {self.targets} with pgd and targeted=False; pass targeted=True, or "
                             "leave targets out")
        if self.queries and not (self.random_start and self.clip):
            raise InputError(f"queries is {self.queries} with random_start={self.random_start} and "
                             f"clip={self.clip}; Square starts at random and stays in the pixel box: use "
                             "True for both")
        if len(self.end_times) > 1 and (self.targeted or self.queries):
            raise InputError(f"t1 has {len(self.end_times)} end times with targeted={self.targeted} and "
                             f"queries={self.queries}; which class or point is nearest depends on the end "
                             "time, give one")

    def _check_end_times(self) -> None:
        if isinstance(self.t1, Sequence) and not isinstance(self.t1, (str, bytes)):
            object.__setattr__(self, "t1", tuple(map(plain, self.t1)))
        if not self.end_times:
            raise InputError("t1 is an empty list of end times; give one, or None for the model's own")
        if self.t1 is not None and not all(map(is_number, self.end_times)):
            raise InputError(f"t1 is {self.t1!r}; it must be a finite number, or several, or None for the "
                             "model's own")
        if len(self.end_times) > 1 and self.name not in ("fgsm", "pgd"):
            raise InputError(f"t1 is {self.t1!r} with {self.name}; only fgsm and pgd average over end times, "
                             "give one")
        if len(self.end_times) > 1 and self.restarts > 1:
            raise InputError(f"restarts is {self.restarts} with {len(self.end_times)} end times: no single "
                             "forward pass says whether an image is broken; use restarts=1")

    @property
    def end_times(self) -> tuple[float | None, ...]:
        """The end times attacked, (None,) for the model's own."""
        return self.t1 if isinstance(self.t1, tuple) else (self.t1,)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images, same shape, within epsilon of `images` in every pixel.

        Args:
            model: maps images to logits, shape (N, K), K at least 2.
            images: shape (N, C, H, W), float32 or float64, in [0, 1].
            labels: true classes, integers, shape (N,), 0 to K - 1.

        Raises:
            InputError: invalid images, labels, model mode, or options that the model has no part for: before
                any work, but for labels without a logit, which the first forward pass shows.
            AttackError: logits, loss or gradient are not finite, or the result breaks the attack's own rules.
        """
        check_images(images)
        labels = check_labels(labels, len(images))
        check_model(model, self)
        if self.epsilon == 0 or len(images) == 0:
            return images.detach().clone()
        with attacking(model, self.gradient):
            adversarial = METHODS[self.name].run(self, model, images.detach(), labels)
        return check_result(adversarial.detach().to(images.dtype), images, self.epsilon, self.clip, self.name)
