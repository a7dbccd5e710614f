"""Figures of *What made 92.62 %?*: one step of FGSM against a factor on the logits, and along training."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nodelib.experiment import snapshot_records as snapshots
from nodelib.experiment.artifacts import Run
from nodelib.publish.style import GREY, NARROW, colour, legend_above, panels
from nodelib.verdicts.evidence import Evidence, Missing
from nodelib.verdicts.post_recipe import ENTRIES, Band, entry
from nodelib.verdicts.predictions import (
    OWN_T1,
    POST,
    ROWS,
    TABLE_T1,
    at_factor,
    curve,
    dial,
    gaps_past,
    so_far,
)


def curves(evidence: Evidence, **how: Any) -> dict[str, dict[float, float]]:
    """Row -> factor -> accuracy in per cent at the row's own end time, where measured; how: as in `curve`."""
    found = {}
    for row in ROWS:
        with contextlib.suppress(Missing):
            found[row] = curve(evidence, row, OWN_T1[row], **how)
    return found


def fitted(evidence: Evidence) -> list[tuple[str, float, list[tuple[float, float]]]]:
    """P1, row by row: the factor that meets the post's figure at the own end time, and at each of the table's
    end times the post's figure and ours at that factor, in per cent; rows that lack an end time are left out.
    """
    rows = []
    for row in ROWS:
        try:
            by_time = [curve(evidence, row, t1) for t1 in TABLE_T1]
        except Missing:
            continue
        figures = [evidence.post(row, t1, "adversarial") for t1 in TABLE_T1]
        own = TABLE_T1.index(OWN_T1[row])
        factor = dial(by_time[own], figures[own])
        rows.append((row, factor,
                     [(theirs, at_factor(ours, factor)) for theirs, ours in zip(figures, by_time)]))
    return rows


def past_both(evidence: Evidence, near: float = 17.0,
              far: float = 104.0) -> dict[str, dict[float, tuple[float, float]]]:
    """Row -> factor on the logits -> per cent of images whose gap passes `near`, and `far`, at the row's own
    end time; rows where it was not counted are left out.
    """
    found = {}
    for row in ROWS:
        with contextlib.suppress(Missing):
            first, second = (gaps_past(evidence, row, OWN_T1[row], threshold) for threshold in (near, far))
            found[row] = {factor: (first[factor], second[factor]) for factor in sorted(first)}
    return {row: by_factor for row, by_factor in found.items() if by_factor}


@dataclass(frozen=True)
class Beside:
    """An entry of the post's table, in per cent, beside our band by its recipe."""

    theirs: float
    ours: Band

    def inside(self, points: float) -> bool:
        """Whether the post's figure lies in the band, widened by so many points."""
        return self.ours.reaches(self.theirs, points)

    def said(self, points: float) -> str:
        """The band in words, and whether it lies below or above the post's figure by more than the points."""
        where = "" if self.inside(points) else " below" if self.ours.high < self.theirs else " above"
        return f"{self.ours.low:.1f} to {self.ours.high:.1f}{where}"


def beside_the_post(evidence: Evidence) -> dict[tuple[str, float, str], Beside]:
    """(row, end time, "standard" or "adversarial") -> the post's figure beside our band, as C8 has it; rows
    that are not there, or not for long enough, are left out.
    """
    bands, _ = so_far(partial(entry, evidence), ENTRIES)
    return {key: Beside(evidence.post(*key), ours) for key, ours in bands.items()}


def dials(evidence: Evidence) -> Figure:
    """Accuracy under one step against the factor on the logits, a line a row, the post's figure a short level
    and a ring where the line meets it.

    Above them clean accuracy, which does not depend on the factor; below, dotted, the same step along the
    log odds.
    """
    figure, (axes,) = panels(1, height=3.8, width=NARROW)
    seen, exact = curves(evidence), curves(evidence, loss="log-odds")
    for row, by_factor in seen.items():
        axes.plot(list(by_factor), list(by_factor.values()), color=colour(row), label=row)
        level = evidence.post(row, OWN_T1[row], "adversarial")
        if max(by_factor.values()) >= level:
            meets = dial(by_factor, level)
            axes.plot([meets / 1.7, 1.7 * meets], [level, level], "--", color=colour(row), linewidth=1.2)
            axes.plot(meets, level, "o", color=colour(row), fillstyle="none", markersize=10,
                      markeredgewidth=2)
        if row in exact:
            axes.plot(list(exact[row]), list(exact[row].values()), ":", color=colour(row), linewidth=1.2)
    clean = [100 * evidence.named(row)[0].metric(f"rescaled-clean-t{OWN_T1[row]:g}")["accuracy"]
             for row in seen]
    if clean:
        axes.axhline(np.mean(clean), color=GREY, linewidth=1)
        axes.text(1, np.mean(clean) + 1.5, "clean: no prediction changes", color=GREY, fontsize=9,
                  va="bottom")
        axes.text(100, 4.2, "the same step along the log odds", color=GREY, fontsize=9, ha="right")
    axes.set(xscale="log", xlabel="factor on the logits", ylabel="correct under one step (%)", ylim=(-2, 108))
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend(loc="center right")
    return figure


def training(runs: Sequence[Run], post: dict) -> Figure:
    """Along training by the post's recipe: what one step leaves, dotted on the margin, the median gap, and
    the sum of the state's absolute entries, all at the own end times."""
    figures = {e["run"]: e["adversarial"] for e in post["table"] if e["t1"] == OWN_T1[e["run"]]}
    shown = [run for run in runs if run.name in POST.values() and run.seed == 0 and run.snapshots]
    figure, (above, middle, below) = panels(3, columns=1, height=2.4, width=NARROW, sharex=True)
    for run in shown:
        row = run.name.removesuffix("-post")
        t1, paint = OWN_T1[row], colour(run.name)
        for quantity, style in (("fgsm", "-"), ("fgsm-margin", ":")):
            by_epoch = snapshots.values(run.snapshots, quantity, t1, whole_epochs=False)
            above.plot(list(by_epoch), [100 * v for v in by_epoch.values()], style, color=paint, marker=".",
                       label=row if style == "-" else None)
        above.axhline(figures[row], color=paint, linewidth=0.8, dashes=(6, 3))
        for axes, quantity in ((middle, "gap-50"), (below, "state-sum")):
            by_epoch = snapshots.values(run.snapshots, quantity, t1, whole_epochs=False)
            axes.plot(list(by_epoch), list(by_epoch.values()), color=paint, marker=".")
    above.set(ylabel="correct under one step (%)", ylim=(-1, 99))
    for level, words in ((24 * np.log(2), "first horizon"), (150 * np.log(2), "second horizon")):
        middle.axhline(level, color=GREY, linewidth=1)
        middle.text(0.99, 1.03 * level, words, color=GREY, fontsize=8.5, va="bottom", ha="right",
                    transform=middle.get_yaxis_transform())
    middle.set(ylabel="gap of the two largest logits", yscale="log")
    middle.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    middle.minorticks_off()
    below.set(ylabel="sum of the state", xlabel="epochs by the post's recipe", xscale="log", yscale="log")
    below.set_xticks([1 / 16, 1 / 4, 1, 4, 16, 64], ["1/16", "1/4", "1", "4", "16", "64"])
    below.set_yticks([1e3, 1e4, 1e5], ["1,000", "10,000", "100,000"])
    below.minorticks_off()
    legend_above(figure, [above], columns=3)
    return figure
