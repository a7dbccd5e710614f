"""Files that are whole or not there: atomic writing, JSON, and the locks of a run's folder."""

import contextlib
import glob
import json
import math
import os
import platform
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import filelock

from nodelib.solver.errors import NodelibError

WRITE_SECONDS = 60.0  # longest wait for another process that writes: a write takes a fraction of a second
READS, READ_PAUSE = 40, 0.05  # how often, and after how many seconds, what is being written is read anew

T = TypeVar("T")


class ArtifactError(NodelibError, RuntimeError):
    """A run's folder lacks a file, or a file is damaged, does not fit its config or cannot be written."""


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a full disk never meets half of it.

    A temporary file in the same folder, fsync, then `os.replace`: on failure the old file stays. The
    permissions of a file that is there are kept. What a killed process left of the same file is removed.

    Raises:
        ArtifactError: the folder or the disk does not take it.
    """
    path = Path(path)
    prefix = f".{path.name}.{platform.node()}."
    temporary = path.with_name(f"{prefix}{os.getpid()}-{threading.get_ident()}.tmp")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
            # none of a host whose name goes on where this one's ends: its processes are not asked for here
            process = re.fullmatch(r"(\d+)-\d+\.tmp", left.name.removeprefix(prefix))
            if process and not _runs(int(process[1])):
                left.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error.strerror or error}). What was stored before "
                            "is intact; make room, or name another folder (--root)") from error


def _runs(process: int) -> bool:
    """Whether there is such a process on this machine; not asked on Windows, where the question ends it."""
    if os.name != "nt":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except OSError:  # somebody else's
            pass
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, one fixed layout, so that equal content means equal bytes."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; ArtifactError if it is missing or no JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Restore it with git, or train the run again.") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # no JSON, or no text
        raise ArtifactError(f"{path} is not valid JSON ({error}). Restore it with git.") from error


def undisturbed(read: Callable[[], T], files: Sequence[Path],
                settled: Callable[[T], bool] = lambda found: True) -> T:
    """What `read` gives of files that other processes may be replacing: of one state of them, not of two.

    It takes no lock, which would need a folder that can be written and keep writers waiting. It reads anew,
    up to `READS` times, where one of `files` changed meanwhile.

    Args:
        files: such as change with whatever `read` reads.
        settled: whether what was read can be a writer's last word. It is given back all the same where it
            stays so: the writer was killed.

    Raises:
        ArtifactError: of `read`, unless a change explains it; or there was a change each time.
    """
    for _ in range(READS):
        before, error = _contents(files), None
        try:
            found = read()
        except ArtifactError as raised:
            error = raised
        if not (changed := _contents(files) != before):
            if error:
                raise error
            if settled(found):
                return found
        time.sleep(READ_PAUSE)
    if error or changed:
        raise error or ArtifactError(f"{files[0].parent} was written by another process each of the {READS} "
                                     "times it was read; wait for that to end, and run the same command "
                                     "again")
    return found


def _contents(files: Sequence[Path]) -> list[bytes | None]:
    return [_content(path) for path in files]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:  # whoever reads it for its content says what is wrong
        return None


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError if it is none or holds a number that is not finite."""
    value = json.loads(text)
    if not_finite(value):
        raise ValueError("a number is not finite")
    return value


def not_finite(value: Any) -> bool:
    """Whether a NaN or an infinite number is anywhere in a value as JSON holds it."""
    if isinstance(value, (dict, list, tuple)):
        return any(map(not_finite, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a run for as long as it trains, so that two processes cannot train the same one.

    Who measures it meanwhile is not kept waiting: what the folder stores changes within `writing` alone.

    Raises:
        ArtifactError: another process trains it.
    """
    return _held(folder, "train", 0.0, "is being trained by another process; wait for it to end")


def writing(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold what a run's folder stores while it is read, changed and written again: for moments only.

    Raises:
        ArtifactError: another process held it for more than `WRITE_SECONDS`.
    """
    return _held(folder, "write", WRITE_SECONDS, "was being written by another process for "
                 f"{WRITE_SECONDS:g} s; see what hangs there and run the same command again")


@contextlib.contextmanager
def _held(folder: Path, purpose: str, seconds: float, refusal: str) -> Iterator[None]:
    # beside the folder, which may be deleted to train the run again, and never removed: whoever waits for a
    # file that is unlinked gets it together with the one who makes it anew
    path = folder.resolve().parent / f".{folder.resolve().name}.{purpose}.lock"
    lock = filelock.FileLock(path, timeout=seconds)
    with _explained(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise ArtifactError(f"{folder} {refusal}") from None
    try:
        yield
    finally:
        lock.release()
