"""What chapters use to publish: figures as files of fixed bytes, and numbers for the prose.

A figure is saved below `book/figures` and shown by a `{figure}` directive, which carries its caption and
its alternative text; drawn into a cell's output it would lose both. A number is glued and then named in
the prose as {glue:text}`name`, so that nobody types one.
"""

import functools
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nodelib.experiment.artifacts import write_atomic
from nodelib.experiment.paths import PUBLISHED

ANY_GROUND = "#7a7a7a"  # contrast 4.3 with white and with the page's dark ground alike


def figure_path(name: str) -> Path:
    """Where the figure file `name` belongs: below `book/figures`, or NODELIB_FIGURES where that is set.

    In a notebook whose `scale` is "smoke" it is never below `book/figures`, but in a scratch folder instead,
    which is named on stderr.

    Raises:
        ValueError: the name is not lower-case words joined by hyphens with the suffix .svg, .png or .gif.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9.]+)*\.(svg|png|gif)", name):
        raise ValueError(f"the figure name is {name!r}; it must be lower-case words joined by hyphens, "
                         "ending in .svg, .png or .gif")
    published = PUBLISHED.parent / "book" / "figures"
    folder = Path(os.environ.get("NODELIB_FIGURES") or published)
    if _scale() == "smoke" and folder.resolve() == published:
        folder = _scratch()
    return folder / name


def _scale() -> str:
    """The parameter `scale` of the notebook that runs; "full" outside of notebooks."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "full" if shell is None else shell.user_ns.get("scale", "full")


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nodelib-figures-"))
    print(f"figures at smoke scale do not replace the published ones; they are in {folder}", file=sys.stderr)
    return folder


def save_figure(figure: Any, name: str) -> None:
    """Write a matplotlib figure, the same bytes for the same drawing, and close it.

    Args:
        figure: a matplotlib Figure.
        name: file name, lower-case words joined by hyphens. `.svg` for lines and few points, `.png` for
            images and for more than a few thousand points.

    Raises:
        ValueError: an unfit name, see `figure_path`.
    """
    import matplotlib
    import matplotlib.pyplot

    path = figure_path(name)
    # matplotlib writes the date and its version, and draws random ids into SVG, unless told not to
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    content = io.BytesIO()
    ground = "white"  # the page turns drawings around in dark mode
    if path.suffix == ".png":  # but not pictures, whose colours the caption names
        ground = "none"
        _for_any_ground(figure)
    with matplotlib.rc_context({"svg.hashsalt": "nodelib", "svg.fonttype": "path"}):
        figure.savefig(content, format=path.suffix[1:], dpi=160, metadata=metadata, bbox_inches="tight",
                       facecolor=ground)
    write_atomic(path, content.getvalue())
    matplotlib.pyplot.close(figure)


def _for_any_ground(figure: Any) -> None:
    """Words, ticks and frames of all panels in a grey that is read on white and on black; no ground of its
    own.
    """
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=ANY_GROUND)
        axes.spines[:].set_color(ANY_GROUND)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(ANY_GROUND)


def save_bytes(content: bytes, name: str) -> None:
    """Write a ready image file, such as an animated GIF, below `book/figures`."""
    write_atomic(figure_path(name), content)


def glue(name: str, text: str) -> None:
    """Keep a piece of computed text for the prose: {glue:text}`name` shows it.

    On another page it is {glue:text}`05-the-table.ipynb::name:s`. Format numbers here, units included.
    """
    import myst_nb

    myst_nb.glue(name, str(text), display=False)


def span(values: Iterable[float], digits: int = 3) -> str:
    """The lowest and the highest of some values in words, such as "94.3 to 97.1", or the only one."""
    values = list(values)
    ends = min(values), max(values)
    low, high = (f"{v:,.0f}" if abs(v) >= 10 ** (digits - 1) else f"{v:.{digits}g}" for v in ends)
    if low == high:
        return low
    # "12.0 to 12.8" and not "12 to 12.8": as many decimals as the other, where there is room
    decimals = max(len(text.partition(".")[2]) for text in (low, high))
    if decimals <= 2 and "e" not in low + high:
        low, high = (f"{v:.{decimals}f}" if "." not in text and abs(v) < 10 ** (digits - decimals) else text
                     for v, text in zip(ends, (low, high)))
    return f"{low} to {high}"


class SentenceError(AssertionError):
    """A sentence of the book that the data no longer bears out."""


def sentence(words: str, scale: str = "full") -> Callable[[Callable[[], None]], None]:
    """Guard a sentence of the page: `@sentence("No row keeps an image.")` above a function `_` that
    asserts what it says.

    The function is called at once, and only where the page is executed at that scale (its parameter
    `scale`), since a finding of the
    full runs need not hold for small ones. The words stand verbatim in the page's prose, which a test checks.

    Raises:
        SentenceError: an assertion failed; names the sentence and the line, so that somebody looks again
            and writes another one.
    """
    def guard(check: Callable[[], None]) -> None:
        if check.__globals__.get("scale", "full") != scale:
            return
        try:
            check()
        except AssertionError as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = next(frame for frame in reversed(frames) if frame.name == check.__name__)
            raise SentenceError(f"the data no longer bears out \"{words}\": line {where.lineno}, "
                                f"{where.line or 'assert'}"
                                + (f" ({error})" if str(error) else "")
                                + "; look at the data and rewrite the sentence") from error

    return guard


def markdown(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a Markdown table; numbers are right-aligned, a missing one is a dash.

    Args:
        headers: of the columns; one that ends in ":" is of words and left-aligned.
        rows: of ready text, one entry per column; a NaN or None is shown as a dash.
    """
    def cell(entry: Any) -> str:
        return "–" if entry is None or entry != entry else str(entry).replace("|", "\\|")

    lines = ["| " + " | ".join(header.removesuffix(":") for header in headers) + " |",
             "| " + " | ".join("---" if header.endswith(":") else "---:" for header in headers) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """The table of `markdown` for display."""
    from IPython.display import Markdown

    return Markdown(markdown(headers, rows))
