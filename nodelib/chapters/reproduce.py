"""What a sweep of both families of runs costs, from the times of the stored ones."""

from collections.abc import Callable, Sequence

from nodelib.experiment import configs, protocols
from nodelib.experiment.artifacts import Run
from nodelib.experiment.configs import RunConfig

FAMILIES = {"the rows and the pair": ("rows", "pair"), "the same by the post's recipe": ("post",)}
PROTOCOLS = ("table", "strong")


def _training(run: Run, config: RunConfig) -> float:
    images = run.config["epochs"] * run.config["train_images"]
    return run.provenance["seconds"] / images * (config.epochs * config.train_images)


def _evaluation(run: Run, config: RunConfig) -> float:
    """For all images that are asked for, missing records at the mean of the others; 0 if most are missing."""
    asked = {m.id: m.n for name in PROTOCOLS for m in protocols.get(name, RunConfig.from_dict(run.config))
             if m.attack != "worst"}
    found = [(r["seconds"] or 0.0) * asked[r["id"]] / r["n"] for r in run.metrics if r["id"] in asked]
    return sum(found) * len(asked) / len(found) if 2 * len(found) > len(asked) else 0.0


def _seconds(runs: Sequence[Run], config: RunConfig, price: Callable[[Run, RunConfig], float]) -> float:
    """As its dearest stored seed took; without one, as the dearest of its size by the exact gradient did."""
    own = [run for run in runs if run.name == config.name]
    alike = [run for run in runs
             if (run.config["channels"], run.config["gradient"]) == (config.channels, "exact")]
    return max((price(run, config) for run in own), default=0.0) or max(
        (price(run, config) for run in alike), default=0.0) or float("nan")


def costs(runs: Sequence[Run], seeds: int) -> list[tuple[str, int, float, float, float]]:
    """Per family, with so many seeds: its name, runs, hours of training, hours of evaluation, and hours of
    its longest run with its evaluation; on one core each, NaN where no run of some size is stored.
    """
    rows: list[tuple[str, int, float, float, float]] = []
    for family, groups in FAMILIES.items():
        wanted = [configs.get(name, seed) for seed in range(seeds) for name in configs.named(groups)]
        hours = [(_seconds(runs, config, _training) / 3600, _seconds(runs, config, _evaluation) / 3600)
                 for config in wanted]
        training, evaluation = map(sum, zip(*hours))
        rows.append((family, len(wanted), training, evaluation, max(map(sum, hours))))
    return rows
