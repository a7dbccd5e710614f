"""Intervals, and the two default tests: an entry within tolerance, an ordering on the same images."""

import math
from collections.abc import Sequence

import numpy as np

ENTRY_TOLERANCE = 3.0
"""Points by which an accuracy may miss the post's and still reproduce it: an allowance for what retraining
with another random seed moves, since the post gives one run without a spread."""

SIGNIFICANCE = 0.01
"""Level of McNemar's test for an ordering; about thirty orderings are tested in all, so that at 0.05
one or two would come out by chance."""

SEEDS_DRAWN = 3
"""Seeds from which on an interval is over seeds and images together, not over images alone."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p value that two classifiers err equally often on the same images.

    Under the null hypothesis each image on which exactly one of them is right favours either with
    probability 1/2 (McNemar, 1947; exact binomial form). Computed in integers, hence without overflow
    or cancellation.

    Args:
        first, second: whether each image was classified correctly, bool, shape (n,), same images.

    Returns:
        p in (0, 1]; 1 if they never differ.

    Raises:
        ValueError: the shapes differ or are not one-dimensional.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"outcomes have shapes {first.shape} and {second.shape}; they must be equal and "
                         "one-dimensional: one entry per image, for the same images")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    term, tail = 1, 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, max(2 * tail / 2**n, math.ulp(0.0)))  # too small for a float is still not 0


def on_common(*outcomes: np.ndarray) -> list[np.ndarray]:
    """Outcomes of records of any sizes on the images that all hold, the leading ones of the test order."""
    n = min(map(len, outcomes))
    return [each[:n] for each in outcomes]


def holm(ps: Sequence[float], level: float) -> list[bool]:
    """Which of several p values are significant together at a level (Holm, 1979), in their order.

    Raises:
        ValueError: a p value is NaN or outside [0, 1].
    """
    if any(not 0 <= p <= 1 for p in ps):  # NaN as well
        raise ValueError(f"p values are {list(ps)}; they must be from 0 to 1, what was not tested left out")
    order, found = sorted(range(len(ps)), key=lambda i: ps[i]), [False] * len(ps)
    for rank, i in enumerate(order):
        if ps[i] > level / (len(ps) - rank):
            break
        found[i] = True
    return found


def _check_samples(networks: Sequence[np.ndarray]) -> None:
    """ValueError unless each is of shape (seeds, images), none empty, all finite, and of the same images."""
    if len({each.shape[1:] for each in networks}) > 1 or any(each.ndim != 2 for each in networks):
        raise ValueError(f"values have shapes {' and '.join(str(each.shape) for each in networks)}; needed "
                         "are (seeds, images) with the same images")
    if any(not each.size or not np.isfinite(each).all() for each in networks):
        raise ValueError("values are empty or not all finite; give at least one seed and one image, and "
                         "leave out what was not measured")


def _resampled_means(networks: Sequence[np.ndarray], resamples: int) -> np.ndarray:
    """Means of networks' values (seeds, images) over drawn images, the same in all, and over drawn seeds,
    each network's on their own; shape (networks, resamples). The draws are the same at every call.
    """
    _check_samples(networks)
    random, n = np.random.default_rng(0), networks[0].shape[1]
    means = np.empty((len(networks), resamples))
    for start in range(0, resamples, 500):  # so few at once that they stay in the processor's cache
        drawn = means[:, start : start + 500]
        images = random.integers(n, size=(drawn.shape[1], n))
        for found, values in zip(drawn, networks):
            by_seed = values[:, images].mean(2).T
            seeds = random.integers(len(values), size=by_seed.shape)
            found[:] = np.take_along_axis(by_seed, seeds, 1).mean(1)
    return means


def paired_bootstrap(first: np.ndarray, second: np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """Mean difference of two networks' values on the same images, and its two-sided bootstrap p value.

    Images are drawn in pairs, the seeds of each network independently of the other's (hierarchical
    bootstrap, Efron and Tibshirani, 1993, chapter 8).

    Args:
        first, second: values, shape (seeds, images); the seeds may differ in number, the images are the same.

    Raises:
        ValueError: other shapes, no values, or some that are not finite.
    """
    first_means, second_means = _resampled_means((first, second), resamples)
    means = first_means - second_means
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return float(first.mean() - second.mean()), min(1.0, 2 * (int(tail) + 1) / (resamples + 1))


def bootstrap_interval(first: np.ndarray, second: np.ndarray | None = None, level: float = 0.95,
                       resamples: int = 10_000) -> tuple[float, float]:
    """Percentile interval of a network's mean, or of its mean difference from a second on the same images.

    Images are drawn as in `paired_bootstrap`. So are the seeds of a network that has `SEEDS_DRAWN` or more;
    fewer tell too little of how seeds differ, and the interval is then over images alone, of these seeds.

    Args:
        first, second: values, shape (seeds, images); the seeds may differ in number, the images are the same.
        level: of the interval, between 0 and 1.

    Returns:
        lower and upper end, in the unit of the values.

    Raises:
        ValueError: other shapes, no values, or some that are not finite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1, such as 0.95")
    given = [first] if second is None else [first, second]
    _check_samples(given)
    networks = [each if len(each) >= SEEDS_DRAWN else each.mean(0, keepdims=True) for each in given]
    means = _resampled_means(networks, resamples)
    low, high = np.quantile(means[0] if second is None else means[0] - means[1],
                            ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def within_tolerance(ours: Sequence[float], theirs: float) -> bool:
    """The default rule of a table entry: |mean over our seeds - theirs| <= max(3 points, our seeds' range).

    Args:
        ours: our accuracies in per cent, one per seed, at least one.
        theirs: the post's accuracy in per cent.
    """
    if not len(ours):
        raise ValueError("ours is empty; a table entry needs the accuracy of at least one seed")
    spread = max(ours) - min(ours)
    return abs(sum(ours) / len(ours) - theirs) <= max(ENTRY_TOLERANCE, spread)


def wilson(correct: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default (Wilson, 1927).

    Args:
        correct: successes, 0 to n.  n: trials, at least 1.
        z: normal quantile of the two-sided level, above 0.

    Returns:
        lower and upper end, in [0, 1].
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"correct is {correct} of n = {n}; needed are n >= 1 and 0 <= correct <= n")
    if not 0 < z < math.inf:
        raise ValueError(f"z is {z}; it must be a finite number above 0, such as 1.96 for 95 %")
    p, spread = correct / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    # exact at both ends, where rounding would leave a residue
    return (max(0.0, centre - half) if correct else 0.0), (min(1.0, centre + half) if correct < n else 1.0)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; 0 below three pairs or for a constant."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return 0.0
    return float(spearmanr(list(first), list(second)).statistic)


def welch_interval(first: Sequence[float], second: Sequence[float],
                   level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the difference of two means, of at least two independent values each, whose
    spreads may differ (Welch, 1947). Of three seeds each it is about twice as wide as one by resampling them.
    """
    from scipy.stats import ttest_ind

    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} values given; the interval needs at least two each")
    low, high = ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(low), float(high)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of at least two independent values."""
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be between 0 and 1")
    if len(values) < 2:
        raise ValueError(f"{len(values)} value given; an interval of the mean needs at least two")
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    half = float(t.ppf((1 + level) / 2, len(values) - 1) * error)
    return float(mean) - half, float(mean) + half
