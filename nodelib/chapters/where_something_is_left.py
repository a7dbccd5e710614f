"""What all stored attacks together leave below epsilon 0.3, as tidy data and as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nodelib.experiment.artifacts import Run
from nodelib.publish.style import DASHES, banded, colour, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def worst_cases(runs: Sequence[Run]) -> pd.DataFrame:
    """The worst case per image over stored attacks at each run's own end time, one row per run and epsilon.

    Where several are stored at an epsilon, the one on most images.

    Returns:
        columns run (folder), network, epsilon, accuracy and its 95 % interval low and high in per cent, n and
        id of the record; in the order of the runs, epsilon rising.
    """
    rows = []
    for run in runs:
        found = {r["epsilon"]: r for r in sorted(run.metrics, key=lambda r: r["n"])
                 if r["attack"] == "worst" and r["t1"] == run.config["test_t1"]}
        rows += [{"run": run.path.name, "network": run.name, "epsilon": epsilon, "n": r["n"], "id": r["id"],
                  **{key: 100 * r[key] for key in ("accuracy", "low", "high")}}
                 for epsilon, r in sorted(found.items())]
    return pd.DataFrame(rows, columns=["run", "network", "epsilon", "accuracy", "low", "high", "n", "id"])


def accuracy_against_epsilon(data: pd.DataFrame) -> Figure:
    """Accuracy under the worst case against epsilon up to 0.3, a line a run with its 95 % interval as a band.

    data: of `worst_cases`. A control has the colour of the run it varies, and a dash.
    """
    with style():
        figure, (axis,) = panels(1, width=6.0, height=3.6)
        for (_, name), part in data[data["epsilon"] <= 0.3].groupby(["run", "network"], sort=False):
            banded(axis, part, "epsilon", "accuracy", colour(name), "-o", 0.12, markersize=4, label=name,
                   dashes=DASHES[name] or (None, None))
        axis.set(xlabel="epsilon", ylabel="accuracy under all stored attacks (%)", ylim=(-3, 103))
        if len(data):
            axis.legend()
    return figure
