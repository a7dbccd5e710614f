"""Single steps followed from the image on: rounding, the loss and overshooting told apart."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nodelib.__main__ import main
from nodelib.experiment import artifacts, horizon, overshoot
from nodelib.experiment.contract import STEP_MEASUREMENTS
from nodelib.experiment.records import measurements_csv, record


def steps(right: dict[str, list[list[int]]], zero: list[bool], gap: list[float]) -> overshoot.Steps:
    arrays = {name: np.array(rows, dtype=bool) for name, rows in right.items()}
    signs = {
        pair: np.ones(len(gap))
        for pair in (("cross-entropy", "log-odds"), ("cross-entropy", "margin"), ("log-odds", "margin"))
    }
    return overshoot.Steps(1.0, 1.0, np.array([0.0, 0.1, 0.3]), arrays, np.array(gap), np.array(zero), signs)


def test_causes_are_told_apart_and_add_up():
    # images: lost, turned, loss, overshot, firm, wrong before, broken, faded
    yes, no = True, False
    found = steps(
        {
            "cross-entropy": [[1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0, 1]],
            "log-odds": [[1, 1, 1, 1, 1, 0, 1, 1], [1, 0, 1, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0]],
            "turned": [[1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0]],
            "margin": [[1, 1, 1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0]],
        },
        [yes, no, no, no, no, no, no, no],
        [200.0, 20, 10, 10, 10, 10, 5, 90],
    )
    share = overshoot.causes(found)
    assert all(
        share[name] == pytest.approx(100 / 8)
        for name in ("lost", "turned", "faded", "loss", "overshot", "firm", "wrong")
    )
    assert share["left"] == pytest.approx(sum(value for name, value in share.items() if name != "left"))


def test_the_turned_loss_is_the_cross_entropy_without_the_term_that_float32_loses():
    labels = torch.zeros(2, dtype=torch.long)
    logits = torch.tensor([[0.0, -10.0, -12.0], [0.0, -20.0, -22.0]], requires_grad=True)
    (turned,) = torch.autograd.grad(overshoot.turned_loss(logits, labels), logits)
    (computed,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    assert torch.equal(turned.sign(), computed.sign()) and turned[1, 0] == 0 != turned[0, 0]
    for row in (0, 1):  # the same direction but for rounding
        assert torch.allclose(
            turned[row] / turned[row].norm(), computed[row] / computed[row].norm(), atol=1e-3
        )


def test_lost_gradients_are_those_past_the_horizon(small, test_images):
    images = test_images[0][:8]
    with torch.no_grad():
        labels = small(images).argmax(1)
        gap = small(images).topk(2, 1).values
        gap = (gap[:, 0] - gap[:, 1]).numpy()
    middle = float(np.sort(gap)[3:5].mean())
    found = overshoot.follow(
        small, images, labels, 1.0, 1.1 * horizon.gradient_lost(8) / middle, epsilons=(0.0, 0.3), batch=8
    )
    past = found.gap > horizon.gradient_lost(8)
    assert past.any() and found.zero[past].all()
    assert found.right["cross-entropy"][-1][past].all() and np.isnan(found.left("margin")).sum() == 0
    near = overshoot.follow(small, images, labels, 1.0, 10 / middle, epsilons=(0.0, 0.3), batch=8)
    kept, lost = horizon.true_class_lost()
    same = near.signs["cross-entropy", "log-odds"]
    assert not near.zero.any() and same[near.gap < kept - 4].min() > 0.95 > same[near.gap > lost].max()


def test_a_step_of_no_length_is_the_image_itself(small, test_images):
    images, labels = (x[:4] for x in test_images)
    found = overshoot.follow(small, images, labels, 1.0, epsilons=(0.0, 0.3))
    with torch.no_grad():
        right = (small(images).argmax(1) == labels).numpy()
    assert all((rows[0] == right).all() for rows in found.right.values())


def test_steps_that_do_not_begin_at_the_image_are_refused(small, test_images):
    images, labels = (x[:2] for x in test_images)
    with pytest.raises(ValueError, match="rise from 0"):
        overshoot.follow(small, images, labels, 1.0, epsilons=(0.1, 0.3))
    with pytest.raises(ValueError, match="above 0"):
        overshoot.follow(small, images, labels, 1.0, 0.0)


def test_a_stored_run_keeps_its_steps_beside_other_measurements(tmp_path, tiny_run):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    other = record("logit_gap", 3.0, 1.0, 8)
    artifacts.write_atomic(folder / "measurements.csv", measurements_csv([other]))
    asked = ["--images", "16", "--root", str(tmp_path)]
    assert main(["steps", tiny_run.name, *asked]) == 0
    stored = artifacts.load_run(folder).measurements
    assert other in stored and {r["name"] for r in stored if r != other} <= set(STEP_MEASUREMENTS)
    overshoot.measure_run(folder, 16)
    assert sorted(map(str, artifacts.load_run(folder).measurements)) == sorted(map(str, stored))


def test_too_few_images_are_refused_before_the_work(tmp_path, tiny_run, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    stored = record("step_left", 0.5, 1.0, 8, "margin", epsilon=0.1, kept=None)
    artifacts.write_atomic(folder / "measurements.csv", measurements_csv([stored]))
    monkeypatch.setattr(overshoot, "follow", lambda *a: pytest.fail("worked first"))
    with pytest.raises(artifacts.ArtifactError, match="on 8 images, and 7 are too few"):
        overshoot.measure_run(folder, 7)
    with pytest.raises(artifacts.ArtifactError, match="keeps no weights 'epoch1'"):
        overshoot.measure_run(folder, 7, "epoch1")  # of other weights there is nothing to replace
