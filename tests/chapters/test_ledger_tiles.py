"""The ledger's tiles: one a claim, each a link that says its verdict in words and not by colour alone."""

import re

import pytest

from nodelib import verdicts
from nodelib.chapters.verdicts import ledger_tiles


def test_every_claim_has_a_tile_that_names_its_verdict_and_leads_to_its_chapter():
    rows = verdicts.ledger([], {"table": []}, {})
    found = ledger_tiles(rows, {row.id: f"words <{row.id}>" for row in rows})
    tiles = re.findall(r'<li><a class="verdict-(\S+)" href="(\S+)\.html">'
                       r'<b>(\w+)</b> (.*?) <em>(.*?)</em></a></li>', found)
    assert tiles == [
        (row.verdict.replace(" ", "-"), row.page, row.id, f"words &lt;{row.id}&gt;", row.verdict)
        for row in rows]


def test_a_claim_without_words_is_an_error():
    rows = verdicts.ledger([], {"table": []}, {})
    with pytest.raises(KeyError, match="C1"):
        ledger_tiles(rows, {})
