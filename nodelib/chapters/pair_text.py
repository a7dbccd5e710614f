"""What the pair's records say, as sentences for the prose: each holds for whatever has been measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nodelib.chapters import pair
from nodelib.experiment import configs
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import AttackConfig, RunConfig
from nodelib.experiment.measurement import Measurement
from nodelib.experiment.protocols import SWEEP_T1
from nodelib.experiment.worst_case import survivors
from nodelib.statistics import SIGNIFICANCE, mcnemar, on_common, wilson
from nodelib.verdicts.end_time import KEEPS

KINDS = ("adversarial", "standard")
ADVERSARIAL = "wide-adversarial"
PLAIN = configs.CONTINUES[ADVERSARIAL]  # the same network before it was trained against summed gradients
GAP = 5.0  # points by which one attack may leave more than all before it is called misleading
LAST = SWEEP_T1[-1]
STAGES = 6  # evaluations of a step of dopri5
POST_RECIPE = (40, 0.01)  # attack steps and step size of the post's code


def span(values: Iterable[float], digits: int = 3) -> str:
    """The lowest and the highest of some values in words, or the only one."""
    values = list(values)
    low, high = (f"{v:,.0f}" if abs(v) >= 10 ** (digits - 1) else f"{v:.{digits}g}" for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def recipe(runs: Sequence[Run]) -> str:
    """How the stored pair was trained, or will be."""
    used = {kind: next((RunConfig.from_dict(run.config) for run in runs if pair.kind(run) == kind), configs.get(f"wide-{kind}"))
            for kind in KINDS}
    attacked = used["adversarial"]
    attacks = [attacked.adversarial.in_cycle(number) for number in range(max(1, len(attacked.cycles)))]
    epochs: dict[tuple[int, float, bool], int] = {}
    for attack, count in zip(attacks, attacked.cycles or (attacked.epochs,)):
        kind_ = attack.steps, attack.step_size, attack.momentum > 0
        epochs[kind_] = epochs.get(kind_, 0) + count
    strength = ", then ".join(f"{steps} steps of {size:g}{' along summed gradients (explained below)' if summed else ''}"
                              + (f" for {count} epoch{'s' if count > 1 else ''}" if len(epochs) > 1 else "")
                              for (steps, size, summed), count in epochs.items())
    said = (f"Ours share the optimiser, Adam, with a rate that rises to {attacked.learning_rate:g} and falls again: the "
            f"first sees {used['standard'].epochs} epochs of clean images, the second {attacked.epochs} epochs of every batch twice, "
            f"clean and attacked by PGD with {strength}, from a random start within epsilon {attacked.adversarial.epsilon:g}. ")
    if attacked.cycles:
        said += (f"The second's epochs come in {len(attacked.cycles)} cycles ({', '.join(map(str, attacked.cycles))}); with every new one the rate rises and falls again, to half the "
                 f"height. So schedule and images per step differ as well, and a difference between the two need not be due to the "
                 f"attack alone. ")
    if shared := sum(attack.shared_pooling for attack in attacks):
        said += (f"Each forward pass draws its own pooling regions, except in the last {'cycle' if shared == 1 else f'{shared} cycles'}, where a "
                 f"step draws them once, for the attack and the loss alike. ")
    steps, size = POST_RECIPE
    said += (f"The post's code takes {steps} steps of {size:g}, projects each onto the ball of {attacked.adversarial.epsilon:g} around the "
             f"original image, and attacks other images than the clean ones of the batch, with the network in training mode. (For one day, "
             f"7 to 8 January 2019, it held the steps to a box around the image as it already was; nothing is built on that.)")
    count = {kind: sum(pair.kind(run) == kind for run in runs) for kind in KINDS}
    stored = (f"Stored of this pair: {count['standard']} standard and {count['adversarial']} adversarial." if any(count.values())
              else "Neither is stored yet, and the figures of this section are blank until they are.")
    return f"{said} {stored}"


def blunted(found: dict[str, np.ndarray], attack: AttackConfig) -> str:
    """Whether regions that are drawn anew weaken an attack, from `nodelib.chapters.pair.under_random_pooling`."""
    said = {}
    for name, correct in found.items():
        low, high = wilson(int(correct.sum()), len(correct))
        said[name] = f"{100 * correct.mean():.1f} % [{100 * low:.1f} to {100 * high:.1f}]"
    p = mcnemar(found["anew"], found["once"])
    verdict = ("the draws blunt the attack" if found["anew"].mean() > found["once"].mean() else "the draws sharpen it") if p < SIGNIFICANCE \
        else "no significant difference"
    return (f"PGD with {attack.steps} steps of {attack.step_size:g}{' along summed gradients' if attack.momentum else ''} leaves {said['anew']} of {len(found['anew'])} test images with "
            f"regions drawn anew in every pass and {said['once']} with one draw for all passes: {verdict} (McNemar's p = {p:.2g})")


def cost(runs: Sequence[Run]) -> str | None:
    """What a test solve to t1 = 1 costs; None unless both networks have it."""
    nfe = _by_kind(runs, pair.test_nfe)
    return nfe and (f"A test solve to end time 1 takes {span(nfe['adversarial'])} evaluations after adversarial and "
                    f"{span(nfe['standard'])} after standard training.")


def cost_elsewhere(runs: Sequence[Run], chosen: Sequence[float] = (10.0, 1000.0)) -> str | None:
    """Whether the order of the two costs at t1 = 1 holds for attacked images and for other end times; None where not measured.

    chosen: end times to name the costs at; the nearest ones measured are taken.
    """
    frame = pair.end_time_frame(runs)
    mean = frame.groupby(["test", "t1", "network"])["nfe"].mean().unstack("network")
    if not {*KINDS} <= {*mean.columns} or "clean" not in mean.index.get_level_values("test"):
        return None
    clean = mean.loc["clean"].dropna()
    if 1.0 not in clean.index or len(clean) < len(chosen) + 1:
        return None
    def both(row) -> str:
        return f"{row['standard']:.0f} after standard and {row['adversarial']:.0f} after adversarial training"
    def order(row) -> bool:
        return row["adversarial"] > row["standard"]
    def at(t1: float) -> str:
        return f"at t = {float(f'{t1:.3g}'):,g}"
    said = []
    turned = [t1 for t1, row in clean.iterrows() if t1 > 1 and order(row) != order(clean.loc[1.0])]
    if turned:
        said.append(f"That order turns round at once: {at(turned[0])} it is {both(clean.loc[turned[0]])}")
    times = dict.fromkeys(min(clean.index, key=lambda t1: abs(np.log(t1 / wanted))) for wanted in chosen)
    said += [f"{at(t1)}, {both(clean.loc[t1])}" for t1 in times if t1 not in turned[:1]]
    attacked = [test for test in mean.index.get_level_values("test").unique() if test != "clean" and 1.0 in mean.loc[test].dropna().index]
    said += [f"on images under {test} at t = 1, {both(mean.loc[test].loc[1.0])}" for test in attacked]
    text = "; ".join(said)
    steps = abs(clean.loc[1.0, "adversarial"] - clean.loc[1.0, "standard"]) / STAGES
    few = f" So the comparison at end time 1 hangs on {'one step' if steps <= 1 else 'two steps'} of the solver, and says little by itself." if steps <= 2 else ""
    return f"{text[0].upper()}{text[1:]}.{few}"


def reach(runs: Sequence[Run]) -> str | None:
    """How far in end time clean accuracy reaches; None unless both networks have it."""
    ends = _by_kind(runs, pair.reach)
    if not ends:
        return None
    said = {kind: f"{span(found)}{' and more (the last end time measured)' if max(found) >= LAST else ''}"
            for kind, found in ends.items()}
    return (f"Clean accuracy stays within {KEEPS:g} points of that at end time 1 up to t = {said['adversarial']} after "
            f"adversarial and up to t = {said['standard']} after standard training (measured at end times a factor "
            f"{SWEEP_T1[1] / SWEEP_T1[0]:.2f} apart, on {span(_late_images(runs), 4)} images).")


def late_masks(runs: Sequence[Run]) -> str:
    """Whether a saturated loss is why steps along it leave so much at an end time other than 1; may be empty."""
    said = []
    for run in runs:
        for t1 in sorted({r["t1"] for r in run.metrics if r["t1"] != 1.0 and r["id"] == f"mask-plain-t{r['t1']:g}"}):
            plain, margin = (next((r for r in run.metrics if r["id"] == f"mask-{name}-t{t1:g}"), None) for name in ("plain", "margin"))
            if margin is None or mcnemar(*on_common(*(run.outcomes(r["id"]) for r in (plain, margin)))) >= SIGNIFICANCE \
                    or margin["accuracy"] >= plain["accuracy"]:
                continue
            gap = next((m["value"] for m in run.measurements if m["name"] == "logit_gap" and m["t1"] == t1), None)
            why = f", where the two largest logits of the median image lie {gap:.0f} apart and the cross-entropy has next to no gradient," if gap else ""
            said.append(f"At t = {t1:g}{why} ten steps of PGD leave {per_cent_of(plain)} images of {run.name} along the cross-entropy and "
                        f"{per_cent_of(margin)} along the margin loss: what the curve under FGSM shows there is a saturated loss and no robustness.")
    return " ".join(said)


def _late_images(runs: Sequence[Run]) -> list[int]:
    """How many images the pair's clean records after end time 1 hold."""
    return [r["n"] for run in runs for r in run.metrics if r["attack"] == "none" and r["t1"] > 1] or [0]


