import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
import torch.nn.functional as F
from builders import tiny_config

from nodelib.experiment import (
    artifacts,
    checksums,
    configs,
    device,
    evaluation,
    files,
    mnist,
    records,
    snapshots,
    training,
)
from nodelib.experiment.configs import AttackConfig
from nodelib.experiment.paths import data_dir
from nodelib.experiment.snapshot_records import SnapshotRecord
from nodelib.solver.errors import InputError


def digest(run: artifacts.Run) -> str:
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """`tiny_config` trained without interruption."""
    return training.train(tiny_config(), tmp_path_factory.mktemp("straight"), progress=False)


def test_training_lowers_the_loss(straight):
    assert straight.history["loss"][-2:].mean() < straight.history["loss"][:2].mean()


def test_history_has_a_row_per_step_and_counts_images(straight):
    history = straight.history
    assert history["step"].tolist() == list(range(6))
    assert history["epoch"].tolist() == [0, 0, 0, 1, 1, 1]
    assert history["images"].tolist() == [32, 64, 96, 128, 160, 192]
    assert (history["nfe_forward"] >= 8).all() and np.isfinite(history["loss"]).all()


def test_provenance_names_code_versions_device_threads_precision_and_hashes(straight):
    provenance = straight.provenance
    assert {"commit", "dirty", "versions", "device", "threads", "precision", "dataset_sha256",
            "weights_sha256", "parameters", "seconds", "started", "ended"} <= set(provenance)
    assert provenance["weights_sha256"] == digest(straight)
    # builds for CUDA add +cu130 to the one and not to the other
    assert provenance["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert provenance["parameters"] == 17418


def test_the_same_config_gives_the_same_bits_and_another_seed_other_ones(straight, tmp_path):
    again = training.train(tiny_config(), tmp_path, progress=False)
    other = training.train(tiny_config(seed=1), tmp_path, progress=False)
    assert digest(again) == digest(straight) != digest(other)


@pytest.mark.parametrize("changes", [
    {}, {"t1": (0.5, 2.0)}, {"adversarial": AttackConfig(epsilon=0.1, steps=1, step_size=0.1)},
], ids=["standard", "random end time", "adversarial"])
def test_a_run_stopped_by_its_budget_resumes_to_the_bits_of_one_that_was_not(changes, tmp_path):
    config = tiny_config(**changes)
    whole = training.train(config, tmp_path / "whole", progress=False)
    stops = 0
    while True:
        try:
            resumed = training.train(config, tmp_path / "parts", budget=0.0, progress=False)
            break
        except training.OutOfTime as stop:
            stops += 1
            assert f"{stops} of 6 steps" in str(stop)
            assert not (tmp_path / "parts" / config.folder / "config.json").exists()
    assert stops == 5
    assert digest(resumed) == digest(whole)
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()
    assert not (resumed.path / "checkpoint.safetensors").exists()


@pytest.mark.fault("killed", "training killed at a random moment",
                   "goes on to the bits of a run that nobody stopped")
def test_a_killed_run_resumes_to_the_same_bits(straight, tmp_path):
    program = ("import sys; sys.path.insert(0, 'tests'); from builders import tiny_config; from "
               "nodelib.experiment import training; import torch; "
               f"torch.set_num_threads({torch.get_num_threads()}); training.train(tiny_config(), "
               f"{str(tmp_path)!r}, checkpoint_seconds=0, progress=False)")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=training.__file__.rsplit("/", 3)[0])
    checkpoint = tmp_path / "small-10-seed0" / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert digest(training.train(tiny_config(), tmp_path, progress=False)) == digest(straight)


@pytest.mark.fault("killed", "training interrupted within a step", "the step is finished and stored")
def test_an_interrupt_finishes_the_step_in_hand_and_stores_it(straight, tmp_path, monkeypatch):
    original, calls = training._step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(tiny_config(), tmp_path, progress=False)
    assert len(artifacts.history_until(tmp_path / "small-10-seed0" / "history.csv", 3)) == 3
    assert digest(training.train(tiny_config(), tmp_path, progress=False)) == digest(straight)
    assert len(calls) == 6


def test_progress_is_plain_lines_when_piped(capsys, tmp_path):
    training.train(tiny_config(), tmp_path)
    error = capsys.readouterr().err
    assert "small-10-seed0: step 6 of 6, loss " in error and "\r" not in error


@pytest.mark.fault("damaged", "a checkpoint or its history damaged", "refused by name")
def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(training.OutOfTime):
        training.train(tiny_config(), tmp_path, budget=0.0, progress=False)
    path = tmp_path / "small-10-seed0" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(artifacts.ArtifactError, match="checkpoint.safetensors is damaged.*delete it"):
        training.train(tiny_config(), tmp_path, progress=False)


@pytest.mark.parametrize("change", [
    lambda t, m: t["model.linear.weight"].view(torch.int32)[0, 0].bitwise_xor_(1),
    lambda t, m: m.update(step="999"), lambda t, m: m.update(config="0"), lambda t, m: m.clear(),
], ids=["a bit", "step", "config", "nothing stated"])
@pytest.mark.fault("damaged", "a checkpoint or its history damaged", "refused by name")
def test_a_checkpoint_is_what_its_checksum_says(change, tmp_path):
    with pytest.raises(training.OutOfTime):
        training.train(tiny_config(), tmp_path, budget=0.0, progress=False)
    path = tmp_path / "small-10-seed0" / "checkpoint.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    change(tensors, metadata)
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(artifacts.ArtifactError, match="not what its checksum says.*git"):
        training.train(tiny_config(), tmp_path, progress=False)


