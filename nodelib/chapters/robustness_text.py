"""What the records of attacks say, as sentences for the chapter on robustness: each holds for whatever has been measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from nodelib.attacks.strong import STRONG, library_afterthoughts, library_warnings, require
from nodelib.chapters import diagnosis
from nodelib.chapters.pair_text import blind_ahead, per_cent_of, span
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import PAIR, ROWS
from nodelib.experiment.measurement import EPSILON
from nodelib.statistics import SIGNIFICANCE, mcnemar, on_common

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

UNRESOLVED = 36.7  # minus the logarithm of the relative rounding of a double: a larger gap of logits leaves no loss to difference
CHANGES_OF_THE_ATTACK = ("margin", "rescaled", "adjoint", "anchored", "exact-1e-5", "smoothed", "momentum", "square")
HEADLINE = "large-100"  # the post's 92.62 %
CHANCE = 0.1  # accuracy of a guess among ten classes


def answer(runs: Sequence[Run]) -> str:
    """What all attacks together leave of the six rows at their own end times, and which rows they were not run on."""
    bounds = diagnosis.strong_bounds([run for run in runs if run.name in ROWS])
    if not bounds:
        return "No network has been attacked with the whole set yet."
    names = list(dict.fromkeys(run.name for run, _ in bounds))
    images = span([record["n"] for _, record in bounds], 4)
    best = max(bounds, key=lambda pair: pair[1]["accuracy"])
    seeds = ", one seed each," if 1 < len(bounds) == len(names) else ""
    said = [f"{'All' if len(names) == len(ROWS) else len(names)} of the table's {len(ROWS)} networks{seeds} were put through the whole set "
            f"of attacks at their own end time. "
            + (f"None keeps a single one of {images} images at epsilon {EPSILON:g} (the largest upper end of a 95 % interval is "
               f"{max(100 * record['high'] for _, record in bounds):.1f} %)." if best[1]["correct"] == 0 else
               f"The one that keeps most, {best[0].name}, keeps {diagnosis.interval(best[1]['correct'], best[1]['n'])} % of "
               f"{best[1]['n']:,} images at epsilon {EPSILON:g} (95 % interval in parentheses).")]
    if all(diagnosis.untouched(run, record) for run, record in bounds):
        ten = [diagnosis.find(run, f"pgd10-exact-t{record['t1']:g}") for run, record in bounds]
        broken = "Ten steps of PGD had" if all(r is not None and r["correct"] == 0 for r in ten) else "FGSM and ten steps of PGD had"
        said.append(f"{broken} broken every image, so that APGD, FAB and Square had none left to try.")
    others = {run.name: record for run in runs if run.name in ROWS and run.name not in names
              and (record := diagnosis.find(run, f"pgd10-exact-t{run.config['test_t1']:g}")) is not None}
    if others:
        said.append("Ten steps leave " + " and ".join(f"{100 * r['accuracy']:.1f} % of {r['n']:,} images of {name}"
                                                      for name, r in others.items()) + ", on which no more were tried.")
    return " ".join(said)


def headline(runs: Sequence[Run], name: str = HEADLINE) -> str:
    """What one step and ten leave of the network of the post's headline, and what has not been measured on it."""
    run = next((run for run in runs if run.name == name), None)
    if run is None:
        return f"The network of the headline, {name}, is not stored yet."
    t1, parts = run.config["test_t1"], []
    for label, words in (("fgsm-seed", "one step by the post's protocol"), ("fgsm-exact", "one clipped step along the exact gradient"),
                         ("pgd10-exact", "ten such steps")):
        if record := diagnosis.find(run, f"{label}-t{t1:g}"):
            parts.append(f"{words} leaves {per_cent_of(record)} images".replace("steps leaves", "steps leave"))
    clean = diagnosis.find(run, f"none-t{t1:g}")
    said = (f"On the network of the headline, {name}{f', clean {per_cent_of(clean)} images' if clean else ''}: {', '.join(parts)}." if parts else
            f"{name} has not been attacked yet.")
    absent = [words for words, there in (
        ("other gradients", any(r["id"].startswith("fgsm-by-") for r in run.metrics)),
        ("a sweep over epsilon", any(r["id"].startswith("sweep-") for r in run.metrics)),
        ("the changes of one thing at a time", any(r["id"].startswith("mask-") for r in run.metrics)),
        ("HopSkipJump", any(r["attack"] == "hop-skip-jump" for r in run.metrics)),
        ("images from other networks", any(r["attack"] == "transfer" for r in run.metrics))) if not there]
    return said + (f" It has not been tried with {', '.join(absent)}; small networks stand in for it below." if absent else "")


