"""Measure a run's states: the records of `measurements.csv`, defined in `nodelib.experiment.contract`.

    python -m nodelib measure small-10 wide-standard --budget 1800

It measures part by part (`PARTS`) and stores each as it is done; the same command goes on where it stopped.
Every trajectory is solved at the network's own tolerance in float32, as in training and testing; rays are
solved for in float64.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelib.attacks import pgd
from nodelib.dynamics import rays
from nodelib.dynamics.classes import class_directions, linear_probe, nearest_class, silhouette
from nodelib.dynamics.drift import remove_drift
from nodelib.dynamics.geometry import angle, norm
from nodelib.dynamics.motion import settling_time
from nodelib.dynamics.paths import Paths, follow, states_at
from nodelib.experiment import artifacts
from nodelib.experiment.budget import Budget
from nodelib.experiment.configs import ROWS
from nodelib.experiment.contract import LOCAL_MEASUREMENTS
from nodelib.experiment.evaluation import test_subset
from nodelib.experiment.held_out import HELD_OUT, HELD_OUT_RUNS, held_out
from nodelib.experiment.local_robustness import local_robustness
from nodelib.experiment.measurement import TEST_IMAGES, median_interval
from nodelib.experiment.protocols import AVERAGED
from nodelib.experiment.protocols import SWEEP_T1 as TIMES
from nodelib.experiment.records import record
from nodelib.experiment.snapshots import along_path
from nodelib.experiment.solver_examples import Found, biases, elsewhere, examples, sought
from nodelib.networks import CLASSES, ODEFunc, ODENet, ResNet
from nodelib.solver.errors import InputError, check_whole

SNAPSHOTS = (1.0, 10.0, 100.0, 500.0, 1000.0)
# from the first time to each other one: the films' range, and long
RANGES = ((1.0, 10.0), (100.0, 500.0, 1000.0))
PAIR = (6, 4)  # the digits that the post's films compare
THRESHOLDS = {"turning": 0.1, "relative_speed": 0.01}  # those of the rule for C20
SETTLED = 1e-3  # |f(w) - w| / |w| below which an image counts as being on a ray
SOLVED = 1e-6  # the same of a ray that a solve of f(w) = w has found
SAME_RAY = 5.0  # degrees within which two rays count as one, as in `cluster`
SHARE = 0.05  # of a class's images that must end on a ray for it to count
LOG_TIME = 10.0  # of the flow after t = 1000: a further factor of 22,000 in time
LAST_LOG_TIME = 700.0  # e^709 is the last of float64
# where `far` looks: a ray whose leading eigenvalue is 0.9 needs 70 for three powers of ten
FAR = (10.0, 20.0, 40.0, 80.0)
RAY_IMAGES, FAR_IMAGES = 100, 50  # followed to their rays, and further
IMAGES, LEAKY_IMAGES = 500, 200  # of the test order, by default
LOCAL_IMAGES, SOLVER_IMAGES = 256, 128  # of them for the local robustness, and for examples of the solver
ATTACKED = 200  # of them attacked, by default
ONE_START = {key: value for key, value in AVERAGED.items() if key not in ("attack", "restarts")}
BATCH = 100  # images per solve


def median(name: str, values: Tensor | np.ndarray, t1: float | None = None, **where: Any) -> dict:
    """A record of the median over images; from six on with its 95 % interval in the settings."""
    values = np.asarray(values, dtype=float)
    interval = median_interval(values)
    known: dict[str, Any] = {} if interval is None else {"low": interval[0], "high": interval[1]}
    return record(name, np.median(values), t1, len(values), **where, **known)


def trajectories(model: ODENet, images: Tensor, labels: Tensor) -> list[dict]:
    """All of one solve to t = 1000: motion, settling, change from t = 1 and 100 on, separation, accuracy."""
    func = model.block.func
    snapshots: list[Tensor] = []  # whole states at SNAPSHOTS, one tensor per batch
    changed: dict[tuple, list[Tensor]] = {}

    def visit(y: Tensor, f: Tensor) -> None:
        snapshots.append(y[[TIMES.index(t1) for t1 in SNAPSHOTS]])
        for since, *later in RANGES:
            k = [TIMES.index(t1) for t1 in (since, *later)]
            whole, centred = (y[k], f[k]), (remove_drift(func, y[k]), remove_drift(func, f[k]))
            for i, t1 in enumerate(later, 1):
                where = (t1, since)
                change = norm(y[k[i]] - y[k[0]]) / norm(y[k[0]])
                changed.setdefault(("state_change", None, *where), []).append(change)
                for part, (a, b) in (("whole", whole), ("centred", centred)):
                    changed.setdefault(("state_angle", part, *where), []).append(angle(a[0], a[i]))
                    changed.setdefault(("velocity_angle", part, *where), []).append(angle(b[0], b[i]))

    paths = follow(model, images, labels, TIMES, rtol=model.block.rtol, atol=model.block.atol, visit=visit)
    whole = torch.cat(snapshots, 1)
    return [*motion(paths),
            *(median(name, torch.cat(values), t1=t1, since=since, **({} if part is None else {"part": part}))
              for (name, part, t1, since), values in changed.items()),
            *separation(func, whole, labels)]


def motion(paths: Paths) -> list[dict]:
    """Norms, speeds, angles, settling times and accuracy along paths whose times include `SNAPSHOTS`."""
    n, records = len(paths.labels), []
    for t1 in SNAPSHOTS:
        k = list(paths.times).index(t1)
        at = {name: values[k] for name, values in paths.values.items()}
        records += [median("norm", at["norm"], t1=t1),
                    median("relative_speed", at["relative_speed"], t1=t1),
                    record("state_accuracy", paths.accuracy[k], t1, n, "mean")]
        for part, suffix in (("whole", ""), ("centred", "_centred")):
            records += [median(name, at[name + suffix], t1=t1, part=part)
                        for name in ("turning", "state_velocity_angle", "ray_distance")]
    return records + [median("settling_time", settled_at(paths, measure), measure=measure,
                             threshold=threshold) for measure, threshold in THRESHOLDS.items()]


def settled_at(paths: Paths, measure: str) -> Tensor:
    """End time, from 1 on, after which "turning" (centred) or "relative_speed" stays below its threshold, per
    image.

    1e9 where it does not by the last time. Counted from t = 1 because the turning vanishes at t = 0 by its
    factor t.
    """
    values = paths.values["turning_centred" if measure == "turning" else measure]
    late = paths.times >= 1
    return settling_time(paths.times[late], torch.from_numpy(values[late]), THRESHOLDS[measure])


def separation(func: ODEFunc, whole: Tensor, labels: Tensor) -> list[dict]:
    """Class separation of the centred directions at `SNAPSHOTS`; the first half of the images are the
    reference.

    whole: states as they are, shape (len(SNAPSHOTS), N, C, H, W).
    """
    half, clean, records = len(labels) // 2, remove_drift(func, whole), []
    for k, t1 in enumerate(SNAPSHOTS):
        reference, judged = (clean[k, :half], labels[:half]), (clean[k, half:], labels[half:])
        records += [record(name, value.double().mean(), t1, len(judged[1]), "mean")
                    for name, value in (("nearest_class", nearest_class(reference, *judged)),
                                        ("linear_probe", linear_probe(reference, *judged)),
                                        ("silhouette", silhouette(*judged)))]
    return records


def attacked(model: ODENet, images: Tensor, labels: Tensor, count: int = ATTACKED) -> list[dict]:
    """Where the states of attacked images go, against the clean reference of `separation`.

    The last `count` images (at most the half that is not the reference) are attacked by PGD-10, epsilon 0.3.
    """
    half = len(images) // 2
    some = slice(len(images) - min(count, len(images) - half), None)
    found = torch.cat([pgd(model, x, y, 0.3, step_size=0.075, steps=10, t1=1.0)
                       for x, y in zip(images[some].split(BATCH), labels[some].split(BATCH))])
    return _followed(model, (images[:half], labels[:half]), images[some], found, labels[some], "pgd")[0]


def fooled(model: ODENet, images: Tensor, labels: Tensor, count: int = ATTACKED) -> list[dict]:
    """Where the states of images go that an attack has fooled the network with, and only of those.

    The first half of the images, at most that of `IMAGES`, is the clean reference; those behind it are
    attacked in turn until `count` have fooled the network: by PGD-40 with momentum and gradients at noisy
    points (`nodelib.experiment.protocols.AVERAGED`, one start), because PGD-10 fools too few of a network
    trained against it. Those it takes for another digit unattacked are left out. Where it fools no image,
    one record alone says so, `fooled_share`.
    """
    half, attacked = min(len(images), IMAGES) // 2, 0
    parts: list[tuple[Tensor, ...]] = []
    for x, y in zip(images[half:].split(BATCH), labels[half:].split(BATCH)):
        found = pgd(model, x, y, t1=1.0, **ONE_START)
        with torch.no_grad():
            said, right = model(found, 1.0).argmax(1), model(x, 1.0).argmax(1) == y
        wrong = (said != y) & right  # what was wrong already is not fooled
        attacked += len(x)
        parts.append((x[wrong], y[wrong], found[wrong], said[wrong]))
        if sum(len(part[1]) for part in parts) >= count:
            break
    share = record("fooled_share", sum(len(part[1]) for part in parts) / attacked, 1.0, attacked, "mean",
                   images="fooled")
    clean, own, found, said = (torch.cat(column)[:count] for column in zip(*parts))
    if not len(own):
        return [share]
    records, nearest = _followed(model, (images[:half], labels[:half]), clean, found, own, "fooled")
    return [share] + records + [record("nearest_said", (near == said).double().mean(), t1, len(own), "mean",
                             images="fooled") for t1, near in zip(SNAPSHOTS, nearest)]


def _snapshots(model: ODENet, images: Tensor, centred: bool) -> Tensor:
    """States at `SNAPSHOTS`, with or without the drift, shape (len(SNAPSHOTS), N, C, H, W)."""
    states = (states_at(model, part, SNAPSHOTS, model.block.rtol, model.block.atol)
              for part in images.split(BATCH))
    return torch.cat([remove_drift(model.block.func, y) if centred else y for y in states], 1)


def _followed(model: ODENet, reference: tuple[Tensor, Tensor], clean: Tensor, found: Tensor, labels: Tensor,
              kind: str) -> tuple[list[dict], list[Tensor]]:
    """Records of attacked images beside clean ones at `SNAPSHOTS`, and the class of the nearest direction."""
    known, before, after = (_snapshots(model, x, centred=True) for x in (reference[0], clean, found))
    records, classes = [], []
    for k, t1 in enumerate(SNAPSHOTS):
        classes.append(class_directions(known[k], reference[1]).nearest(after[k]))
        records += [record("nearest_class", (classes[-1] == labels).double().mean(), t1, len(found), "mean",
                           images=kind),
                    median("attacked_angle", angle(after[k], before[k]), t1=t1, images=kind)]
    return records, classes


def six_and_four(model: ODENet, images: Tensor, labels: Tensor) -> list[dict]:
    """How far the directions of two digits are apart; the first half of the images is the reference."""
    func, chosen = model.block.func, (labels == PAIR[0]) | (labels == PAIR[1])
    images, labels = images[chosen], labels[chosen]
    half, label = len(labels) // 2, f"{PAIR[0]}-{PAIR[1]}"
    if len(labels[:half].unique()) < 2:
        raise InputError(f"{len(labels)} images of the digits {PAIR[0]} and {PAIR[1]}; the first half must "
                         "hold both, so give more images")
    records = []
    for t1, states in zip(SNAPSHOTS, _snapshots(model, images, centred=False)):
        clean = remove_drift(func, states)
        told = nearest_class((clean[:half], labels[:half]), clean[half:], labels[half:]).double().mean()
        means = [states[labels == digit].mean(0, keepdim=True) for digit in PAIR]
        records += [record("nearest_class", told, t1, len(labels) - half, "mean", label=label),
                    record("class_mean_angle", angle(*means), t1, len(labels), label=label)]
    return records


def complexity(model: ODENet, images: Tensor, t1: float = 1.0) -> list[dict]:
    """How complex the dynamics are from 0 to t1: Jacobian, turning of the velocity, steps."""
    jacobian, turning, solves = along_path(model, images, t1, every=10)
    return [median("jacobian_norm", jacobian, t1=t1), median("path_turning", turning, t1=t1),
            median("accepted_steps", np.array([solve.accepted for solve in solves]), t1=t1)]


def exponents(model: ODENet, images: Tensor, count: int = 12, log_time: float = LOG_TIME) -> list[dict]:
    """Largest Lyapunov exponent in log time, of the first `count` images. `model` is converted to float64."""
    func, end, w = _late(model, images[:count])
    values = rays.lyapunov_exponent(func, w, log_time=2 * log_time, transient=log_time / 2)
    return [record("lyapunov_exponent", values.mean(), end, len(values), "mean",
                   standard_error=float(values.std() / len(values) ** 0.5))]


def _late(model: ODENet, images: Tensor) -> tuple[ODEFunc, float, Tensor]:
    """The dynamics in float64, a late time, and the scaled states w there.

    A leaky state is not scaled: its equilibria are of finite size. Its clock is log time already, so that t =
    100 is far later for it than t = 1000 is for the others.
    """
    model.double()
    for p in model.parameters():
        p.requires_grad_(False)
    func = model.block.func
    end = 100.0 if func.leaky else 1000.0
    w = states_at(model, images.double(), (end,), 1e-5, 1e-5)[0]
    return func, end, w if func.leaky else w / end


def _rays_reached(func: ODEFunc, w: Tensor) -> Tensor:
    """Number of the ray on which each scaled state lies, -1 where it is on none: int64, shape (N,)."""
    with torch.no_grad():
        settled = norm(rays.normalised_field(func)(w) - w) / norm(w) <= SETTLED
    groups = torch.full((len(w),), -1)
    if settled.any():
        groups[settled] = rays.cluster(remove_drift(func, w[settled]))
    return groups


def doubling(last: float) -> tuple[float, ...]:
    """Log times from 10 on, each twice the one before, up to the last: (10, 20, 40, 80) for 80.

    Raises:
        InputError: the last is not from 10 to 700; later, the time itself is no number any more.
    """
    if not LOG_TIME <= last <= LAST_LOG_TIME:
        raise InputError(f"log time is {last:g}; images are followed from {LOG_TIME:g} to {LAST_LOG_TIME:g} "
                         "at most, so give a value between, such as 80")
    times = [LOG_TIME]
    while times[-1] < last:
        times.append(min(2 * times[-1], float(last)))
    return tuple(times)


def far(model: ODENet, images: Tensor, labels: Tensor, log_times: Iterable[float] = FAR,
        **effort: Any) -> list[dict]:
    """How many images are on a ray ever later in log time, on how many rays, and which of the last ones
    attract.

    `model` is converted to float64. `effort` goes to `solve_ray`. What an image is on is no ray that only
    repels, so the rays reached are solved for from the images on them. How many images of each class are on
    each is in the settings.
    """
    func, end, w = _late(model, images)
    passed, records = 0.0, []
    for log_time in log_times:
        w = rays.flow_in_log_time(func, w, log_time - passed, 1e-5, 1e-5)
        passed, groups = log_time, _rays_reached(func, w)
        records += [record("on_a_ray_later", (groups >= 0).double().mean(), end, len(w), "mean",
                           log_time=log_time),
                    record("rays_later", groups.max() + 1, end, len(w), "count", log_time=log_time)]
    reached = [_solve_from(func, w[groups == g][0], near=True, **effort)
               for g in range(int(groups.max()) + 1)]
    stable = [ray.residual <= SOLVED and ray.eigenvalue + ray.error < 1 for ray in reached]
    return [*records,
            record("rays_later_attracting", sum(stable), end, len(w), "count", log_time=passed,
                   eigenvalues=[ray.eigenvalue for ray in reached],
                   ritz_residuals=[ray.error for ray in reached],
                   residuals=[ray.residual for ray in reached],
                   on_each=[int((groups == g).sum()) for g in range(len(reached))],
                   by_class=[torch.bincount(labels[groups == g], minlength=CLASSES).tolist()
                             for g in range(len(reached))])]


@dataclass(frozen=True)
class Solved:
    """A ray as measured: relative residual, leading real part there, and that one's Ritz residual."""

    residual: float
    eigenvalue: float
    error: float


