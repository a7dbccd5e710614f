"""Generated parts of the README: the table and the verdicts, each between two marks."""

from pathlib import Path

from nodelib.experiment.artifacts import write_atomic
from nodelib.solver.errors import InputError


def write_between(path: str | Path, name: str, content: str) -> None:
    """Put `content` between the lines `<!-- name: begin -->` and `<!-- name: end -->` of a text file, whose
    line ends, permissions and links stay as they are.

    Raises:
        InputError: the file does not hold both marks, in this order; it is left alone.
    """
    path = Path(path).resolve()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if not path.is_file():
        raise InputError(f"there is no file {path}; name one that holds the marks {begin} and {end}")
    before, found, rest = path.read_bytes().decode().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"{path} does not hold the marks {begin} and {end}; put them there")
    line_end = "\r\n" if "\r\n" in before + after else "\n"
    write_atomic(path, (before + f"{begin}\n{content}\n{end}".replace("\n", line_end) + after).encode())
