"""Looking up what the rules need: metric records, outcomes, measurements, chapter records.

A rule asks for everything by its meaning (which run, which end time, which attack), never by file. What
is not there is collected and raised as `Missing`, which the ledger shows as "undecided".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from nodelib.experiment.artifacts import Run
from nodelib.statistics import wilson
from nodelib.verdicts.verdict import Figure, Missing

EPSILON = 0.3
# what a verdict waits for whose networks were trained otherwise than the post's
ANOTHER_RECIPE = "needs networks by the post's recipe"
MORE_ATTACKS = "needs attacks on networks by the post's recipe"  # which are there

CLEAN = dict(attack="none", pooling="fixed", rtol=1e-3)
CLEAN_POST = dict(attack="none", pooling="random", rtol=1e-3)
"""The post's clean accuracy: pooling regions are redrawn at test time."""
FGSM_POST = dict(attack="fgsm", epsilon=EPSILON, clip=False, pooling="random", gradient="adjoint",
                 loss="cross-entropy", logit_scale=1.0)
"""The post's protocol: not clipped, random pooling, continuous adjoint (torchdiffeq's or ours, see
`RULE_CHANGES`).
"""
PGD_EXACT = dict(attack="pgd", epsilon=EPSILON, clip=True, pooling="fixed", gradient="exact", rtol=1e-3)
WORST = dict(attack="worst", epsilon=EPSILON, clip=True, pooling="fixed", rtol=1e-3)
"""Per image the worst case over all attacks on the deterministic forward pass."""

NAMES = {"clean accuracy (fixed pooling)": CLEAN, "clean accuracy (random pooling)": CLEAN_POST,
         "FGSM by the post's protocol": FGSM_POST, "PGD with the exact gradient": PGD_EXACT,
         "worst case": WORST}


@dataclass(frozen=True)
class Accuracy:
    """One metric record of one run; accuracies in per cent."""

    run: Run
    record: dict

    @property
    def percent(self) -> float:
        return 100 * self.record["correct"] / self.record["n"]

    @property
    def interval(self) -> tuple[float, float]:
        low, high = wilson(self.record["correct"], self.record["n"])
        return 100 * low, 100 * high

    @property
    def source(self) -> str:
        return f"{self.run.name}-seed{self.run.seed}: {self.record['id']}"

    def outcomes(self) -> np.ndarray:
        return self.run.outcomes(self.record["id"])


@dataclass
class Evidence:
    """Everything a rule may look at.

    Fields:
        runs: finished runs.
        seed: content of data/seed.json.
        chapters: claim id -> values a chapter computed, see `nodelib.verdicts.chapters`.
    """

    runs: Sequence[Run]
    seed: dict
    chapters: dict[str, dict] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)

    def fresh(self) -> Evidence:
        """The same evidence with nothing used yet."""
        return Evidence(self.runs, self.seed, self.chapters)

    # -- single look-ups -------------------------------------------------------------------------

    def named(self, name: str) -> list[Run]:
        """All seeds of a run; Missing if there is none."""
        found = [run for run in self.runs if run.name == name]
        if not found:
            raise Missing([f"run {name}"], ANOTHER_RECIPE if "-post" in name else "")
        return sorted(found, key=lambda run: run.seed)

    def accuracies(self, name: str, t1: float, **conditions: Any) -> list[Accuracy]:
        """One record per seed of the run that has one (the one with most images, then with most steps)."""
        found = []
        for run in self.named(name):
            fitting = [r for r in run.metrics if matches(r, t1=t1, **conditions)]
            if fitting:
                best = max(fitting, key=lambda r: (r["n"], (r.get("settings") or {}).get("steps", 0)))
                found.append(Accuracy(run, best))
        if not found:
            raise Missing([f"{name}: {describe(conditions)} at t1 = {t1:g}"])
        self.used += [a.source for a in found]
        return found

    def measured(self, name: str, what: str, **conditions: Any) -> Values:
        """One measurement per seed of the run that has one; see `nodelib.experiment.contract`."""
        records = self._measurements(name, what, **conditions)
        alone = records[0]["settings"] if len(records) == 1 else {}
        return Values([float(record["value"]) for record in records],
                      (alone["low"], alone["high"]) if {"low", "high"} <= set(alone) else None)

    def measured_share(self, name: str, what: str, **conditions: Any) -> Shares:
        """A share of images as `measured`, with how many there were."""
        records = self._measurements(name, what, **conditions)
        return Shares([float(record["value"]) for record in records], [record["n"] for record in records])

    def _measurements(self, name: str, what: str, **conditions: Any) -> list[dict]:
        """The records behind `measured`: the latest that fits of each seed; Missing if no seed has one."""
        records = []
        for run in self.named(name):
            fitting = [m for m in run.measurements if m["name"] == what and matches(m, **conditions)]
            if fitting:
                records.append(fitting[-1])
                self.used.append(f"{run.name}-seed{run.seed}: {what}")
        if not records:
            raise Missing([f"{name}: measurement {what} ({describe(conditions)})"])
        return records

    def chapter(self, claim: str, *names: str) -> list[Any]:
        """Values a chapter recorded for a claim, in the order of `names`."""
        values = self.chapters.get(claim, {})
        absent = [name for name in names if name not in values]
        if absent:
            raise Missing(f"data/claims/{claim}.json: {name}" for name in absent)
        self.used.append(f"data/claims/{claim}.json")
        return [values[name] for name in names]

    def post(self, name: str, t1: float, which: str) -> float:
        """The post's accuracy in per cent, `which` being "standard" or "adversarial"."""
        for entry in self.seed["table"]:
            if entry["run"] == name and math.isclose(entry["t1"], t1):
                return entry[which]
        raise Missing([f"data/seed.json: {name} at t1 = {t1:g}"])

    # -- many at once ----------------------------------------------------------------------------

    def all(self, *questions: Callable[[], Any]) -> list[Any]:
        """Ask all questions before complaining, so that what is missing is listed completely."""
        answers, missing, notes = [], [], []
        for question in questions:
            try:
                answers.append(question())
            except Missing as absent:
                missing += absent.what
                notes.append(absent.note)
        if missing:  # a network that is not there says more than one that is too young
            raise Missing(missing, ANOTHER_RECIPE if ANOTHER_RECIPE in notes else max(notes))
        return answers

    def every(self, look_up: Callable[..., Any], keys: Iterable[Any], **conditions: Any) -> dict[Any, Any]:
        """Key -> answer of a look-up under the same conditions, all asked as by `all`.

        Args:
            look_up: called with the key, or with its entries where it is a tuple.
        """
        keys = list(keys)
        arguments = [key if isinstance(key, tuple) else (key,) for key in keys]
        return dict(zip(keys, self.all(*(partial(look_up, *each, **conditions) for each in arguments))))


