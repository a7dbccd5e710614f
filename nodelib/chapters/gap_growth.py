"""How gaps between logits grow with training, and what one step of FGSM then leaves.

A step of Adam moves a weight by about the rate and never by more than `step_bound` times it, so a logit moves
by about rate times S, the sum of the state's absolute entries. A last GroupNorm that nobody trained has
entries of mean square 1, which makes S about sqrt(2 / pi) times entries times end time, and never grow faster
than entries times end time. Where logits are large the cross-entropy is the perceptron's loss, which has no
scale of its own: gaps that a head of weight 0 learns from it are exactly proportional to rate times S. Where
they are small they grow with the logarithm of the steps, as in gradient descent on separable images (Soudry
et al., 2018; Adam with a falling rate tends to another margin, and faster: Zhang, Zou and Cao, 2024). The two
are added:

    G(E) = a log(steps) + k S sqrt(sum of rate^2 over the epochs)

a and k are fitted, on small rows alone, with the S that was measured in them. What is assumed and not
derived: that the two add; that the second grows like a random walk, with independent steps; that gaps are
normally distributed with a fixed ratio of spread to median; that between end times they are in the ratios of
the first round's networks (`profile`); and S itself, since training shrinks the state (see `STATES`).

The post's figures enter nowhere but in `compare`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.attacks.losses import logit_gap
from nodelib.experiment import horizon
from nodelib.experiment import snapshot_records as snapshots
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import POST_ROWS, ROWS, TABLE_T1, RunConfig, get
from nodelib.statistics import rank_correlation

FITTED_ON = ("small-10-post", "small-random-post", "small-100-post")
STATES = {
    "initial": "the state keeps the scale of an untrained network",
    "relative": "it shrinks by the factor by which the small rows' state shrank",
    "absolute": "training makes S what it is in the small rows, whatever the width and the end time",
}
POST_RATE = 1e-3
RATES = (3e-4, POST_RATE, 3e-3)  # of the phase diagram: the post's, and about a third and three times of it
QUARTILES = 1.349  # distance of a normal distribution's quartiles, in standard deviations
ENOUGH = 0.05  # share of images between the horizons that tells how many of them a step leaves


def step_bound(beta1: float = 0.9, beta2: float = 0.999) -> float:
    """The most that one step of Adam moves a weight, in units of its rate, whatever the gradients were.

    By the inequality of Cauchy and Schwarz on Adam's two means (Kingma and Ba, 2015, section 2.1, give the
    part (1 - beta1) / sqrt(1 - beta2), for a gradient that was 0 at all steps but the last).

    Raises:
        ValueError: unless 0 < beta1 < 1, 0 < beta2 < 1 and beta1^2 < beta2.
    """
    if not (0 < beta1 < 1 and 0 < beta2 < 1 and beta1**2 < beta2):
        raise ValueError(f"beta1 is {beta1}, beta2 {beta2}; they must lie from 0 to 1, and beta1^2 below "
                         "beta2")
    return (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))


@dataclass(frozen=True)
class HeadAlone:
    """A head trained anew on states that are held fixed: what the states were multiplied by, the rate times
    their S (the reach of one step, in logits), and of the images held out the median gap and the share that
    is classified right."""

    factor: float
    reach: float
    gap: float
    right: float


def head_alone(states: Tensor, labels: Tensor, held_out: Tensor, answers: Tensor, factor: float = 1.0, *,
               steps: int = 1782, rate: float = 1e-3, batch: int = 32, classes: int = 10) -> HeadAlone:
    """Train nothing but a linear head, by Adam from weights of 0, on states times a factor.

    Multiplying the states changes neither which images are alike nor what a head can separate, only how far
    one step moves a logit: the trial holds everything else fixed.

    Args:
        states, labels: float32 (N, D) and int (N,), to train on; held_out, answers: (M, D) and (M,), to
            measure the gap on; factor: above 0; steps: of Adam at a constant rate, on batches drawn from
            seed 0, so that two factors see the same images in the same order.
    Raises:
        ValueError: factor not above 0 or not finite.
    """
    if not (0 < factor < math.inf):
        raise ValueError(f"factor is {factor}; it multiplies states and must be a finite number above 0")
    states, held_out = factor * states, factor * held_out
    weight = torch.zeros(classes, states.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=rate)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(states), (batch,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(F.linear(states[index], weight, bias), labels[index]).backward()
        optimizer.step()
    with torch.no_grad():
        logits = F.linear(held_out, weight, bias)
    return HeadAlone(factor, rate * held_out.abs().sum(1).mean().item(),
                     logit_gap(logits).median().item(),
                     (logits.argmax(1) == answers).double().mean().item())


@dataclass(frozen=True)
class Recipe:
    """What decides S and the optimiser's noise.

    channels, size: of the state; low, high: range of the training end time; rate: Adam's, constant but halved
    after the epochs in `halve_after`; steps: per epoch.
    """

    channels: int
    size: int
    low: float
    high: float
    rate: float = POST_RATE
    steps: int = 1782
    halve_after: tuple[int, ...] = (50, 100)

    @classmethod
    def of(cls, config: RunConfig) -> "Recipe":
        """The recipe of a run."""
        return cls(config.channels, config.size, *config.t1, config.learning_rate, config.steps_per_epoch,
                   config.halve_after)

    @property
    def mean(self) -> float:
        """Mean of the training end time."""
        return (self.low + self.high) / 2

    def initial_state(self) -> float:
        """S of a network nobody trained, at the mean end time of training."""
        return math.sqrt(2 / math.pi) * self.channels * self.size**2 * self.mean

    def noise(self, epochs: float) -> float:
        """Root of the sum of squared rates over epochs: the rate times sqrt(epochs) while it is constant."""
        if not epochs > 0:
            raise ValueError(f"epochs is {epochs}; it must be above 0")
        edges = [0.0, *(float(e) for e in self.halve_after if e < epochs), epochs]
        return math.sqrt(sum((self.rate / 2**k) ** 2 * (end - begin)
                             for k, (begin, end) in enumerate(pairwise(edges))))


@dataclass(frozen=True)
class Law:
    """The constants, all of small rows by the post's recipe, and what they were fitted on.

    margin, walk: a and k of the module's equation. spread: standard deviation of gaps over their median.
    leak: share of the images between the two horizons that a step on the cross-entropy leaves and one on the
    margin breaks. state: epochs, S over its initial value, and S, medians over runs at the mean training end
    time. points: snapshots used; sources: runs.
    """

    margin: float
    walk: float
    spread: float
    leak: float
    state: tuple[tuple[float, float, float], ...]
    points: int = 0
    sources: tuple[str, ...] = ()

    def state_sum(self, recipe: Recipe, epochs: float, state: str = "initial") -> float:
        """S after so many epochs under one of `STATES`; before the first and after the last measured epoch as
        at these."""
        if state not in STATES:
            raise ValueError(f"state is {state!r}; it must be one of {', '.join(STATES)}")
        if state == "initial":
            return recipe.initial_state()
        at, relative, absolute = (np.array(column) for column in zip(*self.state))
        chosen = relative if state == "relative" else absolute
        value = math.exp(float(np.interp(math.log(epochs), np.log(at), np.log(chosen))))
        return value * (recipe.initial_state() if state == "relative" else 1.0)

    def median_gap(self, recipe: Recipe, epochs: float, state: str | float = "initial") -> float:
        """Median gap at the own end time after so many epochs, with S under one of `STATES` or a number, such
        as one that was measured."""
        s = self.state_sum(recipe, epochs, state) if isinstance(state, str) else state
        return self.margin * math.log(recipe.steps * epochs) + self.walk * s * recipe.noise(epochs)

    def past(self, threshold: float, gap: float) -> float:
        """Share of images whose gap exceeds a threshold where the median is `gap`."""
        return 0.5 * math.erfc((threshold - gap) / (math.sqrt(2) * self.spread * gap))

    def left(self, clean: float, gap: float, batch: int = 32) -> float:
        """Accuracy in per cent under one step, of `clean` per cent before: lost gradients, and a few of those
        that lost the true class."""
        lost = self.past(horizon.gradient_lost(batch), gap)
        turned = max(0.0, self.past(horizon.true_class_lost()[0], gap) - lost)
        return clean * (lost + self.leak * turned)


def _points(runs: Sequence[Run]) -> pd.DataFrame:
    """What the law is fitted on: a row per snapshot of a small row at a whole epoch."""
    found = []
    for run in runs:
        config = RunConfig.from_dict(run.config)
        recipe, t1 = Recipe.of(config), config.test_t1
        hidden = snapshots.masked(run.snapshots, t1)
        names = ("gap-25", "gap-50", "gap-75", "state-sum", "zero-gradient", "past-17", "past-104")
        table = {name: snapshots.values(run.snapshots, name, t1) for name in names}
        for epoch, gap in table["gap-50"].items():
            at = {name: column[epoch] for name, column in table.items()}
            s, turned = at["state-sum"] * recipe.mean / t1, at["past-17"] - at["past-104"]
            survived = max(0.0, hidden[epoch] / 100 - at["zero-gradient"])
            found.append((epoch, math.log(recipe.steps * epoch), s * recipe.noise(epoch),
                          s / recipe.initial_state(), s, gap,
                          (at["gap-75"] - at["gap-25"]) / QUARTILES / gap,
                          min(1.0, survived / turned) if turned >= ENOUGH else math.nan))
    columns = ["epoch", "log_steps", "walked", "shrunk", "s", "gap", "spread", "leak"]
    return pd.DataFrame(found, columns=columns)


def _law(points: pd.DataFrame, sources: tuple[str, ...]) -> Law:
    from scipy.optimize import nnls

    (margin, walk), _ = nnls(points[["log_steps", "walked"]].to_numpy(), points["gap"].to_numpy())
    state = points.groupby("epoch")[["shrunk", "s"]].median()
    leak = points["leak"].median()
    return Law(float(margin), float(walk), float(points["spread"].median()),
               0.0 if math.isnan(leak) else float(leak),
               tuple(state.itertuples(name=None)), len(points), sources)


def fit(runs: Sequence[Run]) -> Law:
    """The constants, from the snapshots at whole epochs of small rows by the post's recipe among the runs.

    Others are not looked at.

    Raises:
        ValueError: fewer than three such snapshots.
    """
    used = [run for run in runs if run.name in FITTED_ON and run.snapshots]
    points = _points(used)
    if len(points) < 3:
        raise ValueError(f"{len(points)} snapshots of {', '.join(FITTED_ON)} at whole epochs; the fit needs "
                         "3. Train one of them, for 3 epochs or more: `python -m nodelib train "
                         f"{FITTED_ON[0]}`")
    return _law(points, tuple(f"{run.name}-seed{run.seed}" for run in used))


def leave_one_out(runs: Sequence[Run]) -> list[Law]:
    """The law fitted without each of its trainings in turn: how far the constants depend on a single one.
    (Its snapshots resemble each other, so to leave out one of them would show little.)

    Raises:
        ValueError: fewer than two trainings, or fewer than three snapshots without one of them.
    """
    used = [run for run in runs if run.name in FITTED_ON and run.snapshots]
    return [fit([run for run in used if run is not left]) for left in used]


@dataclass(frozen=True)
class Median:
    """A measured median gap at the own end time beside the law's, with the S that was measured and under each
    of `STATES`."""

    run: str
    epoch: float
    found: float
    measured: float
    states: dict[str, float]


def against_snapshots(law: Law, runs: Sequence[Run]) -> list[Median]:
    """The law beside every whole-epoch snapshot of runs by the post's recipe, those that it was not fitted on
    included."""
    rows = []
    for run in runs:
        if not run.name.endswith("-post") or not run.snapshots:
            continue
        config = RunConfig.from_dict(run.config)
        recipe, sums = Recipe.of(config), snapshots.values(run.snapshots, "state-sum", config.test_t1)
        for epoch, gap in snapshots.values(run.snapshots, "gap-50", config.test_t1).items():
            s = sums[epoch] * recipe.mean / config.test_t1
            rows.append(Median(f"{run.name}-seed{run.seed}", epoch, gap, law.median_gap(recipe, epoch, s),
                               {state: law.median_gap(recipe, epoch, state) for state in STATES}))
    return rows


def profile(runs: Sequence[Run]) -> dict[tuple[str, float], float]:
    """(row, end time) -> median gap over that at the own end time, in the first round's networks, geometric
    mean over seeds."""
    found: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        gaps = {float(r["t1"]): r["value"] for r in run.measurements if r["name"] == "logit_gap"}
        own = RunConfig.from_dict(run.config).test_t1
        if run.name in ROWS and own in gaps:
            for t1, gap in gaps.items():
                found.setdefault((run.name, t1), []).append(gap / gaps[own])
    return {key: statistics.geometric_mean(values) for key, values in found.items()}


def clean_accuracies(runs: Sequence[Run]) -> dict[tuple[str, float], float]:
    """(row, end time) -> accuracy in per cent of the first round's networks, pooling redrawn, mean over
    seeds."""
    found: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        for record in run.metrics:
            if run.name in ROWS and record["id"] == f"none-random-t{record['t1']:g}":
                found.setdefault((run.name, float(record["t1"])), []).append(
                    100 * record["correct"] / record["n"])
    return {key: statistics.mean(values) for key, values in found.items()}


def predict(law: Law, stored: Sequence[Run], epochs: float = 30,
            state: str = "initial") -> dict[tuple[str, float], float]:
    """(row, end time) -> accuracy in per cent that one step of FGSM should leave in the post's table, after
    so many epochs.

    Args:
        law: of `fit`; stored: runs of the first round, for accuracies before the attack and ratios of gaps
            between end times (entries that lack either are left out); state: one of `STATES`.
    """
    clean, ratios, found = clean_accuracies(stored), profile(stored), {}
    for row in ROWS:
        gap = law.median_gap(Recipe.of(get(f"{row}-post")), epochs, state)
        for t1 in TABLE_T1:
            if (row, t1) in clean and (row, t1) in ratios:
                found[row, t1] = law.left(clean[row, t1], gap * ratios[row, t1])
    return found


@dataclass(frozen=True)
class Lost:
    """Share of images whose gradient is exactly zero in every pixel, in a snapshot tested at one end time.

    found: in the snapshot; predicted: the law's shares, by what is taken from the snapshot. "measured gaps":
    median gap and accuracy at this end time. "measured state": S at the own end time; ratios of gaps between
    end times and accuracies are those of the first round's networks, here and under each of `STATES`, where
    nothing is taken from the snapshot.
    """

    run: str
    epoch: float
    t1: float
    found: float
    predicted: dict[str, float]


def lost_gradients(law: Law, stored: Sequence[Run]) -> list[Lost]:
    """Lost gradients in whole-epoch snapshots of the rows by the post's recipe, at the table's end times.

    Args:
        law: of `fit`; stored: these runs and those of the first round (end times at which the latter's
            accuracies or gaps are missing are left out).
    """
    clean, ratios, rows = clean_accuracies(stored), profile(stored), []
    threshold = horizon.gradient_lost()
    for run in stored:
        row = run.name.removesuffix("-post")
        medians = against_snapshots(law, [run]) if run.name in POST_ROWS else []
        for t1 in (t1 for t1 in TABLE_T1 if medians and (row, t1) in clean and (row, t1) in ratios):
            zero, right, gaps = (snapshots.values(run.snapshots, name, t1)
                                 for name in ("zero-gradient", "clean", "gap-50"))
            for m in medians:
                predicted = {"measured gaps": right[m.epoch] * law.past(threshold, gaps[m.epoch])}
                for source, gap in {"measured state": m.measured, **m.states}.items():
                    predicted[source] = clean[row, t1] / 100 * law.past(threshold, gap * ratios[row, t1])
                rows.append(Lost(m.run, m.epoch, t1, zero[m.epoch], predicted))
    return rows


def judge(predicted: Sequence[float], found: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation of predictions with what was found, and their root mean square error."""
    return (rank_correlation(list(predicted), list(found)),
            float(np.sqrt(np.mean(np.subtract(predicted, found) ** 2))))


