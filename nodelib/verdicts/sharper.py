"""The second round's rules for claims that need no network by the post's recipe: C3 to C6, C13, C16, C18, C20
to C22.

Their words are in `second_round.toml`. Where those leave a reading open, it was fixed here before any of
these rules was run, and stands in the function's docstring; the first round's measurements were known.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

from nodelib.statistics import mean_interval, rank_correlation
from nodelib.verdicts import part_one, states
from nodelib.verdicts.evidence import (
    CLEAN,
    Accuracy,
    Evidence,
    Missing,
    accuracy_figure,
    matches,
    percents,
    value_figure,
)
from nodelib.verdicts.part_one import CONSTANT_MEMORY, GRADIENT_TOLERANCE, MATCH_POINTS, THREE_TIMES
from nodelib.verdicts.predictions import OWN_T1, ROWS
from nodelib.verdicts.second_round import constants, sensitive
from nodelib.verdicts.states import (
    ADVERSARIAL,
    CLASS_GAP,
    CLEARLY_FASTER,
    GRID_STEP,
    LINEAR,
    MOST_CLASSES,
    NEVER,
    PERSISTENT,
    SAME_CLASS,
    SMALL_ANGLE,
    SPEED_SETTLED,
    STANDARD,
    TURNING_SETTLED,
)
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Figure,
    Verdict,
    by_share,
)

BASELINES = ("resnet-6", "resnet-1", "resnet-0")
SEEDS = 3  # from which on intervals over seeds mean something
CHANCE = 0.1  # share of images nearest to their own class's direction where directions say nothing


def seeds_said(*found: Sequence) -> str:
    """ "; one seed" where something rests on one."""
    return "; one seed" if any(len(values) == 1 for values in found) else ""


def adjoint_at_own_end_times(evidence: Evidence) -> Verdict:
    """C3. The error is the median image's relative error of the adjoint's input gradient, at tolerance 1e-3.
    """
    c = constants("C3")
    chapter = lambda: evidence.chapter("C3", "gradient_difference", "memory_growth_adjoint",  # noqa: E731
                                       "memory_growth_backprop")
    (difference, growth, backprop), *errors = evidence.all(chapter, *(
        lambda n=n: states._measure(evidence, n, "gradient_error", t1=OWN_T1[n], gradient="adjoint",
                                    rtol=1e-3)
        for n in ROWS))
    right = difference <= GRADIENT_TOLERANCE and growth <= CONSTANT_MEMORY < backprop
    worst = {name: max(values) for name, values in zip(ROWS, errors)}
    reason = (f"right in the limit, and its error at the own end time is {min(worst.values()):.2g} to "
              f"{max(worst.values()):.2g} in the six rows{seeds_said(*errors)}")
    figures = tuple(value_figure(f"error of the adjoint, {n}", v) for n, v in zip(ROWS, errors))

    def rule(factor: float) -> Verdict:
        small = max(worst.values()) < factor * c.error
        return Verdict(NOT_REPRODUCED if not right else REPRODUCED if small else IN_PART, reason, figures)

    return sensitive(rule)


def fewer_parameters_than_any_baseline(evidence: Evidence) -> Verdict:
    """C4. "Reproduced" asks, as before, for six blocks matched within 0.3 points by 2 to 4 times fewer
    parameters.
    """
    c = constants("C4")
    found = evidence.every(lambda n: evidence.accuracies(n, 1.0, **CLEAN), (STANDARD, *BASELINES))
    if short := [f"{name}: {len(each)} of {SEEDS} seeds" for name,
                 each in found.items() if len(each) < SEEDS]:
        raise Missing(short, f"{SEEDS} seeds")
    size = {name: each[0].run.provenance["parameters"] for name, each in found.items()}
    mean = {name: statistics.fmean(percents(each)) for name, each in found.items()}
    ratio = size["resnet-6"] / size[STANDARD]
    no_larger = [name for name in BASELINES if size[name] <= size[STANDARD]]
    figures = (*(accuracy_figure(name, each) for name, each in found.items()),
               Figure("parameters, six blocks over ODE-net", ratio))

    def rule(factor: float) -> Verdict:
        points = factor * c.points
        rivals = [name for name in no_larger if mean[name] >= mean[STANDARD] - points]
        said = (f"the ODE-net has {mean[STANDARD] - mean['resnet-6']:+.2f} points against six blocks with "
                f"{ratio:.1f} times its parameters; of the baselines no larger than it, {len(rivals)} of "
                f"{len(no_larger)} come within {points:g} points")
        if mean[STANDARD] < mean["resnet-6"] - MATCH_POINTS:
            return Verdict(NOT_REPRODUCED, said, figures)
        if not THREE_TIMES[0] <= ratio <= THREE_TIMES[1]:
            return Verdict(IN_PART, said, figures)
        return Verdict(ARTEFACT if rivals else REPRODUCED, said, figures)

    return sensitive(rule)


def tight_training_pays(evidence: Evidence) -> Verdict:
    """C5. Half the evaluations: of those that the tightly trained network takes at its own tolerance.
    Relaxed: the best of the tested tolerances whose evaluations stay within that budget, on the same images
    and seeds.
    """
    c = constants("C5")
    tolerances = [10.0**-k for k in range(1, 7)]  # the fifth is that of tight training
    names = ("small-10-tight", "small-10")
    found = evidence.all(*(partial(evidence.accuracies, n, 10.0, attack="none", pooling="fixed", rtol=tol)
                           for n in names for tol in tolerances))
    tight, loose = found[:len(tolerances)], found[len(tolerances):]
    seeds = set.intersection(*({a.run.seed for a in each} for each in found))
    if not seeds:
        raise Missing(["small-10 and small-10-tight: one seed with clean accuracy at every tolerance"])
    keep = lambda each: [a for a in each if a.run.seed in seeds]  # noqa: E731
    tight, loose = [keep(each) for each in tight], [keep(each) for each in loose]
    images = min(a.record["n"] for each in (*tight, *loose) for a in each)

    def best(records: list[list[Accuracy]], budget: float) -> float:
        affordable = [statistics.fmean(100 * a.outcomes()[:images].mean() for a in each) for each in records
                      if statistics.fmean(a.record["nfe"] for a in each) <= budget]
        return max(affordable, default=0.0)

    budget = statistics.fmean(a.record["nfe"] for a in tight[4]) / 2
    ours, theirs = best(tight, budget), best(loose, budget)
    figures = (Figure("trained tight, relaxed", ours, unit="%"),
               Figure("trained loosely, relaxed", theirs, unit="%"))
    reason = (f"within {budget:.0f} evaluations the tightly trained network keeps {ours:.1f} %, the loosely "
              f"trained one {theirs:.1f} %, on {images:,} images{'; one seed' if len(seeds) == 1 else ''}")
    return sensitive(lambda factor: Verdict(REPRODUCED if ours - theirs >= factor * c.points else IN_PART,
                                            reason, figures))


def ten_seeds_of_series(evidence: Evidence) -> Verdict:
    """C6. The interval is Student's, of the mean of paired differences."""
    c = constants("C6")
    ode, rnn, size_ode, size_rnn = evidence.chapter("C6", "rmse_ode", "rmse_rnn", "parameters_ode",
                                                    "parameters_rnn")
    if len(ode) < c.seeds:
        raise Missing([f"C6: {len(ode)} of {c.seeds} seeds a side"], f"{c.seeds} seeds")
    if not 1 / part_one.SAME_SIZE <= size_ode / size_rnn <= part_one.SAME_SIZE:
        raise Missing([f"C6: models of equal size (now {size_ode:g} and {size_rnn:g} parameters)"])
    low, high = mean_interval([a - b for a, b in zip(ode, rnn)])
    return Verdict(REPRODUCED if high < 0 else NOT_REPRODUCED,
                   f"the ODE model's held-out error minus the recurrent network's: {low:.3f} to {high:.3f} "
                   f"(95 % interval of the mean over {len(ode)} pairs of seeds)",
                   (value_figure("error, ODE", ode), value_figure("error, recurrent", rnn)))


