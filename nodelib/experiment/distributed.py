"""One training shared by several processes, as `torchrun` starts them: each takes a slice of every batch.

Every process computes the stem of the whole batch, so that batch normalisation and the pooling regions are
those of one process, and block and head of its own slice, by far the dearest part. The slices are equal, so
the mean of their gradients (DistributedDataParallel, Li et al., 2020) is the gradient of the whole batch's
mean loss. What remains of a difference is the solver's step size, one for each slice instead of one for the
batch, which vanishes with the tolerance, and rounding.

Two processes that were interrupted and resumed give the bits of two that were not. Of more the sum of
gradients may round differently after a resume, for DistributedDataParallel lays out its buffers anew after
its first step.
"""

import contextlib
import datetime
import functools
import itertools
import os
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn

from nodelib.experiment.configs import RunConfig
from nodelib.networks import ODENet, ResNet
from nodelib.solver.errors import InputError

# rank 0 measures snapshots while the others wait; that one of them died, torchrun sees by itself
WAIT = datetime.timedelta(days=1)


@functools.cache
def _launcher() -> tuple[distributed.Store, int, int]:
    """The store through which the processes find each other, this one's rank, and how many they are."""
    return next(distributed.rendezvous("env://", timeout=WAIT))


def _share_cores() -> None:
    """Give each process of this machine its part of the cores, so that no thread waits for a core.

    torchrun sets OMP_NUM_THREADS alone; a MKL_NUM_THREADS that was set for one process would otherwise make
    two of them some ten times slower.
    """
    part = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(min(part, torch.get_num_threads()))  # of MKL, too


# the store keeps the addresses of every group, so each joining has names of its own there
_joined = itertools.count()


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes of a `torchrun` for as long as the block lasts; nothing without one, or of one.

    device: "cpu" (gloo), or "cuda", of which each process takes the card of its local rank (nccl, untested).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    _share_cores()
    store, rank, world_size = _launcher()
    # `gather` speaks of numbers on the CPU
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=WAIT, rank=rank,
                                   store=distributed.PrefixStore(f"nodelib-{next(_joined)}", store),
                                   world_size=world_size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def size() -> int:
    """How many processes train together, 1 without a process group."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def leads() -> bool:
    """Whether this process is the one that locks, writes and reports: rank 0."""
    return size() == 1 or distributed.get_rank() == 0


def gather(*values: float) -> list[tuple[float, ...]]:
    """The values that each process gives here, in the order of ranks; all wait until all have."""
    if size() == 1:
        return [values]
    own = torch.tensor(values, dtype=torch.float64)
    all_values = [torch.empty_like(own) for _ in range(size())]
    distributed.all_gather(all_values, own)
    return [tuple(each.tolist()) for each in all_values]


def own_slice(batch: Tensor) -> Tensor:
    """This process's part of a tensor whose first dimension, the batch, the number of processes divides."""
    if size() == 1:
        return batch
    return batch.chunk(size())[distributed.get_rank()]


def check(config: RunConfig) -> None:
    """InputError for a config that several processes cannot share; none of one process."""
    count = size()
    if count > 1 and (config.adversarial or config.own_rays):
        raise InputError(f"{config.name} is trained "
                         f"{'against attacks' if config.adversarial else 'with a penalty on drawn points'}, "
                         f"which {count} processes cannot share; train it in one, without torchrun")
    batch, last = config.batch_size, config.train_images % config.batch_size
    if batch % count or last % count:
        allowed = [str(n) for n in range(1, batch + 1) if not (batch % n or last % n)]
        raise InputError(f"{count} processes are to share {config.name}; their number must divide its batch "
                         f"of {batch} images{f' and the last of an epoch, of {last}' if last else ''}: "
                         f"{', '.join(allowed)} (torchrun --nproc-per-node)")


class _Sliced(nn.Module):
    """Logits of this process's slice of a batch, by a stem that sees all of it."""

    def __init__(self, model: ODENet | ResNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, t1: float) -> Tensor:
        model = self.model
        state = own_slice(model.stem(images))
        return model.head(model.block(state, t1) if isinstance(model, ODENet) else model.blocks(state))


def shared(model: ODENet | ResNet) -> nn.parallel.DistributedDataParallel | None:
    """The model as (images, t1) -> logits of the own slice, whose backward passes average the gradients of
    all processes; they begin with rank 0's weights. None in one process.
    """
    if size() == 1:
        return None
    return nn.parallel.DistributedDataParallel(_Sliced(model))
