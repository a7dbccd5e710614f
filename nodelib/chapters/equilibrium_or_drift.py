"""Figures of the forced drift and of the spectrum at a ray, and what became of rays that were asked for."""

import pandas as pd
import torch
from matplotlib.figure import Figure

from nodelib import dynamics
from nodelib.experiment.measure_states import SAME_RAY
from nodelib.experiment.own_rays import own_rays
from nodelib.networks import ODENet
from nodelib.publish.style import BLUE, NARROW, VERMILLION, panels, style


@style()
def drifts(times: torch.Tensor, states: torch.Tensor, channel: int) -> Figure:
    """The mean of one channel over its pixels, and one of these pixels, against time: a line per image.

    times: shape (T,); states: shape (T, N, C, H, W).
    """
    figure, (left, right) = panels(2, height=2.8, sharex=True, xlabel="time $t$")
    middle = states.shape[-1] // 2
    left.plot(times, states[:, :, channel].mean((-2, -1)), color=BLUE, linewidth=0.8)
    right.plot(times, states[:, :, channel, middle, middle], color=VERMILLION, linewidth=0.8)
    left.set_ylabel("mean of the channel")
    right.set_ylabel("its middle pixel")
    return figure


@style()
def spectrum(values: torch.Tensor) -> Figure:
    """Eigenvalues in the complex plane, shape (n,), with the line Re = 1 that stability must not cross."""
    figure, (axis,) = panels(1, height=3.2, width=NARROW)
    axis.plot(values.real.numpy(), values.imag.numpy(), "o", color=BLUE, markersize=4, fillstyle="none")
    axis.axvline(1, color="black", linewidth=1, linestyle="--")
    axis.set(xlabel="real part", ylabel="imaginary part")
    return figure


def rays_found(net: ODENet, images: torch.Tensor, labels: torch.Tensor) -> pd.DataFrame:
    """The rays where the flow from the ten given directions ends, and the images that end on each.

    Args:
        net: in float64; images: followed to t = 1000, and from there, as the directions are, in log time.

    Returns:
        a row per class: angle, by which the velocity at the direction asked for is off, and moved, from there
        to the ray (degrees); residual and eigenvalue (largest real part) of the ray; own and other,
        images of its class and of others within `SAME_RAY` degrees of it.
    """
    func, given = net.block.func, own_rays(net)
    start = torch.cat([given, dynamics.states_at(net, images, [1000.0])[0] / 1000])
    end = dynamics.flow_in_log_time(func, start, 20.0, 1e-6, 1e-6)
    rows = []
    for label, w in enumerate(given):
        ray = dynamics.solve_ray(func, end[label], smoothing=0)
        on = labels[dynamics.angle(end[len(given):], ray.w) <= SAME_RAY]
        rows.append({"class": label,
                     "angle": float(dynamics.angle(dynamics.normalised_field(func)(w[None])[0], w)),
                     "moved": float(dynamics.angle(ray.w, w)), "residual": ray.residual,
                     "eigenvalue": dynamics.leading_eigenvalue(func, ray.w)[0].real,
                     "own": int((on == label).sum()), "other": int((on != label).sum())})
    return pd.DataFrame(rows).set_index("class")
