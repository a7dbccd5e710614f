"""What a run's stored records say about its robustness, as tidy data and Markdown tables for a page.

What is not stored is left out, or shown as a dash; only `measured_now` attacks.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from nodelib.attacks.strong import RANDOMISED, STRONG, library_afterthoughts, library_warnings, require
from nodelib.experiment.artifacts import Run
from nodelib.experiment.evaluation import Directions, evaluate, record, test_subset
from nodelib.experiment.gradient_health import METHODS
from nodelib.experiment.measurement import EPSILON, Measurement
from nodelib.experiment.protocols import GRADIENT_METHODS
from nodelib.experiment.worst_case import survivors
from nodelib.publish.page import markdown
from nodelib.publish.table import interval
from nodelib.statistics import SIGNIFICANCE, mcnemar, on_common, wilson

COLUMNS = {"clean": "none", "FGSM": "fgsm-exact", "PGD-10": "pgd10-exact", "PGD-40": "pgd40-exact",
           "PGD-100": "pgd100-restarts",
           "APGD-CE": "apgd-ce", "APGD-T": "apgd-t", "FAB-T": "fab-t", "Square": "square"}
MASKING = {
    "plain": "PGD-10, exact gradient, clipped, fixed pooling", "margin": "margin loss",
    "rescaled": "rescaled logits",
    "random-pooling": "random pooling, gradient of one draw",
    "expectation": "random pooling, gradient of ten draws",
    "one-by-one": "one image per solve", "rescored": "scored one by one at tolerance 1e-5",
    "tolerance-1e-6": "network and attack at tolerance 1e-6", "unclipped": "not clipped",
    "adjoint": "gradient: continuous adjoint", "anchored": "gradient: anchored adjoint",
    "exact-1e-5": "gradient: exact, 1e-5",
    "smoothed": "margin loss, gradient averaged over ten noisy copies",
    "momentum": "margin loss, sum of the gradients at noisy points",
    "square": "no gradient: Square, 5,000 queries",
    "square-rescored": "Square's images, scored one by one at tolerance 1e-5",
    "clean-random": "*clean, random pooling*", "clean-1e-6": "*clean, tolerance 1e-6*",
    "clean-one-by-one": "*clean, one image per solve*",
}
CHANGES_OF_THE_ATTACK = ("margin", "rescaled", "adjoint", "anchored", "exact-1e-5", "smoothed", "momentum",
                         "square")


def find(run: Run, record_id: str) -> Any:
    """The run's record of this id, or None."""
    return next((r for r in run.metrics if r["id"] == record_id), None)


def on_first(run: Run, record_id: str, n: int) -> str | None:
    """A record's accuracy in per cent on its first n images; None where it has fewer, or there is none."""
    record = find(run, record_id)
    return None if record is None or record["n"] < n else f"{100 * run.outcomes(record_id)[:n].mean():.1f}"


def _cell(record: dict | None, n: int) -> str | None:
    """A record's accuracy in per cent, and on how many images where these are fewer than n."""
    if record is None:
        return None
    return f"{100 * record['accuracy']:.1f}" + (f" (n = {record['n']:,})" if record["n"] < n else "")


