"""Figures of Part II: the runs side by side, attacked images, accuracy against epsilon."""

from collections.abc import Sequence
from itertools import chain, product

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS
from nodelib.experiment.contract import ELSEWHERE_MEASUREMENTS, SOLVER_MEASUREMENTS, SOUGHT_MEASUREMENTS
from nodelib.publish import style
from nodelib.statistics import wilson


@style.style()
def learning_curves(runs: Sequence[Run]) -> Figure:
    """Training accuracy and NFE of several runs against the images seen, one line per run and seed."""
    figure, (left, right) = style.panels(2, height=2.9)
    for run in runs:
        for axis, column in ((left, "accuracy"), (right, "nfe_forward")):
            data = style.history_frame(run, (column,))
            if not len(data):
                continue
            images = np.interp(data["step"], run.history["step"], run.history["images"]) / 1000
            factor = 100 if column == "accuracy" else 1
            data = factor * data[["value", "low", "high"]].assign(images=images / factor)
            style.banded(axis, data, "images", "value", style.colour(run.name), label=run.name)
    for axis, label in ((left, "training accuracy (%)"), (right, "NFE of a forward solve")):
        axis.set(xlabel="training images seen (thousands)", ylabel=label)
        axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    style.legend_above(figure, (right,), 6)
    return figure


@style.style()
def nfe_against_end_time(data: pd.DataFrame) -> Figure:
    """NFE against the test end time, one line per run; columns run, t1, nfe."""
    return style.lines(data, "t1", "nfe", "run", log="x", xlabel="end time $t_1$",
                       ylabel="NFE of a forward solve", height=2.9)