@pytest.mark.parametrize("lines", [0, 1, 2], ids=["no file", "no row", "a row too few"])
@pytest.mark.fault("damaged", "a checkpoint or its history damaged", "refused by name")
def test_a_history_that_does_not_reach_the_checkpoint_is_refused(lines, tmp_path):
    for _ in range(2):
        with pytest.raises(training.OutOfTime):
            training.train(tiny_config(), tmp_path, budget=0.0, progress=False)
    path = tmp_path / "small-10-seed0" / "history.csv"
    kept = path.read_text().splitlines(keepends=True)[:lines]
    path.unlink()
    if kept:
        path.write_text("".join(kept))
    with pytest.raises(artifacts.ArtifactError, match="history.csv ends at .* are of step 1"):
        training.train(tiny_config(), tmp_path, progress=False)


@pytest.mark.fault("killed", "a run killed while its files are replaced by newer ones",
                   "the older run or the newer one, never both")
def test_a_run_killed_before_its_checkpoint_went_is_mended_by_the_next(straight, tmp_path, monkeypatch):
    folder = tmp_path / straight.path.name
    shutil.copytree(straight.path, folder)
    left = folder / "checkpoint.safetensors"
    artifacts.save_checkpoint(left, {"x": torch.zeros(1)}, 6, training.fingerprint(tiny_config()))
    monkeypatch.setattr(training, "_restore", lambda *a: None)
    assert training.unfinished(tiny_config(), folder)
    assert digest(training.run(tiny_config(), tmp_path, evaluate=False)) == digest(straight)
    assert not left.exists() and not training.unfinished(tiny_config(), folder)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    with pytest.raises(training.OutOfTime):
        training.train(tiny_config(), tmp_path, budget=0.0, progress=False)
    with pytest.raises(artifacts.ArtifactError, match="another config"):
        training.train(tiny_config(epochs=3), tmp_path, progress=False)


@pytest.mark.fault("together", "two processes train one run", "the second is refused")
def test_two_processes_cannot_write_the_same_run(tmp_path):
    refused = pytest.raises(artifacts.ArtifactError, match="another process")
    with artifacts.locked(tmp_path / "small-10-seed0"), refused:
        training.train(tiny_config(), tmp_path, progress=False)


def test_a_stored_run_is_loaded_and_never_retrained(straight, monkeypatch):
    monkeypatch.setattr(training, "_train", lambda *a: pytest.fail("retrained"))
    root = straight.path.parent
    assert training.run(tiny_config(), root, evaluate=False).provenance == straight.provenance


def test_a_finished_run_is_not_trained_again_in_its_folder(straight):
    before = digest(straight)
    for config in (tiny_config(), tiny_config(learning_rate=1e-3)):
        with pytest.raises(artifacts.ArtifactError, match="holds a finished run.* delete that folder"):
            training.train(config, straight.path.parent, progress=False)
    assert digest(straight) == before and artifacts.load_run(straight.path).config == straight.config


def test_a_stored_run_of_another_config_is_not_overwritten(straight):
    with pytest.raises(artifacts.ArtifactError, match="another config \\(differs in epochs\\)"):
        training.run(tiny_config(epochs=1), straight.path.parent, evaluate=False)


LONGER = dict(epochs=3, cycles=(2, 1),
              adversarial=AttackConfig(epsilon=0.1, steps=2, step_size=0.05, curriculum=((1, 0.1),),
                                       shared_pooling=True))


def test_a_run_prolonged_by_a_cycle_has_the_bits_of_one_trained_at_once(tmp_path):
    longer = tiny_config(**LONGER)
    shorter = longer.first_cycles(1)
    assert (shorter.epochs, shorter.cycles, shorter.adversarial) == (2, (), AttackConfig(0.1, 1, 0.1))
    at_once = training.train(longer, tmp_path / "once", progress=False)
    first = training.run(shorter, tmp_path / "parts", evaluate=True, progress=False)
    before, measured = digest(first), len(first.metrics)
    with pytest.raises(training.OutOfTime):
        training.train(longer, tmp_path / "parts", budget=0.0, progress=False)
    between = artifacts.load_run(first.path)  # still the shorter run, whole
    assert digest(between) == before and len(between.metrics) == measured > 0
    assert len(between.history["step"]) == shorter.steps
    prolonged = training.run(longer, tmp_path / "parts", evaluate=False, progress=False)
    assert digest(prolonged) == digest(at_once) != before
    assert prolonged.metrics == [] and not (first.path / "outcomes.safetensors").exists()
    assert prolonged.history["loss"].tolist() == at_once.history["loss"].tolist()
    stored = {path.name for path in first.path.iterdir()}
    assert stored == {"checksums.json", "config.json", "history.csv", "model.safetensors"}


@pytest.mark.fault("killed", "a run killed while its files are replaced by newer ones",
                   "the older run or the newer one, never both")
