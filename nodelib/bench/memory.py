"""Memory that a gradient needs, against the number of solver steps.

`kept_bytes` counts what is kept between the forward and the backward pass; it is the same on every
machine. `python -m nodelib memory` measures the peak resident memory of a fresh process for every
method and number of steps, and stores it in `data/benchmarks/memory.json`: such a measurement differs
a little from run to run, so chapters read it and do not repeat it.
"""

import argparse
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nodelib.experiment.artifacts import environment, read_json, write_json
from nodelib.experiment.paths import data_dir
from nodelib.networks import ODEFunc
from nodelib.solver.integrate import odeint

METHODS = ("backprop", "exact", "exact, states only", "adjoint")
STEPS = (5, 10, 20, 50, 100)
SHAPE = (64, 16, 7, 7)  # a batch of 64 states of the small network
END = 10.0


def solve(method: str, func: Callable, y0: Tensor, steps: int) -> Tensor:
    """State at `END` by `steps` steps of the classical Runge-Kutta method, differentiable by `method`.

    Args:
        method: one of `METHODS`: "backprop" unrolls the steps into one graph; "exact" reverses kept
            steps one by one; "exact, states only" recomputes each; "adjoint" is the continuous adjoint.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(map(repr, METHODS))}")
    h = END / steps
    if method == "backprop":
        y, t = y0, torch.zeros(())
        for _ in range(steps):
            k1 = func(t, y)
            k2 = func(t, y + h / 2 * k1)
            k3 = func(t, y + h / 2 * k2)
            k4 = func(t, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y
    budget = {"memory_budget": 0} if method == "exact, states only" else {"memory_budget": 2**40}
    gradient = "adjoint" if method == "adjoint" else "exact"
    return odeint(func, y0, (0.0, END), method="rk4", step_size=h, gradient=gradient, **budget).y[-1]


class _Held:
    __slots__ = ("tensor", "__weakref__")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(method: str, func: Any, y0: Tensor, steps: int) -> int:
    """Bytes kept after the forward pass for the backward pass, weights not counted.

    Counts every storage that autograd has saved and the states on the solver's own tape, once each.
    """
    own = {p.untyped_storage().data_ptr() for p in func.parameters()}
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Held:
        box = _Held(tensor.detach())  # a saved result that kept its node would be a cycle, and never be freed
        held.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        y = solve(method, func, y0, steps)
    tensors = [box.tensor for box in held]
    node = y.grad_fn
    while node is not None:  # the solver's node lies below the indexing of the last state
        tape = getattr(node, "tape", None)
        if tape is not None:
            tensors += [x for step in tape.steps for x in (step.y, step.y_next, step.k1, step.k_next)
                        if x is not None]
        node = node.next_functions[0][0] if node.next_functions and tape is None else None
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(size for pointer, size in sizes.items() if pointer not in own)


def problem() -> tuple[ODEFunc, Tensor]:
    """The small network's dynamics with fixed random weights, and a batch of states."""
    torch.manual_seed(0)
    return ODEFunc(SHAPE[1]), torch.randn(SHAPE)


def peak_megabytes(method: str, steps: int) -> float:
    """Peak resident memory of forward and backward pass beyond what the process had before, in 2^20 bytes.

    Only meaningful in a fresh process: the peak never falls.
    """
    import resource  # not on Windows, where everything else here works

    func, y0 = problem()
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    solve(method, func, y0.requires_grad_(), steps).square().mean().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20


def measure() -> dict:
    """Peak memory of every method and number of steps, each in a process of its own."""
    records = []
    for method in METHODS:
        for steps in STEPS:
            command = [sys.executable, "-m", "nodelib", "memory", "--one", method, "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            records.append({"method": method, "steps": steps, "megabytes": json.loads(done.stdout)})
            print(f"{method}, {steps} steps: {records[-1]['megabytes']:.0f} MiB", flush=True)
    return {"shape": SHAPE, "end": END, "solver": "rk4", "records": records,
            "environment": environment(torch.device("cpu"))}


def load() -> list[dict] | None:
    """The stored records {method, steps, megabytes}, or None if nothing is stored."""
    path = data_dir() / "benchmarks" / "memory.json"
    return read_json(path)["records"] if path.exists() else None


def main(arguments: list[str] | None = None) -> None:
    """Measure every method, or one in this process, and store it."""
    parser = argparse.ArgumentParser(prog="python -m nodelib memory",
                                     description="measure the peak memory of gradients and store it in "
                                     "data/benchmarks")
    parser.add_argument("--one", choices=METHODS,
                        help="measure one method in this process and print the number")
    parser.add_argument("--steps", type=int, default=10, help="solver steps with --one (default 10)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.one:
        print(peak_megabytes(options.one, options.steps))
    else:
        write_json(data_dir() / "benchmarks" / "memory.json", measure())

