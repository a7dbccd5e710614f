"""The command line: `python -m nodelib COMMAND`, each with `--help`."""

import argparse
import functools
import importlib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nodelib import verdicts
from nodelib.experiment import (
    artifacts,
    checksums,
    command,
    configs,
    distributed,
    evaluation,
    gradient_health,
    measure_states,
    overshoot,
    protocols,
    rescaling,
    solver_versions,
    training,
    two_gradients,
    verification,
)
from nodelib.experiment.budget import Budget, seconds
from nodelib.experiment.device import resolve_device
from nodelib.experiment.measurement import TEST_IMAGES
from nodelib.experiment.paths import check_scratch, data_dir, runs_root
from nodelib.experiment.pending import transfer_sources
from nodelib.experiment.progress import say
from nodelib.publish import readme, table
from nodelib.solver.errors import InputError, NodelibError, check_whole

FAILED = 2  # exit status after an error, as of `nodelib.experiment.command.call`
OUT_OF_TIME = 3  # where the budget ended before the work did
FORWARDED = {  # commands with a parser of their own
    "render": ("nodelib.publish.render", "Execute chapters and run pages into notebooks."),
    "bench": ("nodelib.bench", "Measure training steps against other solvers."),
    "memory": ("nodelib.bench.memory", "Measure the peak memory of gradients."),
    "tune": ("nodelib.experiment.tuning", "Measure how the recipe was chosen, on training images."),
    "live": ("nodelib.publish.live", "Compile and export what the book's live parts load."),
    "pdf": ("nodelib.publish.pdf", "Print the built book into one PDF file."),
}


def _stored(root: Path | None, names: Collection[str] = ()) -> tuple[list[artifacts.Run], int]:
    """The runs that can be read, by default of any name, and the exit status: 1 where others cannot, which
    are named and left out.
    """
    runs, faults = artifacts.stored_runs(root, names)
    for fault in faults:
        say(f"error: {fault}", sys.stderr)
    return runs, 1 if faults else 0


def _train(arguments: argparse.Namespace) -> int:
    with distributed.processes(resolve_device(arguments.device)):
        return _train_each(arguments)


def _train_each(arguments: argparse.Namespace) -> int:
    """Train every run asked for; one that fails is told, and the others are trained all the same, in one
    process. A stop, or the end of the budget, ends the command.
    """
    if arguments.evaluate and distributed.size() > 1:
        raise InputError(f"--evaluate measures in one process and not in {distributed.size()}; train without "
                         "it, then `python -m nodelib evaluate`")
    budget, status, failed = Budget(arguments.budget), 0, list[str]()
    # what is wrong with the arguments is told once, before any work
    check_scratch(arguments.scale, runs_root(arguments.root))
    asked = [configs.get(name, seed, arguments.scale)
             for name in configs.named(arguments.run) for seed in arguments.seed]
    for config in asked:
        try:
            status = max(status, _train_one(config, arguments, budget))
        except Exception as error:
            if distributed.size() > 1:  # the others may still be within this run, and wait for this process
                raise
            status = max(status, _failed(config.folder, error, arguments.debug))
            failed.append(config.folder)
        if status == OUT_OF_TIME:
            break
    if failed and len(asked) > 1:  # hours may have passed since it was told why
        say(f"error: {len(failed)} of {len(asked)} runs failed: {', '.join(failed)}", sys.stderr)
    return status


def _train_one(config: configs.RunConfig, arguments: argparse.Namespace, budget: Budget) -> int:
    tell = say if distributed.leads() else lambda line: None
    folder = runs_root(arguments.root) / config.folder
    if training.unfinished(config, folder):
        try:
            run = training.train(config, arguments.root, device=arguments.device, budget=budget.left)
        except training.OutOfTime as stop:
            tell(str(stop))
            return OUT_OF_TIME
        tell(f"{config.folder}: {config.steps} steps in {run.provenance['seconds']:.0f} s, stored in "
             f"{run.path}")
    else:
        tell(f"{config.folder}: stored already")
    return _evaluate(folder, arguments, budget.left) if arguments.evaluate else 0


def _failed(folder: str, error: Exception, debug: bool) -> int:
    """The exit status after a run that failed, when it is told why, for no known reason with the traceback;
    the error again where that was asked for, or nobody reads what other runs would say.
    """
    if debug or isinstance(error, BrokenPipeError):
        raise error
    reason = str(error).removeprefix(f"{folder}: ")
    if not isinstance(error, (NodelibError, OSError)):  # as `command.call` tells them apart
        traceback.print_exception(error)
        reason = f"{type(error).__name__}: {reason}"
    say(f"error: {folder}: {reason}", sys.stderr)
    return FAILED


