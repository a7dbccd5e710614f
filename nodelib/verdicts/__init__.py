"""The ledger: every claim of the post, a test, and a verdict computed from artifacts.

The rules were fixed in this package before any full-scale result existed; the history of the repository
shows it. Any later change of a rule or a threshold is listed, with its reason, in `RULE_CHANGES`, which
the ledger prints. No verdict is typed anywhere: each is a function of `data/runs/`, of `data/seed.json`
and of the values that chapters record in `data/claims/`.

One file per group of claims: `part_one` (C1 to C7), `end_time` (C8 to C12, C14, C15), `robustness` (C19)
and `states` (C13, C16 to C18, C20 to C22). Every threshold is a named constant with its reason there; the
claims in words are data, in `first_round.toml`.
"""

from nodelib.experiment.contract import CHAPTER_VALUES, MEASUREMENTS
from nodelib.statistics import mcnemar, within_tolerance
from nodelib.verdicts.chapters import load_chapters, record_chapter
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.ledger import (
                                   CLAIMS,
                                   RULE_CHANGES,
                                   Row,
                                   as_details,
                                   as_markdown,
                                   as_text,
                                   changes_as_markdown,
                                   counts,
                                   first_round,
                                   ledger,
                                   summary,
)
from nodelib.verdicts.verdict import VERDICTS, Claim, Figure, Verdict, judge

__all__ = [
    "CHAPTER_VALUES", "CLAIMS", "MEASUREMENTS", "RULE_CHANGES", "VERDICTS", "Claim", "Evidence", "Figure",
    "Row",
    "Verdict", "as_details", "as_markdown", "as_text", "changes_as_markdown", "counts", "first_round",
    "judge", "ledger", "load_chapters", "mcnemar", "record_chapter",
    "summary", "within_tolerance",
]
