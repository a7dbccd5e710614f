"""What a sweep of runs still has to do: what was deleted, or made of other weights, counts as missing."""

from pathlib import Path

from nodelib.experiment import artifacts, measure_states, protocols, training
from nodelib.experiment.configs import PAIR, ROWS, RunConfig


def transfer_sources(root: Path) -> list[str]:
    """Stored runs whose adversarial images are tried on others: the first seed of every main run, and the
    leaky twins of the robust protocol.
    """
    twins = {path.parent.name for twin in protocols.TWINS.values()
             for path in root.glob(f"{twin}-seed*/config.json")}
    main = (f"{name}-seed0" for name in (*ROWS, *PAIR))
    return [*(name for name in main if (root / name / "config.json").exists()), *sorted(twins)]


def pending(config: RunConfig, root: Path, step: str) -> bool:
    """Whether a step of a run is to be done, again or for the first time.

    Args:
        config: of the run; root: the folder that holds the runs.
        step: "train"; "states" (`python -m nodelib measure`); or the name of a protocol.

    Raises:
        InputError: unknown step.
        ArtifactError: the folder holds a run of another config, or altered weights: not replaced unasked.
    """
    folder = root / config.folder
    if step not in ("train", "states"):
        wanted = protocols.get(step, config, transfer_sources(root))  # raises before any work
    if training.unfinished(config, folder):
        return True
    run = artifacts.load_run(folder)
    if step == "train":
        run.load_model()  # raises where weights were altered
        return False
    if step == "states":
        return bool(measure_states.pending(run))
    whole = run.outcome_ids()
    have = {r["id"]: r["n"] for r in run.metrics if r["id"] in whole}
    return any(have.get(m.id, 0) < m.n for m in wanted if m.attack != "worst")
