"""The places that name versions and commands agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRAINING = {"torch", "torchvision", "torchdiffeq", "numpy", "safetensors", "tqdm", "filelock"}


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
            assert re.match(r"[A-Za-z0-9_-]+==[0-9][^*,<>]*", requirement), f"{group}: {requirement} is not an exact pin"


def test_the_core_needs_only_what_training_needs():
    assert {re.split(r"[<>=!~; ]", line)[0] for line in project()["dependencies"]} == TRAINING


def test_training_imports_nothing_that_only_the_book_needs():
    code = ("import sys; import nodelib, nodelib.training, nodelib.evaluation, nodelib.attacks, nodelib.__main__; "
            "print(*sorted({name.partition('.')[0] for name in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    for name in ("matplotlib", "pandas", "seaborn", "jupytext", "papermill", "nbformat", "sklearn", "imageio", "sphinx"):
        assert name not in done.stdout.split(), f"training imports {name}"


@pytest.mark.parametrize("page", ["README.md", "book/11-reproduce.md"])
def test_the_make_commands_of_the_text_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$? *)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert {"book", "test"} <= named <= targets


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("book", "test", "runs", "bench", "clean"):
        assert f"make {target}" in done.stdout


def test_make_names_the_versions_it_accepts_when_there_is_no_fitting_python(tmp_path):
    for tool in ("bash", "touch", "python3"):
        (tmp_path / tool).symlink_to("/usr/bin/false" if tool == "python3" else f"/bin/{tool}")
    make = subprocess.run(["which", "make"], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run([make, "book", f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True,
                          env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert "no Python from 3.10 to 3.13 found" in done.stderr


def test_the_version_is_the_same_everywhere():
    import nodelib

    assert project()["version"] == nodelib.__version__
    assert f"version: {nodelib.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {nodelib.__version__}" in (ROOT / "CHANGELOG.md").read_text()