def reach(n: int) -> float:
    """How many points the 95 % interval of an accuracy of one half, the widest, reaches to either side."""
    low, high = wilson(n // 2, n)
    return 50 * (high - low)


def attack_times(run: Run) -> list[float]:
    """The end times at which a run has a worst case at epsilon 0.3: its own first, then the others."""
    own = run.config["test_t1"]
    found = {r["t1"] for r in run.metrics if r["attack"] == "worst" and r["epsilon"] == EPSILON}
    return sorted(found, key=lambda t1: (t1 != own, t1))


def attack_table(runs: Sequence[Run]) -> str:
    """Per run and end time what every attack at epsilon 0.3 leaves on the images of the worst case.

    From PGD-40 on a column shows what is left after it and all attacks to its left, because each attacks
    only what the others have left; "nothing to do" where that was no image. HopSkipJump stands alone, on its
    own images.
    """
    rows = []
    for run in runs:
        for t1 in attack_times(run):
            worst = find(run, f"worst-t{t1:g}")
            if worst is None:
                continue
            row: list[str | None] = [run.path.name, f"{t1:g}", str(worst["n"])]
            left = np.ones(worst["n"], dtype=bool)
            for label in COLUMNS.values():
                record = find(run, f"{label}-t{t1:g}")
                if record is None or record["n"] < worst["n"]:
                    row.append(None)
                elif ((record["settings"] or {}).get("dropped") or 0) >= record["n"]:
                    row.append("nothing to do")
                else:
                    outcomes = run.outcomes(record["id"])[:worst["n"]]
                    # whatever the order in which they were run
                    if (record["settings"] or {}).get("dropped") is not None:
                        outcomes = left = outcomes & left
                    row.append(f"{100 * outcomes.mean():.1f}")
            box = find(run, f"hop-skip-jump-t{t1:g}")
            row += [interval(worst["correct"], worst["n"]),
                    box and f"{interval(box['correct'], box['n'])}, n = {box['n']}"]
            rows.append(row)
    return markdown(["run:", "t", "n", *COLUMNS, "worst case (95 %)", "HopSkipJump alone"], rows)


def attack_summary(runs: Sequence[Run]) -> list[list[str]]:
    """Of `strong_bounds`, on the images of the worst case: run, end time, images, accuracy in per cent when
    clean, under one step and under ten, and the worst case with its interval.
    """
    rows = []
    for run, worst in strong_bounds(runs):
        n, end = worst["n"], f"t{worst['t1']:g}"
        kept = [run.outcomes(f"{label}-{end}")[:n] for label in list(COLUMNS.values())[:3]]
        rows.append([run.path.name, end[1:], f"{n:,}",
                     *(f"{100 * bits.mean():.1f}" + (f" (n = {len(bits):,})" if len(bits) < n else "")
                       for bits in kept),
                     interval(worst["correct"], n)])
    return rows


def masked(runs: Sequence[Run], epsilon: float = EPSILON) -> list[tuple[Run, float, str]]:
    """Where masking was measured: run, end time, and what follows a mask's name in its record's id."""
    middle = "" if epsilon == EPSILON else f"-eps{epsilon:g}"
    return [(run, t1, f"{middle}-t{t1:g}") for run in runs
            for t1 in sorted({r["t1"] for r in run.metrics if r["id"] == f"mask-plain{middle}-t{r['t1']:g}"})]


def told_apart(run: Run, suffix: str) -> dict[str, str]:
    """Which changes of the attack leave fewer images than the plain one does, "↓", or more, "↑", by McNemar's
    test.

    Changes of the network, or of what is allowed, are not judged, nor anything where the plain attack leaves
    nothing. suffix: of `masked`.
    """
    found, plain = {}, find(run, f"mask-plain{suffix}")
    for name in CHANGES_OF_THE_ATTACK if plain["correct"] else ():
        if record := find(run, f"mask-{name}{suffix}"):
            before, after = on_common(run.outcomes(plain["id"]), run.outcomes(record["id"]))
            if mcnemar(before, after) < SIGNIFICANCE:
                found[name] = "↓" if after.sum() < before.sum() else "↑"
    return found


def masking_table(runs: Sequence[Run], epsilon: float = EPSILON, exceptions: bool = False) -> str:
    """PGD-10 with one thing changed at a time, a column per run and end time, arrows as in `told_apart`.

    Below it, at epsilon 0.3, clean accuracy on the same images, where what was changed changes it too.
    exceptions: keep only columns in which the plain attack leaves something, and changes with an arrow.
    """
    columns = [(run, t1, suffix) for run, t1, suffix in masked(runs, epsilon)
               if not exceptions or find(run, f"mask-plain{suffix}")["correct"]]
    if not columns:
        return ""
    marks, rows = [told_apart(run, suffix) for run, _, suffix in columns], []
    sizes = [find(run, f"mask-plain{suffix}")["n"] for run, _, suffix in columns]
    for name, words in MASKING.items():
        if name.startswith("clean") and epsilon != EPSILON:
            continue
        if exceptions and name != "plain" and not any(name in each for each in marks):
            continue
        row: list[Any] = [words]
        for (run, _, suffix), mark, n in zip(columns, marks, sizes):
            said = _cell(find(run, f"mask-{name}{suffix}"), n)
            row.append(f"{said} {mark[name]}" if name in mark else said)
        if any(row[1:]):
            rows.append(row)
    clean = [on_first(run, f"none-t{t1:g}", n) for (run, t1, _), n in zip(columns, sizes)]
    rows.insert(sum(not row[0].startswith("*clean") for row in rows), ["*clean, fixed pooling*", *clean])
    return markdown(["one thing changed:", *(f"{run.path.name}, t = {t1:g}" for run, t1, _ in columns)],
                    [*rows, ["*images*", *sizes]])


def randomised_table(runs: Sequence[Run]) -> str:
    """What AutoAttack's set for random forward passes leaves of each run at its own end time, pooling random.

    The clean column has a draw of its own.
    """
    rows = []
    for run in runs:
        end = f"t{run.config['test_t1']:g}"
        found = [find(run, f"random-{name}-{end}") for name in RANDOMISED]
        if not all(found):
            continue
        n = min(r["n"] for r in found)
        kept = [run.outcomes(r["id"])[:n] for r in found]
        both = int((kept[0] & kept[1]).sum())
        rows.append([run.path.name, end[1:], n, on_first(run, f"none-random-{end}", n),
                     *(interval(int(k.sum()), n) for k in kept), interval(both, n)])
    headers = ["run:", "t", "images", "clean", "APGD-CE", "APGD-DLR", "both (95 %)"]
    return markdown(headers, rows) if rows else ""


def transfer_table(runs: Sequence[Run]) -> str:
    """Accuracy on PGD-40 images made on another run, a row per attacked run and a column per source, in the
    same order.
    """
    tried = [(run, {r["source"]: r for r in run.metrics if r["id"].startswith("transfer")}) for run in runs]
    met = list(dict.fromkeys(source for _, mine in tried for source in mine))
    known = [run.path.name for run, _ in tried]
    sources = sorted(met, key=lambda source: known.index(source) if source in known else len(known))
    rows = []
    for run, mine in tried:
        if mine:
            n = max(r["n"] for r in mine.values())
            rows.append([run.path.name, on_first(run, f"none-t{run.config['test_t1']:g}", n),
                         *(_cell(mine.get(source), n) for source in sources), f"{n:,}"])
    return markdown(["tried on / made on:", "clean", *sources, "images"], rows) if rows else ""


def measured_now(run: Run, measurements: Sequence[Measurement]) -> Run:
    """The run with these measurements' records added, measured now and not stored."""
    model, added = run.load_model(), []
    directions: Directions = {}
    for m in measurements:
        correct, nfe = evaluate(model, *test_subset(m.n), m, directions=directions)
        added.append(record(m, correct, nfe, 0.0, "", None))
    return dataclasses.replace(run, metrics=[*run.metrics, *added])


def kept_by_gradient(runs: Sequence[Run], epsilon: float) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """Which images one step leaves by adjoint, exact and reference gradient, on those that all three saw.

    Returns:
        (run folder, end time) -> method of `GRADIENT_METHODS` -> bool, shape (n,).
    """
    result = {}
    for run in runs:
        for t1 in sorted({r["t1"] for r in run.metrics if r["id"].startswith("fgsm-by-reference-")}):
            ids = {method: f"fgsm-by-{method}-eps{epsilon:g}-t{t1:g}"
                   for method in ("adjoint", "exact-1e-3", "reference")}
            if all(find(run, record) for record in ids.values()):
                result[run.path.name, t1] = dict(zip(ids, on_common(*map(run.outcomes, ids.values()))))
    return result


def rises(runs: Sequence[Run]) -> tuple[int, list[float]]:
    """How many pairs of neighbouring epsilons the sweeps have, and McNemar's p where more is left at the
    larger one, as a poor attack may.
    """
    pairs, found = 0, []
    for run in runs:
        for kind in ("sweep-fgsm-eps", "sweep-pgd40-eps"):
            for t1 in sorted({r["t1"] for r in run.metrics if r["id"].startswith(kind)}):
                swept = sorted((r for r in run.metrics if r["id"].startswith(kind) and r["t1"] == t1),
                               key=lambda r: r["epsilon"])
                for one, other in zip(swept, swept[1:]):
                    small, large = on_common(run.outcomes(one["id"]), run.outcomes(other["id"]))
                    pairs += 1
                    if large.sum() > small.sum():
                        found.append(mcnemar(small, large))
    return pairs, found


def library_says(runs: Sequence[Run], images: Tensor, labels: Tensor) -> dict[str, list[str]]:
    """What AutoAttack's library warns of before and after it attacks each run at its own end time.

    Before: on these images, shape (N, 1, 28, 28) with labels of shape (N,). After: of its four attacks as
    they are stored, where all four are.

    Raises:
        ImportError: the library is not installed.
    """
    require("pyautoattack")
    heard = {}
    for run in runs:
        t1 = run.config["test_t1"]
        left = {name: r["accuracy"] for name in STRONG if (r := find(run, f"{name}-t{t1:g}"))}
        heard[run.path.name] = (library_warnings(run.load_model(), images, labels, t1=t1)
                                + (library_afterthoughts(left) if len(left) == len(STRONG) else []))
    return heard


def epsilon_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The sweep over epsilon, accuracies in per cent; own: whether at the run's own end time."""
    kinds = {"sweep-fgsm-": "FGSM", "sweep-pgd": "PGD", "worst-eps": "worst case"}
    rows = [{"title": f"{run.path.name}, t = {r['t1']:g}", "own": r["t1"] == run.config["test_t1"],
             "epsilon": r["epsilon"], "n": r["n"],
             "attack": f"PGD, {r['settings']['steps']} steps" if kind == "PGD" else kind,
             **{key: 100 * r[key] for key in ("accuracy", "low", "high")}}
            for run in runs for r in run.metrics for prefix, kind in kinds.items()
            if r["id"].startswith(prefix)]
    # a worst case at one epsilon is a point, not a sweep
    seen = Counter((row["title"], row["attack"]) for row in rows)
    return _frame([row for row in rows if row["attack"] != "worst case"
                   or seen[row["title"], "worst case"] > 1],
                  ["title", "own", "attack", "epsilon", "accuracy", "low", "high", "n"],
                  ["title", "attack", "epsilon"])


def gradient_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """FGSM over epsilon by gradient method, accuracies in per cent."""
    rows = [{"title": f"{run.path.name}, t = {r['t1']:g}", "method": method, "epsilon": r["epsilon"],
             "n": r["n"], **{key: 100 * r[key] for key in ("accuracy", "low", "high")}}
            for run in runs for r in run.metrics for method in GRADIENT_METHODS
            if r["id"].startswith(f"fgsm-by-{method}-eps")]
    return _frame(rows, ["title", "method", "epsilon", "accuracy", "low", "high", "n"],
                  ["title", "method", "epsilon"])


def health_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The records of `nodelib.experiment.gradient_health` as tidy data."""
    methods = {how: name for name, how in METHODS.items()}
    rows = []
    for run in runs:
        for m in run.measurements:
            s = m["settings"]
            if m["name"] in ("sign_agreement", "zero_gradient", "finite_difference", "logit_gap"):
                rows.append({"run": run.path.name, "t1": m["t1"], "name": m["name"],
                             "method": methods.get((s.get("gradient"), s.get("rtol")), s.get("gradient", "")),
                             "loss": s.get("loss", ""), "logit_scale": str(s.get("logit_scale", "")),
                             "noise": s.get("noise", float("nan")), "value": m["value"], "n": m["n"]})
    return _frame(rows, ["run", "t1", "name", "method", "loss", "logit_scale", "noise", "value", "n"],
                  ["run", "name", "method", "t1"])


def zero_table(data: pd.DataFrame) -> str:
    """Share of images with an exactly zero gradient, from `health_frame`: a row per run and end time."""
    zero = data[data["name"] == "zero_gradient"]
    views = {"adjoint": ("adjoint", "cross-entropy", "1.0"),
             "exact, 1e-3": ("exact-1e-3", "cross-entropy", "1.0"),
             "rescaled logits": ("exact-1e-3", "cross-entropy", "gap"),
             "margin loss": ("exact-1e-3", "margin", "1.0"),
             "float64": ("reference", "cross-entropy", "1.0")}
    rows = []
    for (run, t1), part in zero.groupby(["run", "t1"], sort=False):
        gap = data[(data["run"] == run) & (data["t1"] == t1) & (data["name"] == "logit_gap")]["value"]
        row = [run, f"{t1:g}", f"{gap.iloc[0]:.1f}" if len(gap) else None]
        for method, loss, scale in views.values():
            found = part[(part["method"] == method) & (part["loss"] == loss)
                         & (part["logit_scale"] == scale)]["value"]
            row.append(f"{100 * found.iloc[0]:.1f} %" if len(found) else None)
        rows.append([*row, part["n"].max()])
    return markdown(["run:", "t", "logit gap", *views, "images"], rows)


def anchor_table(seed: Mapping, *more: Sequence) -> str:
    """The published figures of `data/seed.json`, MNIST, l-infinity, epsilon 0.3, and more rows above them."""
    number = lambda value: None if value is None else f"{value:.2f}"  # noqa: E731
    rows = [[f"{a['network']} ({a['year']})", number(a["clean"]), number(a["fgsm"]),
             ", ".join(f"{p['accuracy']:.2f} ({p['note']})" for p in a["pgd"]), number(a["autoattack"])]
            for a in seed["anchors"]]
    return markdown(["network:", "clean", "FGSM", "PGD", "AutoAttack"], [*more, *rows])


def strong_bounds(runs: Sequence[Run]) -> list[tuple[Run, dict]]:
    """Each run with its worst-case record over the whole set, epsilon 0.3, at its own end time."""
    found = [(run, find(run, f"worst-t{run.config['test_t1']:g}")) for run in runs]
    return [(run, record) for run, record in found if record is not None
            and all(any(name in used for used in record["combines"] or ()) for name in STRONG)]


def black_box_ahead(run: Run, t1: float) -> tuple[int, int] | None:
    """Images that HopSkipJump broke and no attack by gradients did, and how many it tried."""
    box = find(run, f"hop-skip-jump-t{t1:g}")
    if box is None:
        return None
    # what a record without them in it owes to gradients alone
    blind = ("square", "hop-skip-jump", "transfer")
    white = [r for r in run.metrics if r["attack"] not in blind and not (r["settings"] or {}).get("queries")
             and not any(used.startswith(blind) for used in r.get("combines") or ())]
    alive, _ = survivors(white, run.outcomes, Measurement(t1, box["n"], "worst", EPSILON))
    return int((alive & ~run.outcomes(box["id"])).sum()), box["n"]


def _frame(rows: list[dict], columns: list[str], order: list[str]) -> pd.DataFrame:
    # within the first of `order`, whose own order stays
    data = pd.DataFrame(rows, columns=columns)
    first = data[order[0]].drop_duplicates().tolist()
    return data.sort_values(order, key=lambda c: c.map(first.index) if c.name == order[0] else c,
                            kind="stable", ignore_index=True)