def _solve_from(func: ODEFunc, start: Tensor, near: bool, **effort: Any) -> Solved:
    """The ray that solves from a scaled state find, the better of two.

    near: the start lies almost on the ray that is wanted. Then a solve that ends elsewhere, on another ray,
    does not count, and where both do the start itself is measured, whose residual says so.
    """
    with torch.no_grad():
        residual = float(norm(rays.normalised_field(func)(start[None]) - start) / norm(start))
    found = [rays.Ray(start, residual, 0)] if near else []
    for smoothing in (0.0, 1.0) if near else (1.0,):
        ray = rays.solve_ray(func, start, **{"smoothing": smoothing, **effort})
        apart = angle(remove_drift(func, ray.w[None]), remove_drift(func, start[None]))
        if not near or float(apart) <= SAME_RAY:
            found.append(ray)
        if found and found[-1].residual <= SOLVED:
            break
    best = min(found, key=lambda ray: ray.residual)
    value, error = rays.leading_eigenvalue(func, best.w)
    return Solved(float(best.residual), float(value.real), float(error))


def class_rays(model: ODENet, images: Tensor, labels: Tensor, log_time: float = LOG_TIME,
               **effort: Any) -> list[dict]:
    """The ray that a solve from the mean state of each class finds, and how many of these are distinct.

    `model` is converted to float64. `effort` goes to `solve_ray`. Rays that only repel are found so, too,
    which no image shows.
    """
    if absent := sorted(set(range(CLASSES)) - set(labels.tolist())):
        raise InputError(f"no image of the classes {absent}; {len(labels)} images are too few, every class "
                         "needs one")
    func, end, w = _late(model, images)
    w = rays.flow_in_log_time(func, w, log_time, 1e-5, 1e-5)
    records, found = [], []
    for digit in range(CLASSES):
        mine = w[labels == digit]
        ray = rays.solve_ray(func, mine.mean(0), **effort)
        common: dict[str, Any] = dict(label=str(digit), n=len(mine), t1=end, statistic="max")
        records += [record("class_ray_residual", ray.residual, **common),
                    record("class_ray_eigenvalue", rays.leading_eigenvalue(func, ray.w)[0].real, **common)]
        if ray.residual <= SOLVED:
            found.append(ray.w)
    distinct = int(rays.cluster(remove_drift(func, torch.stack(found))).max()) + 1 if found else 0
    return [*records, record("class_rays", distinct, end, len(w), "count", log_time=log_time)]


