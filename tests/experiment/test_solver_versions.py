"""Another version of the solver's library stands in for the installed one, and only for the time being."""

import importlib.metadata
import shutil
import sys

import pytest
import torch
import torchdiffeq

from nodelib.experiment import artifacts, evaluation, solver_versions
from nodelib.experiment.measurement import Measurement
from nodelib.experiment.paths import runs_root

INSTALLED = importlib.metadata.version("torchdiffeq")


@pytest.fixture
def copied(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)


def write_a_version(version, folder):
    """In place of pip: the installed solver, under another name, that counts its solves."""
    package = f"{folder}/torchdiffeq"
    shutil.copytree(torchdiffeq.__path__[0], package)
    with open(f"{package}/__init__.py", "a") as file:
        file.write(f"\nSAID = {version!r}\n")


def test_a_fetched_version_is_another_library_and_the_installed_one_is_back_afterwards(monkeypatch):
    monkeypatch.setattr(solver_versions, "fetch", write_a_version)
    before = sys.path.copy()
    with solver_versions.library("0.0.9") as old:
        assert old.SAID == "0.0.9" and sys.modules["torchdiffeq"] is old is not torchdiffeq
    assert sys.modules["torchdiffeq"] is torchdiffeq and sys.path == before
    with solver_versions.library(INSTALLED) as own:
        assert own is torchdiffeq


def test_the_installed_version_is_back_after_a_fault(monkeypatch):
    monkeypatch.setattr(solver_versions, "fetch", write_a_version)
    with pytest.raises(ZeroDivisionError), solver_versions.library("0.0.9"):
        1 / 0  # noqa: B018
    assert sys.modules["torchdiffeq"] is torchdiffeq


def test_a_version_that_is_not_to_be_had_is_told_and_nothing_is_stored(copied, monkeypatch):
    monkeypatch.setattr(solver_versions.sys, "executable", shutil.which("false"))
    before = artifacts.load_run(copied).measurements
    with pytest.raises(solver_versions.FetchError, match="pip and a package index are needed"):
        solver_versions.measure_run(copied, 8)
    assert artifacts.load_run(copied).measurements == before and sys.modules["torchdiffeq"] is torchdiffeq


def test_the_step_is_that_of_the_post_by_this_librarys_adjoint(monkeypatch):
    monkeypatch.setattr(solver_versions, "evaluating", lambda model, _: evaluation.evaluating(model, "fixed"))
    model = artifacts.load_ode_run(runs_root() / "small-10-seed0").load_ode_net()
    model.block.t1 = 1.0  # where two solvers hardly differ
    images, labels = evaluation.test_subset(32)
    scored: list[torch.Tensor] = []
    logits = solver_versions.logits
    monkeypatch.setattr(solver_versions, "logits",
                        lambda model, x, *how: scored.append(x.detach()) or logits(model, x, *how))
    for factor in (1.0, 100.0):
        asked = Measurement(model.block.t1, 32, "fgsm", 0.3, clip=False, gradient="torchdiffeq-adjoint",
                            batch=32, logit_scale=factor)
        expected = evaluation.attack(model, images, labels, asked)
        scored.clear()
        solver_versions.left(model, images, labels, torchdiffeq, factor)
        moved = scored[-1] - images  # what it scores last is the attacked batch
        # a sign differs where the two solvers' gradients round to either side of zero
        assert (moved.sign() == (expected - images).sign()).double().mean() > 0.97


def test_several_devices_solve_their_parts_alone_and_the_loss_is_of_the_whole_batch(tiny_run):
    model, seen = tiny_run.load_model(), []

    class Library:
        @staticmethod
        def odeint_adjoint(func, y, t, rtol, atol):
            seen.append(len(y))
            return torchdiffeq.odeint(func, y, t, rtol=rtol, atol=atol)

    images, labels = evaluation.test_subset(40)
    solver_versions.left(model, images, labels, Library, devices=4)
    assert seen == [8] * 8 + [2] * 8  # 32 and 8 images, before and after the step
    with pytest.raises(ValueError, match="devices is 0"):
        solver_versions.left(model, images, labels, Library, devices=0)


def test_records_say_version_and_factor_and_replace_older_ones(copied, monkeypatch):
    monkeypatch.setattr(solver_versions, "fetch", write_a_version)
    monkeypatch.setattr(solver_versions, "FACTORS", (1.0, 20.0))  # each is five solves
    for n in (4, 8):
        found = solver_versions.measure_run(copied, n)
    asked = {tuple(r["settings"].values()) for r in found}
    ways = [*((v, 1) for v in (*solver_versions.OLDER, INSTALLED)), *((INSTALLED, k) for k in (2, 4))]
    assert asked == {(v, k, f) for v, k in ways for f in solver_versions.FACTORS}
    kept = [r for r in artifacts.load_run(copied).measurements if r["name"] == "version_left"]
    settings = lambda r: str(r["settings"])  # noqa: E731
    assert sorted(kept, key=settings) == sorted(found, key=settings) and {r["n"] for r in kept} == {8}
    shares = {}
    for r in (r for r in found if r["settings"]["devices"] == 1):  # the same code under other names
        shares.setdefault(r["settings"]["logit_scale"], set()).add(r["value"])
    assert all(len(values) == 1 for values in shares.values())
    with pytest.raises(artifacts.ArtifactError, match="8 images"):
        solver_versions.measure_run(copied, 4)
