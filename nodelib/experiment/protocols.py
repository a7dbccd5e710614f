"""What is measured on a run, by name: the table, strong attacks, sweeps, masking, transfer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nodelib.attacks.strong import RANDOMISED
from nodelib.experiment.configs import COMPARED, ROWS, TABLE_T1, RunConfig
from nodelib.experiment.contract import CHECKED_EPSILON, LADDER, LADDER_CHECK, LADDER_EPSILONS, SWEPT
from nodelib.experiment.measurement import BATCH, EPSILON, SEED_BATCH, TEST_IMAGES, Measurement
from nodelib.experiment.tolerance import measurements as tolerance_measurements
from nodelib.solver.errors import InputError

SWEEP_T1 = tuple(sorted({*(float(f"{t:.4g}") for t in np.geomspace(0.1, 1000, 41)), 500.0}))
EPSILONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
# of the second yardstick of the masking protocol: the first often leaves nothing that could fall
MASKED_EPSILON = 0.1
SQUARE_IMAGES = 64  # of the masks: 5,000 queries take a quarter of a minute for each on a processor core
DRAWS = 20  # forward passes per gradient in AutoAttack's version for random forward passes
ATTACK_T1 = 100.0  # where every run is attacked besides its own end time
GRADIENT_METHODS: dict[str, dict] = {
    "adjoint": dict(gradient="adjoint"),
    "anchored": dict(gradient="anchored"),
    "exact-1e-3": dict(gradient="exact"),
    "exact-1e-5": dict(gradient="exact", attack_tolerance=1e-5),
    "reference": dict(gradient="reference"),
}
PGD10: dict[str, Any] = dict(attack="pgd", epsilon=EPSILON, steps=10, step_size=0.075)
PGD40: dict[str, Any] = dict(attack="pgd", epsilon=EPSILON, steps=40, step_size=0.02)
PGD100: dict[str, Any] = dict(attack="pgd", epsilon=EPSILON, steps=100, step_size=0.01, restarts=5)
# for a loss full of kinks; the settings were chosen on training images, where 20 such steps of one restart
# took the most
AVERAGED: dict[str, Any] = dict(attack="pgd", epsilon=EPSILON, steps=40, step_size=0.1, restarts=5,
                                loss="margin", noise=EPSILON / 2, momentum=0.9)


def end_times(config: RunConfig) -> tuple[float, ...]:
    """The table's end times and the run's own, rising; a residual network has one."""
    table = TABLE_T1 if config.architecture == "odenet" else ()
    return tuple(sorted({*table, config.test_t1}))


def table_protocol(config: RunConfig) -> list[Measurement]:
    """What every run is measured on: the table's columns at the post's four end times and its own.

    Per end time: clean accuracy with fixed and with random pooling; FGSM by the post's protocol (not
    clipped, random pooling, continuous adjoint, batch 32); FGSM and PGD-10 with the exact gradient
    (clipped, fixed pooling). Smoke runs use fewer images away from their own end time.
    """
    attacked, smoke = config.attack_images, config.scale == "smoke"
    result = []
    for t1 in end_times(config):
        own = t1 == config.test_t1
        n = config.test_images if own or not smoke else min(config.test_images, attacked)
        result.append(Measurement(t1, n))
        if attacked:
            result.append(Measurement(t1, attacked, "fgsm", EPSILON, batch=min(BATCH, attacked),
                                      label="fgsm-exact"))
        if smoke:
            continue
        result.append(Measurement(t1, n, pooling="random", label="none-random"))
        if attacked:
            result.append(Measurement(t1, attacked, "fgsm", EPSILON, clip=False, gradient="adjoint",
                                      pooling="random", batch=SEED_BATCH, label="fgsm-seed"))
            result.append(Measurement(t1, attacked, **PGD10, label="pgd10-exact"))
    if config.architecture != "odenet":  # no solver, so no gradient method to tell apart
        result = [m for m in result if m.label != "fgsm-seed"]
    return result


def page_protocol(config: RunConfig) -> list[Measurement]:
    """What the page of a run does not go without: for the rows of the table all of it, for others their own
    end time.

    At smoke scale the table's protocol as a whole, as for a run that was never measured.
    """
    whole = config.name in ROWS or config.scale == "smoke"
    return [m for m in table_protocol(config) if whole or m.t1 == config.test_t1]


def strong_images(config: RunConfig) -> int:
    """Images of the strong set where no accelerator is at hand: 1,000 small, 256 wide, 100 large."""
    return config.attack_images if config.scale == "smoke" else {16: 1000, 64: 256}.get(config.channels, 100)


def diagnostic_images(config: RunConfig) -> int:
    """Images of the diagnoses of masking: 256 small, 100 wide, 64 large."""
    if config.scale == "smoke":
        return min(16, config.attack_images)
    return {16: 256, 64: 100}.get(config.channels, 64)


def attacked_times(config: RunConfig) -> tuple[float, ...]:
    """The run's own end time and t = 100; a residual network has one."""
    if config.architecture != "odenet" or config.test_t1 == ATTACK_T1:
        return (config.test_t1,)
    return config.test_t1, ATTACK_T1