def direction_settles(evidence: Evidence) -> Verdict:
    """C13. From t = 100 to 1000, the largest of a row's seeds; all three rows: reproduced, two: in part."""
    c = constants("C13")
    found = evidence.every(lambda n: states._measure(evidence, n, "state_angle", t1=1000.0, since=100.0,
                                                     part="centred"), PERSISTENT)
    turned = {name: max(values) for name, values in found.items()}
    single = " and ".join(name for name, values in found.items() if len(values) == 1)
    single = single and f"; one seed of {single}"
    reason = (f"from t = 100 to 1000 the direction turns by {', '.join(f'{v:.0f}' for v in turned.values())} "
              f"degrees in {', '.join(turned)} (median image, worst seed{single})")
    figures = tuple(value_figure(f"turn of the direction, {n}", v, "degrees") for n, v in found.items())
    return sensitive(lambda factor: Verdict(by_share([v < factor * c.degrees for v in turned.values()]),
                                            reason, figures))


def in_ranges(films: bool, long: bool, rays: bool, said: str, figures: tuple[Figure, ...],
              otherwise: str) -> Verdict:
    """Reproduced if it holds in all three ranges, in part if in one or two, else as said."""
    held = [name for name, holds in (("to t = 10", films), ("to t = 1000", long), ("on rays", rays)) if holds]
    verdict = REPRODUCED if len(held) == 3 else IN_PART if held else otherwise
    return Verdict(verdict, f"it holds {' and '.join(held) or 'in none of the three ranges'}; {said}",
                   figures)


