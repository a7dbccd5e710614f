"""What stored runs say about the pair trained to t1 = 1: cost, end time, attacks, complexity, as tidy data.

Records are selected by their fields, never by their id, so that whatever has been measured is found.
"""

import contextlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import PAIR, AttackConfig
from nodelib.experiment.contract import LADDER
from nodelib.networks import ODENet
from nodelib.publish.style import history_frame
from nodelib.statistics import wilson
from nodelib.verdicts.end_time import accuracy_reach
from nodelib.verdicts.evidence import CLEAN, EPSILON, Missing, matches

FGSM_EXACT = dict(attack="fgsm", epsilon=EPSILON, clip=True, pooling="fixed", gradient="exact", rtol=1e-3,
                  loss="cross-entropy", logit_scale=1.0)
TESTS = {"clean": CLEAN, f"FGSM, epsilon {EPSILON:g}": FGSM_EXACT}
COMPLEXITY = {"jacobian_norm": "norm of the Jacobian", "path_turning": "turning of the velocity (radians)",
              "accepted_steps": "accepted steps"}
_SPELT = {"fgsm": "FGSM", "pgd": "PGD", "apgd-ce": "APGD, cross-entropy", "apgd-t": "APGD, targeted",
          "fab-t": "FAB, targeted",
          "square": "Square", "hop-skip-jump": "HopSkipJump", "worst": "worst case per image"}
_QUERYING = ("square", "hop-skip-jump")


def kind(run: Run) -> str:
    """How a run was trained: "adversarial" or "standard"."""
    return "adversarial" if run.config["adversarial"] else "standard"


def pair_runs(runs: Sequence[Run]) -> list[Run]:
    """All seeds of `wide-standard` and `wide-adversarial`, in that order."""
    return sorted((run for run in runs if run.name in PAIR), key=lambda run: (PAIR.index(run.name), run.seed))


def end_time_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Accuracy over end times from metric records: one row per run, test and end time.

    Columns network ("standard" or "adversarial"), seed, test, t1, accuracy and its 95 % interval low and high
    in per cent, n, nfe. Clean images and FGSM with the exact gradient (epsilon 0.3, clipped), both with fixed
    pooling; where several records fit, the one with most images.
    """
    rows = [{"network": kind(run), "seed": run.seed, "test": test, "t1": t1, "n": r["n"], "nfe": r["nfe"],
             **{key: 100 * r[key] for key in ("accuracy", "low", "high")}}
            for run in sorted(runs, key=lambda run: (run.name != PAIR[0], run.name, run.seed))
            for test in TESTS for t1, r in _by_end_time(run, test).items()]
    return pd.DataFrame(rows, columns=["network", "seed", "test", "t1", "accuracy", "low", "high", "n",
                                       "nfe"])


def _by_end_time(run: Run, test: str) -> dict[float, dict]:
    """A run's record of one of `TESTS` on most images at each end time, ascending; not the ladder's, whose
    steps leave out what has fallen before.
    """
    found = {r["t1"]: r for r in sorted(run.metrics, key=lambda r: r["n"])
             if matches(r, **TESTS[test]) and not str(r["id"]).startswith(LADDER)}
    return dict(sorted(found.items()))


def sweep_frame(runs: Sequence[Run], least: int = 10) -> pd.DataFrame:
    """`end_time_frame` of runs measured at `least` end times, on the same images at every one: those of the
    smallest record. network: the run's name.
    """
    rows = []
    for run in runs:
        for test in TESTS:
            largest = _by_end_time(run, test)
            if len(largest) < least:
                continue
            n = min(r["n"] for r in largest.values())
            for t1, record in largest.items():
                right = int(run.outcomes(record["id"])[:n].sum())
                rows.append((run.name, run.seed, test, t1, 100 * right / n,
                             *(100 * end for end in wilson(right, n)), n))
    return pd.DataFrame(rows, columns=["network", "seed", "test", "t1", "accuracy", "low", "high", "n"])


def training_nfe_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """NFE of the forward solve over training, by `history_frame`; epoch: passes over the training images."""
    parts = []
    for run in runs:
        data = history_frame(run, ("nfe_forward",))
        per_epoch = -(-run.config["train_images"] // run.config["batch_size"])
        parts.append(pd.DataFrame({"network": kind(run), "seed": run.seed, "epoch": data["step"] / per_epoch,
                                   "nfe": data["value"], "low": data["low"], "high": data["high"]}))
    columns = ["network", "seed", "epoch", "nfe", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def reach(run: Run) -> float | None:
    """End time up to which a run keeps its clean accuracy; None where too little is recorded."""
    try:
        return accuracy_reach(run)
    except Missing:
        return None


def describe_attack(record: dict) -> str:
    """A metric record's attack in words, such as "PGD, 40 steps, 5 restarts"."""
    settings, name = record.get("settings") or {}, record["attack"]
    if name == "worst":
        attacks = [used for used in record.get("combines") or ()
                   if not used.startswith(("none", "clean", "mask-clean"))]
        return f"{_SPELT[name]} over {len(attacks)} records of attacks"
    steps, restarts, draws, noise, momentum = (
        settings.get(key) or 0 for key in ("steps", "restarts", "draws", "noise", "momentum"))
    scale, loss = settings.get("logit_scale", 1.0), settings.get("loss", "cross-entropy")
    queries, seed, solver, tolerance = (
        settings.get(key) or 0 for key in ("queries", "seed", "solver", "rtol"))
    apart = tolerance not in (0, record.get("rtol", tolerance)) and record.get("gradient") != "reference"
    words = {
        _SPELT.get(name, name): True,
        f"{steps:,} {'queries' if name in _QUERYING else 'steps'}": name != "fgsm" and steps,
        f"{restarts} restarts": restarts > 1,
        "one wrong class after another" if loss == "targeted" else f"{loss} loss": loss != "cross-entropy",
        f"from where {queries:,} queries of Square end": queries,
        f"solved by {solver}": solver,
        f"solved at tolerance {tolerance:g}": apart,
        "rescaled logits" if isinstance(scale, str) else f"logits times {scale:g}": scale != 1.0,
        f"{draws} draws" + (f" with noise of {noise:g}" if noise else ""): draws > 1,
        f"along summed gradients (noise {noise:g}, momentum {momentum:g})": draws < 2 and noise and momentum,
        f"noise of {noise:g}": draws < 2 and noise and not momentum,
        f"momentum {momentum:g}": draws < 2 and momentum and not noise,
        f"{record.get('gradient')} gradient": record.get("gradient") not in ("exact", "none", None),
        str(record.get("source")): record.get("source") not in ("white-box", None),
        f"seed {seed}": seed,
    }
    return ", ".join(said for said, applies in words.items() if applies)