def robustness(runs: Sequence[Run]) -> str | None:
    """What all attacks so far leave of each network at t1 = 1; None unless both were attacked."""
    frame = pair.robustness_frame(runs)
    busy = frame[(frame["attack"] != "none") & ~frame["idle"].astype(bool)]
    lowest = busy.assign(apart=~busy["attack"].str.startswith("worst")).sort_values(["apart", "accuracy", "n"], ascending=[True, True, False], kind="stable")
    last = lowest.groupby(["network", "seed"], sort=False).first().reset_index()
    said = []
    for kind in KINDS:
        part = last[last["network"] == kind]
        if not len(part):
            return None
        certain = f" (95 % interval {part['low'].iloc[0]:.1f} to {part['high'].iloc[0]:.1f}, one seed)" if len(part) == 1 else ""
        together = part["attack"].str.startswith("worst").any()
        last_one = "" if together else f", the lowest row being {'; '.join(dict.fromkeys(part['attack']))}"
        said.append(f"the {kind} network keeps {span(part['accuracy'])} % of {span(part['n'], 4)} images{certain} after the attacks so "
                    f"far{' together' if together else ''}{last_one}")
    return f"At epsilon {pair.EPSILON:g}, {', and '.join(said)}.{blind_ahead(runs)}"


def blind_ahead(runs: Sequence[Run]) -> str:
    """Where Square, which uses no gradient, broke many images at t1 = 1 (`GAP` points) that the attacks before it had left; may be empty."""
    said = ""
    for run in runs:
        square = next((r for r in run.metrics if r["id"] == "square-t1"), None)
        left = square and square["n"] - ((square["settings"] or {}).get("dropped") or 0)
        if left and 100 * (left - square["correct"]) >= GAP * square["n"]:
            said += (f" Square, which uses no gradient, broke {left - square['correct']} of the {left} images that the attacks "
                     f"before it had left of {run.name}: to follow its gradient misleads, and what PGD leaves of it is no measure of its robustness.")
    return said


