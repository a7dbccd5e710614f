"""The places that name versions and commands agree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import book_site
import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING = {"torch", "torchvision", "torchdiffeq", "numpy", "safetensors", "tqdm", "tomli", "filelock"}


def project() -> dict:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def extras() -> dict[str, list[str]]:
    return project()["optional-dependencies"]


def normalised(requirements: list[str]) -> set[str]:
    return {re.sub(r"\s*;\s*", "; ", line.replace('"', "'")).lower() for line in requirements}


def test_environment_yml_holds_the_pins_of_pyproject():
    lines = re.findall(r'^      - "(.*)"$', (ROOT / "environment.yml").read_text(), re.MULTILINE)
    pins = [line for line in lines if not line.startswith("-")]
    wanted = [line for group in ("book", "test", "attacks") for line in extras()[group]]
    assert sorted(normalised(pins)) == sorted(normalised(wanted))


def test_constraints_hold_the_pins_of_pyproject():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = normalised([line for line in lines if line and not line.startswith("#")])
    for group, requirements in extras().items():
        for requirement in normalised(requirements):
            name, rest = requirement.split("==", 1)
            version, _, marker = rest.partition("; ")
            fitting = {c for c in constraints if re.match(rf"{re.escape(name)}==", c)}
            found = {f"{name}=={version}", f"{name}=={version}; {marker}"} & fitting
            assert found, f"{group}: {requirement} differs from constraints.txt, which has {sorted(fitting)}"


def test_every_pin_of_the_extras_is_exact():
    for group, requirements in extras().items():
        for requirement in requirements:
            exact = re.match(r"[A-Za-z0-9_-]+==[0-9][^*,<>]*", requirement)
            assert exact, f"{group}: {requirement} is not an exact pin"


def test_the_core_needs_only_what_training_needs():
    assert {re.split(r"[<>=!~; ]", line)[0] for line in project()["dependencies"]} == TRAINING


def test_training_imports_nothing_that_only_the_book_needs():
    code = ("import sys; import nodelib, nodelib.experiment.training, nodelib.experiment.evaluation, "
            "nodelib.attacks, nodelib.bench.gpu, nodelib.__main__; print(*sorted({name.partition('.')[0] for "
            "name in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    for name in ("matplotlib", "pandas", "seaborn", "jupytext", "papermill", "nbformat", "sklearn", "imageio",
                 "sphinx"):
        assert name not in done.stdout.split(), f"training imports {name}"


@pytest.mark.parametrize("page", ["README.md", "book/16-reproduce.md"])
def test_the_make_commands_of_the_text_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$? *)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert {"book", "test"} <= named <= targets


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("book", "test", "runs", "bench", "faults", "lock", "coverage", "mutants", "clean"):
        assert f"make {target}" in done.stdout


def test_make_names_the_versions_it_accepts_when_there_is_no_fitting_python(tmp_path):
    for tool in ("bash", "touch", "python3"):
        (tmp_path / tool).symlink_to("/usr/bin/false" if tool == "python3" else f"/bin/{tool}")
    make = subprocess.run(["which", "make"], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run([make, "book", f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True,
                          env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert "no Python from 3.10 to 3.13 found" in done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A folder with a space in its name that holds the Makefile, and programs that only write down how they
    are called.
    """
    folder = tmp_path / "with space"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "jupyter-book", "python3", "cc", "chromium", "slurmd"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n')
        (programs / name).chmod(0o755)
    for name in (".python", ".book", ".test", ".bench", ".cluster", ".upkeep"):
        (folder / ".venv" / name).touch()
    return folder


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """Without the variables of a `make test TESTS=...` that these tests themselves may run in."""
    for name in ("MAKEFLAGS", "MAKEOVERRIDES", "TESTS", "FAST", "VENV", "PYTHON"):
        monkeypatch.delenv(name, raising=False)


def called(checkout: Path, *command: str, **options) -> list[str]:
    """What a command run in the checkout calls."""
    (checkout / "calls").unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, **{"cwd": checkout, **options})
    assert done.returncode == 0, done.stderr
    return (checkout / "calls").read_text().splitlines() if (checkout / "calls").exists() else []


