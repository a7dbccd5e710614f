"""Figures of states: still strips of films, motion over time, class separation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nodelib import dynamics
from nodelib.dynamics import QUANTITIES, Paths
from nodelib.publish.style import DASHES, GREY, MARKERS, RUNS, colour, legend_above, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGARITHMIC = {"norm", "relative_speed", "turning", "speed", "ray_distance"}


def strip(films: Mapping[str, np.ndarray], times: Sequence[float], shown: Sequence[int]) -> Figure:
    """Frames of films as stills, one row per film.

    Args:
        films: title -> frames without a clock, uint8, shape (T, H, W), all of one length.
        times: the T end times; shown: indices of the frames to print.
    """
    with style():
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


def motion(paths: Mapping[str, Paths], quantities: Sequence[str] = tuple(QUANTITIES)) -> Figure:
    """Quantities against time on a logarithmic axis: the median over images, and the band from 10 to 90 %.

    Args:
        paths: run -> its paths, see `nodelib.dynamics.follow`.
        quantities: names of `Paths.values`; "_centred" at the end means without the common drift.
    """
    with style():
        figure, axes = panels(len(quantities), columns=2, height=2.5, sharex=True)
        for axis, quantity in zip(axes, quantities):
            for name, path in paths.items():
                later = path.times > 0
                low, middle, high = np.percentile(path.values[quantity][later], (10, 50, 90), axis=1)
                axis.fill_between(path.times[later], low, high, color=colour(name), alpha=0.2, linewidth=0)
                axis.plot(path.times[later], middle, color=colour(name), dashes=DASHES[name] or (None, None),
                          label=name)
            base = quantity.removesuffix("_centred")
            label = (_wrapped(QUANTITIES[base]) if base == quantity
                     else f"centred {_wrapped(QUANTITIES[base])}")
            axis.set(xscale="log", yscale="log" if base in LOGARITHMIC else "linear", ylabel=label)
        for axis in axes[-2:]:
            axis.set_xlabel("time $t$")
        legend_above(figure, axes[:1])
    return figure


def accuracy(paths: Mapping[str, Paths], ends: Mapping[str, tuple[float, float]]) -> Figure:
    """Clean accuracy against end time, with the training end times of each network as a grey mark.

    Args:
        paths: run -> paths; ends: run -> (low, high) of its training end time.
    """
    with style():
        figure, (axis,) = panels(1, height=2.8)
        for name, path in paths.items():
            later = path.times > 0
            axis.plot(path.times[later], 100 * path.accuracy[later], color=colour(name),
                      dashes=DASHES[name] or (None, None),
                      label=name)
            low, high = ends[name]
            axis.plot([low, high], [103, 103], color=colour(name), marker="v", markersize=4, linewidth=2,
                      clip_on=False)
        axis.set(xscale="log", ylim=(0, 103), xlabel="end time $t_1$", ylabel="clean accuracy (%)")
        axis.axhline(10, color=GREY, linewidth=0.8, linestyle=":")
        axis.legend()
    return figure


def separation_frame(paths: Mapping[str, Paths]) -> pd.DataFrame:
    """Class separation of the centred directions: columns run, t1, measure, value.

    The first half of the images gives the class directions and the fit of the probe; the other half is
    judged.
    """
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


def separation(frame: pd.DataFrame) -> Figure:
    """Class separation against time, one panel per measure: see `separation_frame`."""
    with style():
        measures = list(dict.fromkeys(frame["measure"]))
        figure, axes = panels(len(measures), height=2.6, sharex=True)
        for axis, measure in zip(axes, measures):
            for name, part in frame[frame["measure"] == measure].groupby("run", sort=False):
                axis.plot(part["t1"], part["value"], color=RUNS[name], marker=MARKERS[name], markersize=4,
                          dashes=DASHES[name] or (None, None), label=name)
            axis.set(xscale="log", xlabel="time $t$", title=measure)
            if measure != "silhouette":
                axis.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
                axis.set_ylim(0, 1.02)
        axes[0].set_ylabel("share of images")
        legend_above(figure, axes[:1])
    return figure


def _wrapped(text: str) -> str:
    head, _, tail = text.partition(", ")
    return f"{head}\n({tail})" if tail else head
