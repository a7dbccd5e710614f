"""Guarded sentences: the words stand on the page, and a guard fails, by name and line, where the data says
otherwise.
"""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from nodelib.publish.page import SentenceError, sentence

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGES = sorted(path for path in BOOK.glob("*.md") if path.with_suffix(".ipynb").exists())
scale = "full"  # a page's parameter, which the guard reads


def quoted(source: str) -> list[str]:
    """Words of the sentences that a cell guards."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic
        return []
    calls = [d for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
             for d in node.decorator_list if isinstance(d, ast.Call)]
    return [ast.literal_eval(call.args[0]) for call in calls if getattr(call.func, "id", "") == "sentence"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_guarded_words_stand_verbatim_on_the_page(page):
    cells = jupytext.read(page).cells
    prose = re.sub(r"\s+", " ", " ".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    for cell in cells:
        for words in quoted(cell.source) if cell.cell_type == "code" else ():
            assert re.sub(r"\s+", " ", words) in prose, words


def test_a_sentence_that_holds_is_silent_and_one_that_does_not_is_named_with_its_line():
    @sentence("All is well.")
    def _():
        assert 1 < 2

    with pytest.raises(SentenceError, match=r'"Nothing is left\.": line \d+, assert left < 1.*rewrite'):
        @sentence("Nothing is left.")
        def _():
            left = 5
            assert left < 1


def test_a_finding_of_the_full_runs_is_not_asked_of_small_ones():
    @sentence("Ten epochs were enough.", scale="smoke")
    def _():
        raise AssertionError


def test_another_error_than_a_failed_assertion_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        @sentence("This is computed.")
        def _():
            assert 1 / 0
