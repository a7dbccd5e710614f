"""The measurements that the page *Performance* shows, one JSON file each, and their command line."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nodelib.bench import cases, measure, methods
from nodelib.bench.cases import Case, Problem, Settings
from nodelib.bench.convolution import convolution
from nodelib.bench.growth import growth
from nodelib.bench.parts import parts
from nodelib.bench.saturation import saturation
from nodelib.experiment import artifacts
from nodelib.experiment.device import disable_tf32
from nodelib.experiment.paths import data_dir
from nodelib.experiment.progress import say
from nodelib.solver import kernel
from nodelib.solver.integrate import Solver

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
LARGEST = 4096  # Runge-Kutta steps of equal size
ERROR_BATCH = 8  # images of the gradient-error measurement: its reference takes thousands of evaluations


def prepared(problem: Problem, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Steps by method, and why others are missing."""
    steps, missing = {}, {}
    for name in names:
        try:
            steps[name] = (methods.ATTACKS if problem.attack else methods.METHODS)[name](problem)
        except ImportError as error:
            missing[name] = f"not installed ({error})"
            say(f"  {name}: {missing[name]}; the extra `bench` has it")
    return steps, missing


def training_step(settings: Settings) -> dict:
    """Time, counts, gradient error and memory of one training step, every method, at the cases of `TIMED`."""
    repeats = 3 if settings.quick else 15
    throughput = measure.convolution_throughput(repeats) if settings.device == "cpu" else {}
    rows: list[dict] = []
    omitted: dict[str, Any] = {}
    hopeless: dict[str, set[str]] = {}
    for case in cases.QUICK if settings.quick else cases.TIMED:
        if case.network not in settings.networks:
            continue
        say(case.name)
        problem = Problem(case, settings.device)
        steps, missing = prepared(problem, list(methods.METHODS))
        omitted.update(missing)
        peaks = {}
        for name in list(steps):
            # in a process of its own: its memory, and whether it works here at all in reasonable time
            if case.network in hopeless.get(name, ()):  # a longer end time would take longer still
                omitted[f"{name}; {case.name}"] = "not tried, since a shorter end time took too long"
                del steps[name]
                continue
            found = {"bytes": None} if settings.device != "cpu" or settings.quick else measure.in_new_process(
                [case.network, str(case.batch), str(case.t1), name], settings.probe)
            peaks[name] = found.get("bytes")
            if "error" in found:
                omitted[f"{name}; {case.name}"] = found["error"]
                hopeless.setdefault(name, set()).add(case.network)
                say(f"  {name}: {found['error']}")
                del steps[name]
        times = measure.interleave(steps, settings.rounds, settings.limit)
        errors = gradient_errors(Case(case.network, min(case.batch, ERROR_BATCH), case.t1), settings.device,
                                 list(steps))
        for name, values in times.items():
            row = {**measure.row(case, name, times), "rounds": len(values), "gradient_error": errors[name],
                   "peak_bytes": peaks[name], "weights": problem.weights, **(steps[name].counts() or {})}
            rows.append(row)
            memory = f", {row['peak_bytes'] / 1e6:.0f} MB" if row["peak_bytes"] is not None else ""
            say(f"  {name:<22} {row['seconds']['median']:8.3f} s  {row['ratio']['median']:6.2f} x "
                f"[{row['ratio']['low']:.2f}, {row['ratio']['high']:.2f}]  error "
                f"{row['gradient_error']:.2g}{memory}")
    wanted = "large-100" in settings.networks and not settings.quick
    budget_rows = small_memory(rows, settings) if wanted else []
    return {"throughput_gflops": throughput, "rows": rows, "omitted": omitted, "memory_rows": budget_rows,
            "error_batch": ERROR_BATCH, "reference": "float64, state tolerance 1e-9",
            "tolerance": cases.TOLERANCE}


def gradient_errors(case: Case, device: str, names: Sequence[str]) -> dict[str, float]:
    """Error of each method's parameter gradient against float64 at 1e-9, on a smaller batch."""
    problem = Problem(case, device)
    reference = cases.reference_gradient(problem)
    return {name: cases.gradient_error([g.to(device) for g in methods.METHODS[name](problem)()], reference)
            for name in names}


def small_memory(rows: list[dict], settings: Settings) -> list[dict]:
    """large-100: time within a quarter of the peak memory that backprop takes, and of our own."""
    case = Case("large-100", 32, 100.0)
    peaks = {row["method"]: row["peak_bytes"] for row in rows
             if (row["network"], row["batch"], row["t1"]) == dataclasses.astuple(case)}
    result = []
    problem = Problem(case, settings.device)
    for label in ("torchdiffeq-backprop", "exact"):
        peak = peaks.get(label)
        if not peak:
            continue
        budget = _budget(problem, case, peak / 4, settings)
        steps = {"exact": methods.ours()(problem), "bounded": methods.ours(budget=budget)(problem)}
        if label != "exact":
            steps[label] = methods.METHODS[label](problem)
        times = measure.interleave(steps, settings.rounds, settings.limit)
        bounded_peak = measure.in_new_process(
            [case.network, str(case.batch), str(case.t1), "exact", str(budget)], settings.probe).get("bytes")
        row = {**dataclasses.asdict(case), "quarter_of": label, "peak_of": peak, "budget": budget,
               "peak_bytes": bounded_peak, "seconds": measure.spread(times["bounded"]),
               "ratio_to_exact": measure.ratios(times["exact"], times["bounded"])}
        if label in times:
            row["ratio_to_peer"] = measure.ratios(times[label], times["bounded"])
        result.append(row)
        say(f"  within {budget / 1e6:.0f} MB (a quarter of {label}): {row['ratio_to_exact']['median']:.2f} x "
            "the time")
    return result