def test_a_prolonged_run_killed_while_it_replaces_the_shorter_one_loses_nothing(tmp_path, monkeypatch, fault):
    longer = tiny_config(**LONGER)
    at_once = training.train(longer, tmp_path / "once", progress=False)
    first = training.run(longer.first_cycles(1), tmp_path / "parts", progress=False)
    replace, seen = os.replace, set()

    def killed(source, target):
        """At the first writing of each file that was not met before: each moment in turn."""
        replace(source, target)
        if Path(target).name not in seen:
            seen.add(Path(target).name)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    for moment in ("checksums.json", "history.csv", "checkpoint.safetensors", "model.safetensors",
                   "config.json"):
        with pytest.raises(KeyboardInterrupt):
            training.train(longer, tmp_path / "parts", progress=False)
        assert moment in seen
        fault.injected += 1
        assert list(checksums.faults(first.path)) == []
    prolonged = training.run(longer, tmp_path / "parts", evaluate=False, progress=False)
    assert digest(prolonged) == digest(at_once) and prolonged.metrics == []
    stored = {path.name for path in first.path.iterdir()}
    assert stored == {"checksums.json", "config.json", "history.csv", "model.safetensors"}


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    """A measured run that `LONGER` prolongs."""
    root = tmp_path_factory.mktemp("shorter")
    run = training.train(tiny_config(**LONGER).first_cycles(1), root, progress=False)
    evaluation.evaluate_run(run.path, [evaluation.Measurement(1.0, 16)], progress=False)
    return artifacts.load_run(run.path)


@pytest.mark.parametrize("place", ["columns_of", "read_metrics", "read_measurements"])
def test_a_run_replaced_while_it_is_read_is_read_as_it_then_is(place, shorter, tmp_path, monkeypatch):
    folder = tmp_path / shorter.path.name
    shutil.copytree(shorter.path, folder)
    read = getattr(records, place)

    def replaced_first(*arguments):
        monkeypatch.setattr(records, place, read)
        training.train(tiny_config(**LONGER), tmp_path, progress=False)
        return read(*arguments)

    monkeypatch.setattr(records, place, replaced_first)
    [run] = artifacts.find_runs(tmp_path)
    assert (run.config["epochs"], len(run.history["step"]), run.metrics) == (3, 9, [])
    run.load_model()


