"""Rules for what the states do (C13, C16 to C18, C20 to C22), from measurements of trained networks.

Directions are judged on the centred state: the last normalisation forces a drift on every state that is
the same for all images (see the chapter *Equilibrium or drift*), and a comparison that includes it would
find everything aligned.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from nodelib.verdicts.evidence import CLEAN, Evidence, Missing, value_figure
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    WITH_ARTEFACT,
    Figure,
    Verdict,
    first_round_claim,
)

STANDARD, ADVERSARIAL = "wide-standard", "wide-adversarial"
PERSISTENT = ("small-random", "large-random", "large-100")
"""The rows whose accuracy the post sees persist, and of which it says that the state settles."""

SMALL_ANGLE = 10.0
"""Degrees within which two directions count as the same: less than what the eye can tell between two
images of one channel, and far below the 80 to 90 degrees between unrelated states of these sizes."""

SMALL_CHANGE = 0.1
"""Relative change of a state that has settled or changes very slowly."""

LINEAR = (0.9, 1.1)
"""Slope of log |z| against log t that counts as growth at a constant rate."""

SAME_CLASS = 0.9
"""Share of images nearest to their own class's direction that counts as one direction per class."""

NEAR_CHANCE_PAIR = 0.6
"""Same, for two classes, up to which the two count as not told apart: chance is 0.5, and the roughly 1,000
judged
images of two digits give a 95 % interval of 0.03 either side."""

CLASS_GAP = 0.1
"""Difference of such shares that counts as an effect of adversarial training."""

MOST_CLASSES = 8
"""Of ten classes: one or two may fail to converge without the statement falling."""

SOME_CLASSES = 5
"""Of ten classes: half of them having a steady state of their own supports the statement in part."""

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


def state_settles(evidence: Evidence) -> Verdict:
    found = evidence.all(*(lambda n=n, w=w, c=c: _measure(evidence, n, w, t1=500.0, since=100.0, **c)
                           for n in PERSISTENT for w,
                           c in (("state_change", {}), ("state_angle", {"part": "centred"}))))
    change, angle = dict(zip(PERSISTENT, found[::2])), dict(zip(PERSISTENT, found[1::2]))
    settled = all(max(v) <= SMALL_CHANGE for v in change.values())
    turned = [n for n, v in angle.items() if max(v) > SMALL_ANGLE]
    figures = (*(value_figure(f"{n}: relative change from t1 = 100 to 500", v) for n, v in change.items()),
               *(value_figure(f"{n}: angle", v, "degrees") for n, v in angle.items()))
    reason = ("the state changes by at most a tenth" if settled else
              f"the state changes by up to {max(max(v) for v in change.values()):.2g} times its norm")
    reason += (f"; its centred direction turns by more than {SMALL_ANGLE:g} degrees in {', '.join(turned)}"
               if turned
               else f"; its centred direction keeps within {SMALL_ANGLE:g} degrees")
    verdict = REPRODUCED if settled else IN_PART if len(turned) < len(PERSISTENT) else NOT_REPRODUCED
    return Verdict(verdict, reason, figures)


def steady_not_equilibrium(evidence: Evidence) -> Verdict:
    early, late, whole, centred = evidence.all(
        lambda: _measure(evidence, ADVERSARIAL, "norm", t1=100.0),
        lambda: _measure(evidence, ADVERSARIAL, "norm", t1=1000.0),
        *(lambda p=p: _measure(evidence, ADVERSARIAL, "velocity_angle", t1=1000.0, since=100.0, part=p)
          for p in ("whole", "centred")))
    slope = [math.log10(b / a) for a, b in zip(early, late)]
    linear = LINEAR[0] <= min(slope) and max(slope) <= LINEAR[1]
    constant, informative = max(whole) <= SMALL_ANGLE, max(centred) <= SMALL_ANGLE
    figures = (value_figure("slope of log |z| against log t", slope),
               value_figure("angle f(100), f(1000)", whole, "degrees"),
               value_figure("same without the common drift", centred, "degrees"))
    reason = (f"log |z| against log t has slope {statistics.fmean(slope):.2f} between t1 = 100 and 1000, f "
              f"turns by {statistics.fmean(whole):.1f} degrees, without the common drift by "
              f"{statistics.fmean(centred):.1f}")
    if linear and constant:
        return Verdict(REPRODUCED if informative else ARTEFACT, reason, figures)
    return Verdict(IN_PART if constant else NOT_REPRODUCED, reason, figures)


