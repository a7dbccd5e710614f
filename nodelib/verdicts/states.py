"""Rules for what the states do, from measurements of trained networks: the first round's for C17, judged at
half, once and twice its thresholds as the second asks, and for C21 until that round's evidence is there; what
the second's (`sharper`) share with them.

Directions are judged on the centred state: the last normalisation forces a drift on every state that is
the same for all images (see the chapter *Equilibrium or drift*), and a comparison that includes it would
find everything aligned.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial

from nodelib.verdicts.evidence import Evidence, value_figure
from nodelib.verdicts.second_round import sensitive
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    first_round_claim,
)

STANDARD, ADVERSARIAL = "wide-standard", "wide-adversarial"
PERSISTENT = ("small-random", "large-random", "large-100")
"""The rows whose accuracy the post sees persist, and of which it says that the state settles."""

SMALL_ANGLE = 10.0
"""Degrees within which two directions count as the same: less than what the eye can tell between two
images of one channel, and far below the 80 to 90 degrees between unrelated states of these sizes."""

LINEAR = (0.9, 1.1)
"""Slope of log |z| against log t that counts as growth at a constant rate."""

SAME_CLASS = 0.9
"""Share of images nearest to their own class's direction that counts as one direction per class."""

CHANCE_PAIR, NEAR_CHANCE = 0.5, 0.1
"""Same, for two classes, by chance, and how far above it the two still count as not told apart: the roughly
1,000 judged images of two digits give a 95 % interval of 0.03 either side."""

CLASS_GAP = 0.1
"""Difference of such shares that counts as an effect of adversarial training."""

MOST_CLASSES = 8
"""Of ten classes: one or two may fail to converge without the statement falling."""

RESIDUAL = 1e-3
"""Relative residual |f(w) - w| / |w| of a ray that counts as solved, in float64."""

TURNING_SETTLED, SPEED_SETTLED = 0.1, 0.01
"""Thresholds of the settling time: radians per unit of log time, and |f| / |z| per unit time. The first is
about 6 degrees for every factor e in time; the second lets the state change by 1 % in a unit of time."""

NEVER = 1e9
"""Stored settling time of a state that had not settled by t1 = 1000."""

CLEARLY_FASTER = 2.0
GRID_STEP = 1.27
"""Factor between two neighbouring end times of the measurement; settling times closer than that are equal."""

PULLED = 0.8
"""Share of attacked images that must end nearest to their own class's direction."""


def _measure(evidence: Evidence, name: str, what: str, **conditions) -> list[float]:
    return evidence.measured(name, what, **{"label": "all", "statistic": "median", **conditions})


