"""The first round's rules for Part I, what the post says about neural ODEs in general: C1, C2 and C7, judged
at half, once and twice their thresholds as the second round asks, and C3 and C4 until its evidence is there.
"""

import statistics

from nodelib.verdicts.evidence import CLEAN, Evidence, Missing, accuracy_figure, percents
from nodelib.verdicts.second_round import sensitive
from nodelib.verdicts.verdict import (
    ARTEFACT,
    IN_PART,
    NOT_REPRODUCED,
    REPRODUCED,
    Figure,
    Verdict,
    by_share,
    first_round_claim,
)

EULER_ORDER, STRAY = 1.0, 0.2
"""Euler has order 1; a fitted order strays by a tenth or two over a finite range of step sizes."""

STRONG_CORRELATION = 0.5
"""Rank correlation from which we call an association strong (Cohen's conventional bound)."""

FEWEST_TRAJECTORIES = 32
"""Below this, a median over trajectories is not worth judging."""

GRADIENT_TOLERANCE = 1e-6
"""Relative; in float64 with solver tolerance 1e-10 or tighter three correct gradients agree to 1e-7 or
better, central differences being the weakest of them."""

CONSTANT_MEMORY = 1.5
"""Factor by which peak memory may grow with ten times the steps and still count as constant (allocators
and time grids are not free); storing every step would give nearly ten."""

ADJOINT_ERROR_FACTOR = 2.0
"""The adjoint's error may be twice that of backprop through the same solve: two solves, each with an error
of the tolerance's size. More than that is the method's own failure."""

USELESS = 0.9
"""Relative error of a gradient from which on the reason calls it useless: that of a gradient of zero is 1. It
judges nothing.
"""

MATCH_POINTS = 0.3
"""Accuracies at 99 % on 10,000 images have a 95 % interval of 0.2 points either side; a gap of 0.3 is the
smallest one that such a test set can see."""

THREE_TIMES = (2.0, 4.0)
"""What "roughly three times fewer" allows."""

SAME_SIZE = 1.6
"""Factor within which two networks count as of the same size."""

DENSITY_TOLERANCE = 1e-4
"""Nats; the two log-densities are the same quantity computed twice in float64 at tight tolerance."""

EXPONENT_GAP = 0.5
"""Difference of growth exponents that shows over the dimensions of a laptop benchmark."""


def euler_is_resnet(evidence: Evidence) -> Verdict:
    difference, order = evidence.chapter("C1", "unit_step_difference", "euler_order")
    reason = (f"layer by layer the two differ by {difference:g}; smaller steps converge with observed order "
              f"{order:.2f}")
    figures = Figure("largest difference", difference), Figure("order", order)

    def rule(factor: float) -> Verdict:
        converges = abs(order - EULER_ORDER) <= factor * STRAY
        verdict = NOT_REPRODUCED if difference != 0 else REPRODUCED if converges else IN_PART
        return Verdict(verdict, reason, figures)

    return sensitive(rule)


def steps_follow_complexity(evidence: Evidence) -> Verdict:
    """C2. A correlation cannot pass twice 0.5, so the threshold is judged at half and once."""
    error, rate, speed = evidence.chapter("C2", "step_against_error", "step_against_rate",
                                          "step_against_speed")
    if len(error) < FEWEST_TRAJECTORIES:
        raise Missing([f"C2: at least {FEWEST_TRAJECTORIES} trajectories, found {len(error)}"])
    middle = {name: statistics.median(values) for name, values in
              (("local error", error), ("rate of change of the velocity", rate), ("speed", speed))}
    reason = "median rank correlation of accepted step size with " + ", ".join(
        f"{name} {value:.2f}" for name, value in middle.items()) + "; the first two are judged"
    figures = []
    for name, values in (("local error", error), ("rate", rate)):
        quarters = statistics.quantiles(values, n=4)
        figures.append(Figure(f"correlation with {name}", quarters[1], quarters[0], quarters[2]))

    def rule(factor: float) -> Verdict:
        holds = [middle[name] <= -factor * STRONG_CORRELATION
                 for name in ("local error", "rate of change of the velocity")]
        # the chapter's trajectories are of the first seed of each row
        return Verdict(by_share(holds), reason, tuple(figures), note="one seed")

    return sensitive(rule, factors=[0.5, 1])


