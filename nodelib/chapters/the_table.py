"""The post's table and ours as tidy data and as one figure."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import ROWS
from nodelib.publish.style import ATTACKS, NARROW, panels, style
from nodelib.publish.table import COLUMNS


def accuracy_frame(runs: Sequence[Run], seed: Mapping) -> pd.DataFrame:
    """The table as tidy data: accuracies in per cent with 95 % intervals, which the post's in `seed` lack."""
    rows = []
    for entry in seed["table"]:
        for test, key in (("clean", "standard"), ("FGSM", "adversarial")):
            rows.append({"run": entry["run"], "t1": entry["t1"], "test": test, "source": "post",
                         "accuracy": entry[key], "low": np.nan, "high": np.nan})
    for run in runs:
        for test, column in (("clean", "clean_random"), ("FGSM", "fgsm_seed")):
            for record in run.metrics:
                if run.name in ROWS and record["id"] == f"{COLUMNS[column]}-t{record['t1']:g}":
                    rows.append({"run": run.name, "t1": record["t1"], "test": test, "source": "ours",
                                 **{key: 100 * record[key] for key in ("accuracy", "low", "high")}})
    return pd.DataFrame(rows)


@style()
def table_accuracies(runs: Sequence[Run], seed: Mapping) -> Figure:
    """`accuracy_frame` against test end time, one panel per network: the post's open, every seed of ours
    filled.
    """
    data = accuracy_frame(runs, seed)
    shapes = {"clean": "o", "FGSM": "s"}
    figure, axes = panels(len(ROWS), columns=2, sharex=True, sharey=True, height=1.9, width=NARROW,
                          xlabel="test end time $t_1$", ylabel="accuracy (%)")
    for axis, name in zip(axes, ROWS):
        for test, marker in shapes.items():
            part = data[(data["run"] == name) & (data["test"] == test)]
            post, ours = part[part["source"] == "post"], part[part["source"] == "ours"]
            axis.plot(post["t1"], post["accuracy"], marker, color=ATTACKS[test], fillstyle="none",
                      markersize=7)
            spread = np.abs(ours[["low", "high"]].to_numpy().T - ours["accuracy"].to_numpy())
            axis.errorbar(ours["t1"], ours["accuracy"], yerr=spread, fmt=marker, color=ATTACKS[test],
                          markersize=4, capsize=2, linewidth=1)
        axis.set(title=name, xscale="log", ylim=(-4, 104))
    fills: tuple[tuple[str, Literal["none", "full"]], ...] = (("post", "none"), ("ours", "full"))
    handles = [matplotlib.lines.Line2D([], [], marker=shapes[test], color=ATTACKS[test], linestyle="",
                                       fillstyle=fill, label=f"{test}, {source}")
               for source, fill in fills for test in shapes]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure
