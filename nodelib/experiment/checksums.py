"""`checksums.json` of a run's folder: SHA-256 of what the library wrote there, so that an edit by hand shows.

A file's entry lists what its content may be: one digest, and while the file is being replaced two, the old
and the new one (null: no file), so that a process killed between the writes leaves a folder in order. A file
that is none of these, or has no entry, was changed by other means. It is still written, but its entry stays
as it is: what was edited once keeps its fault until it is restored, deleted and made anew, or accepted
(`seal`).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from nodelib.experiment.files import ArtifactError, read_json, undisturbed, write_atomic, write_json, writing

NAME = "checksums.json"
CHECKED = ("history.csv", "measurements.csv", "metrics.csv", "outcomes.safetensors", "snapshots.csv")
Digests = dict[str, list[str | None]]


def store(path: Path, content: bytes | None) -> None:
    """Write one of the `CHECKED` files, or delete it (None), and say so in `checksums.json`.

    Call it within `nodelib.experiment.files.writing`.

    Raises:
        ArtifactError: `checksums.json` is damaged, or the disk does not take it.
    """
    stated = path.with_name(NAME)
    digests = _read(stated) if stated.exists() else {}
    before, after = _digest(path), None if content is None else hashlib.sha256(content).hexdigest()
    sound = before is None or before in digests.get(path.name, [None])
    if sound and before != after:
        write_json(stated, _sorted({**digests, path.name: [before, after]}))
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, content)
    if sound or after is None:
        write_json(stated, _sorted({**digests, path.name: [after]}))


def seal(folder: Path) -> list[str]:
    """Accept the files of a run's folder as they are: write their `checksums.json` anew.

    Returns:
        the names of those that were none of what it stated: edited, without an entry, or missing.
    """
    with writing(folder):
        try:
            digests = _read(folder / NAME)
        except ArtifactError:  # missing or damaged: it states nothing
            digests = {}
        found = {name: _digest(folder / name) for name in CHECKED}
        write_json(folder / NAME, _sorted({name: [digest] for name, digest in found.items()}))
    return [name for name in CHECKED if found[name] not in digests.get(name, [None])]


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with the `CHECKED` files of a run's folder, one sentence per file; what another process
    writes meanwhile is no fault.

    Raises:
        ArtifactError: `checksums.json` is damaged, or another process does not stop writing.
    """
    yield from undisturbed(lambda: list(_faults(folder)), [folder / NAME])


def _faults(folder: Path) -> Iterator[str]:
    accept = f"`python -m nodelib verify {folder.name.rpartition('-seed')[0]} --seal` accepts what is there"
    if not (folder / NAME).exists():
        yield f"{NAME} is missing. Restore it with git; {accept}"
        return
    digests = _read(folder / NAME)
    for name in CHECKED:
        found, stated = _digest(folder / name), digests.get(name, [None])
        if found in stated:
            continue
        if found is None and name != "outcomes.safetensors":  # whose absence `verification` names
            yield f"{name} is missing. Restore it with git, or measure the run again"
        elif found is not None and stated == [None]:
            yield f"{name} has no checksum in {NAME}. Restore both with git; {accept}"
        elif found is not None:
            yield (f"{name} was edited by hand or damaged: it is not what {NAME} states. Restore it with "
                   f"git, or delete it and measure the run again; {accept}")


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _sorted(digests: Digests) -> Digests:
    """Without the files that are not there, in the order of their names."""
    return {name: stated for name, stated in sorted(digests.items()) if stated != [None]}


def _read(path: Path) -> Digests:
    digests = read_json(path)
    if not isinstance(digests, dict) or not all(isinstance(stated, list) for stated in digests.values()):
        raise ArtifactError(f"{path} does not list digests by file. Restore it with git.")
    return digests
