"""The first round's rules for end times: C15, and C12 until the second round's evidence is there, both judged
at half, once and twice their thresholds as the second round asks.
"""

import statistics
from itertools import product

from nodelib.experiment.artifacts import Run
from nodelib.verdicts.evidence import (
    CLEAN,
    CLEAN_POST,
    Evidence,
    Missing,
    accuracy_figure,
    matches,
    value_figure,
)
from nodelib.verdicts.second_round import sensitive
from nodelib.verdicts.verdict import (
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    by_share,
    first_round_claim,
)

KEEPS = 10.0
"""Points of clean accuracy a network may lose and still "keep its performance". The post's own figures are
clear of it on both sides: the rows it calls persistent lose 2 to 5 points at t = 500, the other 26."""

FAR_LONGER = 5.0
"""Factor between end times that shows at a glance on the post's graphs."""

FEWEST_END_TIMES = 40
"""Points of an end-time sweep, from 0.1 to 1000; fewer leave gaps wider than a quarter of an octave at t = 1.
"""


def keeps_accuracy(evidence: Evidence) -> Verdict:
    keep = {"small-random": True, "small-100": False, "large-random": True, "large-100": True}
    found = evidence.every(evidence.accuracies, product(keep, (100.0, 500.0)), **CLEAN_POST)
    figures, lost, drops = [], [], {}
    for name, expected in keep.items():
        before, after = found[name, 100.0], found[name, 500.0]
        by_run = {a.run.seed: a.percent for a in before}
        drops[name] = [by_run[a.run.seed] - a.percent for a in after if a.run.seed in by_run]
        figures.append(accuracy_figure(f"{name} at t1 = 500", after))
        lost.append(f"{name} {statistics.fmean(drops[name]):.1f}" if drops[name]
                    else f"{name} (no common seed)")

    def rule(factor: float) -> Verdict:
        holds = [bool(drops[name]) and all((drop <= factor * KEEPS) == kept for drop in drops[name])
                 for name, kept in keep.items()]
        return Verdict(by_share(holds),
                       f"points lost from t1 = 100 to 500, at most {factor * KEEPS:g} being kept: "
                       f"{', '.join(lost)}; {sum(holds)} of 4 as the post says in every seed", tuple(figures))

    return sensitive(rule)


def adversarial_range(evidence: Evidence) -> Verdict:
    """C15. The factor between end times is the threshold; the points say what is measured. At 5 and at 20 of
    them the verdict is the same.
    """
    reach = evidence.every(lambda n: [accuracy_reach(run) for run in evidence.named(n)],
                           ("wide-standard", "wide-adversarial"))
    standard, adversarial = reach["wide-standard"], reach["wide-adversarial"]
    records = {f"{run.name}-seed{run.seed}": range_records(run) for name in reach
               for run in evidence.named(name)}
    evidence.used += [f"{run}: clean accuracy at {len(of)} end times, {of[1.0]['id']} among them" for run,
                      of in records.items()]
    images = min(record["n"] for of in records.values() for record in of.values())
    figures = tuple(value_figure(f"end time up to which {n} keeps its accuracy", v) for n, v in reach.items())
    worst = "worst pair of seeds, " if len(records) > 2 else ""
    reason = (f"from t1 = 1 on, accuracy stays within {KEEPS:g} points up to t1 = {min(adversarial):.3g} "
              f"after adversarial and {max(standard):.3g} after standard training ({worst}{images:,} images "
              "at every end time)")

    def rule(factor: float) -> Verdict:
        if min(adversarial) >= factor * FAR_LONGER * max(standard):
            return Verdict(REPRODUCED, reason, figures)
        return Verdict(IN_PART if min(adversarial) > max(standard) else NOT_REPRODUCED, reason, figures)

    return sensitive(rule)


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


CLAIMS = (first_round_claim("C15", adversarial_range),)
