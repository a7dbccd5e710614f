"""The penalty for a ray of its own per class, and the rule on what that does against attack."""

import pytest
import torch
from builders import tiny_config

from nodelib.dynamics import cosines
from nodelib.experiment import own_rays, training
from nodelib.experiment.configs import AttackConfig, build
from nodelib.solver.errors import InputError
from nodelib.verdicts import own_rays as rule

LABELS = torch.arange(10).repeat(3)


@pytest.fixture
def model():
    return build(tiny_config())


def found(model, states, t1=10.0, seed=0):
    return own_rays.penalty(model, states, LABELS, t1, torch.Generator().manual_seed(seed))


def value(*arguments):
    with torch.no_grad():
        return found(*arguments).item()


def to_nearest(model, shift=0):
    """A field that maps every state to the ray nearest to it, or to the one so many classes further."""
    rays = own_rays.own_rays(model).detach()

    def forward(t, y):
        return rays[(cosines(y, rays).argmax(1) + shift) % 10]

    model.block.func.forward = forward
    return rays


def test_a_field_with_an_attracting_ray_per_class_pays_nothing(model):
    rays = to_nearest(model)
    assert torch.equal(model.block.func(0.0, 7 * rays), rays)
    assert value(model, 10 * rays[LABELS]) == 0


def test_a_field_that_leads_to_another_classs_ray_pays_its_distance(model):
    rays = to_nearest(model, shift=1)
    # twice a distance of about sqrt(20 / 9) in units of the spread: f(p) is one class off, f(f(p)) two
    assert 1.5 < value(model, 10 * rays[LABELS]) < 3


def test_states_near_another_classs_ray_are_not_forgiven(model):
    rays = to_nearest(model)
    assert value(model, 10 * rays[(LABELS + 1) % 10]) > 0.3


def test_the_penalty_is_blind_to_the_heads_offset_and_scale(model):
    states = torch.randn(30, 16, 7, 7, generator=torch.Generator().manual_seed(1))
    before = value(model, states)
    with torch.no_grad():
        model.linear.weight.mul_(3).add_(torch.randn(model.linear.weight.shape[1]))
    assert value(model, states) == pytest.approx(before, rel=1e-3)


def test_its_gradient_reaches_dynamics_head_and_states_and_lowers_it(model):
    states = torch.randn(30, 16, 7, 7, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    optimiser = torch.optim.Adam([*model.block.parameters(), model.linear.weight], lr=1e-2)
    first = found(model, states)
    first.backward()
    reached = [states, model.linear.weight, *(p for p in model.block.parameters() if p.ndim == 4)]
    assert all(p.grad.abs().max() > 0 for p in reached)
    for seed in range(10):
        optimiser.zero_grad()
        found(model, states, seed=seed).backward()
        optimiser.step()
    assert value(model, states) < 0.7 * first.item()


def test_training_pays_it_only_where_the_config_asks(tmp_path):
    plain, paid = tiny_config(), tiny_config(own_rays=10.0)
    assert "own_rays" not in plain.identity()  # older checkpoints know no such field
    assert training.fingerprint(plain) != training.fingerprint(paid)
    images = torch.randn(30, 16, 7, 7, generator=torch.Generator().manual_seed(1))
    trained = [training.train(config, tmp_path / f"{config.own_rays:g}", progress=False)
               for config in (plain, paid)]
    left = [value(run.load_model(), images) for run in trained]
    assert left[1] < left[0]


@pytest.mark.parametrize("changes", [dict(own_rays=-1.0), dict(own_rays=float("nan")),
                                     dict(own_rays=1.0, leaky=True), dict(own_rays=1.0, last_norm=False),
                                     dict(own_rays=1.0, architecture="resnet"),
                                     dict(own_rays=1.0, adversarial=AttackConfig())])
def test_rays_that_cannot_be_are_refused(changes):
    with pytest.raises(InputError, match="own_rays is"):
        tiny_config(**changes)


@pytest.mark.parametrize("clean, left, further, said", [
    (0.0, 0.1, 0.01, rule.HELPS), (-0.005, 0.2, 0.02, rule.HELPS), (0.0, 0.09, 0.02, rule.NEITHER),
    (0.0, 0.2, 0.009, rule.NEITHER), (0.0, 0.0, 0.0, rule.NEITHER), (-0.006, 0.3, 0.05, rule.HARMS),
    (0.0, -0.05, -0.01, rule.HARMS)])
def test_rays_help_where_accuracy_is_kept_and_both_measures_rise(clean, left, further, said):
    assert rule.outcome(clean, left, further) == said
