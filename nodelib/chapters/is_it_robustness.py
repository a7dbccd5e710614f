"""Figures of Part II: the runs side by side, attacked images, accuracy against epsilon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from torch import Tensor

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS
from nodelib.experiment.contract import SOLVER_MEASUREMENTS
from nodelib.publish.style import (
    BLACK,
    BLUE,
    GREEN,
    NARROW,
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
        figure, axes = panels(max(1, len(sizes) * len(tests)), columns=max(1, len(sizes)), height=2.2,
                              width=NARROW, sharex=True, sharey=True)
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
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2)
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
        figure, axes = plt.subplots(rows, columns, squeeze=False, layout="constrained",
                                    figsize=(NARROW, (NARROW / columns + 0.2) * rows))
        for i, (row, title, texts) in enumerate(zip(images, titles, labels)):
            for j in range(columns):
                axis = axes[i, j]
                axis.imshow(row[j, 0].detach().numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="none")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_xlabel(texts[j], fontsize=9, labelpad=2)
                for side in axis.spines.values():
                    side.set_visible(True)
            axes[i, 0].set_ylabel(title)
    return figure


_GRADIENTS: dict[str, tuple[str, str, Any, str]] = {  # label, colour, dash, marker
    "adjoint": ("continuous adjoint", VERMILLION, "--", "s"),
    "anchored": ("anchored adjoint", GREEN, "-.", "D"),
    "exact-1e-3": ("exact, 1e-3", BLUE, "-", "o"), "exact-1e-5": ("exact, 1e-5", SKY, "-", "^"),
    "reference": ("float64 reference", BLACK, ":", "v"),
}


def epsilon_sweep(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against epsilon: a panel per value of the column "attack", a line per "title".

    Columns title (a run and its end time), attack, epsilon, accuracy, low, high.
    """
    attacks = list(dict.fromkeys(data["attack"]))
    with style():
        figure, axes = panels(len(attacks) + 1, columns=2, height=2.5, width=NARROW)
        for axis, attack in zip(axes, attacks):
            for title, part in data[data["attack"] == attack].groupby("title", sort=False):
                name = title.split("-seed")[0]
                axis.fill_between(part["epsilon"], part["low"], part["high"], color=colour(name), alpha=0.15,
                                  linewidth=0)
                axis.plot(part["epsilon"], part["accuracy"], color=colour(name), label=name)
            axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(xlabel="epsilon", ylabel="accuracy (%)", ylim=(-3, 103), title=attack)
        # from all panels: the first may lack a network that another has
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
        axes[-1].legend(handles.values(), handles.keys(), loc="center")
        axes[-1].set_axis_off()
    return figure


def epsilon_by_gradient(data: pd.DataFrame) -> Figure:
    """FGSM's accuracy in per cent against epsilon, one line per gradient method, one panel per title.

    Columns title, method (of `nodelib.experiment.protocols.GRADIENT_METHODS`), epsilon, accuracy, low, high.
    Drawn to the post's 0.3 and a little beyond, where the order of the methods can turn round.
    """
    groups = list(data.groupby("title", sort=False))
    with style():
        figure, axes = panels(len(groups), columns=2, height=2.2, width=NARROW, sharex=True, sharey=True)
        for axis, (title, group) in zip(axes, groups):
            for method, (_, shade, dash, marker) in _GRADIENTS.items():
                part = group[(group["method"] == method) & (group["epsilon"] <= 0.5)]
                if len(part):
                    axis.fill_between(part["epsilon"], part["low"], part["high"], color=shade, alpha=0.08,
                                      linewidth=0)
                    axis.plot(part["epsilon"], part["accuracy"], dash, marker=marker, markersize=4,
                              color=shade)
            axis.axvline(0.3, color="#888888", linewidth=0.8, linestyle=":")
            axis.set(ylim=(-3, 103), title=title.replace("-seed0", ""))
        for axis in axes[::2]:
            axis.set_ylabel("accuracy (%)")
        for axis in axes[-2:]:
            axis.set_xlabel("epsilon")
        _name_gradients(figure, data["method"])
    return figure


def gradient_health(data: pd.DataFrame) -> Figure:
    """Share of pixels with the reference's sign against the end time: a panel a network, a line a gradient.

    Columns run, t1, name, method, value: the records of `nodelib.experiment.gradient_health` as
    `nodelib.chapters.diagnosis.health_frame` returns them. The panels are the table's rows, seed 0, in its
    order.
    """
    share = data[data["name"] == "sign_agreement"]
    names = [name for name in ROWS if f"{name}-seed0" in set(share["run"])]
    with style():
        figure, axes = panels(len(names), columns=2, height=1.9, width=NARROW, sharex=True, sharey=True)
        for axis, name in zip(axes, names):
            for method, (_, shade, dash, marker) in _GRADIENTS.items():
                part = share[(share["run"] == f"{name}-seed0") & (share["method"] == method)]
                axis.plot(part["t1"], 100 * part["value"], dash, marker=marker, markersize=4, color=shade)
            axis.set(xscale="log", title=name)
        for axis in axes[::2]:
            axis.set_ylabel("right sign (%)")
        for axis in axes[-2:]:
            axis.set_xlabel("end time $t_1$")
        _name_gradients(figure, share["method"])
    return figure


def _name_gradients(figure: Figure, methods: Iterable[str]) -> None:
    """A legend over a figure of the gradients that it shows."""
    handles = [matplotlib.lines.Line2D([], [], linestyle=dash, marker=marker, markersize=4, color=shade,
                                       label=label)
               for method, (label, shade, dash, marker) in _GRADIENTS.items() if method in set(methods)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)


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
                          capsize=2, yerr=100 * np.abs(ends.T - shares["value"].to_numpy()),
                          color=colour(name), label=name)
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