def steady_in_three_ranges(evidence: Evidence) -> Verdict:
    """C16. It holds in a range of end times if |z| grows linearly and f, the common drift removed, turns by
    at most 10 degrees from the first tenth on; on rays, if 90 % of the images reach one. Artefact if without
    removing the drift it would hold in both ranges of time.
    """
    ends = {"films": (1.0, 10.0), "long": (100.0, 1000.0)}
    measure = partial(states._measure, evidence, ADVERSARIAL)
    norms = evidence.all(*(partial(measure, "norm", t1=t) for pair in ends.values() for t in pair))
    angles = evidence.all(*(partial(measure, "velocity_angle", t1=b, since=a, part=part)
                            for part in ("whole", "centred") for a, b in ends.values()))
    on_ray = measure("on_a_ray", t1=1000.0, statistic="mean")
    linear = [all(LINEAR[0] <= math.log10(late / early) <= LINEAR[1] for early,
                  late in zip(norms[k], norms[k + 1]))
              for k in (0, 2)]
    figures = (*(value_figure(f"turn of f without the drift, t = {a:g} to {b:g}", v, "degrees")
                 for (a, b), v in zip(ends.values(), angles[2:])), value_figure("share on a ray", on_ray))
    said = f"{100 * min(on_ray):.0f} % of the images are on a ray{seeds_said(on_ray)}"

    def rule(factor: float) -> Verdict:
        whole, centred = ([max(values) <= factor * SMALL_ANGLE for values in angles[k:k + 2]] for k in (0, 2))
        films, long = (a and b for a, b in zip(linear, centred))
        drifting = all(a and b for a, b in zip(linear, whole))
        return in_ranges(films, long, min(on_ray) >= SAME_CLASS, said, figures,
                         ARTEFACT if drifting else NOT_REPRODUCED)

    return sensitive(rule)