def strong_protocol(config: RunConfig) -> list[Measurement]:
    """The strong set at the run's own end time and at t = 100, PGD-40 at all the table's end times, worst
    cases.

    PGD-40, on all attacked images of the small networks, and with five restarts of the wide ones at their own
    end time, on which the bar for the pair stands; PGD-100 with five restarts; APGD-CE, targeted APGD,
    targeted FAB and Square with the settings of AutoAttack's standard version. Each attacks the images that
    the records before it have left, the table's included. Of networks trained against attack also PGD-40 with
    momentum and gradients at noisy points, alone, on all the images. HopSkipJump with 1,000 labels per image
    attacks 100 images, one by one, on its own: a black box that gets further than the others would show that
    their gradients mislead.
    """
    n, result = strong_images(config), []
    for t1 in dict.fromkeys((*attacked_times(config), *end_times(config))):
        strong = t1 in attacked_times(config)
        wide = config.channels == 64 and t1 == config.test_t1 and config.scale == "full"
        many = (n if config.scale == "smoke" else config.attack_images if config.channels == 16 or wide
                else n if strong else 256)
        result.append(Measurement(t1, many, **PGD40, restarts=5 if wide else 1, drop=True,
                                  label="pgd40-exact"))
        if not strong:
            continue
        ball: dict[str, Any] = dict(epsilon=EPSILON, drop=True)
        result += [
            Measurement(t1, n, **PGD100, drop=True, label="pgd100-restarts"),
            *(Measurement(t1, n, name, steps=100, **ball) for name in ("apgd-ce", "apgd-t", "fab-t")),
            *([Measurement(t1, n, **AVERAGED, label="pgd40-averaged")] if config.adversarial else []),
            Measurement(t1, n, "square", steps=5000, **ball),
            Measurement(t1, min(n, 100), "hop-skip-jump", EPSILON, steps=1000, batch=1),
            Measurement(t1, n, "worst", EPSILON),
        ]
    return result


def sweep_protocol(config: RunConfig) -> list[Measurement]:
    """Clean accuracy and FGSM with the exact gradient at 42 end times from 0.1 to 1000.

    1,000 images of the small and wide networks, 100 of the large ones.
    """
    if config.architecture != "odenet":
        return []
    n = strong_images(config) if config.channels == 128 or config.scale == "smoke" else 1000
    # where the table has the same record, in the batches it has there
    batches = {t1: min(BATCH, config.attack_images if t1 in end_times(config) else n) for t1 in SWEEP_T1}
    return [m for t1 in SWEEP_T1
            for m in (Measurement(t1, n),
                      Measurement(t1, n, "fgsm", EPSILON, batch=batches[t1], label="fgsm-exact"))]


