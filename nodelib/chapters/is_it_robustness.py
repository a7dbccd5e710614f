"""Figures of Part II: the runs side by side, attacked images, accuracy against epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from torch import Tensor

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS
from nodelib.publish.style import (
    ATTACKS,
    BLACK,
    BLUE,
    GREEN,
    SKY,
    VERMILLION,
    banded,
    colour,
    history_frame,
    legend_above,
    lines,
    panels,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Training accuracy and NFE of several runs against the images seen, one line per run and seed."""
    with style():
        figure, (left, right) = panels(2, height=2.9)
        for run in runs:
            for axis, column in ((left, "accuracy"), (right, "nfe_forward")):
                data = history_frame(run, (column,))
                if not len(data):
                    continue
                images = np.interp(data["step"], run.history["step"], run.history["images"]) / 1000
                factor = 100 if column == "accuracy" else 1
                data = factor * data[["value", "low", "high"]].assign(images=images / factor)
                banded(axis, data, "images", "value", colour(run.name), label=run.name)
        for axis, label in ((left, "training accuracy (%)"), (right, "NFE of a forward solve")):
            axis.set(xlabel="training images seen (thousands)", ylabel=label)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        legend_above(figure, (right,), 6)
    return figure


def nfe_against_end_time(data: pd.DataFrame) -> Figure:
    """NFE against the test end time, one line per run; columns run, t1, nfe."""
    with style():
        return lines(data, "t1", "nfe", "run", log="x", xlabel="end time $t_1$",
                     ylabel="NFE of a forward solve",
                     height=2.9)


def end_time_sweeps(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against the end time, a row of panels per test, a column per size of network, one
    line per seed.

    data: of `nodelib.chapters.pair.sweep_frame`. Bands: 95 % intervals over images.
    """
    sizes, tests = list(dict.fromkeys(name.split("-")[0]
                                      for name in data["network"])), list(dict.fromkeys(data["test"]))
    with style():
        figure, axes = panels(max(1, len(sizes) * len(tests)), columns=max(1, len(sizes)), height=2.6,
                              sharex=True, sharey=True)
        for axis, (test, size) in zip(axes, product(tests, sizes)):
            here = data[(data["test"] == test) & data["network"].str.startswith(f"{size}-")]
            for (name, seed), part in here.groupby(["network", "seed"], sort=False):
                banded(axis, part, "t1", "accuracy", colour(name), alpha=0.12, linewidth=1.2,
                       label=name if seed == 0 else None)
            axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xscale="log", ylim=(-3, 103), title=f"{size}, {test}")
        for axis in axes[::max(1, len(sizes))]:
            axis.set_ylabel("accuracy (%)")
        for axis in axes[-max(1, len(sizes)):]:
            axis.set_xlabel("end time $t_1$")
        legend_above(figure, axes, 3)
    return figure


def attacked_pictures(images: Sequence[Tensor], titles: Sequence[str],
                      labels: Sequence[Sequence[str]]) -> Figure:
    """Rows of pictures: one row per version of the same images, each with what the network says.

    Args:
        images: one tensor (N, 1, 28, 28) per row.
        titles: name of each row.
        labels: per row, N short texts to stand under the pictures.
    """
    import matplotlib.pyplot as plt

    rows, columns = len(images), len(images[0])
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(7.2, 1.05 * rows + 0.2), squeeze=False,
                                    layout="constrained")
        for i, (row, title, texts) in enumerate(zip(images, titles, labels)):
            for j in range(columns):
                axis = axes[i, j]
                axis.imshow(row[j, 0].detach().numpy(), cmap="gray_r", vmin=-0.3, vmax=1.3)
                axis.set(xticks=[], yticks=[])
                axis.set_xlabel(texts[j], fontsize=8, labelpad=2)
                axis.spines[:].set_visible(True)
            axes[i, 0].set_ylabel(title, fontsize=8.5)
    return figure


_SWEPT = {"FGSM": (ATTACKS["FGSM"], "-", "o"), "PGD": (ATTACKS["PGD"], "--", "s"),
          "worst case": (BLACK, ":", "")}
_GRADIENTS = {
    "adjoint": ("continuous adjoint", VERMILLION, "--", "s"),
    "anchored": ("anchored adjoint", GREEN, "-.", "D"),
    "exact-1e-3": ("exact, 1e-3", BLUE, "-", "o"), "exact-1e-5": ("exact, 1e-5", SKY, "-", "^"),
    "reference": ("float64 reference", BLACK, ":", "v"),
}


def epsilon_sweep(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against epsilon, one line per attack, one panel per value of the column "title" if
    there is one.

    Columns attack, epsilon, accuracy, low, high. An attack's name begins with "FGSM", "PGD" or "worst case".
    """
    groups = list(data.groupby("title", sort=False)) if "title" in data else [("", data)]
    with style():
        figure, axes = panels(len(groups), height=3.0, width=5.4 if len(groups) == 1 else 7.2, sharey=True)
        for axis, (title, group) in zip(axes, groups):
            for name, part in group.groupby("attack", sort=False):
                shade, dash, marker = next(look for kind, look in _SWEPT.items() if name.startswith(kind))
                banded(axis, part, "epsilon", "accuracy", shade, dash, 0.15, marker=marker, markersize=4,
                       label=name)
            axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xlabel="epsilon", ylim=(-3, 103), title=title)
        axes[0].set_ylabel("accuracy (%)")
        legend_above(figure, axes)
    return figure


