"""Values that a chapter computes for the ledger: `data/claims/<id>.json`."""

from pathlib import Path
from typing import Any

import numpy as np

from nodelib.experiment.artifacts import read_json, write_json
from nodelib.experiment.contract import CHAPTER_VALUES
from nodelib.experiment.paths import data_dir


def record_chapter(claim: str, page: str, values: dict[str, Any]) -> Path:
    """Store the values a chapter computed for a claim below `data/claims`.

    Args:
        claim: "C1", "C2", "C3", "C6" or "C7".
        page: the chapter, as "02-the-adjoint-method".
        values: exactly the names that `nodelib.verdicts.CHAPTER_VALUES[claim]` lists; finite numbers or lists
            of them. No timings: the file must come out the same when the chapter is executed again.

    Returns:
        the file's path.

    Raises:
        ValueError: unknown claim, a missing or unknown name, or a value that is not finite.
    """
    if claim not in CHAPTER_VALUES:
        raise ValueError(f"claim is {claim!r}; chapters settle {', '.join(CHAPTER_VALUES)}")
    wanted = set(CHAPTER_VALUES[claim])
    if set(values) != wanted:
        raise ValueError(f"values for {claim} have the names {sorted(values)}; needed are exactly "
                         f"{sorted(wanted)}")
    plain: dict[str, float | list[float]] = {}
    for name, value in values.items():
        found = np.asarray(value, dtype=float)
        plain[name] = found.tolist()
        if not np.isfinite(found).all():
            raise ValueError(f"{claim}: {name} is {value}; it must be finite")
    path = data_dir() / "claims" / f"{claim}.json"
    write_json(path, {"claim": claim, "page": page, "values": plain})
    return path


def load_chapters() -> dict[str, dict]:
    """Claim id -> values, for every claim that a chapter has recorded."""
    paths = {claim: data_dir() / "claims" / f"{claim}.json" for claim in CHAPTER_VALUES}
    return {claim: read_json(path)["values"] for claim, path in paths.items() if path.exists()}