def at_epsilon(measurement: Measurement, epsilon: float) -> Measurement:
    """The measurement at another epsilon, its step in proportion, the epsilon in its label."""
    step = measurement.step_size * epsilon / measurement.epsilon
    return dataclasses.replace(measurement, epsilon=epsilon,
                               step_size=step if epsilon else measurement.step_size,
                               label=f"{measurement.label}-eps{epsilon:g}")


def epsilon_protocol(config: RunConfig) -> list[Measurement]:
    """FGSM and PGD-40 for epsilon from 0 to 1 at the run's own end time and at t = 100, and the worst case at
    each.

    A sound attack leaves the clean accuracy at 0 and nothing above chance by 0.5.
    """
    n = diagnostic_images(config)
    epsilons = EPSILONS if config.scale == "full" else (0.0, 0.1, 0.5)
    result = []
    for t1 in attacked_times(config):
        fgsm = Measurement(t1, n, "fgsm", EPSILON, label="sweep-fgsm")
        pgd = Measurement(t1, n, **PGD40, label="sweep-pgd40")
        for epsilon in epsilons:
            result += [at_epsilon(fgsm, epsilon), at_epsilon(pgd, epsilon)]
            if epsilon != EPSILON:  # that one is the strong protocol's, on more images
                result.append(Measurement(t1, n, "worst", epsilon, label=f"{SWEPT}{epsilon:g}"))
    return result


def gradient_protocol(config: RunConfig) -> list[Measurement]:
    """FGSM over epsilon by gradient method, at the run's own end time and at t = 100, in the post's batches
    of 32.

    The float64 reference on at most 32 images of the wide and large networks.
    """
    if config.architecture != "odenet":
        return []
    epsilons = EPSILONS[1:] if config.scale == "full" else (0.1, 0.3)
    result = []
    for t1 in attacked_times(config):
        for name, method in GRADIENT_METHODS.items():
            n = diagnostic_images(config)
            if name == "reference" and config.channels != 16:
                n = min(n, 32)
            fgsm = Measurement(t1, n, "fgsm", EPSILON, batch=SEED_BATCH, **method, label=f"fgsm-by-{name}")
            result += [at_epsilon(fgsm, epsilon) for epsilon in epsilons]
    return result


def masking_protocol(config: RunConfig) -> list[Measurement]:
    """One diagnostic per way in which an attack can fail for the wrong reason, and FGSM by gradient method.

    PGD-10 at epsilon 0.3, and again at 0.1, as the yardstick, then the same with one thing changed: the
    margin loss; rescaled logits; random pooling, with the gradient of one draw and of ten; one image per
    solve; scored at a tight tolerance one by one; network and attack at 1e-6; not clipped; the adjoint's, the
    anchored and a tighter gradient; the gradient averaged over noise of half the ball's radius, and the sum
    of gradients at such noisy points, one a step. Of a network trained against attack also Square, which
    needs no gradient, and its images scored one by one at a tight tolerance: what no gradient finds may be
    the network's or the solver's.
    """
    n, result = diagnostic_images(config), []
    for t1 in attacked_times(config):
        changes: dict[str, dict[str, Any]] = {
            "plain": {}, "margin": dict(loss="margin"), "rescaled": dict(logit_scale="gap"),
            "random-pooling": dict(pooling="random"), "expectation": dict(pooling="random", draws=10),
            "one-by-one": dict(batch=1),
            "rescored": dict(rtol=1e-5, atol=1e-5, batch=1, attack_tolerance=1e-3, attack_batch=BATCH),
            "tolerance-1e-6": dict(rtol=1e-6, atol=1e-6), "unclipped": dict(clip=False),
            "adjoint": dict(gradient="adjoint"), "anchored": dict(gradient="anchored"),
            "exact-1e-5": dict(attack_tolerance=1e-5),
            "smoothed": dict(loss="margin", draws=10, noise=EPSILON / 2),
            "momentum": dict(loss="margin", noise=EPSILON / 2, momentum=1.0),
        }
        if config.architecture != "odenet":
            changes = {name: changes[name] for name in ("plain", "margin", "rescaled", "random-pooling",
                                                        "expectation", "unclipped", "smoothed", "momentum")}
        for name, change in changes.items():
            mask = Measurement(t1, n, **{**PGD10, **change}, label=f"mask-{name}")
            result += [mask, at_epsilon(mask, MASKED_EPSILON)]
        if config.adversarial is not None and t1 == config.test_t1:
            result += [Measurement(t1, min(n, SQUARE_IMAGES), "square", EPSILON, steps=5000,
                                   label=f"mask-square{suffix}", **changes[change])
                       for suffix, change in (("", "plain"), ("-rescored", "rescored")) if change in changes]
        for name, change in (("clean-random", dict(pooling="random")),
                             ("clean-1e-6", dict(rtol=1e-6, atol=1e-6)),
                             ("clean-one-by-one", dict(batch=1))):
            if config.architecture == "odenet" or name == "clean-random":
                result.append(Measurement(t1, n, **change, label=f"mask-{name}"))
    return result + gradient_protocol(config)