def _budget(problem: Problem, case: Case, peak: float, settings: Settings) -> int:
    """The memory budget with which a step's whole peak stays below `peak` bytes, if any does."""
    found = measure.in_new_process([case.network, str(case.batch), str(case.t1), "exact", "0"],
                                   settings.probe)
    solver = Solver(problem.func, [0.0, case.t1], cases.TOLERANCE, cases.TOLERANCE)
    with torch.no_grad():
        one_step = 6 * (solver.stepper(problem.model.stem(problem.images)).bytes_per_evaluation or 0)
    # without a budget one step is still held while it is recomputed; a budget counts that step in
    return max(0, int(0.95 * peak) - found.get("bytes", 0) + one_step)


def attack_step(settings: Settings) -> dict:
    """Time of one gradient of the loss in the images alone, and of a training step of the exact gradient."""
    rows = []
    for case in cases.of_each_size(settings):
        problem = Problem(case, settings.device, attack=True)
        steps, _ = prepared(problem, list(methods.ATTACKS))
        steps["training step"] = methods.ours()(Problem(case, settings.device))
        times = measure.interleave(steps, settings.rounds, settings.limit)
        rows += [{**measure.row(case, name, times), **(steps[name].counts() or {})} for name in steps]
        measure.say_medians(case.name, times)
    return {"rows": rows, "tolerance": cases.TOLERANCE}


def fixed_step(settings: Settings) -> dict:
    """Time of Runge-Kutta steps of equal size, as many as leave the gradient no worse than the exact one.

    The number of steps is doubled until then, on `ERROR_BATCH` images; `LARGEST` are the most tried.
    """
    rows = []
    chosen = [case for case in cases.TIMED if case.network in ("small-10", "small-100", "wide-standard")]
    for case in cases.QUICK if settings.quick else chosen:
        few = Problem(Case(case.network, min(case.batch, ERROR_BATCH), case.t1), settings.device)
        reference = cases.reference_gradient(few)
        error = cases.gradient_error(methods.ours()(few)(), reference)
        steps, found = 0, float("inf")
        while found > error and steps < LARGEST:
            steps = max(1, 2 * steps)
            found = cases.gradient_error(methods.rk4(steps, False)(few)(), reference)
        problem = Problem(case, settings.device)
        timed = {"exact": methods.ours()(problem),
                 "rk4, reversed exactly": methods.rk4(steps, False)(problem),
                 "rk4, torchdiffeq": methods.rk4(steps, True)(problem)}
        times = measure.interleave(timed, min(settings.rounds, 3), settings.limit)
        for name, step in timed.items():
            rows.append({**measure.row(case, name, times), "steps": steps,
                         "gradient_error": error if name == "exact" else found, **(step.counts() or {})})
        say(f"{case.name}: {steps} steps, error {found:.2g} for {error:.2g}, "
            f"{rows[-1]['ratio']['median']:.1f} x")
    return {"rows": rows, "error_batch": ERROR_BATCH}


def end_time(settings: Settings) -> dict:
    """Cost of a small training step against the end time."""
    rows = []
    for t1 in (1.0, 10.0) if settings.quick else (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0):
        problem = Problem(Case("small-100", 8 if settings.quick else 128, t1), settings.device)
        steps, _ = prepared(problem, ["exact", "torchdiffeq-backprop", "torchdiffeq-adjoint"])
        times = measure.interleave(steps, min(settings.rounds, 5), 8.0)
        for name, values in times.items():
            rows.append({"t1": t1, "method": name, **measure.spread(values), **(steps[name].counts() or {})})
        measure.say_medians(f"t = {t1:g}", times)
    return {"rows": rows, "batch": problem.case.batch}


def batch_size(settings: Settings) -> dict:
    """Cost of a training step at t = 10 against the batch."""
    rows = []
    sizes = {"small-100": (1, 4)} if settings.quick else {
        "small-100": (1, 2, 4, 8, 16, 32, 64, 128, 256), "large-100": (1, 2, 4, 8, 16, 32, 64)}
    for network, batches in sizes.items():
        for batch in batches:
            problem = Problem(Case(network, batch, 10.0), settings.device)
            steps, _ = prepared(problem, ["exact", "torchdiffeq-backprop"])
            times = measure.interleave(steps, min(settings.rounds, 5), 8.0)
            for name, values in times.items():
                rows.append({"network": network, "batch": batch, "method": name, **measure.spread(values)})
            measure.say_medians(f"{network}, batch {batch}", times)
    return {"rows": rows, "t1": 10.0}


