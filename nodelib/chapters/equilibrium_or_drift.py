"""Figures of the forced drift and of the spectrum at a ray."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from nodelib.publish.style import BLUE, VERMILLION, panels, style


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
    figure, (axis,) = panels(1, height=3.2, width=5.0)
    axis.plot(values.real.numpy(), values.imag.numpy(), "o", color=BLUE, markersize=4, fillstyle="none")
    axis.axvline(1, color="black", linewidth=1, linestyle="--")
    axis.set(xlabel="real part", ylabel="imaginary part")
    return figure
