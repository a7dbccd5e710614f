"""The card at the foot of a page."""

import html
import re
import shutil
import sys

import pytest
from book_site import ROOT

from nodelib.experiment.artifacts import load_run
from nodelib.experiment.paths import runs_dir
from nodelib.publish import render

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import page_card  # noqa: E402


def test_the_card_names_the_runs_that_a_page_reads_with_their_seeds_and_provenance():
    record = {"scale": "full", "inputs": ["data/seed.json", "data/runs/{small-10,large-10}-seed*/*"]}
    found = page_card.facts(record)
    assert found["Scale"] == "full" and found["Data read"] == "data/seed.json"
    assert found["Runs read"] == "large-10 (seed 0), small-10 (seeds 0, 1, 2)"
    names = ("large-10-seed0", *(f"small-10-seed{k}" for k in range(3)))
    runs = [load_run(runs_dir() / name) for name in names]
    hours = sum(run.provenance["seconds"] for run in runs) / 3600
    assert float(found["Training took"].split()[0]) == pytest.approx(hours, abs=0.06)
    for run in runs:
        assert run.provenance["device"] in found["Trained on"]


def test_training_that_one_run_took_over_from_another_is_counted_once():
    both = page_card.facts({"inputs": ["data/runs/{wide-adversarial,wide-adversarial-plain}-seed0/*"]})
    longer = page_card.facts({"inputs": ["data/runs/wide-adversarial-seed0/*"]})
    assert both["Training took"] == longer["Training took"]


def test_a_page_without_a_record_has_no_facts():
    assert page_card.facts({}) == {}


def test_a_notebook_records_what_its_card_says():
    prepared = render.prepare(render.TEMPLATE, {"run": "small-10"}).metadata[render.RECORD]
    assert prepared["scale"] == "full" and prepared["inputs"] == ["data/runs/small-10-seed0/*"]


def test_the_entry_to_cite_is_that_of_the_citation_file():
    entry = page_card.bibtex(ROOT, "2026")
    title = re.search(r'^title: "(.*)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert entry.startswith("@software{nodelib,") and entry.endswith("}") and title in entry
    assert entry.count("{") == entry.count("}")


def _site(folder, base):
    """A book of three pages, built with this extension for an address."""
    from sphinx.application import Sphinx

    shutil.copy(ROOT / "CITATION.cff", folder)
    folder = folder / "book"
    folder.mkdir()
    (folder / "index.md").write_text("# A title\n\nHow the *text* begins.\n\n"
                                     "```{toctree}\n:numbered:\n\nsecond\nthird\n```\n")
    (folder / "second.md").write_text(f"# Second\n\n{'More words than fit. ' * 30}\n")
    (folder / "third.md").write_text("# Cause & *effect*\n\n```{note}\n- A list in a note.\n```\n")
    output = folder / "site"
    app = Sphinx(folder, None, output, folder / "doctrees", "html", status=None, warning=sys.stderr,
                 confoverrides={"extensions": ["myst_parser", "page_card"], "html_baseurl": base})
    app.build()
    return output


def test_messengers_see_how_a_page_begins(tmp_path):
    site = _site(tmp_path, "")
    assert '<meta name="description" content="How the text begins.">' in (site / "index.html").read_text()
    found = re.search('<meta name="description" content="(.*?)">', (site / "second.html").read_text())
    assert len(found[1]) < page_card.DESCRIPTION + 3 and found[1].endswith("More words …")
    third = html.unescape((site / "third.html").read_text())
    assert '<span class="section-number">2. ' in third  # in the page's title, not in the messengers'
    assert '<meta property="og:title" content="Cause & effect">' in third
    assert '<meta property="og:description" content="A list in a note.">' in third
    assert not (site / "sitemap.xml").exists() and not (site / "404.html").exists()


def test_a_site_with_an_address_lists_its_pages_and_has_an_error_page_for_any_depth(tmp_path):
    site = _site(tmp_path, "https://example.org/some/book/")
    listed = re.findall("<loc>(.*?)</loc>", (site / "sitemap.xml").read_text())
    assert "https://example.org/some/book/second.html" in listed
    assert 'href="/some/book/_static/' in (site / "404.html").read_text()
