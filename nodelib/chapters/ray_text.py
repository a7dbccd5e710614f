"""What measured rays, equilibria and states at rest say, as sentences for the prose of the chapters on states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nodelib.chapters import state_records
from nodelib.chapters.pair_text import ADVERSARIAL, KINDS, per_cent, per_cent_of, span
from nodelib.chapters.state_text import NETWORKS
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.measure_states import LOG_TIME
from nodelib.statistics import mcnemar, on_common
from nodelib.verdicts.states import MOST_CLASSES, RESIDUAL, SAME_CLASS

MOST = 0.9  # share of states at rest, or of images classified correctly, from which the prose speaks of all
ONE_STATE = 5.0  # degrees within which two directions count as one state, as for rays
LEAKY_PAIR = ("wide-adversarial-leaky", "wide-standard-leaky")
LEAKY_OF = {"wide-adversarial-leaky": "wide-adversarial", "wide-standard-leaky": "wide-standard", "small-100-leaky": "small-100"}
MOST_OF = 0.5  # share of images at an equilibrium from which the prose asks why a loose solve shows none
HALTED = 0.05  # change of a share of images while log time doubles, below which it seems to have come to its end
REST = 0.01  # t |f| / |y|, the share of its size that a state moves in a unit of log time, below which it is at rest


def rays(frame: pd.DataFrame, short: bool = False) -> str | None:
    """Rays of the pair, from `nodelib.chapters.state_records.ray_frame`; None where neither network has been followed to its rays."""
    found = {kind: frame[frame["run"] == f"wide-{kind}"] for kind in KINDS}
    if not any(len(part) for part in found.values()):
        return None
    said = []
    for kind, part in found.items():
        if not len(part):
            said.append(f"after {kind} training this is not measured yet")
            continue
        own = f", and {span(part['single'])} of the ten classes on an attracting one that no other class shares"
        many = _images(part["on_a_ray"].iloc[0], part["n"].iloc[0]) if len(part) == 1 else f"{span(100 * part['on_a_ray'])} % of images"
        said.append(f"after {kind} training {many} are on a ray{'' if short else own}")
    return f"In the post's pair, {LOG_TIME:g} units of log time after t = 1000, {'; '.join(said)}."


def from_the_mean(frame: pd.DataFrame) -> str:
    """What a solve from the mean state finds where no image ends on a ray, from `state_records.ray_frame`; may be empty."""
    found: dict[str, list[str]] = {"repels": [], "attracts": [], "none": []}
    for row in frame[frame["most"] == 0].itertuples():
        label = _label(row.run, row.seed, frame)
        if row.residual > RESIDUAL:
            found["none"].append(f"{label} (residual {row.residual:.2g})")
            continue
        said = f"{label} ({'an equilibrium, ' if row.leaky else ''}residual {row.residual:.0e}, largest real part {row.eigenvalue:.2f}"
        tenfold = math.log(10) / (1 - row.eigenvalue) if row.eigenvalue < 1 else 0.0
        if tenfold > LOG_TIME / 3 and math.isnan(row.later):  # to be within 0.001 takes about three powers of ten
            said += (f"; a deviation shrinks tenfold in {tenfold:.0f} units of {'' if row.leaky else 'log '}time, and the images were followed for "
                     f"{LOG_TIME:g}, so that they may be on their way")
        found["repels" if row.eigenvalue > 1 else "attracts"].append(f"{said})")
    parts = [f"{words} {', '.join(names)}" for words, names in (
        ("one that repels in", found["repels"]), ("one that attracts in", found["attracts"]), ("none in", found["none"])) if names]
    return f"Where no image is on a ray after {LOG_TIME:g} units, a solve from the mean state finds {'; '.join(parts)}." if parts else ""


def not_followed(runs: Sequence[Run], leaky: bool = False) -> str:
    """Names of the post's networks, or of the trained leaky ones, that have not been followed to their rays, in words."""
    followed = set(state_records.ray_frame(runs)["run"])
    names = dict.fromkeys(run.name for run in runs if run.config["leaky"]) if leaky else NETWORKS
    return ", ".join(name for name in names if name not in followed) or "none"


