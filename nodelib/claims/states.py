"""Rules for what the states do (C13, C16 to C18, C20 to C22), from measurements of trained networks.

Directions are judged on the centred state: the last normalisation forces a drift on every state that is
the same for all images (see the chapter *Equilibrium or drift*), and a comparison that includes it would
find everything aligned.
"""

from __future__ import annotations

import statistics
from itertools import product

from nodelib.claims.evidence import CLEAN, Evidence, Missing, value_figure
from nodelib.claims.verdict import (ARTEFACT, IN_PART, NOT_REPRODUCED, REPRODUCED, Claim, Verdict)

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
"""Same, for two classes, up to which the two count as not told apart (chance is 0.5; 1,000 images of two
classes give a 95 % interval of about 0.07 either side)."""

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
PULLED = 0.8
"""Share of attacked images that must end nearest to their own class's direction."""


def _measure(evidence: Evidence, name: str, what: str, **conditions) -> list[float]:
    return evidence.measured(name, what, **{"label": "all", "statistic": "median", **conditions})


def state_settles(evidence: Evidence) -> Verdict:
    found = evidence.all(*(lambda n=n, w=w, c=c: _measure(evidence, n, w, t1=500.0, since=100.0, **c)
                           for n in PERSISTENT for w, c in (("state_change", {}), ("state_angle", {"part": "centred"}))))
    change, angle = dict(zip(PERSISTENT, found[::2])), dict(zip(PERSISTENT, found[1::2]))
    settled = all(max(v) <= SMALL_CHANGE for v in change.values())
    turned = [n for n, v in angle.items() if max(v) > SMALL_ANGLE]
    figures = (*(value_figure(f"{n}: relative change from t1 = 100 to 500", v) for n, v in change.items()),
               *(value_figure(f"{n}: angle", v, "degrees") for n, v in angle.items()))
    reason = ("the state changes by at most a tenth" if settled else
              f"the state changes by up to {max(max(v) for v in change.values()):.2g} of its norm")
    reason += (f"; its centred direction turns by more than {SMALL_ANGLE:g} degrees in {', '.join(turned)}" if turned
               else f"; its centred direction keeps within {SMALL_ANGLE:g} degrees")
    verdict = REPRODUCED if settled else IN_PART if len(turned) < len(PERSISTENT) else NOT_REPRODUCED
    return Verdict(verdict, reason, figures)


def steady_not_equilibrium(evidence: Evidence) -> Verdict:
    import math

    early, late, whole, centred = evidence.all(
        lambda: _measure(evidence, ADVERSARIAL, "norm", t1=100.0),
        lambda: _measure(evidence, ADVERSARIAL, "norm", t1=1000.0),
        *(lambda p=p: _measure(evidence, ADVERSARIAL, "velocity_angle", t1=1000.0, since=100.0, part=p)
          for p in ("whole", "centred")))
    slope = [math.log10(b / a) for a, b in zip(early, late)]
    linear = LINEAR[0] <= min(slope) and max(slope) <= LINEAR[1]
    constant, informative = max(whole) <= SMALL_ANGLE, max(centred) <= SMALL_ANGLE
    figures = (value_figure("slope of log |z|", slope), value_figure("angle f(100), f(1000)", whole, "degrees"),
               value_figure("same without the common drift", centred, "degrees"))
    reason = (f"|z| grows with slope {statistics.fmean(slope):.2f} in log time between t1 = 100 and 1000, f turns by "
              f"{statistics.fmean(whole):.1f} degrees, without the common drift by {statistics.fmean(centred):.1f}")
    if linear and constant:
        return Verdict(REPRODUCED if informative else ARTEFACT, reason, figures)
    return Verdict(IN_PART if linear or constant else NOT_REPRODUCED, reason, figures)


def six_and_four(evidence: Evidence) -> Verdict:
    names = (ADVERSARIAL, STANDARD)
    found = evidence.all(
        *(lambda n=n: evidence.measured(n, "nearest_class", t1=1000.0, label="6-4", images="clean", statistic="mean")
          for n in names),
        *(lambda n=n: evidence.measured(n, "class_mean_angle", t1=1000.0, label="6-4") for n in names))
    told, angle = dict(zip(names, found[:2])), dict(zip(names, found[2:]))
    figures = (*(value_figure(f"{n}: share of 6 and 4 told apart", v) for n, v in told.items()),
               *(value_figure(f"{n}: angle between the mean states of 6 and 4", v, "degrees")
                 for n, v in angle.items()))
    distinct = min(told[ADVERSARIAL]) >= SAME_CLASS
    same = max(told[STANDARD]) <= NEAR_CHANCE_PAIR
    hidden = min(told[STANDARD]) >= SAME_CLASS
    look_alike = max(angle[STANDARD]) < min(angle[ADVERSARIAL])
    reason = (f"at t1 = 1000 the direction tells 6 from 4 in {100 * statistics.fmean(told[ADVERSARIAL]):.1f} % of images "
              f"after adversarial and {100 * statistics.fmean(told[STANDARD]):.1f} % after standard training; the mean "
              f"states are {statistics.fmean(angle[ADVERSARIAL]):.1f} and {statistics.fmean(angle[STANDARD]):.1f} "
              f"degrees apart")
    if not distinct:
        return Verdict(NOT_REPRODUCED, reason, figures)
    if same:
        return Verdict(REPRODUCED, reason, figures)
    return Verdict(ARTEFACT if hidden and look_alike else IN_PART, reason, figures)