def why_blind(runs: Sequence[Run]) -> str:
    """Whether the gradient, the loss or the solver is why Square gets further on `PLAIN`; says so where not measured."""
    run = next((run for run in runs if run.name == PLAIN and run.metrics), None)
    found = {name: record for name in ("plain", "margin", "rescaled", "exact-1e-5", "adjoint", "tolerance-1e-6", "smoothed", "momentum", "square", "square-rescored")
             if run and (record := next((r for r in run.metrics if r["id"] == f"mask-{name}-t1"), None))}
    if not {"plain", "margin", "rescaled", "square", "square-rescored"} <= set(found):
        return "Why is not measured yet."
    plain, square, tight = (found[name] for name in ("plain", "square", "square-rescored"))
    said = [f"Alone, on {square['n']} images, Square leaves {100 * square['accuracy']:.1f} %, and {100 * tight['accuracy']:.1f} % when its images "
            f"are scored one by one at tolerance 1e-5: "
            + ("they fool the network and not its solver." if tight["accuracy"] <= square["accuracy"] + 0.05 else
               "a part of them fools the solver and not the flow.")]
    signs = [100 * r["value"] for r in run.measurements if r["name"] == "sign_agreement" and r["t1"] == 1.0
             and (r["settings"]["gradient"], r["settings"]["rtol"]) == ("exact", 1e-3)]
    if signs:
        said.append(f"At clean images the gradient is not wrong: {signs[-1]:.0f} % of its signs are those of the loss solved to tolerance 1e-7 (along the attack that has not been "
                    f"measured).")
    changes = [name for name in ("margin", "rescaled", "exact-1e-5", "adjoint", "tolerance-1e-6") if name in found]
    low, high = (f"{100 * f(found[name]['accuracy'] for name in changes):.1f}" for f in (min, max))
    better = [name for name in changes if found[name]["accuracy"] < plain["accuracy"]
              and mcnemar(*on_common(*(run.outcomes(r["id"]) for r in (found[name], plain)))) < SIGNIFICANCE]
    said.append(f"Ten steps of PGD leave {100 * plain['accuracy']:.1f} % of {plain['n']} images, and {low} to {high} % with another loss, scale, "
                f"gradient or tolerance; " + (f"significantly less with {', '.join(better)}." if better else
                                              "none of them takes significantly more (McNemar's test)."))
    smooth = found.get("smoothed")
    helps = smooth is not None and smooth["accuracy"] < plain["accuracy"] and mcnemar(
        *on_common(run.outcomes(smooth["id"]), run.outcomes(plain["id"]))) < SIGNIFICANCE
    if smooth is not None:
        said.append(f"Along the margin loss and its gradient averaged over ten copies with noise of {smooth['settings'].get('noise', 0):g} ten steps "
                    f"leave {100 * smooth['accuracy']:.1f} %" + (": the gradient around an image leads further than the one at it." if helps else "."))
    if (summed := found.get("momentum")) is not None:
        said.append(f"The sum of the steps' gradients, one at a noisy point each, costs no more passes than plain PGD and leaves "
                    f"{100 * summed['accuracy']:.1f} %.")
    alone, usual = (next((r for r in run.metrics if r["id"] == f"pgd40-{kind}-t1"), None) for kind in ("averaged", "exact"))
    if alone is not None and usual is not None and usual["n"] >= alone["n"]:
        kept = int(run.outcomes(usual["id"])[:alone["n"]].sum())
        said.append(f"{alone['settings']['steps']} steps of {alone['settings']['step_size']:g} along a sum that decays by "
                    f"{alone['settings'].get('momentum', 0):g}, from {alone['settings']['restarts']} starts, leave {per_cent_of(alone)}; FGSM and plain PGD "
                    f"up to {usual['settings']['steps']} steps, together, {100 * kept / alone['n']:.1f} % of the same images.")
    if not better and tight["accuracy"] < plain["accuracy"] - 0.1:
        said.append("So it is the loss that misleads: its gradient at a point does not lead to where Square finds it high. What in the "
                    "network causes this has not been tested.")
    return " ".join(said)


