"""Machines that lack something: the same commands work, or say in a sentence what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from book_site import chromium
from test_packaging import ROOT

# one step of training, stored, and the table; then where the code came from and what it knows of its origin
PROGRAM = """
import sys, pathlib, nodelib
from nodelib.__main__ import main
from nodelib.experiment.artifacts import source_state
train = main(["train", "small-10", "--scale", "smoke", "--budget", "0", "--root", sys.argv[1]])
table = main(["table", "--root", sys.argv[1]])
own = pathlib.Path(nodelib.__file__).is_relative_to(pathlib.Path.cwd())
print(train, table, own, source_state()["commit"])
"""


def copied(folder: Path) -> Path:
    """What a clone holds of code and data, without the stored runs."""
    shutil.copytree(ROOT / "nodelib", folder / "nodelib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "mnist", folder / "data" / "mnist")
    for file in (ROOT / "data").glob("*.json"):
        shutil.copy(file, folder / "data")
    return folder


def try_commands(checkout: Path, root: Path, *wrapper: str, without: tuple[str, ...] = (),
                 **variables: str) -> list[str]:
    """The last line's words and a check of the table, of `PROGRAM` run in a checkout."""
    ours = ("PYTHONPATH", "PYTHONUTF8", "PYTHONIOENCODING", "NODELIB_DATA", *without)
    environment = {name: value for name, value in os.environ.items() if name not in ours} | variables
    done = subprocess.run([*wrapper, sys.executable, "-c", PROGRAM, str(root)], cwd=checkout, timeout=600,
                          env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert b"49.45" in done.stdout and (root / "small-10-seed0" / "checkpoint.safetensors").exists()
    return done.stdout.decode(errors="replace").splitlines()[-1].split()


@pytest.mark.more
def test_a_path_of_spaces_and_foreign_letters(tmp_path):
    odd = tmp_path / "ein Bücherregal 數"
    checkout = copied(odd / "a clone")
    words = try_commands(checkout, odd / "läufe 1", XDG_CACHE_HOME=str(odd / "ein cache"))
    assert words[:3] == ["3", "0", "True"]
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        assert list((odd / "ein cache").rglob("*.so"))


@pytest.mark.more
def test_no_git_no_compiler_no_home_and_letters_of_ascii_only(tmp_path):
    (tmp_path / "bin").mkdir()
    words = try_commands(ROOT, tmp_path / "runs", without=("HOME", "XDG_CACHE_HOME", "LANGUAGE"), LC_ALL="C",
                         LANG="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", PATH=str(tmp_path / "bin"),
                         CC="none")
    assert words == ["3", "0", "True", "None"]


@pytest.mark.more
def test_a_checkout_that_cannot_be_written_and_data_elsewhere(tmp_path):
    checkout, wrapper = copied(tmp_path / "clone"), ()
    if hasattr(os, "getuid") and os.getuid() == 0:  # whom no permissions bind, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("root, and no setpriv")
        wrapper = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
    paths = [checkout, *checkout.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        probe = subprocess.run([*wrapper, "touch", str(checkout / "new")], capture_output=True)
        if probe.returncode == 0:
            pytest.skip("permissions do not bind here")
        assert try_commands(checkout, tmp_path / "runs", *wrapper)[:3] == ["3", "0", "True"]
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)
    assert not list(checkout.rglob("__pycache__"))


@pytest.mark.more
@pytest.mark.skipif(not ((ROOT / ".git").exists() and shutil.which("git")), reason="no repository, or no git")
def test_a_clone_of_one_commit_knows_that_one(tmp_path):
    clone = tmp_path / "clone"
    parts = ("nodelib", "data/mnist", "data/seed.json")
    for command in (["clone", "-q", "--no-checkout", "--depth", "1", ROOT.as_uri(), str(clone)],
                    ["-C", str(clone), "checkout", "-q", "HEAD", "--", *parts]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert try_commands(clone, tmp_path / "runs") == ["3", "0", "True", head.stdout.strip()]


@pytest.mark.parametrize("ci, outcome", [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_chromium_pages_are_skipped_and_in_continuous_integration_missed(ci, outcome, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no Chromium found; install it"):
        chromium()
