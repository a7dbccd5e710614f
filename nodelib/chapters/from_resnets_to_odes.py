"""Figures about solving: a residual network beside an ODE-net, vector fields with evaluations, steps."""

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from nodelib.chapters.toys import Recorder
from nodelib.publish import style
from nodelib.solver.integrate import odeint


@style.style()
def architecture(times: Sequence[float], end: float) -> Figure:
    """A residual network of unit steps above an ODE-net on the same axis of depth or time.

    times: where a solver evaluated the dynamics, drawn as ticks; end: a whole number.
    """
    layers = int(end)
    box = dict(boxstyle="round,pad=0.25", facecolor="#e8f1f8", edgecolor=style.BLUE)
    arrow = dict(arrowstyle="-|>", color="#333333", linewidth=1.2)
    figure, (axis,) = style.panels(1, height=3.1)
    for n in range(layers):
        axis.annotate("", (n + 0.93, 1), (n + 0.1, 1), arrowprops=arrow)
        axis.text(n + 0.5, 1.42, f"$f_{n}$", ha="center", va="center", bbox=box)
        for end_at, start in (((0.36, 1.42), (0.13, 1.06)), ((0.97, 1.09), (0.64, 1.42))):
            axis.annotate("", (n + end_at[0], end_at[1]), (n + start[0], start[1]),
                          arrowprops={**arrow, "connectionstyle": "angle3,angleA=0,angleB=90"})
    for n in range(layers + 1):
        axis.text(n, 1, "$y_0$" if n == 0 else "+", ha="center", va="center", fontsize=10,
                  bbox=dict(boxstyle="circle,pad=0.18", facecolor="white", edgecolor="#333333"))
        axis.text(n, 0.78, f"$y_{n}$" if n else "", ha="center", va="top", fontsize=9)
    axis.text(0, 1.72, "residual network: one addition per layer", fontsize=9.5, weight="bold")
    axis.annotate("", (layers, 0), (0.1, 0), arrowprops={**arrow, "linewidth": 2})
    axis.text(layers / 2, 0.22, r"$\mathrm{d}y/\mathrm{d}t = f(t, y)$", ha="center", va="center", bbox=box)
    axis.vlines(times, -0.09, 0.09, color=style.VERMILLION, linewidth=1)
    axis.text(0, 0, "$y(0)$", ha="center", va="center",
              bbox=dict(boxstyle="round,pad=0.2", facecolor="white", edgecolor="#333333"))
    axis.text(layers + 0.12, 0, f"$y({end:g})$", ha="left", va="center")
    axis.text(0, 0.5, "ODE-net: the solver decides where to evaluate (ticks)", fontsize=9.5, weight="bold")
    axis.set(xlim=(-0.35, layers + 0.7), ylim=(-0.45, 1.95), yticks=[], xticks=range(layers + 1),
             xlabel="depth, or time $t$")
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    return figure