class Values(list):
    """One number per seed; `interval`, with one seed, the 95 % interval of its median over images, where that
    is stored.
    """

    def __init__(self, values: Iterable[float], interval: tuple[float, float] | None) -> None:
        super().__init__(values)
        self.interval = interval


@dataclass(frozen=True)
class Shares:
    """A share of images in every seed: `values` from 0 to 1, of `counts` images."""

    values: list[float]
    counts: list[int]

    @property
    def interval(self) -> tuple[float, float]:
        """Per cent: with one seed the 95 % interval over images, with several their range."""
        if len(self.values) == 1:
            low, high = wilson(round(self.values[0] * self.counts[0]), self.counts[0])
            return 100 * low, 100 * high
        return 100 * min(self.values), 100 * max(self.values)

    def __str__(self) -> str:
        percent, (low, high) = f"{100 * sum(self.values) / len(self.values):.1f} %", self.interval
        return (f"{percent} (95 % interval {low:.1f} to {high:.1f}, {self.counts[0]:,} images)"
                if len(self.values) == 1 else percent)

    def figure(self, label: str) -> Figure:
        """As a figure of the ledger, in per cent."""
        return value_figure(label, [100 * v for v in self.values], "%", self.interval)


def matches(record: dict, **conditions: Any) -> bool:
    """Whether a record has all the values asked for, looked up in it and then in its settings."""
    settings = record.get("settings") or {}
    for key, wanted in conditions.items():
        found = record[key] if record.get(key) is not None else settings.get(key)
        if isinstance(wanted, float) and isinstance(found, (int, float)):
            if not math.isclose(found, wanted, rel_tol=1e-6):
                return False
        elif found != wanted:
            return False
    return True


def describe(conditions: dict[str, Any]) -> str:
    """Conditions in words, a protocol by its name."""
    for name, protocol in NAMES.items():
        if conditions == protocol:
            return name
    return ", ".join(f"{key} = {value}" for key, value in conditions.items())


def percents(found: Sequence[Accuracy]) -> list[float]:
    return [a.percent for a in found]


def value_figure(label: str, values: Sequence[float], unit: str = "",
                 interval: tuple[float, float] | None = None) -> Figure:
    """Mean over seeds with their range; with one seed its 95 % interval over images, where that is known:
    given here, or by the `values` themselves.
    """
    if len(values) == 1:
        low, high = interval or getattr(values, "interval", None) or (None, None)
        return Figure(label, values[0], low, high, unit)
    return Figure(label, sum(values) / len(values), min(values), max(values), unit)


def accuracy_figure(label: str, found: Sequence[Accuracy]) -> Figure:
    """`value_figure` of accuracies in per cent."""
    return value_figure(label, percents(found), "%", found[0].interval)