def attractors(model: ODENet, images: Tensor, labels: Tensor, log_time: float = LOG_TIME,
               **effort: Any) -> list[dict]:
    """Where images end: rays per class, those that no other class shares, their residual and stability.

    `model` is converted to float64. `effort` goes to `solve_ray`. Where no image ends on a ray, residual and
    eigenvalue are those of one ray solved for from the mean state, and every class counts 0 attractors.
    """
    func, end, w = _late(model, images)
    w = rays.flow_in_log_time(func, w, log_time, 1e-6, 1e-6)
    groups = _rays_reached(func, w)
    records = [record("on_a_ray", (groups >= 0).double().mean(), end, len(w), "mean", log_time=log_time)]

    @functools.cache
    def solve(group: int) -> Solved:
        start = w[groups == group][0] if group >= 0 else w.mean(0)
        return _solve_from(func, start, near=group >= 0, **effort)

    ends: list[set[int]] = []
    for digit in range(CLASSES):
        mine = groups[labels == digit]
        ends.append({g for g in mine[mine >= 0].unique().tolist() if (mine == g).sum() >= SHARE * len(mine)})
    records.append(record("distinct_attractors", len(set().union(*ends)), end, len(w), "count"))
    for digit, kept in enumerate(ends):
        others = set().union(*ends[:digit], *ends[digit + 1:])
        found = [solve(g) for g in sorted(kept)] or [solve(-1)]
        share = max(((groups[labels == digit] == g).double().mean().item() for g in kept), default=0.0)
        common: dict[str, Any] = dict(label=str(digit), n=int((labels == digit).sum()), t1=end)
        records += [record("attractors", len(kept), statistic="count", **common),
                    record("own_attractors", len(kept - others), statistic="count", **common),
                    record("ray_share", share, statistic="mean", **common),
                    record("ray_residual", max(ray.residual for ray in found), statistic="max", **common),
                    record("ray_eigenvalue", max(ray.eigenvalue for ray in found), statistic="max", **common)]
    return records


