"""Does it matter by which gradient a network is trained? The continuous adjoint beside the exact gradient.

    python -m nodelib two-gradients large-100 --steps 200

The post trains by the continuous adjoint, the book by the gradient of the computed solution. From stored
weights a network is trained on twice by the post's recipe, on the same batches with the same draws: once by
either. At every step of the adjoint's way the exact gradient of the same weights and images stands beside its
own. Adam begins anew, as it does in `large-100-warm`.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nodelib.experiment import artifacts, configs, mnist, snapshots, training
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.contract import TRAINING_MEASUREMENTS
from nodelib.experiment.evaluation import subset_for
from nodelib.experiment.gradient_health import cosines, relative_error
from nodelib.experiment.progress import Progress
from nodelib.experiment.records import record
from nodelib.networks import ODENet
from nodelib.solver.errors import InputError, check_whole

STEPS = 200


@dataclass(frozen=True)
class Ways:
    """A network trained on by either gradient.

    cosine, error: per step of the adjoint's way, of all weights: the cosine between its gradient and the
    exact one of the same weights, images and draws, and |difference| / |exact|; shape (steps,). loss: of the
    two ways, "adjoint" and "exact", shape (steps,) each. networks: at their ends. apart: distance of their
    weights over the length of the exact way.
    """

    cosine: np.ndarray
    error: np.ndarray
    loss: dict[str, np.ndarray]
    networks: dict[str, ODENet]
    apart: float


def follow(model: ODENet, config: RunConfig, steps: int, first: int = 0) -> Ways:
    """Train a network on by the adjoint and by the exact gradient; it stays as it is.

    Args:
        model: the network to go on from.
        config: recipe, batches and draws; its gradient is not looked at.
        steps: how many, 1 or more; first: number of the first one, which says which batches come.
    """
    check_whole("steps", steps, 1)
    images, labels = mnist.load("train")
    chosen = training.training_images(config)
    images, labels = images[chosen], labels[chosen]
    networks = {name: _trained_by(model, name) for name in ("adjoint", "exact")}
    optimisers = {name: training.adam(network, config) for name, network in networks.items()}
    beside = _trained_by(model, "exact")
    still = torch.optim.SGD(beside.parameters(), lr=0.0)
    start = _weights(model)
    cosine, error = [], []
    loss: dict[str, list[float]] = {name: [] for name in networks}
    with Progress(config.folder, steps, "step") as bar:
        for step in range(first, first + steps):
            index = training.batch(config, step)
            data = images[index], labels[index]
            beside.load_state_dict(networks["adjoint"].state_dict())
            others = training._others(config, images, labels, step, len(index))
            training._step(beside, still, *data, config, step, others)
            for name, network in networks.items():
                training.set_rate(optimisers[name], config, step)
                row = training._step(network, optimisers[name], *data, config, step, others)
                loss[name].append(row["loss"])
            found, exact = _slopes(networks["adjoint"]), _slopes(beside)
            cosine.append(cosines(found[None], exact[None]).item())
            error.append(relative_error(found[None], exact[None]))
            bar.advance(f"cosine {cosine[-1]:.4f}, error {error[-1]:.2g}")
    ends = {name: _weights(network) for name, network in networks.items()}
    return Ways(np.array(cosine), np.array(error), {name: np.array(values) for name, values in loss.items()},
                networks, relative_error((ends["adjoint"] - start)[None], (ends["exact"] - start)[None]))


def _trained_by(model: ODENet, gradient: str) -> ODENet:
    network = copy.deepcopy(model)
    network.block.gradient = gradient
    network.pooling = "random"
    return network


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().reshape(-1) for p in model.parameters()])


def _slopes(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().reshape(-1) for p in model.parameters() if p.grad is not None])


def records(ways: Ways, start: ODENet, config: RunConfig, n: int) -> list[dict]:
    """What `measurements.csv` keeps: per step the gradients, of the ends the accuracies and the logits.

    Args:
        start: the network before; n: test images, by the post's protocol at the own end time.
    """
    steps = len(ways.cosine)
    told: dict[str, Any] = {"steps": steps, "recipe": config.name}
    found = [record(name, np.percentile(values, q), config.test_t1, steps, statistic, **told)
             for name, values, tail in (("training_cosine", ways.cosine, 10),
                                        ("training_error", ways.error, 90))
             for statistic, q in (("median", 50), (f"q{tail}", tail))]
    found += [record("training_loss", values.mean(), config.test_t1, steps, "mean", gradient=name, **told)
              for name, values in ways.loss.items()]
    found.append(record("weights_apart", ways.apart, config.test_t1, 1, "mean", **told))
    for name, network in (("none", start), *ways.networks.items()):
        found += [record("trained_on", r.value, r.t1, r.n, r.quantity, gradient=name, **told)
                  for r in snapshots.measure(network.eval(), config.test_t1, n, 0, 0)]
    return found


def recipe(run: artifacts.Run, steps: int) -> tuple[RunConfig, int]:
    """By which recipe a run goes on for so many steps, and the number of the first: its own, where it was
    trained at a constant rate, else that of the run of the post's recipe that begins with it.

    Raises:
        InputError: there is neither.
    """
    own = RunConfig.from_dict(run.config)
    if own.endless:
        more = math.ceil(steps / own.steps_per_epoch)
        return dataclasses.replace(own, epochs=own.epochs + more), own.epochs * own.steps_per_epoch
    begins = [name for name in configs.NAMES if configs.get(name).start == run.name]
    if not begins:
        can = sorted({start for name in configs.NAMES if (start := configs.get(name).start)})
        raise InputError(f"{run.name} was not trained at a constant rate, and no run of the post's recipe "
                         f"begins with it; take a run such as small-100-post, or {', '.join(can)}")
    return configs.get(begins[0], run.seed, own.scale), 0


def measure_run(folder: str | Path, steps: int = STEPS, n: int | None = None) -> list[dict]:
    """Train a stored run on by either gradient and write what came of it to its `measurements.csv`; the
    networks are not kept, and nothing is before the last step.

    Args:
        n: test images, the first of the test order; default as many as a snapshot's.

    Raises:
        InputError: no recipe goes on from the run, see `recipe`.
        ArtifactError: the run holds the same on more steps or images.
    """
    check_whole("steps", steps, 1)
    run = artifacts.load_ode_run(folder)
    config, first = recipe(run, steps)
    n = snapshots.images_of(config) if n is None else n
    artifacts.check_not_fewer(run, steps, lambda r: r["name"].startswith("training_"))
    subset_for(run, n, lambda r: r["name"] == "trained_on")  # refuses before the training and not after
    model = run.load_ode_net()
    found = records(follow(model, config, steps, first), model, config, n)
    artifacts.add_measurements(run, found, lambda r: r["name"] in TRAINING_MEASUREMENTS)
    return found
