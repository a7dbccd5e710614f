"""One accuracy to measure, and the record of the artifact contract that states it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from nodelib.attacks import LOSSES, METHODS, Attack
from nodelib.experiment.records import EPSILON
from nodelib.networks import POOLINGS, check_end_time
from nodelib.solver.errors import InputError, check_choice, check_whole, plain
from nodelib.statistics import wilson

SEED_BATCH = 32  # the post's protocol: the continuous adjoint's error depends on it through atol
BATCH = 250
TEST_IMAGES = 10000
REFERENCE = "reference"  # the exact gradient in float64 at a tolerance of 1e-7
REFERENCE_TOLERANCE = 1e-7


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Distribution-free 95 % interval of a median, from the order statistics (Conover, Practical
    Nonparametric Statistics, 3.2).

    Args:
        values: a sample of any order.

    Returns:
        the k-th smallest and the k-th largest value, with the largest k for which at least 95 % of samples
        have the median between the two; None below six values, of which no two reach that.
    """
    ordered, n = sorted(map(float, values)), len(values)
    k, below = 0, 1  # 2^n times the probability that at most k values lie below the median
    while 40 * below <= 2**n:
        k += 1
        below += math.comb(n, k)
    return (ordered[k - 1], ordered[n - k]) if k else None


def describe_gradient(gradient: str) -> tuple[str, str]:
    """Method ("exact", "adjoint", "anchored", "reference") and library of a gradient, as records say."""
    library, _, method = gradient.rpartition("-")
    return {"backprop": "exact"}.get(method, method), library or "nodelib"


