"""Figures of states: still strips of films, motion over time, class separation."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nodelib import dynamics
from nodelib.dynamics import QUANTITIES, Paths
from nodelib.publish import style
from nodelib.publish.style import DASHES, GREY, MARKERS, colour, legend_above, panels

LOGARITHMIC = {"norm", "relative_speed", "turning", "speed", "ray_distance"}


@style.style()
def strip(films: Mapping[str, np.ndarray], times: Sequence[float], shown: Sequence[int]) -> Figure:
    """Frames of films as stills, one row per film.

    films: title -> frames without a clock, uint8, shape (T, H, W), all of one length; times: the T end times;
    shown: indices of the frames to print.
    """
    figure, axes = panels(len(films) * len(shown), columns=len(shown), height=7.2 / len(shown) + 0.12)
    for row, (title, frames) in enumerate(films.items()):
        for column, k in enumerate(shown):
            axis = axes[row * len(shown) + column]
            axis.imshow(frames[k], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(f"$t = {times[k]:g}$", fontsize=9)
        axes[row * len(shown)].set_ylabel(title, fontsize=8)
    return figure


@style.style()
def motion(paths: Mapping[str, Paths], quantities: Sequence[str] = tuple(QUANTITIES)) -> Figure:
    """Quantities against time on a logarithmic axis: the median over images, and the band from 10 to 90 %.

    paths: run -> its paths; quantities: names of `Paths.values`, "_centred" for without the common drift.
    """
    figure, axes = panels(len(quantities), columns=2, height=2.5, sharex=True, xlabel="time $t$")
    for axis, quantity in zip(axes, quantities):
        for name, path in paths.items():
            later = path.times > 0
            low, middle, high = np.percentile(path.values[quantity][later], (10, 50, 90), axis=1)
            data = pd.DataFrame({"t": path.times[later], "low": low, "middle": middle, "high": high})
            style.banded(axis, data, "t", "middle", colour(name), label=name,
                         dashes=DASHES[name] or (None, None))
        base = quantity.removesuffix("_centred")
        label = ("" if base == quantity else "centred ") + QUANTITIES[base]
        axis.set(xscale="log", yscale="log" if base in LOGARITHMIC else "linear")
        axis.set_ylabel(f"{label})".replace(", ", "\n(", 1) if "," in label else label)
    legend_above(figure, axes[:1])
    return figure


@style.style()
def accuracy(paths: Mapping[str, Paths], ends: Mapping[str, tuple[float, float]]) -> Figure:
    """Clean accuracy against end time; above it `ends`, low and high of each network's training end time."""
    figure, (axis,) = panels(1, height=3.6, width=style.NARROW)
    for name, path in paths.items():
        later = path.times > 0
        axis.plot(path.times[later], 100 * path.accuracy[later], color=colour(name), label=name,
                  dashes=DASHES[name] or (None, None))
        axis.plot(ends[name], [103, 103], color=colour(name), marker="v", markersize=4, linewidth=2,
                  clip_on=False)
    axis.set(xscale="log", ylim=(0, 103), xlabel="end time $t_1$", ylabel="clean accuracy (%)")
    axis.axhline(10, color=GREY, linewidth=0.8, linestyle=":")
    legend_above(figure, [axis], 2)
    return figure


def separation_frame(paths: Mapping[str, Paths]) -> pd.DataFrame:
    """Class separation of the second half of the images, by directions and a probe fitted to the first."""
    rows = []
    for name, path in paths.items():
        for t1, unit in path.kept.items():
            half = len(unit) // 2
            reference, judged = (unit[:half], path.labels[:half]), (unit[half:], path.labels[half:])
            values = {"nearest class": dynamics.nearest_class(reference, *judged).double().mean(),
                      "linear probe": dynamics.linear_probe(reference, *judged).double().mean(),
                      "silhouette": dynamics.silhouette(*judged).mean()}
            rows += [{"run": name, "t1": t1, "measure": measure, "value": float(value)}
                     for measure, value in values.items()]
    return pd.DataFrame(rows, columns=["run", "t1", "measure", "value"])


@style.style()
def separation(frame: pd.DataFrame) -> Figure:
    """Class separation against time, one panel per measure: see `separation_frame`."""
    measures = frame.groupby("measure", sort=False)
    figure, axes = panels(len(measures), ylabel="share of images", sharex=True)
    for axis, (measure, here) in zip(axes, measures):
        for name, part in here.groupby("run", sort=False):
            axis.plot(part["t1"], part["value"], color=colour(name), marker=MARKERS[name], markersize=4,
                      dashes=DASHES[name] or (None, None), label=name)
        axis.set(xscale="log", xlabel="time $t$", title=measure)
        if measure != "silhouette":
            axis.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
            axis.set_ylim(0, 1.02)
    legend_above(figure, axes[:1])
    return figure