def local(model: ODENet | ResNet, images: Tensor, labels: Tensor) -> list[dict]:
    """Median, lower and upper decile of what `local_robustness` finds, at the network's own end time."""
    t1 = model.block.t1 if isinstance(model, ODENet) else None
    return [entry for name, values in local_robustness(model, images, labels).items()
            for entry in (median(name, values, t1=t1),
                          *(record(name, values.double().quantile(q / 100), t1, len(values), f"q{q}")
                            for q in (10, 90)))]


def solver_examples(model: ODENet, found: Found) -> list[dict]:
    """Records of `examples`, `biases`, `elsewhere` or `sought`: means of shares and counts, medians of the
    rest, of images; at the own end time where none is told.
    """
    own, result = dict(t1=model.block.t1), []
    for name, values, settings in found:
        mean = name.startswith("fools") or name in ("step_changes", "program_right")
        told = {**own, **settings}
        if len(values):
            result.append(record(name, values.double().mean(), told.pop("t1"), len(values), "mean", **told)
                          if mean else median(name, values, **told))
    return result


@dataclass(frozen=True)
class Reach:
    """How far states are followed: so many images, 1 or more, to the log time `last`, 10 or more.

    Raises:
        InputError: a number out of its range.
    """

    far: int = FAR_IMAGES
    last: float = FAR[-1]

    def __post_init__(self) -> None:
        check_whole("far_images", self.far, 1)
        doubling(self.last)


