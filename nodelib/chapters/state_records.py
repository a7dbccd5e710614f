"""What stored measurements say about states, as tidy data: settling, separation, rays, attacked images.

Everything is looked up by meaning in `measurements.csv` of whatever runs exist (see
`nodelib.verdicts.MEASUREMENTS`);
a value that is not measured is missing (NaN), never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from nodelib.experiment.artifacts import Run
from nodelib.experiment.measure_states import SOLVED
from nodelib.verdicts.evidence import matches
from nodelib.verdicts.states import NEVER, RAY_FACTS, own_steady_state

SNAPSHOTS = (1.0, 10.0, 100.0, 500.0, 1000.0)
SEPARATION = {"nearest_class": "nearest class", "linear_probe": "linear probe", "silhouette": "silhouette"}


def look_up(run: Run, name: str, *, label: str = "all", images: str = "clean", **conditions: Any) -> dict | None:
    """The latest record of a measurement, or None."""
    found = [r for r in run.measurements if r["name"] == name and matches(r, label=label, images=images, **conditions)]
    return found[-1] if found else None


def value(run: Run, name: str, **conditions: Any) -> float:
    """The value of a measurement; NaN where it is not measured."""
    record = look_up(run, name, **conditions)
    return math.nan if record is None else float(record["value"])


def measured(runs: Iterable[Run]) -> list[Run]:
    """The runs whose states are measured."""
    return [run for run in runs if look_up(run, "norm") or look_up(run, "on_a_ray")]


def plain(runs: Iterable[Run]) -> list[Run]:
    """The runs whose dynamics are the post's: with the last normalisation, and not leaky."""
    return [run for run in runs if run.config["last_norm"] and not run.config["leaky"]]


def separation_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Class separation of centred directions, mean over seeds: columns run, t1, measure, value."""
    rows = [{"run": run.name, "t1": t1, "measure": label, "value": value(run, name, t1=t1, statistic="mean")}
            for run in runs for name, label in SEPARATION.items() for t1 in SNAPSHOTS]
    frame = pd.DataFrame(rows, columns=["run", "t1", "measure", "value"]).astype({"value": float}).dropna()
    return frame.groupby(["run", "t1", "measure"], sort=False, as_index=False)["value"].mean()


def settling_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Median settling times: columns run, seed, n, turning, relative_speed; infinite where not settled by t = 1000.

    And turning_1000, how fast the centred direction of the median image turns there, in radians per unit of log time.
    """
    rows = []
    for run in runs:
        found = {m: look_up(run, "settling_time", measure=m) for m in ("turning", "relative_speed")}
        if all(found.values()):
            rows.append({"run": run.name, "seed": run.seed, "n": found["turning"]["n"],
                         **{m: math.inf if r["value"] >= NEVER else r["value"] for m, r in found.items()},
                         "turning_1000": value(run, "turning", part="centred", t1=1000.0)})
    return pd.DataFrame(rows, columns=["run", "seed", "n", "turning", "relative_speed", "turning_1000"])


def late_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """What states do late: one row per run.

    Columns run, seed, n; exponent of |y| between t = 100 and 1000; pace, t |f| / |y| at 1000, which is 1 on a ray and 0 at
    an equilibrium (leaky: |f| / |y|, per unit of its time, which is log time); velocity_angle and velocity_angle_centred,
    the angles in degrees between f(100) and f(1000), missing where the velocity may vanish (leaky dynamics, and those
    without the last normalisation) and has no direction; ray_distance (centred) at 1000, missing without the last
    normalisation; accuracy_1, accuracy_100 and accuracy_1000, the head's on these images, as shares.
    """
    rows = []
    for run in runs:
        norms = [value(run, "norm", t1=t1) for t1 in (100.0, 1000.0)]
        if any(map(math.isnan, norms)):
            continue
        vanishing = run.config["leaky"] or not run.config["last_norm"]
        turned = [math.nan if vanishing else value(run, "velocity_angle", t1=1000.0, since=100.0, part=part)
                  for part in ("whole", "centred")]
        rows.append({"run": run.name, "seed": run.seed, "n": look_up(run, "norm", t1=1000.0)["n"],
                     "exponent": math.log10(norms[1] / norms[0]),
                     "pace": value(run, "relative_speed", t1=1000.0) * (1 if run.config["leaky"] else 1000),
                     "velocity_angle": turned[0], "velocity_angle_centred": turned[1],
                     "ray_distance": value(run, "ray_distance", t1=1000.0, part="centred") if run.config["last_norm"] else math.nan,
                     **{f"accuracy_{t1:g}": value(run, "state_accuracy", t1=t1) for t1 in (1.0, 100.0, 1000.0)}})
    return pd.DataFrame(rows, columns=["run", "seed", "n", "exponent", "pace", "velocity_angle", "velocity_angle_centred",
                                       "ray_distance", "accuracy_1", "accuracy_100", "accuracy_1000"])


