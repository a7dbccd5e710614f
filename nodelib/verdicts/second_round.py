"""The second round's rules and predictions as data: `second_round.toml`, words built from constants."""

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from nodelib.verdicts.verdict import IN_PART, Verdict, tables


def _tables() -> dict[str, Any]:
    return tables("second_round.toml")


def disclosure() -> tuple[str, str, str]:
    """The date on which the rules were fixed, why there is a second round, and what was known by then."""
    tables = _tables()
    return tables["fixed"], tables["why"], tables["known"]


def _table(name: str) -> dict[str, Any]:
    tables = _tables()
    return {**tables["predictions"], **tables["rules"]}[name]


def constants(name: str) -> SimpleNamespace:
    """The constants of a rule or prediction, as attributes."""
    words = {"rule", "name", "added", "known"}
    return SimpleNamespace(**{key: value for key, value in _table(name).items() if key not in words})


def text(name: str) -> str:
    """A rule or prediction in words, with its constants."""
    table = _table(name)
    return table["rule"].format(**table)


def sensitive(rule: Callable[[float], Verdict], factors: Sequence[float] | None = None) -> Verdict:
    """A rule judged at half, once and twice its threshold: in part where the verdicts disagree; the reason
    says whether they do.
    """
    factors = constants("all").factors if factors is None else factors
    verdicts = [rule(factor) for factor in factors]
    at = verdicts[list(factors).index(1)]
    if len({v.verdict for v in verdicts}) == 1:
        times = ", ".join(f"{f:g}" for f in factors)
        return dataclasses.replace(at, reason=f"{at.reason}; the same at {times} times its threshold")
    said = ", ".join(f"{v.verdict} at {f:g} times" for f, v in zip(factors, verdicts))
    return Verdict(IN_PART, f"{at.reason}; the verdict hangs on the threshold: {said} its value", at.ours,
                   note=at.note)
