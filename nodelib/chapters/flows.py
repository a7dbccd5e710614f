"""A continuous normalising flow on two moons, and the cost of traces and log-determinants.

Along dx/dt = f(t, x) the density of the transported points obeys d log p / dt = -tr(df/dx) (Chen et al.,
2018, theorem 1). Several random seeds train side by side: weights and states have a leading dimension of one
entry per seed, and the seeds do not influence each other's gradients.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nodelib.chapters.toys import fit
from nodelib.solver.integrate import odeint

NORMAL = math.log(2 * math.pi)


def two_moons(n: int, seed: int) -> Tensor:
    """n points, shape (n, 2), on two interleaved half circles, about centred and scaled to unit size."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x - 0.5, y - 0.25], -1) * 1.3
    return points + 0.08 * torch.randn(n, 2, generator=generator)


class Flow(nn.Module):
    """dx/dt = tanh([x, t] W1 + b1) W2 + b2 from the data (t = 0) to a standard normal (t = 1).

    The trace of df/dx is known in closed form for one hidden layer h = tanh(...):
    tr = sum_j (1 - h_j^2) (W2 W1)_jj, with the time's row of W1 left out.

    Args:
        seeds: models trained side by side; hidden: width; dimension: of x.
    """

    def __init__(self, seeds: int = 1, hidden: int = 48, dimension: int = 2,
                 dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dimension = dimension

        def draw(rows: int, columns: int, scale: float, base: int) -> nn.Parameter:
            parts = [torch.randn(rows, columns, generator=torch.Generator().manual_seed(base + 10 * k))
                     for k in range(seeds)]
            return nn.Parameter((scale * torch.stack(parts)).to(dtype))

        self.w1, self.b1 = draw(dimension + 1, hidden, 1.0, 1), draw(1, hidden, 1.0, 2)
        self.w2, self.b2 = draw(hidden, dimension, 0.5 / math.sqrt(hidden), 3), draw(1, dimension, 0.0, 4)

    def hidden(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.to(x).expand(*x.shape[:-1], 1)
        return torch.tanh(torch.cat([x, time], -1) @ self.w1 + self.b1)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt for points (S, N, dimension)."""
        return self.hidden(t, x) @ self.w2 + self.b2

    def trace(self, t: Tensor, x: Tensor) -> Tensor:
        """tr(df/dx), shape (S, N, 1), in closed form."""
        diagonal = (self.w2 * self.w1[:, : self.dimension].transpose(1, 2)).sum(-1)  # (S, hidden)
        return ((1 - self.hidden(t, x).square()) @ diagonal[..., None])

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """The augmented system: points and the change of log-density, (S, N, dimension + 1)."""
        x = state[..., : self.dimension]
        return torch.cat([self.velocity(t, x), -self.trace(t, x)], -1)

    def log_density(self, x: Tensor, tolerance: float = 1e-3) -> Tensor:
        """log p(x) = log N(x(1)) + int_0^1 tr(df/dx) dt along the path of x; (S, N, dimension) to (S, N)."""
        start = torch.cat([x, torch.zeros_like(x[..., :1])], -1)
        end = odeint(self, start, (0.0, 1.0), rtol=tolerance, atol=tolerance).y[-1]
        z = end[..., : self.dimension]
        return -0.5 * (z.square().sum(-1) + self.dimension * NORMAL) - end[..., -1]

    def log_density_by_jacobian(self, x: Tensor, tolerance: float = 1e-10) -> Tensor:
        """The same by the change of variables: log N(x(1)) + log |det dx(1)/dx(0)|, shape (S, N)."""
        x = x.detach().requires_grad_()
        end = odeint(self.velocity, x, (0.0, 1.0), rtol=tolerance, atol=tolerance, params=()).y[-1]
        # points do not influence each other, so one pass gives a row of every point's Jacobian
        rows = [torch.autograd.grad(end[..., i].sum(), x, retain_graph=True)[0]
                for i in range(self.dimension)]
        end = end.detach()
        return -0.5 * (end.square().sum(-1) + self.dimension
                       * NORMAL) + torch.linalg.slogdet(torch.stack(rows, -2))[1]

    def sample(self, n: int) -> Tensor:
        """n points per model, (S, n, dimension): normal draws carried back from t = 1 to t = 0."""
        z = torch.randn(len(self.w1), n, self.dimension,
                        generator=torch.Generator().manual_seed(0)).to(self.w1)
        with torch.no_grad():
            return odeint(self.velocity, z, (1.0, 0.0), rtol=1e-5, atol=1e-5).y[-1]


def train(flow: Flow, steps: int, points: int = 256) -> None:
    """Maximise the likelihood of `points` fresh moons in every step."""
    def loss(step: int) -> Tensor:
        x = torch.stack([two_moons(points, 10_000 * k + step) for k in range(len(flow.w1))])
        return (-flow.log_density(x).mean(1)).sum()  # the sum keeps the seeds apart

    fit(flow, steps, 0.02, loss)


def grid(side: int, half: float) -> tuple[Tensor, float]:
    """A square grid of side^2 points on [-half, half]^2, (side^2, 2), and the area of a cell."""
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * half - half
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1), (2 * half / side) ** 2


def _eliminate(matrix: Tensor) -> Tensor:
    # log |det| by Gaussian elimination with row exchange, written with matrix products, which are counted
    matrix, total = matrix.clone(), torch.zeros((), dtype=matrix.dtype)
    for k in range(len(matrix)):
        pivot = k + int(matrix[k:, k].abs().argmax())
        matrix[[k, pivot]] = matrix[[pivot, k]]
        total = total + matrix[k, k].abs().log()
        factors = matrix[k + 1 :, k : k + 1] / matrix[k, k]
        matrix[k + 1 :, k + 1 :] -= factors @ matrix[k : k + 1, k + 1 :]
    return total


def operations(dimension: int) -> dict[str, tuple[int, float]]:
    """Multiplications and additions of matrix products, counted, for one point, and the value found, float64.

    "log-determinant": log |det(I + df/dx)| of the residual layer x + f(x), its Jacobian row by row in
    reverse mode, then Gaussian elimination; "trace": tr(df/dx) from the same rows; "estimated trace": one
    vector-Jacobian product with a random sign vector (Hutchinson's estimate); "closed form": the trace of
    one hidden layer of width 32.
    """
    flow = Flow(1, 32, dimension, torch.float64).requires_grad_(False)
    x = torch.randn(1, 1, dimension, generator=torch.Generator().manual_seed(0),
                    dtype=torch.float64).requires_grad_()
    t = torch.zeros(())

    def product(vector: Tensor) -> Tensor:
        return torch.autograd.grad(flow.velocity(t, x).flatten(), x, vector)[0].flatten()

    def jacobian() -> Tensor:
        f = flow.velocity(t, x).flatten()
        return torch.stack([torch.autograd.grad(f[i], x, retain_graph=True)[0].flatten()
                            for i in range(dimension)])

    signs = torch.randint(0, 2, (dimension,), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    tasks = {
        "log-determinant": lambda: _eliminate(torch.eye(dimension, dtype=torch.float64) + jacobian()),
        "trace": lambda: jacobian().diagonal().sum(),
        "estimated trace": lambda: product(signs) @ signs,
        "closed form": lambda: flow.trace(t, x.detach()).sum(),
    }
    found = {}
    for name, task in tasks.items():
        with FlopCounterMode(display=False) as counter:
            value = float(task())
        found[name] = (counter.get_total_flops(), value)
    return found