def velocity_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The velocity against time: columns run, seed, t1, speed, angle, angle_centred; one row per run and snapshot.

    `speed`: the median of |f| / |y| times that of |y|, near the median of |f|, which is not stored. `angle`: in degrees between
    f(100) and f(t1), as it is and without the common drift; missing up to t1 = 100.
    """
    rows = [{"run": run.name, "seed": run.seed, "t1": t1,
             "speed": value(run, "relative_speed", t1=t1) * value(run, "norm", t1=t1),
             "angle": value(run, "velocity_angle", t1=t1, since=100.0, part="whole"),
             "angle_centred": value(run, "velocity_angle", t1=t1, since=100.0, part="centred")}
            for run in runs for t1 in SNAPSHOTS if look_up(run, "norm", t1=t1)]
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "speed", "angle", "angle_centred"])


def ray_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Rays (leaky: equilibria): one row per run.

    Columns run, seed, n; on_a_ray, share of images; fewest and most, distinct rays per class; single, number of the ten
    classes that end on one attracting ray of their own by the rule of claim C18; residual and eigenvalue, the largest
    over classes; exponent, the largest Lyapunov exponent, and its standard_error; distinct, attracting or not, the rays of
    all classes together; leaky; later, the longest flow in log time, and on_later, the share of images on a ray then.
    """
    rows = []
    for run in runs:
        on = look_up(run, "on_a_ray")
        if on is None:
            continue
        per = [{name: value(run, name, label=str(digit)) for name, _ in RAY_FACTS} for digit in range(10)]
        counts = [p["attractors"] for p in per]
        own = [own_steady_state(*p.values()) for p in per]
        lyapunov = look_up(run, "lyapunov_exponent")
        later = max((r for r in run.measurements if r["name"] == "on_a_ray_later"), key=lambda r: r["settings"]["log_time"],
                    default=None)
        rows.append({"run": run.name, "seed": run.seed, "n": on["n"], "on_a_ray": on["value"], "fewest": min(counts),
                     "most": max(counts),
                     "single": sum(own),
                     "residual": max(p["ray_residual"] for p in per), "eigenvalue": max(p["ray_eigenvalue"] for p in per),
                     "exponent": lyapunov["value"] if lyapunov else math.nan,
                     "standard_error": lyapunov["settings"].get("standard_error", math.nan) if lyapunov else math.nan,
                     "distinct": value(run, "distinct_attractors"), "leaky": run.config["leaky"],
                     "later": later["settings"]["log_time"] if later else math.nan,
                     "on_later": later["value"] if later else math.nan})
    return pd.DataFrame(rows, columns=["run", "seed", "n", "on_a_ray", "fewest", "most", "single", "residual", "eigenvalue",
                                       "exponent", "standard_error", "distinct", "leaky", "later", "on_later"])


def far_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Images on a ray (leaky: at an equilibrium) ever later: columns run, seed, n, leaky, log_time, share, rays, attracting, mixed.

    `attracting`: how many of these rays attract; `mixed`: whether each that holds more than one image holds several classes, and
    there are such rays. Known for the longest flow only: NaN and False elsewhere.
    """
    rows = [{"run": run.name, "seed": run.seed, "n": r["n"], "leaky": run.config["leaky"], "log_time": r["settings"]["log_time"],
             "share": r["value"], "rays": value(run, "rays_later", log_time=r["settings"]["log_time"]),
             "attracting": value(run, "rays_later_attracting", log_time=r["settings"]["log_time"]),
             "mixed": _mixed(run, r["settings"]["log_time"])}
            for run in runs for r in run.measurements if r["name"] == "on_a_ray_later"]
    return pd.DataFrame(rows, columns=["run", "seed", "n", "leaky", "log_time", "share", "rays", "attracting", "mixed"])


def _mixed(run: Run, log_time: float) -> bool:
    found = look_up(run, "rays_later_attracting", log_time=log_time)
    shared = [counts for counts in (found["settings"].get("by_class", []) if found else []) if sum(counts) > 1]
    return bool(shared) and all(sum(count > 0 for count in counts) > 1 for counts in shared)


def class_ray_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Rays (leaky: equilibria) that solves from the classes' mean states find: one row per run.

    Columns run, seed, leaky; solved, number of classes whose solve succeeds; rays, distinct ones among them; attracting, number
    of the solved classes whose ray attracts; residual, the largest; lowest and highest, of the leading real parts of the solved.
    """
    rows = []
    for run in runs:
        total = look_up(run, "class_rays")
        if total is None:
            continue
        both = [(value(run, "class_ray_residual", label=str(d)), value(run, "class_ray_eigenvalue", label=str(d))) for d in range(10)]
        solved = [eigenvalue for residual, eigenvalue in both if residual <= SOLVED]
        rows.append({"run": run.name, "seed": run.seed, "leaky": run.config["leaky"], "solved": len(solved), "rays": int(total["value"]),
                     "attracting": sum(eigenvalue < 1 for eigenvalue in solved), "residual": max(residual for residual, _ in both),
                     "lowest": min(solved, default=math.nan), "highest": max(solved, default=math.nan)})
    return pd.DataFrame(rows, columns=["run", "seed", "leaky", "solved", "rays", "attracting", "residual", "lowest", "highest"])


