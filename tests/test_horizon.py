"""The float32 horizon against torch's own arithmetic, and the theory built on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nodelib import horizon
from nodelib.snapshot_records import SnapshotRecord


def gradient(logits: torch.Tensor, label: int = 0, factor: float = 1.0) -> torch.Tensor:
    """Of the mean cross-entropy over a batch of equal images, with respect to the first one's logits."""
    logits = logits.clone().requires_grad_(True)
    labels = torch.full((len(logits),), label)
    return torch.autograd.grad(F.cross_entropy(factor * logits, labels), logits)[0][0]


def logits(gap: float, wrong: int = 9, batch: int = 1, label: int = 0) -> torch.Tensor:
    """Logits of `batch` images, `wrong` classes that far below the true one and the others out of reach."""
    z = torch.full((batch, 10), -1e4)
    z[:, [k for k in range(10) if k != label][:wrong]] = -gap
    z[:, label] = 0
    return z


SLIGHTLY = 2e-5  # more than the spacing of float32 numbers near 100


@pytest.mark.parametrize("wrong", (1, 2, 9))
@pytest.mark.parametrize("label", (0, 4, 9))
def test_the_true_class_is_lost_where_the_theorem_says(wrong, label):
    kept, lost = horizon.true_class_lost(wrong + 1)
    assert lost == pytest.approx(kept + math.log(wrong)) and kept == pytest.approx(16.6355, abs=1e-4)
    assert gradient(logits(kept - SLIGHTLY, wrong, label=label), label)[label] != 0
    after = gradient(logits(lost + SLIGHTLY, wrong, label=label), label)
    assert after[label] == 0 and (after != 0).sum() == wrong


def test_before_it_is_lost_the_true_class_is_a_multiple_of_the_roundoff():
    entries = torch.stack([gradient(logits(gap, 1))[0] for gap in torch.arange(10, 17, 0.1).tolist()]).double()
    multiples = -entries * 2**24
    assert torch.equal(multiples, multiples.round()) and multiples.min() == 0
    assert len(set(multiples.tolist())) < len(multiples)


@pytest.mark.parametrize("batch", (1, 2, 32, 64))
@pytest.mark.parametrize("flush", (False, True))
def test_every_term_is_lost_where_the_theorem_says(batch, flush):
    edge = horizon.gradient_lost(batch, flush)
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        before, after = (gradient(logits(edge + d, batch=batch)) for d in (-SLIGHTLY, SLIGHTLY))
    finally:
        torch.set_flush_denormal(False)
    assert (before[1:] != 0).all() and before[0] == 0 and (after == 0).all()


@pytest.mark.parametrize("factor", (2.0, 7.0, 20.0))
def test_a_factor_multiplies_gaps_and_brings_nothing_back(factor):
    edge = horizon.gradient_lost(32)
    assert (gradient(logits((edge + 1e-3) / factor, batch=32), factor=factor) == 0).all()
    assert (gradient(logits((edge - 1e-3) / factor, batch=32), factor=factor) != 0).any()
    steep, plain = gradient(logits(50 / factor), factor=factor), gradient(logits(50.0))
    assert torch.allclose(steep, factor * plain, rtol=1e-4)


def test_a_threshold_is_refused_where_it_is_not_exact():
    with pytest.raises(ValueError, match="powers of 2"):
        horizon.gradient_lost(24)


@pytest.mark.parametrize("correlation, ratio", ((0.0, 1.0), (0.6, 1.0), (-0.1, 1.0), (0.3, 2.0), (0.9, 0.5)))
def test_the_turned_step_is_that_of_normal_pixels(correlation, ratio):
    draws = np.random.default_rng(0).standard_normal((2, 1_000_000))
    a = draws[0]
    b = ratio * (correlation * draws[0] + math.sqrt(1 - correlation**2) * draws[1])
    found = horizon.turned(correlation, ratio)
    assert found.signs == pytest.approx((np.sign(a) == np.sign(a - b)).mean(), abs=3e-3)
    assert found.gain == pytest.approx((np.sign(a) * (a - b)).mean() / np.abs(a - b).mean(), abs=3e-3)


def test_without_correlation_a_quarter_of_the_signs_is_lost():
    found = horizon.turned()
    assert found.signs == pytest.approx(0.75) and found.gain == pytest.approx(math.sqrt(0.5))
    gains = [horizon.turned(c).gain for c in (-0.9, -0.5, 0.0, 0.5, 0.9)]
    assert gains == sorted(gains, reverse=True)


def records(epoch: int, t1: float, **values: float) -> list[SnapshotRecord]:
    return [SnapshotRecord(epoch, epoch, t1, name.replace("_", "-"), value, 100) for name, value in values.items()]


def test_the_quantity_that_ranks_masked_points_comes_first():
    found = []
    for epoch, (fgsm, gap, past) in enumerate(((0.1, 9.0, 0.1), (0.2, 30.0, 0.2), (0.3, 8.0, 0.6), (0.4, 7.0, 0.9)), 1):
        found += records(epoch, 10.0, fgsm=fgsm, fgsm_margin=0.0, gap_50=gap, past_17=past, past_104=0.0, zero_gradient=0.0)
    best, *others = horizon.explanations({"a": found}, (10.0, 100.0))
    assert (best.quantity, best.n) == ("past-17", 4) and best.correlation == pytest.approx(1)
    assert {row.quantity: row.correlation for row in others} == pytest.approx({"gap-50": -0.8, "past-104": 0, "zero-gradient": 0})
