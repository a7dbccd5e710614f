"""What is installed is what is locked, and the licence of each package is listed."""

import importlib.metadata
import re
from email.message import Message
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from test_packaging import ROOT, extras, project

GENERIC = {"OSI Approved", "DFSG approved", "Other/Proprietary License"}


@cache
def locked() -> dict[str, list[tuple[str, str, int]]]:
    """Per package its locked versions: version, marker ("" for always) and number of hashes."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    text = (ROOT / "requirements.lock").read_text().replace(" \\\n", "\n")
    for entry in re.split(r"\n(?=\S)", "\n" + text):
        if match := re.match(r"([a-z0-9-]+)==(\S+)(?: ; (.*))?", entry.strip()):
            hashes = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
            found.setdefault(match[1], []).append((match[2], match[3] or "", hashes))
    return found


def here(name: str) -> list[str]:
    """The locked versions of a package that are for this machine: one at most."""
    return [version for version, marker, _ in locked().get(name, [])
            if not marker or Marker(marker).evaluate()]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_lock_holds_every_pin_with_hashes_and_names_no_address():
    pins = {(pin.name, next(iter(pin.specifier)).version) for pin in constraints()}
    assert pins <= {(name, version) for name, each in locked().items() for version, _, _ in each}
    assert all(hashes for each in locked().values() for _, _, hashes in each)
    assert not re.search(r"://|index-url|find-links", (ROOT / "requirements.lock").read_text())


def test_every_requirement_of_the_project_is_locked_to_its_pin():
    for line in [*project()["dependencies"], *(line for group in extras().values() for line in group)]:
        wanted = Requirement(line)
        if not wanted.marker or wanted.marker.evaluate():
            (version,) = here(canonicalize_name(wanted.name))
            assert version in wanted.specifier, f"{line} is locked to {version}: make lock"


def needed() -> dict[str, importlib.metadata.Distribution]:
    """What the book and its checks need, directly or not, as far as it is installed."""
    found: dict[str, importlib.metadata.Distribution] = {}
    lines = [Requirement(line) for group in ("book", "test", "attacks") for line in extras()[group]]
    waiting = [each for each in lines if not each.marker or each.marker.evaluate()]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        asked = [Requirement(line) for line in found[name].requires or ()]
        waiting += [each for each in asked if not each.marker or any(
            each.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras))]
    return found


def test_what_is_installed_has_the_locked_versions():
    direct = {Requirement(line).name for line in project()["dependencies"]} - {"tomli"}
    assert direct <= needed().keys()
    for name, distribution in needed().items():
        found = Version(distribution.version).public  # a build for processors alone is torch 2.13.0+cpu
        assert [found] == here(name), f"{name} {found} is installed, {here(name)} is locked; install again"


def licence(metadata: Message) -> str:
    """The licence that a package states of itself."""
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or ()
                   if line.startswith("License ::")]
    stated = "; ".join(each for each in classifiers if each not in GENERIC)
    first = (metadata.get("License") or "").strip().partition("\n")[0]
    return metadata.get("License-Expression") or stated or first or "not stated"


def listed() -> dict[str, str]:
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", (ROOT / "LICENSES.md").read_text(), re.MULTILINE)
    assert len(table) == len(dict(table))
    return dict(table)


def test_every_locked_package_is_listed_with_the_licence_it_states():
    assert listed().keys() == locked().keys()
    for name, distribution in needed().items():
        newest = max((version for version, _, _ in locked()[name]), key=Version)
        if Version(distribution.version).public == newest:
            assert listed()[name] == licence(distribution.metadata), f"correct the row of {name} there"


@pytest.mark.parametrize("terms", ["data/mnist/README.md", "book/_vendor/mathjax/LICENSE"])
def test_what_others_made_lies_beside_its_licence_and_is_listed(terms):
    assert (ROOT / terms).is_file() and f"`{Path(terms).parent}/`" in (ROOT / "LICENSES.md").read_text()
