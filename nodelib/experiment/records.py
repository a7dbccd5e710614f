"""The tables of a run's folder: CSV with typed columns, one record a line, sorted, checked when read and
written.

A float is written so that it is read back exactly (as `repr` writes it), a truth value as true or false,
lists and dictionaries as JSON, and None as nothing at all, for which reason no text may be empty.
"""

import csv
import json
import math
import re
import typing
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, SupportsFloat

import numpy as np

from nodelib.experiment.files import ArtifactError, not_finite, parse_json
from nodelib.statistics import wilson

EPSILON = 0.3  # the post's, and the usual one on MNIST

# an accuracy of a run; what the settings say of solver, batch and pooling is the attack's
METRICS: dict[str, Any] = {
    "id": str, "t1": float, "n": int, "subset": str, "correct": int, "accuracy": float, "nfe": float,
    "seconds": float, "device": str, "commit": str | None, "rtol": float, "atol": float, "dtype": str,
    "batch": int, "pooling": str, "pooling_seed": int | None, "attack": str, "epsilon": float,
    "clip": bool | None, "gradient": str, "source": str | None, "combines": list | None, "settings": dict,
}
MEASUREMENTS: dict[str, Any] = {
    "name": str, "t1": float | None, "label": str, "images": str, "statistic": str, "value": float, "n": int,
    "settings": dict,
}
HISTORY: dict[str, Any] = {
    "step": int, "epoch": int, "images": int, "t1": float, "loss": float, "accuracy": float,
    "nfe_forward": float, "nfe_backward": float, "seconds": float,
}
TRUTH = {"true": True, "false": False}


def to_csv(rows: Iterable[dict], columns: dict[str, Any], digits: int | None = None) -> bytes:
    """Rows as CSV in their order, floats to so many digits, by default exactly."""
    lines: list[str] = []
    # it quotes what ends its lines, and a carriage return within a text must be quoted too
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name], kind, digits) for name, kind in columns.items()] for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines).encode()


def from_csv(path: Path, columns: dict[str, Any], make: Callable[..., Any] = dict) -> list[Any]:
    """The rows of a file with the columns' types, none if there is no file; `make` makes a record of a row's
    values, ValueError if it is none.

    Raises:
        ArtifactError: another header, or a line that is no row; the message names file and line.
    """
    found, line = [], 1
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            if (head := next(rows, [])) != list(columns):
                raise ValueError(f"the columns are {', '.join(head)} instead of {', '.join(columns)}")
            readers = [(name, _reader(name, kind)) for name, kind in columns.items()]
            for row in rows:
                line = rows.line_num
                values = zip(row, readers, strict=True)
                found.append(make(**{name: read(cell) for cell, (name, read) in values}))
    except FileNotFoundError:  # asked for beforehand, it could still go before it is opened
        return []
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ArtifactError(f"{path} is damaged in line {line} ({error}). Restore it with git.") from error
    return found


