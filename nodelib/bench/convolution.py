"""What minimal filtering gains in the compiled kernels, and what it costs in accuracy."""

import copy
from typing import Any

import torch

from nodelib.bench import cases, measure
from nodelib.bench.cases import Case, Problem, Settings
from nodelib.solver import kernel

REPEATS = {"small-100": 40, "large-100": 2, "wide-standard": 4}  # evaluations of one timing
# the tolerance that chooses it
WAYS = {"sum": kernel.MINIMAL_TOLERANCE / 2, "minimal": kernel.MINIMAL_TOLERANCE}


def convolution(settings: Settings) -> dict:
    """Seconds and rounding error of an evaluation and its vector-Jacobian product, by the sum and by minimal
    filtering, and their share of torch's best convolution, each in the products that it has to compute.
    """
    rows = []
    best = measure.convolution_throughput(3 if settings.quick else 15)["best"]
    for network in [name for name in cases.SIZES if name in settings.networks]:
        problem = Problem(Case(network, 2 if settings.quick else 16, 1.0), "cpu")
        func, params = problem.func, tuple(problem.func.parameters())
        with torch.no_grad():
            y = problem.model.stem(problem.images)
            expected = copy.deepcopy(func).double()(0.0, y.double())
        steppers: dict[str, Any] = {
            way: kernel.native_stepper(func, y, kernel.DOPRI5, params, tolerance, tolerance)
            for way, tolerance in WAYS.items()}
        if None in steppers.values():
            return {"rows": [], "omitted": "no compiled kernels here"}
        steps = {way: _step(stepper, y, REPEATS[network]) for way, stepper in steppers.items()}
        times = measure.interleave(steps, settings.rounds, settings.limit)
        for way, stepper in steppers.items():
            found = stepper.unpack(stepper.evaluate(0.0, stepper.pack(y))[0]).double()
            each = problem.minimal_flops_per_evaluation if way == "minimal" else problem.flops_per_evaluation
            operations = 3 * REPEATS[network] * each()
            rows.append({"network": network, "batch": len(y), "way": way,
                         "seconds": measure.spread(times[way]),
                         "share_of_best": operations / measure.spread(times[way])["median"] / 1e9 / best,
                         "speed_up": measure.ratios(times[way], times["sum"]),
                         "error": ((found - expected).norm() / expected.norm()).item()})
    return {"rows": rows, "best_gflops": best}


def _step(stepper: kernel.NativeStepper, y: torch.Tensor, repeats: int):
    packed = stepper.pack(y)

    def step() -> None:
        for _ in range(repeats):
            k, kept = stepper.evaluate(0.0, packed, keep=True)
            stepper.vjp(kept, k, [])

    return step