def at_rest(runs: Sequence[Run]) -> str:
    """In which networks directions come to rest: share of images per run that has been followed to its rays.

    Without the leaky ones, whose states do not grow and whose clock is another.
    """
    frame = state_records.ray_frame([run for run in runs if not run.config["leaky"]])
    if not len(frame):
        return "No network's states have been followed to their end yet."
    shares: dict[str, list[str]] = {}
    for row in frame.sort_values("on_a_ray", ascending=False, kind="stable").itertuples():
        shares.setdefault(f"{100 * row.on_a_ray:.0f} %", []).append(_label(row.run, row.seed, frame))
    images = span(frame["n"])
    said = "; ".join(f"{share} in {', '.join(names)}" for share, names in shares.items())
    absent = not_followed(runs)
    return (f"Followed from t = 1000 on for a further factor of {float(f'{math.exp(LOG_TIME):.2g}'):,.0f} in time ({LOG_TIME:g} units of log time), the direction "
            f"of this share of {images} images comes to rest: {said}{'' if absent == 'none' else f'; not followed: {absent}'}.")


def shared(runs: Sequence[Run], short: bool = False) -> str:
    """Runs in which the classes have no steady state of their own because all end on one and the same ray."""
    said, frame = [], state_records.ray_frame(runs)
    for leaky_ones, place in ((False, "ray"), (True, "equilibrium")):
        names = [_label(run.name, run.seed, frame) for run in runs if run.config["leaky"] == leaky_ones and _one_for_all(run)]
        if not names:
            continue
        listed = f"In {names[0]}" if len(names) == 1 else f"In each of {', '.join(names[:-1])} and {names[-1]}"
        said.append(f"{listed} all ten classes end on one and the same {place} (at least {100 * SAME_CLASS:g} % of every class): a steady "
                    f"state, and not one per class.")
        nearly = [_label(run.name, run.seed, frame) for run in runs if run.config["leaky"] == leaky_ones and _nearly(run)]
        if nearly and not short:
            said.append(f"In {', '.join(nearly)} the images that are on a {place} by then, some of every class, are on a single one, too.")
    if said and not short:
        said.append("What tells the classes apart there at a finite time is the way to it; as t grows without bound, every image "
                    "that is on that ray gets the same answer.")
    if not short:
        said += [_several(part) for _, part in state_records.far_frame(runs).groupby(["run", "seed"], sort=False)
                 if not part.iloc[-1]["leaky"] and part.iloc[-1]["rays"] > 1 and part.iloc[-1]["mixed"]]
    return " ".join(said) or "In no network measured do all ten classes end on one and the same ray."


def _several(part: pd.DataFrame) -> str:
    """What a run's rows of `state_records.far_frame` say of classes, where its rays are several and each holds several."""
    last, before = part.iloc[-1], part.iloc[-2] if len(part) > 1 else None
    halted = before is not None and abs(last["share"] - before["share"]) < HALTED and last["share"] < MOST
    return (f"In {last['run']} {_images(last['share'], last['n'])} are on a ray after {last['log_time']:g} units of log time; these rays are "
            f"{last['rays']:.0f}, and each with more than one image holds several classes: steady states, and again not one per class."
            + (f" After {before['log_time']:g} units it was {100 * before['share']:.0f} %; whether the others arrive later, run on a cycle or wander "
               f"chaotically is not decided." if halted else ""))


