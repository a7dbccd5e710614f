"""The second round's rules for what the table says (C8 to C12, C14, C19), judged on networks trained by
the post's recipe.

A rule is undecided until its networks have snapshots, and names the epochs reached where they have too few. A
threshold on an effect is judged at half, once and twice its value (`sensitive`). Constants:
`second_round.toml`.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, product
from typing import Any

import numpy as np

from nodelib.experiment import snapshot_records as snapshots
from nodelib.experiment.artifacts import Run
from nodelib.experiment.contract import LADDER, LADDER_EPSILONS
from nodelib.statistics import holm, paired_bootstrap
from nodelib.verdicts import end_time, sharper
from nodelib.verdicts.evidence import (
    MORE_ATTACKS,
    Evidence,
    Missing,
    accuracy_figure,
    matches,
    value_figure,
)
from nodelib.verdicts.predictions import (
    BROKEN,
    KEPT,
    OWN_T1,
    POST,
    ROWS,
    TABLE_T1,
    judge_predictions,
    recorded,
    so_far,
)
from nodelib.verdicts.robustness import HEADLINE_RUN, HEADLINE_T1, complete, long_integration, strongest
from nodelib.verdicts.second_round import constants, sensitive, text
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    Figure,
    Verdict,
    by_share,
    first_round_claim,
)

SIZES, SCHEMES = ("small", "large"), ("10", "random", "100")
UNBROKEN = 0.4  # the epsilon counted for an image that the ladder's largest does not break: one rung further


class TooShort(Missing):
    """Networks of the post's recipe are there, but after too few epochs."""

    def __init__(self, name: str, epochs: float, wanted: float) -> None:
        super().__init__([f"{name}: {epochs:g} of {wanted:g} epochs"], epochs_said(epochs))


def epochs_said(epochs: float) -> str:
    return f"{epochs:g} epoch{'s' * (epochs != 1)}"


@dataclass(frozen=True)
class Band:
    """What the snapshots of the second half of training say of one entry, in per cent."""

    low: float
    median: float
    high: float
    epochs: float
    seeds: int
    shortest: float = 0.0  # epochs that every seed has

    def figure(self, label: str) -> Figure:
        return Figure(label, self.median, self.low, self.high, "%")

    def reaches(self, percent: float, points: float) -> bool:
        """Whether a figure lies in the band, widened by so many points below and above."""
        return self.low - points <= percent <= self.high + points


def band(evidence: Evidence, name: str, t1: float, quantity: str, least: float = 0,
         until: float = math.inf) -> Band:
    """The band of an accuracy of a run by the post's recipe.

    Args:
        quantity: "clean", "fgsm" or "fgsm-margin"; least: epochs that the longest seed must have; until: the
            last epoch looked at, as if training had ended there.

    Raises:
        Missing: no snapshots; TooShort: fewer epochs.
    """
    sample, epochs, runs = [], [], recorded(evidence, name)
    for run in runs:
        by_epoch = {epoch: value for epoch, value in snapshots.values(run.snapshots, quantity, t1).items()
                    if epoch <= until}
        if not by_epoch:
            raise Missing([f"{name}-seed{run.seed}: snapshots at whole epochs, t1 = {t1:g}"])
        epochs.append(max(by_epoch))
        sample += [100 * value for value in snapshots.second_half(by_epoch)]
    if max(epochs) < least:
        raise TooShort(name, max(epochs), least)
    evidence.used += [f"{run.name}-seed{run.seed}: snapshots" for run in runs]
    low, median, high = (float(x) for x in np.percentile(sample, (5, 50, 95)))
    return Band(low, median, high, max(epochs), len(runs), min(epochs))


def one_seed(bands: Iterable[Band]) -> str:
    """ "; one seed" where a band rests on one."""
    alone = [b.seeds == 1 for b in bands]
    return "" if not any(alone) else "; one seed of each" if all(alone) else "; one seed in some rows"


KINDS = {"standard": "clean", "adversarial": "fgsm"}
ENTRIES = tuple(product(ROWS, TABLE_T1, KINDS))


def entry(evidence: Evidence, row: str, t1: float, kind: str) -> Band:
    """Our band beside an entry of the post's table, kind "standard" or "adversarial".

    Raises:
        Missing: no snapshots; TooShort: fewer epochs than C8 asks for.
    """
    return band(evidence, POST[row], t1, KINDS[kind], constants("C8").epochs)