@dataclass(frozen=True)
class Measurement:
    """One accuracy to measure.

    Fields:
        t1: end time of the test (the attack's too, except for "transfer").
        n: number of test images, the first n of `test_order()`, 1 to 10,000.
        attack: "none"; "random-signs", a step of that length along signs drawn from `seed`, what a destroyed
            gradient looks like; an attack of `nodelib.attacks`; "transfer", PGD on the run `source` at its
            own end time; "worst", per image the worst of the run's records so far.
        pooling: "fixed" or "random"; random regions differ between the attack and the scoring.
        pooling_seed: of the random regions.
        epsilon, clip, gradient, step_size, steps, restarts, seed, loss, logit_scale, draws, noise, momentum,
            targets, targeted, queries: of the attack, see `nodelib.attacks.Attack`; epsilon is 0 for "none",
            and gradient may be "reference", too (FGSM only: exact, in float64 at a tolerance of 1e-7); steps
            must be given, and above 1, where the attack's own default is.
        batch: images per solve; they share one step size, so it is part of the protocol.
        rtol, atol: tolerances of scoring and attack.
        attack_tolerance, attack_batch: of the attack, where they differ from those of scoring.
        attack_steps: how many equal steps of RK4 solve the network that an attack by gradients sees, or None:
            the program's own solver.
        drop: leave out images that records of the run have broken already within the same ball; they count
            as broken, and the record names those records in `combines`.
        source: folder name of the run that a "transfer" attacks, beside this run's.
        balanced: False leaves the exact gradient's cotangents as small as they are, see
            `nodelib.solver.kernel.unbalanced`.
        label: short name used in the record's id.
    """

    t1: float
    n: int
    attack: str = "none"
    epsilon: float = 0.0
    clip: bool = True
    gradient: str = "exact"
    pooling: str = "fixed"
    pooling_seed: int = 0
    steps: int = 1
    step_size: float = 0.0
    restarts: int = 1
    seed: int = 0
    loss: str = "cross-entropy"
    logit_scale: float | str = 1.0
    draws: int = 1
    noise: float = 0.0
    momentum: float = 0.0
    targets: int = Attack.targets
    targeted: bool = Attack.targeted
    queries: int = Attack.queries
    batch: int = BATCH
    rtol: float = 1e-3
    atol: float = 1e-3
    attack_tolerance: float | None = None
    attack_batch: int | None = None
    attack_steps: int | None = None
    drop: bool = False
    source: str | None = None
    balanced: bool = True
    label: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):  # Python's own numbers, which a record can be stored with
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        check_end_time(self.t1)
        known = ("none", *METHODS, "transfer", "worst")
        if self.attack not in known:
            raise InputError(f"unknown attack {self.attack!r}; the known attacks are {', '.join(known)}")
        if not 1 <= self.n <= TEST_IMAGES:
            raise InputError(f"n is {self.n}; it must be from 1 to {TEST_IMAGES}")
        if self.attack == "none" and self.epsilon:
            raise InputError(f"epsilon is {self.epsilon:g} with attack 'none'; clean images have epsilon 0")
        for name in ("n", "batch", "attack_batch", "attack_steps"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 1)
        for name in ("rtol", "atol", "attack_tolerance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be above 0")
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("loss", self.loss, LOSSES)  # a record names it
        self._check_network_attacked()
        self._check_steps()
        if self.label.rpartition("-eps")[1] and not self.id.endswith(f"-eps{self.epsilon:g}-t{self.t1:g}"):
            raise InputError(f"label is {self.label!r} at epsilon {self.epsilon:g}; what follows '-eps' "
                             "names the epsilon of a record, so leave it out of the label")
        self.as_attack()

    def _check_steps(self) -> None:
        """One step, the default here, of an attack that takes many would look like robustness."""
        own = METHODS[self.attack].steps if self.attack in METHODS else 1
        if self.steps == 1 < own:
            raise InputError(f"steps is 1 with attack {self.attack!r}; it must be given, at least 2 (of the "
                             f"attack's own function it is {own})")

    def _check_network_attacked(self) -> None:
        """The network that the attack sees, where it is not quite the one that is scored."""
        if self.gradient == REFERENCE and self.attack != "fgsm":
            raise InputError(f"gradient is {REFERENCE!r} with attack {self.attack!r}; it is too slow for any "
                             "but fgsm")
        ours = self.gradient != REFERENCE and not self.gradient.startswith("torchdiffeq")
        if self.attack_steps is not None and not (
                ours and self.attack_tolerance is None and self.attack in METHODS
                and "loss" in METHODS[self.attack].uses):
            raise InputError(f"attack_steps is {self.attack_steps} with attack {self.attack!r}, gradient "
                             f"{self.gradient!r} and attack_tolerance {self.attack_tolerance}; only fgsm and "
                             "pgd, by our own gradients and at no other tolerance, see the network by RK4")
        if (self.attack == "transfer") != (self.source is not None):
            raise InputError(f"source is {self.source!r} with attack {self.attack!r}; a transfer attack, and "
                             "no other, names the run it attacks, such as 'small-100-seed0'")

    def as_attack(self, ode: bool = True) -> Attack:
        """The attack on a network with fixed or random pooling; `ode`: whether it is one with an end time."""
        transfer = self.attack == "transfer"
        stands_for = {"transfer": "pgd", "none": "random-signs", "worst": "random-signs"}
        name = stands_for.get(self.attack, self.attack)
        shared = {field.name: getattr(self, field.name) for field in fields(Attack)
                  if hasattr(self, field.name)}
        gradient = "exact" if self.gradient == REFERENCE else self.gradient
        return Attack(**{**shared, "name": name, "step_size": self.step_size or None,
                         "gradient": gradient if ode else None,
                         "t1": self.t1 if ode and not transfer else None,
                         "allow_random_forward": self.pooling == "random" and not transfer})

    @property
    def id(self) -> str:
        """Name of the record: label, an unusual epsilon and the end time, as in "fgsm-seed-eps0.1-t10"."""
        label = self.label or self.attack
        if self.attack != "none" and self.epsilon != EPSILON and not label.endswith(f"-eps{self.epsilon:g}"):
            label += f"-eps{self.epsilon:g}"
        return f"{label}-t{self.t1:g}"


