"""Where the time of a training step goes: its parts one by one."""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

from nodelib.bench import cases, measure, methods
from nodelib.bench.cases import Problem, Settings
from nodelib.solver import kernel
from nodelib.solver.integrate import odeint


def parts(settings: Settings) -> dict:
    """Seconds of the parts of a training step of the exact gradient, and the pages of memory it touches anew.

    limit: the seconds that its products would take at the rate of torch's best convolution on this machine.
    """
    rows = []
    best = measure.convolution_throughput(3 if settings.quick else 15)["best"]
    for case in cases.of_each_size(settings):
        problem = Problem(case)
        func, params = problem.func, tuple(problem.func.parameters())
        state = problem.model.stem(problem.images).detach()
        cotangent = torch.randn(state.shape, generator=torch.Generator().manual_seed(0))
        start = state.clone().requires_grad_()
        solution = odeint(func, start, [0.0, case.t1])
        end = solution.y[-1].detach().requires_grad_()
        stepper = kernel.native_stepper(func, start, kernel.DOPRI5, params, 1e-3, 1e-3)
        if stepper is None:
            return {"rows": [], "omitted": "no compiled kernels here"}
        packed = stepper.pack(start)
        k, kept = stepper.evaluate(0.0, packed, keep=True)
        model = problem.model
        stem = [*model.conv.parameters(), *model.norm.parameters()]
        whole = methods.ours()(problem)
        counts = whole.counts() or {}
        steps: dict[str, Callable[[], object]] = {
            "whole step": whole,
            "stem": lambda: torch.autograd.grad(model.stem(problem.images), stem, cotangent),
            "head and loss": lambda: torch.autograd.grad(F.cross_entropy(model.head(end), problem.labels),
                                                         (end, *model.linear.parameters())),
            "solve": lambda: odeint(func, start, [0.0, case.t1]),
            "reverse": lambda: torch.autograd.grad(solution.y[-1], (start, *params), cotangent,
                                                   retain_graph=True),
            "an evaluation": lambda: stepper.evaluate(0.0, packed, keep=True),
            "a product": lambda: stepper.vjp(kept, k, []),
            "weights, transformed": lambda: _transform(problem, stepper)}
        times = measure.interleave(steps, settings.rounds, settings.limit)
        operations = (counts["nfe"] + 2 * counts["products"]) * problem.minimal_flops_per_evaluation()
        rows.append({"network": case.network, "batch": case.batch, "t1": case.t1, **counts,
                     "faults": _faults(whole), "limit": operations / best / 1e9,
                     "seconds": {name: measure.spread(values) for name, values in times.items()}})
    return {"rows": rows, "best_gflops": best}


def _transform(problem: Problem, stepper: kernel.NativeStepper) -> None:
    kernel._packed.pop(problem.func, None)
    kernel._pack(problem.func, stepper.library, stepper.minimal)


def _faults(step: Callable[[], object]) -> int | None:
    """Pages that a step asks the system for, None where it does not count them."""
    if sys.platform == "win32":
        return None
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
