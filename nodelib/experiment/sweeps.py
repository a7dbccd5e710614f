"""Accuracies over a range of epsilons or end times, as tidy data for figures."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pandas as pd
from torch import Tensor

from nodelib.experiment.evaluation import Measurement, evaluate
from nodelib.networks import ODENet, ResNet
from nodelib.statistics import wilson


def sweep(model: ODENet | ResNet, images: Tensor, labels: Tensor, measurement: Measurement, field: str,
          values: Iterable[Any], **columns: object) -> pd.DataFrame:
    """Measure once per value of one field of a measurement.

    Args:
        model, images, labels: as for `nodelib.experiment.evaluation.evaluate`.
        measurement: everything but the swept field.
        field: name of the field, such as "epsilon" or "t1"; values: what it takes in turn.
        columns: constant columns to add, such as attack="FGSM".

    Returns:
        one row per value: the columns given, the field, accuracy with its 95 % Wilson interval low and
        high in per cent, and nfe.
    """
    rows = []
    for value in values:
        correct, nfe = evaluate(model, images, labels, dataclasses.replace(measurement, **{field: value}))
        low, high = wilson(int(correct.sum()), len(correct))
        rows.append({**columns, field: value, "accuracy": 100 * correct.mean(), "low": 100 * low,
                     "high": 100 * high, "nfe": nfe})
    return pd.DataFrame(rows)
