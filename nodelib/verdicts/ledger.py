"""All claims with their verdicts, as rows, Markdown and text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nodelib.verdicts import end_time, part_one, post_recipe, robustness, states
from nodelib.verdicts.chapters import load_chapters
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.verdict import UNDECIDED, VERDICTS, Claim, Figure, Verdict, judge, judge_first

if TYPE_CHECKING:
    from nodelib.experiment.artifacts import Run

FIRST_ROUND: tuple[Claim, ...] = part_one.CLAIMS + end_time.CLAIMS + robustness.CLAIMS + states.CLAIMS
RENEWED: tuple[Claim, ...] = post_recipe.claims(FIRST_ROUND)
CLAIMS: tuple[Claim, ...] = tuple(sorted(
    (*RENEWED, *(c for c in FIRST_ROUND if c.id not in {r.id.rstrip("ab") for r in RENEWED})), key=lambda claim: claim.order))

RULE_CHANGES: list[dict[str, str]] = [
    {"date": "2026-11-23", "claim": "C8, C9, C10, C11, C19",
     "change": "the post's protocol accepts the continuous adjoint of either implementation, torchdiffeq's or ours; "
               "before, torchdiffeq's only",
     "reason": "ours solves the same equation with the same steps and is what the runs are measured with; the attack is "
               "otherwise unchanged. small-10 had been evaluated when this was changed"},
    {"date": "2026-11-23", "claim": "C20",
     "change": "settling times are counted from t1 = 1; before, from 0",
     "reason": "the turning vanishes at t = 0 by its factor t, so that every state would start as settled. Only small-10 had been "
               "measured when this was changed"},
    {"date": "2026-11-24", "claim": "C18",
     "change": "a ray counts as a class's steady state only if no other class ends on it; before, ten classes on one common "
               "ray would have counted as ten steady states",
     "reason": "the claim is one state per class; small-random, the first network whose images end on rays, has one ray for "
               "all classes. No network that C18 judges was trained or measured when this was changed"},
    {"date": "2026-11-24", "claim": "C16, C17, C18, C20, C21, C22",
     "change": "C16: growth without a constant direction of the velocity no longer counts in part. C17: reproduced only if the "
               "adversarial network's direction has settled. C18: a class's ray must take 90 % of its images (before, 5 %), in "
               "part needs five such classes, and a high share of directions alone no longer counts. C20: the relative speed "
               "must not settle later (before, earlier), by more than one step between end times, and counts no longer in part by "
               "itself. C21: the share of attacked images must rise from t1 = 1 to 1000. C22: "
               "the network with the higher NFE is judged, whichever it is",
     "reason": "each rule could be met without what its claim says: growth is forced by the last normalisation, images on "
               "their way to one common ray are told apart, on a ray the relative speed is 1 / t in every network, and a share "
               "that falls is not pulled. The states of the pair had not been measured when this was changed; the cost of "
               "wide-standard at t1 = 1 (14 evaluations) was known"},
    {"date": "2026-11-25", "claim": "C5, C15",
     "change": "accuracies are compared on the same images, as many as the smallest record holds, and for C5 on the same seeds; "
               "before, on as many as each record held",
     "reason": "10,000 images at one end time or tolerance were compared with the first 1,000 of them at others, and the end time "
               "that C15 gives wide-adversarial could have hung on that. Everything was known when this was changed, and no "
               "figure and no verdict changed by it"},
    {"date": "2026-11-25", "claim": "C5, C9, C10, C19",
     "change": "C5: the cost is that of the loosest tolerance that keeps the accuracy; before, the smallest cost of any that does. The "
               "others: of several records under the strongest attack the one on most images counts, and only those at the networks' own "
               "tolerance; before, the lowest share of any",
     "reason": "evaluations need not fall with the tolerance, and a share of few images can be low by luck. Everything was known when "
               "this was changed, and no verdict changed by it"},
    {"date": "2026-11-25", "claim": "C9, C10",
     "change": "where only some orderings hold by the post's protocol, the claim counts in part only if an ordering holds under the "
               "strongest attack as well; before, the protocol alone was enough",
     "reason": "all orderings by the protocol and none under attack were an artefact, so that losing an ordering bettered the "
               "verdict. Everything was known when this was changed; C10 was in part and is not reproduced by it"},
    {"date": "2026-11-26", "claim": "C14, C15, C16, C17, C18, C20, C21, C22",
     "change": "no rule, but the network that is judged: wide-adversarial has one more learning-rate cycle, against steps along summed "
               "gradients; before, the rules judged what is now the control wide-adversarial-plain",
     "reason": "an attack without gradients broke half of the images that PGD had left of that network, so that it was not the robust one "
               "that these claims are about. Everything was known when this was changed; the verdicts with the network before it stand "
               "above, among those of shorter trained networks"},
    {"date": "2026-11-28", "claim": "C8, C9, C10, C11, C12, C14, C19a, C19b",
     "change": "the second round: these claims are judged on networks trained by the post's own recipe, by the rules of second_round.toml, "
               "and are undecided until those are there (C12 keeps its first verdict meanwhile). C19 is two claims now, its figure and "
               "the robustness concluded from it. The first round's verdicts stand beside the new ones",
     "reason": "the first round's networks were trained otherwise than the post's. Everything of the first round was known, and some "
               "short trials of the post's recipe, which second_round.toml lists; no network of the second round had been evaluated"},
    {"date": "2026-11-28", "claim": "C3, C4, C5, C6, C13, C16, C18, C20, C21, C22",
     "change": "the second round's rules for these claims are judged; before, they stood in words only. Until a rule's evidence is there "
               "the first round's verdict stands, and says so",
     "reason": "thresholds beside the data, single seeds and rules that mixed two questions decided several verdicts. The words were "
               "fixed before; the readings that they left open (nodelib/verdicts/sharper.py) were written down before the rules were run, "
               "with the first round's measurements known"},
]
"""Every change to a rule or threshold since the rules were fixed: `{"date", "claim", "change", "reason"}`."""


@dataclass(frozen=True)
class Row:
    """One line of the ledger: the claim, the post's figure, ours, the test, the verdict, and the first
    round's where it had another rule.
    """

    id: str
    statement: str
    post: str
    ours: tuple[Figure, ...]
    test: str
    verdict: str
    reason: str
    evidence: tuple[str, ...]
    missing: tuple[str, ...]
    page: str
    note: str = ""
    first_round: str | None = None

    @property
    def shown(self) -> str:
        """The verdict, and of an undecided one what it waits for: "undecided: another recipe"."""
        return f"{self.verdict}: {self.note}" if self.note else self.verdict


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
    rows = []
    for claim in CLAIMS:
        verdict, first = judge(claim, evidence), judge_first(claim, evidence)
        rows.append(Row(claim.id, claim.statement, claim.post, verdict.ours, claim.test, verdict.verdict, verdict.reason,
                        verdict.evidence, verdict.missing, claim.page, verdict.note, first and first.verdict))
    return rows


def first_round(runs: Sequence[Run], seed: dict, chapters: dict[str, dict] | None = None) -> dict[str, Verdict]:
    """The verdict of the first round's rule on every claim, C1 to C22, whatever rule it has now; arguments as
    in `ledger`.
    """
    evidence = Evidence(runs, seed, load_chapters() if chapters is None else chapters)
    return {claim.id: judge(claim, evidence) for claim in sorted(FIRST_ROUND, key=lambda claim: claim.order)}


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many claims got each verdict, every verdict listed."""
    found = Counter(row.verdict for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS}


