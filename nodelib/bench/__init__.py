"""Measure training steps through ODE solvers against each other: `python -m nodelib bench`."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see `nodelib.bench.suites.main`, and with --gpu `nodelib.bench.gpu.main`."""
    from nodelib.bench import gpu, suites

    argv = list(sys.argv[1:] if argv is None else argv)
    if "--gpu" in argv:
        return gpu.main([argument for argument in argv if argument != "--gpu"])
    return suites.main(argv)


__all__ = ["main"]