def exponents(runs: Sequence[Run]) -> str:
    """The measured Lyapunov exponent against the one that theory gives where all images end on one ray; may be empty.

    How far the estimates are off there bounds what a small exponent elsewhere can mean.
    """
    said, errors, sure = [], [], True
    frame = state_records.ray_frame(runs)
    known = {(run.name, run.seed) for run in runs if _one_for_all(run)}
    for row in frame.itertuples():
        if (row.run, row.seed) not in known or row.on_a_ray < 1 or math.isnan(row.exponent) or math.isnan(row.standard_error):
            continue
        expected = row.eigenvalue - 1
        errors.append(row.exponent - expected)
        sure &= abs(errors[-1]) <= 2 * row.standard_error
        said.append(f"{expected:.2f} in {row.run} (seed {row.seed}), where the estimate is {row.exponent:.2f} ± "
                    f"{2 * row.standard_error:.1g}")
    if not said:
        return ""
    text = f"Where every image ends on one ray, the exponent must be the largest real part there less 1: {'; '.join(said)}."
    if sure:
        return text
    sizes = span([abs(error) for error in errors], 1)
    text += (f" All {len(errors)} estimates are low, by {sizes}" if len(errors) > 1 and max(errors) < 0 else
             f" So ± is not the whole error: the estimate{'s are' if len(errors) > 1 else ' is'} off by {sizes}")
    text += ": an average over a finite time is off by more than ± says." if len(errors) > 1 and max(errors) < 0 else "."
    small = [f"{row.exponent:.2f} ± {2 * row.standard_error:.2f} of {row.run}" for row in frame.itertuples()
             if abs(row.exponent) <= 2 * row.standard_error + max(map(abs, errors))]
    return text + (f" These are errors in networks that settle, and elsewhere they need not have this sign; and every estimate ends after "
                   f"{2.5 * LOG_TIME:g} units of log time. So {' and '.join(small)} speak of the way and not of where it leads: slow settling, a "
                   f"cycle and weak chaos are all possible." if small else "")


def leaky(runs: Sequence[Run]) -> str:
    """How many images of the leaky controls end at an equilibrium, in one sentence."""
    said = []
    for row in state_records.ray_frame([run for run in runs if run.config["leaky"]]).itertuples():
        where = "" if row.on_a_ray == 0 else f", {'all at the same one' if row.distinct == 1 else f'at {row.distinct:.0f} of them'}"
        said.append(f"{_images(row.on_a_ray, row.n)} in {row.run}{where}")
    return f"Of the leaky controls' images these end at an equilibrium: {'; '.join(said)}." if said else "No leaky control is measured yet."


def leaky_notes(runs: Sequence[Run]) -> str:
    """What a table of the leaky controls does not show: solves from the mean state, and states that a loose solve keeps moving."""
    said = []
    for run in runs:
        if not run.config["leaky"]:
            continue
        for row in state_records.ray_frame([run]).itertuples():
            kind, found = "repels" if row.eigenvalue > 1 else "attracts", (
                f"(residual {row.residual:.1g}, largest real part there {row.eigenvalue:.2f})")
            if row.most == 0:
                said.append(f"In {run.name} a solve from the mean state finds one that {kind} {found}." if row.residual <= RESIDUAL else
                            f"In {run.name} a solve from the mean state finds none {found}.")
            pace = state_records.value(run, "relative_speed", t1=1000.0)
            if row.on_a_ray >= MOST_OF and pace > REST:
                said.append(f"Solved at the network's own tolerance of {run.config['rtol']:g}, and not tightly as for that count, the states "
                            f"of {run.name} do not rest: at t = 1000 the median one still moves by {100 * pace:.0f} % of its size per unit "
                            f"of time, so that what its other figures say of late times, accuracy included, is the solver's doing as well.")
    return " ".join(said)


def leaky_against_plain(runs: Sequence[Run], plain: Mapping[str, str] = LEAKY_OF) -> str:
    """What ten steps of PGD leave with the leak and without, each at its own end time, on the same images; may be empty.

    plain: of a leaky network's name, the one it is compared with.
    """
    said, most = [], 0.0
    named = {run.name: run for run in runs if run.seed == 0}
    for leaky_name, plain_name in plain.items():
        pair = [named.get(name) for name in (leaky_name, plain_name)]
        found = [run and _under_attack(run, run.config["test_t1"]) for run in pair]
        if not all(found):
            continue
        bits = on_common(*(run.outcomes(record["id"]) for run, record in zip(pair, found)))
        n, kept, p = len(bits[0]), [int(each.sum()) for each in bits], mcnemar(*bits)
        said.append(f"{100 * kept[0] / n:.1f} % of {n:,} images in {leaky_name} and {100 * kept[1] / n:.1f} % in {plain_name}"
                    + (f" (McNemar's p = {p:.1g})" if max(kept) else ""))
        most = max(most, (kept[0] - kept[1]) / n)
    if not said:
        return ""
    return (f"Ten steps of PGD, each at the network's own end time, leave {'; '.join(said)}: "
            + ("in none of these pairs does the leaky network keep more." if most <= 0 else
               f"the leaky network keeps at most {100 * most:.1f} points more."))


