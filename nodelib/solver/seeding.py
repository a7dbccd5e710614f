"""Random numbers from a seed that leave torch's generators as they were."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Start torch's generators of the CPU and of `device` from `seed`, and put them back at the end.

    torch.manual_seed reseeds every accelerator, those included that torch.random.fork_rng was not told of.
    """
    device, cuda = torch.device(device), []
    if device.type == "cuda":
        cuda = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for i in cuda:
            torch.cuda.default_generators[i].manual_seed(seed)
        yield


@contextlib.contextmanager
def unmoved() -> Iterator[None]:
    """Put every generator of torch back at the end: for code of others, which may call torch.manual_seed."""
    # an accelerator that nobody has used yet has no state to keep
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield
