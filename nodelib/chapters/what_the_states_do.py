"""Tables and the figure of what measured states do: rays, late velocities, attacked images."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nodelib.chapters.state_records import at
from nodelib.experiment.configs import PAIR, ROWS
from nodelib.publish.page import markdown_table
from nodelib.publish.style import BLUE, GREY, VERMILLION, panels, style
from nodelib.verdicts.states import RESIDUAL

FURTHER = (20.0, 40.0, 80.0, 640.0)  # units of log time of which `further` tells


@style()
def class_angles(angles: Mapping[str, Mapping[float, tuple[float, float]]]) -> Figure:
    """Mean angles against time: network -> time -> (within, across classes) in degrees."""
    figure, axes = panels(len(angles), columns=2, height=2.8, sharey=True, ylabel="mean angle (degrees)")
    for axis, (name, found) in zip(axes, angles.items()):
        times = list(found)
        within, across = zip(*found.values())
        axis.plot(times, across, "s--", color=VERMILLION, label="different classes")
        axis.plot(times, within, "o-", color=BLUE, label="same class")
        axis.axvline(1000, color=GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="time $t$", title=name)
    axes[0].legend()
    return figure


def front(frame: pd.DataFrame) -> pd.Series:
    """Which rows of a frame are of the first seed of the post's eight networks; a page folds the others."""
    return frame["run"].isin((*ROWS, *PAIR)) & ~frame["run"].duplicated()


def number(value: float, digits: int = 2, unit: str = "") -> str | None:
    """A number in words; None, which a table shows as a dash, for one that is missing."""
    return None if value != value else f"{round(value, digits) + 0:.{digits}f}{unit}"


def name(run: str, seed: int) -> str:
    """What a table calls a network: by its seed, too, where that is not the first."""
    return f"{run}, seed {seed}" if seed else run


def ends(rays: pd.DataFrame) -> Any:
    """Where images end, from `nodelib.chapters.state_records.ray_frame`; no eigenvalue without a ray."""
    return markdown_table(
        ["network:", "images on a ray", "rays reached", "largest real part", "Lyapunov exponent"],
        [(name(r.run, r.seed), f"{r.on_a_ray * r.n:.0f} of {r.n}", f"{r.distinct:.0f}",
          number(r.eigenvalue) if r.residual <= RESIDUAL else None,
          number(r.exponent) and f"{r.exponent:.2f} ± {2 * r.standard_error:.2f}")
         for r in rays.itertuples()])


def further(later: pd.DataFrame) -> Any:
    """Images on a ray ever later in log time, from `nodelib.chapters.state_records.far_frame`."""
    rows = []
    for (run, seed), part in later.groupby(["run", "seed"], sort=False):
        last = part.iloc[-1]
        shares = (100 * at(part, "share", log_time=log_time) for log_time in FURTHER)
        rows.append((name(run, seed), last["n"], *(number(share, 0, " %") for share in shares),
                     f"{last['rays']:.0f}", number(last["attracting"], 0)))
    headers = ["network:", "images", *(f"{log_time:g}" for log_time in FURTHER), "rays", "attracting"]
    return markdown_table(headers, rows)


def late(states: pd.DataFrame) -> Any:
    """What states do late, from `nodelib.chapters.state_records.late_frame`."""
    return markdown_table(
        ["network:", "exponent of the norm", "turn of v", "without drift", "accuracy at 100", "at 1000"],
        [(name(r.run, r.seed), number(r.exponent),
          number(r.velocity_angle, 1), number(r.velocity_angle_centred, 1),
          number(100 * r.accuracy_100, 1), number(100 * r.accuracy_1000, 1)) for r in states.itertuples()])


def attacked(frame: pd.DataFrame) -> Any:
    """Where attacked images go, from `nodelib.chapters.state_records.attacked_frame`."""
    return markdown_table(
        ["network:", "t", "clean", "attacked", "angle", "over that of 6 and 4"],
        [(r.run, f"{r.t1:g}", number(100 * r.clean, 0, " %"), number(100 * r.attacked, 0, " %"),
          number(r.angle, 1), number(r.relative)) for r in frame.itertuples()])
