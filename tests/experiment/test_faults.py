"""Kills, full disks and damaged files at random moments and places: a run is as it was, or goes on to the
same bits.
"""

import errno
import gzip
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import tiny_config

from nodelib.experiment import (
    artifacts,
    checksums,
    evaluation,
    mnist,
    protocols,
    records,
    training,
    verification,
)

KILLS = 20
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
signals = pytest.mark.parametrize("number", [
    pytest.param(getattr(signal, name), id=name) for name in ("SIGKILL", "SIGTERM", "SIGINT")])


def forked(function, *arguments) -> multiprocessing.Process:
    """A process that computes beside this one, with MNIST loaded already."""
    def begin():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=begin)
    process.start()
    return process


def kill_at_random(number, work, check, fault, seed) -> None:
    """Begin `work(part)` again and again, kill it at random moments, `check(part, whether it ended)` each
    time.
    """
    began = time.monotonic()
    whole = forked(work, "whole")
    whole.join()
    assert whole.exitcode == 0
    longest, draw, part = time.monotonic() - began, np.random.default_rng(seed), 0
    while fault.injected < KILLS:
        process = forked(work, part)
        process.join(draw.uniform(0, longest))
        if ended := not process.is_alive():
            assert process.exitcode == 0
        else:
            os.kill(process.pid, number)
            process.join()
            fault.injected += 1
        check(part, ended)
        part += ended
    work(part)
    check(part, True)
    assert fault.lost == fault.wrong == 0


@needs_fork
@pytest.mark.more
@pytest.mark.fault("killed", "training killed at a random moment",
                   "goes on to the bits of a run that nobody stopped")
@signals
def test_training_killed_at_random_moments_ends_in_the_same_bits(number, tmp_path, fault, monkeypatch):
    torch.set_num_threads(1)  # as a forked process has
    config = tiny_config()
    few = [part[:config.train_images].clone() for part in mnist.load("train")]
    monkeypatch.setattr(mnist, "load", lambda split: few)
    reached: dict = {}

    def work(part):
        if training.unfinished(config, tmp_path / str(part) / config.folder):  # as the command line asks
            training.train(config, tmp_path / str(part), checkpoint_seconds=0, progress=False)

    def check(part, ended):
        folder = tmp_path / str(part) / config.folder
        if ended:
            model = "model.safetensors"
            expected = tmp_path / "whole" / config.folder / model
            fault.wrong += (folder / model).read_bytes() != expected.read_bytes()
        elif (path := folder / "checkpoint.safetensors").exists():
            _, step = artifacts.load_checkpoint(path, training.fingerprint(config))
            fault.lost += step < reached.get(part, 0)
            reached[part] = step

    kill_at_random(number, work, check, fault, seed=number)


@needs_fork
@pytest.mark.more
@pytest.mark.fault("killed", "an evaluation killed at a random moment",
                   "every finished record stays, none is repeated")
@signals
def test_an_evaluation_killed_at_random_moments_keeps_every_record(number, tiny_run, tmp_path, fault):
    protocol = protocols.table_protocol(tiny_config())
    stored: dict = {}

    def work(part):
        folder = tmp_path / str(part) / tiny_run.path.name
        if not folder.exists():
            shutil.copytree(tiny_run.path, folder, ignore=shutil.ignore_patterns("metrics*", "outcomes*"))
        evaluation.evaluate_run(folder, protocol, progress=False)

    def check(part, ended):
        if not (folder := tmp_path / str(part) / tiny_run.path.name / "config.json").exists():
            return
        run = artifacts.load_run(folder.parent)
        found = {r["id"]: r for r in run.metrics}
        for name, record in stored.get(part, {}).items():
            fault.lost += name not in found
            fault.wrong += found.get(name, record) != record  # measured again: its seconds are others
        fault.wrong += sum(run.outcomes(name).sum() != r["correct"] for name, r in found.items())
        stored[part] = found
        if ended:
            fault.wrong += {(n, r["correct"]) for n, r in found.items()} != {
                (r["id"], r["correct"]) for r in tiny_run.metrics}

    test_set = evaluation.test_subset(64)
    assert len(test_set[0]) == 64
    kill_at_random(number, work, check, fault, seed=number)


