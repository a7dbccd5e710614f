"""What attacks leave up to epsilon 0.3, by the ladder or by fewer attacks: tidy data and one figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import POST_ROWS, ROWS
from nodelib.experiment.contract import (
    CHECKED_EPSILON,
    LADDER,
    LADDER_CHECK,
    LADDER_EPSILONS,
    LOCAL_MEASUREMENTS,
)
from nodelib.publish.style import DASHES, MARKERS, banded, colour, panels, style
from nodelib.statistics import on_common, wilson
from nodelib.verdicts.post_recipe import climbed

CHECKS = 3  # attacks of the ladder's check
RUNGS = (0.0, *LADDER_EPSILONS[:-1])  # at the last one nothing is left without adversarial training
EQUAL_EPOCHS = 12
"""Epochs after which all small networks by the post's recipe kept their weights."""

PANELS: dict[str, tuple[str, ...]] = {
    "End time or slow head?": ("small-10", "small-10-scaled", "small-random", "small-100",
                               "small-100-unscaled"),
    "By the post's recipe": POST_ROWS,
    "ODE-net or residual network?": ("wide-standard", "resnet-1", "resnet-1-scaled", "resnet-6", "resnet-0"),
    "Larger, or otherwise trained": (*ROWS[3:], "small-10-rays", "small-100-leaky", "small-100-nolast",
                                     "wide-adversarial"),
}
"""The networks of `accuracy_against_epsilon`, by question."""


def compared(runs: Iterable[Run]) -> list[Run]:
    """The weights that are compared of `PANELS`, in its order: the last, by the post's recipe those after
    `EQUAL_EPOCHS`.
    """
    every, found = list(runs), []
    for name in chain(*PANELS.values()):
        for run in (run for run in every if run.name == name):
            weights = [each for each in (run, *run.earlier) if each.config["epochs"] == EQUAL_EPOCHS]
            fitting = weights if name in POST_ROWS else [run]
            # the last weights may be stored as earlier ones, too: those that have climbed the ladder
            found += sorted(fitting, key=lambda each: climbed(each, each.config["test_t1"]) is None)[:1]
    return found


def ladders(runs: Iterable[Run]) -> dict[tuple[str, int], np.ndarray]:
    """(network, seed) -> what `climbed` says at the own end time, of those that have climbed the ladder."""
    found = (((run.name, run.seed), climbed(run, run.config["test_t1"])) for run in runs)
    return {key: smallest for key, smallest in found if smallest is not None}


def survivors(smallest: np.ndarray, epsilon: float) -> np.ndarray:
    """Whether each image of `ladders` is left up to an epsilon of the ladder; bool, of the same shape."""
    return smallest > epsilon + 1e-9


def checked(runs: Iterable[Run]) -> pd.DataFrame:
    """How many images the ladder leaves at `CHECKED_EPSILON`, and how many of these the stronger attacks of
    `nodelib.experiment.protocols.ladder_check_protocol` leave, which tried what no record before them broke;
    a row a run that has met both.

    Returns:
        columns network, seed, n (images that both met), ladder and after (images left).
    """
    rows = []
    for run in runs:
        smallest = climbed(run, run.config["test_t1"])
        checks = [run.outcomes(r["id"]) for r in run.metrics if str(r["id"]).startswith(f"{LADDER_CHECK}-")
                  and r["t1"] == run.config["test_t1"]]
        if smallest is not None and len(checks) == CHECKS:
            alive, *others = on_common(survivors(smallest, CHECKED_EPSILON), *checks)
            rows.append({"network": run.name, "seed": run.seed, "n": len(alive), "ladder": int(alive.sum()),
                         "after": int(np.logical_and.reduce([alive, *others]).sum())})
    return pd.DataFrame(rows, columns=["network", "seed", "n", "ladder", "after"])


def worst_cases(runs: Sequence[Run]) -> pd.DataFrame:
    """The worst case per image over stored attacks at each run's own end time, one row per run and epsilon.

    Where several are stored at an epsilon, the one on most images. Those of the ladder are left out: it is
    another set of attacks, which not every network has met (`ladders`).

    Returns:
        columns run (folder), network, seed, epsilon, accuracy (per cent), n and id of the record; in the
        order of the runs, epsilon rising.
    """
    rows = []
    for run in runs:
        found = {r["epsilon"]: r for r in sorted(run.metrics, key=lambda r: r["n"])
                 if r["attack"] == "worst" and r["t1"] == run.config["test_t1"]
                 and not str(r["id"]).startswith(LADDER)}
        rows += [{"run": run.path.name, "network": run.name, "seed": run.seed, "epsilon": epsilon,
                  "accuracy": 100 * r["accuracy"], "n": r["n"], "id": r["id"]}
                 for epsilon, r in sorted(found.items())]
    return pd.DataFrame(rows, columns=["run", "network", "seed", "epsilon", "accuracy", "n", "id"])


