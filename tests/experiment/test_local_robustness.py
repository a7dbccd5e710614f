"""The local robustness is the distance to the boundary where the network is linear, and blind to
the scale of the logits.
"""

import pytest
import torch
from builders import tiny_config

from nodelib.attacks.losses import margin_loss, margins
from nodelib.dynamics.geometry import direction, norm
from nodelib.experiment import artifacts, measure_states, training
from nodelib.experiment.contract import LOCAL_MEASUREMENTS
from nodelib.experiment.local_robustness import local_robustness
from nodelib.networks import ResNet


def test_margins_are_what_the_margin_loss_averages():
    logits, labels = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.7, 0.1]]), torch.tensor([0, 0])
    assert margins(logits, labels).tolist() == pytest.approx([2.0, -0.2])
    assert margin_loss(logits, labels).item() == pytest.approx(-0.9)


@pytest.mark.parametrize("kind", ["odenet", "resnet"])
def test_a_factor_on_the_logits_changes_margin_and_slope_and_not_their_quotient(small, test_images, kind):
    model = small if kind == "odenet" else ResNet(16, 7, 2).eval()
    images, labels = (x[:40] for x in test_images)  # two batches
    before = local_robustness(model, images, labels)
    assert set(before) == set(LOCAL_MEASUREMENTS) and {v.shape for v in before.values()} == {(40,)}
    with torch.no_grad():
        model.linear.weight.mul_(10)
        model.linear.bias.mul_(10)
    after = local_robustness(model, images, labels)
    for name, values in before.items():
        factor = 10 if name in ("margin", "margin_slope") else 1
        assert torch.allclose(after[name], factor * values, rtol=1e-3)


def test_a_step_so_long_along_the_signs_reaches_the_boundary_of_a_linear_network(test_images):
    class Linear(ResNet):  # no maximum, no normalisation: the first order is all there is
        def stem(self, x):
            return x[..., :14, :14].repeat(1, 4, 1, 1)

    torch.manual_seed(0)
    model = Linear(4, 14, 0).eval()
    images, labels = (x[:16] for x in test_images)
    found = local_robustness(model, images, labels)
    weight = model.linear.weight.view(10, 4, 14, 14).sum(1)
    rival = model(images).scatter(1, labels[:, None], float("-inf")).argmax(1)
    slope = weight[labels] - weight[rival]
    assert torch.allclose(found["margin_slope"], slope.abs().flatten(1).sum(1), rtol=1e-4)
    moved = images.clone()
    moved[..., :14, :14] -= found["local_robustness"][:, None, None, None] * slope.sign()[:, None]
    z = model(moved)
    gap = z.gather(1, labels[:, None]) - z.gather(1, rival[:, None])
    assert (gap.abs() < 1e-4).all()


def test_the_expansion_is_what_finite_differences_give_on_average(small, test_images):
    images, labels = (x[:1].repeat(32, 1, 1, 1) if x.ndim > 1 else x[:1].repeat(32) for x in test_images)
    small.double()
    found = local_robustness(small, images.double(), labels)  # 32 directions u at one image
    with torch.no_grad():
        start = small.stem(images.double())
        u = direction(torch.randn(start.shape, generator=torch.Generator().manual_seed(1)).double())
        nudge = 1e-6 * norm(start)[0]
        there = norm(small.block(start + nudge * u) - small.block(start - nudge * u)) / (2 * nudge)
    # |J u| and |J^T u| have the same mean square
    assert found["expansion"].square().mean().sqrt().item() == pytest.approx(
        there.square().mean().sqrt().item(), rel=0.1)


def test_a_network_without_blocks_expands_nothing(test_images):
    found = local_robustness(ResNet(16, 7, 0).eval(), *(x[:8] for x in test_images))
    assert torch.allclose(found["expansion"], torch.ones(8)) and torch.allclose(found["relative_expansion"],
                                                                                torch.ones(8))


def test_a_residual_network_is_measured_and_only_so_far(tmp_path):
    run = training.run(tiny_config(name="resnet-1", architecture="resnet", blocks=1, cycles=()), tmp_path,
                       progress=False)
    assert measure_states.pending(run) == ("local",)
    assert measure_states.measure_run(run.path, 20) == ["local"]
    stored = artifacts.load_run(run.path).measurements
    assert {r["name"] for r in stored} == set(LOCAL_MEASUREMENTS) and {r["t1"] for r in stored} == {None}
    assert {r["statistic"] for r in stored} == {"median", "q10", "q90"}
    assert measure_states.measure_run(run.path, 20) == []
    with pytest.raises(ValueError, match="makes no sense"):
        measure_states.measure_run(run.path, 20, parts=["solver"])
