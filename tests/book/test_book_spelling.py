"""The prose of the book is spelled correctly, and in British English."""

import re
from functools import cache
from pathlib import Path

import pytest

spellchecker = pytest.importorskip("spellchecker",
                                   reason="the packages of the checks are missing: make .venv/.test")

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).with_name("words.txt")
PAGES = sorted([*(ROOT / "book").glob("*.md"), ROOT / "book" / "templates" / "run.md", ROOT / "README.md"])

AMERICAN = re.compile(
    r"\b(colou?r(?<!colour)(s|ed|ing)?|behavior\w*|favor\w*|neighbor\w*|"
    r"center(s|ed|ing)?|meter(s)?|fiber(s)?|gray|modeled|modeling|"
    r"labeled|labeling|traveled|traveling|canceled|analyz(e|es|ed|ing)|defense(s)?|skeptic\w*|"
    r"(regular|normal|optim|minim|maxim|discret|parametr|parameter|"
    r"initial|general|summar|recogn|organ|real|special|visual|"
    r"stabil|linear|character|random|util|penal|central|quant)iz(e|es|ed|ing|er|ers|ation|ations))\b",
    re.IGNORECASE)
"""American forms that a word list takes for correct."""


def prose(text: str) -> str:
    """What a reader reads of a MyST page, captions and alternative texts too: no code, formula or address."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^```\{code-cell\}.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```(?!\{).*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(?:[`:]{3,}\{[\w:-]+\})(?: figures/\S+)?|^[`:]{3,}$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^:(?!alt:)[\w-]+:.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\(\S+\)=$|^:alt:|<!--.*?-->|\$\$.*?\$\$(?: \(\S+\))?", "", text,
                  flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$[^$]+\$", " ", text)
    text = re.sub(r"\{(?:term|ref|doc|numref)\}`([^`<]*\S)\s*<[^`]*>`|\{term\}`([^`]*)`",
                  lambda m: m[1] or m[2], text)
    text = re.sub(r"(?:\{[\w:]+\})?(`+)[^`]+\1|\]\([^)]*\)|https?://\S+|@\w+@|<[^>\n]*>", " ", text)
    return text


def words(text: str) -> set[str]:
    """Words of three letters and more, without possessive 's and hyphens; names in capitals are left out."""
    found = re.findall(r"[A-Za-zÀ-ž]+(?:['’][a-z]+)?", prose(text))
    plain = {re.sub(r"['’]s?$", "", word) for word in found}
    return {word for word in plain if len(word) > 2 and not re.search(r".[A-Z]", word)}


@cache
def checker():
    return spellchecker.SpellChecker(language="en", distance=1)


@cache
def known() -> frozenset[str]:
    lines = WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(line.lower() for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_word_is_in_the_word_list(page):
    unknown = checker().unknown(words(page.read_text(encoding="utf-8"))) - known()
    assert not unknown, f"misspelled, or to be added to tests/book/words.txt: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_spelling_is_british(page):
    found = {m[0] for m in AMERICAN.finditer(prose(page.read_text(encoding="utf-8")))}
    assert not found, f"American spelling: {', '.join(sorted(found))}"


def test_the_list_of_further_words_is_sorted_and_needed():
    lines = [line for line in WORDS.read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    assert lines == sorted(set(lines), key=str.lower)
    plain = [line for line in lines if line.lower() not in checker().unknown([line])]
    assert not plain, f"in the dictionary already: {', '.join(plain)}"


@pytest.mark.parametrize("text, found", [
    ("The recieved gradient.", {"The", "recieved", "gradient"}),
    ("Euler's state, dy `teh` and $recieved$.\n$$\nrecieved\n$$ (eq-x)\n", {"Euler", "state", "and"}),
    ("```{figure} figures/teh.svg\n:name: fig-teh\n:alt: A lin.\n\nCaption.\n```\n", {"lin", "Caption"}),
    ("```{code-cell} ipython3\nteh = 1\n```\nafter {term}`kinks <kink>` {eq}`eq-teh` [the runs](teh.ipynb)",
     {"after", "kinks", "the", "runs"}),
], ids=["misspelled", "code and formulas", "figure", "roles and links"])
def test_prose_is_what_a_reader_reads(text, found):
    assert words(text) == found


def test_misspelled_and_american_words_are_found():
    assert checker().unknown(["recieved", "seperate", "gradient"]) == {"recieved", "seperate"}
    assert all(AMERICAN.search(text) for text in ("its behavior", "normalized", "a gray line"))
    assert not AMERICAN.search("behaviour, normalised, grey, colour, the size of a prize")