def test_every_target_works_in_a_folder_with_a_space_in_its_name(checkout):
    assert called(checkout, "make", "book", "FORCE=1") == [
        "python -m nodelib render --force", "jupyter-book build book/ -W -n --keep-going --quiet"]
    linted = ["python -m ruff check nodelib tests book/_ext", "python -m mypy"]
    assert called(checkout, "make", "test", "TESTS=tests/publish/test_render.py -k pairs") == [
        *linted, "python -m pytest tests/publish/test_render.py -k pairs"]
    beside = "--numprocesses=logical --maxprocesses=4 --dist=loadgroup"
    assert called(checkout, "make", "test") == [*linted, f"python -m pytest {beside} -m not more"]
    assert called(checkout, "make", "test", "FAST=1") == [
        *linted, f"python -m pytest {beside} -m not more and not slow and not browser"]
    assert called(checkout, "make", "test-more") == ["python -m pytest -m more"]
    assert called(checkout, "make", "runs", "RUNS=small-10 resnet-1") == [
        "python -m nodelib render --run small-10 --run resnet-1"]
    assert called(checkout, "make", "bench", "BENCH=--help") == ["python -m nodelib bench --help"]
    assert called(checkout, "make", "faults") == ["python -m pytest -m fault --faults=data/faults.csv"]
    (locking,) = called(checkout, "make", "lock")
    assert "uv pip compile" in locking and "--generate-hashes" in locking
    (measuring,) = called(checkout, "make", "coverage")
    assert "--cov=nodelib" in measuring
    mutating = called(checkout, "make", "mutants", "MUTANTS=--survivors")
    assert mutating == ["python tests/mutants.py --survivors"]
    (checkout / ".venv" / ".test").unlink()
    (checkout / ".venv" / ".book").unlink()
    installed = called(checkout, "make", ".venv/.test")
    assert len(installed) == 3
    assert all("-m pip" in call and "-c constraints.txt" in call for call in installed)
    (checkout / ".venv" / ".python").unlink()
    made = called(checkout, "make", ".venv/.python", f"PYTHON={checkout}/.venv/bin/python3")
    assert made[-1] == "python3 -m venv .venv"
    other = checkout.parent / "with"  # what an unquoted path would hit
    other.mkdir()
    for folder in ("nodelib", "tests", "book"):
        (checkout / folder / "__pycache__").mkdir(parents=True)
    called(checkout, "make", "clean")
    assert other.exists() and not (checkout / ".venv").exists()
    assert not (checkout / "nodelib" / "__pycache__").exists()


def test_continuous_integration_works_in_a_folder_with_a_space_in_its_name(checkout, tmp_path):
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    calls = called(checkout, str(checkout / ".ci" / "run"), cwd=tmp_path, env={**os.environ, "PATH": path})
    assert [call.rpartition(" -m ")[2] for call in calls[-2:]] == ["not more", "more"]


def test_continuous_integration_builds_the_pages_once_and_leaves_nothing_behind(checkout, tmp_path):
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    (checkout / ".venv" / "bin" / "python").write_text(
        f'#!/bin/sh\n[ -d "$NODELIB_SITE" ] && echo "$NODELIB_SITE" >> "{checkout}/calls"\n')
    (tmp_path / "scratch").mkdir()
    calls = called(checkout, str(checkout / ".ci" / "run"),
                   env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path / "scratch")})
    sites = [call for call in calls if call.startswith(str(tmp_path / "scratch"))]
    assert len(sites) == 4 and len(set(sites)) == 1  # two linters, two sessions of tests
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("shared", [True, False])
def test_a_built_site_is_taken_again_only_where_a_folder_for_it_is_named(shared, tmp_path, monkeypatch):
    builds = []

    def build(command, **options):
        builds.append(Path(command[-1]))
        return subprocess.CompletedProcess(command, 0, "read", "written")

    monkeypatch.setattr(subprocess, "run", build)
    monkeypatch.delenv("NODELIB_SITE", raising=False)
    if shared:
        monkeypatch.setenv("NODELIB_SITE", str(tmp_path))
    first, second = book_site.site.__wrapped__(), book_site.site.__wrapped__()
    assert builds == [tmp_path] if shared else len(set(builds)) == 2
    assert (first == second) is shared
    assert (second.html, second.log, second.status) == (builds[-1] / "_build" / "html", "readwritten", 0)


def test_a_virtual_environment_with_a_space_in_its_path_is_refused(checkout):
    done = subprocess.run(["make", "clean", "VENV=my env"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode != 0 and "without spaces" in done.stderr


def test_the_version_is_the_same_everywhere():
    import nodelib

    assert project()["version"] == nodelib.__version__
    assert f"version: {nodelib.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {nodelib.__version__}" in (ROOT / "CHANGELOG.md").read_text()
