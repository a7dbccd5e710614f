"""What stored measurements (`nodelib.verdicts.MEASUREMENTS`) say about states, as tidy data, a row per run.

A value that is not measured is missing (NaN), never guessed.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from nodelib.experiment.artifacts import Run
from nodelib.verdicts.evidence import matches
from nodelib.verdicts.states import NEVER, RAY_FACTS, own_steady_state

SNAPSHOTS = (1.0, 10.0, 100.0, 500.0, 1000.0)
SEPARATION = {"nearest_class": "nearest class", "linear_probe": "linear probe", "silhouette": "silhouette"}


def look_up(run: Run, name: str, *, label: str = "all", images: str = "clean",
            **conditions: Any) -> Any:
    """The latest record of a measurement, or None."""
    found = [r for r in run.measurements
             if r["name"] == name and matches(r, label=label, images=images, **conditions)]
    return found[-1] if found else None


def value(run: Run, name: str, **conditions: Any) -> float:
    """The value of a measurement; NaN where it is not measured."""
    record = look_up(run, name, **conditions)
    return math.nan if record is None else float(record["value"])


def at(frame: pd.DataFrame, column: str, **where: Any) -> float:
    """The column's entry in the first row whose other columns are as given; NaN where there is none."""
    for key, wanted in where.items():
        frame = frame[frame[key] == wanted]
    return float(frame[column].iloc[0]) if len(frame) else math.nan


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
    """Median settling times: columns run, seed, n, turning, relative_speed, infinite where not by t = 1000.

    And turning_1000: how fast the median image's centred direction turns there, per unit of log time.
    """
    rows = []
    for run in runs:
        found = {m: look_up(run, "settling_time", measure=m) for m in ("turning", "relative_speed")}
        if all(found.values()):
            times = [math.inf if r["value"] >= NEVER else r["value"] for r in found.values()]
            rows.append((run.name, run.seed, found["turning"]["n"], *times,
                         value(run, "turning", part="centred", t1=1000.0)))
    return pd.DataFrame(rows, columns=["run", "seed", "n", "turning", "relative_speed", "turning_1000"])


def late_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """What states do late: one row per run.

    Columns run, seed, n; exponent of |y| between t = 100 and 1000; velocity_angle and velocity_angle_centred,
    the angles in degrees between f(100) and f(1000), missing where the velocity may vanish (leaky dynamics,
    and those without the last normalisation) and has no direction; nearest, the share of directions nearest
    to their own class at 1000; accuracy_100 and accuracy_1000, the head's on these images, as shares.
    """
    rows = []
    for run in runs:
        early, late = (look_up(run, "norm", t1=t1) for t1 in (100.0, 1000.0))
        if not (early and late):
            continue
        turned = [value(run, "velocity_angle", t1=1000.0, since=100.0, part=part)
                  for part in ("whole", "centred")]
        rows.append((run.name, run.seed, late["n"], math.log10(late["value"] / early["value"]),
                     *(turned if plain([run]) else (math.nan, math.nan)),
                     value(run, "nearest_class", t1=1000.0, statistic="mean"),
                     *(value(run, "state_accuracy", t1=t1) for t1 in (100.0, 1000.0))))
    return pd.DataFrame(rows, columns=["run", "seed", "n", "exponent", "velocity_angle",
                                       "velocity_angle_centred", "nearest", "accuracy_100", "accuracy_1000"])


def ray_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Rays (leaky: equilibria): one row per run.

    Columns run, seed, n; on_a_ray, share of images; single, number of the ten classes that end on one
    attracting ray of their own by the rule of claim C18; residual and eigenvalue, the largest over classes;
    exponent, the largest Lyapunov exponent, and its standard_error; distinct, attracting or not, the rays of
    all classes together; later, the longest flow in log time, and on_later, the share of images on a ray
    then.
    """
    rows = []
    for run in runs:
        on = look_up(run, "on_a_ray")
        if on is None:
            continue
        per = [{name: value(run, name, label=str(digit)) for name, _ in RAY_FACTS} for digit in range(10)]
        lyapunov = look_up(run, "lyapunov_exponent") or {"value": math.nan, "settings": {}}
        later = far_frame([run]).sort_values("log_time").tail(1)
        rows.append((run.name, run.seed, on["n"], on["value"],
                     sum(own_steady_state(*p.values()) for p in per),
                     *(max(p[name] for p in per) for name in ("ray_residual", "ray_eigenvalue")),
                     lyapunov["value"], lyapunov["settings"].get("standard_error", math.nan),
                     value(run, "distinct_attractors"), at(later, "log_time"), at(later, "share")))
    return pd.DataFrame(rows, columns=["run", "seed", "n", "on_a_ray", "single", "residual", "eigenvalue",
                                       "exponent", "standard_error", "distinct", "later", "on_later"])


def far_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Images on a ray (leaky: at an equilibrium) ever later: a row per run and log time.

    Columns run, seed, n, log_time, share, rays; attracting: how many of these rays attract; mixed: whether
    each that holds more than one image holds several classes, and there are such rays. Both are known for the
    longest flow only: NaN and False elsewhere.
    """
    rows = []
    for run in runs:
        for r in run.measurements:
            if r["name"] == "on_a_ray_later":
                then = r["settings"]["log_time"]
                stable = look_up(run, "rays_later_attracting", log_time=then)
                by_class = stable["settings"].get("by_class", []) if stable else []
                shared = [counts for counts in by_class if sum(counts) > 1]
                mixed = bool(shared) and all(sum(count > 0 for count in counts) > 1 for counts in shared)
                rows.append((run.name, run.seed, r["n"], then, r["value"],
                             value(run, "rays_later", log_time=then),
                             stable["value"] if stable else math.nan, mixed))
    columns = ["run", "seed", "n", "log_time", "share", "rays", "attracting", "mixed"]
    return pd.DataFrame(rows, columns=columns)


def fooled_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Where images go that fooled the network.

    Columns run, seed, t1, n, own and said, the shares nearest to their own class and to the class they are
    taken for.
    """
    rows = [(run.name, run.seed, t1, found["n"], found["value"],
             value(run, "nearest_said", images="fooled", t1=t1, statistic="mean"))
            for run in runs for t1 in SNAPSHOTS
            if (found := look_up(run, "nearest_class", images="fooled", t1=t1, statistic="mean")) is not None]
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "n", "own", "said"])


def attacked_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Where attacked images go: columns run, seed, t1, n, clean, attacked, angle, relative.

    `clean` and `attacked`: shares nearest to their own class. `angle`: median in degrees between an attacked
    image's centred direction and its clean image's. `relative`: that over the angle between the mean states
    of a 6 and a 4, because all directions may draw together.
    """
    rows = []
    for run in runs:
        for t1 in SNAPSHOTS:
            found = look_up(run, "nearest_class", images="pgd", t1=t1, statistic="mean")
            if found is not None:
                angle = value(run, "attacked_angle", images="pgd", t1=t1)
                rows.append((run.name, run.seed, t1, found["n"],
                             value(run, "nearest_class", t1=t1, statistic="mean"), found["value"],
                             angle, angle / value(run, "class_mean_angle", t1=t1, label="6-4")))
    return pd.DataFrame(rows, columns=["run", "seed", "t1", "n", "clean", "attacked", "angle", "relative"])