def adjoint_gives_gradient(evidence: Evidence) -> Verdict:
    difference, adjoint_memory, backprop_memory, times, adjoint, backprop = evidence.chapter(
        "C3", "gradient_difference", "memory_growth_adjoint", "memory_growth_backprop", "end_times",
        "adjoint_error",
        "backprop_error")
    if absent := [t for t in (1.0, 10.0, 100.0, 500.0) if t not in times]:
        raise Missing([f"C3: adjoint error at end time {t:g}" for t in absent])
    right = difference <= GRADIENT_TOLERANCE
    constant = adjoint_memory <= CONSTANT_MEMORY < backprop_memory
    fails = [t for t, a, b in zip(times, adjoint, backprop) if a > ADJOINT_ERROR_FACTOR * b]
    verdict = NOT_REPRODUCED if not (right and constant) else IN_PART if fails else REPRODUCED
    reason = (f"exact in the limit (relative difference {difference:.1e}), peak memory grows by "
              f"{adjoint_memory:.2f} with ten times the steps (backprop {backprop_memory:.1f})")
    reason += ("; on a trained network its error exceeds twice backprop's at t1 = "
               f"{', '.join(f'{t:g}' for t in fails)}"
               if fails else "; on a trained network its error stays within twice backprop's at every end "
               "time")
    errors = list(zip(times, adjoint, backprop))
    useless = [t for t in times if all(min(a, b) >= USELESS for s, a, b in errors if s >= t)]
    if useless:
        reason += (f"; on this network both are useless from t1 = {min(useless):g} on, their errors about as "
                   "large as the gradient or larger")
    return Verdict(verdict, reason,
                   tuple(Figure(f"{method} error at t1 = {t:g}", value) for t, *both in errors
                         for method, value in zip(("adjoint", "backprop"), both)))


def fewer_parameters(evidence: Evidence) -> Verdict:
    names = (("wide-standard", 1.0), ("resnet-6", 1.0), ("resnet-1", 1.0))
    found = dict(zip(("ode", "six", "one"), evidence.every(evidence.accuracies, names, **CLEAN).values()))
    size = {name: each[0].run.provenance["parameters"] for name, each in found.items()}
    mean = {name: statistics.fmean(percents(each)) for name, each in found.items()}
    ratio = size["six"] / size["ode"]
    smaller = THREE_TIMES[0] <= ratio <= THREE_TIMES[1]
    figures = (accuracy_figure("ODE-net", found["ode"]), accuracy_figure("six blocks", found["six"]),
               accuracy_figure("one block", found["one"]),
               Figure("parameters, six blocks over ODE-net", ratio))

    def rule(factor: float) -> Verdict:
        points = factor * MATCH_POINTS
        if mean["ode"] < mean["six"] - points:
            return Verdict(NOT_REPRODUCED, f"the ODE-net stays more than {points:g} points below six blocks",
                           figures)
        if not smaller:
            return Verdict(IN_PART, f"the accuracy matches, but the sizes differ by a factor {ratio:.1f}, "
                           "not about three", figures)
        if mean["one"] >= mean["six"] - points and size["one"] <= SAME_SIZE * size["ode"]:
            return Verdict(ARTEFACT, "the figure holds, but a single residual block of the ODE-net's size "
                           "matches six blocks too: the saving needs no ODE", figures)
        return Verdict(REPRODUCED, "the ODE-net matches six blocks, and one block of its size does not",
                       figures)

    return sensitive(rule)


def flows_are_cheaper(evidence: Evidence) -> Verdict:
    """C7. Between the cube and the square lies a power of one, which is reached only in the limit of large
    dimensions: twice 0.5 is judged no more than twice a correlation of 0.5.
    """
    difference, trace, logdet = evidence.chapter("C7", "log_density_difference", "trace_exponent",
                                                 "logdet_exponent")
    reason = (f"log-densities agree to {difference:.1e}; cost grows with exponent {trace:.2f} (trace) "
              f"against {logdet:.2f} (log-determinant)")
    figures = (Figure("difference", difference, unit="nats"), Figure("trace exponent", trace),
               Figure("log-determinant exponent", logdet))

    def rule(factor: float) -> Verdict:
        right, cheaper = difference <= DENSITY_TOLERANCE, trace <= logdet - factor * EXPONENT_GAP
        verdict = NOT_REPRODUCED if not right else REPRODUCED if cheaper else IN_PART
        return Verdict(verdict, reason, figures)

    return sensitive(rule, factors=[0.5, 1])


CLAIMS = (
    first_round_claim("C1", euler_is_resnet),
    first_round_claim("C2", steps_follow_complexity),
    first_round_claim("C7", flows_are_cheaper),
)