def one_state_per_class_in_three_ranges(evidence: Evidence) -> Verdict:
    """C18. It holds at an end time if 90 % of the directions are nearest to their own class and standard
    training stays ten points below; on rays, if 8 of 10 classes have a steady state of their own. Artefact if
    the share is reached at both end times and standard training comes within ten points at both.
    """
    share = partial(evidence.measured_share, what="nearest_class", label="all", images="clean",
                    statistic="mean")
    shares = evidence.all(*(partial(share, n, t1=t)
                            for t in (10.0, 1000.0) for n in (ADVERSARIAL, STANDARD)))
    single = states.single_states(evidence.all(*states.ray_facts(evidence)))
    pairs = list(zip(shares[::2], shares[1::2]))
    apart = [min(a.values) >= SAME_CLASS for a, _ in pairs]
    figures = tuple(share.figure(f"nearest to its own class at t = {t:g}, {name}") for (t, name),
                    share in zip(
        ((t, n) for t in (10.0, 1000.0) for n in ("adversarial", "standard")), shares))
    said = f"{single} of 10 classes have a steady state of their own{seeds_said(shares[0].values)}"

    def rule(factor: float) -> Verdict:
        gap = [min(a.values) - max(s.values) >= factor * CLASS_GAP for a, s in pairs]
        return in_ranges(apart[0] and gap[0], apart[1] and gap[1], single >= MOST_CLASSES, said, figures,
                         ARTEFACT if all(apart) and not any(gap) else NOT_REPRODUCED)

    return sensitive(rule)


def settles_faster_in_three_ranges(evidence: Evidence) -> Verdict:
    """C20. Films: at t = 10 the adversarially trained state turns at most half as fast. To 1000: its
    direction has settled in half the time at most, the other's at all, and its relative speed no later. On
    rays: ten points more of its images are on one.
    """
    networks = (ADVERSARIAL, STANDARD)
    measure = partial(states._measure, evidence)
    turning = evidence.all(*(partial(measure, n, "turning", t1=10.0, part="centred") for n in networks))
    settled = evidence.all(*(partial(measure, n, "settling_time", measure=m, threshold=th)
                             for m, th in (("turning", TURNING_SETTLED), ("relative_speed", SPEED_SETTLED))
                             for n in networks))
    rays = evidence.all(*(partial(measure, n, "on_a_ray", t1=1000.0, statistic="mean") for n in networks))
    figures = (*(value_figure(f"turning at t = 10, {n}", v, "radians per unit of log time")
                 for n, v in zip(("adversarial", "standard"), turning)),
               *(value_figure(f"share on a ray, {n}", v) for n, v in zip(("adversarial", "standard"), rays)))
    said = (f"at t = 10 the directions turn by {statistics.fmean(turning[0]):.2g} and "
            f"{statistics.fmean(turning[1]):.2g}")

    def rule(factor: float) -> Verdict:
        faster = factor * CLEARLY_FASTER
        films = faster * max(turning[0]) <= min(turning[1])
        long = (faster * max(settled[0]) <= min(settled[1]) and max(settled[1]) < NEVER
                and max(settled[2]) <= GRID_STEP * min(settled[3]))
        return in_ranges(films, long, min(rays[0]) - max(rays[1]) >= factor * CLASS_GAP,
                         said + seeds_said(turning[0]), figures, NOT_REPRODUCED)

    return sensitive(rule)


def fooled_are_pulled(evidence: Evidence) -> Verdict:
    """C21. Of the images that fool the adversarially trained network at its own end time."""
    c = constants("C21")
    where = dict(label="all", images="fooled", statistic="mean")
    share = lambda t: evidence.measured_share(ADVERSARIAL, "nearest_class", t1=t, **where)  # noqa: E731
    early, late = evidence.all(lambda: share(1.0), lambda: share(1000.0))
    if sum(late.counts) < c.images:
        raise Missing([f"{ADVERSARIAL}: {sum(late.counts)} of {c.images} fooled images"],
                      f"{c.images} fooled images")
    low, high = min(late.values), max(early.values)
    figures = (early.figure("fooled images nearest to their own class at t = 1"),
               late.figure("same at t = 1000"))
    reason = (f"of the fooled images, {early} are nearest to their own class at t = 1 and {late} at t = 1000"
              f"{seeds_said(early.values, late.values)}")
    return sensitive(lambda factor: Verdict(
        REPRODUCED if low >= CHANCE + factor * c.points / 100 and low > high else NOT_REPRODUCED, reason,
        figures))


