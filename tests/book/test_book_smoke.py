"""The whole book at smoke scale: every run trains in its notebook, every chapter executes on these runs."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("papermill", reason="the book's packages are missing: make .venv/.book")

from nodelib.experiment import artifacts, configs  # noqa: E402
from nodelib.experiment.paths import data_dir  # noqa: E402
from nodelib.publish import render

pytestmark = pytest.mark.more

RUNS = (*configs.ROWS, *configs.PAIR)
CHAPTERS = [path for path, parameters in render.pages() if not parameters]


class Scratch:
    """A data folder without runs and a folder for notebooks; trains each run once, when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.data, self.notebooks = folder / "data", folder / "book"
        self.trained: set[str] = set()
        self.data.mkdir(parents=True)
        for entry in data_dir().iterdir():
            if entry.name in ("runs", "claims"):  # these the smoke scale makes itself
                continue
            if entry.name == "mnist":
                (self.data / entry.name).symlink_to(entry.resolve())
            elif entry.is_dir():
                shutil.copytree(entry, self.data / entry.name)
            else:
                shutil.copy(entry, self.data / entry.name)
        (self.data / "runs").mkdir()

    def run(self, name: str) -> artifacts.Run:
        if name not in self.trained:
            render.render(render.TEMPLATE, scale="smoke", out=self.notebooks / "runs",
                          parameters={"run": name})
            self.trained.add(name)
        return artifacts.load_run(self.data / "runs" / f"{name}-seed0")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    before = os.environ.get("NODELIB_DATA")
    place = Scratch(tmp_path_factory.mktemp("smoke"))
    os.environ["NODELIB_DATA"] = str(place.data)
    yield place
    os.environ.pop("NODELIB_DATA")
    if before is not None:
        os.environ["NODELIB_DATA"] = before


@pytest.mark.parametrize("name", RUNS)
def test_the_run_learns_in_its_notebook(scratch, name):
    run = scratch.run(name)
    config = configs.RunConfig.from_dict(run.config)
    assert config == configs.get(name, scale="smoke")
    full = configs.get(name)
    assert (config.channels, config.size, config.t1) == (full.channels, full.size, full.t1)
    own = [r for r in run.metrics if r["attack"] == "none" and r["t1"] == config.test_t1]
    assert own and all(record["n"] >= 256 for record in own)
    assert min(record["low"] for record in own) > 0.30
    assert any(record["attack"] != "none" for record in run.metrics)
    assert {r["t1"] for r in run.metrics} >= set(configs.TABLE_T1)
    assert (scratch.notebooks / "runs" / f"{name}.ipynb").exists()
    assert (scratch.notebooks / "runs" / "figures" / f"run-{name}-training.svg").stat().st_size > 1000


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_executes_at_smoke_scale(scratch, path):
    for name in RUNS:
        scratch.run(name)
    figures = render.shown_figures("\n".join(cell.source for cell in render.prepare(path, {}).cells))
    published = {figure: (render.BOOK / figure).stat().st_mtime_ns for figure in figures}
    done = render.render(path, scale="smoke", out=scratch.notebooks)
    assert done.path.exists()
    for figure in figures:
        assert (scratch.notebooks / figure).exists(), f"{figure} is shown but was not drawn"
        written = (render.BOOK / figure).stat().st_mtime_ns
        assert written == published[figure], f"{figure} of the book was overwritten"