def signs(health: pd.DataFrame, own: Mapping[str, float]) -> str:
    """Share of signs that each gradient gets right, at the networks' own end times and at the last one measured.

    health: of `nodelib.chapters.diagnosis.health_frame`; own: end time of training by run folder.
    """
    share = health[health["name"] == "sign_agreement"]
    at_own = share[share["t1"] == share["run"].map(own)]
    late = share[share["t1"] == share["t1"].max()]
    parts = []
    for part, when in ((at_own, "At the networks' own end times"), (late, f"At t = {share['t1'].max():g}")):
        found = {method: 100 * part[part["method"] == method]["value"] for method in ("adjoint", "anchored", "exact-1e-3", "exact-1e-5")}
        if all(len(values) for values in found.values()) and (part is at_own or not part.index.equals(at_own.index)):
            parts.append(f"{when} the continuous adjoint has {span(found['adjoint'])} % of the signs right, the anchored adjoint "
                         f"{span(found['anchored'])} %, the exact gradient {span(found['exact-1e-3'])} % at tolerance 1e-3 and "
                         f"{span(found['exact-1e-5'])} % at 1e-5")
    if not parts:
        return "No signs are measured yet"
    said = "; ".join(part if k == 0 else part[0].lower() + part[1:] for k, part in enumerate(parts))
    adjoint = late[late["method"] == "adjoint"]
    if len(adjoint) > 1:
        said += f" (the adjoint's lowest share is that of {adjoint.loc[adjoint['value'].idxmin(), 'run']})"
    mine = at_own[(at_own["method"] == "adjoint") & at_own["run"].str.startswith(f"{HEADLINE}-seed")]
    if len(mine):
        said += (f". For {HEADLINE}, the network of the headline, the adjoint has {span(100 * mine['value'])} % right at its own end "
                 f"time, on {mine['n'].max()} images")
    return said


def differenced(health: pd.DataFrame) -> str:
    """How far the reference is from central differences off the kinks, over all networks and end times of `diagnosis.health_frame`."""
    off = health[(health["name"] == "finite_difference") & (health["noise"] > 0)]
    gaps = health[health["name"] == "logit_gap"].set_index(["run", "t1"])["value"]
    lost = [row.value > 0.5 and gaps.get((row.run, row.t1), 0.0) > UNRESOLVED for row in off.itertuples()]
    seen, unseen = off[[not one for one in lost]], off[list(lost)]
    if not len(seen):
        return "Elsewhere it has not been checked."
    worst = seen.loc[seen["value"].idxmax()]
    said = (f"Over {off['run'].nunique()} networks and their end times, {len(seen)} in all, the difference lies between "
            f"{100 * seen['value'].min():.2g} and {100 * worst['value']:.2g} % (most at {worst['run']}, t = {worst['t1']:g}).")
    if len(unseen):
        places = " and ".join(f"{row.run} at t = {row.t1:g}" for row in unseen.itertuples())
        said += (f" At {places} it checks nothing: the two largest logits lie {span(unseen.apply(lambda r: gaps[r['run'], r['t1']], axis=1))} "
                 f"apart, so that the loss of a right answer is below the rounding of a double.")
    return said


def by_gradient(runs: Sequence[Run], epsilon: float = EPSILON) -> str:
    """How many images one step leaves by adjoint, exact and reference gradient, and which of the three McNemar's test tells apart.

    On the images that all three saw.
    """
    methods = {"adjoint": "the adjoint", "exact-1e-3": "the exact gradient", "reference": "the reference"}
    said, ranked = [], []
    for run in runs:
        for t1 in sorted({r["t1"] for r in run.metrics if r["id"].startswith("fgsm-by-reference-")}):
            ids = {method: f"fgsm-by-{method}-eps{epsilon:g}-t{t1:g}" for method in methods}
            if not all(diagnosis.find(run, record) for record in ids.values()):
                continue
            kept = dict(zip(ids, on_common(*(run.outcomes(record) for record in ids.values()))))
            n = len(next(iter(kept.values())))
            place = f"{run.path.name} at t = {t1:g}"
            said.append(f"{', '.join(str(int(bits.sum())) for bits in kept.values())} of {n} images of {place}")
            for one, other in combinations(methods, 2):
                if (p := mcnemar(kept[one], kept[other])) < SIGNIFICANCE:
                    ranked.append(f"{methods[one]} and {methods[other]} on {place} (p = {p:.1g})")
    if not said:
        return "No network has been attacked along all three gradients yet."
    tried = f"McNemar's test (p below {SIGNIFICANCE:g}) separates {len(ranked)} of {3 * len(said)} pairs of gradients"
    return (f"One step of {epsilon:g} along the signs of the adjoint, of the exact gradient and of the reference leaves "
            f"{'; '.join(said)}. {tried}{': ' + '; '.join(ranked) if ranked else ''}.")


