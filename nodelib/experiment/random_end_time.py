"""A network that draws its end time at every use, attacked with and without knowledge of that.

Randomness at test time is a defence nobody declared until the attacker averages over it (expectation over
transformation: Athalye, Carlini and Wagner, 2018, section 4.2).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nodelib.attacks import Attack
from nodelib.networks import ODENet, check_end_time
from nodelib.solver.errors import check_whole
from nodelib.statistics import bootstrap_interval, wilson

STEPS = 10
BATCH = 100  # images per solve


def share_correct(model: ODENet, images: Tensor, labels: Tensor, end_times: Sequence[float]) -> np.ndarray:
    """Share of the end times at which the network classifies each image correctly, in [0, 1], shape (N,).

    One solve serves all end times.
    """
    times = sorted(end_times)
    parts = []
    with torch.no_grad():
        for x, y in zip(images.split(BATCH), labels.split(BATCH)):
            states = model.block.trajectory(model.stem(x), times)
            parts.append(torch.stack([model.head(state).argmax(1) == y for state in states]).float().mean(0))
    return torch.cat(parts).cpu().numpy()


def random_end_time_accuracy(model: ODENet, images: Tensor, labels: Tensor, between: tuple[float, float],
                             epsilons: Sequence[float], *, draws: int = 4, uses: int = 12) -> pd.DataFrame:
    """Accuracy of a network whose end time is uniform, under PGD that knows it, attacks one or attacks
    several.

    Args:
        model: in eval mode, with fixed pooling.
        images: shape (N, 1, 28, 28), in [0, 1]; labels: shape (N,), 0 to 9.
        between: lowest and highest end time, as in the training of the random-time rows.
        epsilons: radii of the l-infinity ball, 0 to 1; pixels are clipped.
        draws: end times, spread evenly, that the averaging attacker takes the mean of every gradient over.
        uses: end times to score with, the same for all attackers, one drawn in each of so many equal parts
            of the range. The attacker who knows the end time in use attacks anew at each.

    Returns:
        one row per epsilon and attacker: attacker ("knows the end time", "one end time", the middle, or
        "mean of <draws>"), epsilon, accuracy with its 95 % interval over images, low and high, in per cent,
        n; and what it leaves more than the first attacker, in points, `more`, with its 95 % bootstrap
        interval over the same images, more_low and more_high. The accuracy's interval is Wilson's, of as many
        images right or wrong: where an image is right for some end times only, it is wider than need be.

    Raises:
        ValueError: an end time or epsilon out of range, or draws or uses below 1, before any work.
    """
    low, high = (check_end_time(t) for t in between)
    if high <= low:
        raise ValueError(f"between is {between}; the upper end time must be above the lower, or nothing is "
                         "random")
    check_whole("draws", draws, 1)
    check_whole("uses", uses, 1)
    # at epsilon 0 nothing moves, whatever the step
    plans = [Attack("pgd", epsilon, epsilon / 4 or 1.0, STEPS, seed=0) for epsilon in epsilons]
    within = np.random.default_rng(0).uniform(size=uses)
    used = (low + (high - low) / uses * (np.arange(uses) + within)).tolist()
    spread = [low + (high - low) * (k + 0.5) / draws for k in range(draws)]
    rows = []
    for plan in plans:
        def attacked(t1: float | list[float], plan: Attack = plan) -> Tensor:
            attack = dataclasses.replace(plan, t1=t1)
            return torch.cat([attack(model, x, y) for x, y in zip(images.split(BATCH), labels.split(BATCH))])

        shares = {"knows the end time": np.mean([share_correct(model, attacked(t), labels, [t])
                                                 for t in used], axis=0),
                  "one end time": share_correct(model, attacked((low + high) / 2), labels, used),
                  f"mean of {draws}": share_correct(model, attacked(spread), labels, used)}
        known = next(iter(shares.values()))
        for attacker, right in shares.items():
            lowest, highest = wilson(right.sum(), len(right))
            least, most = bootstrap_interval(right[None], known[None])
            rows.append({"attacker": attacker, "epsilon": plan.epsilon, "accuracy": 100 * float(right.mean()),
                         "low": 100 * lowest, "high": 100 * highest, "n": len(right),
                         "more": 100 * float((right - known).mean()), "more_low": 100 * least,
                         "more_high": 100 * most})
    return pd.DataFrame(rows)