def _measuring(measure: Callable[[Path, argparse.Namespace, float | None], int | None],
               check: Callable[[argparse.Namespace], object] = lambda arguments: None) -> Callable:
    """A command that measures every stored run asked for; one that does not suit it, is damaged or fails is
    told, for no known reason with its traceback, and the others are measured all the same.

    measure: takes a run's folder, the arguments and the seconds left; returns the exit status.
    check: raises, before any work, what is wrong with the arguments whatever the run.
    """
    def call(arguments: argparse.Namespace) -> int:
        names, budget = configs.named(arguments.run), Budget(arguments.budget)
        check(arguments)
        if arguments.images is not None:
            evaluation.check_count(arguments.images)
        runs, status = _stored(arguments.root, names)
        found = [run for run in runs if arguments.seed is None or run.seed in arguments.seed]
        if not found:
            seeds = sorted({run.seed for run in runs})
            stored = f" with that seed; stored are seeds {', '.join(map(str, seeds))}" if seeds else ""
            wanted = f" --seed {' '.join(map(str, arguments.seed))}" if arguments.seed else ""
            raise InputError(f"no finished run of {', '.join(names)}{stored}; train it first with `python -m "
                             f"nodelib train {','.join(arguments.run)}{wanted}`")
        for run in found:
            try:
                status = max(status, measure(run.path, arguments, budget.left) or 0)
            except Exception as error:
                status = max(status, _failed(run.path.name, error, arguments.debug))
        return status
    return call


def _check_evaluation(arguments: argparse.Namespace) -> None:
    resolve_device(arguments.device)
    protocols.get(arguments.protocol, configs.get(configs.named(arguments.run)[0]), (), arguments.images)


def _unfinished(folder: Path, missing: Sequence[str], of: str = "") -> int:
    """The exit status of a measurement that so many records are missing of, after a line that says so."""
    if not missing:
        return 0
    say(f"{folder.name}: the time is up before {missing[0]}, {len(missing)}{of} records are missing; run the "
        "same command again to continue")
    return OUT_OF_TIME


def _evaluate(folder: Path, arguments: argparse.Namespace, budget: float | None) -> int:
    """Measure a stored run and print what was asked for."""
    root = folder.parent
    folder = folder / arguments.kept if arguments.kept else folder
    config = configs.RunConfig.from_dict(artifacts.load_run(folder).config)
    sources = transfer_sources(root)
    measurements = protocols.get(arguments.protocol, config, sources, arguments.images)
    if not measurements:
        say(f"{folder.name}: protocol {arguments.protocol} asks for nothing of such a network; "
            "nodelib/experiment/protocols.py says of which it does")
    records = {r["id"]: r for r in evaluation.evaluate_run(folder, measurements, device=arguments.device,
                                                           budget=budget)}
    for r in (records[m.id] for m in measurements if m.id in records):
        say(f"{folder.name}  {r['id']:<28} n = {r['n']:>5}  accuracy {100 * r['accuracy']:6.2f} %  "
            f"[{100 * r['low']:.2f}, {100 * r['high']:.2f}]  nfe {r['nfe']:.0f}")
    return _unfinished(folder, evaluation.missing(measurements, list(records.values())),
                       f" of {len(measurements)}")


def _reach(arguments: argparse.Namespace) -> measure_states.Reach:
    measure_states.check_parts(arguments.part)
    return measure_states.Reach(arguments.far_images, arguments.log_time)


def _states(folder: Path, arguments: argparse.Namespace, budget: float | None) -> int:
    reach = _reach(arguments)
    done = measure_states.measure_run(folder, arguments.images, reach, parts=arguments.part, budget=budget,
                                      report=say)
    wanted = set(arguments.part) or set(measure_states.pending(artifacts.load_run(folder)))
    return OUT_OF_TIME if budget is not None and wanted - set(done) else 0


def _health(folder: Path, arguments: argparse.Namespace, _: float | None) -> None:
    say(f"{folder.name}: {len(gradient_health.measure_run(folder, arguments.images))} measurements")


def _steps(folder: Path, arguments: argparse.Namespace, _: float | None) -> None:
    say(f"{folder.name}: {len(overshoot.measure_run(folder, arguments.images, arguments.kept))} measurements")


def _two_gradients(folder: Path, arguments: argparse.Namespace, _: float | None) -> None:
    found = two_gradients.measure_run(folder, arguments.steps, arguments.images)
    say(f"{folder.name}: {len(found)} measurements")


def _solver_versions(folder: Path, arguments: argparse.Namespace, _: float | None) -> None:
    say(f"{folder.name}: {len(solver_versions.measure_run(folder, arguments.images))} measurements")