def against_epsilon(runs: Sequence[Run]) -> str:
    """How often one attack leaves more at the next larger epsilon, as a poor one may; says so where not measured."""
    pairs = more = 0
    significant = []
    for run in runs:
        for kind, words in (("sweep-fgsm", "FGSM"), ("sweep-pgd40", "PGD")):
            for t1 in sorted({r["t1"] for r in run.metrics if r["id"].startswith(f"{kind}-eps")}):
                found = sorted((r for r in run.metrics if r["id"].startswith(f"{kind}-eps") and r["t1"] == t1), key=lambda r: r["epsilon"])
                for one, other in zip(found, found[1:]):
                    small, large = on_common(run.outcomes(one["id"]), run.outcomes(other["id"]))
                    pairs += 1
                    more += int(large.sum() > small.sum())
                    if large.sum() > small.sum() and mcnemar(small, large) < SIGNIFICANCE:
                        significant.append(f"{words} on {run.path.name} at t = {t1:g} from {one['epsilon']:g} to {other['epsilon']:g}")
    if not pairs:
        return "No sweep is stored yet."
    return (f"From one epsilon to the next larger one an attack leaves more images in {more} of {pairs} cases, significantly (McNemar's p below "
            f"{SIGNIFICANCE:g}) in {len(significant) or 'none'}{': ' + '; '.join(significant) if significant else ''}.")


def warnings_of(runs: Sequence[Run], images: Tensor, labels: Tensor) -> dict[str, list[str]] | None:
    """Of what AutoAttack's library warns before and after it attacks each run at its own end time; None where it is not installed.

    Before: on these images. After: of its four attacks as they are stored, where all four are.
    """
    try:
        require("pyautoattack")
    except ImportError:
        return None
    heard = {}
    for run in runs:
        if run.config["architecture"] == "odenet":
            left = {name: r["accuracy"] for name in STRONG if (r := diagnosis.find(run, f"{name}-t{run.config['test_t1']:g}"))}
            heard[run.path.name] = (library_warnings(run.load_model(), images, labels, t1=run.config["test_t1"])
                                    + (library_afterthoughts(left) if len(left) == len(STRONG) else []))
    return heard


def heeded(warnings: Mapping[str, Sequence[str]] | None) -> str:
    """The warnings of `warnings_of` as a sentence."""
    if warnings is None:
        return "the library is not installed here, so that it was not asked."
    if not warnings:
        return "no network was asked."
    heard = [f"{name}: {'; '.join(lines)}" for name, lines in warnings.items() if lines]
    return (f"it warns of {len(heard)} of {len(warnings)} networks ({', '.join(heard)})." if heard else
            f"it has no warning for any of {len(warnings)} networks.")


def unmasked(runs: Sequence[Run], epsilons: Sequence[float]) -> str:
    """Which changes of the attack leave fewer images than PGD-10 does, and which more, by McNemar's test on the same images.

    Only changes of the attack are judged: not those that change the network or what is allowed.
    """
    fewer, more, judged = [], [], 0
    for epsilon in epsilons:
        for run, t1, suffix in diagnosis.masked(runs, epsilon):
            plain = diagnosis.find(run, f"mask-plain{suffix}")
            if not plain["correct"]:
                continue
            judged += 1
            for name in CHANGES_OF_THE_ATTACK:
                record = diagnosis.find(run, f"mask-{name}{suffix}")
                if record is None:
                    continue
                before, after = on_common(run.outcomes(plain["id"]), run.outcomes(record["id"]))
                if mcnemar(before, after) < SIGNIFICANCE:
                    said = (f"{diagnosis.MASKING[name]} in {run.path.name} at t = {t1:g}, epsilon {epsilon:g} "
                            f"({100 * after.mean():.1f} against {100 * before.mean():.1f} %)")
                    (fewer if after.sum() < before.sum() else more).append(said)
    if not judged:
        return "In no column does the plain attack leave anything that another could take."
    parts = [f"significantly {word} (McNemar's p below {SIGNIFICANCE:g}) is left by: {'; '.join(said)}"
             for word, said in (("less", fewer), ("more", more)) if said]
    where = ("In the only column in which the plain attack leaves something, " if judged == 1 else
             f"Of the {judged} columns in which the plain attack leaves something, ")
    none = "no" if judged == 1 else "in none does a"
    tail = "leaves" if judged == 1 else "leave"
    return where + (f"{'; '.join(parts)}." if parts else
                    f"{none} change of the attack {tail} significantly less or more (McNemar's p below {SIGNIFICANCE:g}).")