def one_state_per_class(evidence: Evidence) -> Verdict:
    digits = [str(d) for d in range(10)]
    nearest = lambda n: evidence.measured(n, "nearest_class", t1=1000.0, label="all", images="clean",  # noqa: E731
                                          statistic="mean")
    found = evidence.all(
        lambda: nearest(ADVERSARIAL), lambda: nearest(STANDARD),
        *(lambda d=d, w=w, s=s: evidence.measured(ADVERSARIAL, w, label=d, statistic=s)
          for d in digits for w, s in (("attractors", "count"), ("own_attractors", "count"), ("ray_residual", "max"),
                                       ("ray_eigenvalue", "max"))))
    adversarial, standard, rays = found[0], found[1], found[2:]
    single = sum(set(count) == set(own) == {1.0} and max(residual) <= RESIDUAL and max(eigenvalue) < 1
                 for count, own, residual, eigenvalue in zip(*(rays[k::4] for k in range(4))))
    apart, attracts = min(adversarial) >= SAME_CLASS, single >= MOST_CLASSES
    gap = all(a - s >= CLASS_GAP for a, s in product(adversarial, standard))
    figures = [value_figure("share nearest to its own class, adversarial", adversarial),
               value_figure("same, standard", standard)]
    for leaky in ("wide-standard-leaky", "wide-adversarial-leaky"):
        try:
            figures.append(value_figure(f"same, {leaky}", nearest(leaky)))
        except Missing:  # shown where it exists, not judged
            continue
    reason = (f"{100 * statistics.fmean(adversarial):.1f} % of directions at t1 = 1000 are nearest to their own class after "
              f"adversarial and {100 * statistics.fmean(standard):.1f} % after standard training; in {single} of 10 "
              f"classes the images end on one attracting ray of their own")
    if apart and not gap:
        return Verdict(ARTEFACT, reason + "; standard training does as well, so the attack is not the cause",
                       tuple(figures))
    verdict = REPRODUCED if apart and attracts else IN_PART if apart or attracts else NOT_REPRODUCED
    return Verdict(verdict, reason, tuple(figures))


def settles_faster(evidence: Evidence) -> Verdict:
    found = evidence.all(*(lambda n=n, m=m, th=th: _measure(evidence, n, "settling_time", measure=m, threshold=th)
                           for n in (ADVERSARIAL, STANDARD)
                           for m, th in (("turning", TURNING_SETTLED), ("relative_speed", SPEED_SETTLED))))
    turning, speed = (found[0], found[2]), (found[1], found[3])
    faster = [max(a) < min(s) for a, s in (turning, speed)]
    clear = CLEARLY_FASTER * max(turning[0]) <= min(turning[1])
    saturates = max(turning[1]) < NEVER
    figures = tuple(value_figure(f"{label}, {name}", v) for label, both in
                    (("direction settled at", turning), ("relative speed settled at", speed))
                    for name, v in zip(("adversarial", "standard"), both))
    reason = (f"median end time at which the direction has settled: {statistics.fmean(turning[0]):.3g} (adversarial), "
              f"{statistics.fmean(turning[1]):.3g} (standard{'' if saturates else ', not by t1 = 1000'}); "
              f"relative speed: {statistics.fmean(speed[0]):.3g} and {statistics.fmean(speed[1]):.3g}")
    if all(faster) and clear and saturates:
        return Verdict(REPRODUCED, reason, figures)
    return Verdict(IN_PART if any(faster) else NOT_REPRODUCED, reason, figures)


