"""Figures of rays and drift: spectra, and angles within and across classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from nodelib.figures import BLUE, GREY, VERMILLION, panels, style

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