@dataclass(frozen=True)
class Comparison:
    """Predictions against the post's adversarial figures over n entries, in points; best constant: the mean
    of each size's entries."""

    rank: float
    error: float
    constant_rank: float
    constant_error: float
    n: int


def compare(predicted: Mapping[tuple[str, float], float], post: Mapping) -> Comparison:
    """Spearman's correlation and root mean square error of predictions, beside those of the best constant of
    each size.

    Args:
        predicted: of `predict`, at least three entries; post: the content of `data/seed.json`.
    """
    figures = {(e["run"], float(e["t1"])): e["adversarial"] for e in post["table"]}
    keys = [key for key in figures if key in predicted]
    if len(keys) < 3:
        raise ValueError(f"{len(keys)} entries of the post's table are predicted; a comparison needs 3")
    theirs = pd.Series([figures[key] for key in keys])
    constant = theirs.groupby([row.split("-")[0] for row, _ in keys]).transform("mean")
    return Comparison(*judge([predicted[key] for key in keys], theirs.tolist()),
                      *judge(constant.tolist(), theirs.tolist()), len(keys))


def without_theory(post: Mapping) -> dict[str, dict[tuple[str, float], float]]:
    """Entries "predicted" by their mean in the post itself over each size of network, and over each size with
    the end time 1 apart from later ones: what an order is worth that knows so much and no theory.

    post: the content of `data/seed.json`.
    """
    figures = pd.Series({(e["run"], float(e["t1"])): e["adversarial"] for e in post["table"]})
    size = pd.Series([row.split("-")[0] for row, _ in figures.index], figures.index)
    late = pd.Series([t1 > 1 for _, t1 in figures.index], figures.index)
    groups = {"a constant of each size": [size], "of each size, t = 1 apart": [size, late]}
    return {name: figures.groupby([key.to_numpy() for key in keys]).transform("mean").to_dict()
            for name, keys in groups.items()}


@dataclass(frozen=True)
class Phases:
    """Rate -> share of images whose gradient is lost, shape (channels, times), networks tested at the end
    time they are trained to."""

    channels: tuple[int, ...]
    times: tuple[float, ...]
    lost: dict[float, np.ndarray]
    state: str


def phases(law: Law, channels: Sequence[int], times: Sequence[float], *, epochs: float = 30,
           state: str = "initial", rates: Sequence[float] = RATES) -> Phases:
    """The phase diagram over end time and width at each of the rates, after so many epochs."""
    threshold = horizon.gradient_lost()
    lost = {rate: np.array([[law.past(threshold, law.median_gap(Recipe(c, 7, t, t, rate), epochs, state))
                             for t in times] for c in channels]) for rate in rates}
    return Phases(tuple(channels), tuple(times), lost, state)