def leaky_like_for_like(runs: Sequence[Run], stages: Sequence[Mapping], names: tuple[str, str] = (LEAKY_PAIR[0], ADVERSARIAL)) -> str:
    """What ten steps leave of a leaky network and of its plain one when that had been trained for as long; may be empty.

    stages: of `nodelib.verdicts.prolonged.stages`, earlier states of the plain network, in which the attack was the same.
    """
    leaky = next((run for run in runs if run.name == names[0] and run.seed == 0), None)
    found = leaky and _under_attack(leaky, leaky.config["test_t1"])
    for stage in stages if found else ():
        if (stage["runs"], stage["epochs"]) == ([names[1]], [leaky.config["epochs"]]) and "pgd10-exact" in stage["left"].get(names[1], {}):
            correct, n = stage["left"][names[1]]["pgd10-exact"]
            return (f"After as many epochs against the same attack as {names[0]} had, the plain network kept {per_cent(correct, n)} images under ten "
                    f"steps, the leaky one {per_cent_of(found)}.")
    return ""


def leaky_pair(runs: Sequence[Run]) -> str:
    """Whether adversarial training makes one equilibrium per class where equilibria exist by construction; may be empty."""
    rows = {row.run: row for row in state_records.ray_frame([run for run in runs if run.name in LEAKY_PAIR]).itertuples()}
    if len(rows) < len(LEAKY_PAIR):
        return ""
    told = [f"{rows[name].single} of the ten classes end at an attracting one of their own after {kind} training"
            for name, kind in zip(LEAKY_PAIR, ("adversarial", "standard"))]
    makes = rows[LEAKY_PAIR[0]].single >= MOST_CLASSES
    return (f"So where equilibria exist by construction, adversarial training {'makes' if makes else 'did not make'} one per class: "
            f"{' and '.join(told)}."
            + ("" if rows[LEAKY_PAIR[0]].on_a_ray else " More the adversarial control cannot say: no image of it reaches an equilibrium."))


def leaky_training(run: RunConfig, plain: RunConfig) -> str:
    """How an adversarially trained leaky network was trained beside the one it is compared with, and what its clock means."""
    def schedule(config: RunConfig) -> str:
        attacks = [config.adversarial.in_cycle(number) for number in range(max(1, len(config.cycles)))]
        steps = " then ".join(dict.fromkeys(f"{attack.steps} of {attack.step_size:g}{' along summed gradients (chapter 7)' if attack.momentum else ''}"
                                            for attack in attacks))
        return f"{config.epochs} epochs against steps of PGD ({steps})"

    same = schedule(run) == schedule(plain)
    return (f"{run.name} is trained for {schedule(run)}, {plain.name} for {'as many against the same' if same else schedule(plain)}"
            f"{'' if same else ', so that the two differ in more than the leak'}. The end time t = {run.t1[1]:g} of a leaky network is "
            f"{math.expm1(run.t1[1]):.2f} of the plain clock.")


