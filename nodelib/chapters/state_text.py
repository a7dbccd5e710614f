"""What measured motion and class separation say, as sentences for the prose of the chapters on states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from nodelib import dynamics
from nodelib.chapters import state_records
from nodelib.chapters.pair_text import KINDS, span
from nodelib.experiment.artifacts import Run
from nodelib.statistics import wilson
from nodelib.verdicts.end_time import ROWS
from nodelib.verdicts.states import (
    ADVERSARIAL,
    CLASS_GAP,
    LINEAR,
    PERSISTENT,
    SAME_CLASS,
    SMALL_ANGLE,
    SMALL_CHANGE,
    STANDARD,
    TURNING_SETTLED,
)

STEADIER = 1.5  # factor between two turnings from which the prose calls one state the steadier, and
EQUAL = 1.1  # up to which it calls them equal
NEARLY = 1.5  # factor of the threshold up to which a turning nearly counts as settled
LAST = 1000.0  # the last end time measured
NETWORKS = (*ROWS, STANDARD, ADVERSARIAL)  # of the post: its table's rows and its pair

UNMEASURED = "The states of the post's pair, trained to t = 1, are not measured yet."


def time(value: float) -> str:
    """An end time in words; infinity is "not by t = 1000"."""
    return "not by t = 1000" if math.isinf(value) else f"{float(f'{value:.3g}'):g}"


def times(values: Iterable[float]) -> str:
    """One end time or the range of several, in words."""
    found = sorted(values)
    if math.isinf(found[-1]) and not math.isinf(found[0]):
        return f"{time(found[0])} in the best seed and {time(found[-1])} in the worst"
    return time(found[0]) if time(found[0]) == time(found[-1]) else f"{time(found[0])} to {time(found[-1])}"


def directions(frame: pd.DataFrame) -> str:
    """In which networks directions settle, from `nodelib.chapters.state_records.settling_frame`: one sentence for all of them."""
    if not len(frame):
        return "When the direction settles is not measured in any network yet."
    found = {name: part["turning"].tolist() for name, part in frame.groupby("run", sort=False)}
    settled = sorted((name for name in found if not math.isinf(max(found[name]))), key=lambda name: max(found[name]))
    moving = ", ".join(name for name in found if name not in settled)
    said = ", ".join(f"{name} ({'only at the last time, ' if max(found[name]) >= LAST else ''}at t = {times(found[name])})" for name in settled)
    if moving:
        said += f" and not in {moving}" if settled else f"none of {moving}"
    return (f"The direction of the median image, without the drift that all images share, settles by t = 1000 in {said} "
            f"({_SETTLED}).")


_SETTLED = f"settled: from then on it turns by less than {TURNING_SETTLED:g} radians for every factor e in time"


def settling(frame: pd.DataFrame) -> str | None:
    """When the directions of the pair settle, from `nodelib.chapters.state_records.settling_frame`; None unless both are there."""
    found = {kind: frame[frame["run"] == f"wide-{kind}"]["turning"] for kind in KINDS}
    if not all(len(part) for part in found.values()):
        return None
    if all(math.isinf(min(part)) for part in found.values()):
        late = {kind: frame[frame["run"] == f"wide-{kind}"]["turning_1000"].dropna() for kind in KINDS}
        near = (f"; it turns there by {span(late['adversarial'])} radians per unit of log time after adversarial and by "
                f"{span(late['standard'])} after standard training, where {TURNING_SETTLED:g} would count as settled"
                if all(map(len, late.values())) else "")
        close = near and max(max(part) for part in late.values()) <= NEARLY * TURNING_SETTLED
        return ("In the post's pair the direction of the median image does not settle by t = 1000, after either training"
                f"{near}{', so that the answer hangs on where we stop' if close else ''}.")
    said = " and ".join(f"{'' if math.isinf(min(part)) else 'at t = '}{times(part)} after {kind} training"
                        for kind, part in found.items())
    return f"In the post's pair the direction of the median image settles {said}."


def window(runs: Sequence[Run]) -> str | None:
    """How fast the pair's directions turn within the post's first films, and later; None unless both are measured."""
    ends = (1.0, 10.0, 100.0, 1000.0)
    turning = {kind: [_pair(runs, kind, "turning", part="centred", t1=t1) for t1 in ends] for kind in KINDS}
    right = {kind: _pair(runs, kind, "state_accuracy", t1=10.0) for kind in KINDS}
    if not all((*turning["adversarial"], *turning["standard"], *right.values())):
        return None
    listed = [f"by {', '.join(map(span, turning[kind][:-1]))} and {span(turning[kind][-1])} after {kind} training"
              for kind in KINDS]
    sure = {kind: "" for kind in KINDS}
    for kind in KINDS:
        stored = [r for run in runs if run.name == f"wide-{kind}" and (r := state_records.look_up(run, "state_accuracy", t1=10.0))]
        if len(stored) == 1:
            low, high = wilson(round(stored[0]["value"] * stored[0]["n"]), stored[0]["n"])
            sure[kind] = f" [{100 * low:.1f}, {100 * high:.1f}] of {stored[0]['n']} images"
    said = (f"At t = 1, 10, 100 and 1000 the centred direction turns {' and '.join(listed)}, in radians per unit of log time. At "
            f"t = 10, where the post's first films end, the head is right for "
            f"{' and '.join(f'{100 * min(right[kind]):.1f} %{sure[kind]}' for kind in KINDS)} (adversarial and standard).")
    (_, early, later, _), (_, other, then, _) = turning["adversarial"], turning["standard"]
    if STEADIER * max(early) <= min(other):
        said += " What the post saw holds there: the adversarially trained state turns less"
        if min(later) > max(early):
            said += f". But it turns faster again later ({span(later)} at t = 100)"
        said += ("; at t = 100 the two turn equally fast." if max(*later, *then) <= EQUAL * min(*later, *then) else ".")
    return said


def told_apart(runs: Sequence[Run], t1: float = 1000.0) -> str | None:
    """How well the direction tells a 6 from a 4 in the pair at an end time; None unless both are measured."""
    shares, angles = ({kind: _pair(runs, kind, name, label="6-4", t1=t1) for kind in KINDS}
                      for name in ("nearest_class", "class_mean_angle"))
    if not all((*shares.values(), *angles.values())):
        return None
    said = []
    for kind in KINDS:
        counts = [r["n"] for run in runs if run.name == f"wide-{kind}"
                  and (r := state_records.look_up(run, "nearest_class", label="6-4", t1=t1))]
        low, high = wilson(round(shares[kind][0] * counts[0]), counts[0])
        sure = f" [95 %: {100 * low:.1f} to {100 * high:.1f}]" if len(counts) == 1 else ""
        said.append(f"in {span(100 * v for v in shares[kind])} % of {span(counts)} images{sure} after {kind} training "
                    f"(mean states, drift included, {span(angles[kind])} degrees apart)")
    return f"At t = {t1:g} the nearest mean direction tells a 6 from a 4 (chance: 50 %) {' and '.join(said)}."


def readable(runs: Sequence[Run], t1: float = 1000.0) -> str | None:
    """In which networks directions still tell the classes apart where the head fails; None if in none."""
    said = []
    for run in state_records.plain(runs):
        near, head = (state_records.look_up(run, name, t1=t1, statistic="mean") for name in ("nearest_class", "state_accuracy"))
        if near and head and near["value"] >= SAME_CLASS and near["value"] - head["value"] >= CLASS_GAP:
            said.append(f"for {100 * near['value']:.1f} % of {near['n']} images and the head for {100 * head['value']:.1f} % of "
                        f"{head['n']} in {run.name} (seed {run.seed})")
    return (f"Directions can still tell the classes apart where the head has lost part of them: at t = {t1:g} the nearest class is "
            f"right {', '.join(said)}.") if said else None


def constant(frame: pd.DataFrame, judged: str = ADVERSARIAL) -> str:
    """Where the norm grows linearly and the velocity keeps its direction, from `nodelib.chapters.state_records.late_frame`; may be empty.

    By the thresholds of claim C16, which judges one network only.
    """
    here = frame[frame["exponent"].between(*LINEAR) & (frame["velocity_angle"] <= SMALL_ANGLE)
                 & (frame["velocity_angle_centred"] <= SMALL_ANGLE)]
    names = list(dict.fromkeys(here["run"]))
    if not names:
        return ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    said = (f"In {listed} the norm grows in proportion to time and the velocity keeps its direction within {SMALL_ANGLE:g} degrees, with the "
            f"drift and without: that is what claim C16 describes")
    return said + ("." if judged in names else f", though not in {judged}, of which the post says it." if judged in set(frame["run"]) else ".")


def forced(runs: Sequence[Run]) -> str:
    """By how much of its norm the common drift alone moves a state from t = 100 to 500, in the networks that C13 judges."""
    shares = {}
    for run in runs:
        size = state_records.value(run, "norm", t1=100.0) if run.name in PERSISTENT else math.nan
        if not math.isnan(size):
            drift = dynamics.common_drift(run.load_model().block.func, run.config["size"])
            shares.setdefault(run.name, []).append(400 * float(dynamics.norm(drift.velocity)) / size)
    if not shares:
        return "How far the common drift alone moves their states is not measured yet."
    least = min(map(min, shares.values()))
    said = f"The common drift alone moves the median state of {', '.join(shares)} by {span(v for of in shares.values() for v in of)} of its norm in that time"
    return said + (", so that none of them could meet that, whatever it does besides." if least > SMALL_CHANGE else ".")


def pulled(frame: pd.DataFrame, name: str = ADVERSARIAL) -> str | None:
    """Where attacked images of a run end, from `nodelib.chapters.state_records.attacked_frame`; None where not measured."""
    rows = {t1: frame[(frame["run"] == name) & (frame["t1"] == t1)] for t1 in (1.0, 1000.0)}
    if not all(len(part) for part in rows.values()):
        return None
    early, late = rows[1.0], rows[1000.0]
    said = (f"In {name}, {span(100 * early['attacked'])} % of attacked images are nearest to their own class at t = 1 and "
            f"{span(100 * late['attacked'])} % at t = 1000, of clean images {span(100 * early['clean'])} and "
            f"{span(100 * late['clean'])} %; the angle to the clean image's direction goes from "
            f"{span(early['angle'])} to {span(late['angle'])} degrees.")
    if not (early["relative"].isna().any() or late["relative"].isna().any()):
        said += (f" The angle between the mean states of a 6 and a 4, drift included, shrinks by "
                 f"{'more' if min(late['relative']) > max(early['relative']) else 'less'} meanwhile: all directions draw together.")
    return said


def fooled(frame: pd.DataFrame) -> str:
    """Whether images that fooled a network are pulled back to their own class, from `nodelib.chapters.state_records.fooled_frame`."""
    said = []
    for (name, seed), part in frame.groupby(["run", "seed"], sort=False):
        early, late = part.iloc[0], part.iloc[-1]
        own = [int(round(row["own"] * row["n"])) for row in (early, late)]
        low, high = (100 * bound for bound in wilson(own[1], int(late["n"])))
        said.append(f"of {late['n']:.0f} images that fooled {name}, {100 * early['own']:.0f} % are nearest to their own class at t = {early['t1']:g} and "
                    f"{100 * late['own']:.0f} % [{low:.0f} to {high:.0f}] at t = {late['t1']:g}; nearest to the class predicted at "
                    f"t = {early['t1']:g} are {100 * early['said']:.0f} %, then {100 * late['said']:.0f} %")
    return f"Only where the attack succeeded: {'; '.join(said)}." if said else "Images that fooled the network have not been followed alone."


def _pair(runs: Sequence[Run], kind: str, name: str, **conditions: object) -> list[float]:
    """A measurement of all seeds of one of the pair that have it."""
    found = (state_records.value(run, name, **conditions) for run in runs if run.name == f"wide-{kind}")
    return [v for v in found if not math.isnan(v)]
