"""What the controls show: how gradients grow, and what ten steps leave of leaky and plain networks."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from nodelib.chapters import state_records
from nodelib.experiment.artifacts import Run
from nodelib.publish.style import BLUE, GREY, NARROW, VERMILLION, panels, style
from nodelib.statistics import mcnemar, on_common

PLAIN = {name: name.removesuffix("-leaky")
         for name in ("wide-standard-leaky", "wide-adversarial-leaky", "small-100-leaky")}


@style()
def sensitivities(growth: Mapping[str, tuple[Sequence[float], torch.Tensor]]) -> Figure:
    """By what factor backpropagation lengthens a gradient, against the end time, below float32's largest.

    growth: label -> end times, and factors of shape (times, states).
    """
    figure, (axis,) = panels(1, height=3.0, width=NARROW)
    for (label, (times, factors)), shade, marker in zip(growth.items(), (VERMILLION, BLUE), "so"):
        values = factors.log10().numpy()
        axis.plot(times, values.mean(1), f"{marker}-", color=shade, label=label)
        axis.fill_between(times, values.min(1), values.max(1), color=shade, alpha=0.2, linewidth=0)
    axis.axhline(math.log10(torch.finfo(torch.float32).max), color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xscale="log", xlabel="end time $t$", ylabel="factor, power of ten")
    axis.legend()
    return figure


def ten_steps(run: Run | None, t1: float) -> dict:
    """The record of PGD-10 with the exact gradient at an end time; empty where it is not stored."""
    return next((r for r in run.metrics if r["id"] == f"pgd10-exact-t{t1:g}"), {}) if run else {}


def leaky_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Each leaky network beside its plain one, the first seed of both: one row per pair stored.

    leaky and plain: shares that ten steps leave of n images that both were attacked on, each at its own end
    time, with McNemar's p; pace: the median share of its size that a leaky state moves there per unit of
    time; on, of, rays: images that end at an equilibrium, of how many, and at how many equilibria.
    """
    named, rows = {run.name: run for run in reversed(runs)}, []
    for name, plain in PLAIN.items():
        pair = [named[each] for each in (name, plain) if each in named]
        records = [record for run in pair if (record := ten_steps(run, run.config["test_t1"]))]
        if len(records) < 2:
            continue
        bits = on_common(*(run.outcomes(record["id"]) for run, record in zip(pair, records)))
        run, end = pair[0], state_records.look_up(pair[0], "on_a_ray")
        rows.append((name, run.config["test_t1"], *(kept.mean() for kept in bits), len(bits[0]),
                     mcnemar(*bits), state_records.value(run, "relative_speed", t1=run.config["test_t1"]),
                     round(end["value"] * end["n"]), end["n"],
                     int(state_records.value(run, "distinct_attractors"))))
    return pd.DataFrame(rows, columns=["run", "t1", "leaky", "plain", "n", "p", "pace", "on", "of", "rays"])
