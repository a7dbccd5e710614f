"""What all commands share: an error with a known reason is one line, any other a traceback."""

import os
import sys
from collections.abc import Callable, Sequence

from nodelib.experiment.progress import say
from nodelib.solver.errors import NodelibError

DEBUG = "--debug"


def call(main: Callable[[list[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Call a command with its arguments, by default those of this process, and return the exit status.

    2 after an error with a known reason, the file system's among them, whose traceback `--debug` among the
    arguments shows; 130 after an interrupt, which may say what came of the work: `KeyboardInterrupt(text)`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as by >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if hasattr(sys.stdout, "reconfigure"):  # where it cannot say a letter it says another
        sys.stdout.reconfigure(errors="replace")
    try:
        status = main([argument for argument in given if argument != DEBUG])
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (NodelibError, OSError) as error:
        if DEBUG in given:
            raise
        say(f"error: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        say(f"interrupted; {stop}" if str(stop) else "interrupted", sys.stderr)
        return 130