@style.style()
def fields_and_evaluations(func: Callable, starts: Tensor, end: float) -> Figure:
    """The field of one-dimensional dynamics with Euler's unit steps (left) and dopri5 (right).

    Every path is a solve of its own, and the dots are all points at which it evaluated func.
    func: (t, y) -> dy/dt for y of shape (N, 1); starts: initial states, shape (N,); end: end time.
    """
    times, states = np.linspace(0, end, 17), np.linspace(-2.2, 2.2, 19)
    with torch.no_grad():
        y = torch.tensor(states, dtype=starts.dtype).view(-1, 1)
        slopes = np.array([func(torch.tensor(float(t)), y).view(-1).numpy() for t in times])
    length = np.hypot(slopes, 1)  # arrows of equal length: (dy, dt) normalised in the panel's own units
    titles = {"Euler": "residual network: Euler, unit steps", "dopri5": "ODE-net: adaptive dopri5"}
    figure, axes = style.panels(2, height=4.2, sharex=True, sharey=True, ylabel="depth, or time $t$")
    for axis, (method, title) in zip(axes, titles.items()):
        axis.quiver(*np.meshgrid(states, times), slopes / length, 1 / length, color="#9fb0bb", angles="xy",
                    scale=28, width=0.0035, zorder=1)
        for start in starts:
            record = Recorder(func)
            settings = {"method": "euler", "step_size": 1.0} if method == "Euler" else {}
            grid = np.arange(0, end + 0.5) if method == "Euler" else np.linspace(0, end, 121)
            path = odeint(record, start.view(1, 1), grid.tolist(), params=(), **settings).y.view(-1)
            seen = [(float(y), t) for t, y in zip(record.times, record.states) if t <= end]
            axis.plot(path, grid, color=style.METHODS[method], linewidth=1.2, zorder=2)
            axis.plot(*np.array(seen).T, "o", color="black", markersize=2.6, zorder=3)
        axis.set(title=title, xlabel="state $y$", xlim=(-2.3, 2.3), ylim=(-0.15, end + 0.15))
    return figure


@style.style()
def convergence(data: pd.DataFrame) -> Figure:
    """Error against step size, from columns dynamics (a panel each), method (a line each), h and error."""
    names = list(dict.fromkeys(data["dynamics"]))
    colours = {"euler": style.ORANGE, "rk4": style.GREEN, "dopri5-fixed": style.BLUE}
    figure, axes = style.panels(len(names), height=3.0, sharey=True, columns=2)
    for axis, name in zip(axes, names):
        style.lines(data[data["dynamics"] == name], "h", "error", "method", colours=colours, log="xy",
                    axis=axis, title=name, xlabel="step size $h$", ylabel="relative error at the end time")
    return figure


@style.style()
def attempted_steps(attempts: pd.DataFrame, tolerance: float) -> Figure:
    """Attempted steps of one solve: each a bar from t to t + h at its error ratio; above 1 it is rejected."""
    figure, (axis,) = style.panels(1, height=2.9)
    for row in attempts.itertuples():
        shade = style.BLUE if row.accepted else style.VERMILLION
        height = max(row.ratio, 1e-8)
        axis.hlines(height, row.t, row.t + row.h, color=shade, linewidth=2,
                    linestyle="-" if row.accepted else (0, (2, 1)))
        axis.plot(row.t, height, "o" if row.accepted else "x", color=shade, markersize=5)
    axis.axhline(1, color="black", linewidth=0.8)
    handles = [matplotlib.lines.Line2D([], [], color=style.BLUE, marker="o", label="accepted"),
               matplotlib.lines.Line2D([], [], color=style.VERMILLION, marker="x", linestyle=":",
                                       label="rejected")]
    axis.legend(handles=handles, loc="lower right")
    axis.set(yscale="log", xlabel="time $t$", ylabel=f"error ratio (tolerance {tolerance:g})")
    return figure


@style.style()
def step_profiles(profiles: pd.DataFrame, t1: float) -> Figure:
    """Step size, local error, rate of change and speed from time 0 to t1, one thin line per trajectory.

    profiles: rows of `nodelib.chapters.complexity.step_profile` with a column `image`.
    """
    labels = {"h": "accepted step size $h$", "error": "local error, fixed step", "rate": r"$|f'| / |f|$",
              "speed": "speed $|f|$ (r.m.s.)"}
    figure, axes = style.panels(4, columns=2, height=2.1, sharex=True, xlabel="time $t$")
    for axis, (column, label) in zip(axes, labels.items()):
        for _, part in profiles.groupby("image"):
            axis.plot(part["t"], part[column], ".-", color=style.colour("small-10"), linewidth=0.7,
                      markersize=3, alpha=0.7)
        axis.set(ylabel=label, xlim=(0, t1))
        if column == "error":
            axis.set_yscale("log")
        else:
            axis.set_ylim(0, 1.15 * profiles[column].max())
    return figure