def beyond_the_attack(runs: Sequence[Run], epsilon: float) -> str:
    """What the rows that `unmasked` does not judge show: pooling drawn anew at `epsilon`, and the tolerance at 0.3.

    They change the network that is attacked, so that "less" and "more" are not the attack's doing.
    """
    drawn, said = {}, []
    for run, _, suffix in diagnosis.masked([run for run in runs if not run.config["adversarial"]], epsilon):
        for name in ("plain", "random-pooling", "expectation"):
            if record := diagnosis.find(run, f"mask-{name}{suffix}"):
                drawn.setdefault(name, []).append(100 * record["accuracy"])
    if len(drawn) == 3:
        hides = min(drawn["expectation"]) > max(drawn["plain"])
        said.append(f"At epsilon {epsilon:g} pooling that is drawn anew keeps {span(drawn['random-pooling'])} % against the gradient of one "
                    f"draw and {span(drawn['expectation'])} % against that of ten, where fixed pooling keeps {span(drawn['plain'])} %"
                    + (": one draw's gradient makes the draws look stronger than ten steps along that of ten show, and more draws or steps may leave still less." if hides else "."))
    for run, t1, suffix in diagnosis.masked(runs):
        plain, tight = (diagnosis.find(run, f"mask-{name}{suffix}") for name in ("plain", "tolerance-1e-6"))
        if tight is None or not plain["correct"]:
            continue
        before, after = on_common(run.outcomes(plain["id"]), run.outcomes(tight["id"]))
        if (p := mcnemar(before, after)) < SIGNIFICANCE:
            said.append(f"Solved at tolerance 1e-6, {run.path.name} at t = {t1:g} keeps {100 * after.mean():.1f} % at epsilon "
                        f"{EPSILON:g} in place of {100 * before.mean():.1f} % (p = {p:.1g}): a tighter solver leaves less.")
    return " ".join(said)


def transferred(runs: Sequence[Run]) -> str:
    """What images made on another network leave, over all pairs and on the network of the headline, as a clause."""
    tried = [(run, r) for run in runs for r in run.metrics if r["attack"] == "transfer"]
    if not tried:
        return "no pair has been measured yet"
    said = f"over {len(tried)} pairs they leave {span([100 * r['accuracy'] for _, r in tried])} %"
    mine = [(run, r) for run, r in tried if run.name == HEADLINE]
    if mine:
        left = [100 * r["accuracy"] for _, r in mine]
        own = [100 * r["accuracy"] for run, _ in mine if (r := diagnosis.find(run, f"pgd10-exact-t{run.config['test_t1']:g}"))]
        said += f", and of {HEADLINE} {span(left)} %" + (
            f", where ten steps along its own gradient leave {max(own):.1f} %" if own else "")
    return said


def masks(runs: Sequence[Run]) -> str:
    """In how many columns of `nodelib.chapters.diagnosis.masking_table` the plain attack leaves nothing that a mask could explain."""
    plain = [diagnosis.find(run, f"mask-plain{suffix}") for run, _, suffix in diagnosis.masked(runs)]
    none = sum(r["correct"] == 0 for r in plain)
    if not plain:
        return "Nothing of this is measured yet."
    return (f"Where the plain attack leaves nothing, there is no robustness for a mask to explain; so it is in {none} of "
            f"{len(plain)} columns." if none else f"In none of {len(plain)} columns does the plain attack leave nothing.")


