"""The built book, once per test session, and what its tests ask of it."""

import functools
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
    """Build the book as `jupyter-book build book/` does, with warnings as errors, into a scratch folder."""
    pytest.importorskip("jupyter_book", reason="the book's packages are missing: make .venv/.book")
    folder = Path(tempfile.mkdtemp(prefix="nodelib-book-"))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "jupyter-book"), "build", "book/", "-W", "-n", "--keep-going",
         "--path-output", str(folder)],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    return Site(folder / "_build" / "html", done.stdout + done.stderr, done.returncode)


def chromium() -> str:
    """The path of a Chromium; without it tests fail in continuous integration, and are skipped elsewhere."""
    if path := find_browser():
        return path
    message = "no Chromium found; install it (Debian, Ubuntu: apt-get install chromium) or run .ci/run"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
