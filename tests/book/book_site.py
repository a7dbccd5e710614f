"""The built book, once per test session or for several, and what its tests ask of it."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from nodelib.publish.pdf import find_browser

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Site:
    """The folder of the HTML, the build's output and its status."""

    html: Path
    log: str
    status: int

    @property
    def pages(self) -> list[Path]:
        """Every page, `search.html` and the like included."""
        found = sorted(p for p in self.html.rglob("*.html")
                       if "_static" not in p.parts and "mathjax" not in p.parts)
        assert found, f"the book was not built:\n{self.log[-2000:]}"
        return found


@functools.cache
def site() -> Site:
    """Build the book as `jupyter-book build book/` does, with warnings as errors, into a scratch folder.

    That is the one that the environment variable NODELIB_SITE names, where it is set, and a book that an
    earlier session built there is taken as it is: set it only where the sources stay the same, as `.ci/run`
    does.
    """
    pytest.importorskip("jupyter_book", reason="the book's packages are missing: make .venv/.book")
    shared = os.environ.get("NODELIB_SITE")
    folder = Path(shared or tempfile.mkdtemp(prefix="nodelib-book-"))
    if not shared:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = folder / "built.json"  # written last: a build that was killed is none
    if not built.exists():
        done = subprocess.run(
            [str(Path(sys.executable).parent / "jupyter-book"), "build", "book/", "-W", "-n", "--keep-going",
             "--path-output", str(folder)],
            cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        built.write_text(json.dumps({"log": done.stdout + done.stderr, "status": done.returncode}))
    return Site(folder / "_build" / "html", **json.loads(built.read_text()))


def chromium() -> str:
    """The path of a Chromium; without it tests fail in continuous integration, and are skipped elsewhere."""
    if path := find_browser():
        return path
    message = "no Chromium found; install it (Debian, Ubuntu: apt-get install chromium) or run .ci/run"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
