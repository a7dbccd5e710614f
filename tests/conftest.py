"""Shared fixtures. Threads are set explicitly: with the default, two torch processes slow each other down."""

import dataclasses

import pytest
import torch
from builders import tiny_config
from faults import (  # noqa: F401 - pytest finds them here
    fault,
    pytest_addoption,
    pytest_configure,
    pytest_runtest_call,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    pytest_sessionfinish,
)

from nodelib import networks
from nodelib.experiment import configs, mnist, training


def pytest_collection_modifyitems(items):
    """Files run beside each other, not tests: several share the fixture of a module, or the built site."""
    for item in items:
        shared = "site" if "site" in vars(item.module) else item.module.__name__
        item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(autouse=True)
def the_same_draws_each_time():
    """An untrained network that a test makes is the same whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def test_images() -> tuple[torch.Tensor, torch.Tensor]:
    """The first 64 test images and labels."""
    images, labels = mnist.load("test")
    return images[:64], labels[:64]


@pytest.fixture
def small() -> networks.ODENet:
    """An untrained small network in eval mode with fixed pooling, end time 1."""
    return configs.build(dataclasses.replace(configs.get("small-10"), t1=(1.0, 1.0), test_t1=1.0)).eval()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A stored, evaluated run of `tiny_config`."""
    return training.run(tiny_config(), tmp_path_factory.mktemp("runs"), progress=False)
