"""Figures and tables of the page *Performance*, from the JSON files of `nodelib.bench`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nodelib.experiment.artifacts import read_json
from nodelib.experiment.paths import data_dir
from nodelib.publish import style
from nodelib.publish.page import markdown

COLOURS = {
    "exact": style.BLUE, "exact, torch alone": style.SKY, "torchdiffeq-adjoint": style.VERMILLION,
    "torchdiffeq-backprop": style.ORANGE, "torchode": style.PURPLE, "diffrax": style.GREY,
    "adjoint": style.VERMILLION, "anchored": style.GREEN,
}
MARKERS = {"exact": "o", "exact, torch alone": "v", "torchdiffeq-adjoint": "s", "torchdiffeq-backprop": "D",
           "torchode": "P", "diffrax": "X", "adjoint": "s", "anchored": "^"}


def load(suite: str) -> dict:
    """The stored measurement of a suite, such as "training-step"."""
    return read_json(data_dir() / "benchmarks" / f"{suite}.json")


def steps_frame(result: dict) -> pd.DataFrame:
    """Training steps as tidy data: case, method, seconds, ratio (with low and high), error, peak in MB."""
    rows = []
    for row in result["rows"]:
        rows.append({
            "case": f"{row['network']}, batch {row['batch']}, t = {row['t1']:g}",
            **{key: row[key] for key in ("network", "batch", "t1", "method", "rounds", "gradient_error")},
            "seconds": row["seconds"]["median"], "seconds_low": row["seconds"]["low"],
            "seconds_high": row["seconds"]["high"], "ratio": row["ratio"]["median"],
            "low": row["ratio"]["low"], "high": row["ratio"]["high"],
            "megabytes": None if row["peak_bytes"] is None else row["peak_bytes"] / 1e6,
            "share": row.get("share_of_best"), "gflops": row.get("gflops"), "nfe": row.get("nfe"),
        })
    return pd.DataFrame(rows)


@style.style()
def ratio_bars(data: pd.DataFrame) -> Figure:
    """Time over that of the exact gradient, one panel per case; whiskers are quartiles of per-round ratios.
    """
    cases = list(dict.fromkeys(data["case"]))
    figure, axes = style.panels(len(cases), columns=2, height=1.9, sharex=True)
    for axis, case in zip(axes, cases):
        part = data[(data["case"] == case) & (data["method"] != "exact")].reset_index(drop=True)
        axis.barh(part["method"], part["ratio"], color=[COLOURS[m] for m in part["method"]], height=0.65,
                  xerr=[part["ratio"] - part["low"], part["high"] - part["ratio"]],
                  error_kw={"elinewidth": 1, "capsize": 2})
        for i, row in part.iterrows():
            axis.annotate(f"{row['ratio']:.1f}", (row["high"], i), xytext=(4, 0), va="center", fontsize=8,
                          textcoords="offset points")
        axis.axvline(1, color=style.BLUE, linewidth=1.2)
        axis.set(title=case, xscale="log")
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    axes[-1].set_xlim(0.7, 3 * data["high"].max())
    figure.supxlabel("time relative to the exact gradient (log scale)", fontsize=9.5)
    return figure


def log_fit(rows: pd.DataFrame) -> tuple[float, float, float]:
    """(a, b, R^2) of the least-squares fit NFE = a + b log10 t over t of at least 1."""
    part = rows[rows["t1"] >= 1]
    x, y = np.log10(part["t1"].to_numpy()), part["nfe"].to_numpy(dtype=float)
    b, a = np.polyfit(x, y, 1)
    residual = y - (a + b * x)
    return float(a), float(b), float(1 - residual.var() / y.var())


@style.style()
def cost_over_end_time(rows: pd.DataFrame) -> Figure:
    """Seconds of a training step, and evaluations of its forward solve, against the end time."""
    figure, (left, right) = style.panels(2, height=3.0, xlabel="end time $t_1$")
    for method, part in rows.groupby("method", sort=False):
        style.banded(left, part, "t1", "median", COLOURS[method], marker=MARKERS[method], label=method)
    own = rows[rows["method"] == "exact"]
    right.plot(own["t1"], own["nfe"], color=style.BLUE, marker="o", linestyle="", label="measured")
    a, b, _ = log_fit(own)
    t = np.array([1, own["t1"].max()])
    right.plot(t, a + b * np.log10(t), color=style.GREY, linestyle="--", label="a + b log t")
    left.set(xscale="log", yscale="log", ylabel="seconds per step")
    right.set(xscale="log", ylabel="evaluations, forward (NFE)", ylim=(0, None))
    left.legend()
    right.legend()
    return figure


@style.style()
def cost_over_batch(rows: pd.DataFrame) -> Figure:
    """Milliseconds per image of a training step against the batch, one panel per network."""
    networks = rows.groupby("network", sort=False)
    figure, axes = style.panels(len(networks), columns=2, height=3.0)
    for axis, (network, here) in zip(axes, networks):
        for method, part in here.groupby("method", sort=False):
            each = part[["median", "low", "high"]].mul(1000 / part["batch"], axis=0)
            style.banded(axis, each.assign(batch=part["batch"]), "batch", "median", COLOURS[method],
                   marker=MARKERS[method], label=method)
        axis.set(title=network, xscale="log", yscale="log", xlabel="batch", ylabel="milliseconds per image")
    axes[0].legend()
    return figure


@style.style()
def work_precision(rows: pd.DataFrame) -> Figure:
    """Gradient error against seconds as the tolerance tightens, one panel per end time."""
    times = rows.groupby("t1", sort=False)
    figure, axes = style.panels(len(times), height=3.0, sharey=True, ylabel="relative error of the gradient")
    for axis, (t1, here) in zip(axes, times):
        for method, part in here.groupby("method", sort=False):
            axis.plot(part["seconds"], part["gradient_error"], color=COLOURS[method],
                      marker=MARKERS[method], label=method)
        axis.set(title=f"$t_1$ = {t1:g}", xscale="log", yscale="log", xlabel="seconds")
    style.legend_above(figure, axes[:1])
    return figure


def table(data: pd.DataFrame) -> str:
    """Markdown: seconds with quartiles, ratio, gradient error and peak memory of every measured step."""
    def spread(median: float, low: float, high: float, digits: str) -> str:
        return f"{median:{digits}} [{low:{digits}}, {high:{digits}}]"

    rows = [("" if again else row.case, row.method,
             spread(row.seconds, row.seconds_low, row.seconds_high, ".3g"),
             spread(row.ratio, row.low, row.high, ".2f"), f"{row.gradient_error:.2g}",
             "n/a" if pd.isna(row.megabytes) else f"{row.megabytes:.0f}")
            for row, again in zip(data.itertuples(), data["case"].eq(data["case"].shift()))]
    return markdown(["step:", "method:", "seconds [quartiles]", "ratio to exact [quartiles]",
                     "gradient error", "peak memory (MB)"], rows)


def best_peer(data: pd.DataFrame, case: str) -> pd.Series:
    """The fastest peer of a case; our own variants do not count."""
    part = data[(data["case"] == case) & ~data["method"].str.startswith("exact")]
    return part.loc[part["ratio"].idxmin()]