@pytest.mark.parametrize("place", ["save_checkpoint", "write_json"])
def test_who_reads_between_the_files_of_a_store_waits_for_its_end(place, shorter, tmp_path, monkeypatch):
    folder, pauses = tmp_path / shorter.path.name, []
    shutil.copytree(shorter.path, folder)

    def store():
        training.train(tiny_config(**LONGER), tmp_path, progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, place, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store()
    idle = types.SimpleNamespace(sleep=pauses.append)
    monkeypatch.setattr(files, "time", idle)  # killed there: the older run, soon enough
    run = artifacts.load_run(folder)
    assert run.config == shorter.config and pauses == [files.READ_PAUSE] * files.READS

    def ended(seconds):
        monkeypatch.setattr(files, "time", idle)
        store()

    monkeypatch.setattr(files, "time", types.SimpleNamespace(sleep=ended))
    run = artifacts.load_run(folder)
    assert (run.config["epochs"], len(run.history["step"]), run.metrics) == (3, 9, [])
    run.load_model()


@pytest.mark.parametrize("moment", ["after", "amid"])
def test_weights_that_were_trained_further_since_the_run_was_read_are_not_altered(moment, shorter, tmp_path,
                                                                                 monkeypatch):
    shutil.copytree(shorter.path, tmp_path / shorter.path.name)
    run, write = artifacts.load_run(tmp_path / shorter.path.name), artifacts.write_json

    told = []

    def load():
        with pytest.raises(artifacts.ArtifactError, match="was trained further since it was read"):
            run.load_model()
        told.append(moment)

    def stored_meanwhile(*config):
        """The config, which ends a store, is written while the weights' reader pauses."""
        monkeypatch.setattr(files, "time", types.SimpleNamespace(sleep=lambda seconds: write(*config)))
        load()

    if moment == "amid":
        monkeypatch.setattr(artifacts, "write_json", stored_meanwhile)
    training.train(tiny_config(**LONGER), tmp_path, progress=False)
    if moment == "after":
        load()
    assert told and artifacts.load_run(run.path).load_model()


def test_a_run_that_continues_another_begins_with_its_weights_and_leaves_it_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(configs.CONTINUES, "small-100", "small-10")
    longer = dataclasses.replace(tiny_config(**LONGER), name="small-100")
    at_once = training.train(longer, tmp_path / "once", progress=False)
    assert training.stored_prefix(longer, tmp_path / "parts" / longer.folder) is None
    first = training.train(dataclasses.replace(longer.first_cycles(1), name="small-10"), tmp_path / "parts",
                           progress=False)
    before = digest(first)
    with pytest.raises(training.OutOfTime):
        training.train(longer, tmp_path / "parts", budget=0.0, progress=False)
    continued = training.run(longer, tmp_path / "parts", evaluate=False, progress=False)
    assert digest(continued) == digest(at_once) != before == digest(artifacts.load_run(first.path))
    assert continued.history["loss"].tolist() == at_once.history["loss"].tolist()
    assert artifacts.load_run(first.path).name == "small-10"
    assert len(first.history["step"]) == longer.first_cycles(1).steps


def test_named_runs_that_continue_another_prolong_it():
    for name, origin in configs.CONTINUES.items():
        longer, shorter = configs.get(name), configs.get(origin)
        assert longer.extends(dataclasses.replace(shorter, name=name))
        assert configs.RunConfig.from_dict(longer.to_dict()).to_dict() == longer.to_dict()


def test_a_curriculum_decides_what_its_cycles_share_and_smooth():
    attack = AttackConfig(epsilon=0.1, steps=3, step_size=0.05, noise=0.1, momentum=0.9, shared_pooling=True,
                          curriculum=((1, 0.1), (2, 0.1, True)))
    assert [(a.steps, a.shared_pooling, a.noise, a.momentum) for a in map(attack.in_cycle, range(3))] == [
        (1, False, 0.0, 0.0), (2, True, 0.0, 0.0), (3, True, 0.1, 0.9)]
    assert AttackConfig.from_dict(dataclasses.asdict(attack)) == attack


def test_a_run_is_prolonged_by_cycles_only(tmp_path):
    longer = tiny_config(**LONGER)
    assert longer.extends(longer.first_cycles(1)) and not longer.extends(longer)
    for change in (dict(seed=1), dict(learning_rate=1e-3), dict(epochs=1), dict(adversarial=None)):
        assert not longer.extends(dataclasses.replace(longer.first_cycles(1), **change))
    with pytest.raises(InputError, match="count is 3; the allowed range is 1 to 2"):
        longer.first_cycles(3)


def test_every_cycle_has_its_own_rate_and_attack():
    config = tiny_config(**{**LONGER, "epochs": 60, "cycles": (40, 20)})
    rates = np.array([training.learning_rate(config, step) for step in range(config.steps)])
    assert [config.cycle(step) for step in (0, 119, 120, 179)] == [(0, 0, 120)] * 2 + [(1, 120, 60)] * 2
    assert rates[:120].max() == pytest.approx(config.learning_rate)
    assert rates[120:].max() == pytest.approx(config.learning_rate / 2)
    assert rates[119] < 0.01 * rates.max() and rates[179] < 0.01 * rates.max()
    assert [(a.steps, a.step_size) for a in map(config.adversarial.in_cycle, (0, 1))] == [(1, 0.1), (2, 0.05)]
    with pytest.raises(InputError, match="step is 180; the allowed range is 0 to 179"):
        config.cycle(180)


@pytest.mark.parametrize("shared, distinct", [(True, 1), (False, 4)])
def test_attack_and_loss_see_one_draw_of_the_regions_only_where_they_share_it(monkeypatch, shared, distinct):
    attack = AttackConfig(epsilon=0.1, steps=3, step_size=0.05, curriculum=((1, 0.1),), shared_pooling=shared)
    config = tiny_config(epochs=2, cycles=(1, 1), adversarial=attack)
    model, (images, labels) = configs.build(config), mnist.load("train")
    model.pooling, seen = config.pooling, []
    pooled = F.fractional_max_pool2d
    monkeypatch.setattr(F, "fractional_max_pool2d", lambda *a, _random_samples, **k: (
        seen.append(_random_samples), pooled(*a, _random_samples=_random_samples, **k))[1])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    optimiser.zero_grad()
    training._step(model, optimiser, images[:8], labels[:8], config, config.steps_per_epoch)
    assert [len(draw) for draw in seen] == [8, 8, 8, 16]
    assert len({draw[:1].numpy().tobytes() for draw in seen}) == distinct
    if shared:
        assert all((draw == seen[0][:1]).all() for draw in seen)
        assert not (seen[0][:1] == model.pool.samples).all()
    seen.clear()  # the curriculum's cycles draw anew in any case, and so does whoever comes after
    training._step(model, optimiser, images[:8], labels[:8], config, 0)
    assert len({draw[:1].numpy().tobytes() for draw in seen}) == 2 == len(seen)


def test_random_end_times_are_drawn_from_their_range(tmp_path):
    run = training.train(tiny_config(t1=(0.5, 2.0), train_images=320), tmp_path, progress=False)
    t1 = run.history["t1"]
    assert (t1 >= 0.5).all() and (t1 <= 2).all() and len(set(t1)) == len(t1) and t1.std() > 0.1


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(training.F, "cross_entropy", lambda logits, y, **k: logits.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        training.train(tiny_config(), tmp_path, progress=False)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(tmp_path, monkeypatch):
    """Leaky dynamics of random weights are chaotic: over t = 100 the gradient grows beyond float32."""
    config, stepped = tiny_config(leaky=True, t1=(100.0, 100.0), test_t1=100.0), []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *a: stepped.append(1))
    with pytest.raises(FloatingPointError,
                       match="the gradient's norm is (inf|nan) at step 0.* shorten the end time"):
        training.train(config, tmp_path, progress=False)
    assert not stepped


def test_the_learning_rate_rises_for_a_tenth_and_falls_to_nothing():
    config = tiny_config(epochs=100)
    rates = [training.learning_rate(config, step) for step in range(config.steps)]
    assert np.argmax(rates) in (29, 30) and max(rates) == pytest.approx(config.learning_rate)
    assert rates[0] < rates[10] < rates[29] and rates[-1] < 1e-3 * max(rates)
    assert training.learning_rate(dataclasses.replace(config, schedule="constant"), 7) == config.learning_rate


def test_a_missing_gpu_names_the_cpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ValueError, match="no CUDA device.*cpu"):
        training.train(tiny_config(), device="cuda")
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        device.resolve_device("quantum")


