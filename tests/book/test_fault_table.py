"""The table of faults counts what the tests inject, and is of the tests that are here."""

from __future__ import annotations

import ast
import csv
from functools import cache
from pathlib import Path

from nodelib.experiment.paths import PUBLISHED

pytest_plugins = ["pytester"]
TESTS = Path(__file__).resolve().parents[1]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def marked() -> set[tuple[str, ...]]:
    """Part, fault and promise of every marker in the tests."""
    calls = [node for path in TESTS.rglob("test_*.py")
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "fault"]
    return {tuple(ast.literal_eval(argument) for argument in call.args) for call in calls}


def test_the_published_table_is_of_the_tests_that_are_here():
    found = {(row["part"], row["fault"], row["promise"]) for row in rows(PUBLISHED / "faults.csv")}
    assert found == marked(), "run: make faults"


def test_a_fault_has_one_promise():
    assert len({what for _, what, _ in marked()}) == len(marked())


def test_faults_are_counted_with_their_first_message_and_without_a_path(pytester):
    pytester.makeconftest("from faults import *")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.fault("part", "held", "nothing is lost")
        @pytest.mark.parametrize("value", [1, 2])
        def test_held(value):
            with pytest.raises(KeyError):
                raise KeyError("of no interest")
            with pytest.raises(ValueError, match="is"):
                raise ValueError(f"/some/folder/file is {value}\\nmore")

        @pytest.mark.fault("part", "counted", "all is left", times=5)
        def test_counted(fault):
            fault.injected, fault.lost = 20, 3
            assert not fault.lost

        @pytest.mark.fault("part", "broken", "all is left", times=5)
        def test_broken():
            with pytest.raises(ValueError):
                pass

        @pytest.mark.fault("part", "skipped", "all is left")
        def test_skipped():
            pytest.skip()

        def test_of_another_kind():
            with pytest.raises(ValueError):
                raise ValueError
    """)
    done = pytester.runpytest("--faults", "faults.csv")
    done.assert_outcomes(passed=3, failed=2, skipped=1)
    assert [list(row.values())[1:] for row in rows(pytester.path / "faults.csv")] == [
        ["held", "nothing is lost", "2", "0", "0", "file is 1"],
        ["counted", "all is left", "20", "3", "0", ""], ["broken", "all is left", "5", "0", "1", ""]]
