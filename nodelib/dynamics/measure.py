"""Measure a run's states: the records of `measurements.json`, named and defined in `nodelib.claims.MEASUREMENTS`.

    python -m nodelib.dynamics.measure small-10 wide-standard --images 256

Every trajectory is solved at the network's own tolerance in float32, as in training and testing; rays are
solved for in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelib import artifacts
from nodelib.attacks import pgd
from nodelib.dynamics.classes import class_directions, nearest_class, silhouette
from nodelib.dynamics.drift import remove_drift
from nodelib.dynamics.geometry import angle, norm
from nodelib.dynamics.motion import path_turning, settling_time, velocities
from nodelib.dynamics.paths import follow, states_at
from nodelib.dynamics.rays import (cluster, flow_in_log_time, jacobian_norm, leading_eigenvalue, lyapunov_exponent,
                                   normalised_field, solve_ray)
from nodelib.evaluation import test_subset
from nodelib.models import ODENet

TIMES = tuple(sorted({*(float(f"{t:.4g}") for t in np.geomspace(0.1, 1000, 41)), 500.0}))
SNAPSHOTS = (1.0, 10.0, 100.0, 500.0, 1000.0)
THRESHOLDS = {"turning": 0.1, "relative_speed": 0.01}  # those of the rule for C20
SETTLED = 1e-3  # |f(w) - w| / |w| below which an image counts as being on a ray
SHARE = 0.05  # of a class's images that must end on a ray for it to count
LOG_TIME = 10.0  # of the flow after t = 1000: a further factor of 22,000 in time
CLASSES = 10


def record(name: str, value: float, *, n: int, t1: float | None = None, label: str = "all", images: str = "clean",
           statistic: str = "median", **settings: Any) -> dict:
    """One record of `measurements.json`."""
    return {"name": name, "t1": t1, "label": label, "images": images, "statistic": statistic, "value": float(value),
            "n": n, "settings": settings}


def motion(model: ODENet, images: Tensor, labels: Tensor, times: Iterable[float] = TIMES) -> list[dict]:
    """Norms, speeds, angles and settling times along the trajectories."""
    n = len(images)
    paths = follow(model, images, labels, list(times), rtol=model.block.rtol, atol=model.block.atol)
    records = []
    for t1 in SNAPSHOTS:
        k = list(paths.times).index(t1)
        middle = {name: float(np.median(values[k])) for name, values in paths.values.items()}
        records += [record("norm", middle["norm"], t1=t1, n=n),
                    record("relative_speed", middle["relative_speed"], t1=t1, n=n)]
        for part, suffix in (("whole", ""), ("centred", "_centred")):
            records += [record("turning", middle["turning" + suffix], t1=t1, n=n, part=part),
                        record("state_velocity_angle", middle["state_velocity_angle" + suffix], t1=t1, n=n, part=part)]
    for measure, threshold in THRESHOLDS.items():
        values = paths.values["turning_centred" if measure == "turning" else measure]
        # the turning vanishes at t = 0 by its factor t: settling counts from t = 1 on
        late = paths.times >= 1
        settled = settling_time(paths.times[late], torch.from_numpy(values[late]), threshold)
        records.append(record("settling_time", settled.median(), n=n, measure=measure, threshold=threshold))
    return records


def changes(model: ODENet, images: Tensor, batch: int = 100) -> list[dict]:
    """How state and velocity change from t = 100 to 500 and 1000."""
    func, found = model.block.func, {}
    for part in images.split(batch):
        y = states_at(model, part, (100.0, 500.0, 1000.0), model.block.rtol, model.block.atol)
        f = velocities(func, y)
        yc, fc = remove_drift(func, y), remove_drift(func, f)
        for k, t1 in ((1, 500.0), (2, 1000.0)):
            found.setdefault(("state_change", t1, None), []).append(norm(y[k] - y[0]) / norm(y[0]))
            for kind, states, speeds in (("whole", y, f), ("centred", yc, fc)):
                found.setdefault(("state_angle", t1, kind), []).append(angle(states[0], states[k]))
                found.setdefault(("velocity_angle", t1, kind), []).append(angle(speeds[0], speeds[k]))
    return [record(name, torch.cat(values).median(), t1=t1, n=len(images), since=100,
                   **({} if kind is None else {"part": kind})) for (name, t1, kind), values in found.items()]


def separation(model: ODENet, images: Tensor, labels: Tensor, attacked: Tensor | None = None, batch: int = 100) -> list[dict]:
    """Class separation of the centred directions; the first half of the images are the reference.

    `attacked`: attacked versions of the images, judged against the clean reference.
    """
    func, half = model.block.func, len(images) // 2
    pick = lambda x: torch.cat([states_at(model, part, SNAPSHOTS, model.block.rtol, model.block.atol)  # noqa: E731
                                for part in x.split(batch)], 1)
    whole = pick(images)
    clean = remove_drift(func, whole)
    fooled = None if attacked is None else remove_drift(func, pick(attacked))
    records = []
    for k, t1 in enumerate(SNAPSHOTS):
        reference, judged = (clean[k, :half], labels[:half]), (clean[k, half:], labels[half:])
        records += [record("nearest_class", nearest_class(reference, *judged).double().mean(), t1=t1, n=len(judged[1]),
                           statistic="mean"),
                    record("silhouette", silhouette(*judged).mean(), t1=t1, n=len(judged[1]), statistic="mean")]
        records += _pair(whole[k], clean[k], labels, half, t1)
        if fooled is not None:
            means = class_directions(*reference)
            records += [record("nearest_class", (means.nearest(fooled[k, half:]) == labels[half:]).double().mean(), t1=t1,
                               n=len(judged[1]), images="pgd", statistic="mean"),
                        record("attacked_angle", angle(fooled[k], clean[k]).median(), t1=t1, n=len(labels), images="pgd")]
    return records


def _pair(whole: Tensor, clean: Tensor, labels: Tensor, half: int, t1: float, first: int = 6, second: int = 4) -> list[dict]:
    chosen = (labels == first) | (labels == second)
    before = chosen & (torch.arange(len(labels)) < half)
    after = chosen & ~before
    if len(labels[before].unique()) < 2 or not after.any():
        return []
    told = nearest_class((clean[before], labels[before]), clean[after], labels[after]).double().mean()
    means = [whole[labels == digit].mean(0, keepdim=True) for digit in (first, second)]
    label = f"{first}-{second}"
    return [record("nearest_class", told, t1=t1, n=int(after.sum()), label=label, statistic="mean"),
            record("class_mean_angle", angle(*means).item(), t1=t1, n=int(chosen.sum()), label=label)]


def complexity(model: ODENet, images: Tensor, t1: float = 1.0) -> list[dict]:
    """How complex the dynamics are from 0 to t1: Jacobian, turning of the velocity, steps."""
    func, n = model.block.func, len(images)
    times = np.linspace(0, t1, 41).tolist()
    states = states_at(model, images, times, model.block.rtol, model.block.atol)
    jacobian = torch.stack([jacobian_norm(func, y) for y in states[::10]]).mean(0)
    from nodelib.odeint import odeint

    with torch.no_grad():
        steps = [odeint(func, y[None], [0.0, t1], params=()).accepted for y in states[0][:16]]
    return [record("jacobian_norm", jacobian.median(), t1=t1, n=n),
            record("path_turning", path_turning(velocities(func, states)).median(), t1=t1, n=n),
            record("accepted_steps", float(np.median(steps)), t1=t1, n=len(steps))]


def attractors(model: ODENet, images: Tensor, labels: Tensor, lyapunov_images: int = 12, log_time: float = LOG_TIME,
               **effort: Any) -> list[dict]:
    """Where images end: rays per class, their residual and stability, and the Lyapunov exponent.

    `model` is converted to float64. `effort` goes to `solve_ray`. Where no image ends on a ray, residual and
    eigenvalue are those of one ray solved for from the mean state, and every class counts 0 attractors.
    """
    model.double()
    for p in model.parameters():
        p.requires_grad_(False)
    func = model.block.func
    end = 1000.0
    w = states_at(model, images.double(), (end,), 1e-5, 1e-5)[0]
    if not func.leaky:  # a leaky state is not scaled: its equilibria are of finite size
        w = w / end
    exponents = lyapunov_exponent(func, w[:lyapunov_images], log_time=2 * log_time, transient=log_time / 2)
    w = flow_in_log_time(func, w, log_time, 1e-6, 1e-6)
    with torch.no_grad():
        settled = norm(normalised_field(func)(w) - w) / norm(w) <= SETTLED
    records = [record("lyapunov_exponent", exponents.mean(), t1=end, n=len(exponents), statistic="mean",
                      standard_error=float(exponents.std() / len(exponents) ** 0.5)),
               record("on_a_ray", settled.double().mean(), t1=end, n=len(w), statistic="mean", log_time=log_time)]
    groups = torch.full((len(w),), -1)
    if settled.any():
        groups[settled] = cluster(remove_drift(func, w[settled]))
    solved: dict[int, tuple[float, float]] = {}

    def solve(group: int) -> tuple[float, float]:
        if group not in solved:
            start = w[groups == group][0] if group >= 0 else w.mean(0)
            ray = solve_ray(func, start, smoothing=0.0 if group >= 0 else 1.0, **effort)
            if ray.residual > 1e-6:
                ray = solve_ray(func, start, **effort)
            solved[group] = (ray.residual, leading_eigenvalue(func, ray.w)[0].real)
        return solved[group]

    for digit in range(CLASSES):
        mine = groups[labels == digit]
        kept = [g for g in mine[mine >= 0].unique().tolist() if (mine == g).sum() >= SHARE * len(mine)]
        found = [solve(g) for g in kept] or [solve(-1)]
        common = dict(label=str(digit), n=len(mine), t1=end)
        records += [record("attractors", len(kept), statistic="count", **common),
                    record("ray_residual", max(r for r, _ in found), statistic="max", **common),
                    record("ray_eigenvalue", max(e for _, e in found), statistic="max", **common)]
    return records


def measure(model: ODENet, images: Tensor, labels: Tensor, attack_t1: float | None = None, ray_images: int = 100,
            **effort: Any) -> list[dict]:
    """All measurements of a network on given test images.

    Args:
        model: in eval mode with fixed pooling; converted to float64 at the end.
        images, labels: shapes (N, 1, 28, 28) and (N,); at least two images of each class.
        attack_t1: end time of the PGD attack whose images are followed too; None for no attack.
        ray_images: how many images are followed to their rays; effort: of `attractors`.
    """
    attacked = None
    if attack_t1 is not None:
        attacked = torch.cat([pgd(model, x, y, 0.3, step_size=0.075, steps=10, t1=attack_t1)
                              for x, y in zip(images.split(100), labels.split(100))])
    few = slice(0, min(64, len(images)))
    return [*motion(model, images, labels), *changes(model, images), *separation(model, images, labels, attacked),
            *complexity(model, images[few]),
            *attractors(model, images[:ray_images], labels[:ray_images], **effort)]


def measure_run(folder: str | Path, count: int = 500, ray_images: int = 100) -> list[dict]:
    """Measure a stored run on the first `count` images of the test order and write its `measurements.json`."""
    run = artifacts.load_run(folder)
    images, labels = test_subset(count)
    attack_t1 = 1.0 if run.name.startswith("wide") else None
    records = measure(run.load_model(), images, labels, attack_t1, min(ray_images, count))
    others = [r for r in run.measurements if r["name"] not in {m["name"] for m in records}]
    artifacts.write_json(Path(folder) / "measurements.json", others + records)
    return records


def main(arguments: list[str] | None = None) -> int:
    """Measure every stored seed of the runs named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m nodelib.dynamics.measure", description=main.__doc__)
    parser.add_argument("run", nargs="+", help="names of runs, such as small-10")
    parser.add_argument("--images", type=int, default=500, help="test images (default: 500)")
    parser.add_argument("--ray-images", type=int, default=100, help="of these, followed to their rays (default: 100)")
    options = parser.parse_args(arguments)
    for run in artifacts.find_runs():
        if run.name in options.run:
            print(f"{run.path.name}: {len(measure_run(run.path, options.images, options.ray_images))} measurements")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
