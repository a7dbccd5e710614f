"""Accuracy and cost of a trained ODE-net when its solver's tolerance is changed at test time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nodelib.experiment.measurement import Measurement
from nodelib.statistics import wilson

if TYPE_CHECKING:
    import pandas as pd

    from nodelib.experiment.artifacts import Run

TOLERANCES = tuple(10.0**-k for k in range(1, 7))
COLUMNS = ["run", "seed", "tolerance", "n", "accuracy", "low", "high", "nfe"]


def measurements(t1: float, n: int, tolerances: Sequence[float] = TOLERANCES) -> list[Measurement]:
    """Clean accuracy at one end time for every tolerance, for `nodelib.experiment.evaluation.evaluate_run` to store."""
    return [Measurement(t1, n, rtol=tolerance, atol=tolerance, label=f"none-tolerance-{tolerance:.0e}")
            for tolerance in tolerances]


def dial(run: Run, n: int, tolerances: Sequence[float] = TOLERANCES) -> pd.DataFrame:
    """Accuracy and NFE of a run at its own end time for every tolerance, as tidy data.

    A record the run has (see `measurements`) is read, whatever its number of images; the rest is
    measured now on the first n test images.

    Returns:
        one row per tolerance: run, seed, tolerance, n, accuracy, low, high (per cent, 95 % Wilson), nfe.
    """
    import pandas as pd

    from nodelib.experiment.evaluation import evaluate, test_subset

    rows, model = [], None
    for measurement in measurements(run.config["test_t1"], n, tolerances):
        record = next((r for r in run.metrics if r["id"] == measurement.id), None)
        if record is None:
            model = model if model is not None else run.load_model()
            correct, nfe = evaluate(model, *test_subset(n), measurement)
            low, high = wilson(int(correct.sum()), n)
            record = {"n": n, "accuracy": correct.mean(), "low": low, "high": high, "nfe": nfe}
        rows.append({"run": run.name, "seed": run.seed, "tolerance": measurement.rtol, "n": record["n"],
                     **{key: 100 * record[key] for key in ("accuracy", "low", "high")}, "nfe": record["nfe"]})
    return pd.DataFrame(rows, columns=COLUMNS)


def dials(runs: Sequence[Run], images: int) -> pd.DataFrame:
    """`dial` of several runs, measuring on at most `images` test images altogether what no run has a record of.

    A page can so execute in about the same time however many runs are stored; runs that lack a record
    share the images evenly.
    """
    import pandas as pd

    lacking = [run for run in runs if not has_records(run)]
    share = max(1, images // max(1, len(lacking)))
    parts = [dial(run, share) for run in runs]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def has_records(run: Run, tolerances: Sequence[float] = TOLERANCES) -> bool:
    """Whether the run has a stored record at every tolerance, so that `dial` measures nothing."""
    return {m.id for m in measurements(run.config["test_t1"], 1, tolerances)} <= {r["id"] for r in run.metrics}


def free_factor(data: pd.DataFrame, points: float = 1.0) -> tuple[float, float]:
    """How far the dial can be relaxed from the tightest tolerance at a cost of at most `points` of accuracy.

    Args:
        data: rows of `dial` of one network, several seeds allowed: means over seeds are compared.

    Returns:
        factor by which NFE falls, and the loosest tolerance that reaches the fewest evaluations.
    """
    means = data.groupby("tolerance")[["accuracy", "nfe"]].mean().sort_index()
    free = means[means["accuracy"] >= means["accuracy"].iloc[0] - points]
    fewest = free["nfe"].min()
    return float(means["nfe"].iloc[0] / fewest), float(free.index[free["nfe"] == fewest].max())
