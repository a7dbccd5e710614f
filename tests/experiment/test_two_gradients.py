"""Training on by two gradients: the same batches, the same draws, and what comes of it."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from builders import tiny_config

from nodelib.experiment import artifacts, configs, mnist, snapshots, training, two_gradients
from nodelib.experiment.configs import AttackConfig
from nodelib.experiment.contract import TRAINING_MEASUREMENTS
from nodelib.experiment.records import record
from nodelib.solver.errors import InputError

CONSTANT = dict(schedule="constant", batch_size=16, learning_rate=1e-3, epochs=1, halve_after=(1,),
                head_scale=0.5, subset="random")
OTHERS = AttackConfig(epsilon=0.1, steps=1, step_size=0.1, other_images=True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A tiny network after an epoch at a constant rate, which halves after it."""
    return training.train(tiny_config(**CONSTANT), tmp_path_factory.mktemp("runs"), progress=False)


@pytest.mark.parametrize("attack", [None, OTHERS], ids=["clean", "other images attacked"])
def test_the_exact_way_is_what_training_would_have_done(attack, stored):
    config, first = two_gradients.recipe(stored, 4)
    assert (config.epochs, first) == (2, 6)
    config = dataclasses.replace(config, adversarial=attack)
    model = stored.load_ode_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ways = two_gradients.follow(model, config, 4, first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = stored.load_ode_net()
    again.pooling, optimiser = config.pooling, training.adam(again, config)
    images, labels = mnist.load("train")
    chosen = training.training_images(config)
    images, labels = images[chosen], labels[chosen]
    for step in range(6, 10):
        index = training.batch(config, step)
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * 0.5 * config.learning_rate  # halved
        others = training._others(config, images, labels, step, len(index))
        training._step(again, optimiser, images[index], labels[index], config, step, others)
    assert all(torch.equal(value, again.state_dict()[name])
               for name, value in ways.networks["exact"].state_dict().items())
    start, adjoint, exact = (torch.cat([p.detach().double().reshape(-1) for p in network.parameters()])
                             for network in (model, ways.networks["adjoint"], ways.networks["exact"]))
    assert ways.apart == pytest.approx(((adjoint - exact).norm() / (exact - start).norm()).item(), rel=1e-6)


def test_at_a_tight_tolerance_the_two_ways_are_one(stored):
    config, first = two_gradients.recipe(stored, 3)
    model = stored.load_ode_net()
    loose = two_gradients.follow(model, config, 3, first)
    model.block.rtol = model.block.atol = 1e-6
    tight = two_gradients.follow(model, config, 3, first)
    assert tight.cosine.min() > 0.9999 and tight.error.max() < 0.02 < loose.error.max()
    assert tight.apart < loose.apart and tight.loss["adjoint"] == pytest.approx(tight.loss["exact"], rel=1e-2)


def test_records_say_steps_recipe_and_gradient_and_replace_older_ones_alone(stored, tmp_path):
    folder = tmp_path / stored.path.name
    shutil.copytree(stored.path, folder)
    foreign = record("norm", 2.0, 1.0, 8)
    artifacts.add_measurements(artifacts.load_run(folder), [foreign], lambda r: False)
    for steps in (2, 3):
        found = two_gradients.measure_run(folder, steps, 32)
    kept = artifacts.load_run(folder).measurements
    assert [m["name"] for m in kept if m["name"] not in TRAINING_MEASUREMENTS] == ["norm"]
    assert len(kept) == len(found) + 1 and {m["name"] for m in found} == set(TRAINING_MEASUREMENTS)
    assert {(m["settings"]["steps"], m["settings"]["recipe"]) for m in found} == {(3, "small-10")}
    measured = {(r.quantity): r.value for r in snapshots.measure(stored.load_ode_net(), 1.0, 32, 0, 0)}
    before = {m["statistic"]: m["value"] for m in found if m["settings"].get("gradient") == "none"}
    assert before == measured
    gradients = {m["settings"]["gradient"] for m in found if m["name"] == "trained_on"}
    assert gradients == {"none", "adjoint", "exact"}
    with pytest.raises(artifacts.ArtifactError, match="3 steps, and 2 are too few"):
        two_gradients.measure_run(folder, 2, 32)
    with pytest.raises(artifacts.ArtifactError, match="32 images, and 16 are too few"):
        two_gradients.measure_run(folder, 3, 16)
    assert artifacts.load_run(folder).measurements == kept


def test_tails_are_told_over_steps_and_as_many_images_as_a_snapshot_has_are_the_default(stored, tmp_path):
    folder = tmp_path / stored.path.name
    shutil.copytree(stored.path, folder)
    found = {(m["name"], m["statistic"], m["settings"].get("gradient")): m
             for m in two_gradients.measure_run(folder, 3)}
    ways = two_gradients.follow(stored.load_ode_net(), *two_gradients.recipe(stored, 3)[:1], 3, 6)
    assert ways.cosine.max() < 1 - 1e-6
    for name, values in (("training_cosine", ways.cosine), ("training_error", ways.error)):
        assert found[name, "median", None]["value"] == pytest.approx(np.median(values))
    assert found["training_cosine", "q10", None]["value"] == pytest.approx(np.percentile(ways.cosine, 10))
    assert found["training_error", "q90", None]["value"] == pytest.approx(np.percentile(ways.error, 90))
    assert {m["n"] for (name, *_), m in found.items() if name == "trained_on"} == {64}


@pytest.mark.parametrize("steps, images, message", [(0, 16, "steps is 0"), (1, 10001, "10001")])
def test_what_cannot_be_measured_is_refused_before_the_training(steps, images, message, stored, monkeypatch):
    monkeypatch.setattr(two_gradients, "follow", lambda *a: pytest.fail("trained first"))
    with pytest.raises(ValueError, match=message):
        two_gradients.measure_run(stored.path, steps, images)


def test_a_run_that_no_recipe_goes_on_from_is_refused_and_the_way_out_said():
    run = artifacts.Run("small-10", 0, path=None, config=configs.get("small-10").to_dict(), provenance={},
                        history={}, metrics=[], measurements=[])
    with pytest.raises(InputError, match="small-100-post, or large-100"):
        two_gradients.recipe(run, 1)
    warm = dataclasses.replace(run, name="large-100", config=configs.get("large-100").to_dict())
    assert two_gradients.recipe(warm, 1) == (configs.get("large-100-warm"), 0)
    second = dataclasses.replace(warm, config=configs.get("large-100", 1).to_dict(), seed=1)
    assert two_gradients.recipe(second, 1) == (configs.get("large-100-warm", 1), 0)


def test_no_steps_are_refused(stored):
    with pytest.raises(ValueError, match="steps is 0"):
        two_gradients.follow(stored.load_ode_net(), tiny_config(**CONSTANT), 0)


def test_batches_are_those_of_training_and_every_image_comes_once_an_epoch():
    config = tiny_config(batch_size=20)
    epoch = [training.batch(config, step) for step in range(config.steps_per_epoch)]
    assert [len(index) for index in epoch] == [20] * 4 + [16]
    assert np.sort(torch.cat(epoch).numpy()).tolist() == list(range(96))
    assert not torch.equal(epoch[0], training.batch(config, config.steps_per_epoch))
