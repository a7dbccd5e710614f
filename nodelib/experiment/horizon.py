"""The float32 horizon: where single precision loses the gradient of the cross-entropy, term by term.

Let z be the logits of an image of class y, g_j = z_y - z_j > 0 for every wrong class j, and N the images of a
mean loss. The exact gradient with respect to z_j is p_j / N, and to z_y it is minus the sum of these. As
`torch.nn.functional.cross_entropy` computes it (u = log(sum of exp(z_j - max z)), then exp(z_j - max z - u) /
N - [j = y] / N), with exp and log rounded faithfully:

1. The true class's entry is exactly 0 if the exp(-g_j) sum to at most 2^-24, the half of what float32 can add
   to 1; it is not 0 if one of them alone is larger. For the nearest wrong class that is a gap of 24 ln 2, for
   nine wrong classes alike at most ln 9 more, by the order of summation.
2. Every entry is exactly 0 if exp(-g_j) / N rounds to 0 for the nearest wrong class: past (150 - log2(N + 1))
   ln 2 for N a power of 2 from 2 on (half the smallest number is 2^-150, and a tie rounds to 0), past 150 ln
   2 for N = 1, and past (126 - log2 N) ln 2 where subnormal numbers are flushed to 0.
3. A factor s on the logits multiplies the gaps in 1 and 2, and what is left of the gradient, but brings
   nothing back that is 0.

Between 1 and 2 a step still has a direction, another one: the wrong logit's gradient a, no longer a - b with
b that of the true logit. See `turned` for what that costs. The book's chapter has the proof; the thresholds
are tested against torch, number for number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nodelib.experiment import snapshot_records
from nodelib.experiment.configs import TABLE_T1
from nodelib.experiment.measurement import SEED_BATCH
from nodelib.experiment.snapshot_records import SnapshotRecord
from nodelib.networks import CLASSES
from nodelib.statistics import rank_correlation

ROUNDOFF = 24  # 1 + 2^-24 is 1 in float32
HALF_SMALLEST = 150  # 2^-150 is 0 in float32
SMALLEST_NORMAL = 126


def true_class_lost(classes: int = CLASSES) -> tuple[float, float]:
    """Gaps to the nearest wrong class: up to the first the true class keeps its entry, past the second not.

    Between the two it depends on the other classes' gaps and on the order of summation.
    """
    if classes < 2:
        raise ValueError(f"classes is {classes}; it must be at least 2")
    kept = ROUNDOFF * math.log(2)
    return kept, kept + math.log(classes - 1)


def gradient_lost(batch: int = SEED_BATCH, flush: bool = False) -> float:
    """The gap to the nearest wrong class beyond which every entry of the logits' gradient is exactly zero.

    Args:
        batch: images of the mean loss, a power of 2, for which 1 / batch is exact; the post's 32.
        flush: whether subnormal numbers are flushed to zero, as some processors and libraries do.
    """
    if batch < 1 or batch & (batch - 1):
        raise ValueError(f"batch is {batch}; the exact threshold is known for powers of 2, such as 32")
    if flush:
        return (SMALLEST_NORMAL - math.log2(batch)) * math.log(2)
    return (HALF_SMALLEST - (math.log2(batch + 1) if batch > 1 else 0)) * math.log(2)


@dataclass(frozen=True)
class Turned:
    """What is left of a step of signs whose direction lost the true class.

    signs: share of pixels whose sign is still right; gain: the first-order change of the margin, as a share
    of what the full gradient's signs bring, so that a step of 0.3 does the work of 0.3 times it.
    """

    signs: float
    gain: float


def turned(correlation: float = 0.0, ratio: float = 1.0) -> Turned:
    """The step along sign(a) instead of sign(a - b): a the gradient of the wrong logit, b of the true one.

    Pixels are taken as jointly normal. The share of equal signs of two normal variables of correlation c is
    1 - arccos(c) / pi (Sheppard, 1899), and E[sign(a) (a - b)] / E|a - b| is c itself: c the correlation of a
    and a - b.

    Args:
        correlation: of a and b, from -1 to 1; ratio: standard deviation of b over that of a, at least 0.

    Raises:
        ValueError: outside these ranges, or a - b zero throughout.
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation is {correlation}; it must be from -1 to 1")
    if not ratio >= 0:
        raise ValueError(f"ratio is {ratio}; it must be at least 0")
    spread = math.sqrt(max(0.0, 1 + ratio**2 - 2 * correlation * ratio))
    if spread == 0:
        raise ValueError("a and b are equal; their difference has no direction")
    c = max(-1.0, min(1.0, (1 - correlation * ratio) / spread))
    return Turned(1 - math.acos(c) / math.pi, c)


EXPLANATIONS = ("gap-50", "past-17", "past-104", "zero-gradient")


@dataclass(frozen=True)
class Explains:
    """How well a quantity of snapshots ranks their masked points: Spearman's correlation over n of them."""

    quantity: str
    correlation: float
    n: int


def explanations(runs: Mapping[str, Sequence[SnapshotRecord]],
                 times: Sequence[float] = TABLE_T1) -> list[Explains]:
    """Which quantity predicts masked points at whole epochs: one row for each of `EXPLANATIONS`, the best
    first.

    Args:
        runs: label -> records of a run's `snapshots.csv`, of which each whole epoch is a point at each of
            the end times.
        times: end times, of those of the table.
    """
    points: list[tuple[float, ...]] = []
    for records in runs.values():
        for t1 in times:
            columns = [snapshot_records.values(records, name, t1)
                       for name in ("fgsm", "fgsm-margin", *EXPLANATIONS)]
            common = set(columns[0]).intersection(*columns[1:])
            points += [tuple(column[epoch] for column in columns) for epoch in sorted(common)]
    masked = [p[0] - p[1] for p in points]
    found = [Explains(name, rank_correlation(masked, [p[k] for p in points]), len(points))
             for k, name in enumerate(EXPLANATIONS, 2)]
    return sorted(found, key=lambda row: -row.correlation)
