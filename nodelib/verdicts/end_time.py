"""Rules for end time and accuracy: the table and what the post reads from it (C8 to C12, C14, C15)."""

from __future__ import annotations

import statistics
from itertools import product
from typing import TYPE_CHECKING

from nodelib.statistics import ENTRY_TOLERANCE, within_tolerance
from nodelib.verdicts.evidence import (
    CLEAN,
    CLEAN_POST,
    FGSM_POST,
    Accuracy,
    Evidence,
    Missing,
    accuracy_figure,
    matches,
    ordered,
    percents,
    same_images,
    value_figure,
)
from nodelib.verdicts.robustness import CHANCE_BOUND, strongest
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    WITH_ARTEFACT,
    Figure,
    Verdict,
    by_share,
    first_round_claim,
)

if TYPE_CHECKING:
    from nodelib.experiment.artifacts import Run

ROWS = ("small-10", "small-random", "small-100", "large-10", "large-random", "large-100")
END_TIMES = (1.0, 10.0, 100.0, 500.0)
SCHEMES = ("10", "random", "100")
OWN_END_TIME = {"10": 10.0, "random": 100.0, "100": 100.0}
"""Where a row is tested "at its training end time"; for the random rows the end of their range."""

TABLE_REPRODUCED = 0.9
"""Share of the 48 figures that must reproduce for the table as a whole to count as reproduced: with 48
entries, each with an unknown spread over the post's own seeds, a few misses are expected by chance."""

KEEPS = 10.0
"""Points of clean accuracy a network may lose and still "keep its performance". The post's own figures are
clear of it on both sides: the rows it calls persistent lose 2 to 5 points at t = 500, the other 26."""

USUAL_NFE = (15.0, 40.0)
"""The post's 20 to 30 evaluations with room on both sides: a step of dopri5 costs 6, so one step less than
three is
already below it and one rejected step more than five above."""

HUNDREDS = 100.0
CLEAR_FACTOR = 2.0
"""Factor that counts as a clear rise where the post's "hundreds" is not reached."""

FAR_LONGER = 5.0
"""Factor between end times that shows at a glance on the post's graphs."""

FEWEST_END_TIMES = 40
"""Points of an end-time sweep, from 0.1 to 1000; fewer leave gaps wider than a quarter of an octave at t = 1.
"""


def entries(evidence: Evidence) -> tuple[list[tuple[str, float, str, float, list[Accuracy], bool]],
                                         list[str]]:
    """The judged entries of the table, (run, t1, kind, the post's figure, ours, reproduced?), and what is
    missing.
    """
    judged, missing = [], []
    for name, t1, (kind, protocol) in product(ROWS, END_TIMES,
                                              (("standard", CLEAN_POST), ("adversarial", FGSM_POST))):
        try:
            found = evidence.accuracies(name, t1, **protocol)
        except Missing as absent:
            missing += absent.what
            continue
        theirs = evidence.post(name, t1, kind)
        judged.append((name, t1, kind, theirs, found, within_tolerance(percents(found), theirs)))
    return judged, missing


def table(evidence: Evidence) -> Verdict:
    judged, missing = entries(evidence)
    if missing:
        raise Missing(missing)
    right = {kind: [e[5] for e in judged if e[2] == kind] for kind in ("standard", "adversarial")}
    total = sum(map(sum, right.values()))
    share = total / len(judged)
    verdict = REPRODUCED if share >= TABLE_REPRODUCED else IN_PART if share >= 0.5 else NOT_REPRODUCED
    reason = (f"{total} of {len(judged)} entries lie within max({ENTRY_TOLERANCE:g} points, our range) of "
              f"the post's: {sum(right['standard'])} standard, {sum(right['adversarial'])} adversarial")
    return Verdict(verdict, reason,
                   tuple(Figure(f"{kind} entries reproduced", sum(values), unit=f"of {len(values)}")
                         for kind, values in right.items()))


def capacity(evidence: Evidence) -> Verdict:
    informative = [(s, t1) for s, t1 in product(SCHEMES, END_TIMES)
                   if evidence.post(f"large-{s}", t1, "adversarial")
                   - evidence.post(f"small-{s}", t1, "adversarial")
                   > ENTRY_TOLERANCE]
    questions = [lambda n=f"{size}-{s}", t1=t1: evidence.accuracies(n, t1, **FGSM_POST)
                 for s, t1 in informative for size in ("large", "small")]
    questions += [lambda n=f"{size}-{s}", t1=OWN_END_TIME[s]: strongest(evidence, n, t1)
                  for s in SCHEMES for size in ("large", "small")]
    found = evidence.all(*questions)
    protocol, strong = found[:2 * len(informative)], found[2 * len(informative):]
    holds = [ordered(large, small) for large, small in zip(protocol[::2], protocol[1::2])]
    robust = [ordered(large, small) and min(percents(large)) >= CHANCE_BOUND
              for large, small in zip(strong[::2], strong[1::2])]
    reason = (f"the larger network is ahead in {sum(holds)} of {len(holds)} entries where the post's gap "
              f"exceeds {ENTRY_TOLERANCE:g} points; under the strongest attack in {sum(robust)} of "
              f"{len(robust)} schemes with at least {CHANCE_BOUND:g} % left")
    figures = tuple(accuracy_figure(f"{size}-{s} strongest attack", found)
                    for (s, size), found in zip(product(SCHEMES, ("large", "small")), strong))
    if all(holds):
        verdict = REPRODUCED if all(robust) else IN_PART if any(robust) else ARTEFACT
    else:
        verdict = by_share(holds) if any(robust) else NOT_REPRODUCED
    return Verdict(verdict, reason, figures)