@pytest.mark.parametrize("change, message", [
    (dict(t1=(0.0, 1.0)), "end time t1 is 0"), (dict(test_t1=-1.0), "end time t1 is -1"),
    (dict(t1=(2.0, 1.0)), "upper end time"),
    (dict(train_images=0), "train_images is 0; the allowed range is 1 to 60000"),
    (dict(test_images=10001), "test_images is 10001"), (dict(seed=-1), "seed is -1"),
    (dict(rtol=0.0), "rtol is 0"),
    (dict(gradient="magic"), "gradient is 'magic'"), (dict(schedule="steps"), "schedule is 'steps'"),
    (dict(scale="huge"), "scale is 'huge'"),
    (dict(cycles=(1, 2)), "cycles is \\(1, 2\\); .* add up to the epochs, 2"),
    (dict(architecture="x"), "architecture is 'x'"), (dict(pooling="x"), "pooling is 'x'"),
    (dict(epochs=0), "epochs is 0"), (dict(name="../evil"), "name is '../evil'"),
    (dict(name=""), "name is ''"), (dict(start="a/b"), "name is 'a/b'"), (dict(seed=0.0), "seed is 0.0"),
    (dict(learning_rate=float("inf")), "learning_rate is inf"), (dict(head_rate=0.0), "head_rate is 0"),
    (dict(adversarial=AttackConfig(curriculum=((3, 0.1),))), "curriculum has 1 entries for 0 cycles"),
])
def test_a_config_refuses_values_out_of_range(change, message):
    with pytest.raises(InputError, match=message):
        tiny_config(**change)


def test_a_config_holds_pythons_own_numbers_and_tuples():
    ours = tiny_config(t1=(1.0, 2.0), cycles=(1,), epochs=1, learning_rate=0.5)
    other = tiny_config(t1=[np.float64(1.0), 2.0], cycles=[np.int64(1)], epochs=np.int64(1),
                        learning_rate=np.float32(0.5))
    assert other == ours and other.to_dict() == ours.to_dict()


@pytest.mark.parametrize("budget", [float("nan"), float("inf"), -1.0])
def test_a_budget_that_would_never_end_is_refused_before_any_work(budget, tmp_path):
    with pytest.raises(InputError, match="the budget is"):
        training.train(tiny_config(), tmp_path / "runs", budget=budget, progress=False)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_run_lists_the_known_ones():
    with pytest.raises(ValueError,
                       match="unknown run 'small-11'; the known runs are small-10, .*resnet-1.*mean "
                       "'small-10'"):
        configs.get("small-11")


@pytest.mark.parametrize("name", configs.NAMES)
@pytest.mark.parametrize("scale", configs.SCALES)
def test_every_named_config_survives_json_and_keeps_its_architecture_at_both_scales(name, scale):
    config, full = configs.get(name, 2, scale), configs.get(name)
    assert configs.RunConfig.from_dict(config.to_dict()) == config
    for field in ("channels", "size", "t1", "test_t1", "architecture", "leaky", "last_norm", "blocks",
                  "gradient"):
        assert getattr(config, field) == getattr(full, field)


def test_the_six_rows_share_one_recipe():
    recipe = ("learning_rate", "schedule", "pooling", "rtol", "atol", "gradient", "train_images",
              "adversarial")
    rows = [configs.get(name) for name in configs.ROWS]
    for field in recipe:
        assert len({getattr(config, field) for config in rows}) == 1, field
    assert len({(config.channels, config.epochs, config.batch_size) for config in rows}) == 2  # one per size
    for config in rows:  # logits start, and change, alike at every end time
        assert config.head_scale * max(config.t1) == pytest.approx(10)


def test_the_heads_scale_shrinks_its_weights_and_their_rate_and_nothing_else(tmp_path):
    whole, tenth = (configs.build(tiny_config(head_scale=scale)) for scale in (1.0, 0.1))
    for (name, a), b in zip(whole.named_parameters(), tenth.parameters()):
        assert torch.equal(0.1 * a if name == "linear.weight" else a, b)
    before = [p.detach().clone() for p in tenth.parameters()]
    for head_rate, expected in ((None, 0.1), (0.5, 0.5)):
        groups = training._parameter_groups(tenth, tiny_config(head_scale=0.1, head_rate=head_rate))
        assert [group["scale"] for group in groups] == [1.0, expected]
    optimiser = torch.optim.Adam(training._parameter_groups(tenth, tiny_config(head_scale=0.1)), lr=1e-3)
    for group in optimiser.param_groups:
        group["lr"] *= group["scale"]
    tenth(torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), 1.0).square().sum().backward()
    optimiser.step()
    # Adam's first step moves every weight with a gradient by its rate
    moved = {name: (p - q).abs().max().item() for (name, p), q in zip(tenth.named_parameters(), before)}
    moved.pop("conv.bias")  # batch normalisation takes it out again: its gradient is rounding
    assert moved.pop("linear.weight") == pytest.approx(1e-4, rel=0.01)
    assert all(change == pytest.approx(1e-3, rel=0.02) for change in moved.values()), moved


# -- a constant rate: prolonged bit for bit --------------------------------------------------------

CONSTANT = dict(schedule="constant", halve_after=(1,), subset="random", norm_init="uniform", epochs=4,
                snapshots=0, test_images=8)


