"""Figures about gradients: memory, the backward state, and errors against end time and tolerance."""

from itertools import product

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from nodelib.publish import style

COLOURS = {
    "continuous adjoint": style.VERMILLION, "adjoint": style.VERMILLION,
    "adjoint, loss times 1000": style.PURPLE, "adjoint, own tolerance": style.ORANGE,
    "anchored adjoint": style.GREEN, "exact discrete adjoint": style.BLUE, "exact": style.BLUE,
    "exact, states only": style.SKY, "exact, tolerance 1e-5": style.SKY, "backprop": style.BLACK,
}


@style.style()
def memory(kept: pd.DataFrame, peak: pd.DataFrame) -> Figure:
    """Bytes kept for the backward pass, and peak memory, against solver steps, from megabytes by method."""
    figure, axes = style.panels(2, height=3.0, sharey=True)
    titles = ("kept for the backward pass", "peak of a fresh process")
    for axis, data, title in zip(axes, (kept, peak), titles):
        style.lines(data, "steps", "megabytes", "method", colours=COLOURS, log="xy", axis=axis, legend=False,
                    title=title, xlabel="solver steps", ylabel="memory ($2^{20}$ bytes)")
    style.legend_above(figure, axes[:1])
    return figure


@style.style()
def backward_states(data: pd.DataFrame) -> Figure:
    """Relative error of the state solved backwards against the time reached, one line per end time.

    data: of `nodelib.experiment.gradients.backward_state` with columns `t1` and `run`; a panel per run.
    """
    names = list(dict.fromkeys(data["run"]))
    figure, axes = style.panels(len(names), height=3.0, columns=2, sharey=True,
                                ylabel="relative error of the state")
    shades = matplotlib.colormaps["cividis"]
    ends = sorted(set(data["t1"]))
    for axis, name in zip(axes, names):
        for i, t1 in enumerate(ends):
            part = data[(data["run"] == name) & (data["t1"] == t1) & (data["t"] < t1)]
            axis.plot(part["t"], part["error"], marker="osDv^P"[i % 6], markersize=4,
                      label=f"$t_1 = {t1:g}$", color=shades(i / max(1, len(ends)) * 0.9))
        axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set(xlim=(-0.01, 1000), yscale="log", xlabel="time $t$ reached on the way back", title=name)
    axes[0].legend(title="backwards from")
    return figure


@style.style()
def errors_over_time(data: pd.DataFrame) -> Figure:
    """Error of the image and the parameter gradient, and share of wrong signs, against the end time.

    data: of `nodelib.experiment.gradients.gradient_errors` with a column `run`; a row of panels per run.
    """
    labels = {"input_error": ("image gradient", "relative error"),
              "parameter_error": ("parameter gradient", "relative error"),
              "signs": ("signs of the image gradient", "share that is wrong")}
    names = list(dict.fromkeys(data["run"]))
    figure, axes = style.panels(3 * len(names), height=3.3 if len(names) == 1 else 2.7)
    for axis, (name, (column, (title, label))) in zip(axes, product(names, labels.items())):
        style.lines(data[data["run"] == name], "t1", column, "method", colours=COLOURS, axis=axis,
                    log="x" if column == "signs" else "xy", legend=False, xlabel="end time $t_1$",
                    ylabel=label, title=f"{name}: {title}" if column == "input_error" else title)
        if column == "signs":
            axis.set_ylim(0, 0.52)
    style.legend_above(figure, axes[:1])
    return figure


@style.style()
def errors_over_tolerance(data: pd.DataFrame) -> Figure:
    """Error of the image gradient against the tolerance, from columns method, t1, tolerance, input_error."""
    ends = data.groupby("t1")
    figure, axes = style.panels(len(ends), height=2.9, sharey=True)
    for axis, (t1, part) in zip(axes, ends):
        style.lines(part, "tolerance", "input_error", "method", colours=COLOURS, log="xy", axis=axis,
                    legend=axis is axes[0], xlabel="rtol = atol", ylabel="image gradient, relative error",
                    title=f"$t_1 = {t1:g}$")
    return figure
