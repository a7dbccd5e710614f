"""The ledger: every claim of the post, a test, and a verdict computed from artifacts.

The rules of the first round were fixed in this package before any full-scale result existed, those of the
second before its networks were evaluated; the history of the repository shows it. Any later change of a rule
or a threshold is listed, with its reason, in `RULE_CHANGES`, which the ledger prints. A verdict is a function
of `data/runs/`, of `data/seed.json` and of the values that chapters record in `data/claims/`. Where the
second round's rule replaced the first's, what the first gave is stored (`first_round`).

The first round's rules that still judge: `part_one` (C1 to C4, C7), `end_time` (C12, C15), `robustness` (C19)
and `states` (C17, C21). The second round's: `sharper`, `post_recipe` and, for its predictions, `predictions`.
The claims in words are data, in `first_round.toml` and `second_round.toml`.
"""

from nodelib.experiment.contract import CHAPTER_VALUES, MEASUREMENTS
from nodelib.statistics import mcnemar
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
    ledger,
    moved_verdicts,
    summary,
)
from nodelib.verdicts.verdict import VERDICTS, Claim, Figure, Verdict, first_round, judge

__all__ = [
    "CHAPTER_VALUES", "CLAIMS", "MEASUREMENTS", "RULE_CHANGES", "VERDICTS", "Claim", "Evidence", "Figure",
    "Row", "Verdict", "as_details", "as_markdown", "as_text", "changes_as_markdown", "counts", "first_round",
    "judge", "ledger", "load_chapters", "mcnemar", "moved_verdicts", "record_chapter", "summary",
]
