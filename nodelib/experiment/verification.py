"""Check stored runs against themselves: hashes, schema, parameter counts, accuracies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import NoneType

import numpy as np

from nodelib.experiment import artifacts, evaluation, mnist
from nodelib.experiment.configs import RunConfig, build
from nodelib.experiment.contract import MEASUREMENTS
from nodelib.experiment.measurement import contradicted_by
from nodelib.experiment.protocols import end_times
from nodelib.experiment.training import fingerprint
from nodelib.networks import count_parameters
from nodelib.statistics import wilson

RECORD_TYPES = {
    "id": str, "t1": float, "n": int, "subset": str, "correct": int, "accuracy": float, "low": float, "high": float,
    "nfe": float, "seconds": float, "device": str, "rtol": float, "atol": float, "dtype": str, "batch": int,
    "pooling": str, "attack": str, "epsilon": float, "gradient": str, "settings": dict,
    "commit": (str, NoneType), "source": (str, NoneType), "clip": (bool, NoneType), "combines": (list, NoneType),
    "pooling_seed": (int, NoneType),
}
MEASUREMENT_TYPES = {"name": str, "t1": (float, int, NoneType), "label": str, "images": str, "statistic": str, "value": float, "n": int,
                     "settings": dict}
CONFIDENCE_Z = 4.42  # 99.999 %, two-sided: hundreds of honest records are computed again, and none should fail


def problems(run: artifacts.Run, sample: int = 256, tolerance: float = 0.01) -> Iterator[str]:
    """What is wrong with a run, one sentence per fault; nothing if all is well.

    Checks the hashes of weights and dataset, the parameter count, that the history rises, the schema of every
    record, that it is there once, finite and of the end time and epsilon of its id, that correct / n is the
    accuracy and lies in its interval, that the stored outcomes add up, and that the accuracies of
    `recomputable` come out of the committed weights again: on the first `sample` test images (in whole
    batches where they are more than one, of an attack one batch at most) the stated accuracy must lie within
    the sampling error of the recomputed one, and the clean one at the run's own end time must agree with the
    stored outcomes image by image, up to `tolerance` of them (another processor rounds differently). Other
    records, iterative attacks above all, are not computed again.
    """
    try:
        config = RunConfig.from_dict(run.config)
        model = run.load_model()
    except (artifacts.ArtifactError, KeyError, TypeError, ValueError, RuntimeError) as error:
        yield f"the network cannot be built: {error}"
        return
    parameters = count_parameters(build(config))
    if run.provenance.get("parameters") != parameters:
        yield f"config.json states {run.provenance.get('parameters')} parameters, the network has {parameters}"
    if run.provenance.get("dataset_sha256") != mnist.fingerprint():
        yield "config.json states other dataset hashes than the shipped MNIST"
    yield from _history_problems(run, config)
    yield from _left_over(run.path / "checkpoint.safetensors", config)
    ids = [r.get("id") for r in run.metrics]
    if len(set(ids)) != len(ids):
        yield "metrics.json holds an id twice"
    for m in run.measurements:
        if wrong := _wrong(m, MEASUREMENT_TYPES):
            yield f"measurement {m.get('name')}: missing or of the wrong type: {', '.join(wrong)}"
        elif m["name"] not in MEASUREMENTS:
            yield f"measurement {m['name']} is none of nodelib.verdicts.MEASUREMENTS"
        elif artifacts.not_finite(m):
            yield f"measurement {m['name']} is not finite"
    for m in artifacts.doubled(run.measurements):
        yield f"measurements.json holds {m['name']} at t1 = {m.get('t1')} ({m.get('label')}) twice"
    if (own := evaluation.Measurement(config.test_t1, sample).id) not in ids and not run.snapshots:
        yield f"metrics.json has no record {own}, the clean accuracy at the run's own end time"
    sound = []
    for r in run.metrics:
        faults = list(_record_problems(run, r))
        yield from faults
        sound += [] if faults else [r]
    yield from _recomputed(dataclasses.replace(run, metrics=sound), config, model, sample, tolerance)


def _history_problems(run: artifacts.Run, config: RunConfig) -> Iterator[str]:
    history = run.history
    if config.steps and (not len(history["step"]) or history["step"][-1] != config.steps - 1):
        yield f"history.csv ends at step {history['step'][-1:]}, the config at {config.steps - 1}"
    elif not config.endless and len(history["step"]) != config.steps:
        yield f"history.csv has {len(history['step'])} steps, the config {config.steps}"
    for column, rises in (("step", np.greater), ("images", np.greater), ("epoch", np.greater_equal),
                          ("seconds", np.greater_equal)):
        if not rises(history[column][1:], history[column][:-1]).all():
            yield f"history.csv: the column {column} does not rise"
    for column, values in history.items():
        if not np.isfinite(values).all():
            yield f"history.csv: the column {column} is not finite"


def _left_over(path: Path, config: RunConfig) -> Iterator[str]:
    """A fault if a checkpoint lies beside the finished run, unless it is one of a config that prolongs the run."""
    if path.exists():
        try:
            artifacts.load_checkpoint(path, fingerprint(config))
            if not config.endless:  # one at a constant rate can be prolonged from it
                yield f"a finished run still has {path.name}"
        except artifacts.ForeignCheckpoint:
            pass
        except artifacts.ArtifactError as error:
            yield str(error)


def _wrong(record: dict, types: dict) -> list[str]:
    """Keys that a record lacks, or whose values are of the wrong type; a whole number will do for a float."""
    return [key for key, kind in types.items()
            if key not in record or not isinstance(record[key], (kind, int) if kind is float else kind)]


def _record_problems(run: artifacts.Run, r: dict) -> Iterator[str]:
    wrong = _wrong(r, RECORD_TYPES)
    if wrong:
        yield f"record {r.get('id')}: missing or of the wrong type: {', '.join(wrong)}"
        return
    if artifacts.not_finite(r) or not 0 <= r["correct"] <= r["n"] or r["n"] < 1:
        yield f"record {r['id']}: {r['correct']} of {r['n']} images, or a number that is not finite"
        return
    if field := contradicted_by(r):
        yield f"record {r['id']}: its {field} is {r[field]:g}, which is not what its id says"
    if not math.isclose(r["correct"] / r["n"], r["accuracy"], abs_tol=1e-9):
        yield f"record {r['id']}: accuracy {r['accuracy']} is not {r['correct']} / {r['n']}"
    low, high = wilson(r["correct"], r["n"])
    if not (math.isclose(low, r["low"], abs_tol=1e-9) and math.isclose(high, r["high"], abs_tol=1e-9)):
        yield f"record {r['id']}: the interval is not Wilson's ({low:.4f}, {high:.4f})"
    try:
        outcomes = run.outcomes(r["id"])
    except artifacts.ArtifactError as error:
        yield str(error)
        return
    if int(outcomes.sum()) != r["correct"]:
        yield f"record {r['id']}: {int(outcomes.sum())} correct outcomes are stored, {r['correct']} are stated"


def recomputable(run: artifacts.Run, config: RunConfig) -> list[dict]:
    """The records that `problems` computes again: clean at the table's end times, and one step of FGSM at the run's own."""
    times, steps = end_times(config), [f"{label}-t{config.test_t1:g}" for label in ("fgsm-exact", "fgsm-seed")]
    return [r for r in run.metrics if r["id"] in steps or (r["attack"] == "none" and r["t1"] in times)]


def _recomputed(run: artifacts.Run, config: RunConfig, model, sample: int, tolerance: float) -> Iterator[str]:
    own = evaluation.Measurement(config.test_t1, sample).id
    for stated in recomputable(run, config):
        n, batch = min(sample, stated["n"]), stated["batch"]
        if n > batch:
            n = batch if stated["attack"] != "none" else n - n % batch  # whole batches: their images share draws and step sizes
        measurement = evaluation.Measurement(
            stated["t1"], n, stated["attack"], stated["epsilon"], clip=stated["clip"] is not False,
            gradient="exact" if stated["gradient"] == "none" else stated["gradient"], pooling=stated["pooling"],
            pooling_seed=stated["pooling_seed"] or 0, batch=stated["batch"], rtol=stated["rtol"], atol=stated["atol"])
        images, labels = evaluation.test_subset(n)
        correct, _ = evaluation.evaluate(model, images, labels, measurement)
        differing = int(np.sum(correct != run.outcomes(stated["id"])[:n]))
        # elsewhere rounding grows with the flow, and which images an attack breaks depends on the signs of small gradients
        if stated["id"] == own and differing > tolerance * n:
            yield f"record {stated['id']}: {differing} of {n} outcomes differ when recomputed from the weights"
        low, high = wilson(int(correct.sum()), n, CONFIDENCE_Z)
        if not low <= stated["accuracy"] <= high:
            yield (f"record {stated['id']}: states {stated['accuracy']:.4f}; recomputed on {n} images "
                   f"{correct.mean():.4f}, interval {low:.4f} to {high:.4f}")
