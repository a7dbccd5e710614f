"""Mutation testing: what the tests of solver, statistics and verdicts do not notice.

`make mutants` changes a clone of the last commit in one place at a time, by an operator of cosmic-ray, runs
the tests that can see the place, and writes to mutants.csv whether they fail. It takes half an hour; with
`--survivors` only what did not die in the table that is there is tried again.

The sample is `SAMPLE` places with one mutant of each, those with the smallest hashes of what they are and of
`SEED`. So a change elsewhere leaves most of the sample as it is, and the survivors' reasons, which are
written into the table by hand. Left out, since no test of values can see them, are mutants of annotations
and of the texts of errors.
"""

import ast
import contextlib
import csv
import hashlib
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "mutants.csv"
KEY = ("module", "operator", "was", "mutant")
SAMPLE, SEED = 300, "2018"
MEMORY = 16 * 2**30  # bytes of addresses, against mutants that fill lists without end

# what is mutated, and the tests that see it, those first that few mutants of the solver outlive
SOLVER = {"adjoints": "like_torchdiffeq adjoints second_derivatives neighbours", "errors": "integrate trust",
          "forward": "integrate like_torchdiffeq adjoints", "kernel": "adjoints building",
          "integrate": "integrate like_torchdiffeq trust adjoints", "seeding": "seeding",
          "stepper": "trust integrate adjoints", "tableau": "integrate like_torchdiffeq",
          "tuples": "like_torchdiffeq integrate"}
DEADLY = [f"tests/solver/test_{each}" for each in (
    "integrate.py::test_random_networks_take_torchdiffeqs_steps[True-10.0]",
    "adjoints.py::test_evaluations_of_the_backward_pass_are_counted",
    "adjoints.py::test_compiled_evaluations_and_their_reverse_match_double_precision",
    "adjoints.py::test_the_continuous_adjoint_is_torchdiffeqs",
    "adjoints.py::test_fixed_steps_have_exact_gradients_too",
    "adjoints.py::test_the_adjoint_of_fixed_steps_takes_the_same_steps_backwards")]
RULES = [f"tests/verdicts/test_{each}.py" for each in ("claims", "sharper", "second_round", "rule_changes")]
TESTS = {
    **{f"nodelib/solver/{module}.py": [*DEADLY, *(f"tests/solver/test_{each}.py" for each in tests.split())]
       for module, tests in SOLVER.items()},
    "nodelib/statistics.py": [*RULES, "tests/test_properties.py"],
    "nodelib/verdicts/own_rays.py": ["tests/experiment/test_own_rays.py"],
    "nodelib/verdicts/prolonged.py": ["tests/verdicts/test_prolonged.py"],
    "nodelib/verdicts/*.py": [*RULES, "tests/chapters/test_ledger_tiles.py"],
}
# slow ones: what they see, others see, or it survives
COSTLY = ("peak_of_the_process or python_O or forked_process or refuses or read_again or "
          "real_run or compiled_network or (random_networks and (large or 500)) or "
          "(linear_in_the_cotangent and torch)")


def rank(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, (SEED, *parts))).encode()).hexdigest()


class Silent(ast.NodeTransformer):
    """Takes annotations and the texts of errors out of code."""

    def visit(self, node):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
        if isinstance(node, ast.Raise):
            for text in ast.walk(node):
                if isinstance(text, ast.JoinedStr):
                    text.values = []
        return self.generic_visit(node)


def meaning(source: str) -> str:
    return ast.dump(Silent().visit(ast.parse(source)))


