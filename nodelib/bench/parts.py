"""Where the time of a training step goes: its parts one by one."""

from collections.abc import Callable

import torch

from nodelib.bench import cases, measure, methods
from nodelib.bench.cases import Problem, Settings
from nodelib.solver import kernel
from nodelib.solver.integrate import odeint


def parts(settings: Settings) -> dict:
    """Seconds of the parts of a training step of the exact gradient.

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
        stepper = kernel.native_stepper(func, start, kernel.DOPRI5, params, 1e-3, 1e-3)
        if stepper is None:
            return {"rows": [], "omitted": "no compiled kernels here"}
        model = problem.model
        stem = [*model.conv.parameters(), *model.norm.parameters()]
        whole = methods.ours()(problem)
        counts = whole.counts() or {}
        steps: dict[str, Callable[[], object]] = {
            "whole step": whole,
            "stem": lambda: torch.autograd.grad(model.stem(problem.images), stem, cotangent),
            "solve": lambda: odeint(func, start, [0.0, case.t1]),
            "reverse": lambda: torch.autograd.grad(solution.y[-1], (start, *params), cotangent,
                                                   retain_graph=True),
            "weights, transformed": lambda: _transform(problem, stepper)}
        times = measure.interleave(steps, settings.rounds, settings.limit)
        operations = (counts["nfe"] + 2 * counts["products"]) * problem.minimal_flops_per_evaluation()
        rows.append({"network": case.network, "batch": case.batch, "t1": case.t1, **counts,
                     "limit": operations / best / 1e9,
                     "seconds": {name: measure.spread(values) for name, values in times.items()}})
    return {"rows": rows, "best_gflops": best}


def _transform(problem: Problem, stepper: kernel.NativeStepper) -> None:
    kernel._packed.pop(problem.func, None)
    kernel._pack(problem.func, stepper.library, stepper.minimal)