def attacked_are_pulled(evidence: Evidence) -> Verdict:
    share, before, after = evidence.all(
        lambda: evidence.measured(ADVERSARIAL, "nearest_class", t1=1000.0, label="all", images="pgd", statistic="mean"),
        *(lambda t1=t1: _measure(evidence, ADVERSARIAL, "attacked_angle", t1=t1, images="pgd") for t1 in (1.0, 1000.0)))
    arrive, closer = min(share) >= PULLED, max(after) < min(before)
    figures = (value_figure("attacked images nearest to their own class at t1 = 1000", share),
               value_figure("angle to the clean image's state at t1 = 1", before, "degrees"),
               value_figure("same at t1 = 1000", after, "degrees"))
    verdict = REPRODUCED if arrive and closer else IN_PART if arrive or closer else NOT_REPRODUCED
    return Verdict(verdict, f"{100 * statistics.fmean(share):.1f} % of attacked images end nearest to their own class; the "
                            f"angle to the clean image's state goes from {statistics.fmean(before):.1f} to "
                            f"{statistics.fmean(after):.1f} degrees", figures)


def nfe_means_complexity(evidence: Evidence) -> Verdict:
    found = evidence.all(
        *(lambda n=n: evidence.accuracies(n, 1.0, **CLEAN) for n in (ADVERSARIAL, STANDARD)),
        *(lambda n=n, w=w: _measure(evidence, n, w, t1=1.0)
          for w in ("jacobian_norm", "path_turning") for n in (ADVERSARIAL, STANDARD)))
    nfe = [[a.record["nfe"] for a in f] for f in found[:2]]
    jacobian, turning = found[2:4], found[4:6]
    more = min(nfe[0]) > max(nfe[1])
    complex_ = [min(a) > max(s) for a, s in (jacobian, turning)]
    figures = tuple(value_figure(f"{label}, {name}", v) for label, both in
                    (("NFE", nfe), ("Jacobian norm", jacobian), ("turning of the velocity, radians", turning))
                    for name, v in zip(("adversarial", "standard"), both))
    reason = (f"adversarial training {'raises' if more else 'does not raise'} the NFE; the Jacobian's norm is "
              f"{'higher' if complex_[0] else 'not higher'}, the velocity turns {'more' if complex_[1] else 'no more'} "
              f"in every pair of seeds")
    if not more:
        return Verdict(NOT_REPRODUCED, reason, figures)
    return Verdict(REPRODUCED if all(complex_) else IN_PART if any(complex_) else ARTEFACT, reason, figures)


WITH_ARTEFACT = (REPRODUCED, IN_PART, NOT_REPRODUCED, ARTEFACT)

CLAIMS = (
    Claim("C13", "Past the training end time the state settles, or changes very slowly.", "accuracy persists",
          "In small-random, large-random and large-100 the state changes by at most a tenth of its norm from t1 = 100 "
          "to 500 (in part: it changes, but in some of them the centred direction keeps within 10 degrees).",
          "08-watching-the-state", state_settles),
    Claim("C16", "The state stops changing visibly but grows in scale, with constant derivative: a steady state.",
          "seen in GIFs",
          "wide-adversarial, t1 = 100 to 1000: |z| grows linearly (slope 0.9 to 1.1) and f turns by at most 10 degrees; "
          "artefact if that holds only because of the drift that the last normalisation forces on every image.",
          "09-equilibrium-or-drift", steady_not_equilibrium, WITH_ARTEFACT),
    Claim("C17", "Digits 6 and 4 end in distinct steady states after adversarial training, and look the same after "
                 "standard training.", "seen in GIFs",
          "Nearest class direction at t1 = 1000, all test images of both: 90 % or more (adversarial) and 60 % or less "
          "(standard). Artefact if the standard network's states look closer together but are told apart just as well.",
          "08-watching-the-state", six_and_four, WITH_ARTEFACT),
    Claim("C18", "Adversarial training makes one steady state per class.", "conjectured",
          "90 % of directions at t1 = 1000 nearest to their own class, at least 10 points more than after standard "
          "training (else artefact), and in 8 of 10 classes one ray f(w) = w, solved and attracting, that takes all.",
          "09-equilibrium-or-drift", one_state_per_class, WITH_ARTEFACT),
    Claim("C20", "The adversarially trained state settles faster; the standard one changes for longer, then saturates.",
          "seen in GIFs",
          "Median end time after which the direction turns by less than 0.1 per unit of log time: at most half, and "
          "finite for both; relative speed (0.01) agrees (in part: only some of it).", "08-watching-the-state",
          settles_faster),
    Claim("C21", "Adversarial inputs are pulled to the steady state of their own class.", "conjectured",
          "80 % of PGD images end nearest to their own class at t1 = 1000, and their angle to the clean image's state "
          "is smaller than at t1 = 1 (one of the two: in part).", "09-equilibrium-or-drift", attacked_are_pulled),
    Claim("C22", "A higher NFE means more complex dynamics.", "conjectured",
          "The network with the higher NFE at t1 = 1 also has the larger Jacobian norm and the more strongly turning "
          "velocity, in every pair of seeds (one: in part; none: artefact).", "07-adversarial-training",
          nfe_means_complexity, WITH_ARTEFACT),
)
