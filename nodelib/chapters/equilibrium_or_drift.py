"""Figures of rays and drift: spectra, angles within and across classes, and how small differences grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from nodelib.publish.style import BLUE, GREY, VERMILLION, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spectrum(values: Mapping[str, torch.Tensor]) -> Figure:
    """Eigenvalues in the complex plane, with the line Re = 1 that stability must not cross.

    Args:
        values: label -> complex eigenvalues, shape (n,).
    """
    with style():
        figure, (axis,) = panels(1, height=3.2, width=5.0)
        for (label, found), shade, marker in zip(values.items(), (BLUE, VERMILLION, GREY), "oxs"):
            axis.plot(found.real.numpy(), found.imag.numpy(), marker, color=shade, markersize=4, label=label,
                      fillstyle="none")
        axis.axvline(1, color="black", linewidth=1, linestyle="--")
        axis.set(xlabel="real part", ylabel="imaginary part")
        figure.legend(loc="outside upper center")
    return figure


def class_angles(angles: Mapping[float, tuple[float, float]], told: Mapping[float, float]) -> Figure:
    """Mean angles within and across classes, and the share nearest to their own class, against time.

    Args:
        angles: time -> (within, across) in degrees; told: time -> share of images.
    """
    with style():
        figure, (left, right) = panels(2, columns=2, height=2.8, sharex=True)
        times = list(angles)
        left.plot(times, [angles[t][0] for t in times], "o-", color=BLUE, label="same class")
        left.plot(times, [angles[t][1] for t in times], "s--", color=VERMILLION, label="different classes")
        left.set(xscale="log", xlabel="time $t$", ylabel="mean angle (degrees)", ylim=(0, None))
        left.legend()
        right.plot(times, [100 * told[t] for t in times], "o-", color=BLUE)
        right.axhline(10, color=GREY, linewidth=0.8, linestyle=":")
        right.set(xlabel="time $t$", ylabel="nearest to own class (%)", ylim=(0, 102))
    return figure


def sensitivities(growth: Mapping[str, tuple[Sequence[float], torch.Tensor]]) -> Figure:
    """By what factor backpropagation lengthens a gradient, against the end time, with float32's largest number.

    Args:
        growth: label -> end times, and factors of shape (times, states).
    """
    with style():
        figure, (axis,) = panels(1, height=3.0, width=5.0)
        for (label, (times, factors)), shade, marker in zip(growth.items(), (VERMILLION, BLUE), "so"):
            values = factors.log10().numpy()
            axis.plot(times, values.mean(1), f"{marker}-", color=shade, label=label)
            axis.fill_between(times, values.min(1), values.max(1), color=shade, alpha=0.2, linewidth=0)
        axis.axhline(math.log10(torch.finfo(torch.float32).max), color=GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="end time $t$", ylabel="factor, power of ten")
        axis.legend()
    return figure