@style.style()
def end_time_sweeps(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against the end time: panels per test and size of network, one line per seed.

    data: of `nodelib.chapters.pair.sweep_frame`. Bands: 95 % intervals over images.
    """
    size_of = data["network"].str.split("-").str[0]
    sizes, tests = size_of.unique(), data["test"].unique()
    columns = max(1, len(sizes))
    figure, axes = style.panels(columns * max(1, len(tests)), columns=columns, height=2.2, width=style.NARROW,
                                xlabel="end time $t_1$", ylabel="accuracy (%)", sharex=True, sharey=True)
    for axis, (test, size) in zip(axes, product(tests, sizes)):
        here = data[(data["test"] == test) & (size_of == size)]
        for (name, seed), part in here.groupby(["network", "seed"], sort=False):
            style.banded(axis, part, "t1", "accuracy", style.colour(name), alpha=0.12, linewidth=1.2,
                         label=name if seed == 0 else None)
        axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", ylim=(-3, 103), title=f"{size}, {test}")
    style.legend_above(figure, axes, 2)
    return figure


@style.style()
def attacked_pictures(images: Sequence[Tensor], titles: Sequence[str],
                      labels: Sequence[Sequence[str]]) -> Figure:
    """Rows of pictures: one row per version of the same images, each with what the network says.

    images: a tensor (N, 1, 28, 28) per row; titles: names of the rows; labels: N short texts per row.
    """
    columns = len(images[0])
    figure, axes = style.panels(len(images) * columns, columns=columns, width=style.NARROW,
                                height=style.NARROW / columns + 0.2)
    for axis, picture, text in zip(axes, torch.cat(tuple(images)).detach(), chain(*labels)):
        axis.imshow(picture[0].numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="none")
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(text, fontsize=9, labelpad=2)
        axis.spines[:].set_visible(True)
    for axis, title in zip(axes[::columns], titles):
        axis.set_ylabel(title)
    return figure


_GRADIENTS: dict[str, tuple[str, str, str, str]] = {  # label, colour, dash, marker
    "adjoint": ("continuous adjoint", style.VERMILLION, "--", "s"),
    "anchored": ("anchored adjoint", style.GREEN, "-.", "D"),
    "exact-1e-3": ("exact, 1e-3", style.BLUE, "-", "o"), "exact-1e-5": ("exact, 1e-5", style.SKY, "-", "^"),
    "reference": ("float64 reference", style.BLACK, ":", "v"),
}


@style.style()
def epsilon_sweep(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against epsilon, from `nodelib.chapters.diagnosis.epsilon_frame`."""
    attacks = data["attack"].unique()
    figure, axes = style.panels(len(attacks) + 1, columns=2, height=2.5, width=style.NARROW)
    for axis, attack in zip(axes, attacks):
        for title, part in data[data["attack"] == attack].groupby("title", sort=False):
            name = title.split("-seed")[0]
            style.banded(axis, part, "epsilon", "accuracy", style.colour(name), alpha=0.15, label=name)
        axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
        axis.set(xlabel="epsilon", ylabel="accuracy (%)", ylim=(-3, 103), title=attack)
    # from all panels: the first may lack a network that another has
    axes[-1].legend(*style.labelled(axes), loc="center")
    axes[-1].set_axis_off()
    return figure


@style.style()
def epsilon_by_gradient(data: pd.DataFrame) -> Figure:
    """FGSM's accuracy in per cent against epsilon, one line per gradient method, one panel per title.

    data: of `nodelib.chapters.diagnosis.gradient_frame`. Drawn to a little beyond the post's 0.3, where the
    order of the methods can turn round.
    """
    groups = data[data["epsilon"] <= 0.5].groupby("title", sort=False)
    figure, axes = style.panels(len(groups), columns=2, height=2.2, width=style.NARROW, xlabel="epsilon",
                                ylabel="accuracy (%)", sharex=True, sharey=True)
    for axis, (title, group) in zip(axes, groups):
        _lines_by_gradient(axis, group, "epsilon")
        axis.axvline(0.3, color="#888888", linewidth=0.8, linestyle=":")
        axis.set(ylim=(-3, 103), title=title.replace("-seed0", ""))
    style.legend_above(figure, axes, 2)
    return figure


@style.style()
def gradient_health(data: pd.DataFrame) -> Figure:
    """Share of pixels with the reference's sign against the end time: a panel a network, a line a gradient.

    data: of `nodelib.chapters.diagnosis.health_frame`. The panels are the table's rows, seed 0, in its order.
    """
    share = data[data["name"] == "sign_agreement"]
    share = share.assign(accuracy=100 * share["value"])
    names = [name for name in ROWS if f"{name}-seed0" in set(share["run"])]
    figure, axes = style.panels(len(names), columns=2, height=1.9, width=style.NARROW,
                                xlabel="end time $t_1$", ylabel="right sign (%)", sharex=True, sharey=True)
    for axis, name in zip(axes, names):
        _lines_by_gradient(axis, share[share["run"] == f"{name}-seed0"], "t1")
        axis.set(xscale="log", title=name)
    style.legend_above(figure, axes, 2)
    return figure


def _lines_by_gradient(axis: Axes, data: pd.DataFrame, x: str) -> None:
    """The column accuracy over x, a line for each gradient, with its interval where there is one."""
    for method, (label, shade, dash, marker) in _GRADIENTS.items():
        if len(part := data[data["method"] == method]):
            if "low" in part:
                axis.fill_between(part[x], part["low"], part["high"], color=shade, alpha=0.08, linewidth=0)
            axis.plot(part[x], part["accuracy"], dash, marker=marker, markersize=4, color=shade, label=label)


def solver_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """What runs hold of `nodelib.experiment.contract.SOLVER_MEASUREMENTS`, and of the same at other end times
    and tolerances, with its settings; own: whether it is at the run's own end time.
    """
    rows = [{"network": run.name, **{key: r[key] for key in ("name", "value", "n", "t1")}, **r["settings"],
             "own": r["t1"] == run.config["test_t1"]}
            for run in runs for r in run.measurements
            if r["name"] in {**SOLVER_MEASUREMENTS, **ELSEWHERE_MEASUREMENTS, **SOUGHT_MEASUREMENTS}]
    return pd.DataFrame(rows, columns=["network", "name", "value", "n", "t1", "own", "tolerance", "epsilon",
                                       "solver", "attack", "made_at", "steps", "direction", "difference",
                                       "low", "high"])


@style.style()
def solver_examples(data: pd.DataFrame) -> Figure:
    """Images that fool the program and not the flow, against epsilon and, at an epsilon of 0.1, against the
    program's tolerance; and the error of its reverse against the difference that it is compared with; a line
    a network.

    data: of `solver_frame`. Bars are 95 % intervals; networks stand a little apart.
    """
    figure, (left, middle, right) = style.panels(3, height=3.0)
    for k, (name, part) in enumerate(data.groupby("network", sort=False)):
        by_flow = part[part["solver"] == "flow"]
        there = by_flow[(by_flow["name"] == "fools_program_only_there") & by_flow["own"].astype(bool)
                        & (by_flow["epsilon"] == 0.1)]
        for axis, shares, x in ((left, by_flow[by_flow["name"] == "fools_program_only"], "epsilon"),
                                (middle, there.sort_values("tolerance"), "tolerance")):
            ends = np.array([wilson(round(r.value * r.n), r.n) for r in shares.itertuples()]).reshape(-1, 2)
            axis.errorbar((1.05 if x == "epsilon" else 1.15)**k * shares[x], 100 * shares["value"], fmt="-o",
                          markersize=4, capsize=2, color=style.colour(name), label=name,
                          yerr=100 * np.abs(ends.T - shares["value"].to_numpy()))
        errors = part[(part["name"] == "reverse_error") & (part["direction"] == "gradient")]
        for steps, line in errors.sort_values("difference").groupby("steps"):
            right.plot(line["difference"], line["value"], ":" if steps == "held" else "-",
                       color=style.colour(name))
    left.set(xlabel="epsilon", ylabel="right by the flow (%)", xscale="log")
    ticks = sorted(set(data["epsilon"].dropna()) - {0.0})
    left.set_xticks(ticks, [f"{epsilon:g}" for epsilon in ticks])
    left.minorticks_off()
    middle.set(xlabel="tolerance of the program", ylabel="right by the flow (%)", xscale="log")
    right.set(xlabel="difference (pixel units)", ylabel="error along the gradient's signs", xscale="log",
              yscale="log")
    right.plot([], [], "k-", label="steps of the image")
    right.plot([], [], "k:", label="steps held")
    if len(data):
        left.legend()
        right.legend(loc="lower right")  # elsewhere a line runs through it
    return figure