def mutants(folder: Path) -> Iterator[tuple[dict, str]]:
    """One mutant of each place, in the order of the places' ranks: as a row of the table, and its source."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    operators = {name: cosmic_ray.plugins.get_operator(name) for name in cosmic_ray.plugins.operator_names()}
    # those with arguments replace variables by numbers, at random
    operators = {name: operator() for name, operator in operators.items() if not operator.arguments()}
    places: dict[str, list] = {}
    for path in sorted({path for each in TESTS for path in folder.glob(each)}):
        source, seen = path.read_text(), Counter()
        lines = source.splitlines()
        for node in ast_nodes(get_ast(source)):
            for name, operator in operators.items():
                for (line, column), _ in operator.mutation_positions(node):
                    text = lines[line - 1]
                    place = rank(path.name, text, lines[:line].count(text), column, name.split("_")[0])
                    places.setdefault(place, []).append(
                        (rank(place, name, column, seen[name]), path, line, name, seen[name]))
                    seen[name] += 1
    for _, several in sorted(places.items()):
        for _, path, line, name, nth in sorted(several):
            source = path.read_text()
            try:
                mutated = mutate_code(source, operators[name], nth)
                if meaning(mutated) == meaning(source):
                    continue
            except (SyntaxError, AttributeError):  # the latter: cosmic-ray cannot do `except module.Error`
                continue
            lines = source.splitlines()
            now = next(new for old, new in zip(lines, mutated.splitlines()) if old != new)
            yield dict(module=path.relative_to(folder).as_posix(), line=line, operator=name.split("/")[1],
                       was=lines[line - 1].strip(), mutant=now.strip()), mutated
            break


def run_tests(folder: Path, tests: list[str]) -> None:
    """In a process of its own: its exit status is that of the tests in a clone."""
    os.setpgrp()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    os._exit(pytest.main([
        *tests, "-x", "-q", "-p", "no:cacheprovider", "--timeout=60", "-k", f"not ({COSTLY})",
        "-m", "not more and not slow and not browser"]))


def survives(folder: Path, tests: list[str], cache: Path, seconds: float | None = None) -> bool:
    """Whether the tests pass in a clone, and in time.

    Their process is forked from this one, which has imported what takes long.
    """
    os.environ |= {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(cache), "PYTHONPATH": str(folder)}
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(folder, tests))
    process.start()
    process.join(seconds)
    passed = process.exitcode == 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return passed


def main() -> None:
    for name in ("hypothesis.strategies", "scipy.stats", "torchdiffeq"):
        importlib.import_module(name)
    known = {}
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            known = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as scratch:
        folder, warm, cache = Path(scratch, "clone"), Path(scratch, "warm"), Path(scratch, "cache")
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        start = time.monotonic()
        if not survives(folder, sorted({each for tests in TESTS.values() for each in tests}), warm):
            sys.exit("the tests fail without a mutant")
        limit = 60 + time.monotonic() - start
        print(f"all tests pass in {limit - 60:.0f} s without a mutant", flush=True)
        rows = []
        for row, mutated in islice(mutants(folder), SAMPLE):
            before = known.get(tuple(row[name] for name in KEY), {})
            row |= {"fate": "died", "reason": ""}
            if "--survivors" not in sys.argv or before.get("fate") != "died":
                each = next(each for each in TESTS if Path(row["module"]).match(each))
                shutil.copytree(warm, cache)  # what a mutant caches must not reach the next
                path = folder / row["module"]
                path.write_text(mutated)
                # a file of the same second and size would pass for the one that was compiled
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
                start = time.monotonic()
                if survives(folder, TESTS[each], cache, limit):
                    row |= {"fate": "survived", "reason": before.get("reason", "")}
                print(f"{len(rows) + 1} {row['fate']} in {time.monotonic() - start:.0f} s: {row['module']} "
                      f"{row['line']}: {row['mutant']}", flush=True)
                for command in (["checkout", "-q", "."], ["clean", "-fdq"]):  # a mutant may write data, too
                    subprocess.run(["git", "-C", folder, *command], check=True)
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
                shutil.rmtree(cache)
            rows.append(row)
            with TABLE.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["module", "line", *KEY[1:], "fate", "reason"],
                                        lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    dead = Counter(row["module"].split("/")[1] for row in rows if row["fate"] == "died")
    for part, n in Counter(row["module"].split("/")[1] for row in rows).items():
        print(f"{part}: {dead[part]} of {n} died")


if __name__ == "__main__":
    main()
