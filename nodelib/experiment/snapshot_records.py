"""Snapshots of a network in training: the records of `snapshots.csv`, and how to look things up in them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodelib.experiment import records
from nodelib.solver.errors import check_choice

COLUMNS = {"epoch": float, "step": int, "t1": float, "quantity": str, "value": float, "n": int}

QUANTITIES = {
    "clean": "share of images classified correctly, pooling redrawn",
    "fgsm": "the same under one step on the cross-entropy by the post's protocol",
    "fgsm-margin": "the same under one step on the margin loss, otherwise by the post's protocol",
    "random-signs": "the same under random signs of the same length",
    "zero-gradient": "share of images whose gradient of the cross-entropy (adjoint) is exactly zero in every "
                     "pixel",
    "past-17": "share of images whose two largest logits differ by more than 17, where the softmax rounds to "
               "1 in float32",
    "past-104": "share of images whose two largest logits differ by more than 104, where its other entries "
                "round to 0",
    "gap-05": "5th percentile of the distance of the two largest logits",
    "gap-25": "25th percentile of it",
    "gap-50": "median of it",
    "gap-75": "75th percentile of it",
    "gap-95": "95th percentile of it",
    "state-sum": "mean over images of the sum of the state's absolute entries",
    "nfe": "function evaluations of a forward solve, mean over batches",
    "jacobian-norm": "largest singular value of df/dz along the path from 0 to t1, median over images",
    "path-turning": "radians by which the velocity turns on that path, median over images",
    "accepted-steps": "accepted steps of a solve of one image, median over images",
    "step-size": "size of an accepted step of a solve of one image, median over steps and images",
}
SHARES = frozenset(("clean", "fgsm", "fgsm-margin", "random-signs", "zero-gradient", "past-17", "past-104"))


@dataclass(frozen=True, order=True)
class SnapshotRecord:
    """One value of one snapshot.

    epoch: passes over the training images, a fraction within the first; step: optimiser steps; t1: end time
    of the test; quantity: one of `QUANTITIES`; value: a share from 0 to 1 for `SHARES`, else as the quantity
    says; n: number of images.
    """

    epoch: float
    step: int
    t1: float
    quantity: str
    value: float
    n: int

    def __post_init__(self) -> None:
        check_choice("quantity", self.quantity, QUANTITIES)
        if not math.isfinite(self.value) or (self.quantity in SHARES and not 0 <= self.value <= 1):
            raise ValueError(f"{self.quantity} is {self.value}; it must be finite, and a share from 0 to 1")
        if self.n < 1 or self.step < 0 or not self.epoch >= 0:
            raise ValueError(f"n is {self.n}, step {self.step}, epoch {self.epoch}; they must be at least 1, "
                             "0 and 0")


def to_csv(rows: Iterable[SnapshotRecord]) -> bytes:
    """The records as CSV, sorted by step, end time and quantity: a change is a readable difference."""
    rows = sorted(rows, key=lambda r: (r.step, r.t1, r.quantity))
    return records.to_csv(map(vars, rows), COLUMNS, digits=6)


def from_csv(path: Path) -> list[SnapshotRecord]:
    """The records of a file, none where there is no file.

    Raises:
        ArtifactError: another header, or a line that is no record; the message names file and line.
    """
    return records.from_csv(path, COLUMNS, SnapshotRecord)


def values(rows: Sequence[SnapshotRecord], quantity: str, t1: float, *,
           whole_epochs: bool = True) -> dict[float, float]:
    """Epoch -> value of one quantity at one end time, rising; by default at whole epochs only."""
    check_choice("quantity", quantity, QUANTITIES)
    return {r.epoch: r.value for r in sorted(rows)
            if r.quantity == quantity and math.isclose(r.t1, t1)
            and (not whole_epochs or (r.epoch >= 1 and r.epoch == int(r.epoch)))}


def masked(rows: Sequence[SnapshotRecord], t1: float) -> dict[float, float]:
    """Epoch -> masked points: per cent left by FGSM on the cross-entropy minus that on the margin loss."""
    hidden, shown = values(rows, "fgsm", t1), values(rows, "fgsm-margin", t1)
    return {epoch: 100 * (hidden[epoch] - shown[epoch]) for epoch in hidden if epoch in shown}


def second_half(by_epoch: dict[float, float]) -> list[float]:
    """The values at epochs above half of the last one, the sample that a band is made of."""
    last = max(by_epoch, default=0)
    return [value for epoch, value in by_epoch.items() if epoch > last / 2]