@dataclass(frozen=True)
class Part:
    """What is measured in one go and stored together.

    measure: called with the model, images, labels and how far to follow them.
    names: of the records it makes; images: "clean", "pgd" or "fooled", of its records; two: whether they are
        of two digits; used: on how many images they are, at most, of images with these labels; besides:
        names of further records, which older runs lack, or which no image may be left for; every: whether it
        needs two images of every class.
    """

    measure: Callable[[Any, Tensor, Tensor, Reach], list[dict]]
    names: tuple[str, ...]
    images: str = "clean"
    two: bool = False
    used: Callable[[Tensor, Reach], int] = lambda labels, reach: len(labels)
    besides: tuple[str, ...] = ()
    every: bool = False

    @property
    def keys(self) -> set[tuple[str, str, bool]]:
        """The `key` of each of its records."""
        return {(name, self.images, self.two) for name in (*self.names, *self.besides)}

    def missing(self, measurements: list[dict]) -> bool:
        """Whether a run with these measurements lacks some record of it that it can have."""
        none = any(r["name"] == "fooled_share" and not r["value"] for r in measurements)
        if self.images == "fooled" and none:
            return False
        return not {key(r) for r in measurements} >= {(name, self.images, self.two) for name in self.names}


def key(record: dict) -> tuple[str, str, bool]:
    """Name, images and whether a record is of two digits: to which part it belongs."""
    return record["name"], record["images"], "-" in record["label"]


