"""One training by several processes: truly started by torchrun, over gloo."""

import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from builders import tiny_config

from nodelib.__main__ import main
from nodelib.experiment import artifacts, configs, distributed, training
from nodelib.experiment.configs import AttackConfig

NAMES = {"small-10": "exact", "small-100-adjoint": "adjoint"}
# the command, again and again while its budget ends before the work, with tiny runs for the named ones; with
# KILL rank 0 dies in the fifth step
WORKER = """
import os, signal, sys
import test_distributed
from nodelib.__main__ import main
from nodelib.experiment import configs, training

configs.get, step = test_distributed.named, training._step
training.train.__kwdefaults__["checkpoint_seconds"] = 0.0

def killed(model, optimiser, images, labels, config, number, *more):
    if number == 4 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(model, optimiser, images, labels, config, number, *more)

training._step = killed if "KILL" in os.environ else step
status = 3
while status == 3:
    status = main(sys.argv[1:])
sys.exit(status)
"""


def named(name: str, seed: int = 0, scale: str = "full") -> configs.RunConfig:
    """At a constant rate the optimiser's moments, means of the gradients, are stored; at this tolerance the
    step sizes of slices and batch matter little; and this rate keeps Adam, which makes a step of the smallest
    gradient, from turning that into other networks. The adjoint, which is slow, takes two steps, not six.
    """
    return tiny_config(name=name, seed=seed, gradient=NAMES[name], rtol=1e-6, atol=1e-6, batch_size=8,
                       train_images=24 if NAMES[name] == "exact" else 8, schedule="constant",
                       learning_rate=1e-5)


def torchrun(root, *names, budget=(), **environment):
    here = os.path.dirname(__file__)
    worker = root / "worker.py"
    root.mkdir(exist_ok=True)
    worker.write_text(WORKER)
    paths = [here, os.path.dirname(here), os.path.dirname(os.path.dirname(here))]
    # every core for each process, as for one that is alone: unless they share them, a step takes a minute
    threads = str(os.cpu_count())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(worker), "train", *names, "--root", str(root), *budget]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads,
             "PYTHONPATH": os.pathsep.join(paths), **environment})
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.terminate()  # and not kill: torchrun then ends its processes, which would outlive it
        process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def state(folder) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Both runs, trained by two processes."""
    root = tmp_path_factory.mktemp("two")
    done = torchrun(root, *NAMES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stored in") == len(NAMES)  # rank 0 alone reports
    return root


@pytest.mark.more
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_what_one_does_and_no_gradient_is_zero(name, two, tmp_path):
    one = training.train(named(name), tmp_path, progress=False)
    both = artifacts.load_run(two / f"{name}-seed0")
    assert (one.provenance["processes"], both.provenance["processes"]) == (1, 2)
    assert one.history["images"].tolist() == both.history["images"].tolist()
    assert both.history["loss"] == pytest.approx(one.history["loss"], rel=1e-4)
    first, second = state(one.path), state(both.path)
    start = configs.build(named(name)).state_dict()
    names = list(dict(configs.build(named(name)).named_parameters()))
    head = names.index("linear.weight")
    for index, parameter in enumerate([*names[:head], *names[head + 1:], names[head]]):  # as in the optimiser
        if parameter == "conv.bias":  # batch normalisation takes it out again: its gradient is rounding
            continue
        gradient, other = (tensors[f"adam.{index}.exp_avg"] for tensors in (first, second))
        assert (other != 0).any() and (other - gradient).norm() < 0.1 * gradient.norm(), parameter
        way, deviation = (tensors[f"model.{parameter}"] - origin for tensors, origin in (
            (first, start[parameter]), (second, first[f"model.{parameter}"])))
        assert deviation.norm() < 0.3 * way.norm(), parameter
    assert torch.allclose(*(tensors["model.norm.running_mean"] for tensors in (first, second)), atol=1e-3)


@pytest.mark.more
def test_two_processes_go_on_to_the_same_bits_after_a_kill_and_after_their_budget(two, tmp_path):
    killed = torchrun(tmp_path, "small-10", KILL="1")
    assert killed.returncode != 0
    assert artifacts.history_until(tmp_path / "small-10-seed0" / "history.csv", 4)
    # the processes join, part and join again, once for a step
    done = torchrun(tmp_path, "small-10", budget=("--budget", "0"))
    assert done.returncode == 0, done.stderr
    assert "5 of 6 steps" in done.stdout
    whole, resumed = (state(root / "small-10-seed0") for root in (two, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize("count, changes, message", [
    (3, {}, "3 processes are to share small-10.*divide its batch of 32 images: 1, 2, 4, 8, 16, 32"),
    (4, dict(train_images=98), "batch of 32 images and the last of an epoch, of 2: 1, 2 "),
    (2, dict(adversarial=AttackConfig()), "small-10 is trained against attacks.*without torchrun"),
    (2, dict(own_rays=1.0), "small-10 is trained with a penalty"),
])
def test_what_processes_cannot_share_is_refused(count, changes, message, monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "size", lambda: count)
    with pytest.raises(ValueError, match=message):
        training.train(tiny_config(**changes), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_several_processes_do_not_evaluate(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert main(["train", "small-10", "--evaluate", "--root", str(tmp_path)]) == 2
    assert "--evaluate measures in one process" in capsys.readouterr().err


def test_the_library_imports_no_more_of_torch_distributed_than_torch_does():
    program = ("import sys, torch; before = {*sys.modules}; import nodelib; "
               "print([name for name in {*sys.modules} - before if name.startswith('torch.distributed')])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
