"""Generated parts of the README: the table and the verdicts, each between two marks."""

from __future__ import annotations

from pathlib import Path

from nodelib.artifacts import write_atomic


def marks(name: str) -> tuple[str, str]:
    """The lines of a text file between which `write_between` puts what is called `name`."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def between(path: str | Path, name: str) -> str:
    """What stands between the two `marks` of a text file, without the line ends around it.

    Raises:
        ValueError: the file does not hold both marks, in this order.
    """
    return _parts(Path(path), name)[1].strip()


def write_between(path: str | Path, name: str, content: str) -> None:
    """Put `content` between the two `marks` of a text file.

    Raises:
        ValueError: the file does not hold both marks, in this order; it is left alone.
    """
    before, _, after = _parts(Path(path), name)
    begin, end = marks(name)
    write_atomic(Path(path), f"{before}{begin}\n{content}\n{end}{after}".encode())


def _parts(path: Path, name: str) -> tuple[str, str, str]:
    begin, end = marks(name)
    before, found, rest = path.read_text().partition(begin)
    inside, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path} does not hold the marks {begin} and {end}; put them where the {name} belong")
    return before, inside, after
