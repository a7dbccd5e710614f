"""Lines about work in progress, and a bar of it on a terminal."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0  # between plain lines


def say(line: str, file: TextIO | None = None, end: str = "\n") -> None:
    """Print a line at once, to stdout by default; silently where its reader, such as `head`, has gone."""
    file = sys.stdout if file is None else file
    try:
        print(line, file=file, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


class Progress:
    """Progress of `total` steps of a task, shown on stderr.

    Args:
        task: what is being done.  total: number of steps.  unit: name of one step.
        done: steps done before.
        shown: False for silence, True or None for a bar on a terminal and otherwise a plain line every
            ten seconds and at the end.
    """

    def __init__(self, task: str, total: int, unit: str, done: int = 0, shown: bool | None = None) -> None:
        self.task, self.total, self.unit, self.done = task, total, unit, done
        terminal = sys.stderr.isatty()
        self._lines = shown is not False and not terminal
        self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc=task, unit=unit,
                         disable=shown is False or not terminal)

    def advance(self, text: str = "") -> None:
        """One more step is done; `text` describes its result."""
        self.done += 1
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        if self._lines and (self.done == self.total or time.monotonic() - self._last > LINE_SECONDS):
            self._last = time.monotonic()
            say(f"{self.task}: {self.unit} {self.done} of {self.total}" + (f", {text}" if text else ""),
                sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._bar.close()