def _settings(m: Measurement, source_t1: float | None, dropped: int | None) -> dict:
    """How the images were attacked, as the artifact contract lists it."""
    if m.attack in ("none", "worst"):
        return {}
    tolerance = REFERENCE_TOLERANCE if m.gradient == REFERENCE else m.attack_tolerance
    attack = METHODS["pgd" if m.attack == "transfer" else m.attack]
    settings = {"loss": "targeted" if m.targeted else attack.loss or m.loss, "steps": m.steps,
                "step_size": m.step_size or (None if "steps" in attack.uses else m.epsilon),
                "restarts": m.restarts, "random_start": attack.random_start, "draws": m.draws,
                "logit_scale": m.logit_scale, "rtol": tolerance or m.rtol, "atol": tolerance or m.atol,
                "dtype": "float64" if m.gradient == REFERENCE else "float32",
                "batch": m.attack_batch or m.batch, "pooling": m.pooling,
                "t1": m.t1 if source_t1 is None else source_t1, "seed": m.seed,
                "library": (attack.library or describe_gradient(m.gradient)[1])
                + ", pyautoattack" * bool(m.queries)}
    if not m.balanced:
        settings["balanced"] = False
    if m.targets != Attack.targets:
        settings["targets"] = m.targets
    settings |= {name: value for name in ("noise", "momentum", "targeted", "queries")
                 if (value := getattr(m, name))}
    if m.attack_steps is not None:
        settings |= {"solver": f"rk4, {m.attack_steps} steps", "rtol": None, "atol": None}
    return settings if dropped is None else {**settings, "dropped": dropped}


def made_otherwise(m: Measurement, stored: dict) -> list[str]:
    """In what a stored record of a measurement's id is of another measurement, such as "steps 1, not 20".

    Compared is what a record says of how it was made, but for how many images a drop left out, the source's
    end time and who computed it. A worst case is what others make it.
    """
    if m.attack == "worst":
        return []
    asked = record(m, np.ones(1, dtype=bool), 0.0, 0.0, "", None)
    ways = ("t1", "rtol", "atol", "batch", "pooling", "pooling_seed", "attack", "epsilon", "clip", "gradient")
    pairs = [(name, stored[name], asked[name]) for name in ways]
    names = dict.fromkeys((*stored["settings"], *asked["settings"]))
    pairs += [(name, stored["settings"].get(name), asked["settings"].get(name))
              for name in names if name not in ("dropped", "t1", "library")]
    return [f"{name} {found}, not {wanted}" for name, found, wanted in pairs if found != wanted]


def record(m: Measurement, correct: np.ndarray, nfe: float, seconds: float, device: str, commit: str | None,
           *, combines: list[str] | None = None, dropped: int | None = None,
           source_t1: float | None = None) -> dict:
    """One tidy record of the artifact contract.

    Args:
        correct: per image, whether the network was right, bool, shape (n,).
        combines: ids of the records whose broken images count as broken here: all of a "worst" record's, or
            those whose images were dropped before the attack, `dropped` of them.
        source_t1: end time at which a transfer attack's source was attacked.
    """
    n, hits = len(correct), int(correct.sum())
    low, high = wilson(hits, n)
    attacked = m.attack != "none"
    gradient_free = m.attack in ("none", "random-signs", "worst", "square", "hop-skip-jump")
    source = None if not attacked else m.source or ("black-box" if gradient_free and m.attack != "worst"
                                                    else "white-box")
    return {
        "id": m.id, "t1": m.t1, "n": n, "subset": "all" if n == TEST_IMAGES else f"first {n} of shuffle 0",
        "correct": hits, "accuracy": hits / n, "low": low, "high": high, "nfe": round(nfe, 2),
        "seconds": round(seconds, 2), "device": device, "commit": commit,
        "rtol": m.rtol, "atol": m.atol, "dtype": "float32", "batch": m.batch, "pooling": m.pooling,
        "pooling_seed": m.pooling_seed if m.pooling == "random" else None,
        "attack": m.attack, "epsilon": m.epsilon, "clip": m.clip if attacked else None,
        "gradient": "none" if gradient_free else describe_gradient(m.gradient)[0],
        "source": source, "combines": combines, "settings": _settings(m, source_t1, dropped),
    }
