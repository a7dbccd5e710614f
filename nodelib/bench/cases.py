"""What is measured: a network with weights, images, labels and an end time, the same for every method."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.experiment import artifacts, mnist
from nodelib.experiment.paths import runs_dir
from nodelib.networks import ODEFunc, ODENet
from nodelib.solver.integrate import odeint

# network -> the run whose weights are used
RUNS = {"small": "small-100", "large": "large-100", "wide": "wide-standard"}
SHAPES = {"small": (16, 7), "large": (128, 7), "wide": (64, 10)}
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One measured training step: forward, cross-entropy, backward, at `batch` images and end time t1."""

    network: str
    batch: int
    t1: float

    @property
    def name(self) -> str:
        return f"{self.network}, batch {self.batch}, t = {self.t1:g}"


class Problem:
    """A case with its model, images and labels on a device; weights: where the model's come from."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.case, self.device = case, device
        self.model, self.weights = weights(case.network)
        self.model = copy.deepcopy(self.model).to(device).train().requires_grad_()
        self.model.pooling = "fixed"
        images, labels = mnist.load("train")
        self.images, self.labels = images[: case.batch].to(device), labels[: case.batch].to(device)

    @property
    def func(self) -> ODEFunc:
        return self.model.block.func

    def parameters(self) -> list[Tensor]:
        return list(self.model.parameters())

    def loss(self, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model.head(y), self.labels)

    def flops_per_evaluation(self) -> float:
        """Floating-point operations of the four convolutions, padding counted, two per multiply-add."""
        channels, size = SHAPES[self.case.network]
        return 4 * 2.0 * self.case.batch * size**2 * 9 * channels**2


@functools.cache
def weights(network: str) -> tuple[ODENet, str]:
    """A stored model of this size and the name of its run.

    Gradients at random weights say little: beyond t = 10 no method at 1e-3 follows the true one there.
    """
    run = artifacts.load_run(runs_dir() / f"{RUNS[network]}-seed0")
    return run.load_ode_net(), f"run {run.path.name}"


def reference_gradient(problem: Problem, tolerance: float = 1e-9) -> list[Tensor]:
    """Gradients of the loss in float64 at a tolerance where the solution's gradient is the flow's."""
    model = copy.deepcopy(problem.model).double()
    labels = problem.labels
    y0 = model.stem(problem.images.double())
    solution = odeint(model.block.func, y0, [0.0, problem.case.t1], rtol=tolerance, atol=tolerance)
    loss = F.cross_entropy(model.head(solution.y[-1]), labels)
    return [g.detach() for g in torch.autograd.grad(loss, list(model.parameters()))]


def gradient_error(found: list[Tensor], reference: list[Tensor]) -> float:
    """Relative error of the whole gradient in the Euclidean norm."""
    difference = sum(float((a.double() - b).square().sum()) for a, b in zip(found, reference))
    return math.sqrt(difference / sum(float(b.square().sum()) for b in reference))


TIMED = tuple(Case(*values) for values in (
    ("small", 128, 1.0), ("small", 128, 10.0), ("small", 128, 100.0), ("large", 32, 10.0),
    ("large", 32, 100.0),
    ("wide", 64, 1.0),
))
QUICK = (Case("small", 8, 1.0),)


@dataclass
class Settings:
    """rounds: timed repetitions; limit: seconds of them per method; probe: seconds allowed to a first step in
    a new process; quick: a few seconds in all, for tests; networks: of the training steps."""

    output: Path
    device: str = "cpu"
    rounds: int = 7
    limit: float = 16.0
    probe: float = 75.0
    quick: bool = False
    networks: tuple[str, ...] = tuple(RUNS)
