"""The card at the foot of a page."""

from __future__ import annotations

import re
import sys

import pytest
from book_site import ROOT

from nodelib.experiment.artifacts import load_run
from nodelib.experiment.paths import runs_dir
from nodelib.publish import render

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import page_card  # noqa: E402


def test_the_card_names_the_runs_that_a_page_reads_with_their_seeds_and_provenance():
    record = {"scale": "full", "inputs": ["data/seed.json", "data/runs/{small-10,resnet-1}-seed*/*"]}
    found = page_card.facts(record)
    assert found["Scale"] == "full" and found["Data read"] == "data/seed.json"
    assert found["Runs read"] == "resnet-1 (seed 0), small-10 (seeds 0, 1, 2)"
    names = ("resnet-1-seed0", *(f"small-10-seed{k}" for k in range(3)))
    runs = [load_run(runs_dir() / name) for name in names]
    hours = sum(run.provenance["seconds"] for run in runs) / 3600
    assert float(found["Training took"].split()[0]) == pytest.approx(hours, abs=0.06)
    for run in runs:
        assert run.provenance["device"] in found["Trained on"]


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