def longer_training_time(evidence: Evidence) -> Verdict:
    pairs = [(f"{size}-{longer}", f"{size}-10") for size in ("small", "large")
             for longer in ("random", "100")]
    time = lambda name: OWN_END_TIME[name.split("-")[1]]  # noqa: E731
    questions = [lambda n=n: evidence.accuracies(n, time(n), **FGSM_POST) for pair in pairs for n in pair]
    questions += [lambda n=n: strongest(evidence, n, time(n)) for pair in pairs for n in pair]
    found = evidence.all(*questions)
    protocol, strong = found[:8], found[8:]
    holds = [ordered(a, b) for a, b in zip(protocol[::2], protocol[1::2])]
    robust = [ordered(a, b) and min(percents(a)) >= CHANCE_BOUND for a, b in zip(strong[::2], strong[1::2])]
    reason = (f"by the post's protocol, each network at its own training end time, {sum(holds)} of 4 "
              f"orderings hold; under the strongest attack {sum(robust)} of 4, with at least "
              f"{CHANCE_BOUND:g} % left")
    by_name = dict(zip((n for pair in pairs for n in pair), zip(protocol, strong)))
    figures = tuple(accuracy_figure(f"{n}, {label}", f) for n, both in by_name.items()
                    for label, f in zip(("post's protocol", "strongest attack"), both))
    if all(holds):
        verdict = REPRODUCED if all(robust) else IN_PART if any(robust) else ARTEFACT
    else:
        verdict = IN_PART if sum(holds) >= 2 and any(robust) else NOT_REPRODUCED
    return Verdict(verdict, reason, figures)


def random_end_times(evidence: Evidence) -> Verdict:
    small_random, small_100, large_random, large_100, turning_random, turning_100 = evidence.all(
        *(lambda n=n: evidence.accuracies(n, 100.0, **FGSM_POST)
          for n in ("small-random", "small-100", "large-random", "large-100")),
        *(lambda n=n: evidence.measured(n, "turning", t1=100.0, part="centred", label="all",
                                        statistic="median")
          for n in ("small-random", "small-100")))
    helps_small, hurts_large = ordered(small_random, small_100), ordered(large_100, large_random)
    settles = max(turning_random) < min(turning_100)
    figures: tuple[Figure, ...]
    figures = (accuracy_figure("small-random", small_random), accuracy_figure("small-100", small_100),
               accuracy_figure("large-random", large_random), accuracy_figure("large-100", large_100),
               value_figure("turning, small-random", turning_random),
               value_figure("turning, small-100", turning_100))
    reason = (f"{lead('small-random', small_random, 'small-100', small_100)}; "
              f"{lead('large-100', large_100, 'large-random', large_random)} (the rule asks for every pair); "
              f"small-random's state turns {'more slowly' if settles else 'no more slowly'} than that of "
              "small-100")
    shown = []
    for name, label in product(("large-random", "large-100", "small-10", "large-10"),
                               ("turning", "ray_distance")):
        try:  # shown where it exists, not judged
            shown.append((name, label, evidence.measured(name, label, t1=100.0, part="centred", label="all",
                                                         statistic="median")))
        except Missing:
            continue
    figures += tuple(value_figure(f"{label.replace('_', ' ')}, {name}", values) for name, label,
                     values in shown)
    of = {name: values for name, label, values in shown if label == "turning"}
    if {"large-random", "large-100"} <= set(of):
        slower = max(of["large-random"]) < min(of["large-100"])
        reason += f", large-random's {'more slowly' if slower else 'no more slowly'} than that of large-100"
    if helps_small and hurts_large:
        return Verdict(REPRODUCED if settles else ARTEFACT, reason, figures)
    return Verdict(IN_PART if helps_small or hurts_large else NOT_REPRODUCED, reason, figures)


def lead(name: str, better: list[Accuracy], other: str, worse: list[Accuracy]) -> str:
    """In how many pairs of seeds one network keeps more images than another, and in how many significantly,
    in words.
    """
    pairs = list(product(better, worse))
    ahead = sum(first.mean() > second.mean() for a, b in pairs for first, second in [same_images(a, b)])
    significant = sum(ordered([a], [b]) for a, b in pairs)
    return (f"{name} is ahead of {other} in {ahead} of {len(pairs)} pair{'s' if len(pairs) > 1 else ''} of "
            f"seeds, significantly in {significant}")