def black_box(bounds: Sequence[tuple[Run, dict]]) -> str:
    """Whether HopSkipJump gets further than the attacks by gradients on the runs of `nodelib.chapters.diagnosis.strong_bounds`."""
    found = [(diagnosis.find(run, f"hop-skip-jump-t{worst['t1']:g}"), ahead, worst) for run, worst in bounds
             if (ahead := diagnosis.black_box_ahead(run, worst["t1"])) is not None]
    if not found:
        return "The attack that sees labels alone has not been measured on these networks yet."
    queries, left = {r["settings"]["steps"] for r, *_ in found}, [100 * r["accuracy"] for r, *_ in found]
    networks = "network" if len(found) == 1 else f"{len(found)} networks"
    said = (f"With {span(queries, 4)} labels an image, HopSkipJump leaves {span(left)} % of {span([r['n'] for r, *_ in found])} images on "
            f"the {networks} it was run on")
    further = sum(broken > 0 for _, (broken, _), _ in found)
    if further:
        return said + f"; on {further} it breaks images that attacks by gradients leave, a sign of masked gradients."
    if all(worst["correct"] == 0 for *_, worst in found):
        return said + ". The attacks by gradients leave none at all, so that a black box could not be ahead of them."
    return said + (", and breaks none that attacks by gradients leave: no black box is ahead, which would be a sign of masked "
                   "gradients.")


def contrast(runs: Sequence[Run]) -> str:
    """What the whole set leaves of the t = 1 pair, one of which was trained against attack; says so where it is not measured."""
    bounds = diagnosis.strong_bounds([run for run in runs if run.name in PAIR])
    said = [f"{run.name} keeps {diagnosis.interval(record['correct'], record['n'])} % of {record['n']:,} images" for run, record in bounds]
    resists = any(run.config["adversarial"] and record["low"] > CHANCE for run, record in bounds)
    if not said:
        return "The pair of the next chapter, one of which was trained against attack, has not been through the whole set yet."
    absent = [run.name for run in runs if run.name in PAIR and run.name not in {bound.name for bound, _ in bounds}]
    return (f"Of the pair of the next chapter, through the same set and what else was tried within the ball, {' and '.join(said)} (95 % interval in parentheses)"
            + (": an ODE-net can resist these attacks, if it is trained to." if resists else ".") + blind_ahead([run for run, _ in bounds])
            + (f" {', '.join(dict.fromkeys(absent))} has not been through all of it; the next chapter gives what is left so far." if absent else ""))


def drawing(frame: pd.DataFrame, attackers: Sequence[str], epsilon: float = EPSILON) -> str:
    """How far attackers who know the end time, aim at one or average over several are apart, and whether drawing protects.

    attackers: names in the frame of `nodelib.experiment.random_end_time.random_end_time_accuracy`: knows the end time, aims at one, averages.
    """
    left, low, high = (frame.pivot(index="epsilon", columns="attacker", values=value)[list(attackers)]
                       for value in ("accuracy", "low", "high"))
    knows, one, mean = (left[name] for name in attackers)
    alike = bool((low.max(axis=1) <= high.min(axis=1)).all())
    at = left.loc[epsilon]
    left_there = f"each leaves {at.max():.1f} %" if at.max() - at.min() < 0.05 else f"they leave {at.min():.1f} to {at.max():.1f} %"
    return (f"From aiming at the middle end time to averaging, accuracy changes by {_signed(mean - one)} points, from that to knowing the "
            f"end time by {_signed(knows - mean)}; at every epsilon the intervals over {frame['n'].max()} images "
            f"{'overlap' if alike else 'do not all overlap'}. At epsilon {epsilon:g} {left_there}"
            + (": drawing the end time does not protect." if at.max() < 1 else "."))


def _signed(values: pd.Series) -> str:
    """The range of some differences, with their signs."""
    low, high = (f"{v:+.1f}".replace("-", "−") for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def anchors(seed: Mapping) -> str:
    """What the published networks lose from their lowest PGD figure to AutoAttack; the masked one apart."""
    lost, masked = [], []
    for a in seed["anchors"]:
        lowest = min(p["accuracy"] for p in a["pgd"])
        (masked if "masked" in a["network"] else lost).append((lowest - a["autoattack"], a["clean"] - a["autoattack"]))
    return (f"From the lowest PGD figure to AutoAttack the {len(lost)} that were trained against attacks lose "
            f"{span([pgd for pgd, _ in lost], 2)} points, and {span([clean for _, clean in lost], 3)} from clean; the one whose "
            f"gradients were masked loses {span([pgd for pgd, _ in masked], 3)} points and keeps nothing.")
