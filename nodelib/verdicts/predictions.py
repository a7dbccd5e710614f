"""P1 to P8: what was predicted of the post's recipe before its networks were there, each kept, broken or
open.

Rules and constants are those of `second_round.toml`; here is how they are computed from stored records
and snapshots.
"""

import contextlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np

from nodelib.experiment import snapshot_records as snapshots
from nodelib.statistics import rank_correlation
from nodelib.verdicts.evidence import EPSILON, Evidence, Missing, matches
from nodelib.verdicts.second_round import constants, text

KEPT, BROKEN, OPEN = "kept", "broken", "open"
ROWS = ("small-10", "small-random", "small-100", "large-10", "large-random", "large-100")
OWN_T1 = {row: 10.0 if row.endswith("-10") else 100.0 for row in ROWS}
TABLE_T1 = (1.0, 10.0, 100.0, 500.0)
POST = {row: f"{row}-post" for row in ROWS}
RESCALED = dict(attack="fgsm", epsilon=EPSILON, clip=False, pooling="random")
UNSATURATED = ("margin", "log-odds")


@dataclass(frozen=True)
class Outcome:
    """What became of a prediction.

    outcome: `KEPT`, `BROKEN` or `OPEN`; figures: label -> number behind it; missing: what it still waits for.
    """

    name: str
    outcome: str
    figures: tuple[tuple[str, float], ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        return text(self.name)


def between(value: float, kept: bool, broken: bool) -> str:
    """Kept, broken, or open where neither bound is met."""
    return KEPT if kept else BROKEN if broken else OPEN


def so_far(look_up: Callable[..., Any], keys: Iterable[Any],
           **conditions: Any) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """Key -> answer of a look-up where there is one, and what is missing for the others, each item once.

    Args:
        look_up: called as by `Evidence.every`, which asks for all of them.
    """
    found, missing = {}, []
    for key in keys:
        try:
            found[key] = look_up(*(key if isinstance(key, tuple) else (key,)), **conditions)
        except Missing as absent:
            missing += absent.what
    return found, tuple(dict.fromkeys(missing))


# -- the stored networks of the first round, their logits rescaled ---------------------------------

def curve(evidence: Evidence, row: str, t1: float, *, loss: str = "cross-entropy",
          gradient: str = "adjoint", balanced: bool = True) -> dict[float, float]:
    """Accuracy in per cent left by one step, by the factor on the logits: seed 0 of a stored row, pooling
    redrawn, unclipped. balanced: of `nodelib.experiment.measurement.Measurement`.
    """
    run = evidence.named(row)[0]
    found = {
        float(r["settings"]["logit_scale"]): 100 * r["correct"] / r["n"]
        for r in run.metrics
        if matches(r, **RESCALED, t1=t1, gradient=gradient, loss=loss, library="nodelib")
        and r["settings"].get("balanced", True) is balanced
        and isinstance(r["settings"].get("logit_scale"), (int, float))
        and str(r["id"]).startswith("rescaled")
    }
    if len(found) < 2:
        raise Missing([f"{row}: FGSM on rescaled logits at t1 = {t1:g} ({loss}, {gradient})"])
    return dict(sorted(found.items()))


def at_factor(by_factor: Mapping[float, float], factor: float) -> float:
    """A curve's value between its factors, linear in the factor's logarithm."""
    factors = sorted(by_factor)
    return float(np.interp(np.log(factor), np.log(factors), [by_factor[s] for s in factors]))


def dial(by_factor: Mapping[float, float], level: float) -> float:
    """The smallest factor at which a curve reaches a level, by the same interpolation; its ends where it lies
    outside.
    """
    factors = sorted(by_factor)
    if by_factor[factors[0]] >= level:
        return factors[0]
    for low, high in zip(factors, factors[1:]):
        a, b = by_factor[low], by_factor[high]
        if a < level <= b:
            return float(np.exp(np.log(low) + (level - a) / (b - a) * (np.log(high) - np.log(low))))
    return max(factors, key=lambda s: by_factor[s])


def dial_errors(curves: Mapping[tuple[str, float], Mapping[float, float]],
                post: Callable[[str, float], float], order: Sequence[str] = ROWS) -> list[float]:
    """Absolute errors of P1's fit, in points: curves ((row, end time) -> factor -> accuracy), the figures of
    the rows in `order`.
    """
    errors = []
    for row, like in zip(ROWS, order):
        factor = dial(curves[row, OWN_T1[row]], post(like, OWN_T1[like]))
        others = ([t1 for t1 in TABLE_T1 if t1 != OWN_T1[name]] for name in (row, like))
        errors += [abs(at_factor(curves[row, ours], factor) - post(like, theirs))
                   for ours, theirs in zip(*others)]
    return errors


def gaps_past(evidence: Evidence, row: str, t1: float, threshold: float) -> dict[float, float]:
    """Per cent of images whose gap passes a threshold, by the factor on the logits: seed 0 of a stored row;
    empty where it was not counted.
    """
    return {m["settings"]["logit_scale"]: 100 * m["value"] for m in evidence.named(row)[0].measurements
            if (m["name"], m["t1"], m["settings"].get("threshold")) == ("gap_past", t1, threshold)}


def past_alone(evidence: Evidence, curves: Mapping[tuple[str, float], Mapping[float, float]],
               post: Callable[[str, float], float]) -> list[tuple[str, float]]:
    """Beside P1, not judged: how far the share of gaps past the second horizon alone is from the post's
    figures, at each row's factor and its other end times, in the rows where it was counted.
    """
    horizon, errors, rows = 104.0, [], set()
    for row, t1 in product(ROWS, TABLE_T1):
        past = gaps_past(evidence, row, t1, horizon)
        if past and t1 != OWN_T1[row]:
            factor = dial(curves[row, OWN_T1[row]], post(row, OWN_T1[row]))
            errors.append(abs(at_factor(past, factor) - post(row, t1)))
            rows.add(row)
    return [(f"median absolute error of the share of gaps past {horizon:g} alone, {len(rows)} of the rows",
             statistics.median(errors))] if errors else []


def one_dial(evidence: Evidence) -> Outcome:
    c = constants("P1")
    curves = evidence.every(partial(curve, evidence), product(ROWS, TABLE_T1))
    post = lambda row, t1: evidence.post(row, t1, "adversarial")  # noqa: E731
    error = statistics.median(dial_errors(curves, post))
    others = [statistics.median(dial_errors(curves, post, order)) for order in permutations(ROWS)
              if all(a != b for a, b in zip(order, ROWS))]
    figures = (
        ("median absolute error, points", error),
        ("the same with shuffled rows", statistics.median(others)),
        ("share of shuffles that do as well", sum(e <= error for e in others) / len(others)),
        *past_alone(evidence, curves, post),
        *((f"factor of {row}", dial(curves[row, OWN_T1[row]], post(row, OWN_T1[row]))) for row in ROWS),
    )
    return Outcome("P1", between(error, error <= c.kept, error > c.broken), figures)


def loss_not_network(evidence: Evidence) -> Outcome:
    c, moved = constants("P2a"), {}
    look_up = lambda row, loss, gradient: curve(evidence, row, OWN_T1[row], loss=loss,  # noqa: E731
                                                gradient=gradient)
    found = evidence.every(look_up, product(ROWS, UNSATURATED, ("exact", "adjoint")))
    for (row, loss, gradient), by_factor in found.items():
        if 1.0 not in by_factor or max(by_factor) < c.largest:
            raise Missing([f"{row}: FGSM on the {loss} by the {gradient} gradient for factors from 1 to "
                           f"{c.largest}"])
        moved[row, loss, gradient] = max(abs(value - by_factor[1.0])
                                         for s, value in by_factor.items() if s <= c.largest)
    worst = max(moved.values())
    return Outcome("P2a", between(worst, worst <= c.kept, worst > c.broken),
                   (*((f"{', '.join(key)}: largest change, points", value) for key, value in moved.items()),
                    *elsewhere(evidence, c.largest)))


def elsewhere(evidence: Evidence, largest: float) -> list[tuple[str, float]]:
    """Beside P2a, not judged: the largest change by any of its losses and gradients at the table's other end
    times, where they are measured.
    """
    figures = []
    for row in ROWS:
        moved = []
        for t1, loss, gradient in product(TABLE_T1, UNSATURATED, ("exact", "adjoint")):
            with contextlib.suppress(Missing):
                by_factor = curve(evidence, row, t1, loss=loss, gradient=gradient)
                if t1 != OWN_T1[row] and 1.0 in by_factor:
                    moved += [abs(value - by_factor[1.0]) for s, value in by_factor.items() if s <= largest]
        if moved:
            figures.append((f"{row}, other end times, not judged: largest change, points", max(moved)))
    return figures


# -- the post's recipe -----------------------------------------------------------------------------

def recorded(evidence: Evidence, name: str) -> list:
    """All seeds of a run that have snapshots; Missing if none has."""
    found = [run for run in evidence.named(name) if getattr(run, "snapshots", ())]
    if not found:
        raise Missing([f"{name}: snapshots"])
    return found


def masked_where_reproduced(evidence: Evidence) -> Outcome:
    c, worst, seen = constants("P2b"), {}, {}
    runs, missing = so_far(partial(recorded, evidence), POST.values())
    for row, name in POST.items():
        t1, figure = OWN_T1[row], evidence.post(row, OWN_T1[row], "adversarial")
        for run in runs.get(name, ()):
            hidden, shown = (snapshots.values(run.snapshots, q, t1) for q in ("fgsm", "fgsm-margin"))
            there = [100 * shown[e] for e in hidden if e in shown and 100 * hidden[e] >= figure]
            label = f"{run.name}-seed{run.seed}"
            seen[label] = len(there)
            if there:
                worst[label] = max(there)
    figures = (
        *((f"{label}: snapshots at or above the post's figure", float(n)) for label, n in seen.items()),
        *((f"{label}: most left on the margin loss in these, %", value) for label, value in worst.items()),
    )
    if missing:
        return Outcome("P2b", OPEN, figures, missing)
    if not worst:
        return Outcome("P2b", OPEN, figures, ("a snapshot at or above the post's figure",))
    largest = max(worst.values())
    return Outcome("P2b", between(largest, largest < c.kept, largest > c.broken), figures)


def grows_with_training(evidence: Evidence) -> Outcome:
    c, t1 = constants("P3"), OWN_T1["small-10"]
    runs = [run for run in recorded(evidence, POST["small-10"]) if run.seed in c.seeds]
    absent = sorted(set(c.seeds) - {run.seed for run in runs})
    if absent:
        raise Missing([f"{POST['small-10']}: snapshots of seed {seed}" for seed in absent])
    figure = evidence.post("small-10", t1, "adversarial")
    correlation = statistics.fmean(rank_correlation(*zip(*snapshots.masked(run.snapshots, t1).items()))
                                   for run in runs)
    sample = [100 * v for run in runs
              for v in snapshots.second_half(snapshots.values(run.snapshots, "fgsm", t1))]
    low, high = (float(x) for x in np.percentile(sample, (5, 95)))
    outside = max(low - figure, figure - high, 0.0)
    outcome = between(correlation, correlation >= c.kept and outside == 0,
                      correlation < c.broken or outside > c.points)
    return Outcome("P3", outcome, (("rank correlation", correlation), ("band from, %", low),
                                   ("band to, %", high), ("the post, %", figure)))


def size_and_end_time(evidence: Evidence) -> Outcome:
    c = constants("P4")
    runs, missing = so_far(partial(recorded, evidence), POST.values())
    points = {row: snapshots.masked(runs[name][0].snapshots, OWN_T1[row])
              for row, name in POST.items() if name in runs}
    common = [epoch for epoch in c.epochs if points and all(epoch in found for found in points.values())]
    if not common:
        raise Missing(missing or [f"snapshots of all six rows at {min(c.epochs)} epochs"])
    at = {row: found[max(common)] for row, found in points.items()}
    pairs = [("large-100", "large-random"), ("large-random", "large-10"),
             *((f"large-{scheme}", f"small-{scheme}") for scheme in ("10", "random", "100"))]
    pairs = [pair for pair in pairs if at.keys() >= set(pair)]
    inversions = sum(at[more] <= at[less] for more, less in pairs)
    figures = (("epochs", float(max(common))), (f"inversions of {len(pairs)}", float(inversions)),
               *((f"{row}: masked points", value) for row, value in at.items()))
    if missing:
        return Outcome("P4", OPEN, figures, missing)
    if max(at[row] for row in ROWS if row.startswith("large")) < c.least:
        return Outcome("P4", OPEN, figures, (f"a large row with {c.least} masked points",))
    return Outcome("P4", between(inversions, inversions <= c.kept, inversions >= c.broken), figures)


CELLS = {"plain head, constant rate": "post", "plain head, falling rate": "post-cosine",
         "slow head, constant rate": "post-scaled", "slow head, falling rate": "post-scaled-cosine"}
CELL_EPOCHS = {"large-100": 2.0, "small-100": 6.0}


def cause_in_the_recipe(evidence: Evidence) -> Outcome:
    c = constants("P5")

    def cell(size: str, label: str) -> float:
        name, epochs = f"{size}-{CELLS[label]}", CELL_EPOCHS[size]
        found = snapshots.masked(recorded(evidence, name)[0].snapshots, 100.0)
        if epochs not in found:
            raise Missing([f"{name}: a snapshot at {epochs:g} epochs"])
        return found[epochs]

    found = evidence.every(cell, product(CELL_EPOCHS, CELLS))
    first = next(iter(CELLS))
    predicted = [value for (_, label), value in found.items() if label == first]
    others = [value for (_, label), value in found.items() if label != first]
    return Outcome("P5", between(0, max(predicted) > c.points >= max(others), max(others) > c.points),
                   tuple((f"{size}, {label}: masked points", value)
                         for (size, label), value in found.items()))


PGD_MARGIN = dict(attack="pgd", clip=True, pooling="fixed", gradient="exact", loss="margin", steps=40,
                  noise=None, momentum=None)


def no_protection(evidence: Evidence) -> Outcome:
    c = constants("P6")
    names = {**{POST[row]: OWN_T1[row] for row in ROWS}, "wide-standard-post": 1.0}
    found, missing = so_far(evidence.accuracies, names.items(), epsilon=c.epsilon, **PGD_MARGIN)
    most = {name: max(accuracies, key=lambda a: a.percent) for (name, _), accuracies in found.items()}
    seeds = {name: len(accuracies) for (name, _), accuracies in found.items()}
    figures = tuple((f"{name}, {seeds[name]} seed{'s' * (seeds[name] != 1)}: most left of "
                     f"{a.record['n']:,} images, %", a.percent) for name, a in most.items())
    if missing:
        return Outcome("P6", OPEN, figures, missing)
    largest = max(a.percent for a in most.values())
    return Outcome("P6", between(largest, largest < c.kept, largest > c.broken), figures)


def two_horizons(evidence: Evidence) -> Outcome:
    c, figures, apart = constants("P7"), [], []
    rows = [row for row in ROWS if row.startswith("small")]
    losses = {"cross-entropy": "cross-entropy", "rounded": "rounded by hand", "log-odds": "log odds"}
    look_up = lambda row, loss: evidence.accuracies(  # noqa: E731
        POST[row], OWN_T1[row], **RESCALED, gradient="adjoint", logit_scale=1.0, loss=loss)[0]
    found = evidence.every(look_up, product(rows, losses))
    for row in rows:
        run = found[row, "cross-entropy"].run
        if run.config["epochs"] < c.epochs:
            raise Missing([f"{POST[row]}: {run.config['epochs']} of {c.epochs} epochs"])
        apart.append(abs(found[row, "cross-entropy"].percent - found[row, "rounded"].percent))
        figures += [(f"{POST[row]}: {said}, %", found[row, loss].percent) for loss, said in losses.items()]
    worst = max(apart)
    return Outcome("P7", between(worst, worst <= c.kept, worst > c.broken), tuple(figures))


def second_climb(evidence: Evidence) -> Outcome:
    c, [run] = constants("P8"), recorded(evidence, POST["large-100"])
    early, late, last = {}, {}, 0.0
    for quantity in ("gap-50", "fgsm"):
        found = snapshots.values(run.snapshots, quantity, 100.0)
        last = max(found, default=0)
        if last < c.epochs:
            raise Missing([f"{run.name}: {last:g} of {c.epochs} epochs"])
        early[quantity] = statistics.mean(v for e, v in found.items() if c.first <= e <= c.before)
        late[quantity] = statistics.mean(v for e, v in found.items() if e > last - c.last)
    factor, points = late["gap-50"] / early["gap-50"], 100 * (late["fgsm"] - early["fgsm"])
    figures = (("epochs", last), ("factor of the gap", factor), ("points more left by one step", points))
    kept, broken = factor >= c.kept and points >= c.points, factor <= 1 and points <= 0
    return Outcome("P8", between(factor, kept, broken), figures)


RULES: dict[str, Callable[[Evidence], Outcome]] = {
    "P1": one_dial, "P2a": loss_not_network, "P2b": masked_where_reproduced, "P3": grows_with_training,
    "P4": size_and_end_time, "P5": cause_in_the_recipe, "P6": no_protection, "P7": two_horizons,
    "P8": second_climb,
}


def judge_predictions(evidence: Evidence) -> dict[str, Outcome]:
    """Every prediction's outcome; open, with the list of what is missing, where evidence lacks. P2b, P4 and
    P6 come with the figures of the networks that are there.
    """
    found = {}
    for name, rule in RULES.items():
        try:
            found[name] = rule(evidence.fresh())
        except Missing as missing:
            found[name] = Outcome(name, OPEN, (), tuple(dict.fromkeys(missing.what)))
    return found