def randomised_protocol(config: RunConfig) -> list[Measurement]:
    """The network as the post runs it, its pooling regions redrawn in every pass, under AutoAttack's set for
    such networks.

    APGD on the cross-entropy and on the difference of logits ratio, 100 steps, the mean gradient of 20 draws,
    at the run's own end time; scored on a draw of its own. On 100 images at most (wide 50, large 32): each
    step costs twenty.
    """
    n = min(strong_images(config), {16: 100, 64: 50}.get(config.channels, 32))
    return [Measurement(config.test_t1, n, name, EPSILON, steps=100, draws=DRAWS, pooling="random",
                        label=f"random-{name}")
            for name in RANDOMISED]


# whose leaky twin is a surrogate of the robust protocol, and of no other
TWINS = dict.fromkeys(("wide-adversarial", "wide-adversarial-further"), "wide-adversarial-leaky")


def transfer_protocol(config: RunConfig, sources: Sequence[str]) -> list[Measurement]:
    """PGD-40 on each of the runs named, at its own end time, tried on this run at its own.

    Args:
        sources: folder names of other runs beside this one, such as "small-100-seed0"; its own is left out.
    """
    n = strong_images(config)
    return [Measurement(config.test_t1, n, **{**PGD40, "attack": "transfer"}, source=source,
                        label=f"transfer-{source}")
            for source in sources
            if source != config.folder and source.rpartition("-")[0] not in TWINS.values()]


FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)  # on the logits
FEW_FACTORS = (1.0, 10.0, 100.0)


def rescaling_images(config: RunConfig) -> int:
    """Images of the rescaling study: 1,000 of the small networks, 128 of the others."""
    if config.scale == "smoke":
        return min(64, config.attack_images)
    return 1000 if config.channels == 16 else 128


