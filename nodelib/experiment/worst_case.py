"""The worst case per image over a run's records, and which images are broken already.

The smallest robust accuracy known is not that of the strongest attack but that of all attacks together:
an image counts as broken if any of them broke it. Records of a smaller epsilon count too, because their
balls lie inside; so the worst case falls with epsilon by construction.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from nodelib.experiment.contract import LADDER, LADDER_CHECK, SWEPT
from nodelib.experiment.measurement import Measurement


def inside(record: dict, measurement: Measurement) -> bool:
    """Whether a record's images lie in the measurement's ball and box, and were scored on the same network.

    The same network means the same end time, fixed pooling and the same solver tolerance; batches may
    differ. Clean images lie in every ball. Of the ladder only its own records count, and in an epsilon sweep
    neither the ladder nor its check does, so that every network is broken by the same attacks.
    """
    same = (math.isclose(record["t1"], measurement.t1) and record["pooling"] == "fixed"
            and math.isclose(record["rtol"], measurement.rtol)
            and math.isclose(record["atol"], measurement.atol))
    if not same or record["attack"] == "worst":
        return False
    if measurement.label.startswith(LADDER) and not str(record["id"]).startswith(LADDER):
        return False
    if measurement.label.startswith(SWEPT) and str(record["id"]).startswith((LADDER, LADDER_CHECK)):
        return False
    return record["attack"] == "none" or (record["clip"] is True
                                          and record["epsilon"] <= measurement.epsilon + 1e-9)


def survivors(records: Iterable[dict], outcomes: Callable[[str], np.ndarray], measurement: Measurement,
              ) -> tuple[np.ndarray, list[str]]:
    """Which of the first n images no record has broken, and the ids of the records that were asked.

    Args:
        records: of the run; outcomes: record id -> per image whether it was classified correctly.
        measurement: of its n, t1, epsilon and tolerance; a record on fewer images speaks for those only.

    Returns:
        bool, shape (n,); ids in the order of the records.
    """
    alive, ids = np.ones(measurement.n, dtype=bool), []
    for record in records:
        if inside(record, measurement) and record["id"] != measurement.id:
            correct = outcomes(record["id"])[:measurement.n]
            alive[:len(correct)] &= correct
            ids.append(record["id"])
    return alive, ids
