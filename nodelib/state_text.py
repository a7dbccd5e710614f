"""What measured states say, as sentences for the prose of the chapters on states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from nodelib import state_records
from nodelib.artifacts import Run
from nodelib.claims.states import SAME_CLASS, TURNING_SETTLED
from nodelib.pair_text import KINDS, span

MOST = 0.9  # share of states at rest, or of images classified correctly, from which the prose speaks of all
ONE_STATE = 5.0  # degrees within which two directions count as one state, as for rays
REST = 0.01  # t |f| / |y|, the share of its size that a state moves in a unit of log time, below which it is at rest
FALLEN = 0.2  # accuracy under attack below which a network is said not to resist

UNMEASURED = "The states of the post's pair, trained to t = 1, are not measured yet."


def time(value: float) -> str:
    """An end time in words; infinity is "not by t = 1000"."""
    return "not by t = 1000" if math.isinf(value) else f"{value:.3g}"


def times(values: Iterable[float]) -> str:
    """One end time or the range of several, in words."""
    found = sorted(values)
    if math.isinf(found[-1]) and not math.isinf(found[0]):
        return f"{time(found[0])} in the best seed and {time(found[-1])} in the worst"
    return time(found[0]) if time(found[0]) == time(found[-1]) else f"{time(found[0])} to {time(found[-1])}"


def settling(frame: pd.DataFrame) -> str | None:
    """When the directions of the pair settle, from `nodelib.state_records.settling_frame`; None unless both are there."""
    found = {kind: frame[frame["run"] == f"wide-{kind}"]["turning"] for kind in KINDS}
    if not all(len(part) for part in found.values()):
        return None
    said = " and ".join(f"{'' if math.isinf(min(part)) else 'at t = '}{times(part)} after {kind} training"
                        for kind, part in found.items())
    if all(math.isinf(min(part)) for part in found.values()):
        said = f"by t = 1000 neither after {' nor after '.join(found)} training"
    return (f"In the post's pair the median image's centred direction settles, turning by less than {TURNING_SETTLED:g} radians per "
            f"unit of log time from then on, {said}.")


def told_apart(runs: Sequence[Run], t1: float = 1000.0) -> str | None:
    """How well the direction tells a 6 from a 4 in the pair at an end time; None unless both are measured."""
    shares, angles = ({kind: [v for run in runs if run.name == f"wide-{kind}"
                              and not math.isnan(v := state_records.value(run, name, label="6-4", t1=t1))] for kind in KINDS}
                      for name in ("nearest_class", "class_mean_angle"))
    if not all((*shares.values(), *angles.values())):
        return None
    said = " and ".join(f"in {span(100 * v for v in shares[kind])} % of images after {kind} training (mean states "
                        f"{span(angles[kind])} degrees apart)" for kind in KINDS)
    return f"At t = {t1:g} the nearest class direction tells a 6 from a 4 {said}."


def rays(frame: pd.DataFrame) -> str | None:
    """Rays of the pair, from `nodelib.state_records.ray_frame`; None where neither network has been followed to its rays."""
    found = {kind: frame[frame["run"] == f"wide-{kind}"] for kind in KINDS}
    if not any(len(part) for part in found.values()):
        return None
    said = "; ".join(f"after {kind} training {span(100 * part['on_a_ray'])} % of images end on a ray, and {span(part['single'])} "
                     f"of the ten classes on an attracting one that no other class shares" if len(part) else
                     f"after {kind} training this is not measured yet" for kind, part in found.items())
    return f"In the post's pair, {said}."


def at_rest(frame: pd.DataFrame) -> str:
    """In which networks directions come to rest, from `nodelib.state_records.ray_frame`: share of images per run."""
    if not len(frame):
        return "No network's states have been followed to their end yet."
    shares: dict[str, list[str]] = {}
    for row in frame.sort_values("on_a_ray", ascending=False, kind="stable").itertuples():
        shares.setdefault(f"{100 * row.on_a_ray:.0f} %", []).append(f"{row.run} (seed {row.seed})")
    said = "; ".join(f"{share} in {', '.join(names)}" for share, names in shares.items())
    return f"Share of images whose direction comes to rest: {said}."


def shared(runs: Sequence[Run]) -> str:
    """Runs in which the classes have no steady state of their own because all end on one and the same ray."""
    said = []
    for run in runs:
        shares = [state_records.value(run, "ray_share", label=str(digit), statistic="mean") for digit in range(10)]
        if state_records.value(run, "distinct_attractors", statistic="count") == 1 and min(shares) >= SAME_CLASS:
            said.append(f"In {run.name} (seed {run.seed}) all ten classes end on one and the same "
                        f"{'equilibrium' if run.config['leaky'] else 'ray'}: a steady state, and not one per class. What tells the "
                        f"classes apart at a finite time is the way there.")
    return " ".join(said) or "In no network measured do all ten classes end on one and the same ray."


def leaky(runs: Sequence[Run]) -> str:
    """Equilibria of the leaky controls, as far as they are measured."""
    controls = [run for run in runs if run.config["leaky"]]
    rows, late = state_records.ray_frame(controls), state_records.late_frame(controls)
    if not len(rows):
        return "No leaky control is measured yet."
    said = []
    for row in rows.itertuples():
        words = (f"in {row.run} (seed {row.seed}) {100 * row.on_a_ray:.0f} % of images end at an equilibrium, and {row.single} of "
                 f"the ten classes at an attracting one that no other class shares")
        accuracy = late[(late["run"] == row.run) & (late["seed"] == row.seed)]["accuracy_1000"]
        if len(accuracy.dropna()):
            words += f"; its accuracy at t = 1000 is {100 * accuracy.iloc[0]:.1f} %"
        said.append(words)
    return ". ".join(s[0].upper() + s[1:] for s in said) + "."


def pulled(frame: pd.DataFrame, name: str = "wide-adversarial") -> str | None:
    """Where attacked images of a run end, from `nodelib.state_records.attacked_frame`; None where not measured."""
    rows = {t1: frame[(frame["run"] == name) & (frame["t1"] == t1)] for t1 in (1.0, 1000.0)}
    if not all(len(part) for part in rows.values()):
        return None
    early, late = rows[1.0], rows[1000.0]
    return (f"In {name}, {span(100 * early['attacked'])} % of attacked images are nearest to their own class at t = 1 and "
            f"{span(100 * late['attacked'])} % at t = 1000; the angle to the clean image's direction goes from "
            f"{span(early['angle'])} to {span(late['angle'])} degrees.")


def come_to_rest(runs: Sequence[Run]) -> str:
    """Which stored runs without the last normalisation are at rest at t = 1000, and what it brings them; may be empty."""
    said = []
    for row in state_records.late_frame([run for run in runs if not run.config["last_norm"]]).itertuples():
        run = next(run for run in runs if (run.name, run.seed) == (row.run, row.seed))
        attacked = _under_attack(run)
        if row.pace <= REST:
            said.append(f"Without its last normalisation a network's states do come to rest ({row.run}, seed {row.seed}): "
                        f"{100 * row.accuracy_1000:.1f} % of {row.n} images are still classified correctly at t = 1000"
                        + (f", and PGD of ten steps leaves {100 * attacked['accuracy']:.1f} % of {attacked['n']:,} at "
                           f"t = {attacked['t1']:g}" if attacked else "") + ".")
    return " ".join(said)


def rest(run: Run | None, found: tuple[float, float, float, float, float] | None) -> str:
    """What a network without the last normalisation says of rest, classes and robustness.

    Args:
        run: the stored run, or None.
        found: at the latest time followed: the time, the share of images whose velocity is exactly zero, the
            accuracy there, and the mean angles in degrees within and across classes; or None.
    """
    if run is None or found is None:
        return "Whether states come to rest without the last normalisation is not measured yet."
    time, still, right, within, across = found
    said = [f"At t = {time:,.0f} the velocity of {100 * still:.0f} % of the states is exactly zero, and the head classifies "
            f"{100 * right:.1f} % of the images correctly."]
    if still >= MOST:
        said.append("This is a steady state in the strict sense, and where the classes are still told apart an accuracy that "
                    "lasts for ever." if right >= MOST else "This is a steady state in the strict sense, and not a useful one.")
        said.append(f"It is not one state per class: two images of a class end {within:.0f} degrees apart, two of different "
                    f"classes {across:.0f}, each where it happened to stop." if within > ONE_STATE else
                    f"Images of a class end {within:.0f} degrees apart.")
    else:
        said.append("So most states are still on their way.")
    attacked = _under_attack(run)
    if attacked:
        said.append(f"Under PGD of ten steps with the exact gradient, epsilon {attacked['epsilon']:g}, {attacked['n']:,} images, "
                    f"it keeps {100 * attacked['accuracy']:.1f} % at t = {attacked['t1']:g}"
                    + (": states that come to rest do not make a network robust, for the attack moves the image before "
                       "the state sets out." if still >= MOST and attacked["accuracy"] < FALLEN else "."))
    return " ".join(said)


def _under_attack(run: Run) -> dict | None:
    """PGD-10 with the exact gradient at the latest end time at which it is measured."""
    found = [r for r in run.metrics if r["id"].startswith("pgd10-exact-t")]
    return max(found, key=lambda r: r["t1"], default=None)
