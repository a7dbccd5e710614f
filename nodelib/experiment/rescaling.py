"""The rescaling study: FGSM with the logits multiplied by a factor, and the gaps of the logits that may
explain it.

    python -m nodelib rescale small-10 large-100
"""

from pathlib import Path

import torch

from nodelib.attacks.losses import logit_gap
from nodelib.experiment import artifacts, evaluation, protocols
from nodelib.experiment.budget import Budget
from nodelib.experiment.configs import TABLE_T1, RunConfig
from nodelib.experiment.measurement import SEED_BATCH
from nodelib.experiment.records import record
from nodelib.networks import ODENet

# of the gap: beyond, p of the true class rounds to 1 in float32; all others round to 0
THRESHOLDS = (17.0, 104.0)


def gap_records(model: ODENet, n: int) -> list[dict]:
    """Share of images whose gap times a factor passes a threshold; pooling redrawn, batches of 32."""
    images, _ = evaluation.test_subset(n)
    with torch.no_grad(), evaluation.evaluating(model, "random"):
        gaps = {t1: logit_gap(torch.cat([model(x, t1) for x in images.split(SEED_BATCH)])).double()
                for t1 in TABLE_T1}
    return [record("gap_past", (factor * gap > threshold).double().mean(), t1, n, "mean", logit_scale=factor,
                   threshold=threshold)
            for t1, gap in gaps.items() for threshold in THRESHOLDS for factor in protocols.FACTORS]


def measure_run(folder: Path, budget: float | None = None, progress: bool | None = None) -> list[str]:
    """Measure a stored run by the rescaling protocol, and its gaps once; resumes record by record.

    Args:
        budget: seconds after which nothing further is begun.

    Returns:
        what it did not come to: ids of records, and "gap_past" for the gaps.
    """
    run, time_left = artifacts.load_ode_run(folder), Budget(budget)
    config = RunConfig.from_dict(run.config)
    protocol = protocols.rescaling_protocol(config)
    records = evaluation.evaluate_run(folder, protocol, budget=time_left.left, progress=progress)
    left = evaluation.missing(protocol, records)
    if any(r["name"] == "gap_past" for r in run.measurements):
        return left
    if time_left.spent:
        return [*left, "gap_past"]
    found = gap_records(run.load_ode_net(), protocols.rescaling_images(config))
    artifacts.add_measurements(run, found, lambda r: r["name"] == "gap_past")
    return left