def far(runs: Sequence[Run]) -> str:
    """What following images further shows, where they were not on a ray by the end of the shorter flow; may be empty."""
    frame = state_records.far_frame(runs)
    said: dict[float, list[str]] = {}
    none: dict[float, list[tuple[str, int]]] = {}
    for (name, seed), part in frame.groupby(["run", "seed"], sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        if first["share"] >= 1:
            continue
        label = _label(name, seed, state_records.ray_frame(runs))
        said.setdefault(last["log_time"], [])
        if last["share"] == 0:
            none.setdefault(last["log_time"], []).append((label, last["n"]))
            continue
        place, stable = "at an equilibrium" if last["leaky"] else "on a ray", last["attracting"]
        if last["rays"] == 1:
            which = "a single one" + ("" if math.isnan(stable) else f", which {'attracts' if stable else 'repels'}")
        else:
            which = f"{last['rays']:.0f} different ones" + ("" if math.isnan(stable) else ", all of which attract" if stable == last["rays"] else
                                                     f", of which {stable:.0f} attract{'s' if stable == 1 else ''}")
            if last["mixed"]:
                which += " (each with more than one image holds several classes; where the other images end is open)"
        said[last["log_time"]].append(f"in {label} {_images(last['share'], last['n'])} are {place}, on {which}")
    sentences = []
    for log_time, parts in sorted(said.items()):
        if log_time in none:
            parts.append(f"none of {span(n for _, n in none[log_time])} images is on one in {', '.join(label for label, _ in none[log_time])}")
        leaky = " (leaky: of time)" if frame[frame["log_time"] == log_time]["leaky"].any() else ""
        sentences.append(f"After {log_time:g} units of log time{leaky}, {'; '.join(parts)}.")
    return " ".join(sentences)


def class_rays(runs: Sequence[Run]) -> str:
    """How many rays solves from the classes' mean states find, and whether they attract; may be empty."""
    found: dict[str, list[str]] = {}
    for row in state_records.class_ray_frame(runs).itertuples():
        label = _label(row.run, row.seed, state_records.ray_frame(runs))
        solved = "" if row.solved == 10 else f" ({row.solved} of ten solves)"
        if not row.solved:
            kind, solved = "no ray", ""
        elif row.rays == 1:
            kind = f"one and the same ray, which {'attracts' if row.attracting else 'repels'}"
        else:
            kind = f"{row.rays} rays, of which those of {row.attracting} classes attract"
        found.setdefault(kind, []).append(f"{label}{solved}")
    said = "; ".join(f"{kind}, in {', '.join(names)}" for kind, names in sorted(found.items(), key=lambda one: one[0] == "no ray"))
    return f"Solves from the mean state of each class find {said}." if said else ""


def come_to_rest(runs: Sequence[Run]) -> str:
    """Which stored runs without the last normalisation are at rest at t = 1000, and what it brings them; may be empty."""
    said = []
    for row in state_records.late_frame([run for run in runs if not run.config["last_norm"]]).itertuples():
        run = next(run for run in runs if (run.name, run.seed) == (row.run, row.seed))
        attacked = _under_attack(run)
        if row.pace <= REST:
            said.append(f"Without its last normalisation a network's states nearly come to rest ({row.run}, seed {row.seed}; at t = 1000 the "
                        f"median one moves by {_percent(row.pace)} of its size per unit of log time): "
                        f"{100 * row.accuracy_1000:.1f} % of {row.n} images are still classified correctly at t = 1000"
                        + (f", and PGD of ten steps leaves {100 * attacked['accuracy']:.1f} % of {attacked['n']:,} at "
                           f"t = {attacked['t1']:g}{_moving(run, attacked['t1'])}" if attacked else "") + ".")
    return " ".join(said)


def rest(run: Run | None, found: tuple[float, float, float, float, float] | None) -> str:
    """What a network without the last normalisation says of rest, classes and robustness.

    Args:
        run: the stored run, or None.
        found: at the latest time followed: the time, the share of images whose velocity is exactly zero, the
            accuracy there, and the mean angles in degrees within and across classes; or None.
    """
    if run is None or found is None:
        return "Whether states come to rest without the last normalisation is not measured yet."
    time, still, right, within, across = found
    said = [f"At t = {time:,.0f} the velocity of {100 * still:.1f} % of the numerical states is exactly zero, and the head "
            f"classifies {100 * right:.1f} % of the images correctly."]
    if still >= MOST:
        said.append("Such a state stays where it is, and its class with it."
                    if right >= MOST else "Such a state stays where it is, and it is of no use.")
        said.append(f"It is not one state per class: two images of a class end {within:.0f} degrees apart, two of different "
                    f"classes {across:.0f}, each where it happened to stop." if within > ONE_STATE else
                    f"Images of a class end {within:.0f} degrees apart.")
    else:
        said.append("So most states are still on their way.")
    attacked = _under_attack(run)
    if attacked:
        said.append(f"Under PGD of ten steps with the exact gradient, epsilon {attacked['epsilon']:g}, {attacked['n']:,} images, "
                    f"it keeps {100 * attacked['accuracy']:.1f} % at t = {attacked['t1']:g}{_moving(run, attacked['t1'])}.")
    return " ".join(said)


def stability(eigenvalues: np.ndarray, residual: float, short: bool = False) -> str:
    """Whether directions are drawn to a ray or driven from it; where no ray was found, that.

    Args:
        eigenvalues: complex, of the Jacobian of f where the solver stops; those with real part above 1 repel.
        residual: |f(w) - w| / |w| there.
        short: without the count of eigenvalues.
    """
    unstable, leading = int((eigenvalues.real > 1).sum()), f"{eigenvalues.real.max():.2f}"
    if residual > RESIDUAL:
        said = f"No ray was found: the solver stops at a residual of {residual:.2g}, although a solution of f(w) = w exists."
        return said if short else (f"{said} Of the {len(eigenvalues)} eigenvalues of J there, {unstable} "
                                   f"{'has' if unstable == 1 else 'have'} real part above 1, the largest being {leading}; "
                                   f"that says nothing about a ray elsewhere.")
    if short:
        return f"A ray was found, and it {'repels' if unstable else 'attracts'} (largest real part {leading}; below 1 attracts)."
    if not unstable:
        return f"The ray attracts: all {len(eigenvalues)} eigenvalues there have real part below 1, the largest being {leading}."
    return (f"The ray repels: of the {len(eigenvalues)} eigenvalues there, {unstable} {'has' if unstable == 1 else 'have'} real "
            f"part above 1, the largest being {leading}. A state may come near along the stable directions and is thrown out "
            f"along the unstable ones.")


def _label(name: str, seed: int, frame: pd.DataFrame) -> str:
    """The run's name, with its seed where several of them are in the frame."""
    return f"{name} (seed {seed})" if (frame["run"] == name).sum() > 1 else name


def _images(share: float, n: float) -> str:
    """"49 of 50 images", of a share of them."""
    return f"{share * n:.0f} of {n:.0f} images"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 1 else f"{100 * share:.0f} %"


def _place(leaky: bool) -> str:
    """What a solution of f(w) = w is called, with its article."""
    return "an equilibrium" if leaky else "a ray"


def _one_for_all(run: Run) -> bool:
    """Whether all ten classes end on one and the same ray."""
    return state_records.value(run, "distinct_attractors", statistic="count") == 1 and _least_share(run) >= SAME_CLASS


def _nearly(run: Run) -> bool:
    """Whether images of all ten classes are on one and the same ray, though not yet as many as `_one_for_all` asks for."""
    return state_records.value(run, "distinct_attractors", statistic="count") == 1 and 0 < _least_share(run) < SAME_CLASS


def _least_share(run: Run) -> float:
    """The smallest share of a class that ends on a ray."""
    return min(state_records.value(run, "ray_share", label=str(digit), statistic="mean") for digit in range(10))


def _moving(run: Run, t1: float) -> str:
    """A clause on how far from rest the median state is at an end time; empty where it is at rest, or not measured."""
    leaky = run.config["leaky"]  # its time is log time already
    pace = (1 if leaky else t1) * state_records.value(run, "relative_speed", t1=t1)
    return (f", where the median state still moves by {_percent(pace)} of its size per unit of {'' if leaky else 'log '}time, so "
            f"that it was not attacked at rest" if pace > REST else "")


def _under_attack(run: Run, t1: float | None = None) -> dict | None:
    """PGD-10 with the exact gradient at an end time, or at the latest at which it is measured."""
    found = [r for r in run.metrics if r["id"].startswith("pgd10-exact-t") and t1 in (None, r["t1"])]
    return max(found, key=lambda r: r["t1"], default=None)
