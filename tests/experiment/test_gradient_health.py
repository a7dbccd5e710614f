"""Gradient health: exact where the answer is known, and stored as the contract says."""

import shutil

import pytest
import torch

from nodelib import verdicts
from nodelib.experiment import artifacts, gradient_health
from nodelib.experiment.contract import GRADIENT_MEASUREMENTS
from nodelib.experiment.records import measurements_csv


@pytest.fixture(scope="module")
def records(tiny_run, test_images):
    return gradient_health.health(tiny_run.load_model(), test_images[0][:4], test_images[1][:4], (1.0,))


def value(records, name, **settings):
    (found,) = [r["value"] for r in records
                if r["name"] == name and settings.items() <= r["settings"].items()]
    return found


def test_every_record_is_one_of_the_contract_and_said_once(records):
    assert {r["name"] for r in records} == set(GRADIENT_MEASUREMENTS) <= set(verdicts.MEASUREMENTS)
    for r in records:
        assert set(r) == {"name", "t1", "label", "images", "statistic", "value", "n", "settings"}
    keys = [(r["name"], r["t1"], str(sorted(r["settings"].items()))) for r in records]
    assert len(keys) == len(set(keys))


def test_a_tighter_gradient_is_closer_to_the_reference_and_that_to_finite_differences(records):
    loose, tight = (value(records, "gradient_cosine", gradient="exact", rtol=rtol) for rtol in (1e-3, 1e-5))
    assert tight > loose and tight > 0.98
    assert value(records, "sign_agreement", gradient="exact", rtol=1e-5) > 0.9
    assert value(records, "finite_difference", noise=gradient_health.OFF_TIES) < 2e-2


def test_blank_images_have_a_kink_in_the_pooling_that_noise_removes(records):
    at_ties, off_ties = (value(records, "finite_difference", noise=noise)
                         for noise in (0.0, gradient_health.OFF_TIES))
    assert at_ties > 5 * off_ties


def test_saturated_logits_have_exactly_zero_gradients_which_a_margin_or_a_scale_revives(small, test_images):
    images = test_images[0][:4]
    with torch.no_grad():
        small.linear.weight *= 1e5
        small.linear.bias *= 1e5
        labels = small(images).argmax(1)
    share = lambda **options: gradient_health.zero_share(  # noqa: E731
        gradient_health.gradients(small, images, labels, 1.0, "exact", 1e-3, **options))
    assert share() == 1.0
    assert [share(**options) for options in gradient_health.REMEDIES.values()] == [0.0, 0.0]


def test_agreement_counts_signs_and_angles():
    reference = torch.tensor([[1.0, -2.0, 3.0, 4.0]], dtype=torch.float64)
    assert gradient_health.agreement(reference.float(), reference) == pytest.approx((1.0, 1.0))
    assert gradient_health.agreement(-reference, reference) == pytest.approx((0.0, -1.0))
    assert gradient_health.agreement(torch.zeros(1, 4), reference) == (0.0, 0.0)
    saturated = 1e-30 * reference.float()
    assert gradient_health.agreement(saturated, 1e-22 * reference) == pytest.approx((1.0, 1.0))
    assert gradient_health.zero_share(torch.tensor([[0.0, 0.0], [0.0, 1e-30]])) == 0.5


def test_measuring_a_run_replaces_its_own_records_and_keeps_the_states(tiny_run, tmp_path, capsys):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    foreign = {"name": "norm", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median",
               "value": 2.0, "n": 4, "settings": {}}
    artifacts.write_atomic(folder / "measurements.csv", measurements_csv([foreign]))
    for _ in range(2):
        found = gradient_health.measure_run(folder, 2, (1.0,), progress=False)
    stored = artifacts.load_run(folder).measurements
    assert foreign in stored and len(stored) == 1 + len(found) and all(r in stored for r in found)


def test_too_few_images_are_refused_before_the_work(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    gradient_health.measure_run(folder, 2, (1.0,), progress=False)
    before = artifacts.load_run(folder).measurements
    monkeypatch.setattr(gradient_health, "health", lambda *a: pytest.fail("worked first"))
    with pytest.raises(artifacts.ArtifactError, match="on 2 images, and 1 are too few"):
        gradient_health.measure_run(folder, 1, (1.0, 10.0))
    assert artifacts.load_run(folder).measurements == before
    monkeypatch.setattr(gradient_health, "health", lambda *a: [])
    gradient_health.measure_run(folder, 1, (10.0,))  # of other end times none is replaced
    assert artifacts.load_run(folder).measurements == before


def test_a_residual_network_has_no_solver_to_examine(tmp_path, monkeypatch, tiny_run):
    import dataclasses

    resnet = dataclasses.replace(tiny_run, config={**tiny_run.config, "architecture": "resnet"})
    monkeypatch.setattr(artifacts, "load_run", lambda folder: resnet)
    with pytest.raises(ValueError, match="an ODE block"):
        gradient_health.measure_run(tmp_path, 2)


def test_a_guess_is_right_where_the_pooling_looks_away_and_at_half_of_the_rest(tiny_run, test_images):
    model, images, labels = tiny_run.load_model(), test_images[0][:4], test_images[1][:4]
    seen = (gradient_health.gradients(model, images, labels, 1.0, "exact", 1e-3) != 0).double().mean().item()
    assert 0.2 < seen < 0.9
    assert gradient_health.guess_agreement(model, images, labels) == pytest.approx(1 - seen / 2)
