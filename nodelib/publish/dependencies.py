"""Which files of the library a piece of code depends on: its imports, followed, those inside functions too.

An import of a package's name leads to where the package has it from, not to all that the package imports:
`from nodelib.attacks import pgd` depends on `nodelib/attacks/pgd.py` and what that imports, not on every
attack.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]


class _Import(NamedTuple):
    """One imported module, or one name of a module, and the name it is bound to."""

    module: str
    name: str | None
    bound: str


def source_files(code: str, package: Path = PACKAGE) -> list[Path]:
    """The package's files that Python code depends on, sorted: modules, and what lies beside them and is
    named in them.

    Raises:
        SyntaxError: the code is no Python.
    """
    found: set[Path] = set()
    followed: set[_Import] = set()

    def follow(module: str, name: str | None) -> None:
        if name is not None and _file(package, f"{module}.{name}"):
            module, name = f"{module}.{name}", None
        file = _file(package, module)
        wanted = _Import(module, name, "")
        if file is None or wanted in followed:
            return
        followed.add(wanted)
        found.add(file)
        is_package = file.name == "__init__.py"
        imports, beside = _read(file, file.stat().st_mtime_ns,
                                module if is_package else module.rpartition(".")[0])
        found.update(beside)
        passed_on = [each for each in imports if is_package and each.bound == name]
        for each in passed_on or imports:  # what a package defines itself may use all that it imports
            follow(each.module, each.name)

    for each in _imports_of(ast.parse(code), ""):
        follow(each.module, each.name)
    return sorted(found)


def _file(package: Path, module: str) -> Path | None:
    first, *rest = module.split(".")
    if first != package.name:
        return None
    path = package.joinpath(*rest)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@functools.lru_cache(maxsize=1024)
def _read(file: Path, changed: int, package: str) -> tuple[list[_Import], list[Path]]:
    """The imports of a module of a package, and what lies beside it that it names, kernels in C and tables;
    read again when it
    has changed.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
             and isinstance(node.value, str)}
    beside = [path for name in sorted(named) if name.endswith((".c", ".toml"))
              and (path := file.with_name(Path(name).name)).is_file()]
    return list(_imports_of(tree, package)), beside


def _imports_of(node: ast.AST, package: str) -> Iterator[_Import]:
    """All imports but those for type checkers alone; relative ones are of the package."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield _Import(alias.name, None, alias.asname or alias.name.partition(".")[0])
        elif isinstance(child, ast.ImportFrom):
            base = package.split(".")[:len(package.split(".")) - child.level + 1] if child.level else []
            module = ".".join([*base, *([child.module] if child.module else [])])
            for alias in child.names:
                yield _Import(module, None if alias.name == "*" else alias.name, alias.asname or alias.name)
        else:
            yield from _imports_of(child, package)