def robustness_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Every attack on the deterministic forward pass at t1 = 1 and epsilon 0.3, clipped, and clean accuracy
    first.

    Columns network, seed, attack (in words), n, accuracy, low, high in per cent; idle, whether earlier
    attacks had left it nothing; after, whether it tried only what earlier attacks had left; "none" first,
    then by what they leave, the most first, and the worst case per image last, whatever number of images the
    others ran on. Of one attack, the record on most images.
    """
    rows: dict[tuple, dict] = {}
    # an attack on most images only: the diagnoses repeat some on fewer
    for run, r in sorted(((run, r) for run in runs for r in run.metrics), key=lambda each: -each[1]["n"]):
        clean = matches(r, t1=1.0, **CLEAN)
        if clean or (r["attack"] != "none"
                     and matches(r, t1=1.0, epsilon=EPSILON, clip=True, pooling="fixed", rtol=1e-3)):
            words, dropped = "none" if clean else describe_attack(r), (r["settings"] or {}).get("dropped")
            place = (kind(run) != "standard", run.seed, 0 if clean else 2 if r["attack"] == "worst" else 1)
            rows.setdefault((*place, words), {
                "network": kind(run), "seed": run.seed, "attack": words, "n": r["n"],
                **{key: 100 * r[key] for key in ("accuracy", "low", "high")},
                "after": dropped is not None, "idle": (dropped or 0) >= r["n"]})
    ordered = sorted(rows.items(), key=lambda item: (item[0][:3], -item[1]["accuracy"]))
    return pd.DataFrame([row for _, row in ordered], columns=["network", "seed", "attack", "n", "accuracy",
                                                              "low", "high", "idle", "after"])


def complexity_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Complexity of the dynamics from 0 to t1 = 1, and the mean NFE of a test solve at tolerance 1e-3 on
    clean images, of every run that has both: columns run, seed, nfe, measure, value.
    """
    rows = []
    for run in runs:
        solves = [r for r in run.metrics if matches(r, t1=1.0, **CLEAN)]
        for measure in COMPLEXITY:
            found = [r for r in run.measurements if r["name"] == measure
                     and matches(r, t1=1.0, label="all", images="clean")]
            if solves and found:
                rows.append((run.name, run.seed, max(solves, key=lambda r: r["n"])["nfe"], measure,
                             found[-1]["value"]))
    return pd.DataFrame(rows, columns=["run", "seed", "nfe", "measure", "value"])


def under_random_pooling(model: ODENet, images: Tensor, labels: Tensor,
                         attack: AttackConfig) -> dict[str, np.ndarray]:
    """Which images a network with random pooling gets right under PGD at t1 = 1, by who knows the regions.

    Args:
        model: in evaluation mode; its mode of pooling is put back afterwards.
        images, labels: shape (N, 1, 28, 28) in [0, 1] and (N,).
        attack: radius, steps and length of a step, noise and momentum of the gradients.

    Returns:
        bool arrays of shape (N,): "anew", every forward pass of the attack and the one that is scored draw
        their own regions; "once", one draw holds for all of them.
    """
    before, found = (model.pooling, model.pool.generator), {}
    try:
        model.pooling = "random"
        for name, regions in (("anew", contextlib.nullcontext), ("once", model.pool.hold)):
            model.pool.generator = torch.Generator().manual_seed(0)
            with regions():
                attacked = attack.pgd(t1=1.0, seed=0, allow_random_forward=True)(model, images, labels)
                with torch.no_grad():
                    found[name] = (model(attacked, 1.0).argmax(1) == labels).numpy()
    finally:
        model.pooling, model.pool.generator = before
    return found
