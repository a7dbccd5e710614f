"""Measure a network while it trains: accuracy by the post's protocol, what its loss hides, how large its
logits are.

Nothing here changes the training: the measurements draw from generators of their own, and the network's
mode is restored.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.attacks.common import attacking
from nodelib.attacks.losses import margin_loss
from nodelib.dynamics.motion import path_turning, velocities
from nodelib.dynamics.paths import states_at
from nodelib.dynamics.rays import jacobian_norm
from nodelib.experiment import artifacts, checksums, snapshot_records
from nodelib.experiment.configs import TABLE_T1, RunConfig
from nodelib.experiment.evaluation import evaluating, test_subset
from nodelib.experiment.measurement import EPSILON, SEED_BATCH
from nodelib.experiment.paths import data_dir
from nodelib.experiment.snapshot_records import SnapshotRecord
from nodelib.networks import ODENet
from nodelib.solver.integrate import Solution, odeint

PARTS = (16, 8, 4, 2)  # of the first epoch
KEPT_EPOCHS = (4, 6, 12, 30, 60, 100)
CLEAN_POINTS = 3.0  # below the post's clean accuracy, of weights kept for an attacked figure near its own
COMPLEXITY_IMAGES = 64
SINGLE_IMAGES = 16  # solved one by one, for their own steps


def due(config: RunConfig, step: int) -> bool:
    """Whether the network is measured after so many steps."""
    if config.snapshots is None or config.architecture != "odenet":
        return False
    if step == 0:
        return bool(config.start)
    if step % config.steps_per_epoch == 0:
        return True
    if config.snapshots:
        return step % config.snapshots == 0
    return step in {max(1, config.steps_per_epoch // part) for part in PARTS}


def images_of(config: RunConfig) -> int:
    """Test images of a snapshot: 1,000 small, 128 large and wide."""
    return min(64, config.test_images) if config.scale == "smoke" else 1000 if config.channels == 16 else 128


class Watch:
    """Takes the snapshots of one run in training and stores them in its folder.

    Args:
        config, folder: of the run; start: steps done before, after which older records of the folder are
            dropped and taken again.
    """

    def __init__(self, config: RunConfig, folder: Path, start: int) -> None:
        self.config, self.folder = config, folder
        self.path = folder / "snapshots.csv"
        stored = [] if config.snapshots is None else snapshot_records.from_csv(self.path)
        self.records = [r for r in stored if r.step <= start and (start or r.step)]
        self.posts = _posts_entry(config)

    def take(self, model: Any, step: int) -> None:
        """Measure the network if a snapshot is due after this step and missing; keep weights of
        `KEPT_EPOCHS`, of which the run's config says nothing until it is stored.
        """
        config = self.config
        if not due(config, step) or any(r.step == step for r in self.records):
            return
        epoch = step / config.steps_per_epoch
        times = TABLE_T1 if config.test_t1 in TABLE_T1 else (*TABLE_T1, config.test_t1)
        taken = [r for t1 in times for r in measure(model, t1, images_of(config), epoch, step)]
        taken += complexity(model, config.test_t1, min(COMPLEXITY_IMAGES, images_of(config)), epoch, step)
        with artifacts.writing(self.folder):
            checksums.store(self.path, snapshot_records.to_csv([*self.records, *taken]))
        # rounded, as a resumed training has them: it must find the same epoch the nearest
        self.records = snapshot_records.from_csv(self.path)
        if epoch in KEPT_EPOCHS:
            artifacts.save_model(self.folder / f"weights-epoch{epoch:.0f}.safetensors", model)

    def store_nearest(self, model: Any, step: int) -> None:
        """Keep the weights after this step if they came nearer to the post's figure than all before.

        They replace others that the stored config states: call it where the run is stored, before the config
        is. Whether they are nearest is read off the snapshots, so a store that was interrupted can be done
        again.
        """
        before, now = [r for r in self.records if r.step < step], [r for r in self.records if r.step == step]
        if self._distance(before) > self._distance(now):
            artifacts.save_model(self.folder / "weights-nearest.safetensors", model)

    def _distance(self, records: list[SnapshotRecord]) -> float:
        """How near FGSM at the own end time comes to the post's figure, at whole epochs after which the
        network is as right as the post's, less `CLEAN_POINTS`: one that has hardly learned comes near by
        chance.
        """
        if self.posts is None:
            return -math.inf
        attacked, clean = (snapshot_records.values(records, quantity, self.config.test_t1)
                           for quantity in ("fgsm", "clean"))
        return min((abs(100 * attacked[epoch] - self.posts["adversarial"]) for epoch in attacked
                    if 100 * clean[epoch] >= self.posts["standard"] - CLEAN_POINTS), default=math.inf)


def _posts_entry(config: RunConfig) -> dict | None:
    if not config.endless:  # as the post's rate is; only such a run is stored after every epoch
        return None
    table = artifacts.read_json(data_dir() / "seed.json")["table"]
    return next((e for e in table if f"{e['run']}-post" == config.name and e["t1"] == config.test_t1), None)


def measure(model: ODENet, t1: float, n: int, epoch: float, step: int) -> list[SnapshotRecord]:
    """Accuracies by the post's protocol at one end time, and the logits behind them, on the first n test
    images.

    One forward pass by the continuous adjoint gives both losses' gradients, so that the two attacks see
    the same regions.

    Args:
        model: restored to the mode, pooling and gradient method it had.
    """
    device = next(model.parameters()).device
    images, labels = (x.to(device) for x in test_subset(n))
    signs = torch.Generator().manual_seed(1)
    right: dict[str, list[Tensor]] = {"clean": [], "fgsm": [], "fgsm-margin": [], "random-signs": []}
    gaps, sums, zeros, nfe = [], [], [], 0.0
    with evaluating(model, "random"), attacking(model, "adjoint"):
        for x, y in zip(images.split(SEED_BATCH), labels.split(SEED_BATCH)):
            point = x.clone().requires_grad_(True)
            with torch.enable_grad():
                state = model.block(model.stem(point), t1)
                logits = model.head(state)
                ascent = torch.autograd.grad(F.cross_entropy(logits, y), point, retain_graph=True)[0]
                margin = torch.autograd.grad(margin_loss(logits, y), point)[0]
            nfe += len(x) * model.block.nfe
            right["clean"].append(logits.argmax(1) == y)
            random = (2 * torch.randint(0, 2, x.shape, generator=signs) - 1).to(x)
            for name, move in (("fgsm", ascent.sign()), ("fgsm-margin", margin.sign()),
                               ("random-signs", random)):
                with torch.no_grad():
                    right[name].append(model(x + EPSILON * move, t1).argmax(1) == y)
            first, second = logits.detach().topk(2, 1).values.unbind(1)
            gaps.append(first - second)
            sums.append(state.detach().abs().flatten(1).sum(1))
            zeros.append((ascent == 0).flatten(1).all(1))
    gap = torch.cat(gaps).double()
    found = {name: torch.cat(parts).double().mean().item() for name, parts in right.items()}
    found |= {"zero-gradient": torch.cat(zeros).double().mean().item(),
              "state-sum": torch.cat(sums).double().mean().item(),
              "past-17": (gap > 17).double().mean().item(), "past-104": (gap > 104).double().mean().item(),
              "nfe": nfe / n}
    found |= {f"gap-{q:02d}": torch.quantile(gap, q / 100).item() for q in (5, 25, 50, 75, 95)}
    return [SnapshotRecord(epoch, step, t1, name, value, n) for name, value in found.items()]


def along_path(model: ODENet, images: Tensor, t1: float, every: int,
               **effort: int) -> tuple[Tensor, Tensor, list[Solution]]:
    """Per image norm of df/dz and turning of the velocity from 0 to t1, and solves of single images."""
    func, times = model.block.func, np.linspace(0, t1, 41).tolist()
    with torch.no_grad():
        states = states_at(model, images, times, model.block.rtol, model.block.atol)
        turning = path_turning(velocities(func, states))
        solves = [odeint(func, y[None], [0.0, t1], params=()) for y in states[0][:SINGLE_IMAGES]]
    jacobian = torch.stack([jacobian_norm(func, y, **effort) for y in states[::every]]).mean(0)
    return jacobian, turning, solves


def complexity(model: ODENet, t1: float, n: int, epoch: float, step: int) -> list[SnapshotRecord]:
    """Jacobian norm, path curvature and steps of solves of single images, at one end time, fixed regions."""
    device = next(model.parameters()).device
    with evaluating(model, "fixed"):
        jacobian, turning, solves = along_path(model, test_subset(n)[0].to(device), t1, 20, iterations=15)
    sizes = [h for solve in solves for h in solve.step_sizes]
    return [SnapshotRecord(epoch, step, t1, name, float(value), count) for name, value, count in (
        ("jacobian-norm", jacobian.median(), n), ("path-turning", turning.median(), n),
        ("accepted-steps", np.median([solve.accepted for solve in solves]), len(solves)),
        ("step-size", np.median(sizes), len(solves)))]