def epsilon_by_gradient(data: pd.DataFrame) -> Figure:
    """FGSM's accuracy in per cent against epsilon, one line per gradient method, one panel per title.

    Columns title, method (of `nodelib.experiment.protocols.GRADIENT_METHODS`), epsilon, accuracy, low, high,
    n. Drawn to the post's 0.3 and a little beyond, where the order of the methods can turn round.
    """
    groups = list(data.groupby("title", sort=False))
    with style():
        figure, axes = panels(len(groups), columns=2, height=3.0, sharey=True)
        for axis, (title, group) in zip(axes, groups):
            for method, (label, shade, dash, marker) in _GRADIENTS.items():
                part = group[(group["method"] == method) & (group["epsilon"] <= 0.5)]
                if len(part):
                    banded(axis, part, "epsilon", "accuracy", shade, dash, 0.08, marker=marker,
                           markersize=4, label=f"{label} (n = {part['n'].min()})")
            axis.axvline(0.3, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xlabel="epsilon", ylim=(-3, 103), title=title)
            axis.legend()
        axes[0].set_ylabel("accuracy under FGSM (%)")
    return figure


def gradient_health(data: pd.DataFrame) -> Figure:
    """Share of pixels with the reference's sign against the end time: a panel a network, a line a gradient.

    Columns run, t1, name, method, value: the records of `nodelib.experiment.gradient_health` as
    `nodelib.chapters.diagnosis.health_frame` returns them. The panels are the table's rows, seed 0, in its
    order; each line of a row's last panel bears its name.
    """
    share = data[data["name"] == "sign_agreement"]
    names = [name for name in ROWS if f"{name}-seed0" in set(share["run"])]
    with style():
        figure, axes = panels(len(names), height=2.4, sharey=True)
        for number, (axis, name) in enumerate(zip(axes, names)):
            ends = {}
            for method, (label, shade, dash, marker) in _GRADIENTS.items():
                part = share[(share["run"] == f"{name}-seed0") & (share["method"] == method)]
                if len(part):
                    axis.plot(part["t1"], 100 * part["value"], dash, marker=marker, markersize=4, color=shade)
                    ends[label] = (100 * part["value"].iloc[-1], shade)
            if number % 3 == 2 or name == names[-1]:
                height = np.inf
                for label, (end, shade) in sorted(ends.items(), key=lambda each: -each[1][0]):
                    height = min(end, height - 5)  # names of lines that end close together stand apart
                    axis.annotate(label, (share["t1"].max(), height), (6, 0), textcoords="offset points",
                                  color=shade, fontsize=8, va="center", annotation_clip=False)
            axis.set(xscale="log", title=name)
        for axis in axes[::3]:
            axis.set_ylabel("pixels with the right sign (%)", fontsize=8.5)
        for axis in axes[-3:]:
            axis.set_xlabel("end time $t_1$")
    return figure
