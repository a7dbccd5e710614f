"""A spiral seen at irregular times: an ODE model and a recurrent network of equal size.

Both models get the first state of a trajectory and a list of times, and predict the states at these
times. Several random seeds train side by side in one batched computation: every weight has a leading
dimension of one entry per seed, and the seeds do not influence each other's gradients.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nodelib.chapters.toys import fit
from nodelib.solver.integrate import odeint

END = 5.0
NOISE = 0.02
INSTANTS = 60  # possible times of an observation; each trajectory is seen at some of them
SEEN = 12


def spiral(t: Tensor, y: Tensor) -> Tensor:
    """dy/dt = (-0.1 u + 2 v, -2 u - 0.1 v) with (u, v) = y^3 element by element."""
    u, v = (y**3).unbind(-1)
    return torch.stack([-0.1 * u + 2 * v, -2 * u - 0.1 * v], -1)


@dataclass(frozen=True)
class Data:
    """Trajectories of the spiral, for S seeds and N trajectories each.

    times: (INSTANTS + 1,), increasing from 0, the same for all seeds; states: (S, N, INSTANTS + 1, 2);
    observed: with noise, but for the initial state; seen: (S, N, SEEN) sorted indices of the training
    observations; held: (S, N, INSTANTS - SEEN) sorted indices of the held-out times.
    """

    times: Tensor
    states: Tensor
    observed: Tensor
    seen: Tensor
    held: Tensor


def make_data(seeds: int, trajectories: int = 48) -> Data:
    """Draw initial states, times and noise; seed k uses its own generator."""
    parts = []
    draw = torch.Generator().manual_seed(999)
    times = torch.cat([torch.zeros(1), (torch.rand(INSTANTS, generator=draw) * END).sort().values])
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(1000 + seed)
        start = torch.rand(trajectories, generator=generator) * 2 * math.pi
        radius = 0.7 + 0.5 * torch.rand(trajectories, generator=generator)
        y0 = radius[:, None] * torch.stack([start.cos(), start.sin()], -1)
        with torch.no_grad():
            states = odeint(spiral, y0.double(), times.tolist(), rtol=1e-8,
                            atol=1e-8).y.float().transpose(0, 1)
        noise = NOISE * torch.randn(states.shape, generator=generator)
        noise[:, 0] = 0
        order = torch.stack([torch.randperm(INSTANTS, generator=generator) + 1 for _ in range(trajectories)])
        parts.append((states, states + noise, order[:, :SEEN].sort().values, order[:, SEEN:].sort().values))
    return Data(times, *(torch.stack(part) for part in zip(*parts)))


def _weights(seeds: int, shapes: dict[str, tuple[int, ...]], base: int) -> nn.ParameterDict:
    result: dict[str, nn.Parameter] = {}
    for k, (name, shape) in enumerate(shapes.items()):
        scale = (0.1 if name == "w2" else 1.0) / math.sqrt(shape[0]) if len(shape) > 1 else 0.0
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(base + 100 * seed + k))
                 for seed in range(seeds)]
        result[name] = nn.Parameter(scale * torch.stack(drawn))
    return nn.ParameterDict(result)


def count_parameters(model: nn.Module) -> int:
    """Parameters of one seed's model."""
    return sum(p[0].numel() for p in model.parameters())


class ODEModel(nn.Module):
    """dy/dt = W2 tanh(W1 y + b1) + b2, solved by dopri5. Time enters as time."""

    def __init__(self, seeds: int, hidden: int = 45) -> None:
        super().__init__()
        self.w = _weights(seeds, {"w1": (2, hidden), "b1": (hidden,), "w2": (hidden, 2), "b2": (2,)}, base=1)

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        """States (S, N, 2) to velocities, the same shape."""
        hidden = torch.tanh(y @ self.w["w1"] + self.w["b1"][:, None])
        return hidden @ self.w["w2"] + self.w["b2"][:, None]

    def forward(self, data: Data, index: Tensor) -> Tensor:
        """Predicted states (S, N, K, 2) at the times that `index` (S, N, K) names."""
        y = odeint(self.field, data.states[:, :, 0], data.times.tolist(), rtol=1e-3, atol=1e-3,
                   params=tuple(self.parameters())).y  # (T, S, N, 2)
        return targets(y.permute(1, 2, 0, 3), index)


