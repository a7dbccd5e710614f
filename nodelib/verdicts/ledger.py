"""All claims with their verdicts, as rows, Markdown and text."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nodelib.experiment.artifacts import Run
from nodelib.verdicts import end_time, part_one, post_recipe, states
from nodelib.verdicts.chapters import load_chapters
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.verdict import UNDECIDED, VERDICTS, Claim, Verdict, judge, tables

CLAIMS: tuple[Claim, ...] = tuple(sorted(
    part_one.CLAIMS + end_time.CLAIMS + states.CLAIMS + post_recipe.CLAIMS, key=lambda claim: claim.order))

RULE_CHANGES: list[dict[str, str]] = tables("changes.toml")["changes"]
"""Every change to a rule or threshold since the rules were fixed: `{"date", "claim", "change", "reason"}`,
with `"known"` where everything that the rule judges was known, and `"moved"` where it gave a claim another
verdict."""


@dataclass(frozen=True)
class Row(Verdict, Claim):
    """One line of the ledger: a claim with its verdict."""

    @property
    def shown(self) -> str:
        """The verdict, of an undecided one with what it lacks, "undecided: 4 epochs", of another with the
        networks of which it knows one seed, "in part, one seed".
        """
        between = ": " if self.verdict == UNDECIDED else ", "
        return f"{self.verdict}{between}{self.note}" if self.note else self.verdict

    @property
    def changed(self) -> list[str]:
        """The dates at which its rule was changed since the rules were fixed."""
        return sorted({change["date"] for change in self._changes()})

    @property
    def changed_late(self) -> list[str]:
        """Those of the dates at which everything that the rule judged by then was known."""
        return sorted({change["date"] for change in self._changes() if change.get("known") == "everything"})

    def _changes(self) -> list[dict[str, str]]:
        names = {self.id, self.id.rstrip("ab")}
        return [change for change in RULE_CHANGES if names & set(change["claim"].split(", "))]


def ledger(runs: Sequence[Run], seed: dict, chapters: dict[str, dict] | None = None) -> list[Row]:
    """Judge every claim from artifacts.

    Args:
        runs: finished runs, as `nodelib.experiment.artifacts.find_runs()` gives them.
        seed: content of `data/seed.json`.
        chapters: values that chapters recorded, claim id -> values; default: those in `data/claims`.

    Returns:
        one Row per claim, C1 to C22, C19 in its two parts.
    """
    evidence = Evidence(runs, seed, load_chapters() if chapters is None else chapters)
    return [Row(**vars(claim), **vars(judge(claim, evidence))) for claim in CLAIMS]


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many claims got each verdict, every verdict listed."""
    found = Counter(row.verdict for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS}


def changes_as_markdown() -> str:
    """Every change of a rule since the rules were fixed, as a Markdown list."""
    return "\n".join(f"- **{c['date']}, {c['claim']}**: {c['change']}. *Reason:* {c['reason']}."
                     for c in RULE_CHANGES)


def moved_verdicts() -> list[tuple[str, str, bool]]:
    """The changes of rules that gave a claim another verdict, with the evidence of their day, oldest first:
    date, claims with their verdicts, whether everything that the rule judges was known.
    """
    return [(c["date"], c["moved"], c.get("known") == "everything") for c in RULE_CHANGES if "moved" in c]


BAR = "\\|"  # a bar inside a cell of a Markdown table


def _ours(row: Row, limit: int) -> str:
    shown = "; ".join(map(str, row.ours[:limit])) or "-"
    return shown + ("; ..." if len(row.ours) > limit else "")


def as_markdown(rows: Sequence[Row], limit: int = 3) -> str:
    """The ledger as one Markdown table.

    Args:
        rows: of `ledger`.
        limit: how many of our figures (or missing items) to show per claim.
    """
    lines = ["| id | claim | the post | ours | verdict | first round |",
             "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"[{row.id}]({row.page}.ipynb)", row.statement, row.post, _ours(row, limit),
                 f"**{row.shown}**", row.first_round)
        lines.append("| " + " | ".join(cell.replace("|", BAR) for cell in cells) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """The verdicts in short, as Markdown: how many of each, then every claim with the post's figure, ours and
    its verdict.

    Links lead to the text halves of the chapters, from the top of the repository.
    """
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(rows).items() if number)
    return "\n".join([f"Of {len(rows)} claims: {found}.", "",
                      "| | the post's claim | the post | ours | verdict |",
                      "| --- | --- | --- | --- | --- |",
                      *(f"| [{row.id}](book/{row.page}.md) | {row.statement} | {row.post} | "
                        f"{_ours(row, 2).replace('|', BAR)} | {row.shown} |" for row in rows)])


def as_details(rows: Sequence[Row], limit: int = 6) -> str:
    """Per claim a Markdown section: statement, test, verdict with its reason, all figures, first records
    used.
    """
    blocks = []
    for row in rows:
        lines = [f"**{row.id}. {row.statement}**", "", f"- *Test:* {row.test}",
                 f"- *Verdict:* **{row.shown}**; {row.reason}.",
                 f"- *First round, by its own rule:* {row.first_round}."]
        if row.changed:
            dates = [f"{date} (with everything known)" if date in row.changed_late else date
                     for date in row.changed]
            lines.append(f"- *Rule changed:* {', '.join(dates)}; what was known by then is in "
                         "[Changes of rules](21-changes-of-rules.ipynb).")
        if row.verdict == UNDECIDED:
            lines.append(f"- *Missing:* {_shorten(row.missing, limit)}.")
        if row.ours:
            lines.append(f"- *Ours:* {'; '.join(map(str, row.ours))}.")
        if row.evidence:
            lines.append(f"- *From:* {_shorten([f'`{e}`' for e in row.evidence], limit)}.")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _shorten(items: Sequence[str], limit: int) -> str:
    more = len(items) - limit
    return "; ".join(items[:limit]) + (f"; and {more} more" if more > 0 else "")


def as_text(rows: Sequence[Row]) -> str:
    """The ledger for a terminal: per claim its verdict, statement, test, the post's figure, ours, the reason
    and the page.
    """
    blocks = []
    for row in rows:
        head = f"{row.id:<5}{row.shown.upper()} (first round: {row.first_round})"
        body = [row.statement, f"test: {row.test}", f"post: {row.post}   ours: {_ours(row, 3)}"]
        if row.verdict != UNDECIDED:
            body.append(f"why:  {row.reason}")
        body.append(f"page: book/{row.page}.md")
        blocks.append("\n".join([head, *(textwrap.fill(line, 110, initial_indent="    ",
                                                      subsequent_indent="    ") for line in body)]))
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts(rows).items())
    changes = f"{len(RULE_CHANGES)} changes of rules since they were fixed"
    return "\n\n".join([*blocks, f"{summary}; {changes}"])
