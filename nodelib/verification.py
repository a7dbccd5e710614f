"""Check stored runs against themselves: hashes, schema, parameter counts, accuracies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nodelib import artifacts, evaluation, mnist
from nodelib.configs import RunConfig
from nodelib.models import build, count_parameters
from nodelib.training import fingerprint

RECORD_TYPES = {
    "id": str, "t1": float, "n": int, "subset": str, "correct": int, "accuracy": float, "low": float, "high": float,
    "nfe": float, "seconds": float, "device": str, "rtol": float, "atol": float, "dtype": str, "batch": int,
    "pooling": str, "attack": str, "epsilon": float, "gradient": str, "settings": dict,
}
CONFIDENCE_Z = 3.29  # 99.9 %, two-sided: an honest record fails once in a thousand


def problems(run: artifacts.Run, sample: int = 256, tolerance: float = 0.01) -> Iterator[str]:
    """What is wrong with a run, one sentence per fault; nothing if all is well.

    Checks the hashes of weights and dataset, the parameter count, the schema of every record, that
    correct / n is the accuracy and lies in its interval, that the stored outcomes add up, and that the
    clean accuracy at the run's own end time is recomputed from the committed weights: on the first
    `sample` test images it must agree with the stored outcomes image by image, up to `tolerance` of them
    (another processor rounds differently), and lie within the stated accuracy's sampling error.
    """
    try:
        config = RunConfig.from_dict(run.config)
        model = run.load_model()
    except (artifacts.ArtifactError, ValueError, RuntimeError) as error:
        yield str(error)
        return
    parameters = count_parameters(build(config))
    if run.provenance.get("parameters") != parameters:
        yield f"config.json states {run.provenance.get('parameters')} parameters, the network has {parameters}"
    if run.provenance.get("dataset_sha256") != mnist.fingerprint():
        yield "config.json states other dataset hashes than the shipped MNIST"
    if len(run.history["step"]) != config.steps:
        yield f"history.csv has {len(run.history['step'])} steps, the config {config.steps}"
    yield from _left_over(run.path / "checkpoint.safetensors", config)
    ids = [r.get("id") for r in run.metrics]
    if len(set(ids)) != len(ids):
        yield "metrics.json holds an id twice"
    readable = True
    for r in run.metrics:
        for fault in _record_problems(run, r):
            readable = readable and "wrong type" not in fault
            yield fault
    if readable:
        yield from _recomputed(run, config, model, sample, tolerance)


def _left_over(path: Path, config: RunConfig) -> Iterator[str]:
    """A fault if a checkpoint lies beside the finished run, unless it is one of a config that prolongs the run."""
    if path.exists():
        try:
            artifacts.load_checkpoint(path, fingerprint(config))
            yield f"a finished run still has {path.name}"
        except artifacts.ForeignCheckpoint:
            pass
        except artifacts.ArtifactError as error:
            yield str(error)


def _record_problems(run: artifacts.Run, r: dict) -> Iterator[str]:
    wrong = [key for key, kind in RECORD_TYPES.items() if not isinstance(r.get(key), (kind, int) if kind is float else kind)]
    if wrong:
        yield f"record {r.get('id')}: missing or of the wrong type: {', '.join(wrong)}"
        return
    if not math.isclose(r["correct"] / r["n"], r["accuracy"], abs_tol=1e-9):
        yield f"record {r['id']}: accuracy {r['accuracy']} is not {r['correct']} / {r['n']}"
    low, high = evaluation.wilson(r["correct"], r["n"])
    if not (math.isclose(low, r["low"], abs_tol=1e-9) and math.isclose(high, r["high"], abs_tol=1e-9)):
        yield f"record {r['id']}: the interval is not Wilson's ({low:.4f}, {high:.4f})"
    try:
        outcomes = run.outcomes(r["id"])
    except artifacts.ArtifactError as error:
        yield str(error)
        return
    if int(outcomes.sum()) != r["correct"]:
        yield f"record {r['id']}: {int(outcomes.sum())} correct outcomes are stored, {r['correct']} are stated"


def _recomputed(run: artifacts.Run, config: RunConfig, model, sample: int, tolerance: float) -> Iterator[str]:
    measurement = evaluation.Measurement(config.test_t1, sample)
    stated = next((r for r in run.metrics if r["id"] == measurement.id), None)
    if stated is None:
        yield f"metrics.json has no record {measurement.id}, the clean accuracy at the run's own end time"
        return
    n = min(sample, stated["n"])
    images, labels = evaluation.test_subset(n)
    correct, _ = evaluation.evaluate(model, images, labels, measurement)
    differing = int(np.sum(correct != run.outcomes(measurement.id)[:n]))
    if differing > tolerance * n:
        yield f"record {measurement.id}: {differing} of {n} outcomes differ when recomputed from the weights"
    low, high = evaluation.wilson(int(correct.sum()), n, CONFIDENCE_Z)
    if not low <= stated["accuracy"] <= high:
        yield (f"record {measurement.id}: states {stated['accuracy']:.4f}; recomputed on {n} images "
               f"{correct.mean():.4f}, interval {low:.4f} to {high:.4f}")
