"""Figures of Part II: the runs side by side, attacked images, accuracy against epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from torch import Tensor

from nodelib.artifacts import Run
from nodelib.figures import ATTACKS, colour, history_frame, lines, panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Training accuracy and NFE of several runs against the images seen, one line per run and seed."""
    with style():
        figure, (left, right) = panels(2, height=2.9)
        for run in runs:
            for axis, column in ((left, "accuracy"), (right, "nfe_forward")):
                data = history_frame(run, (column,))
                if not len(data):
                    continue
                images = np.interp(data["step"], run.history["step"], run.history["images"]) / 1000
                factor = 100 if column == "accuracy" else 1
                axis.plot(images, factor * data["value"], color=colour(run.name), label=f"{run.name}, seed {run.seed}")
                axis.fill_between(images, factor * data["low"], factor * data["high"], color=colour(run.name),
                                  alpha=0.2, linewidth=0)
        for axis, label in ((left, "training accuracy (%)"), (right, "NFE of a forward solve")):
            axis.set(xlabel="training images seen (thousands)", ylabel=label)
            axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        if runs:
            right.legend()
    return figure


def nfe_against_end_time(data: pd.DataFrame) -> Figure:
    """NFE against the test end time, one line per run; columns run, t1, nfe."""
    with style():
        return lines(data, "t1", "nfe", "run", log="x", xlabel="end time $t_1$", ylabel="NFE of a forward solve",
                     height=2.9)


def attacked_pictures(images: Sequence[Tensor], titles: Sequence[str], labels: Sequence[Sequence[str]]) -> Figure:
    """Rows of pictures: one row per version of the same images, each with what the network says.

    Args:
        images: one tensor (N, 1, 28, 28) per row.
        titles: name of each row.
        labels: per row, N short texts to stand under the pictures.
    """
    import matplotlib.pyplot as plt

    rows, columns = len(images), len(images[0])
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(7.2, 1.05 * rows + 0.2), squeeze=False, layout="constrained")
        for i, (row, title, texts) in enumerate(zip(images, titles, labels)):
            for j in range(columns):
                axis = axes[i, j]
                axis.imshow(row[j, 0].detach().numpy(), cmap="gray_r", vmin=-0.3, vmax=1.3)
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_xlabel(texts[j], fontsize=8, labelpad=2)
                for side in axis.spines.values():
                    side.set_visible(True)
            axes[i, 0].set_ylabel(title, fontsize=8.5)
    return figure


def epsilon_sweep(data: pd.DataFrame) -> Figure:
    """Accuracy in per cent against epsilon, one line per attack; columns attack, epsilon, accuracy, low, high."""
    dashes = {"FGSM": "-", "PGD": "--"}
    with style():
        figure, (axis,) = panels(1, height=3.0, width=5.4)
        for name, part in data.groupby("attack", sort=False):
            kind = "PGD" if name.startswith("PGD") else "FGSM"
            axis.fill_between(part["epsilon"], part["low"], part["high"], color=ATTACKS[kind], alpha=0.15, linewidth=0)
            axis.plot(part["epsilon"], part["accuracy"], dashes[kind], marker="o", color=ATTACKS[kind], label=name)
        axis.axhline(10, color="#888888", linewidth=0.8, linestyle=":")
        axis.set(xlabel="epsilon", ylabel="accuracy (%)", ylim=(-3, 103))
        axis.legend()
    return figure
