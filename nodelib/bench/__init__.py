"""Measure training steps through ODE solvers against each other: `python -m nodelib bench`."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see `nodelib.bench.suites.main`."""
    from nodelib.bench.suites import main as run

    return run(argv)


__all__ = ["main"]
