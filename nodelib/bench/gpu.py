"""What to do with a GPU for ten minutes: `python -m nodelib bench --gpu [RUN ...]`.

It compares the GPU's solves and gradients with the processor's, measures training steps, trains the named
runs side by side from their checkpoints for the rest of the time, and packs their folders. It needs no more
than training does. Unpack with `for part in runs-*.tar; do tar -xf $part -C data/runs; done`.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.bench import cases, measure, suites
from nodelib.bench.cases import TOLERANCE, Case, Problem
from nodelib.experiment import artifacts, configs
from nodelib.experiment.device import disable_tf32, resolve_device
from nodelib.experiment.paths import runs_dir
from nodelib.experiment.progress import say
from nodelib.solver.errors import InputError
from nodelib.solver.integrate import odeint

RUNS = ("large-100-post", "large-random-post", "large-10-post", "wide-standard-post")
COMPARED = tuple(Case(*values) for values in (
    ("small-100", 8, 1.0), ("small-100", 8, 10.0), ("large-100", 8, 1.0), ("large-100", 8, 10.0),
    ("wide-standard", 8, 1.0)))
# the batches of the book, and those that fill a device
TIMED = (Case("small-10", 128, 10.0), Case("large-10", 32, 10.0), Case("wide-standard", 64, 1.0),
         Case("small-10", 512, 10.0), Case("large-10", 512, 10.0))
METHODS = ("exact", "torchdiffeq-adjoint", "torchdiffeq-backprop", "torchdiffeq-compile", "torchode")
LOGITS, GRADIENT = 1e-4, 1e-3  # largest relative differences between a GPU and a processor
TIMING, TRAINING = 0.3, 0.93  # shares of all the time after which measuring and training end
STORING = 15  # seconds that a training has to store itself
STOPPED = {130, -signal.SIGTERM}  # exit statuses: stopped, and stopped before it began
PART = 16 * 2**20  # bytes of a packed file


def parity(selected: Sequence[Case], device: str) -> list[dict]:
    """Steps, logits and gradients of trained networks on a device against torch's on the processor.

    A row is `passed` where the accepted steps differ by one at most, and logits and the parameters' gradient,
    relatively and in the Euclidean norm, by no more than `LOGITS` and `GRADIENT`.
    """
    rows = []
    for case in selected:
        for dtype in (torch.float32, torch.float64):
            steps, *found = _answers(case, device, dtype, compiled=True)
            expected_steps, *expected = _answers(case, "cpu", dtype, compiled=False)
            logits, gradient = map(cases.gradient_error, found, expected)
            passed = abs(steps - expected_steps) <= 1 and logits <= LOGITS and gradient <= GRADIENT
            rows.append({**dataclasses.asdict(case), "dtype": str(dtype).removeprefix("torch."),
                         "accepted": steps, "accepted_cpu": expected_steps, "logits": logits,
                         "gradient": gradient, "passed": passed})
            say(f"{case.name}, {dtype}: {steps} steps for {expected_steps}, logits {logits:.1e}, gradient "
                f"{gradient:.1e}" + ("" if passed else ": too far apart"))
    return rows


def _answers(case: Case, device: str, dtype: torch.dtype,
             compiled: bool) -> tuple[int, list[Tensor], list[Tensor]]:
    """Accepted steps, logits and the gradients of all parameters."""
    problem = Problem(case, device)
    model = problem.model.eval().to(dtype)
    solution = odeint(model.block.func, model.stem(problem.images.to(dtype)), [0.0, case.t1], rtol=TOLERANCE,
                      atol=TOLERANCE, compiled=compiled)
    logits = model.head(solution.y[-1])
    gradients = torch.autograd.grad(F.cross_entropy(logits, problem.labels), problem.wanted())
    return solution.accepted, [logits.detach().double().cpu()], [g.double().cpu() for g in gradients]


def training_steps(selected: Sequence[Case], device: str, until: float) -> list[dict]:
    """Seconds of a training step by `METHODS` that are installed and work; none begins after `until`."""
    rows = []
    for i, case in enumerate(selected):
        left = (until - time.monotonic()) / (len(selected) - i)
        if left <= 0:
            say(f"{case.name}: no time left")
            continue
        problem = Problem(case, device)
        steps, _ = suites.prepared(problem, METHODS)
        for name in list(steps):
            try:
                steps[name]()
            except RuntimeError as error:  # such as a compiler that torch.compile does not find
                say(f"  {name} is left out: {(str(error).splitlines() or ['no message'])[0]}")
                del steps[name]
        times = measure.interleave(steps, 7, left / (2 * len(METHODS)))
        rows += [{**measure.row(case, name, times), "weights": problem.weights} for name in steps]
        measure.say_medians(case.name, times)
    return rows


def train(names: Sequence[str], scale: str, device: str, root: Path, output: Path,
          until: float) -> list[int]:
    """Train runs side by side, a process each, until a moment of the monotonic clock; their exit statuses.

    A process that is stopped stores what it has done, and a later call goes on from there.
    """
    command = [sys.executable, "-m", "nodelib", "train", "--scale", scale, "--device", device,
               "--root", str(root)]
    # processes beside each other
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:
        processes = []
        for name in names:
            log = stack.enter_context((output / f"{name}.log").open("w"))
            processes.append(subprocess.Popen([*command, name], stdout=log, stderr=log, env=environment))
        for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
            for process in processes:
                end(process)  # nothing to one that has ended
            until = time.monotonic() + STORING
        return [process.wait() for process in processes]


def pack(folders: Sequence[Path], output: Path, limit: int = PART) -> list[Path]:
    """Files of folders in tar archives of at most `limit` bytes each, which unpack independently.

    Raises:
        InputError: a single file is larger than that.
    """
    for old in output.glob("runs-*.tar"):
        old.unlink()
    parts: list[list[Path]] = []
    end, room = 20 * 512, 0  # a tar archive is filled up to a multiple of this
    for path in sorted(file for folder in folders for file in folder.iterdir() if file.is_file()):
        size = 512 + -(-path.stat().st_size // 512) * 512
        if size > limit - end:
            raise InputError(f"{path} has {path.stat().st_size} bytes; a packed file may have "
                             f"{limit - end - 512}")
        if size > room:
            parts.append([])
            room = limit - end
        parts[-1].append(path)
        room -= size
    names = [output / f"runs-{i:02}.tar" for i in range(len(parts))]
    for name, files in zip(names, parts):
        with tarfile.open(name, "w", format=tarfile.USTAR_FORMAT) as archive:
            for path in files:
                archive.add(path, f"{path.parent.name}/{path.name}")
    return names


def main(argv: Sequence[str]) -> int:
    """The command line; 1 if the GPU computes something else than the processor, or a training failed."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m nodelib bench --gpu",
        description="Compare, measure and train on a CUDA device (untested) within a budget of time.")
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="RUN",
                        help=f"train these side by side (default: {' '.join(RUNS)})")
    parser.add_argument("--minutes", type=float,
                        help="time for everything (default: 10, with --dry-run 0.75)")
    parser.add_argument("--output", type=Path, default=Path("gpu"),
                        help="folder of what it writes (default: gpu)")
    parser.add_argument("--root", type=Path,
                        help="folder of the runs (default: data/runs, with --dry-run a new one)")
    parser.add_argument("--dry-run", action="store_true",
                        help="the same on the processor, with little work")
    arguments = parser.parse_args(argv)
    dry = arguments.dry_run
    device, scale = ("cpu", "smoke") if dry else ("cuda", "full")
    total = 60 * (arguments.minutes or (0.75 if dry else 10.0))
    folders = [configs.get(name, 0, scale).folder for name in arguments.runs]
    resolve_device(device)
    disable_tf32()
    root = arguments.root or (Path(tempfile.mkdtemp(prefix="nodelib-")) if dry else runs_dir())
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    machine = suites.machine(device)
    compared = parity(cases.QUICK if dry else COMPARED, device)
    artifacts.write_json(output / "parity.json", {"machine": machine, "rows": compared})
    timed = training_steps(cases.QUICK if dry else TIMED, device, began + TIMING * total)
    artifacts.write_json(output / "training-step.json", {"machine": machine, "rows": timed})
    statuses = train(arguments.runs, scale, device, root, output, began + TRAINING * total)
    for name, status in zip(arguments.runs, statuses):
        say(f"{name}: exit status {status}, see {output / name}.log")
    packed = pack([root / folder for folder in folders if (root / folder).exists()], output)
    say(f"{len(packed)} packed files in {output} after {time.monotonic() - began:.0f} s")
    return 0 if all(row["passed"] for row in compared) and set(statuses) <= {0, *STOPPED} else 1
