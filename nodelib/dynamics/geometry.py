"""Norms and angles of batches of states."""

import math

import torch
from torch import Tensor

DEGREES = 180 / math.pi


def norm(y: Tensor) -> Tensor:
    """Euclidean norm of each state: (..., C, H, W) to (...)."""
    return y.flatten(-3).norm(dim=-1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean inner product of each pair of states: (..., C, H, W) to (...)."""
    return (a * b).flatten(-3).sum(-1)


def direction(y: Tensor) -> Tensor:
    """Each state divided by its norm; a zero state stays zero."""
    size = norm(y)[..., None, None, None]
    return y / torch.where(size > 0, size, torch.ones_like(size))


def random_like(y: Tensor) -> Tensor:
    """Standard normal numbers in the shape of y, the same at every call and on every device."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype).to(y.device)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees, 0 to 180, between each pair of states.

    By 2 atan2(|u - v|, |u + v|) for the unit vectors u, v (Kahan, 2006), which is accurate for small
    angles, where the arc cosine of the inner product loses half the digits.

    Args:
        a, b: shapes (..., C, H, W), broadcast against each other; zero states give 0 degrees to each other
            and 90 to anything else.
    """
    u, v = direction(a), direction(b)
    return 2 * DEGREES * torch.atan2(norm(u - v), norm(u + v))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """All pairwise cosines of two batches of states, shapes (N, C, H, W) and (M, C, H, W), to (N, M)."""
    return direction(a).flatten(1) @ direction(b).flatten(1).T
