import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from nodelib.experiment import (
    artifacts,
    checksums,
    evaluation,
    mnist,
    paths,
    records,
    training,
    verification,
)
from nodelib.experiment.configs import RunConfig
from nodelib.solver.errors import InputError


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the tiny run that a test may damage."""
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    return folder


def faults(folder) -> str:
    try:
        return "\n".join(verification.problems(artifacts.load_run(folder), sample=8))
    except artifacts.ArtifactError as error:
        return str(error)


def change(path, function):
    """Change a file by hand, whatever comes of it."""
    if path.suffix == ".json":
        value = json.loads(path.read_text())
        function(value)
        path.write_text(json.dumps(value))
        return
    rows = records.from_csv(path, records.METRICS)
    function(rows)
    path.write_bytes(records.to_csv(rows, records.METRICS))


def test_a_sound_run_has_no_faults(copy):
    assert faults(copy) == ""


@pytest.mark.fault("damaged", "one bit of stored weights or outcomes turned over",
                   "refused by name, or read as it was")
def test_one_flipped_byte_in_the_weights_is_found(copy):
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(artifacts.ArtifactError, match="is altered: config.json states SHA-256"):
        artifacts.load_run(copy).load_model()
    assert "is altered" in faults(copy)


def test_missing_weights_are_named(copy):
    (copy / "model.safetensors").unlink()
    assert "model.safetensors is missing" in faults(copy)


@pytest.mark.parametrize("content", [b"no weights", safetensors.torch.save({"x": torch.zeros(1)})],
                         ids=["no safetensors", "another network's"])
def test_weights_that_do_not_fit_are_named_though_their_hash_is_stated(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    stated = hashlib.sha256(content).hexdigest()
    change(copy / "config.json", lambda c: c["provenance"].update(weights_sha256=stated))
    with pytest.raises(artifacts.ArtifactError, match="model.safetensors does not hold"):
        artifacts.load_run(copy).load_model()
    assert "model.safetensors does not hold" in faults(copy)


def first(rows, attack="none"):
    return next(r for r in rows if r["attack"] == attack)


@pytest.mark.parametrize("function, message", [
    (lambda m: first(m).update(accuracy=0.999), "accuracy 0.999 is not"),
    (lambda m: first(m).update(n=6.4), "damaged in line .*6.4"),
    (lambda m: first(m).update(clip=1), "damaged in line .*1"),
    (lambda m: m.append(m[0]), "twice"),
    (lambda m: first(m).update(t1=2.0), "its t1 is 2"),
    (lambda m: first(m, "fgsm").update(epsilon=0.1), "its epsilon is 0.1"),
    (lambda m: first(m).update(epsilon=0.3), "its epsilon is 0.3"),
    (lambda m: first(m).update(nfe=float("nan")), "nfe is 'nan'"),
    (lambda m: first(m).update(n=0), "of 0 images"),
    (lambda m: first(m).update(correct=65), "65 of 64 images"),
    (lambda m: first(m).update(n=6400, accuracy=first(m)["correct"] / 6400), "outcomes of 64 images at most"),
    (lambda m: m.remove(next(r for r in m if r["id"] == "none-t1")), "no record none-t1, the clean accuracy"),
    (lambda m: m.remove(first(m, "fgsm")), "no record fgsm-exact-t1, of which there are outcomes"),
])
@pytest.mark.fault("damaged", "a record that contradicts itself or its outcomes", "found by `verify`")
def test_a_record_that_does_not_add_up_is_found(copy, function, message, fault):
    change(copy / "metrics.csv", function)
    fault.tell(found := faults(copy))
    assert re.search(message, found)


@pytest.mark.fault("damaged", "a file of another kind, layout or schema", "refused by name")
def test_a_column_that_is_missing_is_found(copy):
    path = copy / "metrics.csv"
    path.write_text(path.read_text().replace(",pooling,", ",", 1))
    assert "metrics.csv is damaged in line 1" in faults(copy)


@pytest.mark.fault("damaged", "a file of another kind, layout or schema", "refused by name")
def test_records_of_the_older_layout_are_refused_with_a_way_out(copy):
    (copy / "metrics.csv").rename(copy / "metrics.json")
    with pytest.raises(artifacts.ArtifactError, match="metrics.json is of an older.*evaluate small-10"):
        artifacts.load_run(copy)


def test_records_survive_their_file_to_the_bit_whatever_their_order(copy):
    run = artifacts.load_run(copy)
    settings = {"since": 100, "part": 'a "b",\nc', "list": [0.1, None, True]}
    odd = measurement(t1=None, value=0.1 + 0.2, label="6\r4", settings=settings)
    found = [odd, measurement(value=1e-320), measurement(t1=10.0, value=2.0)]
    assert records.measurements_csv(found) == records.measurements_csv(found[::-1])
    for rows in (run.metrics, run.metrics[::-1]):
        assert records.metrics_csv(rows) == (copy / "metrics.csv").read_bytes()
    artifacts.write_atomic(copy / "measurements.csv", records.measurements_csv(found))
    back = artifacts.load_run(copy).measurements
    assert sorted(map(json.dumps, back)) == sorted(map(json.dumps, found))
    unclipped = [{**r, "clip": r["clip"] and r["t1"] > 1} for r in run.metrics]
    artifacts.write_atomic(copy / "metrics.csv", records.metrics_csv(unclipped))
    assert artifacts.load_run(copy).metrics == unclipped
    assert {r["clip"] for r in unclipped} == {None, True, False}


def test_an_accuracy_that_the_weights_do_not_reach_is_found(copy):
    n = artifacts.load_run(copy).metric("none-t1")["n"]
    artifacts.save_outcomes(copy / "outcomes.safetensors", "none-t1", np.ones(n, dtype=bool))
    perfect = dict(correct=n, accuracy=1.0)
    change(copy / "metrics.csv", lambda m: next(r for r in m if r["id"] == "none-t1").update(perfect))
    assert "outcomes differ when recomputed" in faults(copy) and "states 1.0000; recomputed" in faults(copy)


def test_a_checkpoint_beside_a_finished_run_is_a_fault_unless_it_prolongs_the_run(copy):
    config = RunConfig.from_dict(artifacts.load_run(copy).config)
    longer = dataclasses.replace(config, epochs=config.epochs + 1, cycles=(config.epochs, 1))
    path, tensors = copy / "checkpoint.safetensors", {"weight": torch.zeros(1)}
    artifacts.save_checkpoint(path, tensors, config.steps, training.fingerprint(config))
    assert faults(copy) == "a finished run still has checkpoint.safetensors"
    artifacts.save_checkpoint(path, tensors, config.steps + 1, training.fingerprint(longer))
    assert faults(copy) == ""
    path.write_bytes(path.read_bytes()[:40])
    assert "checkpoint.safetensors is damaged" in faults(copy)


def test_a_wrong_parameter_count_and_dataset_are_found(copy):
    change(copy / "config.json", lambda c: c["provenance"].update(parameters=1, dataset_sha256={}))
    assert "states 1 parameters, the network has 17418" in faults(copy)
    assert "other dataset hashes" in faults(copy)


@pytest.mark.fault("damaged", "a file of another kind, layout or schema", "refused by name")
def test_an_unknown_config_field_is_found(copy):
    change(copy / "config.json", lambda c: c["config"].update(magic=1))
    assert "unknown config field ['magic']" in faults(copy)


@pytest.mark.parametrize("file, content", [
    ("config.json", b"{}"), ("config.json", b"[]"), ("config.json", b"\xff"), ("metrics.csv", b"{}"),
    ("metrics.csv", b""), ("metrics.csv", ",".join(records.METRICS).encode() + b"\nnone-t1,1.0\n"),
    ("measurements.csv", b"name\nnorm\n"),
    *(("measurements.csv", f"{','.join(records.MEASUREMENTS)}\nnorm,1,all,clean,mean,1,5,{cell}\n".encode())
      for cell in ('"{""since"": 1e999}"', "[]", "")),
    ("history.csv", b"step,loss\n0,1\n"), ("history.csv", b"\xff\xfe"),
    ("history.csv", ",".join(records.HISTORY).encode() + b"\n0,0,0,much"), ("snapshots.csv", b"epoch\n"),
])
@pytest.mark.fault("damaged", "a file of another kind, layout or schema", "refused by name")
def test_a_damaged_file_is_named(copy, file, content):
    (copy / file).write_bytes(content)
    with pytest.raises(artifacts.ArtifactError, match=file):
        artifacts.load_run(copy)


@pytest.mark.parametrize("change_it", [
    lambda c: c.update(config=[]), lambda c: c.update(provenance=[]),
    lambda c: c["provenance"].update(kept=None),
    lambda c: c["provenance"].update(kept={"weights-epoch4.safetensors": 4}),
])
def test_a_config_of_the_wrong_types_is_named_and_takes_no_other_run_down(change_it, copy):
    change(copy / "config.json", change_it)
    with pytest.raises(artifacts.ArtifactError, match="is not the config of a run"):
        artifacts.load_run(copy)
    runs, (fault,) = artifacts.stored_runs(copy.parent)
    assert runs == [] and "is not the config of a run" in fault


def test_outcomes_that_are_no_bytes_are_named(copy):
    path = copy / "outcomes.safetensors"
    found = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({**found, "none-t1": found["none-t1"].astype("int16")}, path)
    with pytest.raises(artifacts.ArtifactError, match="is damaged .none-t1 is not a row of bytes"):
        artifacts.load_run(copy).outcomes("none-t1")


def test_a_record_that_cannot_be_written_leaves_no_outcomes(copy):
    run = artifacts.load_run(copy)
    record = {**run.metrics[0], "id": "odd-t1", "settings": {"steps": object()}}
    before = (copy / "outcomes.safetensors").read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        artifacts.add_metric(run, record, run.outcomes(run.metrics[0]["id"]))
    assert (copy / "outcomes.safetensors").read_bytes() == before


@pytest.mark.parametrize("changes, message", [
    (dict(nfe=float("nan")), "a number that is not finite"), (dict(t1=2.0), "its t1 is 2"),
    (dict(epsilon=0.1), "its epsilon"), (dict(correct=0, accuracy=0.0), "does not state its outcomes"),
    (dict(extra=1), "unknown or of the wrong type: extra"), (dict(commit=""), "wrong type: commit"),
])
def test_a_record_that_contradicts_itself_is_never_written(copy, changes, message):
    run = artifacts.load_run(copy)
    before = (copy / "metrics.csv").read_bytes()
    record = next(r for r in run.metrics if r["correct"])
    with pytest.raises(artifacts.ArtifactError, match=f"{message}.*nothing was stored"):
        artifacts.add_metric(run, {**record, **changes}, run.outcomes(record["id"]))
    with pytest.raises(artifacts.ArtifactError, match="norm is not finite"):
        artifacts.add_measurements(run, [measurement(settings={"low": float("-inf")})], lambda r: False)
    assert (copy / "metrics.csv").read_bytes() == before and not (copy / "measurements.csv").exists()


def measurement(**changes) -> dict:
    return {"name": "norm", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median", "value": 1.0,
            "n": 5, "settings": {},
            **changes}


def test_a_measurement_that_is_there_twice_is_found_and_never_written(copy):
    run, twice = artifacts.load_run(copy), [measurement(settings={"part": "whole", "low": 0.5}),
                                            measurement(settings={"part": "whole"}, value=2.0)]
    with pytest.raises(artifacts.ArtifactError, match="norm would be stored twice"):
        artifacts.add_measurements(run, twice, lambda r: False)
    artifacts.add_measurements(run, [twice[0], measurement(settings={"part": "centred"})], lambda r: False)
    assert faults(copy) == ""
    artifacts.write_atomic(copy / "measurements.csv", records.measurements_csv(twice))
    assert "holds norm at t1 = 1.0 (all) twice" in faults(copy)


def test_a_history_that_does_not_rise_is_found_and_never_written(copy):
    path = copy / "history.csv"
    head, *lines = path.read_text().splitlines()
    rows = records.from_csv(path, records.HISTORY)
    with pytest.raises(artifacts.ArtifactError, match="do not rise"):
        artifacts.write_history(path, rows[::-1])
    assert records.from_csv(path, records.HISTORY) == rows
    columns = records.columns_of(path, records.HISTORY)
    assert {name: values.tolist() for name, values in columns.items()} == {
        name: [row[name] for row in rows] for name in records.HISTORY}
    assert {name: values.dtype.kind for name, values in columns.items()} == {
        name: "i" if kind is int else "f" for name, kind in records.HISTORY.items()}
    path.write_text("\n".join([head, *lines[::-1]]) + "\n")
    assert "the column step does not rise" in faults(copy)
    assert "the column seconds does not rise" in faults(copy)
    path.write_text("\n".join([head, *lines[:-1],
                               lines[-1].replace(f"{rows[-1]['loss']:.6g}", "nan")]) + "\n")
    assert "loss is 'nan'" in faults(copy)


@pytest.mark.fault("damaged", "a stored file cut short anywhere", "refused by name, or read as it was")
def test_damaged_outcomes_are_named(copy):
    path = copy / "outcomes.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(artifacts.ArtifactError, match="outcomes.safetensors is damaged"):
        artifacts.load_run(copy).outcomes("none-t1")
    assert "outcomes.safetensors is damaged" in faults(copy)
    runs, (fault,) = artifacts.stored_runs(copy.parent)
    assert runs == [] and "outcomes.safetensors is damaged" in fault


@pytest.mark.parametrize("rename", ["small-10-seed1", "small-100-seed0", "copy"])
@pytest.mark.fault("damaged", "a copy of a run under another name or seed",
                   "refused, counted as no further seed")
def test_a_run_in_a_folder_of_another_name_or_seed_is_refused(copy, rename, monkeypatch):
    monkeypatch.chdir(copy)
    assert artifacts.load_run(".").name == "small-10"
    shutil.copytree(copy, copy.with_name(rename))
    with pytest.raises(artifacts.ArtifactError, match=f"{rename} holds the run small-10-seed0"):
        artifacts.find_runs(copy.parent)


@pytest.mark.fault("damaged", "a copy of a run under another name or seed",
                   "refused, counted as no further seed")
def test_a_copy_of_a_run_is_no_further_seed(copy):
    other = copy.with_name("small-10-seed1")
    shutil.copytree(copy, other)
    change(other / "config.json", lambda c: c["config"].update(seed=1))
    with pytest.raises(artifacts.ArtifactError, match="small-10-seed1 holds .*small-10-seed0: a copy"):
        artifacts.find_runs(copy.parent)
    assert [run.seed for run in artifacts.stored_runs(copy.parent)[0]] == [0]


def test_a_folder_of_runs_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(artifacts.ArtifactError, match="there is no folder"):
        artifacts.find_runs(tmp_path / "runs")
    assert artifacts.find_runs(tmp_path) == []


def test_without_the_repository_messages_say_where_its_data_is(tmp_path, monkeypatch):
    for module in (paths, mnist):
        monkeypatch.setattr(module, "PUBLISHED", tmp_path / "site-packages" / "data")
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "none"))
    (tmp_path / "file").touch()
    for call, error in ((artifacts.find_runs, artifacts.ArtifactError),
                        (lambda: artifacts.find_runs(tmp_path / "file"), InputError),
                        (lambda: mnist.read_verified("test", "labels"), mnist.DataError)):
        with pytest.raises(error, match="in a clone of the repository .set NODELIB_DATA") as raised:
            call()
        assert "site-packages" not in str(raised.value) and "git checkout" not in str(raised.value)


def test_a_record_or_outcome_that_is_not_there_is_named(tiny_run):
    with pytest.raises(artifacts.ArtifactError, match="no record 'fgsm-t3'; it has fgsm-exact-t1"):
        tiny_run.metric("fgsm-t3")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    artifacts.write_json(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(artifacts.ArtifactError, match="No space left.*make room"):
        artifacts.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1} and os.listdir(tmp_path) == ["file.json"]


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
@pytest.mark.fault("killed", "a process killed while it writes a file", "the next one sweeps up what it left")
def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_one_at_work_writes_is_not(tmp_path):
    program = ("import os, signal, sys; from nodelib.experiment import files; os.fsync = lambda file: "
               "os.kill(os.getpid(), signal.SIGKILL); files.write_json(sys.argv[1], 1)")
    path = tmp_path / "file.json"
    subprocess.run([sys.executable, "-c", program, str(path)], cwd=Path(artifacts.__file__).parents[2])
    (left,) = tmp_path.iterdir()
    alive = left.with_name(re.sub(r"[.]\d+-", f".{os.getppid()}-", left.name))
    alive.write_text("half")
    artifacts.write_json(path, 2)
    assert set(tmp_path.iterdir()) == {path, alive}


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path):
    path = tmp_path / "file.json"
    artifacts.write_json(path, 1)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    artifacts.write_json(path, 2)
    assert path.stat().st_mode & 0o777 == 0o600


def test_not_a_number_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError):
        artifacts.write_json(tmp_path / "file.json", {"value": float("nan")})
    assert not (tmp_path / "file.json").exists()


def test_the_folder_of_runs_is_found_sorted(copy):
    found = artifacts.find_runs(copy.parent)
    assert [(run.name, run.seed) for run in found] == [("small-10", 0)]


def test_a_step_of_fgsm_and_clean_accuracies_elsewhere_are_recomputed(copy):
    run = artifacts.load_run(copy)
    config = RunConfig.from_dict(run.config)
    ids = {r["id"] for r in verification.recomputable(run, config)}
    assert {"none-t1", "fgsm-exact-t1"} <= ids
    elsewhere = next(name for name in ids if name.startswith("none") and name != "none-t1")
    for name in ("fgsm-exact-t1", elsewhere):
        r = run.metric(name)
        wrong = r["n"] if r["correct"] < r["n"] / 2 else 0
        artifacts.save_outcomes(copy / "outcomes.safetensors", name, np.arange(r["n"]) < wrong)
        change(copy / "metrics.csv", lambda m: next(x for x in m if x["id"] == name).update(
            correct=wrong, accuracy=wrong / r["n"]))
        assert f"record {name}: states" in faults(copy)


def edit(path, column, value):
    columns = {"metrics.csv": records.METRICS, "measurements.csv": records.MEASUREMENTS,
               "history.csv": records.HISTORY}[path.name]
    rows = records.from_csv(path, columns)
    assert rows[0][column] != value
    rows[0][column] = value
    path.write_bytes(records.to_csv(rows, columns))


@pytest.mark.parametrize("file, column, value", [
    ("metrics.csv", "clip", False), ("metrics.csv", "gradient", "adjoint"), ("metrics.csv", "nfe", 1.0),
    ("metrics.csv", "batch", 7), ("measurements.csv", "value", 9.0), ("history.csv", "loss", 0.5),
])
def test_an_edited_value_is_found_and_no_later_write_hides_it(copy, file, column, value):
    run = artifacts.add_measurements(artifacts.load_run(copy), [measurement()], lambda r: False)
    assert faults(copy) == ""
    path = copy / file
    edit(path, column, value)
    assert f"{file} was edited by hand or damaged" in faults(copy)
    record = run.metric("none-t1")
    artifacts.add_metric(run, record, run.outcomes("none-t1"))
    artifacts.add_measurements(run, [measurement(t1=2.0)], lambda r: False)
    assert f"{file} was edited by hand or damaged" in faults(copy)
    assert checksums.seal(copy) == [file] and checksums.seal(copy) == []
    assert "edited by hand" not in faults(copy)


@pytest.mark.parametrize("missing", ["the entry", "checksums.json"])
def test_a_file_without_an_entry_keeps_its_fault_whatever_is_written(copy, missing):
    stated = copy / "checksums.json"
    if missing == "the entry":
        change(stated, lambda digests: digests.pop("metrics.csv"))
    else:
        stated.unlink()
    edit(copy / "metrics.csv", "nfe", 1.0)
    run = artifacts.load_run(copy)
    artifacts.add_metric(run, run.metric("none-t1"), run.outcomes("none-t1"))
    assert ("metrics.csv has no checksum" if stated.exists() else "checksums.json is missing") in faults(copy)
    artifacts.add_measurements(run, [measurement()], lambda r: False)
    assert "metrics.csv has no checksum" in faults(copy) and "measurements.csv" not in faults(copy)


def test_files_and_checksums_that_are_missing_are_named_once_each(copy):
    (copy / "outcomes.safetensors").unlink()
    assert faults(copy).count("\n") == 0 and "outcomes.safetensors is missing" in faults(copy)
    (copy / "checksums.json").unlink()
    assert "checksums.json is missing" in faults(copy) and faults(copy).count("\n") == 1
    assert checksums.seal(copy) == ["history.csv", "metrics.csv"]
    (copy / "history.csv").unlink()
    assert "history.csv is missing" in faults(copy)
    (copy / "checksums.json").write_text("[]")
    assert "checksums.json does not list" in faults(copy)
    assert checksums.seal(copy) == ["metrics.csv"]


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
@pytest.mark.parametrize("content", [b"new", None])
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_writer_killed_between_its_writes_leaves_a_folder_in_order(tmp_path, writes, content):
    path = tmp_path / "metrics.csv"
    checksums.store(path, b"old")
    program = """
