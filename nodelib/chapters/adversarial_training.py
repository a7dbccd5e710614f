"""The pair trained to t1 = 1: a table of attacks; figures of accuracy over end times, NFE, complexity."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nodelib.chapters.pair import COMPLEXITY
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import PAIR
from nodelib.publish.style import GREY, MARKERS, banded, colour, legend_above, panels, style
from nodelib.statistics import wilson

COLOURS = {"standard": colour("wide-standard"), "adversarial": colour("wide-adversarial")}
DASHES = {"standard": "-", "adversarial": "--"}
POST_NFE = (20, 30)  # the post's, after standard training; after adversarial training "in the 100s"


def share(outcomes: np.ndarray) -> str:
    """A share of images in per cent with its 95 % interval, "50.0 [38.1, 61.9]"; outcomes: shape (n,)."""
    low, high = wilson(int(outcomes.sum()), len(outcomes))
    return f"{100 * outcomes.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def attack_rows(runs: Sequence[Run], attacks: Mapping[str, str]) -> list[list]:
    """What attacks leave of runs at t1 = 1: words, the number of images, and a `share` per run, or None.

    attacks: label of the record, without its end time -> words. In a row all runs are judged on the images
    that each of them was tried on.
    """
    rows = []
    for label, words in attacks.items():
        known = [run.outcomes(f"{label}-t1") if any(r["id"] == f"{label}-t1" for r in run.metrics) else None
                 for run in runs]
        n = min((len(outcomes) for outcomes in known if outcomes is not None), default=0)
        rows.append([words, f"{n:,}",
                     *(None if outcomes is None else share(outcomes[:n]) for outcomes in known)])
    return rows


@style()
def end_time_curves(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against the end time, one panel per test, one line per network.

    Line: mean over seeds; faint band: all of the seeds' 95 % intervals over images; strong band: range of the
    seeds' accuracies. Dotted: the end time of training, and chance.

    data: of `nodelib.chapters.pair.end_time_frame`.
    """
    tests = list(dict.fromkeys(data["test"])) or [""]
    figure, axes = panels(len(tests), columns=2, height=2.9, sharey=True, ylabel="accuracy (%)")
    for axis, test in zip(axes, tests):
        for name, part in data[data["test"] == test].groupby("network", sort=False):
            spread = part.groupby("t1").agg(mean=("accuracy", "mean"), least=("accuracy", "min"),
                                            most=("accuracy", "max"), low=("low", "min"),
                                            high=("high", "max"))
            for low, high, alpha in (("low", "high", 0.15), ("least", "most", 0.35)):
                axis.fill_between(spread.index, spread[low], spread[high], color=COLOURS[name], alpha=alpha,
                                  linewidth=0)
            axis.plot(spread["mean"], DASHES[name], marker="o", markersize=2.5, color=COLOURS[name],
                      label=name)
        axis.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
        axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="end time $t_1$", title=test, ylim=(-3, 103))
    legend_above(figure, axes[:1], title="trained")
    return figure


@style()
def nfe(training: pd.DataFrame, tested: pd.DataFrame) -> Figure:
    """NFE over training, and of a test solve against the end time, a line per seed.

    training and tested: of `nodelib.chapters.pair.training_nfe_frame` and `end_time_frame`.
    """
    figure, (left, right) = panels(2, height=2.9)
    for (name, _), part in training.groupby(["network", "seed"], sort=False):
        banded(left, part, "epoch", "nfe", COLOURS[name], DASHES[name], 0.15, label=name)
    clean = tested[tested["test"] == "clean"]
    for (name, _), part in clean.groupby(["network", "seed"], sort=False):
        right.plot(part["t1"], part["nfe"], DASHES[name], marker="o", markersize=2.5, color=COLOURS[name],
                   label=name)
    left.set(xlabel="passes over the training images", ylabel="NFE, forward solve to $t_1 = 1$")
    right.set(xscale="log", xlabel="end time $t_1$ of the test", ylabel="NFE, test solve")
    for axis, data in ((left, training), (right, clean)):
        axis.axhspan(*POST_NFE, color=GREY, alpha=0.2, linewidth=0)
        axis.set_ylim(0, 1.1 * max(POST_NFE[1], data["nfe"].max() if len(data) else 0))
    legend_above(figure, (left if len(training) else right,), title="trained")
    return figure


@style()
def complexity(data: pd.DataFrame) -> Figure:
    """`COMPLEXITY` against the NFE of a test solve: the pair, and all others alike; most of these take the
    fewest steps possible, and lie on each other. data: of `nodelib.chapters.pair.complexity_frame`.
    """
    figure, axes = panels(len(COMPLEXITY), height=3.0)
    for axis, (measure, label) in zip(axes, COMPLEXITY.items()):
        part = data[data["measure"] == measure]
        others = part[~part["run"].isin(PAIR)]
        axis.plot(others["nfe"], others["value"], "o", color=GREY, alpha=0.6, markersize=5, fillstyle="none",
                  label="other networks")
        for name in PAIR:
            points = part[part["run"] == name]
            axis.plot(points["nfe"], points["value"], MARKERS[name], color=colour(name), label=name,
                      markersize=7)
        axis.set(xlabel="NFE to $t_1 = 1$", title=label)
        if len(part):
            axis.set(xlim=(0, 1.15 * part["nfe"].max()))
            axis.margins(y=0.1)
            if measure == "accepted_steps":
                axis.set(ylim=(0, 1.15 * part["value"].max()))
            else:
                axis.set_yscale("log")
    legend_above(figure, axes[:1])
    return figure
