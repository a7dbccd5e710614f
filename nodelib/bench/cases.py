"""What is measured: a network with weights, images, labels and an end time, the same for every method."""

import copy
import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.experiment import artifacts, configs, mnist
from nodelib.experiment.paths import runs_dir
from nodelib.networks import ODEFunc, ODENet
from nodelib.solver import kernel
from nodelib.solver.integrate import odeint
from nodelib.solver.seeding import seeded

# network -> the run whose weights are used, and which of its weights, if not those at the end
EARLY, UNTRAINED = "small-100, early", "small-100, untrained"
RUNS: dict[str, tuple[str, str | None]] = {
    **{name: (name, None) for name in ("small-10", "small-random", "small-100", "large-10", "large-random",
                                       "large-100", "wide-standard")},
    EARLY: ("small-100-post", "epoch4"), UNTRAINED: ("small-100", None)}
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
    """A case with its model, images and labels on a device; weights: where the model's come from.

    attack: what is differentiated is the images, in evaluation mode, and not the parameters.
    """

    def __init__(self, case: Case, device: str = "cpu", attack: bool = False) -> None:
        self.case, self.device, self.attack = case, device, attack
        self.model, self.weights = weights(case.network)
        self.model = copy.deepcopy(self.model).to(device).train(not attack).requires_grad_(not attack)
        self.model.pooling = "fixed"
        images, labels = mnist.load("train")
        self.images = images[: case.batch].to(device).requires_grad_(attack)
        self.labels = labels[: case.batch].to(device)

    @property
    def func(self) -> ODEFunc:
        return self.model.block.func

    def wanted(self) -> list[Tensor]:
        """What the loss is differentiated by: all parameters, or the images."""
        return [self.images] if self.attack else list(self.model.parameters())

    def loss(self, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model.head(y), self.labels)

    def flops_per_evaluation(self) -> float:
        """Floating-point operations of the four convolutions, padding counted, two per multiply-add."""
        return 4 * 2.0 * self.case.batch * self.model.size**2 * 9 * self.model.channels**2

    def minimal_flops_per_evaluation(self) -> float:
        """Those of minimal filtering's products: 36 for each tile of 4 by 4 pixels (`kernel.c`)."""
        tiles = math.ceil(self.model.size / 4) ** 2
        return 4 * 2.0 * self.case.batch * tiles * kernel.DOMAIN * self.model.channels**2


@functools.cache
def weights(network: str) -> tuple[ODENet, str]:
    """A network and where its weights come from: a stored run, one of its earlier epochs, or its first
    weights before any training.
    """
    name, kept = RUNS[network]
    if network == UNTRAINED:
        config = configs.get(name, 0)
        with seeded(config.seed):
            model = configs.build(config)
        assert isinstance(model, ODENet)
        return model, "before any training, seed 0"
    run = artifacts.load_run(runs_dir() / f"{name}-seed0")
    return run.load_ode_net(kept), f"run {run.path.name}" + (f", {kept}" if kept else "")


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


# the rows of the post's table at the end times they were trained for (100, the latest, where it was drawn)
TIMED = tuple(Case(*values) for values in (
    ("small-10", 128, 10.0), ("small-random", 128, 100.0), ("small-100", 128, 100.0), (EARLY, 128, 100.0),
    (UNTRAINED, 128, 100.0), ("large-10", 32, 10.0), ("large-random", 32, 100.0), ("large-100", 32, 100.0),
    ("wide-standard", 64, 1.0),
))
SIZES = ("small-100", "large-100", "wide-standard")  # one network of each size
QUICK = (Case("small-100", 8, 1.0),)


@dataclass
class Settings:
    """rounds: timed repetitions; limit: seconds of them per method; probe: seconds allowed to a first step in
    a new process; quick: a few seconds in all, for tests; networks: of the training steps."""

    device: str = "cpu"
    rounds: int = 7
    limit: float = 10.0
    probe: float = 60.0
    quick: bool = False
    networks: tuple[str, ...] = tuple(RUNS)


def of_each_size(settings: Settings) -> tuple[Case, ...]:
    """The wanted cases of one network of each size; one tiny case if it is to be quick."""
    chosen = QUICK if settings.quick else tuple(case for case in TIMED if case.network in SIZES)
    return tuple(case for case in chosen if case.network in settings.networks)
