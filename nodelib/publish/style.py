"""The book's one figure style: fonts, grid, and a fixed colour for every network, data set and method.

    with style.style():
        figure = style.lines(data, x="t1", y="error", hue="method")
    save_figure(figure, "adjoint-error.svg")

Functions take tidy data (one row per observation, a pandas DataFrame) and return a matplotlib Figure, which
`nodelib.publish.page.save_figure` writes. The colours are those of Okabe and Ito (2008) and darker or lighter
shades of them, told apart by readers with the common kinds of colour blindness; marker or dash repeats
what colour says wherever more than four lines share a panel.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import NAMES, PAIR, ROWS

BLUE, SKY, ORANGE, GREEN, VERMILLION, PURPLE, BLACK = (
    "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000")
GREY = "#666666"
WIDTH = 7.2  # inches: the width of the text
NARROW = 4.6  # of a figure that a phone shows whole, class "whole": words of 9 points are 9 pixels there

# Hue: the training end time (blue 10, orange 10 to 100, green 100) or kind of training; dark: the large
# network.
RUNS: dict[str, str] = {
    "small-10": SKY, "small-random": ORANGE, "small-100": "#4DC3A1",
    "large-10": "#00507D", "large-random": "#9A5B00", "large-100": "#00674B",
    "wide-standard": BLUE, "wide-adversarial": VERMILLION,
    "resnet-6": BLACK, "resnet-1": GREY, "resnet-0": "#A0A0A0",
}
# A control has the colour of the run it varies, and another dash.
_CONTROLS = {
    "small-100-adjoint": ("small-100", (4, 1.5)), "large-100-adjoint": ("large-100", (4, 1.5)),
    "small-100-short": ("small-100", (1, 3)), "large-100-short": ("large-100", (1, 3)),
    "small-10-tight": ("small-10", (4, 1.5)), "small-100-leaky": ("small-100", (1, 1)),
    "wide-standard-leaky": ("wide-standard", (1, 1)), "wide-adversarial-leaky": ("wide-adversarial", (1, 1)),
    "small-100-nolast": ("small-100", (4, 1, 1, 1)),
    "wide-adversarial-plain": ("wide-adversarial", (4, 1.5)),
    "small-100-unscaled": ("small-100", (6, 1, 1, 1, 1, 1)),
    "small-10-scaled": ("small-10", (6, 1, 1, 1, 1, 1)), "small-10-rays": ("small-10", (1, 1)),
    # by the post's recipe, and its own controls
    **{f"{name}-post": (name, (8, 2)) for name in (*ROWS, *PAIR)},
    **{f"{row}-post-{kind}": (row, dash) for row in ("small-100", "large-100")
       for kind, dash in (("cosine", (8, 2, 2, 2)), ("scaled", (8, 2, 1, 1)),
                          ("scaled-cosine", (8, 2, 1, 1, 1, 1)))},
    "small-10-post-ones": ("small-10", (2, 2)), "small-100-post-adjoint": ("small-100", (2, 2)),
    "large-100-warm": ("large-100", (2, 2)),
    "wide-adversarial-further": ("wide-adversarial", (2, 2)),
    "large-100-post-adjoint": ("large-100", (2, 2, 8, 2)),
    "resnet-1-scaled": ("resnet-1", (6, 1, 1, 1, 1, 1)),
    "small-100-slow-rate": ("small-100", (8, 1, 1, 1)), "small-100-small-start": ("small-100", (8, 1, 8, 3)),
    "small-10-brief": ("small-10", (1, 3)),
}
RUNS.update({name: RUNS[parent] for name, (parent, _) in _CONTROLS.items()})
DASHES: dict[str, tuple] = {name: _CONTROLS[name][1] if name in _CONTROLS else () for name in NAMES}
MARKERS: dict[str, str] = dict(zip(NAMES, itertools.cycle("osDosD^v<><>8hhHpdPX*")))

METHODS: dict[str, str] = {
    "exact": BLUE, "backprop": BLUE, "adjoint": VERMILLION, "anchored": GREEN, "scaled": PURPLE,
    "own tolerance": ORANGE,
    "reference": BLACK, "ODE": BLUE, "RNN": VERMILLION, "Euler": ORANGE, "dopri5": BLUE,
}
ATTACKS: dict[str, str] = {"clean": BLUE, "FGSM": ORANGE, "PGD": VERMILLION}

_PARAMETERS: Any = {
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans", "font.size": 9.5, "axes.titlesize": 10, "axes.labelsize": 9.5,
    "legend.fontsize": 9, "legend.frameon": False, "legend.title_fontsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#444444", "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "lines.linewidth": 1.6, "lines.markersize": 5,
    "figure.facecolor": "white", "axes.facecolor": "white",  # opaque: readable on a dark page too
    "image.cmap": "cividis",
    "axes.prop_cycle": cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY]),
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the book's style inside this context."""
    with matplotlib.rc_context(_PARAMETERS):
        yield


def use_style() -> None:
    """Draw in the book's style from here on: once at the top of a chapter."""
    matplotlib.rcParams.update(_PARAMETERS)


def colour(run: str) -> str:
    """The colour of a named run, the same on every page.

    Raises:
        ValueError: unknown run; the message lists the known ones.
    """
    if run not in RUNS:
        raise ValueError(f"unknown run {run!r}; runs with a colour are {', '.join(RUNS)}")
    return RUNS[run]


