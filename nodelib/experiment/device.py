"""Where a run is trained and measured."""

import torch

from nodelib.solver.errors import InputError


def resolve_device(device: str | torch.device = "cpu") -> torch.device:
    """A usable torch device; InputError with the way out if there is no such device here."""
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise InputError(f"device is {str(device)!r}; use 'cpu' or 'cuda'")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda' but torch finds no CUDA device on this machine; use --device cpu")
    return resolved


def disable_tf32() -> None:
    """On CUDA, TF32 convolutions round as coarsely as the solver's tolerance: switch them off."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
