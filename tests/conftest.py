"""Shared fixtures. Threads are set explicitly: two torch processes with default threads slow each other down."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nodelib import networks
from nodelib.experiment import configs, mnist, training


@pytest.fixture(scope="session")
def test_images() -> tuple[torch.Tensor, torch.Tensor]:
    """The first 64 test images and labels."""
    images, labels = mnist.load("test")
    return images[:64], labels[:64]


@pytest.fixture
def small() -> networks.ODENet:
    """An untrained small network in eval mode with fixed pooling, end time 1."""
    return configs.build(dataclasses.replace(configs.get("small-10"), t1=(1.0, 1.0), test_t1=1.0)).eval()


def tiny_config(**changes) -> configs.RunConfig:
    """A run of six steps on 96 images: small enough to train in every test that needs a trained run."""
    values = dict(name="small-10", scale="smoke", channels=16, size=7, t1=(1.0, 1.0), test_t1=1.0, train_images=96,
                  batch_size=32, epochs=2, test_images=64, attack_images=16, learning_rate=3e-3)
    return configs.RunConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A stored, evaluated run of `tiny_config`."""
    return training.run(tiny_config(), tmp_path_factory.mktemp("runs"), progress=False)
