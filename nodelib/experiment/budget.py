"""A budget of time, after which nothing further is begun."""

import argparse
import math
import time

from nodelib.solver.errors import InputError


class Budget:
    """Seconds that may pass from now on.

    Args:
        seconds: 0 or more, or None for no limit.

    Raises:
        InputError: the number is negative or not finite.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"the budget is {seconds} seconds; it must be a finite number of at least 0, or "
                             "left out")
        self._seconds, self._began = seconds, time.monotonic()

    @property
    def left(self) -> float | None:
        """Seconds that are left, at least 0; None without a limit."""
        return None if self._seconds is None else max(0.0, self._seconds - (time.monotonic() - self._began))

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left == 0.0


def seconds(text: str) -> float:
    """The type of a `--budget` on the command line."""
    try:
        value = float(text)
        Budget(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no budget: {error}") from error
    return value
