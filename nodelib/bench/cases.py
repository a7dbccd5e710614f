"""What is measured: a network with weights, images, labels and an end time, the same for every method."""

from __future__ import annotations

import copy
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.experiment import artifacts, mnist
from nodelib.networks import ODEFunc, ODENet
from nodelib.solver.integrate import odeint
from nodelib.solver.seeding import seeded

# network -> the run whose stored weights are used
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
    """A case with its model, images and labels on a device.

    weights: where the weights come from: a stored run, or a short training that is repeated here.
    """

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


_weights: dict[str, tuple[ODENet, str]] = {}


def weights(network: str) -> tuple[ODENet, str]:
    """A trained model of this size and the name of its origin.

    Gradients at random weights say little: beyond t = 10 no method at 1e-3 follows the true one there.
    """
    if network not in _weights:
        stored = [run for run in artifacts.find_runs() if run.name == RUNS[network]]
        if stored:
            _weights[network] = (stored[0].load_ode_net(), f"run {stored[0].path.name}")
        else:
            # processes started from here read the trained weights instead of training again
            file = Path(os.environ.setdefault("NODELIB_BENCH_WEIGHTS",
                                              tempfile.mkdtemp())) / f"{network}.safetensors"
            if file.exists():
                model = ODENet(*SHAPES[network], t1=T1[network])
                model.load_state_dict(safetensors.torch.load_file(file))
            else:
                model = _train(network)
                safetensors.torch.save_file(model.state_dict(), file)
            _weights[network] = (model.eval(),
                                 f"{STEPS[network]} training steps at t = {T1[network]:g}, seed 0")
    return _weights[network]


STEPS = {"small": 200, "large": 40, "wide": 60}
T1 = {"small": 10.0, "large": 10.0, "wide": 1.0}


def _train(network: str) -> ODENet:
    with seeded(0):
        model = ODENet(*SHAPES[network], t1=T1[network])
        images, labels = mnist.load("train")
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for step in range(STEPS[network]):
            chosen = slice(64 * step, 64 * (step + 1))
            optimiser.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimiser.step()
    return model.eval()


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
