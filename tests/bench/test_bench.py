import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nodelib.bench import cases, gpu, main, measure, methods, suites
from nodelib.experiment import artifacts, configs, records
from nodelib.solver import kernel
from nodelib.solver.errors import InputError

# inductor's linker command breaks at a space
COMPILES = bool(shutil.which("g++") or shutil.which("clang++")) and " " not in torch.__file__


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_finds_nearly_the_same_gradient(name):
    if name in ("torchode", "torchdyn", "diffrax"):
        pytest.importorskip(name)
    if name == "torchdiffeq-compile" and not COMPILES:
        pytest.skip("no C++ compiler, or a space in the path of torch")
    problem = cases.Problem(cases.Case("small-100", 4, 1.0))
    reference = cases.reference_gradient(problem, 1e-8)
    assert cases.gradient_error(methods.METHODS[name](problem)(), reference) < 0.3


@pytest.mark.parametrize("name", methods.ATTACKS)
def test_every_attack_finds_nearly_the_same_gradient_of_the_images(name):
    if name == "torchode":
        pytest.importorskip(name)
    case = cases.Case("small-100", 4, 1.0)
    expected, = methods.ours(tolerance=1e-6, compiled=False)(cases.Problem(case, attack=True))()
    found, = methods.ATTACKS[name](cases.Problem(case, attack=True))()
    assert found.shape == (4, 1, 28, 28) and cases.gradient_error([found], [expected.double()]) < 0.01


def test_evaluations_and_products_are_counted():
    problem = cases.Problem(cases.Case("small-100", 4, 10.0))
    counts = {name: methods.METHODS[name](problem).counts() for name in (
        "exact", "exact, torch alone", "torchdiffeq-adjoint", "torchdiffeq-backprop")}
    # with the first evaluation shared by steps, one product each but for the last step's last stage
    assert counts["exact"] == counts["exact, torch alone"] == counts["torchdiffeq-backprop"]
    assert counts["exact"]["products"] == counts["exact"]["nfe"] - 1 and counts["exact"]["nfe_backward"] == 0
    adjoint = counts["torchdiffeq-adjoint"]
    assert adjoint["nfe"] == counts["exact"]["nfe"] and adjoint["products"] == adjoint["nfe_backward"] > 0
    assert methods.rk4(5, True)(problem).counts() == methods.rk4(5, False)(problem).counts() == {
        "nfe": 20, "nfe_backward": 0, "products": 20}


def test_rounds_are_interleaved_and_slow_methods_run_in_fewer(monkeypatch):
    calls = []

    def method(name, taken):
        def step():
            calls.append(name)
            return taken
        return step

    monkeypatch.setattr(measure, "seconds", lambda step: step())  # what a step took, by no clock
    times = measure.interleave({"a": method("a", 0.001), "b": method("b", 0.05)}, 4, limit=0.12)
    assert len(times["a"]) == 4 and len(times["b"]) == 2
    assert calls[-6:-2] in (["a", "b", "b", "a"], ["b", "a", "a", "b"])


def test_ratios_are_taken_round_by_round():
    found = measure.ratios([1.0, 2.0, 4.0, 8.0], [2.0, 4.0, 8.0, 16.0])
    assert found == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_operations_are_those_of_the_convolutions():
    problem = cases.Problem(cases.Case("small-100", 2, 1.0))
    y = problem.model.stem(problem.images).detach()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        problem.func(0.0, y)
    assert counter.get_total_flops() == problem.flops_per_evaluation()


def test_a_missing_peer_is_named(monkeypatch, capsys):
    def absent(problem):
        raise ImportError("No module named 'absent'")

    monkeypatch.setitem(methods.METHODS, "absent", absent)
    steps, missing = suites.prepared(cases.Problem(cases.Case("small-100", 1, 1.0)), ["exact", "absent"])
    assert list(steps) == ["exact"] and "No module named 'absent'" in missing["absent"]
    assert "absent" in capsys.readouterr().out


def test_a_suite_writes_one_whole_file(tmp_path, monkeypatch):
    assert main(["--quick", "--only", "end-time", "--output", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "end-time.json").read_text())
    methods = {row["method"] for row in stored["rows"]}
    assert methods == {"exact", "torchdiffeq-backprop", "torchdiffeq-adjoint"}
    assert stored["machine"]["threads"] == torch.get_num_threads()

    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setitem(suites.SUITES, "end-time", interrupted)
    assert main(["--quick", "--only", "end-time", "--output", str(tmp_path)]) == 130
    assert json.loads((tmp_path / "end-time.json").read_text()) == stored
    assert [path.name for path in tmp_path.iterdir()] == ["end-time.json"]