def table(evidence: Evidence) -> Verdict:
    c = constants("C8")

    def inside(bands: dict[tuple[str, float, str], Band], points: float) -> dict[str, list[bool]]:
        """Kind -> whether each of the post's figures lies in its band, so widened; no kind without any."""
        found: dict[str, list[bool]] = {}
        for (row, t1, kind), b in bands.items():
            found.setdefault(kind, []).append(b.reaches(evidence.post(row, t1, kind), points))
        return found

    def counted(found: dict[str, list[bool]]) -> tuple[Figure, ...]:
        return tuple(Figure(f"{kind} entries inside the bands", sum(v), unit=f"of {len(v)}")
                     for kind, v in found.items())

    try:
        bands = evidence.every(partial(entry, evidence), ENTRIES)
    except Missing as missing:
        there, _ = so_far(partial(entry, evidence), ENTRIES)
        raise Missing(missing.what, missing.note, counted(inside(there, c.points))) from missing

    def rule(factor: float) -> Verdict:
        found = inside(bands, factor * c.points)
        total = sum(map(sum, found.values()))
        share = total / len(bands)
        verdict = REPRODUCED if share >= c.share else IN_PART if share >= 0.5 else NOT_REPRODUCED
        return Verdict(verdict, f"{total} of {len(bands)} figures of the post lie in the bands of our "
                       f"networks by its recipe, widened by {c.points:g} points{one_seed(bands.values())}",
                       counted(found))

    return sensitive(rule)


def climbed(run: Run, t1: float) -> np.ndarray | None:
    """Per image the smallest epsilon of the ladder that breaks it, shape (images,), `UNBROKEN` where none
    does; None where the ladder is not stored.

    An image broken at a smaller epsilon counts as broken at a larger one.
    """
    rungs = {r["epsilon"]: r for r in run.metrics if str(r["id"]).startswith(LADDER)
             and matches(r, attack="worst", t1=t1, clip=True, pooling="fixed")}
    if not set(LADDER_EPSILONS) <= set(rungs):
        return None
    smallest = np.full(min(rungs[epsilon]["n"] for epsilon in LADDER_EPSILONS), UNBROKEN)
    for epsilon in reversed(LADDER_EPSILONS):
        smallest[~run.outcomes(rungs[epsilon]["id"])[: len(smallest)]] = epsilon
    return smallest


def _same_images(*found: np.ndarray) -> list[np.ndarray]:
    """The images that all have: the first of the test order, which are fewer for the large networks."""
    n = min(each.shape[-1] for each in found)
    return [each[..., :n] for each in found]


def minimal_epsilon(evidence: Evidence, name: str, t1: float) -> np.ndarray:
    """What `climbed` says of the last weights of a run's seeds, stacked, shape (seeds, images).

    Raises:
        Missing: no seed has climbed the ladder.
    """
    found = [smallest for run in evidence.named(name) if (smallest := climbed(run, t1)) is not None]
    if not found:
        raise Missing([f"{name}: the ladder of epsilons at t1 = {t1:g}"], MORE_ATTACKS)
    return np.stack(_same_images(*found))


def _climbers(evidence: Evidence, name: str, t1: float) -> dict[int, dict[int, np.ndarray]]:
    """What `climbed` says by epochs of training, then by seed: of the last weights and of earlier ones."""
    found: dict[int, dict[int, np.ndarray]] = {}
    for run in (each for run in evidence.named(name) for each in (run, *run.earlier)):
        if (smallest := climbed(run, t1)) is not None:
            found.setdefault(run.config["epochs"], {})[run.seed] = smallest
    if not found:
        raise Missing([f"{name}: the ladder of epsilons at t1 = {t1:g}"], MORE_ATTACKS)
    return found


def by_epochs(evidence: Evidence, name: str, t1: float) -> dict[int, np.ndarray]:
    """As `minimal_epsilon`, by the epochs of training after which the ladder was climbed: at the last weights
    and at earlier ones.
    """
    return {epochs: np.stack(_same_images(*seeds.values()))
            for epochs, seeds in _climbers(evidence, name, t1).items()}


