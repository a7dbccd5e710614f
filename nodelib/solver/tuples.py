"""States that are tuples of tensors, solved as one flat state."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nodelib.solver.errors import DerivativeError, StateTypeError
from nodelib.solver.forward import rms_norm


class Flat(nn.Module):
    """func of tuples of tensors as a function of the flat state that holds their entries one after another.

    A module, so that the parameters of func are found through it.
    """

    def __init__(self, func: Callable, like: Sequence[Tensor]) -> None:
        super().__init__()
        if not (like and all(isinstance(part, Tensor) for part in like)):
            kinds = ", ".join(type(part).__name__ for part in like)
            raise StateTypeError(f"the state is a tuple of ({kinds}); it must hold torch tensors, at least "
                                 "one")
        if len({(part.dtype, part.device) for part in like}) > 1:
            kinds = ", ".join(f"{part.dtype} on {part.device}" for part in like)
            raise StateTypeError(f"the state's tensors are {kinds}; they must have one type and one device")
        self.func, self.dtype = func, like[0].dtype
        self.shapes = [part.shape for part in like]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors of the state's shapes to one of shape (n,)."""
        return torch.cat([part.reshape(-1) for part in parts])

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """(..., n) to tensors of shape (..., *shape)."""
        parts = zip(y.split(self.sizes, -1), self.shapes)
        return tuple(part.reshape((*y.shape[:-1], *shape)) for part, shape in parts)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        k = self.func(t, self.split(y))
        whole = isinstance(k, (tuple, list)) and all(isinstance(part, Tensor) for part in k)
        wanted = [(self.dtype, shape) for shape in self.shapes]
        if not whole or [(part.dtype, part.shape) for part in k] != wanted:
            found = [f"{part.dtype} {tuple(part.shape)}" for part in k] if whole else type(k).__name__
            raise DerivativeError(f"func returns {found}; it must return a tuple of the state's shapes, "
                                  f"{[tuple(shape) for shape in self.shapes]}, in {self.dtype}")
        return self.join(k)

    def largest_rms(self, y: Tensor) -> Tensor:
        """The largest root mean square of the tensors, torchdiffeq's norm of tuples."""
        return torch.stack([rms_norm(part) for part in self.split(y) if part.numel()]).max()