def rescaling_protocol(config: RunConfig) -> list[Measurement]:
    """FGSM by the post's protocol with the logits multiplied by a factor, which changes no prediction, at
    the table's end times.

    By the adjoint on the cross-entropy at every factor. Beside it, at the own end time, the same with single
    precision's rounding put in by hand, and without the true class's term
    (`nodelib.attacks.losses.rounded_loss`); at every factor at the own end time and a few elsewhere: the
    exact gradient, balanced and not; the margin loss and the log odds, which do not saturate, by both
    gradients; torchdiffeq's adjoint at a few factors at the own end time; random signs and no attack at all.
    """
    if config.architecture != "odenet":
        return []
    protocol: dict[str, Any] = dict(attack="fgsm", epsilon=EPSILON, clip=False, pooling="random",
                                    batch=SEED_BATCH)
    n, result = rescaling_images(config), list[Measurement]()
    factors, few = FACTORS if config.scale == "full" else FEW_FACTORS, FEW_FACTORS
    own = config.test_t1

    def add(t1: float, values: Sequence[float], label: str, **change: Any) -> None:
        result.extend(Measurement(t1, n, **{**protocol, **change}, logit_scale=s,
                                  label=f"rescaled-{label}-s{s:g}") for s in values)

    for t1 in sorted(TABLE_T1, key=lambda t1: t1 != own):
        here = factors if t1 == own else few
        add(t1, factors, "adjoint", gradient="adjoint")
        if t1 == own:
            add(t1, factors, "rounded-adjoint", loss="rounded", gradient="adjoint")
            add(t1, few, "wrong-classes-adjoint", loss="wrong-classes", gradient="adjoint")
        add(t1, here, "exact")
        for loss in ("margin", "log-odds"):
            add(t1, here, f"{loss}-adjoint", loss=loss, gradient="adjoint")
            add(t1, here, f"{loss}-exact", loss=loss)
        add(t1, here, "unbalanced", balanced=False)
        if t1 == own:
            add(t1, few, "torchdiffeq", gradient="torchdiffeq-adjoint")
        result += [Measurement(t1, n, "random-signs", EPSILON, clip=False, pooling="random", batch=SEED_BATCH,
                               label="rescaled-random"),
                   Measurement(t1, n, pooling="random", batch=SEED_BATCH, label="rescaled-clean")]
    return result


def post_protocol(config: RunConfig) -> list[Measurement]:
    """What judges a run by the post's recipe at its own end time: clean accuracy, 40 steps on the margin
    loss, and the post's one step on the cross-entropy and on every loss that stands beside it, the
    cross-entropy as torch computed it then among them.
    """
    if not config.endless or config.architecture != "odenet":
        return []
    own, n = config.test_t1, rescaling_images(config)
    return [Measurement(own, min(config.test_images, 1000)),
            Measurement(own, n, **PGD40, loss="margin", label="pgd40-margin"),
            *(m for m in rescaling_protocol(config) if m.t1 == own and m.label.endswith("adjoint-s1")),
            Measurement(own, n, "fgsm", EPSILON, clip=False, pooling="random", batch=SEED_BATCH,
                        gradient="adjoint", loss="earlier-cross-entropy", label="earlier-adjoint")]


def apart_protocol(config: RunConfig) -> list[Measurement]:
    """The post's step with its parts told apart, at the own end time: either loss, pooling regions fixed or
    redrawn, the gradient exact or the continuous adjoint's, in every combination, not clipped; and the whole
    of it with pixels clipped. As many images as the rescaling study has.
    """
    if config.architecture != "odenet":
        return []
    post: dict[str, Any] = dict(attack="fgsm", epsilon=EPSILON, batch=SEED_BATCH)
    n, t1 = rescaling_images(config), config.test_t1
    return [*(Measurement(t1, n, **post, clip=False, loss=loss, pooling=pooling, gradient=gradient,
                          label=f"apart-{loss}-{pooling}-{gradient}")
              for loss in ("cross-entropy", "margin") for pooling in ("fixed", "random")
              for gradient in ("exact", "adjoint")),
            Measurement(t1, n, **post, pooling="random", gradient="adjoint", label="apart-clipped")]


def ladder_protocol(config: RunConfig) -> list[Measurement]:
    """The smallest epsilon at which each image falls: the same cascade at rising epsilon, at the own end
    time.

    FGSM, PGD-40 on the margin and on the cross-entropy, APGD towards the three nearest classes, Square with
    200 queries, each on what the ladder has left; one worst case an epsilon. An image broken at a smaller
    epsilon counts as broken. 1,000 images of the small networks, 128 of the others.
    """
    return _ladder(config, config.test_t1, rescaling_images(config))