def _alike(evidence: Evidence,
           pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, list[np.ndarray]]]:
    """Of each pair of rows the epochs of training, the most that both have climbed the ladder after, and the
    smallest epsilons of the two then, on the same images.
    """
    found = evidence.every(lambda n: _climbers(evidence, POST[n], OWN_T1[n]), chain(*pairs))
    equal = {pair: max(set(found[pair[0]]) & set(found[pair[1]]), default=0) for pair in pairs}
    if apart := [pair for pair, epochs in equal.items() if not epochs]:
        raise Missing(f"{POST[a]} and {POST[b]}: the ladder of epsilons after equally many epochs"
                      for a, b in apart)
    both = {}
    for pair, epochs in equal.items():
        evidence.used += [f"{POST[n]}-seed{seed}: ladder after {epochs} epochs"
                          for n in pair for seed in found[n][epochs]]
        both[pair] = epochs, _same_images(*(np.stack(_same_images(*found[n][epochs].values()))
                                            for n in pair))
    return both


def more_robust(evidence: Evidence, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether the first of each pair has the larger mean smallest epsilon, on the same images and at weights
    of equal epochs, the most that both have climbed the ladder after; Holm over the pairs.
    """
    both = [smallest for _, smallest in _alike(evidence, pairs).values()]
    differences, ps = zip(*(paired_bootstrap(first, second) for first, second in both))
    return [d > 0 and ok for d, ok in zip(differences, holm(ps, constants("all").significance))]


def smallest_epsilons(evidence: Evidence, pairs: Sequence[tuple[str, str]]) -> tuple[Figure, ...]:
    """The means that `more_robust` compares, each once: over images, of several seeds with their range."""
    found = {f"smallest epsilon of {name}, {epochs} epochs, {each.shape[1]:,} images":
             [float(seed.mean()) for seed in each]
             for pair, (epochs, both) in _alike(evidence, pairs).items() for name, each in zip(pair, both)}
    return tuple(value_figure(label, means) for label, means in found.items())


def in_order(evidence: Evidence,
             pairs: Sequence[tuple[str, float, str, float]]) -> tuple[list[Band], list[bool]]:
    """Bands of FGSM of each (better row, t1, worse row, t1), over equal epochs of both, the most that both
    have, and whether each pair's medians are in that order.
    """
    least, bands = constants("C8").epochs, []
    both = evidence.all(*(partial(band, evidence, POST[n], t1, "fgsm", least)
                          for a, s, b, t in pairs for n, t1 in ((a, s), (b, t))))
    for (a, s, b, t), one, other in zip(pairs, both[::2], both[1::2]):
        epochs = min(one.shortest, other.shortest)
        bands += [band(evidence, POST[n], t1, "fgsm", least, epochs) for n, t1 in ((a, s), (b, t))]
    return bands, [a.median > b.median for a, b in zip(bands[::2], bands[1::2])]


def _judged(robust: bool, in_part: bool, held: Sequence[bool]) -> str:
    """Reproduced if robustness holds, else in part if some of it does, artefact if only the figures do."""
    if robust or in_part:
        return REPRODUCED if robust else IN_PART
    return ARTEFACT if all(held) else NOT_REPRODUCED


def by_robustness(evidence: Evidence, entries: Sequence[tuple[str, float, str, float]],
                  robust: Sequence[bool], groups: Sequence[Sequence[int]],
                  means: tuple[Figure, ...]) -> Verdict:
    """C9 and C10: reproduced if all orders of robustness hold, in part if those of one group do, artefact if
    only the figures' do.
    """
    bands, held = in_order(evidence, entries)
    verdict = _judged(all(robust), any(all(robust[i] for i in group) for group in groups), held)
    return Verdict(verdict, f"the figures keep the post's order in {sum(held)} of {len(held)} comparisons of "
                   f"networks by its recipe, robustness does in {sum(robust)} of "
                   f"{len(robust)}{one_seed(bands)}", means)


def capacity(evidence: Evidence) -> Verdict:
    points = constants("C9").points
    post = lambda size, s, t1: evidence.post(f"{size}-{s}", t1, "adversarial")  # noqa: E731
    pairs = [(f"large-{s}", f"small-{s}") for s in SCHEMES]
    robust, means = more_robust(evidence, pairs), smallest_epsilons(evidence, pairs)

    def rule(factor: float) -> Verdict:
        entries = [(f"large-{s}", t1, f"small-{s}", t1) for s, t1 in product(SCHEMES, TABLE_T1)
                   if post("large", s, t1) - post("small", s, t1) > factor * points]
        return by_robustness(evidence, entries, robust, [[i] for i in range(len(robust))], means)

    return sensitive(rule)


def longer(size: str) -> list[tuple[str, str]]:
    return [(f"{size}-{scheme}", f"{size}-10") for scheme in ("random", "100")]


def longer_training_time(evidence: Evidence) -> Verdict:
    pairs = [pair for size in SIZES for pair in longer(size)]
    return by_robustness(evidence, [(a, OWN_T1[a], b, OWN_T1[b]) for a, b in pairs],
                         more_robust(evidence, pairs), [[0, 1], [2, 3]], smallest_epsilons(evidence, pairs))


def random_end_times(evidence: Evidence) -> Verdict:
    pairs = [("small-random", "small-100"), ("large-100", "large-random")]
    bands, held = in_order(evidence, [(a, 100.0, b, 100.0) for a, b in pairs])
    robust = more_robust(evidence, pairs)
    turning = evidence.every(lambda n: evidence.measured(POST[n], "turning", t1=100.0, part="centred",
                                                         label="all", statistic="median"), pairs[0])
    settles = max(turning["small-random"]) < min(turning["small-100"])
    verdict = _judged(all(robust) and settles, any(robust), held)
    after = f"after {bands[0].epochs:g} epochs of the small, {bands[2].epochs:g} of the large"
    return Verdict(verdict, f"figures in the post's order: {sum(held)} of 2 ({after}); "
                   f"robustness: {sum(robust)} of 2; "
                   f"small-random's state turns {'more slowly' if settles else 'no more slowly'} than that "
                   f"of small-100{one_seed(bands)}",
                   tuple(b.figure(f"{name}, {b.epochs:g} epochs") for name, b in zip(chain(*pairs), bands)))


def keeps_accuracy(evidence: Evidence) -> Verdict:
    c = constants("C12")
    keep = {"small-random": True, "small-100": False, "large-random": True, "large-100": True}
    found = evidence.every(lambda n, t1: band(evidence, POST[n], t1, "clean", constants("C8").epochs),
                           product(keep, (100.0, 500.0)))
    lost = {name: found[name, 100.0].median - found[name, 500.0].median for name in keep}

    def rule(factor: float) -> Verdict:
        holds = [(lost[name] <= factor * c.points) == kept for name, kept in keep.items()]
        return Verdict(by_share(holds), "points lost from t = 100 to 500: "
                       f"{', '.join(f'{n} {v:.1f}' for n, v in lost.items())}{one_seed(found.values())}",
                       tuple(found[name, 500.0].figure(f"{name} at t = 500") for name in keep))

    return sensitive(rule)


def adversarial_nfe(evidence: Evidence) -> Verdict:
    c = constants("C14")

    def training(name: str) -> dict[float, float]:
        """Epoch -> mean evaluations of the training solves of the last quarter before it, seeds averaged."""
        found: dict[float, list[float]] = {}
        for run in evidence.named(name):
            nfe, epoch = (np.asarray(run.history[key], dtype=float) for key in ("nfe_forward", "epoch"))
            for e in range(int(epoch.max()) + 1 if len(epoch) else 0):
                own = nfe[epoch == e]
                found.setdefault(e + 1.0, []).append(float(own[3 * len(own) // 4 :].mean()))
        if not found:
            raise Missing([f"{name}: a history"])
        return {epoch: statistics.fmean(values) for epoch, values in found.items()}

    standard, adversarial = evidence.every(
        training, ("wide-standard-post", "wide-adversarial-post")).values()
    epoch = max(set(standard) & set(adversarial))
    few, many = standard[epoch], adversarial[epoch]

    def rule(factor: float) -> Verdict:
        exact = c.few[0] <= few <= c.few[1] and many > factor * c.many
        verdict = REPRODUCED if exact else IN_PART if many >= c.clear * few else NOT_REPRODUCED
        return Verdict(verdict, f"after {epoch:g} epochs a training solve to t = 1 costs {few:.0f} "
                       f"evaluations in standard and {many:.0f} in adversarial training, by the post's "
                       "recipe; one seed",
                       (Figure("NFE in training, standard", few),
                        Figure("NFE in training, adversarial", many)))

    return sensitive(rule)


def headline_figure(evidence: Evidence) -> Verdict:
    """C19a. Not reproduced where that holds at half, once and twice the threshold; where it does not at half,
    the rule asks for more epochs there, and the claim stays undecided.
    """
    c = constants("C19a")
    b = band(evidence, POST[HEADLINE_RUN], HEADLINE_T1, "fgsm")
    theirs = evidence.post(HEADLINE_RUN, HEADLINE_T1, "adversarial")
    said = (f"by the post's recipe {HEADLINE_RUN} leaves {b.low:.1f} to {b.high:.1f} % in the second half of "
            f"{b.epochs:g} epochs (5th to 95th percentile), where the post has {theirs} %"
            f"{'; one seed' * (b.seeds == 1)}")
    figures = (b.figure("post's recipe and protocol"),)
    if b.high >= theirs:
        outcome = judge_predictions(evidence)
        if outcome["P6"].outcome == BROKEN:
            return Verdict(REPRODUCED, said, figures)
        if outcome["P2b"].outcome == outcome["P6"].outcome == KEPT:
            return Verdict(ARTEFACT, f"{said}; what hides there is the loss, and it protects nothing",
                           figures)
        raise Missing(item for name in ("P2b", "P6")
                      for item in outcome[name].missing or (f"prediction {name}, open",))

    def rule(factor: float) -> Verdict:
        if b.epochs >= c.epochs and b.high < factor * c.far:
            return Verdict(NOT_REPRODUCED, said, figures)
        if b.epochs < c.epochs:
            raise TooShort(POST[HEADLINE_RUN], b.epochs, c.epochs)
        raise Missing([f"more than {b.epochs:g} epochs of {POST[HEADLINE_RUN]}, or a band below "
                       f"{factor * c.far:g} %, {factor:g} times the threshold ({said})"],
                      epochs_said(b.epochs), figures)

    return sensitive(rule)


def robust_when_long(evidence: Evidence) -> Verdict:
    c = constants("C19b")
    strong = strongest(evidence, HEADLINE_RUN, HEADLINE_T1)
    upper, lower = max(a.interval[1] for a in strong), min(a.interval[0] for a in strong)
    left = statistics.fmean(a.percent for a in strong)
    figures = (accuracy_figure("strongest attack", strong),)
    said = (f"the strongest attack at epsilon 0.3 leaves {left:.1f} % of "
            f"{min(a.record['n'] for a in strong):,} images of {HEADLINE_RUN}"
            f"{'; one seed' * (len(strong) == 1)}")

    @cache  # asked for once or not at all, whatever the factors
    def sizes() -> list[str]:
        return [size for size in SIZES if all(more_robust(evidence, longer(size)))]

    def rule(factor: float) -> Verdict:
        if upper < factor * c.chance:
            return Verdict(IN_PART if sizes() else NOT_REPRODUCED,
                           f"{said}; longer training end times make networks of "
                           f"{' and '.join(sizes()) or 'no size'} more robust at smaller epsilon", figures)
        if not complete(strong):
            raise Missing([f"{a.source}: worst case over a set with APGD and Square" for a in strong])
        # no accuracy reaches twice this threshold
        return Verdict(REPRODUCED if lower >= min(factor, 1) * c.robust else IN_PART, said, figures)

    return sensitive(rule)


def renewed(name: str, rule: Callable[[Evidence], Verdict], **changes: Any) -> Claim:
    """A claim that the second round judges anew, with its words of the first and that round's verdict."""
    first = first_round_claim(name.rstrip("ab"), rule)
    return dataclasses.replace(first, id=name, test=text(name), **changes)


CLAIMS = (
    renewed("C8", table),
    renewed("C9", capacity),
    renewed("C10", longer_training_time),
    renewed("C11", random_end_times),
    renewed("C12", keeps_accuracy, until=end_time.keeps_accuracy),
    *(renewed(name, rule, until=sharper.UNTIL.get(name)) for name, rule in sharper.RULES.items()),
    renewed("C14", adversarial_nfe),
    renewed("C19a", headline_figure, page="06-what-made-it",
            statement="One step of FGSM leaves 92.62 % of the images of large-100."),
    renewed("C19b", robust_when_long, post="conclusion from 92.62 %", until=long_integration),
)