def six_and_four(evidence: Evidence) -> Verdict:
    """C17. Shares are varied by their distance from chance, that of 90 % at half and once: none reaches twice
    that.
    """
    names = (ADVERSARIAL, STANDARD)
    found = evidence.all(
        *(lambda n=n: evidence.measured_share(n, "nearest_class", t1=1000.0, label="6-4", images="clean",
                                              statistic="mean")
          for n in names),
        *(lambda n=n: evidence.measured(n, "class_mean_angle", t1=1000.0, label="6-4") for n in names),
        lambda: _measure(evidence, ADVERSARIAL, "turning", t1=1000.0, part="centred"))
    shares = dict(zip(names, found[:2]))
    told = {name: share.values for name, share in shares.items()}
    said = {name: str(share) for name, share in shares.items()}
    angle, turning = dict(zip(names, found[2:4])), found[4]
    figures = (*(share.figure(f"{n}: share of 6 and 4 told apart") for n, share in shares.items()),
               *(value_figure(f"{n}: angle between the mean states of 6 and 4", v, "degrees")
                 for n, v in angle.items()),
               value_figure(f"turning at t1 = 1000, {ADVERSARIAL}", turning, "radians per unit of log time"))
    look_alike = max(angle[STANDARD]) < min(angle[ADVERSARIAL])
    reason = (f"at t1 = 1000 the direction tells 6 from 4 in {said[ADVERSARIAL]} after adversarial and in "
              f"{said[STANDARD]} after standard training; the mean states are "
              f"{statistics.fmean(angle[ADVERSARIAL]):.1f} and {statistics.fmean(angle[STANDARD]):.1f} "
              "degrees apart; the adversarial network's direction "
              f"{'has settled' if max(turning) <= TURNING_SETTLED else 'is still turning'} there")
    if min(told[ADVERSARIAL]) >= SAME_CLASS and shares[ADVERSARIAL].interval[0] < 100 * SAME_CLASS:
        reason += (f"; the interval of the first reaches below the {100 * SAME_CLASS:g} % that the rule asks "
                   "for")

    def rule(factor: float) -> Verdict:
        apart = CHANCE_PAIR + min(factor, 1) * (SAME_CLASS - CHANCE_PAIR)
        distinct, hidden = min(told[ADVERSARIAL]) >= apart, min(told[STANDARD]) >= apart
        same = max(told[STANDARD]) <= CHANCE_PAIR + factor * NEAR_CHANCE
        steady = max(turning) <= factor * TURNING_SETTLED
        if not distinct:
            return Verdict(NOT_REPRODUCED, reason, figures)
        if same:
            return Verdict(REPRODUCED if steady else IN_PART, reason, figures)
        return Verdict(ARTEFACT if hidden and look_alike else IN_PART, reason, figures)

    return sensitive(rule)


RAY_FACTS = (("attractors", "count"), ("own_attractors", "count"), ("ray_share", "mean"),
             ("ray_residual", "max"),
             ("ray_eigenvalue", "max"))
"""What is measured of a class's rays, with the statistic: the arguments of `own_steady_state`."""


def own_steady_state(attractors: float, own: float, share: float, residual: float, eigenvalue: float) -> bool:
    """Whether a class has a steady state of its own: one attracting ray, solved, that takes it and no other
    class.
    """
    return attractors == own == 1 and share >= SAME_CLASS and residual <= RESIDUAL and eigenvalue < 1


def ray_facts(evidence: Evidence) -> list[Callable[[], list[float]]]:
    """Questions after the `RAY_FACTS` of the ten classes in turn, after adversarial training."""
    return [partial(evidence.measured, ADVERSARIAL, what, label=str(digit), statistic=statistic)
            for digit in range(10) for what, statistic in RAY_FACTS]


def single_states(facts: Sequence[list[float]]) -> int:
    """How many classes have a steady state of their own in every seed, from the answers to `ray_facts`."""
    size = len(RAY_FACTS)
    return sum(all(map(own_steady_state, *facts[k:k + size])) for k in range(0, len(facts), size))


def attacked_are_pulled(evidence: Evidence) -> Verdict:
    early, late, before, after = evidence.all(
        *(partial(evidence.measured_share, ADVERSARIAL, "nearest_class", t1=t1, label="all", images="pgd",
                  statistic="mean") for t1 in (1.0, 1000.0)),
        *(partial(_measure, evidence, ADVERSARIAL, "attacked_angle", t1=t1, images="pgd")
          for t1 in (1.0, 1000.0)))
    rises, closer = min(late.values) > max(early.values), max(after) < min(before)
    arrive = min(late.values) >= PULLED
    figures = (early.figure("attacked images nearest to their own class at t1 = 1"),
               late.figure("same at t1 = 1000"),
               value_figure("angle to the clean image's state at t1 = 1", before, "degrees"),
               value_figure("same at t1 = 1000", after, "degrees"))
    verdict = NOT_REPRODUCED if not (rises and closer) else REPRODUCED if arrive else IN_PART
    return Verdict(verdict, f"the share of attacked images nearest to their own class goes from {early} to "
                   f"{late}, the angle to the clean image's state from {statistics.fmean(before):.1f} to "
                   f"{statistics.fmean(after):.1f} degrees, t1 = 1 to 1000", figures)


CLAIMS = (first_round_claim("C17", six_and_four),)