def changes_as_markdown() -> str:
    """Every change of a rule since the rules were fixed, as a Markdown list."""
    return "\n".join(f"- {c['date']}, {c['claim']}: {c['change']}. Reason: {c['reason']}." for c in RULE_CHANGES) or (
        "- none")


BAR = "\\|"  # a bar inside a cell of a Markdown table


def _ours(row: Row, limit: int) -> str:
    if row.verdict == UNDECIDED:
        return f"missing: {_shorten(row.missing, limit)}"
    shown = "; ".join(map(str, row.ours[:limit]))
    return shown + ("; ..." if len(row.ours) > limit else "")


def as_markdown(rows: Sequence[Row], link: str = "{page}.ipynb", limit: int = 3) -> str:
    """The ledger as one Markdown table.

    Args:
        rows: of `ledger`.
        link: target of the link to the page that shows the claim; "{page}" is replaced.
        limit: how many of our figures (or missing items) to show per claim.
    """
    lines = ["| id | claim | the post | ours | verdict | first round |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (f"[{row.id}]({link.format(page=row.page)})", row.statement, row.post, _ours(row, limit),
                 f"**{row.shown}**", row.first_round or "the same rule")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """The verdicts in short, as Markdown: how many of each, then every claim with the post's figure, ours and its verdict.

    Links lead to the text halves of the chapters, from the top of the repository.
    """
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(rows).items() if number)
    return "\n".join([f"Of {len(rows)} claims: {found}.", "", "| | the post's claim | the post | ours | verdict |",
                      "| --- | --- | --- | --- | --- |",
                      *(f"| [{row.id}](book/{row.page}.md) | {row.statement} | {row.post} | "
                        f"{_ours(row, 2).replace('|', BAR)} | {row.shown} |" for row in rows)])


def as_details(rows: Sequence[Row], limit: int = 6) -> str:
    """Per claim a Markdown section: statement, test, verdict with its reason, all figures, first records used."""
    blocks = []
    for row in rows:
        lines = [f"**{row.id}. {row.statement}**", "", f"- *Test:* {row.test}",
                 f"- *Verdict:* **{row.shown}**; {row.reason}."]
        if row.first_round:
            lines.append(f"- *First round, by its own rule:* {row.first_round}.")
        if row.verdict == UNDECIDED:
            lines.append(f"- *Missing:* {_shorten(row.missing, limit)}.")
        else:
            lines.append(f"- *Ours:* {'; '.join(map(str, row.ours))}.")
        if row.evidence:
            lines.append(f"- *From:* {_shorten([f'`{e}`' for e in dict.fromkeys(row.evidence)], limit)}.")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _shorten(items: Sequence[str], limit: int) -> str:
    more = len(items) - limit
    return "; ".join(items[:limit]) + (f"; and {more} more" if more > 0 else "")


def as_text(rows: Sequence[Row], width: int = 110, limit: int = 3) -> str:
    """The ledger for a terminal: per claim its verdict, statement, test, the post's figure, ours, the reason and the page."""
    blocks = []
    for row in rows:
        head = f"{row.id:<5}{row.shown.upper()}" + (f" (first round: {row.first_round})" if row.first_round else "")
        body = [row.statement, f"test: {row.test}", f"post: {row.post}   ours: {_ours(row, limit)}"]
        if row.verdict != UNDECIDED:
            body.append(f"why:  {row.reason}")
        body.append(f"page: book/{row.page}.md")
        blocks.append("\n".join([head, *(textwrap.fill(line, width, initial_indent="    ", subsequent_indent="    ")
                                        for line in body)]))
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts(rows).items())
    changes = f"{len(RULE_CHANGES)} changes of rules since they were fixed"
    return "\n\n".join([*blocks, f"{summary}; {changes}"])