class RNNModel(nn.Module):
    """A gated recurrent unit (Cho et al., 2014) that steps from one time to the next.

    Its input is the gap in time, its hidden state starts as a layer of the first state.
    """

    def __init__(self, seeds: int, hidden: int = 7) -> None:
        super().__init__()
        self.w = _weights(seeds,
                          {"start": (2, hidden), "start_b": (hidden,), "gates": (1 + hidden, 2 * hidden),
                           "gates_b": (2 * hidden,), "new": (1 + hidden, hidden), "new_b": (hidden,),
                           "out": (hidden, 2), "out_b": (2,)}, base=2)

    def forward(self, data: Data, index: Tensor) -> Tensor:
        """Predicted states (S, N, K, 2) at the times that `index` (S, N, K) names, in order."""
        w = self.w
        times = data.times[index]
        gaps = torch.diff(times, dim=-1, prepend=torch.zeros_like(times[..., :1]))
        y0 = data.states[:, :, 0]
        h = torch.tanh(y0 @ w["start"] + w["start_b"][:, None])
        found = []
        for k in range(index.shape[-1]):
            gap = gaps[..., k : k + 1]
            reset, update = torch.sigmoid(torch.cat([gap, h], -1) @ w["gates"]
                                          + w["gates_b"][:, None]).chunk(2, -1)
            new = torch.tanh(torch.cat([gap, reset * h], -1) @ w["new"] + w["new_b"][:, None])
            h = update * h + (1 - update) * new
            found.append(h @ w["out"] + w["out_b"][:, None])
        return torch.stack(found, 2)


def targets(states: Tensor, index: Tensor) -> Tensor:
    """The entries (S, N, K, 2) of states (S, N, T, 2) at the times that `index` (S, N, K) names."""
    return states.gather(2, index[..., None].expand(*index.shape, 2))


def train(model: nn.Module, data: Data, steps: int, learning_rate: float) -> None:
    """Fit all seeds to their noisy observations by Adam with a one-cycle rate."""
    wanted = targets(data.observed, data.seen)

    def clip() -> None:  # every seed's gradient by itself
        for p in model.parameters():
            if p.grad is not None:
                size = p.grad.flatten(1).norm(dim=1).clamp(min=1.0)
                p.grad *= (1 / size).view(-1, *[1] * (p.ndim - 1))

    # the sum keeps the seeds apart
    fit(model, steps, learning_rate,
        lambda _: (model(data, data.seen) - wanted).square().mean((1, 2, 3)).sum(), clip)


def sequences(data: Data) -> list[Tensor]:
    """The held-out times in sequences of `SEEN`, each an index (S, N, SEEN)."""
    count = INSTANTS // SEEN - 1
    return [data.held[:, :, part::count] for part in range(count)]


def predict_all(model: nn.Module, data: Data) -> Tensor:
    """Predictions at all times, (S, N, INSTANTS, 2), asked for in sequences of `SEEN` as in training."""
    with torch.no_grad():
        indices = [data.seen, *sequences(data)]
        found = torch.cat([model(data, index) for index in indices], 2)
    order = torch.cat(indices, 2).argsort(2)
    return targets(found, order)


def held_out_error(model: nn.Module, data: Data, at_once: bool = False) -> list[float]:
    """Root mean square error against the noise-free states at the held-out times, one per seed.

    at_once: ask for all of them in one sequence instead of some as long as those of the training. A recurrent
    network then takes more steps, and answers differently.
    """
    with torch.no_grad():
        errors = [(model(data, index) - targets(data.states, index)).square().mean((1, 2, 3))
                  for index in ([data.held] if at_once else sequences(data))]
    return torch.stack(errors).mean(0).sqrt().tolist()
