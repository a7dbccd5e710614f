"""Training on by two gradients: the same batches, the same draws, and what comes of it."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from builders import tiny_config

from nodelib.experiment import artifacts, configs, training, two_gradients
from nodelib.solver.errors import InputError

CONSTANT = dict(schedule="constant", batch_size=16, learning_rate=1e-3, epochs=1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A tiny network after an epoch at a constant rate."""
    return training.train(tiny_config(**CONSTANT), tmp_path_factory.mktemp("runs"), progress=False)


def test_the_exact_way_is_what_training_would_have_done(stored):
    config, first = two_gradients.recipe(stored, 4)
    assert (config.epochs, first) == (2, 6)
    model = stored.load_ode_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ways = two_gradients.follow(model, config, 4, first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = stored.load_ode_net()
    again.pooling, optimiser = config.pooling, training.adam(again, config)
    images, labels = two_gradients.mnist.load("train")
    for step in range(6, 10):
        index = training.batch(config, step)
        training._step(again, optimiser, images[index], labels[index], config, step)
    assert all(torch.equal(value, again.state_dict()[name])
               for name, value in ways.networks["exact"].state_dict().items())


def test_at_a_tight_tolerance_the_two_ways_are_one(stored):
    config, first = two_gradients.recipe(stored, 3)
    model = stored.load_ode_net()
    loose = two_gradients.follow(model, config, 3, first)
    model.block.rtol = model.block.atol = 1e-6
    tight = two_gradients.follow(model, config, 3, first)
    assert tight.cosine.min() > 0.9999 and tight.error.max() < 0.02 < loose.error.max()
    assert tight.apart < loose.apart and tight.loss["adjoint"] == pytest.approx(tight.loss["exact"], rel=1e-2)


def test_records_say_steps_recipe_and_gradient_and_replace_older_ones(stored, tmp_path):
    folder = tmp_path / stored.path.name
    shutil.copytree(stored.path, folder)
    for steps in (2, 3):
        found = two_gradients.measure_run(folder, steps, 32)
    run = artifacts.load_run(folder)
    assert {m["settings"]["steps"] for m in run.measurements} == {3} and len(run.measurements) == len(found)
    assert {m["settings"]["recipe"] for m in found} == {"small-10"}
    clean = {m["settings"]["gradient"]: m["value"] for m in found
             if (m["name"], m["statistic"]) == ("trained_on", "clean")}
    assert set(clean) == {"none", "adjoint", "exact"} and all(0 <= value <= 1 for value in clean.values())
    assert 0 < next(m["value"] for m in found if m["name"] == "weights_apart")


def test_a_run_that_no_recipe_goes_on_from_is_refused_and_the_way_out_said():
    run = artifacts.Run("small-10", 0, path=None, config=configs.get("small-10").to_dict(), provenance={},
                        history={}, metrics=[], measurements=[])
    with pytest.raises(InputError, match="small-100-post, or large-100"):
        two_gradients.recipe(run, 1)
    warm = dataclasses.replace(run, name="large-100", config=configs.get("large-100").to_dict())
    assert two_gradients.recipe(warm, 1) == (configs.get("large-100-warm"), 0)


def test_no_steps_are_refused(stored):
    with pytest.raises(ValueError, match="steps is 0"):
        two_gradients.follow(stored.load_ode_net(), tiny_config(**CONSTANT), 0)


def test_batches_are_those_of_training_and_every_image_comes_once_an_epoch():
    config = tiny_config(batch_size=20)
    epoch = [training.batch(config, step) for step in range(config.steps_per_epoch)]
    assert [len(index) for index in epoch] == [20] * 4 + [16]
    assert np.sort(torch.cat(epoch).numpy()).tolist() == list(range(96))
    assert not torch.equal(epoch[0], training.batch(config, config.steps_per_epoch))
