"""Which of the first round's verdicts depend on how long networks were trained: with shorter trained
networks in the ledger.

Some networks were trained for further learning-rate cycles after their test figures had been seen. Whoever
stops training when the figures please chooses the verdict; so the ledger is computed again with the records
that such networks had before, everything else as it is. The records come from the repository's history:

    python -m nodelib prolonged RUN[,RUN...]@COMMIT ...
"""

from __future__ import annotations

import argparse
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from nodelib.experiment.artifacts import Run, find_runs, read_json, write_json
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.paths import data_dir
from nodelib.solver.errors import InputError
from nodelib.verdicts.ledger import first_round
from nodelib.verdicts.verdict import UNDECIDED, Verdict

ATTACKS = ("fgsm-seed", "fgsm-exact", "pgd10-exact")


def path() -> Path:
    """Where the earlier verdicts are stored."""
    return data_dir() / "prolonged.json"


def with_shorter(runs: Sequence[Run], shorter: Sequence[Run]) -> list[Run]:
    """The runs with each of `shorter` in the place of the run that prolongs it.

    Raises:
        InputError: a shorter run that no run of the same name and seed is a prolongation of.
    """
    earlier = {(run.name, run.seed): run for run in shorter}
    known = {(run.name, run.seed): run for run in runs}
    for key, run in earlier.items():
        if key not in known or not RunConfig.from_dict(known[key].config).extends(
                RunConfig.from_dict(run.config)):
            raise InputError(f"{run.name} (seed {run.seed}) of {run.config['epochs']} epochs is not "
                             "prolonged by any run given; name a commit where it had fewer cycles")
    return [earlier.get((run.name, run.seed), run) for run in runs]


def stage(runs: Sequence[Run], shorter: Sequence[Run], seed: dict, commit: str = "") -> dict:
    """The verdicts with shorter trained networks in the ledger, as `stages` reads them.

    Args:
        runs: of today; shorter: their predecessors; seed: content of `data/seed.json`; commit: where those
            come from.

    Returns:
        runs: names; epochs: of each; commit; verdicts: claim id -> verdict; left: name -> what `ATTACKS`
        leave of it at its own end time, (correct, images) by the attack's name.
    """
    verdicts = first_round(with_shorter(runs, shorter), seed)
    return {"runs": [run.name for run in shorter], "epochs": [run.config["epochs"] for run in shorter],
            "commit": commit,
            "verdicts": {claim: verdict.verdict for claim, verdict in verdicts.items()},
            "left": {run.name: left(run) for run in shorter}}


def left(run: Run) -> dict[str, tuple[int, int]]:
    """How many images each of `ATTACKS` leaves of a run at its own end time, and of how many."""
    found = {r["id"]: (r["correct"], r["n"]) for r in run.metrics}
    return {attack: found[record] for attack in ATTACKS
            if (record := f"{attack}-t{run.config['test_t1']:g}") in found}


def stages() -> list[dict]:
    """What is stored of earlier verdicts, oldest first; empty where nothing is."""
    return read_json(path()) if path().exists() else []


def differences(stored: Sequence[dict], today: Mapping[str, Verdict]) -> list[dict]:
    """Per stage the claims whose verdict differs from today's, where both are decided: runs, epochs, changes.

    Only claims whose evidence the stage's runs are: another verdict on any other has another cause.

    Args:
        today: of `nodelib.verdicts.first_round`, since the runs that were prolonged are the first round's.

    Returns:
        changes: (claim id, verdict with the shorter trained networks, today's verdict).
    """
    return [{"runs": one["runs"], "epochs": one["epochs"], "changes": [
        (claim, verdict, today[claim].verdict) for claim, verdict in one["verdicts"].items()
        if UNDECIDED not in (verdict, today[claim].verdict) and verdict != today[claim].verdict
        and any(source.startswith(f"{name}-seed") for source in today[claim].evidence
                for name in one["runs"])]} for one in stored]


def at_commit(names: Sequence[str], commit: str, folder: Path) -> list[Run]:
    """Seed 0 of some runs as a commit of this repository holds them, unpacked into a folder.

    The first commits held records as JSON.

    Raises:
        InputError: no such commit, or a run that it does not hold.
    """
    paths = [f"data/runs/{name}-seed0" for name in names]
    try:
        found = subprocess.run(["git", "archive", commit, *paths], capture_output=True, check=True,
                               cwd=Path(__file__).parents[2])
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", b"").decode().strip() or error
        raise InputError(f"{', '.join(names)} at {commit}: {why}; this needs git and a clone of the whole "
                         "history") from None
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    old: dict[str, dict] = {}
    for file in folder.glob("data/runs/*/m*.json"):
        old.setdefault(file.parent.name, {})[file.stem] = read_json(file)
        file.unlink()
    return [replace(run, **old.get(run.path.name, {})) for run in find_runs(folder / "data/runs")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge anew with the runs as they were at each of some commits, and store the verdicts."""
    parser = argparse.ArgumentParser(prog="python -m nodelib prolonged", description=main.__doc__)
    parser.add_argument("earlier", nargs="+", metavar="RUN[,RUN...]@COMMIT", help="runs and their commit")
    runs, seed, found = find_runs(), read_json(data_dir() / "seed.json"), []
    for each in parser.parse_args(arguments).earlier:
        names, at, commit = each.partition("@")
        if not at:
            parser.error(f"{each!r} names no commit; write it as {each}@COMMIT")
        with tempfile.TemporaryDirectory() as folder:
            found.append(stage(runs, at_commit(names.split(","), commit, Path(folder)), seed, commit))
        print(f"{each}: {', '.join(f'{c} {v}' for c, v in found[-1]['verdicts'].items())}")
    write_json(path(), found)
    return 0