def order(runs: Sequence[Run]) -> str:
    """Whether Square, which uses no gradient, gets further alone on the adversarial network than PGD on the same images."""
    run = next((run for run in runs if run.name == ADVERSARIAL and run.metrics), None)
    found = {name: r for name in ("square", "plain", "momentum")
             if run and (r := next((r for r in run.metrics if r["id"] == f"mask-{name}-t1"), None))}
    if len(found) < 3:
        return "On our adversarial network that is not measured yet."
    blind, plain, summed = on_common(*(run.outcomes(found[name]["id"]) for name in ("square", "plain", "momentum")))
    p = mcnemar(plain, blind)
    ahead = p < SIGNIFICANCE and blind.sum() < plain.sum()
    alone = [int((one & ~other).sum()) for one, other in ((plain, blind), (blind, plain))]
    few = 0.5 ** (sum(alone) - 1) >= SIGNIFICANCE  # no outcome on so few images could have been significant
    return (f"On the same {len(blind)} images of {run.name}, Square with {found['square']['settings']['steps']:,} queries leaves "
            f"{100 * blind.mean():.1f} % alone, {found['plain']['settings']['steps']} steps of plain PGD {100 * plain.mean():.1f} %, and as many "
            f"along summed gradients {100 * summed.mean():.1f} %: "
            + ("it gets further, so that the gradient still hides something" if ahead else "it stays behind" if p < SIGNIFICANCE else
               f"{alone[0]} fall to Square and not to plain PGD, {alone[1]} the other way round, "
               + ("too few to tell" if few else "no significant difference"))
            + f" (McNemar's p = {p:.2g}).")


