"""Figures of the float32 horizon: what is left of a gradient, single steps, phases, and the post's table."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from nodelib.chapters.gap_growth import POST_RATE, Phases
from nodelib.experiment import horizon
from nodelib.experiment.overshoot import DIRECTIONS, Steps
from nodelib.publish import style

_STEPS = dict(zip(DIRECTIONS, ((style.ORANGE, "-", "s"), (style.BLUE, "--", "o"), (style.GREEN, "-.", "D"),
                               (style.VERMILLION, ":", "^"))))


def entries(gaps: Sequence[float] | np.ndarray, batch: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of the true and the wrong logit's gradient entry by torch in float32, and the exact size.

    gaps: between two classes, shape (G,); batch: images of the mean loss.
    """
    z = torch.zeros(len(gaps), 2)
    z[:, 1] = -torch.tensor(list(gaps))
    sizes = []
    for row in z:  # each in a batch of its own kind, so that every mean is over `batch` images
        image = row.expand(batch, 2).clone().requires_grad_(True)
        (found,) = torch.autograd.grad(F.cross_entropy(image, torch.zeros(batch, dtype=torch.long)), image)
        sizes.append(found[0].abs().double().numpy())
    true, wrong = np.array(sizes).T
    return true, wrong, 1 / (1 + np.exp(np.asarray(gaps, dtype=float))) / batch


@style.style()
def lost_terms() -> Figure:
    """The two entries of a gradient against the gap: exact, and in float32, with both horizons."""
    gaps = np.arange(0.0, 115.0, 0.25)
    true, wrong, exact = entries(gaps)
    figure, (axis,) = style.panels(1, height=3.4, width=style.NARROW)
    axis.plot(gaps, exact, color=style.GREY, linewidth=4, alpha=0.35, label="exact, both")
    axis.plot(gaps[wrong > 0], wrong[wrong > 0], color=style.VERMILLION, label="float32, wrong class")
    axis.plot(gaps[true > 0], true[true > 0], color=style.BLUE, linestyle="--", label="float32, true class")
    edges = horizon.true_class_lost()[0], horizon.gradient_lost()
    for edge in edges:
        axis.axvline(edge, color=style.GREY, linewidth=0.8, linestyle=":")
        axis.annotate(f"{edge:.1f}", (edge, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
                      textcoords="offset points", color=style.GREY)
    axis.set(yscale="log", xlabel="gap between the true and the nearest wrong logit",
             ylabel="size of the entry", xlim=(0, 115))
    axis.legend(loc="upper right", bbox_to_anchor=(edges[1], 1), bbox_transform=axis.get_xaxis_transform())
    return figure


@style.style()
def single_steps(found: Sequence[Steps]) -> Figure:
    """Accuracy against the length of one step along four directions, one panel per factor on the logits."""
    figure, axes = style.panels(len(found), sharey=True, height=2.7, ylabel="accuracy (%)")
    for axis, steps in zip(axes, found):
        for name, (shade, dash, marker) in _STEPS.items():
            wide = 4 if name == "log-odds" else None  # the margin's line lies on it
            axis.plot(steps.epsilons, steps.left(name), dash, color=shade, marker=marker, markersize=3.5,
                      linewidth=wide, label=name)
        axis.set(xlabel=r"length of the step $\epsilon$", ylim=(-3, 103))
        axis.set_title(f"logits × {steps.factor:g}: median gap {np.median(steps.gap):.0f}")
    style.legend_above(figure, axes[:1])
    return figure


@style.style()
def phase_diagram(diagrams: Sequence[Phases]) -> Figure:
    """Share of images without a gradient over end time and width: the colours at the post's rate, a line of
    one half for every rate.

    Lines of lower rates lie where the colours are light, and are black; the others are white.
    """
    figure, axes = style.panels(len(diagrams), sharey=True, height=2.9, ylabel="channels")
    for axis, phases in zip(axes, diagrams):
        axis.set(xscale="log", yscale="log", xlabel="end time $T$", title=f"{phases.state} state")
        drawn = axis.pcolormesh(phases.times, phases.channels, 100 * phases.lost[POST_RATE], vmin=0, vmax=100,
                                shading="gouraud")
        for rate, lost in phases.lost.items():
            if 0.01 < (lost > 0.5).mean() < 0.99:  # not a speck in a corner, which holds no label
                line = axis.contour(phases.times, phases.channels, lost, levels=[0.5], linewidths=1.4,
                                    colors="black" if rate < POST_RATE else "white",
                                    linestyles="-" if rate == POST_RATE else "--")
                points = np.asarray(line.get_paths()[0].vertices)
                axis.clabel(line, fmt=f"{rate:g}", fontsize=8, manual=[points[len(points) // 2]])
        axis.grid(False)
        ticks = [c for c in (16, 32, 64, 128, 256) if phases.channels[0] <= c <= phases.channels[-1]]
        axis.set_yticks(ticks, [str(c) for c in ticks])
        axis.minorticks_off()
    figure.colorbar(drawn, ax=axes, label="gradient lost (% of images)")
    return figure


@style.style()
def against_the_post(predicted: Mapping[str, Mapping[tuple[str, float], float]], post: Mapping) -> Figure:
    """Predicted accuracy under one step against the post's, a panel per label of a `gap_growth.predict`."""
    figures = {(e["run"], float(e["t1"])): e["adversarial"] for e in post["table"]}
    figure, axes = style.panels(len(predicted) + 1, columns=2, sharey=True, height=2.4, width=style.NARROW,
                                ylabel="predicted (%)")
    for axis, (label, entries) in zip(axes, predicted.items()):
        axis.plot((0, 100), (0, 100), color=style.GREY, linewidth=0.8, linestyle=":")
        for row in dict.fromkeys(row for row, _ in entries):
            points = [(figures[key], value) for key, value in entries.items()
                      if key[0] == row and key in figures]
            axis.plot(*zip(*points), linestyle="", marker=style.MARKERS[row], color=style.colour(row),
                      label=row)
        axis.set(xlabel="the post (%)", title=label, xlim=(-4, 104), ylim=(-4, 104))
    axes[-1].legend(*style.labelled(axes[:1]), loc="center")
    axes[-1].set_axis_off()
    return figure