@pytest.mark.parametrize("arguments", [["--rounds", "1"], ["--threads", "0"], ["--only", "nothing"]])
def test_invalid_options_are_refused(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize("suite", ["attack-step", "fixed-step", "parts", "growth"])
def test_every_suite_has_a_tiny_version(suite, tmp_path):
    if kernel.load(16, 7, 7, 16, True, False) is None:
        pytest.skip("no C compiler")
    assert main(["--quick", "--only", suite, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / f"{suite}.json").read_text())["rows"]
    assert rows and all(row["nfe"] > 0 and row["products"] > 0 for row in rows)
    if suite == "parts":
        assert {"whole step", "stem", "solve", "reverse"} < {*rows[0]["seconds"]} and rows[0]["limit"] > 0
    if suite == "fixed-step":
        assert all(row["gradient_error"] <= rows[0]["gradient_error"] for row in rows)


def test_an_untrained_and_an_early_network_are_measured_beside_the_rows():
    first, _ = cases.weights(cases.UNTRAINED)
    early, source = cases.weights(cases.EARLY)
    late, _ = cases.weights("small-100")
    assert not torch.equal(first.linear.weight, late.linear.weight) and "epoch4" in source
    assert {case.network for case in cases.TIMED} == {*cases.RUNS}
    assert early.linear.weight.norm() > first.linear.weight.norm()


def test_minimal_filtering_is_measured_against_the_sum(tmp_path):
    if kernel.load(16, 7, 7, 16, True, False) is None:
        pytest.skip("no C compiler")
    arguments = ["--quick", "--only", "convolution", "--networks", "small-100"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    rows = {row["way"]: row for row in json.loads((tmp_path / "convolution.json").read_text())["rows"]}
    assert rows["sum"]["speed_up"]["median"] == 1 and rows["minimal"]["speed_up"]["median"] > 0
    assert rows["sum"]["error"] < rows["minimal"]["error"] < 2e-5


def test_gradients_at_the_end_of_the_range_of_floats_are_measured_both_ways(tmp_path):
    if kernel.load(16, 7, 7, 16, True, False) is None:
        pytest.skip("no C compiler")
    before = kernel.NativeStepper.powers
    arguments = ["--quick", "--only", "saturation", "--networks", "small-100"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "saturation.json").read_text())["rows"]
    assert [(row["size"], row["way"]) for row in rows] == [
        (size, way) for size in (1e-36, 1e-40) for way in ("as they are", "balanced")]
    assert all(row["speed_up"]["median"] == 1 for row in rows if row["way"] == "as they are")
    assert kernel.NativeStepper.powers is before  # put back


@pytest.mark.more
def test_the_gpus_ten_minutes_can_be_rehearsed_on_the_processor_and_go_on_where_they_stopped(tmp_path):
    root, output, name = tmp_path / "runs", tmp_path / "out", "small-10-post"
    folder, whole = root / f"{name}-seed0", configs.get(name, 0, "smoke").steps

    def rehearse(minutes):
        command = [sys.executable, "-m", "nodelib", "bench", name, "--gpu", "--dry-run", "--minutes", minutes]
        subprocess.run([*command, "--root", str(root), "--output", str(output)], check=True)
        history = folder / "history.csv"  # a finished epoch is thinned: its rows do not count its steps
        rows = records.from_csv(history, records.HISTORY) if history.exists() else []
        return rows[-1]["step"] + 1 if rows else 0

    done = rehearse("0.4")  # stopped somewhere, or at the end
    rehearse("10")
    run = artifacts.load_run(folder)
    assert (run.provenance["resumed"] or done in (0, whole)) and run.history["step"][-1] == whole - 1
    compared, timed = (json.loads((output / f"{file}.json").read_text())["rows"]
                       for file in ("parity", "training-step"))
    assert len(compared) == 2 and all(row["passed"] for row in compared)
    able = {"torchode": importlib.util.find_spec("torchode") is not None,
            "torchdiffeq-compile": COMPILES}
    assert {row["method"] for row in timed} == {name for name in gpu.METHODS if able.get(name, True)}
    with tarfile.open(output / "runs-00.tar") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = tmp_path / "unpacked" / folder.name
    assert {path.name: path.read_bytes() for path in unpacked.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()}


def test_folders_are_packed_into_archives_below_a_limit(tmp_path):
    folders, limit = [tmp_path / "a-seed0", tmp_path / "b-seed0"], 40_960
    for folder in folders:
        folder.mkdir()
        for i, size in enumerate((0, 1, 512, 20_000, limit - 10_240 - 512)):
            (folder / f"file{i}").write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    packed = gpu.pack(folders, tmp_path, limit)
    assert len(packed) > 1 and all(path.stat().st_size <= limit for path in packed)
    for path in packed:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
    for folder in folders:
        for file in folder.iterdir():
            assert (tmp_path / "unpacked" / folder.name / file.name).read_bytes() == file.read_bytes()
    (folders[0] / "file0").write_bytes(bytes(limit))
    with pytest.raises(InputError, match="file0"):
        gpu.pack(folders, tmp_path, limit)


def test_a_method_that_fails_on_a_gpu_is_named_and_left_out(monkeypatch, capsys):
    def failing():
        raise RuntimeError("no compiler\nand more")

    found = {**methods.METHODS, "torchdiffeq-compile": lambda problem: methods.Step(failing, lambda: None)}
    monkeypatch.setattr(methods, "METHODS", found)
    monkeypatch.setattr(gpu, "METHODS", ("exact", "torchdiffeq-compile"))
    rows = gpu.training_steps(cases.QUICK, "cpu", time.monotonic() + 60)
    assert [row["method"] for row in rows] == ["exact"]
    assert "torchdiffeq-compile is left out: no compiler" in capsys.readouterr().out


def test_two_devices_that_compute_different_things_are_told_apart(monkeypatch):
    answers = gpu._answers

    def slightly_off(case, device, dtype, compiled):
        steps, logits, gradients = answers(case, device, dtype, compiled)
        return steps, logits, [g * 1.01 for g in gradients] if compiled else gradients

    monkeypatch.setattr(gpu, "_answers", slightly_off)
    assert not any(row["passed"] for row in gpu.parity(cases.QUICK, "cpu"))
