"""How the recipe was chosen: short runs on training images, judged on training images they did not see.

`python -m nodelib tune` measures every trial that `data/tuning.json` lacks. The test set plays no part.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nodelib.experiment import artifacts, configs, mnist, training
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.paths import data_dir

HELD_OUT = 6000  # the last training images
BATCH = 500

# run, images seen once, and what differs from the run's recipe
TRIALS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("small-100", 13500, {}),
    ("small-100", 13500, dict(head_scale=1.0)),
    ("small-100", 13500, dict(batch_size=32)),
    ("small-100", 13500, dict(batch_size=64)),
    ("small-100", 13500, dict(learning_rate=2e-3)),
    ("small-100", 13500, dict(learning_rate=1e-2)),
    ("large-10", 3200, {}),
    ("large-10", 3200, dict(learning_rate=1e-3)),
    ("large-10", 3200, dict(learning_rate=1e-2)),
)


def trial_config(name: str, images: int, changes: dict[str, Any]) -> RunConfig:
    """The config of a trial: one pass over the first `images` training images.

    Raises:
        ValueError: images reach into the held-out ones.
    """
    if images > 60000 - HELD_OUT:
        raise ValueError(f"images is {images}; a trial may see at most the first {60000 - HELD_OUT}, the "
                         "rest judges it")
    return dataclasses.replace(configs.get(name), train_images=images, epochs=1, cycles=(), **changes)


def trial(config: RunConfig, held_out: int = HELD_OUT) -> dict:
    """Train a config in memory and judge it on the last training images, at its own end time with fixed
    pooling.

    Args:
        config: of `trial_config`; held_out: how many of the held-out images to use, 1 to 6,000.

    Returns:
        the config's fields that a recipe has, `images`, `held_out`, `accuracy` (0 to 1), `loss` and
        `seconds`.
    """
    images, labels = mnist.load("train")
    with tempfile.TemporaryDirectory() as folder:
        run = training.train(config, folder, progress=False)
        model = run.load_model()
    last = slice(60000 - HELD_OUT, 60000 - HELD_OUT + held_out)
    with torch.no_grad():
        logits = torch.cat([model(x, config.test_t1) for x in images[last].split(BATCH)])
    return {"run": config.name, "images": config.train_images, "batch_size": config.batch_size,
            "learning_rate": config.learning_rate, "head_scale": config.head_scale, "held_out": held_out,
            "accuracy": (logits.argmax(1) == labels[last]).double().mean().item(),
            "loss": F.cross_entropy(logits, labels[last]).item(), "seconds": run.provenance["seconds"]}


def measure(path: str | Path | None = None) -> list[dict]:
    """Every trial of `TRIALS`; those in the file are kept, each new one is stored as it ends."""
    path = Path(path) if path is not None else data_dir() / "tuning.json"
    records = artifacts.read_json(path) if path.exists() else []
    settings = ("run", "images", "batch_size", "learning_rate", "head_scale")
    known = {tuple(record[key] for key in settings) for record in records}
    for name, images, changes in TRIALS:
        config = trial_config(name, images, changes)
        if (name, images, config.batch_size, config.learning_rate, config.head_scale) not in known:
            # classifying takes minutes too
            records.append(trial(config, HELD_OUT if config.channels == 16 else 1000))
            artifacts.write_json(path, records)
    return records


def as_markdown(records: list[dict]) -> str:
    """The trials as a Markdown table, accuracies in per cent."""
    lines = ["| network | images, once | batch | peak rate | head's scale | held-out images | accuracy | "
             "loss |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for r in records:
        lines.append(f"| {r['run']} | {r['images']:,} | {r['batch_size']} | {r['learning_rate']:g} | "
                     f"{r['head_scale']:g} | {r['held_out']:,} | {100 * r['accuracy']:.1f} % | "
                     f"{r['loss']:.3f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure the trials that are missing and print all."""
    argparse.ArgumentParser(prog="python -m nodelib tune", description=main.__doc__).parse_args(arguments)
    print(as_markdown(measure()))
    return 0

