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
from nodelib.experiment.contract import SOLVER_MEASUREMENTS
from nodelib.publish.style import (
    ATTACKS,
    BLACK,
    BLUE,
    GREEN,
    SKY,
    VERMILLION,
    colour,
    history_frame,
    lines,
    panels,
    style,
)
from nodelib.statistics import wilson

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
                axis.plot(images, factor * data["value"], color=colour(run.name), label=run.name)
                axis.fill_between(images, factor * data["low"], factor * data["high"], color=colour(run.name),
                                  alpha=0.2, linewidth=0)
        for axis, label in ((left, "training accuracy (%)"), (right, "NFE of a forward solve")):
            axis.set(xlabel="training images seen (thousands)", ylabel=label)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        # one entry per network, however many seeds
        handles = {label: handle for handle, label in zip(*right.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper center",
                          ncols=min(6, len(handles)))
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
                axis.fill_between(part["t1"], part["low"], part["high"], color=colour(name), alpha=0.12,
                                  linewidth=0)
                axis.plot(part["t1"], part["accuracy"], color=colour(name), linewidth=1.2,
                          label=name if seed == 0 else None)
            axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xscale="log", ylim=(-3, 103), title=f"{size}, {test}")
        for axis in axes[::max(1, len(sizes))]:
            axis.set_ylabel("accuracy (%)")
        for axis in axes[-max(1, len(sizes)):]:
            axis.set_xlabel("end time $t_1$")
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)
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
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_xlabel(texts[j], fontsize=8, labelpad=2)
                for side in axis.spines.values():
                    side.set_visible(True)
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
                axis.fill_between(part["epsilon"], part["low"], part["high"], color=shade, alpha=0.15,
                                  linewidth=0)
                axis.plot(part["epsilon"], part["accuracy"], dash, marker=marker, markersize=4, color=shade,
                          label=name)
            axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xlabel="epsilon", ylim=(-3, 103), title=title)
        axes[0].set_ylabel("accuracy (%)")
        # from all panels: the first may lack an attack that another has
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False)
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
                    axis.fill_between(part["epsilon"], part["low"], part["high"], color=shade, alpha=0.08,
                                      linewidth=0)
                    axis.plot(part["epsilon"], part["accuracy"], dash, marker=marker, markersize=4,
                              color=shade,
                              label=f"{label} (n = {part['n'].min()})")
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


def solver_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """What runs hold of `nodelib.experiment.contract.SOLVER_MEASUREMENTS`: network, name, value, n, settings.
    """
    rows = [{"network": run.name, **{key: r[key] for key in ("name", "value", "n")}, **r["settings"]}
            for run in runs for r in run.measurements if r["name"] in SOLVER_MEASUREMENTS]
    return pd.DataFrame(rows, columns=["network", "name", "value", "n", "epsilon", "solver", "attack",
                                       "steps", "direction", "difference", "low", "high"])


def solver_examples(data: pd.DataFrame) -> Figure:
    """Images that fool the program and not the flow, against epsilon, and the error of its reverse against
    the difference that it is compared with; a line a network.

    data: of `solver_frame`. Bars are 95 % intervals; networks stand a little apart.
    """
    with style():
        figure, (left, right) = panels(2, height=3.0)
        for k, (name, part) in enumerate(data.groupby("network", sort=False)):
            shares = part[(part["name"] == "fools_program_only") & (part["solver"] == "flow")]
            ends = np.array([wilson(round(r.value * r.n), r.n) for r in shares.itertuples()]).reshape(-1, 2)
            left.errorbar(1.05**k * shares["epsilon"], 100 * shares["value"], fmt="-o", markersize=4,
                          capsize=2, color=colour(name), label=name,
                          yerr=100 * np.abs(ends.T - shares["value"].to_numpy()))
            errors = part[(part["name"] == "reverse_error") & (part["direction"] == "gradient")]
            for steps, line in errors.sort_values("difference").groupby("steps"):
                right.plot(line["difference"], line["value"], ":" if steps == "held" else "-",
                           color=colour(name))
        left.set(xlabel="epsilon", ylabel="right by the flow (%)", xscale="log")
        ticks = sorted(set(data["epsilon"].dropna()) - {0.0})
        left.set_xticks(ticks, [f"{epsilon:g}" for epsilon in ticks])
        left.minorticks_off()
        right.set(xlabel="difference (pixel units)", ylabel="error along the gradient's signs", xscale="log",
                  yscale="log")
        right.plot([], [], "k-", label="steps of the image")
        right.plot([], [], "k:", label="steps held")
        for axis in (left, right) if len(data) else ():
            axis.legend()
    return figure
