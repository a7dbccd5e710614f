"""What a run's own page shows: its configuration, its learning curves and its records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nodelib.artifacts import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (("loss", "training loss"), ("accuracy", "training accuracy"), ("nfe_forward", "NFE, forward"))


def _binned(values: np.ndarray, bins: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (10 %, 90 %) percentiles in up to `bins` equal stretches: shapes (3, bins), and their centres."""
    values = np.asarray(values, dtype=float)
    parts = np.array_split(values, min(bins, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    centres = ends - np.array([len(part) for part in parts]) / 2
    return np.array([[part.mean(), *np.percentile(part, (10, 90))] for part in parts]).T, centres


def history(run: Run) -> Figure:
    """Loss, accuracy and NFE over the optimiser steps, averaged over hundredths of the run.

    Args:
        run: a finished run, see `nodelib.artifacts.load_run`.

    Returns:
        a figure of three panels (two for a network without a solver).
    """
    import matplotlib.pyplot as plt

    panels = [panel for panel in _PANELS if panel[0] in run.history and np.any(run.history[panel[0]])]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.9), layout="constrained")
    for axis, (column, label) in zip(np.atleast_1d(axes), panels):
        (mean, low, high), centres = _binned(run.history[column])
        axis.fill_between(centres, low, high, color="#0072B2", alpha=0.2, linewidth=0)
        axis.plot(centres, mean, color="#0072B2")
        axis.set(xlabel="optimiser step", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def config_table(run: Run) -> str:
    """The run's configuration and provenance as a Markdown table."""
    config, provenance = run.config, run.provenance
    rows = [(f"`{name}`", f"`{value}`") for name, value in config.items() if name not in ("name", "scale")]
    hours = provenance.get("seconds")
    if hours is not None:
        rows.append(("training time", f"{hours / 60:.1f} minutes on {provenance.get('device', 'an unnamed device')}"))
    for name, label in (("commit", "commit"), ("weights_sha256", "SHA-256 of the weights")):
        if provenance.get(name):
            rows.append((label, f"`{str(provenance[name])[:12]}`"))
    return "\n".join(["| field | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def metrics_table(run: Run) -> str:
    """The run's records as a Markdown table, by end time and attack."""
    lines = ["| record | end time | images | accuracy | 95 % interval | NFE |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for record in sorted(run.metrics, key=lambda r: (r["t1"], r["attack"], r["id"])):
        nfe = "" if record.get("nfe") is None else f"{record['nfe']:.0f}"
        lines.append(f"| {record['id']} | {record['t1']:g} | {record['n']:,} | {100 * record['accuracy']:.2f} % | "
                     f"{100 * record['low']:.2f} to {100 * record['high']:.2f} | {nfe} |")
    return "\n".join(lines)