def usual_bar(runs: Sequence[Run]) -> str:
    """What PGD with 40 steps from five starts leaves of `PLAIN`, as a clause."""
    run = next((run for run in runs if run.name == PLAIN), None)
    found = run and next((r for r in run.metrics if r["id"] == "pgd40-exact-t1"), None)
    return per_cent_of(found) if found else "(not measured yet)"


def per_cent(correct: int, n: int) -> str:
    """"51.2 % [45.1 to 57.2] of 256": a share with its 95 % interval."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.1f} % [{100 * low:.1f} to {100 * high:.1f}] of {n:,}"


def per_cent_of(record: dict) -> str:
    """`per_cent` of a record."""
    return per_cent(record["correct"], record["n"])


def averaged_recipe(config: RunConfig) -> str:
    """How the run that continues the adversarial one was trained further."""
    attack, (_, _, length) = config.adversarial.in_cycle(len(config.cycles) - 1), config.cycle(config.steps - 1)
    epochs = length // config.steps_per_epoch
    return (f"{config.name} takes over where {configs.CONTINUES[config.name]} ended and is trained for {epochs} more epoch"
            f"{'s' if epochs > 1 else ''}, against {attack.steps} steps of {attack.step_size:g} along the sum of gradients, each at a point within "
            f"{attack.noise:g} of where the attack is")


def _measured(runs: Sequence[Run], name: str) -> Run | None:
    return next((run for run in runs if run.name == name and run.metrics), None)


def _record(run: Run | None, label: str) -> dict | None:
    """A run's record of a label at t1 = 1, if there is a run and it has one."""
    return run and next((r for r in run.metrics if r["id"] == f"{label}-t1"), None)


