"""Figures about what ODE-nets gain: size, tolerance, irregular times, densities."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from nodelib.chapters import spiral
from nodelib.chapters.flows import Flow, grid, two_moons
from nodelib.experiment.artifacts import Run
from nodelib.publish import style


@style.style()
def size_accuracy(data: pd.DataFrame) -> Figure:
    """Test accuracy in per cent against number of parameters, one point per run with its 95 % interval."""
    # networks of equal size would hide each other: they lie a little to the left and right
    aside = dict(zip(dict.fromkeys(data["run"]), (1, 1.06, 0.94, 1.06)))
    figure, (axis,) = style.panels(1, height=3.0)
    for name, part in data.groupby("run"):
        place, left = part["parameters"] * aside[name], aside[name] < 1
        errors = [part["accuracy"] - part["low"], part["high"] - part["accuracy"]]
        axis.errorbar(place, part["accuracy"], yerr=errors, fmt=style.MARKERS[name], capsize=3,
                      color=style.colour(name))
        axis.annotate(name, (place.iloc[0], part["accuracy"].mean()), textcoords="offset points",
                      xytext=(-8 if left else 8, -3), ha="right" if left else "left", fontsize=8,
                      color=style.colour(name))
    axis.set(xscale="log", xlabel="parameters", ylabel="test accuracy (%)", xlim=(5e4, 8e5),
             ylim=(min(data["low"].min() - 0.3, 98), 100))
    return figure


@style.style()
def tolerance_dial(data: pd.DataFrame) -> Figure:
    """Accuracy and NFE against the tolerance at test time, from `nodelib.experiment.tolerance.dial`."""
    figure, axes = style.panels(2, height=2.9)
    for axis, column, label in zip(axes, ("accuracy", "nfe"), ("test accuracy (%)", "evaluations (NFE)")):
        style.lines(data, "tolerance", column, "run", log="x" if column == "accuracy" else "xy", axis=axis,
                    xlabel="rtol = atol at test time", ylabel=label, legend=False)
    style.legend_above(figure, axes[:1])
    for row in data.itertuples():
        aside = 0.94 if row.run == data["run"].iloc[0] else 1.06  # the bars of two networks side by side
        axes[0].plot([aside * row.tolerance] * 2, [row.low, row.high], color=style.colour(row.run),
                     linewidth=0.8)
    low, high = 0.8 * data["nfe"].min(), 1.2 * data["nfe"].max()
    style.plain_ticks(axes[1], [tick for tick in (10, 20, 30, 50, 100, 200, 500) if low < tick < high], "y")
    return figure


@style.style()
def spirals(data: spiral.Data, models: dict[str, torch.nn.Module],
            which: Sequence[int] = (0, 1, 2)) -> Figure:
    """Trajectories of the first seed: the truth, the noisy observations, and what each trained model says."""
    found = {name: spiral.predict_all(model, data)[0] for name, model in models.items()}
    figure, axes = style.panels(len(which), ylabel="$y_2$", sharex=True, sharey=True)
    for axis, n in zip(axes, which):
        axis.plot(*data.states[0, n].T, color="#999999", linewidth=3, alpha=0.6, label="truth")
        for name, predicted in found.items():
            axis.plot(*predicted[n].T, "-" if name == "ODE" else "--", color=style.METHODS[name],
                      linewidth=1.2, label=name)
        seen = data.observed[0, n, data.seen[0, n]]
        axis.plot(*seen.T, "o", color="black", markersize=3, label="observed")
        axis.set(xlabel="$y_1$", aspect="equal")
    style.legend_above(figure, axes[:1])
    return figure


@style.style()
def moons(flow: Flow, side: int = 90) -> Figure:
    """Data, learned density and samples of the first of the flows trained side by side."""
    points, _ = grid(side, 2.6)
    with torch.no_grad():
        points = points.to(flow.w1).expand(len(flow.w1), -1, -1)
        density = flow.log_density(points, 1e-4)[0].exp().view(side, side)
    figure, axes = style.panels(3, height=2.5, sharex=True, sharey=True)
    axes[0].plot(*two_moons(800, 10**6).T, ".", color=style.BLUE, markersize=2)
    axes[1].imshow(density, origin="lower", extent=(-2.6, 2.6, -2.6, 2.6), interpolation="bilinear")
    axes[2].plot(*flow.sample(800)[0].T, ".", color=style.VERMILLION, markersize=2)
    for axis, title in zip(axes, ("data", "density of the flow", "samples of the flow")):
        axis.set(title=title, aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
        axis.grid(False)
    return figure


@style.style()
def growth(data: pd.DataFrame) -> Figure:
    """Operations of traces and log-determinants, from columns dimension, quantity, operations."""
    colours = {"log-determinant": style.VERMILLION, "trace": style.BLUE, "estimated trace": style.SKY,
               "closed form": style.GREEN}
    figure = style.lines(data, "dimension", "operations", "quantity", colours=colours, log="xy", height=3.0,
                         xlabel="dimension", ylabel="operations for one point")
    style.plain_ticks(figure.axes[0], data["dimension"])
    return figure


def exponent(data: pd.DataFrame, quantity: str) -> float:
    """Slope of log operations against log dimension, by least squares."""
    part = data[data["quantity"] == quantity]
    return float(np.polyfit(np.log(part["dimension"]), np.log(part["operations"]), 1)[0])


@style.style()
def evaluations_in_training(data: pd.DataFrame) -> Figure:
    """NFE over training by `training_evaluations`, a line per run; the band is the spread in a hundredth."""
    part = data[data["quantity"] == "nfe_forward"]
    figure, (axis,) = style.panels(1, height=3.0)
    for i, (name, rows) in enumerate(part.groupby("run", sort=False)):
        style.banded(axis, rows, "share", "value", style.colour(name), ("-", "--", "-.", ":")[i % 4],
                     label=name)
    axis.set(xlabel="share of the training (%)", ylabel="evaluations (NFE)", ylim=(0, None), xlim=(0, 100))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def training_evaluations(runs: Sequence[Run]) -> pd.DataFrame:
    """`nodelib.publish.style.history_frame` of the NFE of several runs, with run and share (per cent)."""
    parts = []
    for run in runs:
        frame = style.history_frame(run, ("nfe_forward", "nfe_backward"))
        parts.append(frame.assign(run=run.name, share=100 * frame["step"] / len(run.history["nfe_forward"])))
    return pd.concat(parts, ignore_index=True)
