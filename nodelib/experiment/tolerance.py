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


def measurements(t1: float, n: int, tolerances: Sequence[float] = TOLERANCES) -> list[Measurement]:
    """Clean accuracy at one end time for every tolerance, as `evaluate_run` stores it."""
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
    return pd.DataFrame(rows)
