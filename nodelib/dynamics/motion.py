"""How states move: speed, turning, angles, settling."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nodelib.dynamics.geometry import DEGREES, angle, direction, inner, norm, random_like
from nodelib.networks import ODEFunc, check_end_time
from nodelib.solver.errors import InputError
from nodelib.solver.integrate import odeint


@torch.no_grad()
def velocities(func: ODEFunc, states: Tensor, batch: int = 512) -> Tensor:
    """f at every state: shape (..., C, H, W) in and out, evaluated `batch` states at a time."""
    flat = states.reshape(-1, *states.shape[-3:])
    return torch.cat([func(0.0, part) for part in flat.split(batch)]).reshape(states.shape)


def relative_speed(y: Tensor, f: Tensor) -> Tensor:
    """|f| / |y|, per unit of time, of each state: (..., C, H, W) to (...)."""
    return norm(f) / norm(y)


def turning(y: Tensor, f: Tensor, t1: Tensor | float) -> Tensor:
    """Radians per unit of log time by which the direction of y turns: t1 |P f| / |y|, P orthogonal to y.

    Zero exactly on a ray y = t w. The relative speed is no such measure: on a ray it is 1 / t1 whatever
    the network.

    Args:
        y, f: states and velocities, shape (..., C, H, W).
        t1: end times, a number or a tensor that broadcasts against (...).
    """
    size = norm(y)
    radial = inner(f, y) / size
    # |f|^2 - radial^2 would cancel; subtract the radial part itself
    across = f - (radial / size)[..., None, None, None] * y
    return t1 * norm(across) / size


def ray_distance(y: Tensor, f: Tensor, t1: Tensor | float, leaky: bool = False) -> Tensor:
    """How far a state is from a ray: |f(w) - w| / |w| at w = y / t1, that is |t1 f - y| / |y|.

    Zero exactly where f(w) = w. A leaky state is not scaled, and its velocity is f - y already: there it is
    the distance to an equilibrium, |dy/dt| / |y|.

    Args:
        y, f: states and velocities, shape (..., C, H, W).
        t1: end times, a number or a tensor that broadcasts against (...).
        leaky: whether the velocities are those of leaky dynamics.
    """
    if leaky:
        return relative_speed(y, f)
    times = torch.as_tensor(t1, dtype=y.dtype, device=y.device)[..., None, None, None]
    return norm(times * f - y) / norm(y)


def settling_time(times: Sequence[float] | np.ndarray, values: Tensor, threshold: float) -> Tensor:
    """First of the times from which on the values stay below a threshold.

    Args:
        times: increasing, T of them.
        values: shape (T, N), one column per image.
        threshold: in the values' unit; no value may be NaN.

    Returns:
        shape (N,), float64; 1e9 where the last value is not below the threshold.
    """
    instants = torch.as_tensor(times, dtype=torch.float64)
    if values.shape[0] != len(instants):
        raise InputError(f"values have {values.shape[0]} rows for {len(instants)} times; there must be one "
                         "per time")
    if not bool((instants.diff() > 0).all()):
        raise InputError(f"times are {instants.tolist()}; they must increase")
    if bool(values.isnan().any()):
        raise InputError(f"{int(values.isnan().sum())} of {values.numel()} values are NaN, neither above a "
                         "threshold nor below it")
    above = values >= threshold
    # index after the last time that is above
    index = torch.where(above.any(0), len(instants) - above.flip(0).int().argmax(0), 0)
    return torch.nn.functional.pad(instants, (0, 1), value=1e9)[index]


def path_turning(velocity: Tensor) -> Tensor:
    """Total angle in radians by which the velocity turns along a path.

    Args:
        velocity: at densely spaced times, shape (T, N, C, H, W).

    Returns:
        shape (N,). A lower bound that converges as the times get denser.
    """
    return angle(velocity[1:], velocity[:-1]).sum(0) / DEGREES


def sensitivity(func: ODEFunc, y0: Tensor, times: Sequence[float]) -> Tensor:
    """How strongly states at later times depend on where they started: |J(t)^T u| for one random unit vector
    u per state, at tolerances of 1e-3.

    J(t) is the derivative of the computed y(t) in y0, by the exact gradient: the factor by which
    backpropagation through the solver lengthens a gradient. In chaotic dynamics it grows exponentially.

    Args:
        y0: initial states, shape (N, C, H, W); float64 where it may pass 1e38.
        times: end times, above 0; each is a solve and a backward pass of its own.

    Returns:
        shape (len(times), N).
    """
    u = direction(random_like(y0))
    y0 = y0.detach().requires_grad_()
    rows = []
    for t in map(check_end_time, times):
        # the sum over images keeps them apart: no state depends on another's start but through the step
        # sizes, held constant
        y = odeint(func, y0, [0.0, t], rtol=1e-3, atol=1e-3, params=()).y[-1]
        rows.append(norm(torch.autograd.grad(inner(y, u).sum(), y0)[0]))
    return torch.stack(rows)