def work_precision(settings: Settings) -> dict:
    """Gradient error against cost as the tolerance tightens, small network."""
    rows = []
    batch = 4 if settings.quick else 16
    for t1 in (1.0,) if settings.quick else (1.0, 10.0, 100.0):
        problem = Problem(Case("small-100", batch, t1), settings.device)
        reference = cases.reference_gradient(problem)
        slow = set()
        for tolerance in TOLERANCES[:2] if settings.quick else TOLERANCES:
            chosen = {"exact": methods.ours(tolerance=tolerance),
                      "adjoint": methods.ours("adjoint", tolerance),
                      "anchored": methods.ours("anchored", tolerance),
                      "torchdiffeq-backprop": methods.torchdiffeq(False, tolerance)}
            for name, method in chosen.items():
                if name in slow:
                    continue
                step = method(problem)
                error = cases.gradient_error(step(), reference)
                repeats = 3 if name in ("exact", "torchdiffeq-backprop") else 1
                spent = min(measure.seconds(step) for _ in range(repeats))
                rows.append({"t1": t1, "tolerance": tolerance, "method": name, "seconds": spent,
                             "gradient_error": error})
                if spent > settings.limit / 2:
                    slow.add(name)  # a tighter tolerance would take longer still
            say(f"t = {t1:g}, tolerance {tolerance:g}: " + ", ".join(
                f"{r['method']} {r['gradient_error']:.2g}" for r in rows
                if (r["t1"], r["tolerance"]) == (t1, tolerance)))
    return {"rows": rows, "batch": batch, "reference": "float64, state tolerance 1e-9"}


SUITES = {"training-step": training_step, "attack-step": attack_step, "fixed-step": fixed_step,
          "end-time": end_time, "batch": batch_size, "work-precision": work_precision,
          "convolution": convolution, "saturation": saturation, "parts": parts, "growth": growth}


def machine(device: str) -> dict:
    """Where and with what it was measured."""
    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                     platform.processor() or platform.machine())
    return {**artifacts.environment(torch.device(device)), "processor": processor,
            "compiled": kernel.load(16, 7, 7, 16, True, False) is not None,
            "peers": {name: version(name)
                      for name in ("torchdiffeq", "torchode", "torchdyn", "diffrax", "jax")},
            **artifacts.source_state(),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites; each file is written whole or not at all."""
    parser = argparse.ArgumentParser(prog="python -m nodelib bench",
                                     description="Measure training steps against other solvers. Keep the "
                                     "machine otherwise idle.")
    parser.add_argument("--only", nargs="+", choices=list(SUITES), help="run these suites (default: all)")
    parser.add_argument("--output", type=Path, default=data_dir() / "benchmarks",
                        help="folder of the JSON files")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda is untested")
    parser.add_argument("--gpu", action="store_true",
                        help="all that is to be done on a GPU; see --gpu --help")
    parser.add_argument("--threads", type=int, help="threads of torch and of the kernels (default: torch's)")
    parser.add_argument("--rounds", type=int, default=7, help="timed repetitions (default: 7)")
    parser.add_argument("--networks", nargs="+", choices=list(cases.RUNS), default=list(cases.RUNS),
                        help="training steps of these networks (default: all)")
    parser.add_argument("--quick", action="store_true",
                        help="a tiny version of everything, in under a minute")
    parser.add_argument("--peak", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        if arguments.threads < 1:
            parser.error(f"threads is {arguments.threads}; it must be at least 1")
        torch.set_num_threads(arguments.threads)
    if arguments.rounds < 2:
        parser.error(f"rounds is {arguments.rounds}; a spread needs at least 2")
    disable_tf32()
    if arguments.peak:
        return _peak(arguments.peak)
    settings = Settings(arguments.device, 2 if arguments.quick else arguments.rounds, quick=arguments.quick,
                        networks=tuple(arguments.networks))
    suffix = "" if settings.device == "cpu" else "-cuda"
    for name in arguments.only or SUITES:
        say(f"== {name}")
        start = time.perf_counter()
        try:
            result = SUITES[name](settings)
        except KeyboardInterrupt:
            say(f"interrupted; {name}{suffix}.json is left as it was")
            return 130
        result = {"suite": name, "machine": machine(settings.device), "seconds": time.perf_counter() - start,
                  **result}
        path = arguments.output / f"{name}{suffix}.json"
        artifacts.write_json(path, result)
        say(f"== {name}: {result['seconds']:.0f} s, stored in {path}")
    return 0


def _peak(arguments: list[str]) -> int:
    network, batch, t1, method, *budget = arguments
    problem = Problem(Case(network, int(batch), float(t1)))
    prepare = methods.ours(budget=int(budget[0])) if budget else methods.METHODS[method]
    # load code, compile kernels and fill torch's own caches at a short end time first
    prepare(Problem(Case(network, 1, 0.1)))()
    print(measure.peak_bytes(prepare(problem)))
    return 0