def complexity_points(evidence: Evidence) -> list[tuple[float, float, float, float, float]]:
    """End time, NFE, Jacobian norm, path curvature and minus step size: of networks at t = 1, of snapshots,
    with their means, at their row's own end time.
    """
    points: list[tuple[float, float, float, float, float]] = []
    for run in evidence.runs:
        measured = {m["name"]: m["value"] for m in run.measurements
                    if m["t1"] == 1.0 and m["name"] in ("jacobian_norm", "path_turning", "accepted_steps")}
        clean = [r for r in run.metrics if matches(r, t1=1.0, **CLEAN)]
        if len(measured) == 3 and clean:
            nfe = max(clean, key=lambda r: r["n"])["nfe"]
            points.append((1.0, nfe, measured["jacobian_norm"], measured["path_turning"],
                           -1 / measured["accepted_steps"]))
            evidence.used.append(f"{run.name}-seed{run.seed}: jacobian_norm, path_turning, accepted_steps")
        by_step: dict[tuple[int, float], dict[str, float]] = {}
        for r in getattr(run, "snapshots", ()):
            by_step.setdefault((r.step, r.t1), {})[r.quantity] = r.value
        points += [(t1, s["nfe"], s["jacobian-norm"], s["path-turning"], -s["step-size"])
                   for (_, t1), s in by_step.items()
                   if {"nfe", "jacobian-norm", "path-turning", "step-size"} <= set(s)]
        if by_step:
            evidence.used.append(f"{run.name}-seed{run.seed}: snapshots")
    return points


def evaluations_mean_complexity(evidence: Evidence) -> Verdict:
    """C22. A correlation cannot reach twice 0.5, so the threshold is judged at half and once."""
    c = constants("C22")
    points = complexity_points(evidence)
    if len(points) < c.least:
        raise Missing([f"{len(points)} of {c.least} networks and snapshots with Jacobian norm, curvature and "
                       "step sizes"])
    _, evaluations, *others = zip(*points)
    names = ("Jacobian norm", "path curvature", "smaller steps")
    found = [rank_correlation(evaluations, values) for values in others]
    figures = tuple(Figure(f"rank correlation of NFE with {n}", r) for n, r in zip(names, found))
    reason = (f"over {len(points)} networks and snapshots, end times from 1 to 100 together, NFE goes with " +
              ", ".join(f"{n} {r:.2f}" for n, r in zip(names, found)))
    return sensitive(lambda factor: Verdict(
        by_share([r >= factor * c.correlation for r in sorted(found)[1:]], fewer=ARTEFACT), reason, figures),
        factors=[0.5, 1])


RULES: dict[str, Callable[[Evidence], Verdict]] = {
    "C3": adjoint_at_own_end_times,
    "C4": fewer_parameters_than_any_baseline,
    "C5": tight_training_pays,
    "C6": ten_seeds_of_series,
    "C13": direction_settles,
    "C16": steady_in_three_ranges,
    "C18": one_state_per_class_in_three_ranges,
    "C20": settles_faster_in_three_ranges,
    "C21": fooled_are_pulled,
    "C22": evaluations_mean_complexity,
}

UNTIL = {"C3": part_one.adjoint_gives_gradient, "C4": part_one.fewer_parameters,
         "C21": states.attacked_are_pulled}
"""The first round's rules that judge until the evidence of these is there."""