def six_and_four(evidence: Evidence) -> Verdict:
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
    steady = max(turning) <= TURNING_SETTLED
    figures = (*(share.figure(f"{n}: share of 6 and 4 told apart") for n, share in shares.items()),
               *(value_figure(f"{n}: angle between the mean states of 6 and 4", v, "degrees")
                 for n, v in angle.items()),
               value_figure(f"turning at t1 = 1000, {ADVERSARIAL}", turning, "radians per unit of log time"))
    distinct = min(told[ADVERSARIAL]) >= SAME_CLASS
    same = max(told[STANDARD]) <= NEAR_CHANCE_PAIR
    hidden = min(told[STANDARD]) >= SAME_CLASS
    look_alike = max(angle[STANDARD]) < min(angle[ADVERSARIAL])
    reason = (f"at t1 = 1000 the direction tells 6 from 4 in {said[ADVERSARIAL]} after adversarial and in "
              f"{said[STANDARD]} after standard training; the mean states are "
              f"{statistics.fmean(angle[ADVERSARIAL]):.1f} and {statistics.fmean(angle[STANDARD]):.1f} "
              "degrees apart; the adversarial network's direction "
              f"{'has settled' if steady else 'is still turning'} there")
    if not distinct:
        return Verdict(NOT_REPRODUCED, reason, figures)
    if shares[ADVERSARIAL].interval[0] < 100 * SAME_CLASS:
        reason += (f"; the interval of the first reaches below the {100 * SAME_CLASS:g} % that the rule asks "
                   "for")
    if same:
        return Verdict(REPRODUCED if steady else IN_PART, reason, figures)
    return Verdict(ARTEFACT if hidden and look_alike else IN_PART, reason, figures)


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


def one_state_per_class(evidence: Evidence) -> Verdict:
    nearest = partial(evidence.measured_share, what="nearest_class", t1=1000.0, label="all", images="clean",
                      statistic="mean")
    found = evidence.all(partial(nearest, ADVERSARIAL), partial(nearest, STANDARD), *ray_facts(evidence))
    shares, single = found[:2], single_states(found[2:])
    adversarial, standard = (share.values for share in shares)
    apart, attracts = min(adversarial) >= SAME_CLASS, single >= MOST_CLASSES
    gap = all(a - s >= CLASS_GAP for a, s in product(adversarial, standard))
    figures = [shares[0].figure("share nearest to its own class, adversarial"),
               shares[1].figure("same, standard")]
    for leaky in ("wide-standard-leaky", "wide-adversarial-leaky"):
        try:
            figures.append(nearest(leaky).figure(f"same, {leaky}, at tolerance 1e-3"))
        except Missing:  # shown where it exists, not judged
            continue
    reason = (f"of the directions at t1 = 1000, {shares[0]} are nearest to their own class after adversarial "
              f"and {shares[1]} after standard training; in {single} of 10 classes the images end on one "
              "attracting ray of their own")
    if apart and attracts and not gap:
        return Verdict(ARTEFACT,
                       f"{reason}; standard training comes within {100 * CLASS_GAP:g} points, so the attack "
                       "is not the cause", tuple(figures))
    verdict = REPRODUCED if apart and attracts else IN_PART if single >= SOME_CLASSES else NOT_REPRODUCED
    return Verdict(verdict, reason, tuple(figures))


