"""Follow many images' states and keep what is needed: scalars over time, directions at a few times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nodelib.dynamics.drift import remove_drift
from nodelib.dynamics.geometry import angle, direction, norm
from nodelib.dynamics.motion import ray_distance, relative_speed, turning
from nodelib.networks import ODENet, check_labels, check_mode
from nodelib.solver.errors import InputError
from nodelib.solver.integrate import odeint

QUANTITIES = {
    "norm": "norm of the state",
    "speed": "norm of the velocity",
    "relative_speed": "relative speed, per unit of time",
    "turning": "turning, radians per unit of log time",
    "state_velocity_angle": "angle between state and velocity, degrees",
    "ray_distance": "distance to a ray, relative to the state",
}


@dataclass(frozen=True)
class Paths:
    """What was observed along the trajectories of N images at T times.

    times: shape (T,).
    values: quantity -> array (T, N); the names are those of `QUANTITIES`, for the state as it is, and the
        same with "_centred" for the state without the common drift. "speed" and "norm" in the state's units.
    predicted: class predicted by the network's head at each time, int64, shape (T, N).
    kept: time -> centred unit states, shape (N, C, H, W), for the times asked for.
    labels: shape (N,).
    """

    times: np.ndarray
    values: dict[str, np.ndarray]
    predicted: np.ndarray
    kept: dict[float, Tensor]
    labels: Tensor

    @property
    def accuracy(self) -> np.ndarray:
        """Share of images classified correctly at each time, shape (T,)."""
        return (self.predicted == self.labels.numpy()).mean(1)


@torch.no_grad()
def states_at(model: ODENet, images: Tensor, times: Sequence[float], rtol: float = 1e-3,
              atol: float = 1e-3) -> Tensor:
    """States at increasing times, the first of which may be 0: shape (T, N, C, H, W).

    Tolerances 1e-3 are those of training and testing; the statements of the chapters do not change at 1e-5.

    Args:
        model: in eval mode, with fixed pooling; images: (N, 1, 28, 28) in [0, 1].

    Raises:
        InputError: times below 0 or not increasing, or a model in another mode.
    """
    check_mode(model)
    times = [float(t) for t in times]
    if not times or not 0 <= times[0] or not all(a < b for a, b in zip(times, times[1:])):
        raise InputError(f"times are {times}; they must increase, from 0 or later on")
    y0 = model.stem(images)
    rest = times if times[0] > 0 else times[1:]
    if not rest:
        return y0[None]
    states = odeint(model.block.func, y0, [0.0, *rest], rtol=rtol, atol=atol, params=()).y
    return states if times[0] == 0 else states[1:]


@torch.no_grad()
def follow(model: ODENet, images: Tensor, labels: Tensor, times: Sequence[float], keep: Sequence[float] = (),
           rtol: float = 1e-3, atol: float = 1e-3, batch: int = 100,
           visit: Callable[[Tensor, Tensor], None] | None = None) -> Paths:
    """Integrate images in batches and observe their states.

    Args:
        model: in eval mode with fixed pooling; images: (N, 1, 28, 28) in [0, 1]; labels: (N,).
        times: increasing, at least 0; keep: those of them at which directions are kept.
        rtol, atol: of the solver; batch: images per solve (memory holds T states of each).
        visit: called with the states and velocities of every batch, shape (T, n, C, H, W) each, for what
            `Paths` does not keep.

    Raises:
        InputError: a time of `keep` is not among the times, labels are not one per image, or as `states_at`.
    """
    labels = check_labels(labels, len(images))
    if missing := [t for t in keep if t not in times]:
        raise InputError(f"keep names {missing}, which are not among the times")
    func = model.block.func
    t = torch.tensor(list(times), dtype=images.dtype)[:, None]
    values: dict[str, list[np.ndarray]] = {}
    predicted: list[np.ndarray] = []
    kept: dict[float, list[Tensor]] = {time: [] for time in keep}
    for part in images.split(batch):
        y = states_at(model, part, times, rtol, atol)
        f = torch.stack([func(0.0, state) for state in y])
        for suffix, (a, b) in (("", (y, f)), ("_centred", (remove_drift(func, y), remove_drift(func, f)))):
            for name, value in (("norm", norm(a)), ("speed", norm(b)),
                                ("relative_speed", relative_speed(a, b)),
                                ("turning", turning(a, b, t)), ("state_velocity_angle", angle(a, b)),
                                ("ray_distance", ray_distance(a, b, t, func.leaky))):
                values.setdefault(name + suffix, []).append(value.numpy())
        predicted.append(torch.stack([model.head(state).argmax(1) for state in y]).numpy())
        if visit is not None:
            visit(y, f)
        for time in keep:
            kept[time].append(direction(remove_drift(func, y[list(times).index(time)])))
    return Paths(np.asarray(times, dtype=float), {name: np.concatenate(v, 1) for name, v in values.items()},
                 np.concatenate(predicted, 1), {time: torch.cat(v) for time, v in kept.items()}, labels)
