"""The front page's answers, each in a sentence or two and in words that a reader knows before the first chapter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from nodelib.chapters import state_records
from nodelib.experiment.artifacts import Run
from nodelib.experiment.measure_states import LOG_TIME
from nodelib.verdicts.states import SAME_CLASS, TURNING_SETTLED


def directions(frame: pd.DataFrame) -> str:
    """How many networks' directions have settled by t = 1000, from `nodelib.chapters.state_records.settling_frame`."""
    if not len(frame):
        return "That is not measured yet."
    late = frame.groupby("run", sort=False)["turning"].max()
    still = [name for name, time in late.items() if math.isinf(time)]
    count = len(late) - len(still)
    return (f"By t = 1000 the direction of the median image has stopped turning, or nearly (by less than {TURNING_SETTLED:g} radians while "
            f"time grows by a factor of e), in {count} of {len(late)} networks. {_listed(still)} still turn{'s' if len(still) == 1 else ''}."
            if still else f"By t = 1000 it has all but stopped turning in each of {len(late)} networks.")


def rest(runs: Sequence[Run]) -> str:
    """In which networks the directions of nearly all images come to rest when they are followed much further."""
    frame = state_records.ray_frame([run for run in runs if not run.config["leaky"]])
    if not len(frame):
        return "No network's states have been followed to their end yet."
    least = frame.groupby("run", sort=False)["on_a_ray"].min()
    come = [name for name, share in least.items() if share >= SAME_CLASS]
    moving = [name for name, share in least.items() if share < SAME_CLASS]
    longer = float(f"{math.exp(LOG_TIME):.2g}")
    said = f"Followed {longer:,.0f} times longer, "
    said += (f"at least {100 * SAME_CLASS:g} % of the images come to rest on a ray in {_listed(come)}" if come else "they come to rest in no network")
    late = _later(runs, moving)
    never = [name for name in moving if name not in late]
    if late and come:
        said += f"; in {_listed(late)} as many do later still"
    elif late:
        said += f" by then, and later still at least {100 * SAME_CLASS:g} % of the images in {_listed(late)}"
    return said + (f"; in {_listed(never)} they do not." if never and (come or late) else ".")


def _later(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Of some networks those in which nearly all images are on a ray once every one of their seeds has been followed further."""
    frame = state_records.far_frame(runs)
    seeds = {name: {run.seed for run in runs if run.name == name} for name in names}
    last = frame.sort_values("log_time").groupby(["run", "seed"])["share"].last()
    return [name for name in names if seeds[name] and all(last.get((name, seed), 0.0) >= SAME_CLASS for seed in seeds[name])]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