def scientific(value: float) -> str:
    """A small or large number for the prose, such as "2 × 10⁻⁹"."""
    mantissa, exponent = f"{value:.0e}".split("e")
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"{mantissa} × 10" + str(int(exponent)).translate(raised)


def panels(count: int, *, columns: int = 3, height: float = 2.6, width: float = WIDTH, xlabel: str = "",
           ylabel: str = "", **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` equal panels in rows of at most `columns`; height in inches per row.

    xlabel stands below the last panel of every column, ylabel beside the first of every row. `options` go to
    `matplotlib.pyplot.subplots`, such as sharex or sharey.
    """
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False,
                                layout="constrained", **options)
    axes = list(grid.flat[:count])
    for axis in grid.flat[count:]:
        axis.set_axis_off()
    for axis in axes[-columns:]:
        axis.set_xlabel(xlabel)
    for axis in axes[::columns]:
        axis.set_ylabel(ylabel)
    return figure, axes


def labelled(axes: Iterable[Axes]) -> tuple[list, list[str]]:
    """What panels hold for a legend: a handle for each label, and the labels."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    return list(found.values()), list(found)


def plain_ticks(axis: Axes, values: Iterable[float], which: str = "x") -> None:
    """Ticks of a logarithmic axis at these values and no others, written out ("128", not 1.28 x 10^2)."""
    ticks = sorted(set(values))
    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_ticks(ticks, [f"{value:,g}" for value in ticks])
    side.set_ticks([], minor=True)


def legend_above(figure: Figure, axes: Iterable[Axes], columns: int = 4, title: str | None = None) -> None:
    """One legend above all panels, with one entry a label, however many lines and panels have it."""
    handles, labels = labelled(axes)
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title)


def banded(axis: Axes, data: pd.DataFrame, x: str, y: str, shade: str, dash: str = "-", alpha: float = 0.2,
           **options: Any) -> None:
    """A line of the column y over x, with the columns low and high as a band; `options` are the line's."""
    axis.fill_between(data[x], data["low"], data["high"], color=shade, alpha=alpha, linewidth=0)
    axis.plot(data[x], data[y], dash, color=shade, **options)


def lines(data: pd.DataFrame, x: str, y: str, hue: str, *, colours: Mapping[str, str] | None = None,
          log: str = "", height: float = 3.2, axis: Axes | None = None, legend: bool = True,
          **options: Any) -> Figure:
    """One line per value of `hue`: the mean over equal x, with the range of the observations as a band.

    Args:
        data: tidy, one row per observation.
        x, y, hue: column names.
        colours: value of hue -> colour; default: of the runs or methods of that name, else the cycle.
        log: "", "x", "y" or "xy": which axes are logarithmic.
        axis: draw here instead of in a new figure; options: of it, such as xlabel.
        legend: False for lines that a legend elsewhere names.
    """
    import seaborn

    values = list(dict.fromkeys(data[hue]))
    known = {**METHODS, **RUNS, **(colours or {})}
    cycle = iter(matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] * 3)
    palette = {value: known.get(value) or next(cycle) for value in values}
    axis = axis or panels(1, height=height)[1][0]
    seaborn.lineplot(data=data, x=x, y=y, hue=hue, hue_order=values, palette=palette, style=hue,
                     markers=True, ax=axis, errorbar=("pi", 100), err_kws={"alpha": 0.2, "linewidth": 0})
    axis.set(**{f"{which}scale": "log" for which in log})
    axis.set(**options)
    if (key := axis.get_legend()) is not None:
        key.set_title("") if legend else key.remove()
    return axis.figure  # type: ignore[return-value]


def history_frame(run: Run, columns: Sequence[str] = ("loss", "accuracy", "nfe_forward", "nfe_backward"),
                  bins: int = 100) -> pd.DataFrame:
    """A run's training history as tidy data: columns step, quantity, value, and the stretch's low and high.

    Every quantity is averaged over up to `bins` equal stretches of the run; low and high are the tenth
    and the ninetieth percentile in the stretch. A quantity that is zero throughout is left out.
    """
    rows = []
    for column in columns:
        values = np.asarray(run.history.get(column, ()), dtype=float)
        if not np.any(values):
            continue
        end = 0
        for part in np.array_split(values, min(bins, len(values))):
            end += len(part)
            low, high = np.percentile(part, (10, 90))
            rows.append({"step": end - len(part) / 2, "quantity": column, "value": part.mean(), "low": low,
                         "high": high})
    return pd.DataFrame(rows, columns=["step", "quantity", "value", "low", "high"])


@style()
def training_history(run: Run) -> Figure:
    """Loss, accuracy and function evaluations of a run against the optimiser step.

    The lines are means over hundredths of the run, the bands reach from the tenth to the ninetieth
    percentile inside each.
    """
    data = history_frame(run)
    labels = {"training loss": ["loss"], "training accuracy": ["accuracy"],
              "evaluations per step (NFE)": ["nfe_forward", "nfe_backward"]}
    known = set(data["quantity"])
    groups = [(label, [c for c in names if c in known])
              for label, names in labels.items() if known & {*names}]
    figure, axes = panels(max(1, len(groups)), height=2.7)
    for axis, (label, names) in zip(axes, groups):
        for name, shade in zip(names, (colour(run.name) if run.name in RUNS else BLUE, GREY)):
            banded(axis, data[data["quantity"] == name], "step", "value", shade, alpha=0.25,
                   label=name.removeprefix("nfe_"))
        if len(names) > 1:
            axis.legend()
        axis.set(xlabel="optimiser step", ylabel=label)
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    return figure
