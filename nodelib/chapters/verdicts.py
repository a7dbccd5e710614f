"""The ledger at a glance."""

import html
from collections.abc import Mapping, Sequence

from nodelib.verdicts import Row


def ledger_tiles(rows: Sequence[Row], words: Mapping[str, str]) -> str:
    """One tile per claim as HTML: its words and its verdict, a link to the chapter with the evidence.

    words: claim id -> the claim in six words or fewer, or KeyError. Colours: `book/_static/book.css`.
    """
    tiles = (f'<li><a class="verdict-{row.verdict.replace(" ", "-")}" href="{row.page}.html"><b>{row.id}</b> '
             f'{html.escape(words[row.id])} <em>{row.verdict}</em></a></li>' for row in rows)
    return f'<ul class="verdict-tiles">{"".join(tiles)}</ul>'
