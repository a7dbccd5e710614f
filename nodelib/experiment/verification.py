"""Check stored runs against themselves: checksums, parameter counts, outcomes, accuracies."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nodelib.experiment import artifacts, checksums, evaluation, mnist
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.contract import MEASUREMENTS
from nodelib.experiment.protocols import end_times
from nodelib.experiment.training import fingerprint
from nodelib.networks import ODENet, ResNet, count_parameters
from nodelib.statistics import wilson

# 99.999 %, two-sided: hundreds of honest records are computed again, and none should fail
CONFIDENCE_Z = 4.42
DIFFERING = 0.01  # largest share of images that may be classified otherwise


def problems(run: artifacts.Run, sample: int = 256) -> Iterator[str]:
    """What is wrong with a run, one sentence per fault; nothing if all is well.

    What a record states by itself was checked when it was read (`nodelib.experiment.records`). This checks
    that tables and outcomes are what the library wrote (`nodelib.experiment.checksums`), the hashes of
    weights and dataset, the parameter count, that the history rises and is complete, that records and
    outcomes are of each other, those of earlier weights included, that measurements are known ones, and that
    the accuracies of `recomputable` come out of the committed weights again: on the first `sample` test
    images (in whole batches, one at least and of an attack one at most, for its images share draws and step
    sizes) the stated accuracy must lie within the sampling error of the recomputed one, and the clean one at
    the run's own end time must agree with the stored outcomes image by image, up to `DIFFERING` of them
    (another processor rounds differently). Other records, iterative attacks above all, are not computed
    again.
    """
    config = RunConfig.from_dict(run.config)
    yield from checksums.faults(run.path)
    try:
        model = run.load_model()
    except (artifacts.ArtifactError, ValueError, RuntimeError) as error:
        yield f"the network cannot be built: {error}"
        return
    parameters = count_parameters(model)
    if run.provenance.get("parameters") != parameters:
        yield (f"config.json states {run.provenance.get('parameters')} parameters, the network has "
               f"{parameters}")
    if run.provenance.get("dataset_sha256") != mnist.fingerprint():
        yield "config.json states other dataset hashes than the shipped MNIST"
    yield from _history_problems(run, config)
    yield from _left_over(run.path / "checkpoint.safetensors", config)
    if unknown := sorted({m["name"] for m in run.measurements} - set(MEASUREMENTS)):
        yield f"measurements.csv holds {', '.join(unknown)}, none of nodelib.verdicts.MEASUREMENTS"
    if (own := _own(config)) not in {r["id"] for r in run.metrics} and not run.snapshots:
        yield f"metrics.csv has no record {own}, the clean accuracy at the run's own end time"
    yield from _record_problems(run, config, model, sample)
    for each in run.earlier:
        try:
            faults = [*checksums.faults(each.path),
                      *_record_problems(each, config, each.load_model(), sample)]
        except artifacts.ArtifactError as error:
            faults = [str(error)]
        yield from (f"{each.kept}: {fault}" for fault in faults)


def problems_now(path: Path, sample: int = 256) -> list[str]:
    """`problems` of the run as its folder holds it now; where it has some, and another process stored
    something meanwhile, of the run as it is then.

    Raises:
        ArtifactError: as of `nodelib.experiment.artifacts.load_run`.
        IntegrationError: a solve fails.
    """
    stated = [path / "config.json", path / checksums.NAME]
    before = [file.read_bytes() for file in stated if file.exists()]
    found = list(problems(artifacts.load_run(path), sample))
    if found and [file.read_bytes() for file in stated if file.exists()] != before:
        return list(problems(artifacts.load_run(path), sample))
    return found


def _own(config: RunConfig) -> str:
    return evaluation.Measurement(config.test_t1, 1).id


def _record_problems(run: artifacts.Run, config: RunConfig, model: ODENet | ResNet,
                     sample: int) -> Iterator[str]:
    """What is wrong with the accuracies of some weights and with the outcomes beside them."""
    try:
        kept = run.outcome_ids()
    except artifacts.ArtifactError as error:
        yield str(error)
        return
    ids = {r["id"] for r in run.metrics}
    combined = {other for r in run.metrics for other in r["combines"] or ()}
    if lost := sorted((kept | combined) - ids):
        yield (f"metrics.csv has no record {', '.join(lost)}, of which there are outcomes or worst cases; "
               "evaluate the run again")
    if run.metrics and not kept:
        yield "outcomes.safetensors is missing or empty. Restore it with git, or evaluate the run again"
        return
    sound = []
    for r in run.metrics:
        try:
            correct = int(run.outcomes(r["id"]).sum())
        except artifacts.ArtifactError as error:
            yield str(error)
            continue
        if correct != r["correct"]:
            yield f"record {r['id']}: {correct} correct outcomes are stored, {r['correct']} are stated"
        else:
            sound.append(r)
    yield from _recomputed(dataclasses.replace(run, metrics=sound), config, model, sample)


def strangers(root: Path) -> list[str]:
    """What is wrong with folders among the runs that hold neither a finished run nor one in training."""
    # the first file of a run that trains is checksums.json
    files = ("config.json", "checkpoint.safetensors", "history.csv", "snapshots.csv", checksums.NAME)
    return [f"{folder} holds no run: no {files[0]}, no {files[1]}. Delete it, or restore it with git"
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            and not any((folder / name).exists() for name in files)]


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


def _left_over(path: Path, config: RunConfig) -> Iterator[str]:
    """A fault if a checkpoint lies beside the finished run, unless a config that prolongs it has it."""
    if path.exists():
        try:
            artifacts.load_checkpoint(path, fingerprint(config))
            if not config.endless:  # one at a constant rate can be prolonged from it
                yield f"a finished run still has {path.name}"
        except artifacts.ForeignCheckpoint:
            pass
        except artifacts.ArtifactError as error:
            yield str(error)


def recomputable(run: artifacts.Run, config: RunConfig) -> list[dict]:
    """The records that `problems` computes again: clean at the table's end times, FGSM at the run's own."""
    times, steps = end_times(config), [f"fgsm-{kind}-t{config.test_t1:g}" for kind in ("exact", "seed")]
    return [r for r in run.metrics if r["id"] in steps or (r["attack"] == "none" and r["t1"] in times)]


def _recomputed(run: artifacts.Run, config: RunConfig, model: ODENet | ResNet, sample: int) -> Iterator[str]:
    own = _own(config)
    for stated in recomputable(run, config):
        batches = max(1, sample // stated["batch"]) if stated["attack"] == "none" else 1
        n = min(batches * stated["batch"], stated["n"])
        measurement = evaluation.Measurement(
            stated["t1"], n, stated["attack"], stated["epsilon"], clip=stated["clip"] is not False,
            gradient="exact" if stated["gradient"] == "none" else stated["gradient"],
            pooling=stated["pooling"], pooling_seed=stated["pooling_seed"] or 0, batch=stated["batch"],
            rtol=stated["rtol"], atol=stated["atol"])
        correct, _ = evaluation.evaluate(model, *evaluation.test_subset(n), measurement)
        differing = int(np.sum(correct != run.outcomes(stated["id"])[:n]))
        # elsewhere rounding grows with the flow, and which images an attack breaks depends on the signs of
        # small gradients
        if stated["id"] == own and differing > DIFFERING * n:
            yield (f"record {stated['id']}: {differing} of {n} outcomes differ when recomputed from the "
                   "weights")
        low, high = wilson(int(correct.sum()), n, CONFIDENCE_Z)
        if not low <= stated["accuracy"] <= high:
            yield (f"record {stated['id']}: states {stated['accuracy']:.4f}; recomputed on {n} images "
                   f"{correct.mean():.4f}, interval {low:.4f} to {high:.4f}")
