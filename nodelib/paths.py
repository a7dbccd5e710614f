"""Where the repository's data lives."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder `data/` of the repository, or the one named by the environment variable NODELIB_DATA."""
    override = os.environ.get("NODELIB_DATA")
    return Path(override) if override else Path(__file__).resolve().parents[1] / "data"


def runs_dir() -> Path:
    """The folder that holds one folder per trained run: `data/runs/<run>-seed<k>/`."""
    return data_dir() / "runs"
