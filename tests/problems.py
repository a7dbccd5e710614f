"""Differential equations with known solutions, and an independent replay of a solver's steps."""

import math
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Problem:
    """dy/dt = func(t, y) with solution exact(t), from t = 0 to `end`."""

    name: str
    func: Callable[[Tensor, Tensor], Tensor]
    exact: Callable[[float], Tensor]
    end: float

    @property
    def y0(self) -> Tensor:
        return self.exact(0.0)


def _tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


_ROTATION = _tensor(0.0, 1.0, -1.0, 0.0).view(2, 2)

PROBLEMS = (
    Problem("decay", lambda t, y: -y, lambda t: _tensor(1.0, 2.0) * math.exp(-t), 10.0),
    Problem("growth", lambda t, y: 0.3 * y, lambda t: _tensor(1.0, -0.5) * math.exp(0.3 * t), 8.0),
    Problem("logistic", lambda t, y: y * (1 - y), lambda t: 1 / (1 + _tensor(9.0, 0.5) * math.exp(-t)), 12.0),
    Problem("oscillator", lambda t, y: _ROTATION.to(y) @ y,
            lambda t: _tensor(math.sin(t), math.cos(t)), 20.0),
    Problem("driven", lambda t, y: -2 * t * y, lambda t: _tensor(1.0, 3.0) * math.exp(-t * t), 3.0),
    Problem("quadrature", lambda t, y: torch.cos(t).expand_as(y),
            lambda t: _tensor(math.sin(t), math.sin(t)), 15.0),
)


class Contraction(nn.Module):
    """dy/dt = tanh(y W) - y + b: smooth, with parameters, contracting to an equilibrium."""

    def __init__(self, size: int = 6, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.4 * torch.randn(size, size, generator=generator, dtype=torch.float64))
        self.offset = nn.Parameter(0.3 * torch.randn(size, generator=generator, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.weight) - y + self.offset


def replay(func: Callable, y0: Tensor, steps: list[tuple[float, float, float]], times: list[float]) -> Tensor:
    """The solver's states by plain autograd operations, taking the recorded steps with torchdiffeq's code."""
    from torchdiffeq._impl.dopri5 import _DORMAND_PRINCE_SHAMPINE_TABLEAU as table
    from torchdiffeq._impl.dopri5 import DPS_C_MID
    from torchdiffeq._impl.interp import _interp_evaluate, _interp_fit
    from torchdiffeq._impl.misc import _PerturbFunc
    from torchdiffeq._impl.rk_common import _ButcherTableau, _runge_kutta_step

    table = _ButcherTableau(table.alpha.to(y0), [b.to(y0) for b in table.beta], table.c_sol.to(y0),
                            table.c_error.to(y0))
    func = _PerturbFunc(func)
    states, y = [y0], y0
    f = func(torch.tensor(times[0], dtype=torch.float64), y)
    for start, size, _ in steps:
        t, h = torch.tensor(start, dtype=torch.float64), torch.tensor(size, dtype=torch.float64)
        y_next, f_next, _, k = _runge_kutta_step(func, y, f, t, h, t + h, table)
        while len(states) < len(times) and times[len(states)] <= start + size:
            middle = y + torch.sum(k * (h.to(y0) * DPS_C_MID.to(y0)), dim=-1).view_as(y)
            coefficients = _interp_fit(y, y_next, middle, f, f_next, h.to(y0))
            time = torch.tensor(times[len(states)], dtype=torch.float64)
            states.append(_interp_evaluate(coefficients, t, t + h, time))
        y, f = y_next, f_next
    return torch.stack(states)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def trained_networks(tiny_run, images: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """(name, dynamics, initial states) of one short run and of every stored ODE-net."""
    from nodelib.experiment import artifacts

    found = []
    for run in [tiny_run, *artifacts.find_runs()]:
        model = run.load_model()
        if hasattr(model, "block"):
            with torch.no_grad():
                found.append((run.path.name, model.block.func.requires_grad_(), model.stem(images)))
    return found