def folder_bits(folder):
    """What must not depend on interruptions: every tensor of every file, and the snapshots. Times and the
    order of metadata may.
    """
    found = {"snapshots.csv": (folder / "snapshots.csv").read_bytes()}
    for path in folder.glob("*.safetensors"):
        for name, tensor in safetensors.numpy.load_file(path).items():
            found[f"{path.name}: {name}"] = tensor.tobytes()
    return found


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    return training.train(tiny_config(**CONSTANT), tmp_path_factory.mktemp("constant"), progress=False)


def test_a_run_at_a_constant_rate_is_prolonged_to_the_bits_of_one_as_long_from_the_start(constant, tmp_path):
    config = tiny_config(**CONSTANT)
    for epochs in (1, 2, 4):
        run = training.train(dataclasses.replace(config, epochs=epochs), tmp_path, progress=False)
        # one mean each
        assert run.config["epochs"] == epochs and run.history["epoch"].tolist() == list(range(epochs))
        assert run.history["images"][-1] == epochs * config.train_images
        assert run.history["step"][-1] == config.steps_per_epoch * epochs - 1
    assert folder_bits(run.path) == folder_bits(constant.path)
    assert run.history["loss"].tolist() == constant.history["loss"].tolist()


@pytest.mark.parametrize("place", ["thinned", "save_checkpoint"])
@pytest.mark.fault("killed", "a run killed while its files are replaced by newer ones",
                   "the older run or the newer one, never both")
def test_a_run_killed_at_an_epochs_end_keeps_its_history(place, constant, tmp_path, monkeypatch):
    config = tiny_config(**CONSTANT)
    with pytest.raises(training.OutOfTime):
        training.train(config, tmp_path, budget=0.0, progress=False)  # so the checkpoint is within the epoch
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, place, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            training.train(config, tmp_path, progress=False)
    run = training.train(config, tmp_path, progress=False)
    assert folder_bits(run.path) == folder_bits(constant.path)
    assert run.history["loss"].tolist() == constant.history["loss"].tolist()


def test_a_run_at_a_constant_rate_is_stored_whole_after_each_epoch_however_it_was_stopped(constant, tmp_path):
    config, epochs = tiny_config(**CONSTANT), []
    while True:
        try:
            run = training.train(config, tmp_path, budget=0.0, progress=False)
            break
        except training.OutOfTime:
            if (tmp_path / config.folder / "config.json").exists():
                stored = artifacts.load_run(tmp_path / config.folder)
                stored.load_model()
                epochs.append(stored.config["epochs"])
                assert max(r.epoch for r in stored.snapshots) == epochs[-1]
    assert sorted(set(epochs)) == [1, 2, 3] and folder_bits(run.path) == folder_bits(constant.path)


@pytest.mark.fault("killed", "a run killed while its files are replaced by newer ones",
                   "the older run or the newer one, never both")
def test_a_store_that_was_interrupted_is_mended_when_training_goes_on(constant, tmp_path):
    config = tiny_config(**CONSTANT)
    folder = tmp_path / config.folder
    shutil.copytree(constant.path, folder)
    (folder / "config.json").unlink()  # killed between the weights and the config
    run = training.train(config, tmp_path, progress=False)
    assert run.config["epochs"] == 4 and folder_bits(folder) == folder_bits(constant.path)


def test_prolonging_drops_what_was_measured_of_older_weights(tmp_path):
    config = tiny_config(**{**CONSTANT, "snapshots": None})
    short = training.run(dataclasses.replace(config, epochs=2), tmp_path, progress=False)
    # a page never prolongs
    assert short.metrics and training.run(config, tmp_path, progress=False).config["epochs"] == 2
    assert not training.train(config, tmp_path, progress=False).metrics


def test_a_run_is_not_shortened(constant, tmp_path):
    shutil.copytree(constant.path, tmp_path / constant.path.name)
    with pytest.raises(artifacts.ArtifactError, match="holds 4 epochs of this run, and 2 are asked for"):
        training.train(tiny_config(**{**CONSTANT, "epochs": 2}), tmp_path, progress=False)
    assert folder_bits(tmp_path / constant.path.name) == folder_bits(constant.path)


def test_without_its_optimisers_state_a_run_at_a_constant_rate_is_not_prolonged(constant, tmp_path):
    folder = tmp_path / constant.path.name
    shutil.copytree(constant.path, folder)
    (folder / "checkpoint.safetensors").unlink()
    with pytest.raises(artifacts.ArtifactError, match="checkpoint.safetensors is missing"):
        training.train(tiny_config(**{**CONSTANT, "epochs": 5}), tmp_path, progress=False)


def test_a_checkpoint_outlives_a_field_added_to_the_config_and_not_one_changed():
    config = tiny_config(**CONSTANT)
    assert set(config.identity()) >= {"schedule", "learning_rate"}
    assert not {"epochs", "leaky", "start", "own_rays"} & set(config.identity())
    longer = dataclasses.replace(config, epochs=9, snapshots=None)
    assert training.fingerprint(config) == training.fingerprint(longer)
    assert training.fingerprint(config) != training.fingerprint(dataclasses.replace(config, leaky=True))
    annealed = tiny_config()
    assert training.fingerprint(annealed) != training.fingerprint(dataclasses.replace(annealed, epochs=3))


