"""Small dynamics that a page can train or solve in seconds: fields in one dimension, and a smooth one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nodelib.solver.integrate import odeint


class Field(nn.Module):
    """f(t, y) = tanh([y, t] W1 + b1) W2 + b2: one hidden layer, infinitely differentiable.

    Args:
        size: of the state, the last dimension of y; hidden: width of the hidden layer.
        seed: draws the weights; dtype: float32 or float64.
    """

    def __init__(self, size: int, hidden: int = 32, seed: int = 0,
                 dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator,
                                            dtype=torch.float64).div(math.sqrt(shape[0])).to(dtype))

        self.w1, self.w2 = draw(size + 1, hidden), draw(hidden, size)
        self.b1 = nn.Parameter(torch.zeros(hidden, dtype=dtype))
        self.b2 = nn.Parameter(torch.zeros(size, dtype=dtype))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at time t (0-dimensional) and states y, shape (..., size)."""
        time = t.to(y).expand(*y.shape[:-1], 1)
        return torch.tanh(torch.cat([y, time], -1) @ self.w1 + self.b1) @ self.w2 + self.b2


def fit(model: nn.Module, steps: int, learning_rate: float, loss: Callable[[int], Tensor],
        clip: Callable[[], None] = lambda: None) -> None:
    """Minimise loss(step) by Adam with a one-cycle rate; `clip` may change gradients before every step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(1, steps))
    for step in range(steps):
        optimiser.zero_grad()
        loss(step).backward()
        clip()
        optimiser.step()
        schedule.step()


def staircase(x: Tensor) -> Tensor:
    """The target of `train_staircase`: -1.5, 0 or 1.5, whichever third of [-2, 2] holds x."""
    return 1.5 * (torch.bucketize(x, torch.tensor([-2 / 3, 2 / 3])) - 1).to(x)


def train_staircase(steps: int) -> Field:
    """A `Field` in one dimension that sorts the numbers of [-2, 2] into three heaps by time 5.

    Paths in one dimension cannot cross, so the field must push apart what starts close together at
    the borders of the heaps: gentle in most places, violent in two. steps: of Adam.
    """
    func = Field(1)
    x = torch.linspace(-2, 2, 61).view(-1, 1)
    fit(func, steps, 0.05, lambda _: nn.functional.mse_loss(odeint(func, x, (0.0, 5.0)).y[-1], staircase(x)))
    return func.requires_grad_(False)


@dataclass
class Recorder:
    """Wraps dynamics and writes down every evaluation: `times` and `states` (detached copies)."""

    func: Callable[[Tensor, Tensor], Tensor]
    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.times.append(float(t))
        self.states.append(y.detach().clone())
        return self.func(t, y)
