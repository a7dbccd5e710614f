"""The table of faults counts what the tests inject, and is of the tests that are here."""

import ast
import csv
from functools import cache
from math import prod
from pathlib import Path

from nodelib.experiment.paths import PUBLISHED

pytest_plugins = ["pytester"]
TESTS = Path(__file__).resolve().parents[1]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def marked() -> dict[tuple[str, ...], tuple[int, bool]]:
    """Of part, fault and promise of the markers in the tests how many faults their arguments state, and
    whether no test counts by itself, so that there are no more.
    """
    found: dict[tuple[str, ...], tuple[int, bool]] = {}
    for path in TESTS.rglob("test_*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        values = {target.id: node.value for node in module.body if isinstance(node, ast.Assign)
                  for target in node.targets if isinstance(target, ast.Name)}
        for test in module.body:
            if not isinstance(test, ast.FunctionDef):
                continue
            marks = [values.get(mark.id, mark) if isinstance(mark, ast.Name) else mark
                     for mark in test.decorator_list]
            calls = [(mark.func.attr, mark) for mark in marks
                     if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute)]
            for mark in (call for name, call in calls if name == "fault"):
                times = {option.arg: ast.literal_eval(option.value) for option in mark.keywords}
                each = [size(call.args[1], values) for name, call in calls if name == "parametrize"]
                what = tuple(ast.literal_eval(argument) for argument in mark.args)
                count, all_stated = found.get(what, (0, True))
                found[what] = (count + times.get("times", 1) * prod(each),
                               all_stated and not counts_itself(test))
    return found


def size(node: ast.expr, values: dict[str, ast.expr]) -> int:
    """How many values a `parametrize` lists."""
    if isinstance(node, ast.Name):
        return size(values[node.id], values)
    if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        return size(node.generators[0].iter, values)
    if isinstance(node, ast.Dict):
        return len(node.keys)
    assert isinstance(node, (ast.List, ast.Tuple)), ast.dump(node)
    return sum(size(value.value, values) if isinstance(value, ast.Starred) else 1 for value in node.elts)


def counts_itself(test: ast.FunctionDef) -> bool:
    """Whether a test does more with the fixture `fault` than to tell a message."""
    nodes = [node for statement in test.body for node in ast.walk(statement)]
    uses = sum(isinstance(node, ast.Name) and node.id == "fault" for node in nodes)
    tells = sum(isinstance(node, ast.Attribute) and node.attr == "tell" for node in nodes)
    return "fault" in {argument.arg for argument in test.args.args} and uses > tells


def test_the_published_table_is_of_the_tests_that_are_here():
    table = {(row["part"], row["fault"], row["promise"]): int(row["injected"])
             for row in rows(PUBLISHED / "faults.csv")}
    assert table.keys() == marked().keys(), "run: make faults"
    differing = {what: table[what] for what, (count, all_stated) in marked().items()
                 if table[what] < count or (all_stated and table[what] > count)}
    assert not differing, "run: make faults"


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