def _rescale(folder: Path, arguments: argparse.Namespace, budget: float | None) -> int:
    missing = rescaling.measure_run(folder, budget)
    if not missing:
        say(f"{folder.name}: all records of the study are stored")
    return _unfinished(folder, missing)


def _table(arguments: argparse.Namespace) -> int:
    runs, status = _stored(arguments.root)
    rows = table.rows(runs)
    markdown = table.as_markdown(rows)
    return _shown(arguments, status, "table", table.as_text(rows), markdown, markdown)


def _claims(arguments: argparse.Namespace) -> int:
    runs, status = _stored(arguments.root)
    rows = verdicts.ledger(runs, artifacts.read_json(data_dir() / "seed.json"))
    return _shown(arguments, status, "claims", verdicts.as_text(rows), verdicts.as_markdown(rows),
                  verdicts.summary(rows))


def _shown(arguments: argparse.Namespace, status: int, name: str, text: str, markdown: str,
           written: str) -> int:
    if arguments.write is None:
        print(markdown if arguments.markdown else text)
    elif status:
        say(f"error: {arguments.write} is left as it is, for runs are left out", sys.stderr)
    else:
        readme.write_between(arguments.write, name, written)
    return status


def _verify(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.sample <= TEST_IMAGES:
        raise InputError(f"sample is {arguments.sample}; it must be from 1 to {TEST_IMAGES}")
    names, root = configs.named(arguments.run), runs_root(arguments.root)
    if arguments.seal and not names:
        raise InputError("--seal accepts files as they are; name the runs it may accept, or all")
    runs, unread = artifacts.stored_runs(root, names)
    count = len(runs) + len(unread)
    unread += [] if names else verification.strangers(root)
    if not runs and not unread:
        raise InputError(f"{root} holds no finished run{' of ' if names else ''}{', '.join(names)}; name "
                         "another folder (--root), or train one with `python -m nodelib train`")
    for run in runs if arguments.seal else ():
        say(f"{run.path.name}: accepted {', '.join(checksums.seal(run.path)) or 'nothing, all is as stated'}")
    for fault in unread:
        say(fault)
    faults = len(unread)
    for run in runs:
        try:
            found = verification.problems_now(run.path, arguments.sample)
        except NodelibError as error:  # the other runs are checked all the same
            found = [str(error)]
        faults += len(found)
        say("\n  ".join([run.path.name, *found] if found else [f"{run.path.name}: ok"]))
    say(f"{count} runs, {faults} faults")
    return 1 if faults else 0


def _forward(module: str) -> Callable:
    def call(arguments: argparse.Namespace) -> int:
        return importlib.import_module(module).main(arguments.rest) or 0
    return call


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    main = argparse.ArgumentParser(prog="python -m nodelib",
                                   description="Train, attack and judge ODE-nets on MNIST.")
    main.add_argument("--debug", action="store_true",
                      help="show the traceback of an error; may stand anywhere")
    main.set_defaults(interrupted="what was stored before is intact")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function: Callable, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        added.add_argument("--root", type=Path, help="folder of the runs (default: data/runs)")
        return added

    which = f"a run, or {', '.join(configs.GROUPS)}. Runs: {', '.join(configs.NAMES)}"

    def of_runs(name: str, function: Callable, text: str, seeds: list[int] | None) -> argparse.ArgumentParser:
        added = add(name, function, text)
        added.add_argument("run", nargs="+", help=which)
        added.add_argument("--seed", type=int, nargs="+", default=seeds,
                           help=f"seeds (default: {'0' if seeds else 'all'})")
        added.set_defaults(budget=None, images=None, interrupted="what the runs before this one gave is "
                           "stored, of this one nothing; the same command measures all of them again")
        return added

    def stoppable(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--budget", type=seconds, metavar="SECONDS",
                           help="begin nothing further after so long; the same command goes on")
        added.set_defaults(interrupted="what was done is stored; the same command goes on")
        return added

    def images(added: argparse.ArgumentParser, default: str) -> argparse.ArgumentParser:
        added.add_argument("--images", type=int, help=f"test images (default: {default})")
        return added

    kept = "earlier weights, such as epoch12 (default: the last)"
    train = stoppable(of_runs("train", _train, "Train runs that are not stored yet, or were interrupted.",
                              [0]))
    train.add_argument("--scale", choices=configs.SCALES, default="full", help="full is what is published")
    train.add_argument("--evaluate", action="store_true",
                       help="measure each run on the table when it is trained, and those stored already "
                       "where records are missing")
    train.epilog = ("Several processes share each batch of one run when torchrun starts them: torchrun "
                    "--nproc-per-node 2 -m nodelib train NAME.")
    train.set_defaults(protocol="table", kept=None)
    evaluate = stoppable(images(of_runs("evaluate", _measuring(_evaluate, _check_evaluation),
                                        "Measure accuracies by a protocol.", None), "the protocol's own"))
    evaluate.add_argument("--protocol", default="table",
                          help="what to measure: table (default), strong, sweep, epsilon, masking, "
                          "randomised, transfer, tolerance, ... or all")
    evaluate.add_argument("--kept", help=kept)
    for added in (train, evaluate):
        added.add_argument("--device", default="cpu", help="cpu, or cuda, which is untested (default: cpu)")
    measure = stoppable(images(of_runs("measure", _measuring(_states, _reach),
                                       "Measure the states of networks, part by part.", None),
                               "500, for leaky runs 200"))
    measure.add_argument("--far-images", type=int, default=50,
                         help="of these, followed further than to their rays (default: 50)")
    measure.add_argument("--log-time", type=float, default=80.0, help="how far, in log time (default: 80)")
    measure.add_argument("--part", action="append", default=[],
                         help="measure only this part, stored already or not; may be given several times")
    images(of_runs("health", _measuring(_health), "Measure if the gradients of attacks are right.", None),
           "256 for the small networks, 32 for the others")
    steps = of_runs("steps", _measuring(_steps), "Follow single steps of FGSM, and what stops them.", None)
    images(steps, "256")
    steps.set_defaults(images=256)
    steps.add_argument("--kept", help=kept)
    train_on = _measuring(_two_gradients, lambda arguments: check_whole("steps", arguments.steps, 1))
    two = images(of_runs("two-gradients", train_on,
                         "Train on by the adjoint and by the exact gradient, on the same batches.", [0]),
                 "a snapshot's")
    two.add_argument("--steps", type=int, default=two_gradients.STEPS,
                     help=f"of training, by either (default: {two_gradients.STEPS})")
    images(of_runs("solver-versions", _measuring(_solver_versions),
                   "Measure the post's step by old and new versions of torchdiffeq.", [0]),
           "1,000 of a small network, 128 of another")
    stoppable(of_runs("rescale", _measuring(_rescale), "Measure FGSM with the logits multiplied by a factor.",
                      [0]))
    for name, function, text in (("table", _table, "Print the post's 48 figures beside ours."),
                                 ("claims", _claims, "Print the ledger of claims and verdicts.")):
        printed = add(name, function, text)
        printed.add_argument("--markdown", action="store_true", help="as a Markdown table")
        printed.add_argument("--write", type=Path, metavar="FILE",
                             help="write it as Markdown between the marks in FILE instead")
    verify = add("verify", _verify,
                 "Check that the files of stored runs are what the library wrote (weights, histories, "
                 "records, outcomes, measurements, snapshots), that they agree, and that clean accuracies "
                 "and FGSM come out of the weights again; stronger attacks and measurements are not computed "
                 "again.")
    verify.add_argument("run", nargs="*", help=f"{which} (default: all that are stored)")
    verify.add_argument("--seal", action="store_true",
                        help="first accept tables and outcomes of the runs named as they are: write their "
                             "checksums anew, and say which had other ones")
    verify.add_argument("--sample", type=int, default=256, help="test images to recompute on (default: 256)")
    for name, (module, text) in FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False).set_defaults(function=_forward(module))
    return main


