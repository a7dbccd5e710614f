"""Runs for tests: small ones that are truly trained, and stubs that hold records only."""

import functools
from dataclasses import dataclass, field

import numpy as np

from nodelib.experiment import configs
from nodelib.experiment.artifacts import read_json
from nodelib.experiment.paths import data_dir
from nodelib.networks import count_parameters

SEED = read_json(data_dir() / "seed.json")


def tiny_config(**changes) -> configs.RunConfig:
    """A run of six steps on 96 images: small enough to train in every test that needs a trained run."""
    values = dict(name="small-10", scale="smoke", channels=16, size=7, t1=(1.0, 1.0), test_t1=1.0,
                  train_images=96, batch_size=32, epochs=2, test_images=64, attack_images=16,
                  learning_rate=3e-3)
    return configs.RunConfig(**{**values, **changes})


@functools.cache
def parameters(name: str) -> int:
    """Number of weights of a named run's network."""
    return count_parameters(configs.build(configs.get(name)))


@dataclass
class StubRun:
    """A run in memory, with the attributes the rules use."""

    name: str
    seed: int = 0
    metrics: list = field(default_factory=list)
    measurements: list = field(default_factory=list)
    history: dict = field(default_factory=lambda: {"nfe_forward": np.full(100, 26.0)})
    bits: dict = field(default_factory=dict)
    earlier: list = field(default_factory=list)

    @property
    def config(self):
        return configs.get(self.name, self.seed).to_dict()

    @property
    def provenance(self):
        return {"parameters": parameters(self.name)}

    def outcomes(self, record_id):
        return self.bits[record_id]

    def score(self, percent, t1, n=1000, rtol=1e-3, nfe=26.0, **attack):
        """Add a record with that accuracy: the first images of the subset are the ones answered correctly."""
        correct = round(percent * n / 100)
        record = dict(id=f"r{len(self.metrics)}", t1=float(t1), n=n, subset=f"first {n} of shuffle 0",
                      correct=correct, accuracy=correct / n, nfe=nfe, rtol=rtol, pooling="fixed",
                      attack="none", epsilon=0.0, clip=None, gradient="none", combines=None, settings={})
        record.update(attack)
        self.metrics.append(record)
        self.bits[record["id"]] = np.arange(n) < correct
        return self

    clean = score

    def clean_post(self, percent, t1, **more):
        return self.score(percent, t1, pooling="random", **more)

    def fgsm_post(self, percent, t1, **more):
        settings = {"library": "torchdiffeq", "loss": "cross-entropy", "logit_scale": 1.0}
        return self.score(percent, t1, attack="fgsm", epsilon=0.3, clip=False, pooling="random",
                          gradient="adjoint", settings=settings, **more)

    def pgd(self, percent, t1, **more):
        return self.score(percent, t1, attack="pgd", epsilon=0.3, clip=True, gradient="exact",
                          settings={"library": "nodelib", "steps": 10}, **more)

    def worst(self, percent, t1, combines=("apgd-ce", "square"), **more):
        return self.score(percent, t1, attack="worst", epsilon=0.3, clip=True, combines=list(combines),
                          **more)

    def measure(self, name, value, t1=None, label="all", statistic="median", images="clean", **settings):
        self.measurements.append(dict(name=name, t1=t1, label=label, images=images, statistic=statistic,
                                      value=value, n=1000, settings=settings))
        return self
