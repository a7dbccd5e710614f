"""One door to the solvers: the state at several end times, with a chosen gradient."""

from __future__ import annotations

from typing import Callable, Sequence

from torch import Tensor

from nodelib.odeint import GRADIENTS, odeint


def describe_gradient(gradient: str) -> tuple[str, str]:
    """Method ("exact" or "adjoint") and library of a gradient name, as records state them."""
    library, _, method = gradient.rpartition("-")
    return {"backprop": "exact"}.get(method, method), library or "nodelib"


def integrate(func: Callable[[Tensor, Tensor], Tensor], y0: Tensor, times: Sequence[float], *, rtol: float,
              atol: float, gradient: str) -> tuple[Tensor, int]:
    """Solve dy/dt = func(t, y), y(0) = y0, and return the states at `times` and the NFE.

    Args:
        func: dynamics (t, y) -> dy/dt.
        y0: initial state, any shape, floating point.
        times: increasing end times above 0; one integration serves them all.
        rtol, atol: tolerances of dopri5, above 0.
        gradient: one of `GRADIENTS`. "exact" and "torchdiffeq-backprop" differentiate the computed
            solution; "adjoint" and "torchdiffeq-adjoint" solve the continuous adjoint ODE
            (Chen et al., 2018, algorithm 1), "anchored" with the state restored on the way.

    Returns:
        states, shape (T, *y0.shape), and the number of function evaluations of the forward solve.
    """
    solution = odeint(func, y0, [0.0, *times], rtol=rtol, atol=atol, gradient=gradient)
    return solution.y[1:], solution.nfe