def leaky_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The leaky controls: one row per run, NaN where something is not measured.

    Columns run, seed; t1, the end time of training; clean and n_clean, pgd and n_pgd, accuracy there as a share and its images,
    clean and under ten exact steps; pace, the median share of its size that a state moves there per unit of time; accuracy_10
    and accuracy_1000; on, n_on and distinct, the share of images that end at an equilibrium, of how many, and at how many of them.
    """
    rows = []
    for run in runs:
        if not run.config["leaky"]:
            continue
        end = run.config["test_t1"]
        ends = ray_frame([run])
        clean, attacked = (max((r for r in run.metrics if r["id"] == f"{name}-t{end:g}"), key=lambda r: r["n"], default={})
                           for name in ("none", "pgd10-exact"))
        rows.append({"run": run.name, "seed": run.seed, "t1": end, "clean": clean.get("accuracy", math.nan), "n_clean": clean.get("n"),
                     "pgd": attacked.get("accuracy", math.nan), "n_pgd": attacked.get("n"),
                     "pace": value(run, "relative_speed", t1=end),
                     **{f"accuracy_{t1:g}": value(run, "state_accuracy", t1=t1, statistic="mean") for t1 in (10.0, 1000.0)},
                     **({"on": ends["on_a_ray"].iloc[0], "n_on": ends["n"].iloc[0], "distinct": ends["distinct"].iloc[0]} if len(ends) else
                        {"on": math.nan, "n_on": None, "distinct": math.nan})})
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "clean", "n_clean", "pgd", "n_pgd", "pace", "accuracy_10", "accuracy_1000",
                                       "on", "n_on", "distinct"])


def fooled_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Where images go that fooled the network: columns run, seed, t1, n, own, said (shares nearest to their own class and to
    the class they are taken for), angle (median in degrees between their centred direction and their clean image's)."""
    rows = [{"run": run.name, "seed": run.seed, "t1": t1, "n": found["n"], "own": found["value"],
             "said": value(run, "nearest_said", images="fooled", t1=t1, statistic="mean"),
             "angle": value(run, "attacked_angle", images="fooled", t1=t1)}
            for run in runs for t1 in SNAPSHOTS
            if (found := look_up(run, "nearest_class", images="fooled", t1=t1, statistic="mean")) is not None]
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "n", "own", "said", "angle"])


def attacked_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Where attacked images go: columns run, seed, t1, n, clean, attacked, angle, relative.

    `clean` and `attacked`: shares nearest to their own class. `angle`: median in degrees between an attacked image's centred
    direction and its clean image's. `relative`: that over the angle between the mean states of a 6 and a 4, because all directions may draw together.
    """
    rows = [{"run": run.name, "seed": run.seed, "t1": t1, "n": found["n"],
             "clean": value(run, "nearest_class", t1=t1, statistic="mean"), "attacked": found["value"],
             "angle": (angle := value(run, "attacked_angle", images="pgd", t1=t1)),
             "relative": angle / value(run, "class_mean_angle", label="6-4", t1=t1)}
            for run in runs for t1 in SNAPSHOTS
            if (found := look_up(run, "nearest_class", images="pgd", t1=t1, statistic="mean")) is not None]
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "n", "clean", "attacked", "angle", "relative"])