import os, signal, sys
from pathlib import Path
from nodelib.experiment import checksums
left = int(sys.argv[2])
def killed(function):
    def call(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        function(*arguments, **options)
    return call
checksums.write_json, checksums.write_atomic = killed(checksums.write_json), killed(checksums.write_atomic)
Path.unlink = killed(Path.unlink)
checksums.store(Path(sys.argv[1]), eval(sys.argv[3]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(path), str(writes), repr(content)],
                          cwd=Path(artifacts.__file__).parents[2])
    assert done.returncode == -9
    assert (path.read_bytes() if path.exists() else None) == (content if writes == 2 else b"old")
    assert list(checksums.faults(tmp_path)) == []
    checksums.store(path, b"later")
    assert list(checksums.faults(tmp_path)) == []
    assert [len(stated) for stated in artifacts.read_json(tmp_path / "checksums.json").values()] == [1]


def test_a_table_that_is_written_while_checksums_are_compared_is_no_fault(copy, monkeypatch):
    run, digest = artifacts.load_run(copy), checksums._digest

    def written_first(path):
        monkeypatch.setattr(checksums, "_digest", digest)
        artifacts.add_measurements(run, [measurement()], lambda r: False)
        return digest(path)

    monkeypatch.setattr(checksums, "_digest", written_first)
    assert list(checksums.faults(copy)) == []
    assert artifacts.load_run(copy).measurements


def test_a_measurement_outside_the_contract_is_found(copy):
    unknown = records.measurements_csv([measurement(name="speediness")])
    artifacts.write_atomic(copy / "measurements.csv", unknown)
    assert "speediness, none of" in faults(copy)


@pytest.mark.fault("together", "two processes measure one run", "no record of either is lost")
def test_two_processes_that_measure_one_run_lose_none_of_each_others_records(copy):
    before = artifacts.load_run(copy)
    program = """
import sys
import numpy as np
from nodelib.experiment import artifacts
me, run = int(sys.argv[1]), artifacts.load_run(sys.argv[2])
template = run.metric("none-t1")
norm = {"label": "all", "images": "clean", "statistic": "median", "value": 1.0, "n": 1, "settings": {}}
for k in range(20):
    correct = np.arange(64) % (k + 2) == me
    hits = int(correct.sum())
    record = {**template, "id": f"p{me}-{k}-t1", "correct": hits, "accuracy": hits / 64}
    artifacts.add_metric(run, record, correct)
    artifacts.add_measurements(run, [{"name": f"p{me}", "t1": k, **norm}], lambda r: False)
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(me), str(copy)], stderr=subprocess.PIPE,
                                  text=True,
                                  cwd=Path(artifacts.__file__).parents[2]) for me in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    run = artifacts.load_run(copy)
    names = {f"p{me}-{k}-t1" for me in range(2) for k in range(20)}
    assert {r["id"] for r in run.metrics} == names | {r["id"] for r in before.metrics}
    assert all(run.outcomes(r["id"]).sum() == r["correct"] for r in run.metrics)
    measured = sorted((m["name"], m["t1"]) for m in run.measurements)
    assert measured == [(f"p{me}", k) for me in range(2) for k in range(20)]


@pytest.mark.fault("together", "two processes train one run", "the second is refused")
def test_a_run_is_never_held_by_two_processes(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with artifacts.locked(tmp_path / "run"):
        (path,) = tmp_path.rglob("*lock")
        waiting = path.open("a")  # another process that comes now, and gets the lock when it is free
    with waiting:
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(artifacts.ArtifactError,
                           match="another process"), artifacts.locked(tmp_path / "run"):
            pass


def test_a_run_that_trains_can_be_measured_meanwhile(copy):
    run = artifacts.load_run(copy)
    with artifacts.locked(copy):
        artifacts.add_measurements(run, [measurement()], lambda r: False)
    assert artifacts.load_run(copy).measurements == [measurement()]


@pytest.mark.fault("together", "a run trained further while it is measured",
                   "what was measured of older weights is not stored")
def test_what_was_measured_on_other_weights_is_not_stored(copy):
    run = artifacts.load_run(copy)
    change(copy / "config.json", lambda c: c["provenance"].update(weights_sha256="0" * 64))
    with pytest.raises(artifacts.ArtifactError, match="has other weights by now"):
        artifacts.add_metric(run, run.metrics[0], run.outcomes(run.metrics[0]["id"]))


@pytest.mark.parametrize("name", ["metrics.csv", "outcomes.safetensors", "measurements.csv"])
def test_a_file_that_goes_just_before_it_is_opened_is_no_file(copy, name, monkeypatch):
    artifacts.add_measurements(artifacts.load_run(copy), [measurement()], lambda r: False)
    (copy / name).unlink()
    exists = Path.exists
    # it was there a moment ago
    monkeypatch.setattr(Path, "exists", lambda path: path == copy / name or exists(path))
    read = {"metrics.csv": lambda run: run.metrics, "measurements.csv": lambda run: run.measurements,
            "outcomes.safetensors": lambda run: run.outcome_ids()}[name]
    assert not read(artifacts.load_run(copy))


def test_a_record_on_fewer_images_never_replaces_one_on_more(copy):
    run = artifacts.load_run(copy)
    record = run.metric("none-t1")
    fewer = {**record, "n": 8, "correct": 8, "accuracy": 1.0}
    kept = artifacts.add_metric(run, fewer, np.ones(8, dtype=bool))
    assert kept.metric("none-t1") == artifacts.load_run(copy).metric("none-t1") == record
    assert len(run.outcomes("none-t1")) == record["n"]


@pytest.fixture
def kept(copy):
    """The copy with other weights kept of its first epoch: those of a network that always says 3."""
    model = artifacts.load_run(copy).load_model()
    torch.nn.init.zeros_(model.linear.weight)
    model.linear.bias.data = 1.0 * (torch.arange(10) == 3)
    artifacts.save_model(copy / "weights-epoch1.safetensors", model)
    change(copy / "config.json", lambda stored: stored["provenance"].update(artifacts.kept_weights(copy)))
    return copy


def test_earlier_weights_are_measured_in_a_folder_of_their_own(kept):
    before = {name: (kept / name).read_bytes() for name in ("metrics.csv", "outcomes.safetensors")}
    labels = evaluation.test_subset(16)[1]
    [record] = evaluation.evaluate_run(kept / "epoch1", [evaluation.Measurement(1.0, 16)], progress=False)
    assert record["correct"] == int((labels == 3).sum())
    assert {name: (kept / name).read_bytes() for name in before} == before
    run = artifacts.load_run(kept)
    [earlier] = run.earlier
    assert (earlier.kept, earlier.config["epochs"], run.config["epochs"]) == ("epoch1", 1, 2)
    assert earlier.outcomes("none-t1").tolist() == (labels == 3).tolist()
    assert len(earlier.history["step"]) == 3 and len(run.history["step"]) == 6
    assert len(artifacts.find_runs(kept.parent)) == 1  # it is no run of its own
    assert faults(kept) == ""


def test_faults_in_what_was_measured_of_earlier_weights_are_named_with_their_epoch(kept):
    evaluation.evaluate_run(kept / "epoch1", [evaluation.Measurement(1.0, 16)], progress=False)
    change(kept / "epoch1" / "metrics.csv", lambda rows: rows[0].update(nfe=1.0))
    assert "epoch1: metrics.csv was edited by hand" in faults(kept)
    (kept / "weights-epoch1.safetensors").write_bytes((kept / "model.safetensors").read_bytes())
    assert "epoch1: " in faults(kept) and "is altered" in faults(kept)


@pytest.mark.parametrize("name", ["epoch7", "nearest", "1"])
def test_weights_that_are_not_kept_or_of_no_whole_epoch_cannot_be_measured(kept, name):
    with pytest.raises(artifacts.ArtifactError, match="It keeps weights-epoch1.safetensors; name one after"):
        evaluation.evaluate_run(kept / name, [evaluation.Measurement(1.0, 16)], progress=False)
    assert not (kept / name).exists()
