"""The first round's rule for the headline, until the second's evidence is there: does long integration make a
network robust (C19b)?

What counts. The threat model is l-infinity, epsilon 0.3, pixels in [0, 1], an attacker who knows the
network. Robust accuracy is the worst case per image over all attacks on the deterministic forward pass
(fixed pooling regions). Any single attack with the exact gradient bounds it from above. So one good
attack is enough to refute robustness, but only the full set, with APGD and a gradient-free attack among
it, can support it.
"""

import statistics

from nodelib.statistics import ENTRY_TOLERANCE, within_tolerance
from nodelib.verdicts.evidence import (
    EPSILON,
    FGSM_POST,
    PGD_EXACT,
    WORST,
    Accuracy,
    Evidence,
    Missing,
    accuracy_figure,
    describe,
    matches,
    percents,
)
from nodelib.verdicts.second_round import sensitive
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
)

HEADLINE_RUN, HEADLINE_T1 = "large-100", 100.0

CHANCE_BOUND = 20.0
"""Per cent: twice chance. A network whose robust accuracy lies surely below it is not robust in any sense."""

TRULY_ROBUST = 80.0
"""Per cent: every published MNIST network whose robustness held up lies above it (lowest: 82.93 %, Wong et
al. 2020, under AutoAttack); the one that only masked its gradients fell to 0."""


def strongest(evidence: Evidence, name: str, t1: float) -> list[Accuracy]:
    """Per seed, the record that bounds robust accuracy best: the worst case, else the most harmful exact PGD
    on most images.
    """
    found = []
    for run in evidence.named(name):
        fitting = [r for r in run.metrics if matches(r, t1=t1, **WORST)]
        fitting = fitting or [r for r in run.metrics if matches(r, t1=t1, **PGD_EXACT)]
        if fitting:  # a share of few images is low by luck
            found.append(Accuracy(run, min(fitting, key=lambda r: (-r["n"], r["correct"] / r["n"]))))
    if not found:
        raise Missing([f"{name}: {describe(WORST)} or {describe(PGD_EXACT)} at t1 = {t1:g}"])
    evidence.used += [a.source for a in found]
    return found


def complete(found: list[Accuracy]) -> bool:
    """Whether each record is a worst case over a set with APGD and a gradient-free attack (Square) in it."""
    return all(a.record["attack"] == "worst"
               and any("apgd" in name for name in a.record["combines"] or ())
               and any("square" in name for name in a.record["combines"] or ()) for a in found)


def long_integration(evidence: Evidence) -> Verdict:
    headline, strong = evidence.all(
        lambda: evidence.accuracies(HEADLINE_RUN, HEADLINE_T1, **FGSM_POST),
        lambda: strongest(evidence, HEADLINE_RUN, HEADLINE_T1))
    theirs = evidence.post(HEADLINE_RUN, HEADLINE_T1, "adversarial")
    reproduces = within_tolerance(percents(headline), theirs)
    upper = max(a.interval[1] for a in strong)  # the kindest seed
    lower = min(a.interval[0] for a in strong)
    figures = (accuracy_figure("post's protocol", headline), accuracy_figure("strongest attack", strong))
    attack = strong[0].record
    named = ("the worst case per image over all attacks" if attack["attack"] == "worst"
             else f"PGD with {attack['settings']['steps']} steps")
    said = (f"the post's protocol gives {statistics.fmean(percents(headline)):.1f} % where the post has "
            f"{theirs} %; on the deterministic forward pass {named} at epsilon {EPSILON} leaves "
            f"{statistics.fmean(percents(strong)):.1f} % of {min(a.record['n'] for a in strong):,} images"
            f"{'; one seed' * (len(strong) == 1)}")

    def rule(factor: float) -> Verdict:
        if upper < factor * CHANCE_BOUND:
            if reproduces:
                return Verdict(ARTEFACT, f"{said}: the figure reproduces, the network is not robust", figures)
            return Verdict(NOT_REPRODUCED, f"{said}: in these networks neither the figure nor robustness",
                           figures)
        if not complete(strong):
            raise Missing([f"{a.source}: worst case over a set with APGD and Square" for a in strong])
        if reproduces and lower >= min(factor, 1) * TRULY_ROBUST:  # no accuracy reaches twice that
            return Verdict(REPRODUCED, f"{said}: as robust as adversarially trained networks", figures)
        return Verdict(IN_PART, f"{said}: more than chance, but " + (
            "below every network whose robustness held up" if reproduces else
            f"the figure is off by more than {ENTRY_TOLERANCE:g} points and the range of our seeds"), figures)

    return sensitive(rule)