def settles_faster(evidence: Evidence) -> Verdict:
    found = evidence.all(*(partial(_measure, evidence, n, "settling_time", measure=m, threshold=th)
                           for n in (ADVERSARIAL, STANDARD)
                           for m, th in (("turning", TURNING_SETTLED), ("relative_speed", SPEED_SETTLED))))
    turning, speed = (found[0], found[2]), (found[1], found[3])
    faster = max(turning[0]) < min(turning[1])
    clear = CLEARLY_FASTER * max(turning[0]) <= min(turning[1])
    agrees = max(speed[0]) <= GRID_STEP * min(speed[1])
    saturates = max(turning[1]) < NEVER
    figures = tuple(value_figure(f"{label}, {name}", v) if max(v) < NEVER else
                    Figure(f"{label}, {name}", math.inf, words="not by t1 = 1000") for label, both in
                    (("direction settled at", turning), ("relative speed settled at", speed))
                    for name, v in zip(("adversarial", "standard"), both))
    say = lambda v: "not by t1 = 1000" if max(v) >= NEVER else f"{statistics.fmean(v):.3g}"  # noqa: E731
    reason = (f"median end time at which the centred direction has settled: {say(turning[0])} (adversarial), "
              f"{say(turning[1])} (standard); relative speed: {say(speed[0])} and {say(speed[1])}")
    if faster and clear and saturates and agrees:
        return Verdict(REPRODUCED, reason, figures)
    return Verdict(IN_PART if faster else NOT_REPRODUCED, reason, figures)


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


def nfe_means_complexity(evidence: Evidence) -> Verdict:
    found = evidence.all(
        *(lambda n=n: evidence.accuracies(n, 1.0, **CLEAN) for n in (ADVERSARIAL, STANDARD)),
        *(lambda n=n, w=w: _measure(evidence, n, w, t1=1.0)
          for w in ("jacobian_norm", "path_turning") for n in (ADVERSARIAL, STANDARD)))
    nfe = [[a.record["nfe"] for a in f] for f in found[:2]]
    jacobian, turning = found[2:4], found[4:6]
    figures = tuple(value_figure(f"{label}, {name}", v) for label, both in
                    (("NFE", nfe), ("Jacobian norm", jacobian), ("turning of the velocity, radians", turning))
                    for name, v in zip(("adversarial", "standard"), both))
    higher = next((k for k in (0, 1) if min(nfe[k]) > max(nfe[1 - k])), None)
    if higher is None:
        return Verdict(NOT_REPRODUCED, "neither network has the higher NFE in every pair of seeds", figures)
    complex_ = [min(both[higher]) > max(both[1 - higher]) for both in (jacobian, turning)]
    def told(both: Sequence[Sequence[float]], more: str, less: str) -> str:
        here, there = both[higher], both[1 - higher]
        return (more if min(here) > max(there) else less if max(here) < min(there)
                else f"{more} in some pairs of seeds only")

    pairs = len(turning[0]) * len(turning[1])
    reason = (f"the {('adversarial', 'standard')[higher]} network has the higher NFE; its Jacobian's norm is "
              f"{told(jacobian, 'higher', 'lower')}, its velocity turns {told(turning, 'more', 'less')} "
              f"({'one pair' if pairs == 1 else f'{pairs} pairs'} of seeds)")
    return Verdict(REPRODUCED if all(complex_) else IN_PART if any(complex_) else ARTEFACT, reason, figures)


CLAIMS = (
    first_round_claim("C13", state_settles),
    first_round_claim("C16", steady_not_equilibrium, WITH_ARTEFACT),
    first_round_claim("C17", six_and_four, WITH_ARTEFACT),
    first_round_claim("C18", one_state_per_class, WITH_ARTEFACT),
    first_round_claim("C20", settles_faster),
    first_round_claim("C21", attacked_are_pulled),
    first_round_claim("C22", nfe_means_complexity, WITH_ARTEFACT),
)