def columns_of(path: Path, columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """The columns of a file of numbers alone, arrays of int or float; empty ones if there is no file. As
    `from_csv` reads it, and several times as fast: a history has up to a hundred thousand lines.

    Raises:
        ArtifactError: as `from_csv` does.
    """
    try:
        with path.open(encoding="utf-8") as file:
            head, *lines = file.readlines()
        if head == ",".join(columns) + "\n" and lines and "\n" not in lines:
            found = np.loadtxt(lines, list(columns.items()), comments=None, delimiter=",", ndmin=1)
            if all(np.isfinite(found[name]).all() for name in columns):
                return {name: np.ascontiguousarray(found[name]) for name in columns}
    except (OSError, ValueError):
        pass
    read = from_csv(path, columns)  # says what is wrong, and in which line
    return {name: np.array([row[name] for row in read]) for name in columns}


def _cell(value: Any, kind: Any, digits: int | None) -> str:
    if value is None:
        return ""
    if _main(kind) is float:
        return repr(float(value)) if digits is None else f"{value:.{digits}g}"
    return str(value) if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _reader(name: str, kind: Any) -> Callable[[str], Any]:
    """What turns a cell of a column into its value; made once a file, which may have a million cells."""
    main = _main(kind)
    convert = TRUTH.__getitem__ if main is bool else main if main in (str, int, float) else parse_json
    optional = main is not kind

    def read(cell: str) -> Any:
        if not cell and optional:
            return None
        value = convert(cell)
        if not isinstance(value, main) or not_finite(value) or value == "":
            raise ValueError(f"{name} is {cell!r}")
        return value

    return read


def _main(kind: Any) -> Any:
    """The type of a column whose values may be None, too."""
    return next((each for each in typing.get_args(kind) if each is not NoneType), kind)


def read_metrics(path: Path) -> list[dict]:
    """The records of a `metrics.csv`, each with the 95 % interval `low`, `high` (Wilson, 1927) computed."""
    rows = _checked(path, METRICS, metric_fault)
    if twice := [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]:
        raise ArtifactError(f"{path} holds {', '.join(sorted(twice))} twice. Restore it with git.")
    for row in rows:
        row["low"], row["high"] = wilson(row["correct"], row["n"])
    return rows


def read_measurements(path: Path) -> list[dict]:
    """The records of a `measurements.csv`."""
    rows = _checked(path, MEASUREMENTS, measurement_fault)
    if twice := doubled(rows):
        raise ArtifactError(f"{path} holds {twice[0]['name']} at t1 = {twice[0]['t1']} ({twice[0]['label']}) "
                            "twice. Restore it with git.")
    return rows


def _checked(path: Path, columns: dict[str, Any], fault: Callable[[dict], str | None]) -> list[dict]:
    rows = from_csv(path, columns)
    if found := next(filter(None, map(fault, rows)), None):
        raise ArtifactError(f"{path}: {found}. Restore it with git.")
    return rows


def record(name: str, value: SupportsFloat, t1: float | None, n: int, statistic: str = "median", *,
           label: str = "all", images: str = "clean", **settings: Any) -> dict:
    """One record of `measurements.csv`, see `nodelib.experiment.contract`."""
    return {"name": name, "t1": t1, "label": label, "images": images, "statistic": statistic,
            "value": float(value), "n": n, "settings": settings}


def metrics_csv(rows: Iterable[dict]) -> bytes:
    """A `metrics.csv`, sorted by id."""
    return to_csv(sorted(rows, key=lambda row: _natural(row["id"])), METRICS)


def measurements_csv(rows: Iterable[dict]) -> bytes:
    """A `measurements.csv`, sorted by all that tells its records apart."""
    return to_csv(sorted(rows, key=lambda row: _natural(_quantity(row))), MEASUREMENTS)


def _natural(text: str) -> list[str | float]:
    """Text to sort by, in which numbers rise: t1, t2, t10."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [float(part) if k % 2 else part for k, part in enumerate(parts)]


def metric_fault(row: dict) -> str | None:
    """What is wrong with a record of `metrics.csv`, or None.

    Its values have the types of `METRICS` and are finite, its accuracy is correct / n, and its end time and
    epsilon are those of its id, which ends in the end time, before it the epsilon where it is not the usual
    one, as in "worst-eps0.1-t10".
    """
    if wrong := _mistyped(row, METRICS, ("low", "high")):
        return f"record {row.get('id')}: missing, unknown or of the wrong type: {', '.join(wrong)}"
    if not_finite(row) or not 0 <= row["correct"] <= row["n"] or row["n"] < 1:
        return f"record {row['id']}: {row['correct']} of {row['n']} images, or a number that is not finite"
    if not math.isclose(row["correct"] / row["n"], row["accuracy"], abs_tol=1e-9):
        return f"record {row['id']}: accuracy {row['accuracy']} is not {row['correct']} / {row['n']}"
    label, _, t1 = row["id"].rpartition("-t")
    _, named, epsilon = label.rpartition("-eps")
    usual = 0.0 if row["attack"] == "none" else EPSILON
    for field, stated in (("t1", t1), ("epsilon", epsilon if named else f"{usual:g}")):
        if stated != f"{row[field]:g}":
            return f"record {row['id']}: its {field} is {row[field]:g}, which is not what its id says"
    return None


def measurement_fault(row: dict) -> str | None:
    """What is wrong with a record of `measurements.csv`, or None: its types, a number that is not finite."""
    if wrong := _mistyped(row, MEASUREMENTS):
        return f"measurement {row.get('name')}: missing, unknown or of the wrong type: {', '.join(wrong)}"
    return f"measurement {row['name']} is not finite" if not_finite(row) or row["n"] < 1 else None


def _mistyped(row: dict, columns: dict[str, Any], computed: tuple[str, ...] = ()) -> list[str]:
    """Keys that are missing, unknown, or of values of the wrong type; a whole number will do for a float."""
    wrong = sorted(set(row) - {*columns, *computed})
    for name, kind in columns.items():
        allowed = kind | int if _main(kind) is float else kind
        value = row.get(name)
        fits = name in row and isinstance(value, allowed) and value != ""
        wrong += [] if fits and (not isinstance(value, bool) or _main(kind) is bool) else [name]
    return wrong


def _quantity(row: dict) -> str:
    """What a measurement is of, as text: two records that agree in it are one record twice."""
    settings = {key: value for key, value in row["settings"].items() if key not in ("low", "high")}
    what = [row[name] for name in ("name", "t1", "label", "images", "statistic")]
    return json.dumps([what, settings], sort_keys=True)


def doubled(rows: Iterable[dict]) -> list[dict]:
    """Measurements that are there before: of the same quantity and settings, but for its interval."""
    seen, found = set(), []
    for row in rows:
        key = _quantity(row)
        found += [row] if key in seen else []
        seen.add(key)
    return found
