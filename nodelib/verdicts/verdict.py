"""What a claim is, what a verdict is, and the figures that carry it."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from nodelib.verdicts.evidence import Evidence

REPRODUCED = "reproduced"
IN_PART = "in part"
NOT_REPRODUCED = "not reproduced"
ARTEFACT = "artefact"  # the figure reproduces, the reason given for it does not hold
UNDECIDED = "undecided"
VERDICTS = (REPRODUCED, IN_PART, NOT_REPRODUCED, ARTEFACT, UNDECIDED)


class Missing(LookupError):
    """Evidence that is not there; `what` lists it in words, `note` says in two or three what the verdict
    waits for, `ours` are figures that are there and decide nothing yet.
    """

    def __init__(self, what: Iterable[str], note: str = "", ours: "tuple[Figure, ...]" = ()) -> None:
        self.what, self.note, self.ours = list(what), note, ours
        super().__init__("; ".join(self.what))


@dataclass(frozen=True)
class Figure:
    """A number of ours with its uncertainty.

    Fields:
        label: what it is.
        value: the number, in `unit` ("%" for accuracies).
        low, high: with one seed the 95 % interval over images where there is one, with several seeds
            their range; None where the number has neither.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.label}: {_number(self.value)}"
        if self.low is not None and self.high is not None:
            text += f" [{_number(self.low)}, {_number(self.high)}]"
        return text + unit


def _number(value: float) -> str:
    if isinstance(value, int):  # a count
        return f"{value:,}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


@dataclass(frozen=True)
class Verdict:
    """The outcome of a rule.

    Fields:
        verdict: one of `VERDICTS`.
        reason: one or two sentences: which condition decided.
        ours: our figures.
        evidence: where they come from, "<run>-seed<k>: <record id>" or a chapter's record, each once, in the
            order in which the rule asked.
        missing: runs, records and measurements that were wanted and not there; complete for "undecided".
        note: of an undecided verdict, what it lacks in a few words, such as "4 epochs"; of another, the
            networks of which it knows one seed.
    """

    verdict: str
    reason: str
    ours: tuple[Figure, ...] = ()
    evidence: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict is {self.verdict!r}; it must be one of {', '.join(VERDICTS)}")
        if self.verdict == UNDECIDED and not self.missing:
            raise ValueError("an undecided verdict must name what is missing")


@dataclass(frozen=True)
class Claim:
    """A statement of the post, with the rule that judges it.

    Fields:
        id: "C1" to "C22"; of a claim in two parts with a letter, "C19a".
        statement: the claim, in our words.
        post: the figure the post gives for it, or a dash.
        test: the rule in words; the code in `rule` is what counts.
        page: the chapter that shows it, without its ending.
        rule: from evidence to a verdict.
        first_round: the first round's verdict, by the rule as it was then.
        until: the first round's rule, where it judges until the second's evidence is there.
    """

    id: str
    statement: str
    post: str
    test: str
    page: str
    rule: Callable[[Evidence], Verdict]
    _: KW_ONLY
    first_round: str
    until: Callable[[Evidence], Verdict] | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Where the claim stands in the ledger: number, then letter."""
        return int(self.id[1:].rstrip("ab")), self.id


@functools.cache
def tables(name: str) -> dict[str, Any]:
    """Content of a TOML file that lies beside this module."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def first_round_claim(name: str, rule: Callable[[Evidence], Verdict]) -> Claim:
    """A claim of the first round, with its words from `first_round.toml`, and what that round gave."""
    return Claim(name, rule=rule, first_round=first_round()[name]["verdict"],
                 **tables("first_round.toml")[name])


def first_round() -> dict[str, dict[str, Any]]:
    """What the first round's rules said of every claim, C1 to C22: verdict, reason, and the runs that they
    used; found once, when those rules were still in code.
    """
    return tables("first_round_verdicts.toml")["claims"]


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Apply a claim's rule; "undecided", with the list of what is missing, where evidence lacks.

    The rule runs once to collect everything it asks for, so the list is complete up to the first
    decision that needs a missing number.
    """
    verdict = _apply(claim.rule, evidence)
    if verdict.verdict == UNDECIDED and claim.until is not None:
        first = _apply(claim.until, evidence)
        return dataclasses.replace(first,
                                   reason=f"{first.reason} (by the first round's rule, until the second's "
                                   "evidence is there)")
    return verdict


def _apply(rule: Callable[[Evidence], Verdict], evidence: Evidence) -> Verdict:
    asked = evidence.fresh()
    try:
        verdict = rule(asked)
    except Missing as missing:
        return Verdict(UNDECIDED, "not everything that this rule needs is stored", missing.ours,
                       evidence=tuple(dict.fromkeys(asked.used)),
                       missing=tuple(dict.fromkeys(missing.what)), note=missing.note)
    # a rule may look at the same record several times, for a figure and for a condition
    return dataclasses.replace(verdict, evidence=verdict.evidence or tuple(dict.fromkeys(asked.used)),
                               note=verdict.note or lone_seeds(asked.used))


def lone_seeds(used: Iterable[str]) -> str:
    """What a verdict says of networks of which it knows one seed: "one seed", with names where not of all.

    used: sources as evidence keeps them, "small-10-seed0: turning".
    """
    seeds: dict[str, set[str]] = {}
    for source in used:
        if found := re.match(r"(.+)-seed(\d+): ", source):
            seeds.setdefault(found[1], set()).add(found[2])
    alone = [name for name, some in seeds.items() if len(some) == 1]
    if not alone or len(alone) == len(seeds):
        return "one seed" if alone else ""
    if len(alone) > 3:
        return f"one seed of {len(alone)} of {len(seeds)} networks"
    return f"one seed of {', '.join(alone[:-1])}{' and ' if alone[:-1] else ''}{alone[-1]}"


def by_share(holds: Sequence[bool], fewer: str = NOT_REPRODUCED) -> str:
    """"reproduced" if all hold, "in part" if at least half do, else `fewer`."""
    if all(holds):
        return REPRODUCED
    return IN_PART if 2 * sum(holds) >= len(holds) else fewer