def _seeds_last(arguments: list[str]) -> list[str]:
    """The arguments with each `--seed` and its numbers behind all others.

    Argparse takes the name in `--seed 0 NAME`, the order of its own usage line, for a further seed. What
    follows the option and is no number stays there, to be refused.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    seeds, others = list[str](), list[str]()
    begins = moved = False
    for argument in arguments[:end]:
        moved = moved and (begins or re.fullmatch(r"[+-]?\d+", argument) is not None)
        begins = len(argument) > 2 and "--seed".startswith(argument)  # argparse takes a beginning, too
        moved = moved or begins
        (seeds if moved else others).append(argument)
    return [*others, *seeds, *arguments[end:]]


def _main(arguments: list[str], debug: bool = False) -> int:
    if not FORWARDED.keys() & set(arguments[:1]):
        arguments = _seeds_last(arguments)
    known, rest = parser().parse_known_args(arguments)
    if rest and known.command not in FORWARDED:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    known.rest, known.debug = rest, debug
    try:
        return known.function(known)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(known.interrupted) from None


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status, see `nodelib.experiment.command.call`."""
    given = sys.argv[1:] if arguments is None else arguments
    return command.call(functools.partial(_main, debug=command.DEBUG in given), given)


if __name__ == "__main__":
    sys.exit(main())
