"""One door to the solvers: the state at several end times, with a chosen gradient."""

from __future__ import annotations

from typing import Callable, Sequence

import torch
from torch import Tensor, nn

GRADIENTS = ("exact", "adjoint", "torchdiffeq-backprop", "torchdiffeq-adjoint")


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
            (Chen et al., 2018, algorithm 1).

    Returns:
        states, shape (T, *y0.shape), and the number of function evaluations of the forward solve.
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")
    import torchdiffeq

    solve = torchdiffeq.odeint_adjoint if gradient.endswith("adjoint") else torchdiffeq.odeint
    t = torch.tensor([0.0, *times], dtype=y0.dtype, device=y0.device)
    calls = 0

    class Counted(nn.Module):
        # odeint_adjoint finds the parameters through the module it is given
        def __init__(self) -> None:
            super().__init__()
            self.inner = func

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.inner(t, y)

    y = solve(Counted(), y0, t, rtol=rtol, atol=atol, method="dopri5")
    return y[1:], calls