def _ladder(config: RunConfig, t1: float, n: int) -> list[Measurement]:
    full = config.scale == "full"
    result = [Measurement(t1, n, label=f"{LADDER}-clean")]
    for epsilon in LADDER_EPSILONS if full else (0.1, 0.3):
        cascade = [Measurement(t1, n, "fgsm", EPSILON, drop=True, label=f"{LADDER}-fgsm"),
                   *(Measurement(t1, n, **PGD40, loss=loss, drop=True, label=f"{LADDER}-pgd40-{loss}")
                     for loss in ("margin", "cross-entropy"))]
        if full:
            cascade += [Measurement(t1, n, "apgd-t", EPSILON, steps=30, targets=3, drop=True,
                                    label=f"{LADDER}-apgd-t"),
                        Measurement(t1, n, "square", EPSILON, steps=200, drop=True,
                                    label=f"{LADDER}-square")]
        cascade.append(Measurement(t1, n, "worst", EPSILON, label=f"{LADDER}-worst"))
        result += [at_epsilon(m, epsilon) if epsilon != EPSILON else m for m in cascade]
    return result


ROBUST_IMAGES, SURROGATE_IMAGES = 500, 128
RK4_STEPS = 20  # of the surrogate: an attacker who knows the network and not its solver


def robust_protocol(config: RunConfig, sources: Sequence[str] = ()) -> list[Measurement]:
    """A network trained against attack, at its own end time, by everything that is known to hurt it.

    On 500 images, each attack on those that all records before it have left: PGD-40 along summed gradients,
    PGD-40 towards each of the nine wrong classes, AutoAttack's standard set (the strong set's records, again
    on more images), and PGD-200 on the margin with ten restarts, in two records of five. On the first 128,
    each alone: PGD-40 on the margin from where Square ends; through surrogates, the same weights solved by
    RK4 in fixed steps and at tolerance 1e-6, and the leaky twin; scored one by one at tolerance 1e-5; and on
    the average over random pooling regions, scored on a draw of its own.

    Args:
        sources: folder names of the runs beside this one; the twin is asked for where it is among them.
    """
    attack = config.adversarial
    if attack is None or attack.other_images:
        return []
    t1, smoke = config.test_t1, config.scale == "smoke"
    n = min(config.attack_images, 16 if smoke else ROBUST_IMAGES)
    few = min(n, SURROGATE_IMAGES)
    margin: dict[str, Any] = {**PGD40, "loss": "margin"}
    many: dict[str, Any] = dict(attack="pgd", epsilon=EPSILON, steps=200, step_size=0.01, restarts=5,
                                loss="margin", drop=True)
    result = [Measurement(t1, n), Measurement(t1, n, **AVERAGED, drop=True, label="robust-averaged"),
              Measurement(t1, n, **PGD40, targeted=True, drop=True, label="robust-targeted")]
    if not smoke:
        ball: dict[str, Any] = dict(epsilon=EPSILON, drop=True)
        result += [*(Measurement(t1, n, name, steps=100, **ball) for name in ("apgd-ce", "apgd-t", "fab-t")),
                   Measurement(t1, n, "square", steps=5000, **ball)]
    result += [Measurement(t1, n, **many, seed=seed, label=f"robust-pgd200-{seed}") for seed in (0, 1)]
    result.append(Measurement(t1, few, **margin, queries=1000, label="robust-from-square"))
    if config.architecture == "odenet":
        result += [Measurement(t1, few, **margin, attack_steps=RK4_STEPS, label="robust-by-rk4"),
                   Measurement(t1, few, **margin, attack_tolerance=1e-6, label="robust-by-1e-6"),
                   Measurement(t1, few, **margin, rtol=1e-5, atol=1e-5, batch=1, attack_tolerance=1e-3,
                               attack_batch=BATCH, label="robust-rescored")]
    twin = f"{TWINS.get(config.name)}-seed{config.seed}"
    if twin in sources:
        result.append(Measurement(t1, few, **{**margin, "attack": "transfer"}, source=twin,
                                  label="robust-by-leaky"))
    result += [Measurement(t1, few, **margin, pooling="random", draws=10, label="robust-expectation"),
               Measurement(t1, n, "worst", EPSILON)]
    return result