def test_a_run_goes_on_bit_for_bit_from_a_checkpoint_that_is_older_than_a_field(constant, tmp_path):
    folder = tmp_path / "older" / constant.path.name
    shutil.copytree(constant.path, folder)
    stored = json.loads((folder / "config.json").read_text())
    for field in ("leaky", "own_rays", "start"):  # as if each had been added since
        del stored["config"][field]
    (folder / "config.json").write_text(json.dumps(stored))
    longer = tiny_config(**{**CONSTANT, "epochs": CONSTANT["epochs"] + 1})
    training.train(longer, tmp_path / "older", progress=False)
    whole = training.train(longer, tmp_path / "whole", progress=False)
    assert folder_bits(folder) == folder_bits(whole.path)
    with pytest.raises(artifacts.ArtifactError, match="another config"):
        training.train(dataclasses.replace(longer, leaky=True, epochs=longer.epochs + 1), tmp_path / "older",
                       progress=False)


def test_the_posts_recipe_halves_its_rate_and_draws_its_images_and_norm_weights():
    config = configs.get("small-10-post")
    rates = [training.learning_rate(config, epoch * config.steps_per_epoch) for epoch in (0, 49, 50, 99)]
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4] and config.steps_per_epoch == 1782
    chosen = training.training_images(config)
    assert len(set(chosen)) == 57000 and chosen.max() == 59999
    assert not np.array_equal(chosen, training.training_images(dataclasses.replace(config, seed=1)))
    weight = configs.build(config).norm.weight.detach()
    plain = configs.build(dataclasses.replace(config, norm_init="ones"))
    assert 0 <= weight.min() and weight.max() <= 1 and weight.std() > 0.1
    assert torch.equal(plain.norm.weight, torch.ones(16))
    assert torch.equal(plain.linear.weight, configs.build(config).linear.weight)


def test_a_cosine_falls_from_the_full_rate_to_nothing():
    config = tiny_config(schedule="cosine")
    rates = [training.learning_rate(config, step) for step in range(config.steps)]
    assert rates[0] == config.learning_rate and rates[-1] < 0.1 * rates[0]
    assert rates == sorted(rates, reverse=True)


def test_a_run_starts_from_the_weights_of_another_where_its_config_says_so(straight, tmp_path):
    shutil.copytree(straight.path, tmp_path / "first-seed0")
    stored = json.loads((tmp_path / "first-seed0/config.json").read_text())
    stored["config"]["name"] = "first"
    (tmp_path / "first-seed0/config.json").write_text(json.dumps(stored))
    config = tiny_config(start="first", learning_rate=1e-30, epochs=1)
    run = training.train(config, tmp_path, progress=False)
    assert torch.equal(run.load_model().linear.weight, straight.load_model().linear.weight)


def test_the_posts_adversarial_training_attacks_other_images_in_training_mode(tmp_path, monkeypatch):
    seen = []

    def watched(model, images, labels, config, attack, t1, draw):
        seen.append((images, model.training))
        return attack_batch(model, images, labels, config, attack, t1, draw)

    attack_batch = training.attack_batch
    monkeypatch.setattr(training, "attack_batch", watched)
    attack = AttackConfig(epsilon=0.1, steps=2, step_size=0.05, train_mode=True, other_images=True)
    config = tiny_config(adversarial=attack, epochs=1)
    run = training.train(config, tmp_path, progress=False)
    images, _ = mnist.load("train")
    order = np.random.default_rng([0, 0, 0]).permutation(96)[:32]
    assert len(seen) == 3 and len(seen[0][0]) == 32 and not torch.equal(seen[0][0], images[order])
    assert np.isfinite(run.history["loss"]).all()
    assert configs.get("wide-adversarial-post").adversarial.train_mode


def test_a_run_whose_weights_are_gone_is_trained_again_and_another_is_not_replaced(tiny_run, tmp_path):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(artifacts.ArtifactError, match="does not prolong"):
        training.train(tiny_config(learning_rate=1e-3), tmp_path, progress=False)
    again = training.run(tiny_config(), tmp_path, evaluate=False, progress=False)
    assert again.provenance["weights_sha256"] == tiny_run.provenance["weights_sha256"]
    again.load_model()


def test_every_stored_checkpoint_can_go_on():
    folders = [path.parent for path in (data_dir() / "runs").glob("*-seed*/checkpoint.safetensors")]
    assert "large-100-post-seed0" in {folder.name for folder in folders}
    for folder in folders:
        name, seed = folder.name.rsplit("-seed", 1)
        config = configs.get(name, int(seed))
        _, step = artifacts.load_checkpoint(folder / "checkpoint.safetensors", training.fingerprint(config))
        done = artifacts.load_run(folder).config["epochs"] if (folder / "config.json").exists() else 0
        assert step >= done * config.steps_per_epoch, folder.name
        assert artifacts.history_until(folder / "history.csv", step)[-1]["step"] == step - 1, folder.name
        assert folder.joinpath("checkpoint.safetensors").stat().st_size <= 8 * 2**20, folder.name


