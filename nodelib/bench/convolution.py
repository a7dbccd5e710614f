"""What minimal filtering gains in the compiled kernels, and what it costs in accuracy."""

from __future__ import annotations

import copy
from typing import Any

import torch

from nodelib.bench import measure
from nodelib.bench.cases import Case, Problem, Settings
from nodelib.solver import kernel

REPEATS = {"small": 40, "large": 2, "wide": 4}  # evaluations of one timing
# the tolerance that chooses it
WAYS = {"sum": kernel.MINIMAL_TOLERANCE / 2, "minimal": kernel.MINIMAL_TOLERANCE}


def convolution(settings: Settings) -> dict:
    """Seconds and rounding error of an evaluation and its vector-Jacobian product, by the sum and by minimal
    filtering.
    """
    rows = []
    for network in settings.networks:
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
        steps = {way: _step(stepper, y, 1 if settings.quick else REPEATS[network]) for way,
                 stepper in steppers.items()}
        _, times = measure.interleave(steps, settings.rounds, "cpu", settings.limit)
        for way, stepper in steppers.items():
            found = stepper.unpack(stepper.evaluate(0.0, stepper.pack(y))[0]).double()
            rows.append({"network": network, "batch": len(y), "way": way,
                         "seconds": measure.spread(times[way]),
                         "speed_up": measure.ratios(times[way], times["sum"]),
                         "error": ((found - expected).norm() / expected.norm()).item()})
    return {"rows": rows}


def _step(stepper: kernel.NativeStepper, y: torch.Tensor, repeats: int):
    packed = stepper.pack(y)

    def step() -> None:
        for _ in range(repeats):
            k, kept = stepper.evaluate(0.0, packed, keep=True)
            stepper.vjp(kept, k, [])

    return step