def left_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """What is left at the ladder's epsilons, a row per network, seed and epsilon.

    By the ladder, where a seed of the network has climbed it, and otherwise by `worst_cases`, of the runs
    that have them at all these epsilons but the last.

    Returns:
        columns network, seed, epsilon, accuracy (per cent), n (images) and ladder (bool); networks in the
        order of the runs, epsilon rising.
    """
    met, weaker, rows = ladders(runs), worst_cases(runs), []
    for name in dict.fromkeys(run.name for run in runs):
        rows += [{"network": name, "seed": seed, "epsilon": epsilon, "n": len(smallest), "ladder": True,
                  "accuracy": 100 * survivors(smallest, epsilon).mean()}
                 for (network, seed), smallest in met.items() if network == name
                 for epsilon in LADDER_EPSILONS]
        if not any(network == name for network, _ in met):
            for _, part in weaker[weaker["network"] == name].groupby("seed"):
                part = part[part["epsilon"].isin(LADDER_EPSILONS)]
                if set(LADDER_EPSILONS[:-1]) <= set(part["epsilon"]):
                    rows += part[["network", "seed", "epsilon", "n", "accuracy"]].assign(
                        ladder=False).to_dict("records")
    return pd.DataFrame(rows, columns=["network", "seed", "epsilon", "accuracy", "n", "ladder"])


def mean_smallest(kept: Mapping[float, float]) -> tuple[float, bool]:
    """The mean over images of the smallest of the ladder's epsilons at which an attack succeeds, and whether
    it is only a lower bound, because images outlast the largest that was tried.

    kept: per cent left at each of `RUNGS`, epsilon 0 (the clean ones) included, and beyond them where stored;
    NaN where one is missing.
    """
    rungs = [*RUNGS, *(epsilon for epsilon in LADDER_EPSILONS if epsilon > RUNGS[-1] and kept.get(epsilon))]
    mean = sum((above - below) * kept.get(below, math.nan) / 100 for below, above in zip(rungs, rungs[1:]))
    return mean, kept.get(rungs[-1], 0.0) > 0


def local_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Medians that runs have of `nodelib.experiment.contract.LOCAL_MEASUREMENTS`, a row a run, as they come.

    Returns:
        columns run, network, seed, epochs, n, clean (per cent), those names, low and high of the local
        robustness, and two means over images, NaN where one is not stored: ladder, of the smallest epsilon
        that the ladder needs against these weights, and weaker, of the smallest of `RUNGS` at which another
        stored attack succeeds, by `worst_cases`.
    """
    rows, left = [], worst_cases(runs)
    for run in runs:
        found = {r["name"]: r for r in run.measurements
                 if r["name"] in LOCAL_MEASUREMENTS and r["statistic"] == "median"}
        if found:
            robust = found["local_robustness"]
            clean = run.metric(f"none-t{run.config['test_t1']:g}")["accuracy"]
            kept = {0.0: 100 * clean,
                    **left[left["run"] == run.path.name].set_index("epsilon")["accuracy"].to_dict()}
            same = [each for each in (run, *run.earlier) if each.config["epochs"] == run.config["epochs"]]
            met = [smallest.mean() for smallest in ladders(same).values()]
            rows.append({"run": run.path.name, "network": run.name, "seed": run.seed,
                         "epochs": run.config["epochs"], "n": robust["n"],
                         "clean": 100 * clean, **{name: r["value"] for name, r in found.items()},
                         **{end: robust["settings"][end] for end in ("low", "high")},
                         "ladder": met[0] if met else math.nan,
                         "weaker": mean_smallest(kept)[0]})
    return pd.DataFrame(rows, columns=["run", "network", "seed", "epochs", "n", "clean", *LOCAL_MEASUREMENTS,
                                       "low", "high", "ladder", "weaker"])


@style()
def accuracy_against_epsilon(data: pd.DataFrame, groups: Mapping[str, Sequence[str]] = PANELS) -> Figure:
    """`left_frame` as one curve a network, the mean of its seeds, which are thin where there are several.

    The ladder's epsilons stand equally far apart. The band is Wilson's 95 % interval of the mean for as many
    images as one seed was attacked on. Without the ladder the line is dotted and its markers are hollow. A
    control has the colour of the run it varies.

    Args:
        groups: title of each panel -> its networks; those without data are left out.
    """
    figure, axes = panels(len(groups), columns=2, height=3.1, xlabel="epsilon", ylabel="left (%)",
                          sharex=True, sharey=True)
    for axis, (title, names) in zip(axes, groups.items()):
        for name in names:
            part = data[data["network"] == name]
            if not len(part):
                continue
            part = part.assign(rung=part["epsilon"].map(LADDER_EPSILONS.index))
            mean = part.groupby("rung", as_index=False).agg({"accuracy": "mean", "n": "min", "ladder": "all"})
            bounds = [wilson(round(row.accuracy * row.n / 100), row.n) for row in mean.itertuples()]
            mean["low"], mean["high"] = 100 * np.transpose(bounds)
            laddered = bool(mean["ladder"].all())
            banded(axis, mean, "rung", "accuracy", colour(name), "-", 0.12, label=name,
                   dashes=(DASHES[name] or (None, None)) if laddered else (1, 2),
                   marker=MARKERS[name], markersize=4,
                   markerfacecolor=colour(name) if laddered else "white")
            if part["seed"].nunique() > 1:
                for _, seed in part.groupby("seed"):
                    axis.plot(seed["rung"], seed["accuracy"], color=colour(name), linewidth=0.5)
        axis.set(title=title, ylim=(-3, 103))
        axis.set_xticks(range(len(LADDER_EPSILONS)), [f"{epsilon:g}" for epsilon in LADDER_EPSILONS])
        if axis.lines:
            axis.legend(fontsize=8)
    return figure
