"""Figures and tables of the page *Performance*, from the JSON files of `nodelib.bench`."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nodelib.bench import cases
from nodelib.experiment.artifacts import read_json
from nodelib.experiment.paths import data_dir
from nodelib.publish import style
from nodelib.publish.page import markdown

COLOURS = {
    "exact": style.BLUE, "exact, torch alone": style.SKY, "torchdiffeq-adjoint": style.VERMILLION,
    "torchdiffeq-backprop": style.ORANGE, "torchdiffeq-compile": "#9A5B00", "torchode": style.PURPLE,
    "torchdyn": style.GREEN, "diffrax": style.GREY, "adjoint": style.VERMILLION, "anchored": style.GREEN,
}
MARKERS = {"exact": "o", "exact, torch alone": "v", "torchdiffeq-adjoint": "s", "torchdiffeq-backprop": "D",
           "torchode": "P", "diffrax": "X", "adjoint": "s", "anchored": "^"}
LATEST = 100.0  # the end time that small-100 was trained for
LARGEST_SIDE = 12  # pixels, of the kernels
DRAWN = ("small-10", "small-100", "large-10", "large-100", "wide-standard", cases.UNTRAINED)


def load(suite: str) -> dict:
    """The stored measurement of a suite, such as "training-step"."""
    return read_json(data_dir() / "benchmarks" / f"{suite}.json")


def steps_frame(result: dict) -> pd.DataFrame:
    """Training steps as tidy data; low and high: quartiles of the ratio."""
    return pd.DataFrame({
        "case": f"{row['network']}, batch {row['batch']}, t = {row['t1']:g}",
        **{key: row.get(key) for key in ("network", "batch", "t1", "method", "rounds", "gradient_error",
                                         "nfe", "nfe_backward", "products")},
        "seconds": row["seconds"]["median"], "seconds_low": row["seconds"]["low"],
        "seconds_high": row["seconds"]["high"], "ratio": row["ratio"]["median"],
        "low": row["ratio"]["low"], "high": row["ratio"]["high"],
        "megabytes": None if row["peak_bytes"] is None else row["peak_bytes"] / 1e6,
    } for row in result["rows"])


@style.style()
def ratio_bars(data: pd.DataFrame) -> Figure:
    """Time over that of the exact gradient, a panel for each of `DRAWN`; whiskers: quartiles over rounds."""
    figure, axes = style.panels(len(DRAWN), columns=1, height=1.55, width=style.NARROW, sharex=True)
    for axis, network in zip(axes, DRAWN):
        part = data[(data["network"] == network) & (data["method"] != "exact")].reset_index(drop=True)
        case = part["case"].iloc[0]
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
    axes[-1].set_xlim(0.7, 3 * data.loc[data["network"].isin(DRAWN), "high"].max())
    figure.supxlabel("time relative to the exact gradient (log scale)", fontsize=9.5)
    return figure


@style.style()
def cost_over_end_time(rows: pd.DataFrame) -> Figure:
    """Seconds of a training step, and evaluations of its forward solve, against the end time."""
    figure, (left, right) = style.panels(2, columns=1, height=2.3, width=style.NARROW,
                                         xlabel="end time $t_1$")
    for method, part in rows.groupby("method", sort=False):
        style.banded(left, part, "t1", "median", COLOURS[method], marker=MARKERS[method], label=method)
    own = rows[rows["method"] == "exact"]
    right.plot(own["t1"], own["nfe"], color=style.BLUE, marker="o")
    right.axvline(LATEST, color=style.GREY, linestyle=":", linewidth=1)
    right.annotate("trained to", (LATEST, 0), xytext=(-3, 6), ha="right", fontsize=9, color=style.GREY,
                   textcoords="offset points")
    left.set(xscale="log", yscale="log", ylabel="seconds per step")
    right.set(xscale="log", ylabel="evaluations, forward (NFE)", ylim=(0, None))
    style.legend_above(figure, [left], columns=1)
    return figure


@style.style()
def cost_over_batch(rows: pd.DataFrame) -> Figure:
    """Milliseconds per image of a training step against the batch, one panel per network."""
    networks = rows.groupby("network", sort=False)
    figure, axes = style.panels(len(networks), columns=2, height=2.6, width=style.NARROW)
    for axis, (network, here) in zip(axes, networks):
        for method, part in here.groupby("method", sort=False):
            each = part[["median", "low", "high"]].mul(1000 / part["batch"], axis=0)
            style.banded(axis, each.assign(batch=part["batch"]), "batch", "median", COLOURS[method],
                         marker=MARKERS[method], label=method)
        axis.set(title=network, xscale="log", yscale="log", xlabel="batch")
    axes[0].set_ylabel("milliseconds per image")
    style.legend_above(figure, axes[:1])
    return figure


@style.style()
def work_precision(rows: pd.DataFrame) -> Figure:
    """Gradient error against seconds as the tolerance tightens, one panel per end time."""
    times = rows.groupby("t1", sort=False)
    figure, axes = style.panels(len(times), columns=2, height=2.3, width=style.NARROW, sharey=True,
                                ylabel="relative error of the gradient")
    for axis, (t1, here) in zip(axes, times):
        for method, part in here.groupby("method", sort=False):
            axis.plot(part["seconds"], part["gradient_error"], color=COLOURS[method],
                      marker=MARKERS[method], label=method)
        axis.set(title=f"$t_1$ = {t1:g}", xscale="log", yscale="log", xlabel="seconds")
    style.legend_above(figure, axes[:1], columns=2)
    return figure


@style.style()
def growth(rows: pd.DataFrame) -> Figure:
    """Milliseconds of an evaluation with its product for one image; open: by torch, without kernels."""
    figure, (left, right) = style.panels(2, columns=2, height=2.8, width=style.NARROW, sharey=True,
                                         ylabel="ms per evaluation and image")
    for axis, kinds, label in ((left, ["channels", "tenfold"], "channels, 7 by 7 pixels"),
                               (right, ["side"], "pixels a side, 64 channels")):
        part = rows[rows["grows"].isin(kinds)].sort_values("value")
        each = 1000 * part["median"] / part["batch"] / part["nfe"]
        compiled = (part["value"] <= LARGEST_SIDE) | (axis is left)
        axis.plot(part["value"], each, color=style.BLUE, linewidth=1)
        axis.scatter(part["value"][compiled], each[compiled], color=style.BLUE, zorder=3)
        axis.scatter(part["value"][~compiled], each[~compiled], facecolor="white", edgecolor=style.BLUE,
                     zorder=3)
        axis.set(xscale="log", yscale="log", xlabel=label)
        ticks = [value for value in part["value"] if value not in (12, 128, 512)]  # too close beside others
        axis.set_xticks(ticks, [str(value) for value in ticks])
        axis.set_xticks([], minor=True)
    return figure


def growth_frame(result: dict) -> pd.DataFrame:
    """What grows, its value, the batch, the counts, and the median seconds of a step."""
    return pd.DataFrame([{**row, "median": row["seconds"]["median"]} for row in result["rows"]])


def table(data: pd.DataFrame) -> str:
    """Markdown: seconds with quartiles, ratio, counts, gradient error and peak memory of every step."""
    def spread(median: float, low: float, high: float, digits: str) -> str:
        return f"{median:{digits}} [{low:{digits}}, {high:{digits}}]"

    rows = [("" if again else row.case, row.method,
             spread(row.seconds, row.seconds_low, row.seconds_high, ".3g"),
             spread(row.ratio, row.low, row.high, ".2f"), counted(row), f"{row.gradient_error:.2g}",
             "n/a" if pd.isna(row.megabytes) else f"{row.megabytes:.0f}")
            for row, again in zip(data.itertuples(), data["case"].eq(data["case"].shift()))]
    return markdown(["step:", "method:", "seconds [quartiles]", "ratio to exact [quartiles]",
                     "evaluations forward + backward, products", "gradient error", "peak memory (MB)"], rows)


def counted(row: Any) -> str:
    """Evaluations of the forward and of the backward pass, and vector-Jacobian products."""
    if pd.isna(row.nfe):
        return "not counted"
    return f"{row.nfe:.0f} + {row.nfe_backward:.0f}, {row.products:.0f}"


def best_peer(data: pd.DataFrame, case: str) -> pd.Series:
    """The fastest peer of a case; our own variants do not count."""
    part = data[(data["case"] == case) & ~data["method"].str.startswith("exact")]
    return part.loc[part["ratio"].idxmin()]
