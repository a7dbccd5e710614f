"""Where the repository's data lives."""

import os
from pathlib import Path

from nodelib.solver.errors import InputError

PUBLISHED = Path(__file__).resolve().parents[2] / "data"  # wherever NODELIB_DATA points


def published(inside: str) -> str:
    """How a message names a folder of the repository's data: by its path, or, where the library was installed
    without the repository, by what to do.
    """
    if PUBLISHED.is_dir():
        return str(PUBLISHED / inside)
    return f"data/{inside} in a clone of the repository (set NODELIB_DATA to the clone's folder data)"


def data_dir() -> Path:
    """The folder `data/` of the repository, or the one named by the environment variable NODELIB_DATA."""
    override = os.environ.get("NODELIB_DATA")
    return Path(override) if override else PUBLISHED


def runs_dir() -> Path:
    """The folder that holds one folder per trained run: `data/runs/<run>-seed<k>/`."""
    return data_dir() / "runs"


def runs_root(root: str | Path | None = None) -> Path:
    """The folder that holds the runs, `runs_dir` by default; InputError if it is a file."""
    found = runs_dir() if root is None else Path(root)
    if found.is_file():
        raise InputError(f"{found} is a file; name the folder that holds the runs (--root), such as "
                         f"{published('runs')}")
    return found


def check_scratch(scale: str, root: Path) -> None:
    """InputError if a run at smoke scale would enter the published `data/runs` of the repository."""
    if scale != "full" and root.resolve() == PUBLISHED / "runs":
        raise InputError(f"a run at scale {scale!r} must not lie among the published ones in "
                         f"{PUBLISHED / 'runs'}: give another root (--root), or set the environment variable "
                         f"NODELIB_DATA to a scratch copy of {PUBLISHED}")