PARTS: dict[str, Part] = {
    "trajectories": Part(lambda model, images, labels, reach: trajectories(model, images, labels), (
        "norm", "relative_speed", "state_accuracy", "turning", "state_velocity_angle", "ray_distance",
        "settling_time", "state_change", "state_angle", "velocity_angle", "nearest_class", "linear_probe",
        "silhouette"), every=True),
    "two digits": Part(lambda model, images, labels, reach: six_and_four(model, images, labels),
                       ("nearest_class", "class_mean_angle"), two=True,
                       used=lambda labels, reach: sum(int((labels == digit).sum()) for digit in PAIR)),
    "complexity": Part(lambda model, images, labels, reach: complexity(model, images[:64]),
                       ("jacobian_norm", "path_turning", "accepted_steps")),
    "attacked": Part(lambda model, images, labels, reach: attacked(model, images, labels),
                     ("nearest_class", "attacked_angle"), "pgd",
                     used=lambda labels, reach: min(ATTACKED, len(labels) - len(labels) // 2), every=True),
    "fooled": Part(lambda model, images, labels, reach: fooled(model, images, labels),
                   ("nearest_class", "attacked_angle", "nearest_said"), "fooled", besides=("fooled_share",),
                   every=True),
    "exponents": Part(lambda model, images, labels, reach: exponents(model, images), ("lyapunov_exponent",)),
    "rays": Part(lambda model, images, labels,
                 reach: attractors(model, images[:RAY_IMAGES], labels[:RAY_IMAGES]),
                 ("on_a_ray", "distinct_attractors", "attractors", "own_attractors", "ray_share",
                  "ray_residual", "ray_eigenvalue"), every=True),
    "far": Part(lambda model, images, labels,
                reach: far(model, images[:reach.far], labels[:reach.far], doubling(reach.last)),
                ("on_a_ray_later", "rays_later", "rays_later_attracting"),
                used=lambda labels, reach: min(reach.far, len(labels))),
    "class rays": Part(lambda model, images, labels,
                       reach: class_rays(model, images[:RAY_IMAGES], labels[:RAY_IMAGES]),
                       ("class_ray_residual", "class_ray_eigenvalue", "class_rays"), every=True),
    "local": Part(lambda model, images, labels,
                  reach: local(model, images[:LOCAL_IMAGES], labels[:LOCAL_IMAGES]),
                  tuple(LOCAL_MEASUREMENTS)),
    "solver": Part(lambda model, images, labels, reach: solver_examples(
                       model, examples(model, images[:SOLVER_IMAGES], labels[:SOLVER_IMAGES])),
                   ("solver_error", "step_changes", "reverse_error"),
                   besides=("fools_program_only", "fools_solver_only", "step_jump")),
    "bias": Part(lambda model, images, labels, reach: solver_examples(
                     model, biases(model, images[:SOLVER_IMAGES], labels[:SOLVER_IMAGES])),
                 ("solver_bias", "solver_distance")),
    "elsewhere": Part(lambda model, images, labels, reach: solver_examples(
                          model, elsewhere(model, images[:SOLVER_IMAGES], labels[:SOLVER_IMAGES])),
                      ("program_right", "solver_error_there"),
                      besides=("fools_program_only_there", "fools_solver_only_there")),
    "sought": Part(lambda model, images, labels, reach: solver_examples(
                       model, sought(model, images[:SOLVER_IMAGES], labels[:SOLVER_IMAGES])),
                   ("solver_bias_made", "solver_distance_made", "fools_program_made",
                    "solver_distance_sought")),
    "held out": Part(lambda model, images, labels, reach: held_out(model), ("held_out_left",),
                     used=lambda labels, reach: HELD_OUT),  # training images, however many others
}


def parts_of(run: artifacts.Run) -> tuple[str, ...]:
    """The parts that make sense for a run.

    Attacked and fooled images are followed for the networks trained to t = 1. Rays and exponents are of the
    flow of directions in log time, which states follow that grow for ever, or leaky ones: those without the
    last normalisation do not. The solver's own adversarial examples are looked for in the small rows.
    Held-out training images are attacked where they choose among weights. Of a residual network only what
    needs no solver.
    """
    if run.config["architecture"] == "resnet":
        return ("local",)
    return tuple(part for part in PARTS if (part not in ("attacked", "fooled") or run.name.startswith("wide"))
                 and (part not in ("rays", "exponents", "far", "class rays") or run.config["last_norm"])
                 and (part not in ("solver", "bias", "elsewhere", "sought") or run.name in ROWS[:3])
                 and (part != "held out" or run.name in HELD_OUT_RUNS))


def pending(run: artifacts.Run) -> tuple[str, ...]:
    """Parts of which a stored run lacks some record."""
    return tuple(part for part in parts_of(run) if PARTS[part].missing(run.measurements))


def check_parts(parts: Iterable[str]) -> None:
    """InputError unless all of them are among `PARTS`."""
    if unknown := sorted(set(parts) - set(PARTS)):
        raise InputError(f"unknown part {unknown[0]!r}; the parts are {', '.join(PARTS)}")


def measure_run(folder: str | Path, count: int | None = None, reach: Reach = Reach(), *,
                parts: Sequence[str] = (), budget: float | None = None,
                report: Callable[[str], None] = lambda line: None) -> list[str]:
    """Measure a stored run on the first test images; each part is stored when it is done.

    Args:
        folder: of the run.
        count: test images, for parts that judge classes at least two of each; default `IMAGES`, for leaky
            dynamics, whose solves cost fifty times as much at t = 1000, `LEAKY_IMAGES`; of the two digits of
            `PAIR` and of fooled images by default, not leaky, all 10,000.
        reach: how many of them are followed further than to their rays, and how far.
        parts: only these of `PARTS`, stored already or not; default all that make sense for the run.
        budget: seconds after which no further part is begun.
        report: called with a line per part.

    Returns:
        the parts measured now.

    Raises:
        InputError: an unknown part, one that makes no sense for the run, or too few images for one.
    """
    check_parts(parts)
    time_left, run, done = Budget(budget), artifacts.load_run(folder), []
    if unfit := sorted(set(parts) - set(parts_of(run))):
        raise InputError(f"part {unfit[0]!r} makes no sense for {run.name}; its parts are "
                         f"{', '.join(parts_of(run))}")
    run.load_model()  # damaged weights are refused, also where nothing is left to measure
    images, labels = test_subset((LEAKY_IMAGES if run.config["leaky"] else IMAGES) if count is None
                                 else count)
    for part in parts or pending(run):
        started = time.monotonic()
        if time_left.spent:
            report(f"{run.path.name}: the time is up before {part}; the same command goes on from here")
            break
        keys = PARTS[part].keys
        measured = (images, labels)
        # all there are: a tenth of them would not do
        if part in ("two digits", "fooled") and count is None and not run.config["leaky"]:
            measured = test_subset(TEST_IMAGES)
        fewest = int(torch.bincount(measured[1], minlength=CLASSES).min())
        if PARTS[part].every and fewest < 2:
            raise InputError(f"{len(measured[1])} images hold {fewest} of some class; the part {part!r} "
                             "needs at least two of each, so give more images")
        used = PARTS[part].used(measured[1], reach)
        artifacts.check_not_fewer(run, used, lambda r: key(r) in keys)  # before hours of work
        records = PARTS[part].measure(run.load_model(), *measured, reach)
        artifacts.add_measurements(run, records, lambda r: key(r) in keys)
        done.append(part)
        report(f"{run.path.name}: {part}, {len(records)} records, {time.monotonic() - started:.0f} s")
    return done