CHECKED_IMAGES = 64


def ladder_check_protocol(config: RunConfig) -> list[Measurement]:
    """What the ladder may have missed, at one of its epsilons: targeted APGD towards all nine classes in 100
    steps, targeted FAB, Square with 5,000 queries, each on what all records so far have left of 64 images.
    """
    n = min(config.attack_images, CHECKED_IMAGES)
    own = (Measurement(config.test_t1, n, name, EPSILON, steps=100 if name != "square" else 5000, drop=True,
                       label=f"{LADDER_CHECK}-{name}") for name in ("apgd-t", "fab-t", "square"))
    return [at_epsilon(m, CHECKED_EPSILON) for m in own] if config.scale == "full" else []


RAYS_T1 = (10.0, 100.0, 1000.0, 10000.0)


def rays_protocol(config: RunConfig) -> list[Measurement]:
    """Clean accuracy and PGD-40 on the margin at epsilon 0.1, late and later, and of first seeds the whole
    ladder at the later end times: of the network with a ray per class and of the two it is compared with, the
    equally accurate one at its own end time alone. 256 images attacked; see `nodelib.verdicts.own_rays`.
    """
    if config.name not in ("small-10-rays", "small-10-brief", COMPARED["small-10-rays"]):
        return []
    n = diagnostic_images(config)
    times = RAYS_T1 if config.name != "small-10-brief" else (config.test_t1,)
    attacks = [Measurement(t1, n, **PGD40, loss="margin", label="rays-pgd40") for t1 in times]
    return [*(Measurement(t1, config.test_images if t1 == config.test_t1 else 4 * n) for t1 in times),
            *(at_epsilon(m, 0.1) for m in attacks),
            *(m for t1 in times if t1 != config.test_t1 and not config.seed
              for m in _ladder(config, t1, n))]


def tolerance_protocol(config: RunConfig) -> list[Measurement]:
    """Clean accuracy at the run's own end time for solver tolerances from 1e-1 to 1e-6."""
    if config.architecture != "odenet":
        return []
    return tolerance_measurements(config.test_t1, min(config.test_images, 1000))


PROTOCOLS: dict[str, Any] = {
    "table": table_protocol, "strong": strong_protocol, "sweep": sweep_protocol, "epsilon": epsilon_protocol,
    "masking": masking_protocol, "randomised": randomised_protocol, "rescaling": rescaling_protocol,
    "transfer": transfer_protocol, "tolerance": tolerance_protocol, "ladder": ladder_protocol,
    "rays": rays_protocol, "post": post_protocol, "robust": robust_protocol,
    "ladder-check": ladder_check_protocol, "apart": apart_protocol}


def get(name: str, config: RunConfig, sources: Sequence[str] = (),
        images: int | None = None) -> list[Measurement]:
    """The measurements of a protocol, or of all of them; of two under one id, the one on more images.

    Args:
        name: one of `PROTOCOLS`, or "all".
        sources: folder names of runs beside this one, for transfer attacks.
        images: cap on the number of images of every measurement, 1 to 10,000.
    """
    if name != "all" and name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; the known protocols are {', '.join(PROTOCOLS)}, all")
    if images is not None and not 1 <= images <= TEST_IMAGES:
        raise InputError(f"images is {images}; it must be from 1 to {TEST_IMAGES}")
    result: list[Measurement] = []
    for each in PROTOCOLS if name == "all" else (name,):
        with_sources = each in ("transfer", "robust")
        result += PROTOCOLS[each](config, sources) if with_sources else PROTOCOLS[each](config)
    largest: dict[str, Measurement] = {}
    for m in result:  # the sweep asks for some of the table's end times again, on fewer images
        if m.id not in largest or m.n > largest[m.id].n:
            largest[m.id] = m
    return [dataclasses.replace(m, n=min(m.n, images or m.n)) for m in largest.values()]
