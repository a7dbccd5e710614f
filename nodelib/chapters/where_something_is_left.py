"""What all stored attacks together leave below epsilon 0.3, as tidy data and as one figure."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from nodelib.experiment.artifacts import Run
from nodelib.experiment.contract import LADDER, LADDER_EPSILONS, LOCAL_MEASUREMENTS
from nodelib.publish.style import DASHES, NARROW, banded, colour, panels, style

RUNGS = (0.0, *LADDER_EPSILONS[:-1])  # at the last one nothing is left without adversarial training


def worst_cases(runs: Sequence[Run]) -> pd.DataFrame:
    """The worst case per image over stored attacks at each run's own end time, one row per run and epsilon.

    Where several are stored at an epsilon, the one on most images. Those of the ladder are left out: it is
    another set of attacks, which not every network has met (`nodelib.verdicts.post_recipe.minimal_epsilon`).

    Returns:
        columns run (folder), network, epsilon, accuracy and its 95 % interval low and high in per cent, n and
        id of the record; in the order of the runs, epsilon rising.
    """
    rows = []
    for run in runs:
        found = {r["epsilon"]: r for r in sorted(run.metrics, key=lambda r: r["n"])
                 if r["attack"] == "worst" and r["t1"] == run.config["test_t1"]
                 and not str(r["id"]).startswith(LADDER)}
        rows += [{"run": run.path.name, "network": run.name, "epsilon": epsilon, "n": r["n"], "id": r["id"],
                  **{key: 100 * r[key] for key in ("accuracy", "low", "high")}}
                 for epsilon, r in sorted(found.items())]
    return pd.DataFrame(rows, columns=["run", "network", "epsilon", "accuracy", "low", "high", "n", "id"])


def local_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Medians that runs have of `nodelib.experiment.contract.LOCAL_MEASUREMENTS`, a row a run, as they come.

    Returns:
        columns run, network, seed, n, clean (per cent), those names, low and high of the local robustness,
        and smallest: the mean over images of the smallest of `RUNGS` at which a stored attack succeeds, by
        `worst_cases`, NaN where one is not stored.
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
            rows.append({"run": run.path.name, "network": run.name, "seed": run.seed, "n": robust["n"],
                         "clean": 100 * clean, **{name: r["value"] for name, r in found.items()},
                         **{end: robust["settings"][end] for end in ("low", "high")},
                         "smallest": sum((above - below) * kept.get(below, math.nan) / 100
                                         for below, above in zip(RUNGS, RUNGS[1:]))})
    return pd.DataFrame(rows, columns=["run", "network", "seed", "n", "clean", *LOCAL_MEASUREMENTS, "low",
                                       "high", "smallest"])


@style()
def accuracy_against_epsilon(data: pd.DataFrame) -> Figure:
    """`worst_cases` up to epsilon 0.3. A control has the colour of the run it varies, and a dash."""
    figure, (axis,) = panels(1, width=NARROW, height=3.6)
    for (_, name), part in data[data["epsilon"] <= 0.3].groupby(["run", "network"], sort=False):
        banded(axis, part, "epsilon", "accuracy", colour(name), "-o", 0.12, markersize=4, label=name,
               dashes=DASHES[name] or (None, None))
    axis.set(xlabel="epsilon", ylabel="accuracy under all stored attacks (%)", ylim=(-3, 103))
    if len(data):
        axis.legend()
    return figure