def keeps_accuracy(evidence: Evidence) -> Verdict:
    keep = {"small-random": True, "small-100": False, "large-random": True, "large-100": True}
    found = evidence.every(evidence.accuracies, product(keep, (100.0, 500.0)), **CLEAN_POST)
    holds, figures, lost = [], [], []
    for name, expected in keep.items():
        before, after = found[name, 100.0], found[name, 500.0]
        by_run = {a.run.seed: a.percent for a in before}
        drops = [by_run[a.run.seed] - a.percent for a in after if a.run.seed in by_run]
        holds.append(bool(drops) and all((drop <= KEEPS) == expected for drop in drops))
        figures.append(accuracy_figure(f"{name} at t1 = 500", after))
        lost.append(f"{name} {statistics.fmean(drops):.1f}" if drops else f"{name} (no common seed)")
    return Verdict(by_share(holds),
                   f"points lost from t1 = 100 to 500, at most {KEEPS:g} being kept: {', '.join(lost)}; "
                   f"{sum(holds)} of 4 as the post says in every seed", tuple(figures))


def adversarial_nfe(evidence: Evidence) -> Verdict:
    found = evidence.every(evidence.accuracies, (("wide-standard", 1.0), ("wide-adversarial", 1.0)), **CLEAN)
    few, many = ([a.record["nfe"] for a in each] for each in found.values())
    training = {}
    for (name, _), each in found.items():
        last = [a.run.history["nfe_forward"][-max(1, len(a.run.history["nfe_forward"]) // 10):]
                for a in each]
        training[name] = [float(statistics.median(map(float, values))) for values in last if len(values)]
    exact = USUAL_NFE[0] <= min(few) and max(few) <= USUAL_NFE[1] and min(many) >= HUNDREDS
    clear = min(many) >= CLEAR_FACTOR * max(few)
    verdict = REPRODUCED if exact else IN_PART if clear else NOT_REPRODUCED
    figures = (value_figure("NFE, standard", few), value_figure("NFE, adversarial", many),
               *(value_figure(f"NFE at the end of training, {n}", v) for n, v in training.items() if v))
    return Verdict(verdict,
                   f"at tolerance 1e-3 a test solve to t1 = 1 costs {statistics.fmean(few):.0f} evaluations "
                   f"after standard and {statistics.fmean(many):.0f} after adversarial training",
                   figures)


def adversarial_range(evidence: Evidence) -> Verdict:
    reach = evidence.every(lambda n: [accuracy_reach(run) for run in evidence.named(n)],
                           ("wide-standard", "wide-adversarial"))
    standard, adversarial = reach["wide-standard"], reach["wide-adversarial"]
    records = {f"{run.name}-seed{run.seed}": range_records(run) for name in reach
               for run in evidence.named(name)}
    evidence.used += [f"{run}: clean accuracy at {len(of)} end times, {of[1.0]['id']} among them" for run,
                      of in records.items()]
    images = min(record["n"] for of in records.values() for record in of.values())
    figures = tuple(value_figure(f"end time up to which {n} keeps its accuracy", v) for n, v in reach.items())
    reason = (f"from t1 = 1 on, accuracy stays within {KEEPS:g} points up to t1 = {min(adversarial):.3g} "
              f"after adversarial and {max(standard):.3g} after standard training (worst pair of seeds, "
              f"{images:,} images at every end time)")
    if min(adversarial) >= FAR_LONGER * max(standard):
        return Verdict(REPRODUCED, reason, figures)
    return Verdict(IN_PART if min(adversarial) > max(standard) else NOT_REPRODUCED, reason, figures)


def accuracy_reach(run: Run) -> float:
    """Longest end time such that clean accuracy at t1 = 1 and all later ones lies within `KEEPS` points of t1
    = 1's.

    Every accuracy is counted on the same images, as many as the smallest of the records holds.
    """
    records = range_records(run)
    n = min(record["n"] for record in records.values())
    curve = {t1: 100 * run.outcomes(record["id"])[:n].mean() for t1, record in records.items()}
    reached = 1.0
    for t1 in sorted(t for t in curve if t >= 1):
        if curve[t1] < curve[1.0] - KEEPS:
            break
        reached = t1
    return reached


def range_records(run: Run) -> dict[float, dict]:
    """A run's records of clean accuracy by end time, of each the one on most images; Missing where there are
    too few.
    """
    found = {float(record["t1"]): record
             for record in sorted((r for r in run.metrics if matches(r, **CLEAN)), key=lambda r: r["n"])}
    if len(found) < FEWEST_END_TIMES or 1.0 not in found or max(found) < 1000:
        raise Missing([f"{run.name}-seed{run.seed}: clean accuracy at {FEWEST_END_TIMES} end times from 0.1 "
                       "to 1000"])
    return found


CLAIMS = (
    first_round_claim("C8", table),
    first_round_claim("C9", capacity, WITH_ARTEFACT),
    first_round_claim("C10", longer_training_time, WITH_ARTEFACT),
    first_round_claim("C11", random_end_times, WITH_ARTEFACT),
    first_round_claim("C12", keeps_accuracy),
    first_round_claim("C14", adversarial_nfe),
    first_round_claim("C15", adversarial_range),
)
