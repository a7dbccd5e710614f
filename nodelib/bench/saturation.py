"""What it costs to differentiate an all but saturated loss: cotangents at the end of the range of floats."""

import torch
from torch import Tensor

from nodelib.bench import cases, measure
from nodelib.bench.cases import Case, Problem, Settings
from nodelib.solver import kernel
from nodelib.solver.integrate import odeint

# of dL/dy at the end time; single precision is normal down to 1.2e-38
SIZES = (1.0, 1e-20, 1e-30, 1e-36, 1e-40)
WAYS = ("as they are", "balanced")
T1 = 10.0


def saturation(settings: Settings) -> dict:
    """Seconds of an input gradient by the size of the loss's gradient, with cotangents as they are and
    balanced by `NativeStepper.powers`, as the library does it.
    """
    rows = []
    for network in [name for name in cases.SIZES if name in settings.networks]:
        problem = Problem(Case(network, 2 if settings.quick else 8, T1), "cpu")
        func = problem.func
        with torch.no_grad():
            y = problem.model.stem(problem.images)
        if kernel.native_stepper(func, y, kernel.DOPRI5, (), 1e-3, 1e-3) is None:
            return {"rows": [], "omitted": "no compiled kernels here"}
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        for size in SIZES[-2:] if settings.quick else SIZES:
            steps = {way: _gradient(func, y, size * weights, way) for way in WAYS}
            times = measure.interleave(steps, settings.rounds, settings.limit)
            rows += [{"network": network, "batch": len(y), "size": size, "way": way,
                      "seconds": measure.spread(times[way]),
                      "speed_up": measure.ratios(times[way], times[WAYS[0]])} for way in WAYS]
    return {"rows": rows, "t1": T1}


def _gradient(func: torch.nn.Module, y: Tensor, cotangent: Tensor, way: str):
    """The backward pass alone: the solve before it is the same whatever the loss."""
    leaf = y.clone().requires_grad_()
    end = odeint(func, leaf, [0.0, T1], params=()).y[-1]

    def step() -> None:
        with kernel.unbalanced(way == WAYS[0]):
            torch.autograd.grad(end, leaf, cotangent, retain_graph=True)

    return step