def averaged_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Attacks on `PLAIN` and on `ADVERSARIAL` at their own end time: the attack, then a cell for each.

    Only attacks that both have been tried with, alone, on the images that both were tried on; and all together. Empty where one of the
    two is not measured.
    """
    both = [_measured(runs, name) for name in (PLAIN, ADVERSARIAL)]
    if None in both:
        return []
    rows = []
    for label, words in (("none", "clean"), ("pgd10-exact", "PGD, 10 steps"), ("mask-momentum", "PGD, 10 steps, summed gradients"), ("pgd40-averaged", "PGD, 40 steps, 5 restarts, summed gradients"),
                         ("mask-square", "Square alone"), ("worst", "all together")):
        found = [_record(run, label) for run in both]
        if None not in found:
            n = min(record["n"] for record in found)
            cells = (per_cent(int(run.outcomes(record["id"])[:n].sum()), n) for run, record in zip(both, found))
            rows.append((words, *cells))
    return rows


def averaged(runs: Sequence[Run]) -> str:
    """Whether training against averaged gradients closes the hole that a blind attack found; says so where not measured."""
    before, after = (_measured(runs, name) for name in (PLAIN, ADVERSARIAL))
    found = [_record(run, "worst") for run in (before, after)]
    if None in found:
        return "What all attacks together leave of it is not measured yet."
    shared = [name for name in found[0]["combines"] if name in found[1]["combines"]]
    n = min(record["n"] for record in found)
    a, b = (survivors([r for r in run.metrics if r["id"] in shared], run.outcomes, Measurement(1.0, n, "worst", pair.EPSILON))[0]
            for run in (before, after))
    p = mcnemar(a, b)
    change = "no significant difference" if p >= SIGNIFICANCE else "a gain" if b.mean() > a.mean() else "a loss"
    usual = _record(after, "pgd10-exact")
    said = (f"On the same {n} images the attacks that both were tried with, together, leave {100 * a.mean():.1f} % before and "
            f"{100 * b.mean():.1f} % after: {change} (McNemar's p = {p:.2g}). Summed gradients are what it was trained against, so that "
            f"Square, which uses none, is the independent test; and how much of the change is due to one more epoch, of any attack, has not "
            f"been told apart.")
    if usual is not None:
        kept, left = on_common(after.outcomes(usual["id"]), after.outcomes("worst-t1"))
        gap, words = 100 * (kept.mean() - left.mean()), f"Ten steps of plain PGD leave {100 * kept.mean():.1f} %"
        said += (f" {words} of it and so still overstate what all attacks together leave, by {gap:.1f} points." if gap > GAP else
                 f" {words} of it, {gap:.1f} points more than all attacks together.")
    return said


def strongest_missing(runs: Sequence[Run]) -> str:
    """Which attacks of the strong set the adversarial network has not been tried with at t1 = 1, in a sentence; may be empty."""
    tried = {r["attack"] for run in runs if pair.kind(run) == "adversarial" for r in run.metrics if r["t1"] == 1.0}
    absent = [name for attack, name in (("apgd-ce", "APGD"), ("fab-t", "FAB"), ("square", "Square"), ("hop-skip-jump", "HopSkipJump"))
              if attack not in tried]
    return (f"On our adversarial network {' and '.join(absent)} {'has' if len(absent) == 1 else 'have'} not been run, so that what is left "
            f"of it bounds from above what all of them would leave." if absent else "")


def complexity(runs: Sequence[Run]) -> str | None:
    """The measures of complexity of both networks; None where neither measure is there for both."""
    frame, said = pair.complexity_frame(runs), []
    for measure, label in pair.COMPLEXITY.items():
        values = {kind: frame[(frame["measure"] == measure) & (frame["run"] == f"wide-{kind}")]["value"] for kind in KINDS}
        if all(len(found) for found in values.values()):
            said.append(f"{label}: {span(values['adversarial'])} after adversarial, {span(values['standard'])} after standard "
                        f"training")
    return f"For the pair, {'; '.join(said)}." if said else None


def missing(runs: Sequence[Run]) -> list[str]:
    """Runs of the pair and measurements of them that chapter 07 shows and that are not there, in words."""
    absent = []
    for name in configs.PAIR:
        mine = [run for run in runs if run.name == name]
        if not mine:
            absent.append(name)
            continue
        robust = pair.robustness_frame(mine)
        for what, have in (("accuracy at 40 end times", any(pair.reach(run) is not None for run in mine)),
                           ("cost of a test solve", any(pair.test_nfe(run) is not None for run in mine)),
                           ("accuracy under attack", (robust["attack"] != "none").any()),
                           ("complexity", len(pair.complexity_frame(mine)) > 0)):
            if not have:
                absent.append(f"{what} of {name}")
    return absent


def _by_kind(runs: Sequence[Run], value) -> dict[str, list[float]] | None:
    found = {kind: [v for run in runs if pair.kind(run) == kind and (v := value(run)) is not None] for kind in KINDS}
    return found if all(found.values()) else None
