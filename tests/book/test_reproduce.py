"""The page that tells how to make the book again, in the copy that its own recipe makes."""

import re
import shutil

import jupytext
import pytest
from book_site import ROOT

from nodelib.experiment.paths import runs_dir
from nodelib.publish import page

CELLS = jupytext.read(ROOT / "book" / "16-reproduce.md").cells


@pytest.mark.parametrize("stored", [["small-10-seed0", "resnet-0-seed0"], ["resnet-0-seed0"]],
                         ids=["as here", "without small-10"])
def test_the_page_executes_and_gives_each_number_of_its_prose(stored, tmp_path, monkeypatch):
    glued, folder = {}, runs_dir()
    for name in stored:
        shutil.copytree(folder / name, tmp_path / "runs" / name)
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path))
    monkeypatch.setattr(page, "glue", lambda name, text: glued.update({name: text}))
    exec("\n".join(cell.source for cell in CELLS if cell.cell_type == "code"), {})
    prose = " ".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
    named = set(re.findall(r"\{glue:text\}`([^`:]+)`", prose))
    assert named and named <= set(glued)
    assert glued["reproduce-runs"].startswith(str(len(stored)))
    assert any(c.isdigit() for c in glued["reproduce-clean"]) == ("small-10-seed0" in stored)
