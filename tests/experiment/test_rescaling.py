"""The rescaling study: a factor on the logits changes no prediction, only what one step of FGSM finds."""

import dataclasses
import math

import pytest
import torch
from builders import tiny_config

from nodelib.attacks import LOSSES, fgsm
from nodelib.attacks.common import input_gradient
from nodelib.experiment import artifacts, evaluation, protocols, rescaling
from nodelib.experiment.measurement import Measurement
from nodelib.solver.kernel import unbalanced
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.predictions import curve


def test_log_odds_ascend_where_the_cross_entropy_has_lost_its_gradient():
    labels = torch.tensor([0, 1])
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.2, 0.1]], requires_grad=True)
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    expected = torch.log((1 - p) / p).mean().item()
    assert LOSSES["log-odds"](logits, labels).item() == pytest.approx(expected, rel=1e-6)
    for scale in (1.0, 100.0):
        steep, = torch.autograd.grad(LOSSES["log-odds"](scale * logits, labels), logits)
        assert (steep[0] != 0).any() and torch.isfinite(steep).all()
    flat, = torch.autograd.grad(LOSSES["cross-entropy"](100 * logits[:1], labels[:1]), logits)
    assert (flat == 0).all()
    cross, = torch.autograd.grad(LOSSES["cross-entropy"](logits, labels), logits)
    odds, = torch.autograd.grad(LOSSES["log-odds"](logits, labels), logits)
    assert torch.equal(cross.sign(), odds.sign())


def test_rounding_by_hand_is_what_single_precision_does_to_the_gradient_of_the_cross_entropy():
    gaps = torch.tensor([3.0, 12.0, 16.0, 18.0, 60.0, 99.0, 104.0, 120.0])
    logits = torch.stack([gaps, torch.zeros(8), torch.full((8,), -1.0)], 1).requires_grad_(True)
    labels = torch.zeros(8, dtype=torch.long)
    single, = torch.autograd.grad(LOSSES["cross-entropy"](logits, labels), logits)
    by_hand, = torch.autograd.grad(LOSSES["rounded"](logits, labels), logits)
    assert torch.equal(single.sign(), by_hand.sign())
    assert (single[3:6, 0] == 0).all() and (single[:3, 0] < 0).all() and (single[6:] == 0).all()
    wrong, = torch.autograd.grad(LOSSES["wrong-classes"](logits, labels), logits)
    assert (wrong[:, 0] == 0).all() and (wrong[:, 1] > 0).all()


@pytest.mark.parametrize("largest, k", [(1.5, 0), (3.0, 1), (6.0, 2), (12.0, 3), (20.0, 4), (40.0, 5)])
def test_the_loss_of_2018_loses_the_true_class_the_sooner_the_larger_the_logits(largest, k):
    def true_class(loss, gap):
        logits = torch.tensor([[largest, largest - gap]], requires_grad=True)
        return torch.autograd.grad(LOSSES[loss](logits, torch.tensor([0])), logits)[0][0, 0].item()

    horizon = (24 - k) * math.log(2)  # and up to 0.41 less, where 1 + u is rounded first
    assert true_class("earlier-cross-entropy", horizon - 0.43) < 0
    assert true_class("earlier-cross-entropy", horizon + 0.02) == 0
    assert true_class("cross-entropy", 16.6) < 0 and true_class("cross-entropy", 16.7) == 0


def test_the_loss_of_2018_is_todays_where_logits_are_small():
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    then, now = (LOSSES[name](logits, labels) for name in ("earlier-cross-entropy", "cross-entropy"))
    assert torch.allclose(then, now)
    assert torch.allclose(*(torch.autograd.grad(loss, logits)[0] for loss in (then, now)), atol=1e-6)


def test_the_protocol_varies_the_factor_and_keeps_the_posts_attack():
    config = dataclasses.replace(tiny_config(), name="small-10", t1=(10.0, 10.0), test_t1=10.0, scale="full")
    found = protocols.rescaling_protocol(config)
    attacked = [m for m in found if m.attack == "fgsm"]
    assert len({m.id for m in found}) == len(found)
    assert all((m.epsilon, m.clip, m.pooling, m.batch) == (0.3, False, "random", 32) for m in attacked)
    own = [m.logit_scale for m in attacked if m.t1 == 10 and m.label.startswith("rescaled-adjoint")]
    assert own == list(protocols.FACTORS) and {m.t1 for m in attacked} == {1.0, 10.0, 100.0, 500.0}
    assert not protocols.rescaling_protocol(dataclasses.replace(config, architecture="resnet"))


def test_a_stored_run_is_measured_once_and_its_curve_is_found(tmp_path, tiny_run):
    import shutil

    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    rescaling.measure_run(folder, progress=False)
    run = artifacts.load_run(folder)
    assert {(r["settings"]["threshold"], r["t1"]) for r in run.measurements if r["name"] == "gap_past"} == {
        (threshold, t1) for threshold in rescaling.THRESHOLDS for t1 in (1.0, 10.0, 100.0, 500.0)}
    before = (folder / "metrics.csv").read_bytes()
    rescaling.measure_run(folder, progress=False)
    assert (folder / "metrics.csv").read_bytes() == before
    run = dataclasses.replace(run, name="small-10")
    for loss, gradient in (("cross-entropy", "adjoint"), ("margin", "exact"), ("log-odds", "adjoint")):
        found = curve(Evidence([run], {}), "small-10", 1.0, loss=loss, gradient=gradient)
        assert set(found) == {1.0, 10.0, 100.0}
    clean, random = (next(r for r in run.metrics if r["id"] == f"rescaled-{name}-t1")
                     for name in ("clean", "random"))
    assert random["attack"] == "random-signs" and random["gradient"] == "none"
    assert clean["pooling"] == "random"


def test_random_signs_move_every_pixel_by_epsilon(small, test_images):
    images, labels = test_images
    moved = evaluation.attack(small, images, labels, Measurement(1.0, 64, "random-signs", 0.3, clip=False))
    assert torch.allclose((moved - images).abs(), torch.tensor(0.3))
    assert 0.4 < (moved > images).float().mean() < 0.6


def test_without_balance_a_tiny_gradient_loses_its_signs(small, test_images):
    images = test_images[0][:1]
    small.requires_grad_(False)  # with gradients of parameters nothing is balanced
    first, second = small(images)[0].topk(2).values
    for parameter in small.linear.parameters():
        parameter.mul_(101 / (first - second))  # right, and by so much that the loss is all but saturated
    labels = small(images).argmax(1)
    true, _ = input_gradient(small, images, labels, 1.0, loss="log-odds")  # of the same signs, and not tiny
    balanced, _ = input_gradient(small, images, labels, 1.0)
    with unbalanced():
        raw, _ = input_gradient(small, images, labels, 1.0)
    assert 0 < balanced.abs().max() < 1e-38
    wrong, wrong_raw = ((found.sign() != true.sign()).sum() for found in (balanced, raw))
    assert wrong < 0.8 * wrong_raw
    assert torch.equal(balanced, input_gradient(small, images, labels, 1.0)[0])
    assert torch.isfinite(fgsm(small, images, labels, 0.3)).all()
