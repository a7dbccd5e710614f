"""Does the solver's library make the figure, or the number of GPUs? The post's step by old and new versions
of torchdiffeq, and with the batch divided.

    python -m nodelib solver-versions small-100 small-100-post

The network, its gradient by the continuous adjoint and the scoring are all by one version, at that version's
own norms and first steps; protocol and pooling draws are the post's and the same for all. Versions that are
not installed are fetched with pip for the time being, which needs a package index. Several GPUs, as PyTorch's
`DataParallel` uses them, solve their parts of a batch each by itself, forward and backward, while the loss is
still the mean over the batch: so the step sizes follow fewer images, and that is imitated on one device.

Expected, written down before any of it was stored (three versions had been tried on 64 images of small-100,
and left the same but for one image at most):

- *No version makes it, and no number of GPUs.* For every network and factor on the logits at which the
  installed version on one device leaves below 5 % or above 80 %, any other leaves within 2 points of it; on
  the climb between, within 5. Refuted where two are more than 15 points apart.
"""

import contextlib
import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nodelib.experiment import artifacts, protocols
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.evaluation import evaluating, subset_for
from nodelib.experiment.measurement import EPSILON, SEED_BATCH
from nodelib.experiment.records import record
from nodelib.networks import ODENet
from nodelib.solver.errors import NodelibError, check_whole

NAME = "torchdiffeq"
OLDER = ("0.0.1", "0.1.1")  # the first that was released, and one between
FACTORS = (1.0, 20.0, 100.0)
DEVICES = (2, 4)


class FetchError(NodelibError, RuntimeError):
    """A version of the library could not be installed for the time being."""


@contextlib.contextmanager
def library(version: str) -> Iterator[ModuleType]:
    """The library in that version; whatever is imported of the installed one is back afterwards.

    Raises:
        FetchError: pip does not find or install it.
    """
    if version == importlib.metadata.version(NAME):
        yield importlib.import_module(NAME)
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch(version, folder)
        installed = _forgotten()
        sys.path.insert(0, folder)
        try:
            importlib.invalidate_caches()
            yield importlib.import_module(NAME)
        finally:
            sys.path.remove(folder)
            _forgotten()
            sys.modules.update(installed)


def fetch(version: str, folder: str) -> None:
    """Install that version, and nothing that it depends on, into a folder."""
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder,
                           f"{NAME}=={version}"], capture_output=True, text=True)
    if done.returncode:
        raise FetchError(f"{NAME} {version} cannot be fetched; pip and a package index are needed. pip says: "
                         f"{(done.stderr.strip() or 'nothing').splitlines()[-1]}")


def _forgotten() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == NAME}


def logits(model: ODENet, images: Tensor, solver: ModuleType, devices: int = 1) -> Tensor:
    """The network's logits, shape (N, 10), solved to its own end time by the version's `odeint_adjoint`; in
    as many solves as there are devices.
    """
    block = model.block
    times = torch.tensor([0.0, block.t1], device=images.device)
    ends = [solver.odeint_adjoint(block.func, start, times, rtol=block.rtol, atol=block.atol)[-1]
            for start in model.stem(images).chunk(devices)]
    return model.head(torch.cat(ends))


def left(model: ODENet, images: Tensor, labels: Tensor, solver: ModuleType, factor: float = 1.0,
         devices: int = 1) -> Tensor:
    """Which images one step of the post's leaves right, bool, shape (N,).

    Args:
        images: shape (N, 1, 28, 28), in [0, 1]; labels: shape (N,), 0 to 9.
        solver: a version of the library; factor: on the logits, before the cross-entropy.
        devices: parts that each batch of 32 is solved in, 1 or more.
    """
    check_whole("devices", devices, 1)
    right = []
    with evaluating(model, "random"):
        for x, y in zip(images.split(SEED_BATCH), labels.split(SEED_BATCH)):
            x = x.clone().requires_grad_(True)
            loss = F.cross_entropy(factor * logits(model, x, solver, devices), y)
            (gradient,) = torch.autograd.grad(loss, x)
            with torch.no_grad():
                attacked = x + EPSILON * gradient.sign()
                right.append(logits(model, attacked, solver, devices).argmax(1) == y)
    return torch.cat(right)


def measure_run(folder: str | Path, n: int | None = None) -> list[dict]:
    """What the post's step leaves of a stored run by each version, and by the installed one on several
    devices, at each factor; into its `measurements.csv`.

    n: test images; default 1,000 of a small network and 128 of another.

    Raises:
        FetchError: a version cannot be fetched; nothing is stored then.
        ArtifactError: the run holds the same on more images.
    """
    run = artifacts.load_ode_run(folder)
    n = protocols.rescaling_images(RunConfig.from_dict(run.config)) if n is None else n
    images, labels = subset_for(run, n, _mine)
    model, found = run.load_ode_net(), list[dict]()
    installed = importlib.metadata.version(NAME)
    ways = [*((version, 1) for version in (*OLDER, installed)), *((installed, count) for count in DEVICES)]
    for version, devices in ways:
        with library(version) as solver:
            for factor in FACTORS:
                told: dict[str, Any] = dict(version=version, devices=devices, logit_scale=factor)
                share = left(model, images, labels, solver, factor, devices).double().mean()
                found.append(record("version_left", share, model.block.t1, n, "mean", **told))
    artifacts.add_measurements(run, found, _mine)
    return found


def _mine(measurement: dict) -> bool:
    return bool(measurement["name"] == "version_left")