@pytest.fixture
def refusing(monkeypatch):
    """A function that lets the next so many writings pass and then has the disk refuse one, in one of three
    ways; it returns what counts them.
    """
    def refuse(place: str, after: int) -> list:
        seen: list = []
        fsync, replace, opened = os.fsync, os.replace, Path.open

        def due(kind, code):
            if kind == place:
                seen.append(kind)
                if len(seen) == after + 1:
                    raise OSError(code, os.strerror(code))

        class Half:
            """A file that takes half of what is written."""

            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.file.close()

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, content):
                self.file.write(content[:len(content) // 2])
                due("write", errno.ENOSPC)
                return self.file.write(content[len(content) // 2:])

        monkeypatch.setattr(os, "fsync", lambda file: (due("fsync", errno.EIO), fsync(file)))
        monkeypatch.setattr(os, "replace", lambda *paths: (due("replace", errno.EROFS), replace(*paths)))
        monkeypatch.setattr(Path, "open", lambda path, mode="r", *rest, **options: (
            Half if mode == "wb" else lambda file: file)(opened(path, mode, *rest, **options)))
        return seen

    yield refuse


@pytest.mark.slow
@pytest.mark.fault("refused", "the disk refuses to write, sync or replace a file of a run that trains",
                   "the old file stays; training goes on to the same bits")
@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_training_goes_on_after_every_writing_that_failed(place, refusing, monkeypatch, tmp_path, fault):
    config, model = tiny_config(), "model.safetensors"
    whole = training.train(config, tmp_path / "whole", progress=False)
    folder = tmp_path / "parts" / config.folder
    for after in range(100):
        with monkeypatch.context():
            seen = refusing(place, after)
            before = {path.name: path.read_bytes() for path in folder.glob("[!.]*")}
            try:
                with pytest.raises(artifacts.ArtifactError, match="cannot be written.*is intact"):
                    training.train(config, tmp_path / "parts", checkpoint_seconds=0, progress=False)
            except pytest.fail.Exception:
                break  # it came to its end
            finally:
                monkeypatch.undo()
        fault.injected += 1
        fault.lost += bool(before.keys() - {path.name for path in folder.iterdir()})
        fault.wrong += any(".tmp" in path.name for path in folder.iterdir())
    assert len(seen) <= after and fault.injected > 5
    fault.wrong += (folder / model).read_bytes() != (whole.path / model).read_bytes()
    assert fault.lost == fault.wrong == 0


@pytest.mark.fault("refused", "the disk refuses to write, sync or replace the files of a new record",
                   "the records that were there stay, the new one can be stored again")
@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
def test_a_record_that_could_not_be_stored_harms_no_other(place, refusing, monkeypatch, copy, fault):
    run, refused = artifacts.load_run(copy), set()
    old = run.metric("none-t1")
    for after in range(100):
        before, new = artifacts.load_run(copy), {**old, "id": f"new{after}-t1"}
        seen = refusing(place, after)
        try:
            with pytest.raises(artifacts.ArtifactError, match="cannot be written.*is intact") as error:
                artifacts.add_metric(run, new, run.outcomes(old["id"]))
        except pytest.fail.Exception:
            break  # it is stored
        finally:
            monkeypatch.undo()
        fault.injected += 1
        refused.add(Path(str(error.value).partition(" cannot be written")[0]).name)
        now = artifacts.load_run(copy)
        fault.lost += [r for r in now.metrics if r != new] != before.metrics
        fault.wrong += not all(now.outcomes(r["id"]).size for r in now.metrics)
        fault.wrong += any(checksums.faults(copy))
        assert new in artifacts.add_metric(run, new, run.outcomes(old["id"])).metrics
    assert len(seen) <= after and refused == {"checksums.json", "outcomes.safetensors", "metrics.csv"}
    assert fault.lost == fault.wrong == 0 and not any(checksums.faults(copy))


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the tiny run that a test may damage, with a file of every kind."""
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    found = {"name": "norm", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median", "n": 5,
             "settings": {}}
    checksums.store(folder / "measurements.csv", records.measurements_csv(
        [{**found, "value": 1.0}, {**found, "t1": 10.0, "value": 2.5}]))
    return folder


def state(folder: Path) -> list:
    """All that is read of a run, once it passed the checks of `verify` that compute nothing again."""
    run = artifacts.load_run(folder)
    if faults := list(verification.problems(run)):
        raise artifacts.ArtifactError(faults[0])
    weights = {name: value.tolist() for name, value in run.load_model().state_dict().items()}
    outcomes = {name: run.outcomes(name).tolist() for name in sorted(run.outcome_ids())}
    columns = {name: values.tolist() for name, values in run.history.items()}
    return [run.config, run.provenance, columns, run.metrics, run.measurements, outcomes, weights]


def damage_at_random(path: Path, damage, monkeypatch, fault, seed: int) -> None:
    """Damage a file in twenty ways: each time it is refused, or read as it was."""
    monkeypatch.setattr(verification, "_recomputed", lambda *a: iter(()))
    whole, before, draw = path.read_bytes(), state(path.parent), np.random.default_rng(seed)
    for _ in range(20):
        path.write_bytes(damage(whole, int(draw.integers(len(whole)))))
        fault.injected += 1
        try:
            fault.wrong += state(path.parent) != before
        except artifacts.ArtifactError as error:
            fault.tell(str(error))
    path.write_bytes(whole)
    assert fault.wrong == 0 and state(path.parent) == before


@pytest.mark.fault("damaged", "a stored file cut short anywhere", "refused by name, or read as it was")
@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "history.csv", "outcomes.safetensors",
                                  "model.safetensors"])
def test_a_file_cut_short_is_refused(name, copy, monkeypatch, fault):
    damage_at_random(copy / name, lambda whole, at: whole[:at], monkeypatch, fault, seed=1)


@pytest.mark.fault("damaged", "one bit of stored weights or outcomes turned over",
                   "refused by name, or read as it was")
@pytest.mark.parametrize("name", ["outcomes.safetensors", "model.safetensors"])
def test_a_bit_turned_over_is_refused(name, copy, monkeypatch, fault):
    damage_at_random(copy / name, lambda whole, at: whole[:at] + bytes([whole[at] ^ 1 << at % 8])
                     + whole[at + 1:], monkeypatch, fault, seed=2)


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.fault("damaged", "a pickle under the name of a stored file", "refused, and never executed")
@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "measurements.csv", "history.csv",
                                  "snapshots.csv", "outcomes.safetensors", "model.safetensors",
                                  "checkpoint.safetensors"])
@pytest.mark.parametrize("form", ["pickle", "torch.save"])
def test_a_pickle_is_refused_and_never_executed(name, form, copy, tmp_path):
    trap, path = tmp_path / "sprung", copy / name
    if form == "pickle":
        path.write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save(Trap(trap), path)
    with pytest.raises(artifacts.ArtifactError, match=name):
        run = artifacts.load_run(copy)
        run.outcomes("none-t1")
        run.load_model()
        if name == "checkpoint.safetensors":
            artifacts.load_checkpoint(path, "")
    assert not trap.exists()


@pytest.mark.fault("damaged", "a pickle under the name of a stored file", "refused, and never executed")
def test_a_pickle_with_the_right_checksum_or_as_an_image_file_is_not_executed(copy, tmp_path):
    trap, content = tmp_path / "sprung", pickle.dumps(Trap(tmp_path / "sprung"))
    (copy / "model.safetensors").write_bytes(content)
    stored = artifacts.read_json(copy / "config.json")
    stored["provenance"]["weights_sha256"] = artifacts.hashlib.sha256(content).hexdigest()
    artifacts.write_json(copy / "config.json", stored)
    with pytest.raises(artifacts.ArtifactError, match="model.safetensors"):
        artifacts.load_run(copy).load_model()
    for file in mnist.FILES.values():
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(mnist.DataError, match="is altered"):
        mnist.load("test", tmp_path)
    assert not trap.exists()