@pytest.fixture
def nearing(monkeypatch):
    """A config whose weights are near the post's figure after an epoch, nearest after two; what its snapshots
    measure takes no time.
    """
    config = tiny_config(**{**CONSTANT, "epochs": 3})
    monkeypatch.setattr(snapshots, "complexity", lambda *a: [])
    monkeypatch.setattr(snapshots, "measure", lambda model, t1, n, epoch, step: [
        SnapshotRecord(epoch, step, t1, "clean", 0.5, n)])
    monkeypatch.setattr(snapshots.Watch, "_distance", lambda watch, records: min(
        (abs(r.epoch - 2) for r in records if r.epoch >= 1), default=math.inf))
    return config


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_nearest_weights_are_replaced_where_a_reader_knows_that_the_config_is_to_come(nearing, tmp_path,
                                                                                         monkeypatch):
    replace, seen = os.replace, []
    folder = tmp_path / nearing.folder

    def watched(source, target):
        replace(source, target)
        if (folder / "config.json").exists():
            stated = artifacts.read_json(folder / "config.json")["provenance"]
            last, near = (sha256(folder / f"{name}.safetensors") for name in ("model", "weights-nearest"))
            if last == stated["weights_sha256"]:  # else `load_run` waits
                assert stated["kept"] == {"weights-nearest.safetensors": near}, target
            seen.append(near)

    monkeypatch.setattr(os, "replace", watched)
    run = training.train(nearing, tmp_path, progress=False)
    assert len(dict.fromkeys(seen)) == 2  # of both epochs
    assert not torch.equal(run.load_model(kept="nearest").linear.weight, run.load_model().linear.weight)


@pytest.mark.parametrize("target", ["snapshots.csv", "checkpoint.safetensors", "model.safetensors",
                                    "weights-nearest.safetensors", "config.json"])
def test_a_run_killed_where_its_nearest_weights_change_keeps_those_of_one_that_was_not(target, nearing,
                                                                                      tmp_path, monkeypatch):
    at_once = training.train(nearing, tmp_path / "once", progress=False)
    first = training.train(dataclasses.replace(nearing, epochs=1), tmp_path / "parts", progress=False)
    replace, near = os.replace, sha256(first.path / "weights-nearest.safetensors")

    def killed(source, path):
        replace(source, path)
        if Path(path).name == target:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(nearing, tmp_path / "parts", progress=False)
    if target in ("snapshots.csv", "checkpoint.safetensors"):  # the older run, whole
        assert artifacts.load_run(first.path).config["epochs"] == 1
        assert sha256(first.path / "weights-nearest.safetensors") == near
    prolonged = training.train(nearing, tmp_path / "parts", progress=False)
    assert folder_bits(prolonged.path) == folder_bits(at_once.path)
    assert prolonged.provenance["kept"] == at_once.provenance["kept"]


def test_nearest_weights_that_an_earlier_version_replaced_before_it_stored_the_run_are_stored(
        nearing, tmp_path, monkeypatch):
    """It kept them with the snapshot; killed then, it left them beside an older checkpoint and config."""
    at_once = training.train(nearing, tmp_path / "once", progress=False)
    take = snapshots.Watch.take

    def as_it_was(watch, model, step):
        take(watch, model, step)
        if step == 2 * nearing.steps_per_epoch:
            artifacts.save_model(watch.folder / "weights-nearest.safetensors", model)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshots.Watch, "take", as_it_was)
        with pytest.raises(KeyboardInterrupt):
            training.train(nearing, tmp_path / "parts", progress=False)
    run = training.train(nearing, tmp_path / "parts", progress=False)
    assert folder_bits(run.path) == folder_bits(at_once.path)
    assert run.provenance["kept"] == at_once.provenance["kept"]


def test_a_resumed_training_finds_as_near_what_an_uninterrupted_one_found_as_near(tmp_path, monkeypatch):
    """Shares of 128 images have more decimals than the table of snapshots: an equal one is not nearer."""
    config = configs.get("large-100-post")
    monkeypatch.setattr(snapshots, "complexity", lambda *a: [])
    monkeypatch.setattr(snapshots, "measure", lambda model, t1, n, epoch, step: [
        SnapshotRecord(epoch, step, t1, "fgsm", share, n), SnapshotRecord(epoch, step, t1, "clean", 1.0, n)])
    for share in (k / 128 for k in range(1, 128, 14)):
        kept = []
        monkeypatch.setattr(artifacts, "save_model", lambda path, model: kept.append(path.name))
        (tmp_path / "snapshots.csv").unlink(missing_ok=True)
        for epoch in (1, 2):
            step = epoch * config.steps_per_epoch
            watch = snapshots.Watch(config, tmp_path, step)
            watch.take(None, step)
            watch.store_nearest(None, step)
        assert kept == ["weights-nearest.safetensors"], share


def test_weights_near_the_posts_figure_are_of_a_network_that_has_learned(tmp_path):
    """Of snapshots at parts of an epoch, or of a network that is right less often, none counts as near."""
    config = configs.get("small-100-post")
    watch = snapshots.Watch(config, tmp_path, 0)

    def taken(epoch, attacked, clean):
        return [SnapshotRecord(epoch, int(epoch * 1782), 100.0, quantity, value, 1000)
                for quantity, value in (("fgsm", attacked), ("clean", clean))]

    assert watch._distance(taken(0.0625, 0.1325, 0.99)) == math.inf  # the post: 13.25 and 98.52 %
    assert watch._distance(taken(1.0, 0.1325, 0.90)) == math.inf
    assert watch._distance(taken(8.0, 0.12, 0.96)) == pytest.approx(1.25)
    assert watch._distance([*taken(8.0, 0.12, 0.96), *taken(9.0, 0.13, 0.97)]) == pytest.approx(0.25)
    assert snapshots.Watch(configs.get("small-100-post-cosine"), tmp_path, 0)._distance([]) == -math.inf
