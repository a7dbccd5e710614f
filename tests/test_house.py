"""The house: folders in which every arrow points one way, imports inside functions included."""

import ast
import functools
import inspect
import re
import sys
from pathlib import Path

import pytest

import nodelib
from nodelib.publish import dependencies

PACKAGE = Path(nodelib.__file__).resolve().parent

# a folder or module of nodelib may import those before it; those on one line know nothing of each other
FLOORS = [["solver"], ["networks", "statistics"], ["attacks", "dynamics"], ["experiment"],
          ["verdicts", "bench"], ["publish"], ["chapters"], ["__main__"]]
# of experiment, what verdicts may read
RECORDS = {"artifacts", "paths", "configs", "snapshot_records", "contract"}


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name without `nodelib.`; a package by its own."""
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """(importing, imported) of all modules, those that only type checkers import left out."""
    known = modules()
    found = set()
    for name, path in known.items():
        for each in dependencies._imports_of(ast.parse(path.read_text(encoding="utf-8")), ""):
            inner = f"{each.module}.{each.name}".removeprefix("nodelib.")
            target = inner if inner in known else each.module.removeprefix("nodelib.")
            if each.module.split(".")[0] == "nodelib" and target in known and target != name:
                found.add((name, target))
    return found


def floor(name: str) -> int:
    top = name.split(".")[0]
    return next(i for i, names in enumerate(FLOORS) if top in names)


def test_every_module_has_a_floor():
    assert {name.split(".")[0] for name in modules() if name} == {name for names in FLOORS for name in names}
    assert len([path for path in PACKAGE.iterdir() if not path.name.startswith("__py")]) <= 13


@pytest.mark.parametrize("name", [name for names in FLOORS for name in names])
def test_no_arrow_runs_up_or_across(name):
    across = [(a, b) for a, b in arrows() if a.split(".")[0] == name and b
              and (floor(b) > floor(a) or floor(b) == floor(a) and b.split(".")[0] != name)]
    assert not across


def test_the_names_that_others_use_are_what_they_were():
    assert callable(nodelib.odeint) and nodelib.odeint is nodelib.solver.odeint
    names = ("fgsm", "pgd", "ODENet")
    first = {name: [*inspect.signature(getattr(nodelib, name)).parameters] for name in names}
    assert first["fgsm"][:4] == first["pgd"][:4] == ["model", "images", "labels", "epsilon"]
    assert {"step_size", "steps"} <= {*first["pgd"]} and first["ODENet"][:3] == ["channels", "size", "t1"]
    parts = {name for name, _ in nodelib.ODENet(16, 7, t1=10.0).block.func.named_children()}
    assert parts == {f"conv{i}" for i in range(1, 5)} | {f"norm{i}" for i in range(5)}


def test_every_public_function_is_annotated():
    public = {f"{name}.{node.name}": node for name, path in modules().items()
              for node in ast.parse(path.read_text(encoding="utf-8")).body
              if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert public and not [
        name for name, node in public.items() if node.returns is None
        or any(argument.annotation is None for argument in [*node.args.args, *node.args.kwonlyargs])]


def test_no_two_modules_import_each_other():
    targets: dict[str, set[str]] = {}
    for a, b in arrows():
        targets.setdefault(a, set()).add(b)
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name):], name])
        if name not in done:
            for target in targets.get(name, ()):
                visit(target, [*above, name])
            done.add(name)

    for name in list(targets):
        visit(name, [])


def test_the_verdicts_know_records_and_no_models():
    known = {b for a, b in arrows()
             if a.startswith("verdicts") and not b.startswith(("verdicts", "solver.errors"))}
    assert known <= {"statistics", *(f"experiment.{name}" for name in RECORDS)}


def test_the_solver_knows_torch_only():
    outside = set()
    for path in (PACKAGE / "solver").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                plain = isinstance(node, ast.Import)
                names = [each.name for each in node.names] if plain else [node.module]
                outside.update(name.split(".")[0] for name in names)
    assert outside - set(sys.stdlib_module_names) == {"torch", "nodelib", "torchdiffeq"}


def test_every_function_of_the_kernels_is_called_and_every_shared_constant_stands_once():
    functions = set(re.findall(r"\bnodelib_\w+(?=\()", (PACKAGE / "solver" / "kernel.c").read_text()))
    callers = (PACKAGE / "solver" / "kernel.py").read_text()
    assert len(functions) > 8 and not {name for name in functions if name not in callers}
    for name in ("CLASSES", "REFERENCE_TOLERANCE"):
        homes = [path.name for path in PACKAGE.rglob("*.py")
                 if re.search(rf"^{name} = ", path.read_text(), re.MULTILINE)]
        assert len(homes) == 1, (name, homes)
