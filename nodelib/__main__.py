"""The command line: `python -m nodelib COMMAND`, each with `--help`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from nodelib.experiment import command, configs
from nodelib.experiment.budget import Budget, seconds
from nodelib.experiment.progress import say
from nodelib.solver.errors import InputError

OUT_OF_TIME = 3  # exit status where the budget ended before the work did


def _names(text: str) -> list[str]:
    groups = {"rows": configs.ROWS, "pair": configs.PAIR, "controls": configs.CONTROLS, "all": configs.NAMES}
    names = [name for part in text.split(",") for name in groups.get(part, (part,))]
    for name in names:
        configs.get(name)  # raises, listing the known runs
    return names


def _train(arguments: argparse.Namespace) -> int:
    from nodelib.experiment import training
    from nodelib.experiment.device import resolve_device
    from nodelib.experiment.paths import runs_dir

    resolve_device(arguments.device)
    budget = Budget(arguments.budget)
    for name in _names(arguments.run):
        for seed in arguments.seed:
            config = configs.get(name, seed, arguments.scale)
            folder = (arguments.root or runs_dir()) / config.folder
            if (folder / "config.json").exists() and training.stored_prefix(config, folder) is None:
                training.run(config, arguments.root, evaluate=False)  # raises if it is another config
                say(f"{config.folder}: stored already")
            else:
                try:
                    run = training.train(config, arguments.root, device=arguments.device, budget=budget.left)
                except training.OutOfTime as stop:
                    say(str(stop))
                    return OUT_OF_TIME
                say(f"{config.folder}: {config.steps} steps in {run.provenance['seconds']:.0f} s, stored in "
                    f"{run.path}")
            if arguments.evaluate and not _evaluate_folder(folder, arguments.device, budget.left):
                return OUT_OF_TIME
    return 0


def _evaluate_folder(folder: Path, device: str, budget: float | None, protocol: str = "table",
                     images: int | None = None) -> bool:
    """Measure a stored run and print what was asked for; whether all of it is measured by now."""
    from nodelib.experiment import artifacts, evaluation, protocols

    config = configs.RunConfig.from_dict(artifacts.load_run(folder).config)
    # adversarial images come from the first seed of every main run that is stored beside this one
    sources = [f"{name}-seed0" for name in (*configs.ROWS, *configs.PAIR)
               if (folder.parent / f"{name}-seed0" / "config.json").exists()]
    measurements = protocols.get(protocol, config, sources, images)
    records = {r["id"]: r for r in evaluation.evaluate_run(folder, measurements, device=device,
                                                           budget=budget)}
    for r in (records[m.id] for m in measurements if m.id in records):
        say(f"{folder.name}  {r['id']:<28} n = {r['n']:>5}  accuracy {100 * r['accuracy']:6.2f} %  "
            f"[{100 * r['low']:.2f}, {100 * r['high']:.2f}]  nfe {r['nfe']:.0f}")
    # a worst case is computed from the others
    missing = [m.id for m in measurements if m.attack != "worst" and records.get(m.id, {"n": 0})["n"] < m.n]
    if missing:
        say(f"{folder.name}: the time is up before {missing[0]}, {len(missing)} of {len(measurements)} "
            f"records are missing; "
            f"run the same command again to continue")
    return not missing


def _evaluate(arguments: argparse.Namespace) -> int:
    from nodelib.experiment import protocols
    from nodelib.experiment.artifacts import find_runs
    from nodelib.experiment.device import resolve_device

    resolve_device(arguments.device)
    names = _names(arguments.run)
    protocols.get(arguments.protocol, configs.get(names[0]), (), arguments.images)  # raises before any work
    found = [run for run in find_runs(arguments.root)
             if run.name in names and (arguments.seed is None or run.seed in arguments.seed)]
    if not found:
        print(f"no finished run of {', '.join(names)}; train it first with `python -m nodelib train {arguments.run}`",
              file=sys.stderr)
        return 1
    budget = Budget(arguments.budget)
    whole = [_evaluate_folder(run.path, arguments.device, budget.left, arguments.protocol, arguments.images)
             for run in found]
    return 0 if all(whole) else OUT_OF_TIME


def _table(arguments: argparse.Namespace) -> int:
    from nodelib.experiment.artifacts import find_runs
    from nodelib.publish import readme, table

    rows = table.rows(find_runs(arguments.root))
    if arguments.write is not None:
        readme.write_between(arguments.write, "table", table.as_markdown(rows))
        return 0
    print(table.as_markdown(rows) if arguments.markdown else table.as_text(rows))
    return 0


def _claims(arguments: argparse.Namespace) -> int:
    from nodelib import verdicts
    from nodelib.experiment.artifacts import find_runs, read_json
    from nodelib.experiment.paths import data_dir
    from nodelib.publish import readme

    rows = verdicts.ledger(find_runs(arguments.root), read_json(data_dir() / "seed.json"))
    if arguments.write is not None:
        readme.write_between(arguments.write, "claims", verdicts.summary(rows))
        return 0
    print(verdicts.as_markdown(rows) if arguments.markdown else verdicts.as_text(rows))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from nodelib.experiment.artifacts import ArtifactError, load_run, run_folders
    from nodelib.experiment.measurement import TEST_IMAGES
    from nodelib.experiment.verification import problems

    if not 1 <= arguments.sample <= TEST_IMAGES:
        raise InputError(f"sample is {arguments.sample}; it must be from 1 to {TEST_IMAGES}")
    folders, faults = run_folders(arguments.root), 0
    if not folders:
        print("no finished run found", file=sys.stderr)
        return 1
    for folder in folders:
        try:
            found = list(problems(load_run(folder), arguments.sample))
        except ArtifactError as error:  # the other runs are checked all the same
            found = [str(error)]
        faults += len(found)
        say("\n  ".join([folder.name, *found] if found else [f"{folder.name}: ok"]))
    say(f"{len(folders)} runs, {faults} faults")
    return 1 if faults else 0


def _forward(module: str):
    def call(arguments: argparse.Namespace) -> int:
        return importlib.import_module(module).main(arguments.rest) or 0
    return call


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    main = argparse.ArgumentParser(prog="python -m nodelib", description="Train, attack and judge ODE-nets on MNIST.")
    main.add_argument("--debug", action="store_true",
                      help="show the traceback of an error; may stand anywhere")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        return added

    def common(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--root", type=Path, help="folder of the runs (default: data/runs)")

    run_help = f"a run, a comma-separated list, or rows, pair, controls, all. Runs: {', '.join(configs.NAMES)}"
    train = add("train", _train, "Train runs that are not stored yet; resume those that were interrupted.")
    train.add_argument("run", help=run_help)
    train.add_argument("--seed", type=int, nargs="+", default=[0], help="seeds (default: 0)")
    train.add_argument("--scale", choices=configs.SCALES, default="full", help="full is what is published")
    train.add_argument("--device", default="cpu", help="cpu, or cuda, which is untested (default: cpu)")
    train.add_argument("--budget", type=seconds, metavar="SECONDS",
                       help="stop cleanly at a checkpoint after so long (exit status 3)")
    train.add_argument("--evaluate", action="store_true",
                       help="measure each run on the table when it is trained, and those stored "
                                                               "already where records are missing")
    common(train)
    evaluate = add("evaluate", _evaluate, "Measure trained runs by a protocol; resumes per record.")
    evaluate.add_argument("run", help=run_help)
    evaluate.add_argument("--protocol", default="table", help="what to measure: table (default), strong, sweep, epsilon, "
                          "masking, randomised, transfer, tolerance, or all")
    evaluate.add_argument("--images", type=int, metavar="N", help="at most so many test images per record")
    evaluate.add_argument("--seed", type=int, nargs="+", help="seeds (default: all)")
    evaluate.add_argument("--device", default="cpu", help="cpu, or cuda, which is untested (default: cpu)")
    evaluate.add_argument("--budget", type=seconds, metavar="SECONDS",
                          help="begin no further record after so long (exit status 3)")
    common(evaluate)
    for name, function, text in (("table", _table, "Print the post's 48 figures beside ours."),
                                 ("claims", _claims, "Print the ledger of claims and verdicts.")):
        printed = add(name, function, text)
        printed.add_argument("--markdown", action="store_true", help="as a Markdown table")
        common(printed)
        printed.add_argument("--write", type=Path, metavar="FILE",
                             help="write it as Markdown between the marks in FILE instead")
    verify = add("verify", _verify, "Re-check stored runs: hashes, schema, parameter counts, accuracies.")
    verify.add_argument("--sample", type=int, default=256, help="test images to recompute on (default: 256)")
    common(verify)
    for name, module, text in (("render", "nodelib.publish.render", "Execute chapters and run pages into notebooks."),
                               ("bench", "nodelib.bench", "Measure training steps against other solvers.")):
        commands.add_parser(name, help=text, add_help=False).set_defaults(function=_forward(module))
    return main


def _main(arguments: list[str]) -> int:
    known, rest = parser().parse_known_args(arguments)
    if rest and known.command not in ("render", "bench"):
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    known.rest = rest
    return known.function(known)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status, see `nodelib.experiment.command.call`."""
    return command.call(_main, arguments)


if __name__ == "__main__":
    sys.exit(main())
