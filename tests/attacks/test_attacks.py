import dataclasses
import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nodelib
from nodelib.attacks import (
    METHODS,
    Attack,
    AttackError,
    NoODEError,
    apgd_ce,
    apgd_dlr,
    apgd_t,
    common,
    dlr_loss,
    fab_t,
    fgsm,
    hop_skip_jump,
    logit_gap,
    margin_loss,
    pgd,
    square,
)
from nodelib.attacks.attack import method
from nodelib.experiment.evaluation import Measurement, evaluate, record
from nodelib.networks import FractionalPool, ODEBlock, ODENet, ResNet
from nodelib.solver.errors import InputError, StepLimitError

CALLS = {
    "fgsm": lambda model, x, y, epsilon=0.3, **k: fgsm(model, x, y, epsilon, **k),
    "pgd": lambda model, x, y, epsilon=0.3, **k: pgd(model, x, y, epsilon,
                                                     **{"step_size": 0.1, "steps": 3, **k}),
}


class Linear(nn.Module):
    """Logits linear in the pixels: the attack's optimum is known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(784, 10, generator=torch.Generator().manual_seed(0)) / 28)

    def forward(self, images):
        return images.flatten(1) @ self.weight


@pytest.fixture(params=CALLS)
def attack(request):
    return CALLS[request.param]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
def test_attacked_images_stay_in_the_ball_and_in_the_box_if_asked(attack, clip, epsilon, small, test_images):
    images, labels = test_images[0][:8], test_images[1][:8]
    adversarial = attack(small, images, labels, epsilon, clip=clip)
    assert (adversarial - images).abs().max() <= epsilon + 1e-6
    assert (adversarial - images).abs().max() > 0.9 * epsilon * (1 if clip is False else 0.5)
    if clip:
        assert adversarial.min() >= 0 and adversarial.max() <= 1
    else:
        assert adversarial.min() < 0 or adversarial.max() > 1


def test_epsilon_zero_returns_the_images(attack, small, test_images):
    assert torch.equal(attack(small, test_images[0][:4], test_images[1][:4], 0.0), test_images[0][:4])


def test_an_attack_raises_the_loss(attack, small, test_images):
    images, labels = test_images[0][:16], test_images[1][:16]
    adversarial = attack(small, images, labels, 0.1)
    with torch.no_grad():
        assert F.cross_entropy(small(adversarial), labels) > F.cross_entropy(small(images), labels) + 0.01


def test_fgsm_on_a_linear_model_is_the_known_optimum(test_images):
    model = Linear().eval()
    images, labels = test_images[0][:4], test_images[1][:4]
    probabilities = model(images).softmax(1).detach()
    slope = (probabilities - F.one_hot(labels, 10)) @ model.weight.detach().T
    expected = images + 0.2 * slope.sign().view_as(images)
    assert torch.allclose(fgsm(model, images, labels, 0.2, clip=False), expected)


def test_pgd_on_a_model_linear_in_the_logits_margin_reaches_the_corner(test_images):
    model = Linear().eval()
    images, labels = test_images[0][:4], test_images[1][:4]
    corner = fgsm(model, images, labels, 0.1, clip=False)
    reached = pgd(model, images, labels, 0.1, step_size=0.05, steps=10, clip=False)
    with torch.no_grad():
        assert F.cross_entropy(model(reached), labels) >= F.cross_entropy(model(corner), labels) - 1e-4


def test_pgd_of_one_full_step_without_random_start_is_fgsm(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    assert torch.equal(pgd(small, images, labels, 0.3, step_size=0.3, steps=1, random_start=False),
                       fgsm(small, images, labels, 0.3))


def test_random_starts_follow_their_seed(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    call = lambda seed: pgd(small, images, labels, 0.3, step_size=0.01, steps=1, seed=seed)  # noqa: E731
    assert torch.equal(call(1), call(1))
    assert not torch.equal(call(1), call(2))


def test_restarts_never_make_the_attack_weaker(small, test_images):
    images, labels = test_images[0][:16], small(test_images[0][:16]).argmax(1)
    wrong = []
    for restarts in (1, 4):
        adversarial = pgd(small, images, labels, 0.02, step_size=0.01, steps=2, restarts=restarts)
        with torch.no_grad():
            wrong.append(small(adversarial).argmax(1) != labels)
    assert (wrong[1] | ~wrong[0]).all()


def test_parameters_keep_their_gradient_flags_and_the_block_its_gradient(attack, small, test_images):
    small.linear.bias.requires_grad_(False)
    attack(small, test_images[0][:2], test_images[1][:2], gradient="torchdiffeq-backprop")
    assert small.block.gradient == "exact"
    assert not small.linear.bias.requires_grad and small.conv.weight.requires_grad
    assert all(p.grad is None for p in small.parameters())


@pytest.mark.parametrize("change, message", [
    (dict(images=torch.full((2, 1, 28, 28), 1.5)), "reach from 1.5 to 1.5; the allowed range is \\[0, 1\\]"),
    (dict(images=torch.full((2, 1, 28, 28), -0.1)), "allowed range"),
    (dict(images=torch.full((2, 1, 28, 28), float("nan"))), "contain NaN"),
    (dict(images=torch.zeros(2, 28, 28)), "shape \\(2, 28, 28\\)"),
    (dict(images=torch.full((2, 1, 28, 28), float("inf"))), "reach from inf to inf"),
    (dict(images=torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), "dtype torch.uint8.*float\\(\\) / 255"),
    (dict(images=torch.zeros(2, 1, 28, 28, dtype=torch.float16)), "dtype torch.float16.*images.float\\(\\)"),
    (dict(images=torch.zeros(2, 1, 28, 28, dtype=torch.bfloat16)), "dtype torch.bfloat16.*float32 or"),
    (dict(images=[[0.0]]), "type list"),
    (dict(labels=torch.tensor([-1, 1])), "from -1 to 1; the allowed range is 0 to"),
    (dict(labels=torch.tensor([1])), "one per image"),
    (dict(labels=[1, 2]), "type list"),
    (dict(labels=torch.tensor([1.0, 2.0])), "expected integers"),
    (dict(labels=torch.tensor([True, False])), "dtype torch.bool; expected integers"),
    (dict(epsilon=-0.1), "epsilon is -0.1; it must be from 0 to 1"),
])
def test_bad_input_is_refused_before_any_work(attack, change, message, small):
    values = {"images": torch.zeros(2, 1, 28, 28), "labels": torch.tensor([1, 2]), "epsilon": 0.3, **change}
    small.block.func.nfe = 0
    with pytest.raises(ValueError, match=message):
        attack(small, values["images"], values["labels"], values["epsilon"])
    assert small.block.func.nfe == 0


def test_a_model_in_training_mode_is_refused(attack, small, test_images):
    with pytest.raises(ValueError, match="training mode.*eval"):
        attack(small.train(), test_images[0][:2], test_images[1][:2])


def test_a_wrapper_hides_neither_a_part_in_training_mode_nor_a_random_pass(attack, small, test_images):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small

        def forward(self, x, t1=None):
            return self.inner(x, t1)

    wrapped = Wrapper().eval()
    wrapped.inner.train()
    with pytest.raises(ValueError, match="a part of it, is in training mode"):
        attack(wrapped, test_images[0][:2], test_images[1][:2])
    wrapped.inner.eval().pooling = "random"
    with pytest.raises(ValueError, match="pooling='random'"):
        attack(wrapped, test_images[0][:2], test_images[1][:2])


def test_a_random_forward_pass_must_be_asked_for(attack, small, test_images):
    small.pooling = "random"
    with pytest.raises(ValueError, match="pooling='random'.*allow_random_forward"):
        attack(small, test_images[0][:2], test_images[1][:2])
    attack(small, test_images[0][:2], test_images[1][:2], allow_random_forward=True)


@pytest.mark.parametrize("dimensions, make", [
    (2, lambda **k: nn.FractionalMaxPool2d(2, output_size=5, **k)),
    (3, lambda **k: nn.FractionalMaxPool3d(2, output_size=(1, 5, 5), **k))])
def test_torchs_own_random_pooling_must_be_asked_for_or_fixed(attack, dimensions, make, test_images):
    def model(**options):
        torch.manual_seed(0)
        volume = nn.Unflatten(2, (4, 7)) if dimensions == 3 else nn.Identity()
        return nn.Sequential(volume, make(**options), nn.Flatten(), nn.Linear(25, 10)).eval()

    images, labels = test_images[0][:2], test_images[1][:2]
    with pytest.raises(InputError, match=f"random \\(FractionalMaxPool{dimensions}d.*allow_random_forward"):
        attack(model(), images, labels)
    assert attack(model(), images, labels, allow_random_forward=True).shape == images.shape
    fixed = model(_random_samples=torch.full((2, 1, dimensions), 0.5))
    assert torch.equal(attack(fixed, images, labels), attack(fixed, images, labels))


def test_our_random_pooling_in_a_network_of_ones_own_must_be_asked_for_or_fixed(attack, test_images):
    pool = FractionalPool(1, 5, mode="random")
    model = nn.Sequential(pool, nn.Flatten(), nn.Linear(25, 10)).eval()
    images, labels = test_images[0][:2], test_images[1][:2]
    with pytest.raises(InputError, match=r"random \(FractionalPool with mode='random'.*allow_random_forward"):
        attack(model, images, labels)
    assert attack(model, images, labels, allow_random_forward=True).shape == images.shape
    pool.mode = "fixed"
    assert torch.equal(attack(model, images, labels), attack(model, images, labels))


def test_logits_that_are_not_finite_are_refused(attack, small, test_images):
    with torch.no_grad():
        small.linear.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits are not finite"):
        attack(small, test_images[0][:2], test_images[1][:2])


def test_a_loss_that_is_no_tensor_is_refused(attack, test_images):
    with pytest.raises(InputError, match="the loss is of type float; it must be a tensor"):
        attack(Linear().eval(), test_images[0][:2], test_images[1][:2],
               loss=lambda logits, labels: F.cross_entropy(logits, labels).item())


def test_a_margin_loss_attacks_where_the_cross_entropy_has_no_gradient(attack, test_images):
    """Logits times a million: the softmax is exactly one, its gradient exactly zero, the images stay."""
    model = Linear().eval()
    with torch.no_grad():
        model.weight *= 1e6
        images = test_images[0][:8]
        labels = model(images).argmax(1)
    still = fgsm(model, images, labels, 0.1)
    assert torch.equal(still, images)
    for options in (dict(loss="margin"), dict(loss="dlr"), dict(logit_scale=1e-6), dict(logit_scale="gap")):
        adversarial = attack(model, images, labels, 0.1, **options)
        with torch.no_grad():
            assert (model(adversarial).argmax(1) != labels).double().mean() > 0.8, options


def test_the_margin_is_the_largest_wrong_logit_minus_the_true_one():
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]), torch.tensor([0, 2])
    assert margin_loss(logits, labels).item() == pytest.approx((-1 + 4) / 2)
    assert dlr_loss(logits, labels).item() == pytest.approx((-1 / 2 + 4 / 5) / 2)
    assert dlr_loss(7 * logits + 3, labels).item() == pytest.approx((-1 / 2 + 4 / 5) / 2)
    with pytest.raises(InputError, match=r"shape \(2, 1\).*two classes or more"):
        margin_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    assert logit_gap(logits).tolist() == [1.0, 4.0]


def test_the_gradient_over_draws_and_end_times_is_the_mean(small, test_images):
    images, labels = test_images[0][:2], test_images[1][:2]
    one, two = (common.input_gradient(small, images, labels, t1)[0] for t1 in (1.0, 2.0))
    both, _ = common.input_gradient(small, images, labels, [1.0, 2.0])
    assert torch.allclose(both, (one + two) / 2, atol=1e-7)
    small.pooling = "random"
    small.pool.generator = torch.Generator().manual_seed(3)
    single = [common.input_gradient(small, images, labels, 1.0)[0] for _ in range(3)]
    small.pool.generator = torch.Generator().manual_seed(3)
    mean = common.input_gradient(small, images, labels, 1.0, draws=3)[0]
    assert torch.allclose(mean, sum(single) / 3, atol=1e-7)
    assert not torch.allclose(single[0], single[1])


def test_an_unknown_loss_or_gradient_names_the_known_ones(attack, small, test_images):
    images, labels = test_images[0][:1], test_images[1][:1]
    for change, message in (
            (dict(loss="hinge"), "unknown loss 'hinge'; the known losses are cross-entropy, margin, dlr"),
            (dict(gradient="symbolic"), "gradient is 'symbolic'; it must be one of ")):
        with pytest.raises(ValueError, match=message):
            attack(small, images, labels, **change)


def test_a_targeted_attack_climbs_one_wrong_class_over_the_true_one(test_images):
    model, images = Linear().eval(), test_images[0][:6]
    order = model(images).argsort(1, descending=True)
    labels = order[:, 0]
    options = dict(step_size=0.05, steps=8, clip=False, targeted=True)
    first, second = (images + 0.002 * (model.weight[:, order[:, k]] - model.weight[:, labels]).sign().T
                     .reshape(images.shape) for k in (1, 2))
    found = pgd(model, images, labels, 0.002, targets=1, **options)
    assert torch.allclose(found, first) and not torch.allclose(first, second)
    fooled = model(first).argmax(1) != labels
    assert fooled.any() and not fooled.all()  # where no class fools the network the last one tried stays
    found = pgd(model, images, labels, 0.002, targets=2, **options)
    assert torch.allclose(found, torch.where(fooled.reshape(-1, 1, 1, 1), first, second))
    assert pgd(model, images, labels, 0.002, targets=99, **options).shape == images.shape  # nine are wrong


def test_every_class_in_turn_leaves_fewer_images_than_the_nearest_alone(small, test_images):
    images = test_images[0][:16]
    labels = small(images).argmax(1)
    left = [(small(pgd(small, images, labels, 0.01, step_size=0.01, steps=2, targeted=True,
                       targets=targets)).argmax(1) == labels).sum() for targets in (1, 9)]
    assert left[1] < left[0]


def test_an_attack_can_begin_where_a_search_without_gradients_ends(small, test_images):
    pytest.importorskip("pyautoattack", reason="the optional packages are missing")
    images = test_images[0][:8]
    labels = small(images).argmax(1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    few, many = (pgd(small, images, labels, 0.1, step_size=1e-6, steps=1, queries=queries, loss="margin")
                 for queries in (1, 200))
    assert torch.rand(1) == expected
    loss = [margin_loss(small(moved), labels).item() for moved in (images, few, many)]
    assert loss[2] > max(loss[:2]) + 0.01
    assert (few - images).abs().amax() <= 0.1 + 1e-6 and many.min() >= 0 and many.max() <= 1
    climbed = pgd(small, images, labels, 0.1, step_size=0.01, steps=10, queries=200, loss="margin")
    assert margin_loss(small(climbed), labels) > loss[2]


class Misleading(nn.Module):
    """A network whose gradients point the wrong way: what steps along them find, Square finds better."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        logits = self.model(images)
        return 2 * logits.detach() - logits


def test_steps_along_misleading_gradients_do_not_undo_what_the_search_found(test_images):
    pytest.importorskip("pyautoattack", reason="the optional packages are missing")
    model, images = Misleading(Linear()).eval(), test_images[0][:12]
    labels = model(images).argmax(1)
    options = dict(step_size=0.01, steps=20, loss="margin")
    assert (model(pgd(model, images, labels, 0.1, **options)).argmax(1) == labels).all()
    found = [pgd(model, images, labels, 0.1, queries=200, seed=seed, **options) for seed in (0, 1)]
    assert (model(found[0]).argmax(1) != labels).sum() > 6
    assert not torch.equal(*found)


def test_every_restart_has_a_search_of_its_own(small, test_images):
    pytest.importorskip("pyautoattack", reason="the optional packages are missing")
    images = test_images[0][:8]
    labels = small(images).argmax(1)
    left = [(small(pgd(small, images, labels, 0.03, step_size=1e-6, steps=1, queries=5,
                       restarts=restarts)).argmax(1) == labels).sum() for restarts in (1, 12)]
    assert left[1] < left[0]
    with pytest.raises(InputError, match="labels reach to 9"):
        pgd(nn.Sequential(nn.Flatten(), nn.Linear(784, 5)).eval(), images, labels * 0 + 9, 0.1, step_size=0.1,
            steps=1, queries=5)


@pytest.mark.parametrize("change, message", [
    (dict(targeted=True, loss="margin"), "loss is 'margin' with targeted=True"),
    (dict(targets=3), "targets is 3 with pgd and targeted=False"),
    (dict(queries=10, clip=False), "queries is 10 with random_start=True and clip=False"),
    (dict(queries=10, random_start=False), "queries is 10 with random_start=False"),
    (dict(queries=10, t1=(1.0, 2.0)), "t1 has 2 end times"),
    (dict(targeted=True, t1=(1.0, 2.0)), "t1 has 2 end times")])
def test_targets_and_searched_starts_that_make_no_sense_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Attack("pgd", 0.1, 0.01, **change)


def test_restarts_over_several_end_times_or_of_one_start_are_refused(small, test_images):
    with pytest.raises(ValueError, match="restarts is 2 with 2 end times"):
        CALLS["pgd"](small, test_images[0][:1], test_images[1][:1], restarts=2, t1=[1.0, 2.0])
    with pytest.raises(ValueError, match="t1 is an empty list of end times"):
        CALLS["pgd"](small, test_images[0][:1], test_images[1][:1], t1=[])
    with pytest.raises(ValueError, match="without random_start"):
        CALLS["pgd"](small, test_images[0][:1], test_images[1][:1], restarts=2, random_start=False)


def test_projection_lands_in_ball_and_box():
    images = torch.tensor([0.1, 0.9]).view(1, 1, 1, 2)
    far = torch.tensor([-5.0, 5.0]).view(1, 1, 1, 2)
    assert torch.allclose(common.project(far, images, 0.3, clip=True).flatten(), torch.tensor([0.0, 1.0]))
    assert torch.allclose(common.project(far, images, 0.3, clip=False).flatten(), torch.tensor([-0.2, 1.2]))


def test_noise_smooths_the_gradient_of_pgd(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    plain, smooth, again = (
        pgd(small, images, labels, 0.1, step_size=0.05, steps=2, draws=2, noise=noise, seed=3)
        for noise in (0.0, 0.2, 0.2))
    assert torch.equal(smooth, again) and not torch.equal(plain, smooth)
    mean, _ = common.input_gradient(small, images, labels, None, draws=200, noise=1e-4,
                                    generator=torch.Generator().manual_seed(0))
    point, _ = common.input_gradient(small, images, labels, None)
    # a little noise changes little but at kinks
    assert torch.nn.functional.cosine_similarity(mean.flatten(), point.flatten(), 0) > 0.5


def test_momentum_sums_gradients_of_equal_size(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    step = dict(step_size=0.02, random_start=False)
    one, also, two, plain = (pgd(small, images, labels, 0.3, steps=steps, momentum=momentum, **step)
                             for steps, momentum in ((1, 0.0), (1, 0.9), (2, 0.9), (2, 0.0)))
    assert torch.equal(one, also) and not torch.equal(two, plain)  # the sum of one gradient has its signs
    first, second = (common.input_gradient(small, at, labels, None)[0] for at in (images, one))
    first, second = (gradient / gradient.abs().mean((1, 2, 3), keepdim=True) for gradient in (first, second))
    summed = 0.9 * first + second
    expected = (one + 0.02 * summed.sign()).clamp(0, 1)
    assert (two - expected).abs().gt(1e-6).float().mean() < 0.01  # a sum near 0 may have either sign


def test_momentum_leaves_an_image_without_a_gradient_where_it_is(test_images):
    class Flat(torch.nn.Module):
        def forward(self, images, t1=None):
            return torch.tensor([[1.0, 0.0]]).repeat(len(images), 5) + 0 * images.sum()

    images = test_images[0][:2]
    attacked = pgd(Flat().eval(), images, test_images[1][:2], 0.1, step_size=0.05, steps=2, momentum=0.9,
                   random_start=False)
    assert torch.equal(attacked, images)


# -- networks of one's own ---------------------------------------------------------------------------

class Own(nn.Module):
    """A classifier of colour images with a part that happens to be called block."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.Conv2d(3, 4, 3, stride=4)
        self.out = nn.LazyLinear(classes)

    def forward(self, images):
        return self.out(F.softplus(self.block(images)).flatten(1))


class Timed(nn.Module):
    """A network with an end time, and nothing of ours in it."""

    def forward(self, images, t1=1.0):
        return torch.stack([t1 * images.mean((1, 2, 3)), images.std((1, 2, 3))], 1)


@pytest.mark.parametrize("classes, shape, dtype", [
    (2, (3, 32, 32), torch.float32), (17, (3, 24, 40), torch.float64)])
def test_any_classifier_of_images_is_attacked(attack, classes, shape, dtype):
    model = Own(classes).to(dtype).eval()
    images = torch.rand(5, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(1)
    adversarial = attack(model, images, labels.int(), 0.1)
    assert adversarial.dtype == dtype and (adversarial - images).abs().max() <= 0.1 + 1e-6
    with torch.no_grad():
        assert F.cross_entropy(model(adversarial), labels) > F.cross_entropy(model(images), labels)
    with pytest.raises(ValueError, match=f"labels reach to {classes}, but the model has {classes} logits"):
        attack(model, images, labels * 0 + classes, 0.1)


@pytest.mark.parametrize("model, images, message", [
    (torch.float32, torch.float64,
     "dtype torch.float64, .* are torch.float32.*images.to\\(torch.float32\\) or model.to\\(torch.float64"),
    (torch.float64, torch.float32, "dtype torch.float32, .* are torch.float64"),
    (torch.bfloat16, torch.float32, "are torch.bfloat16; both must have one type: use model.to")], ids=str)
def test_images_of_another_type_than_a_model_that_fails_on_them_are_refused(attack, model, images, message):
    own = Own(3).eval()
    own(torch.rand(1, 3, 28, 28))  # which makes its last layer
    with pytest.raises(InputError, match=message):
        attack(own.to(model), torch.rand(2, 3, 28, 28, dtype=images), torch.tensor([0, 1]))


def test_a_model_that_converts_its_images_is_attacked_and_keeps_its_own_errors(attack):
    class Converts(Linear):
        def forward(self, images):
            return super().forward(images.to(self.weight.dtype))

    class Fails(Linear):
        def forward(self, images):
            raise error

    images = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    assert attack(Converts().eval(), images, torch.tensor([0, 1])).dtype == torch.float64
    assert attack(Converts().half().eval(), images.float(), torch.tensor([0, 1])).dtype == torch.float32
    for error, given in ((StepLimitError("spent", 0.0, 0.1, 1.0), images),
                         (RuntimeError("of its own"), images.float())):
        with pytest.raises(RuntimeError) as found:
            attack(Fails().eval(), given, torch.tensor([0, 1]))
        assert found.value is error


@pytest.mark.parametrize("options, message", [
    (dict(t1=1.0), "t1 is 1.0, but .* takes no end time"),
    (dict(gradient="exact"), "gradient is 'exact', but .* no nodelib.ODEBlock")])
@pytest.mark.parametrize("model", [Own(3), ResNet(4, 7, 2), nn.Sequential(nn.Flatten(), nn.Linear(784, 10))],
                         ids=lambda model: type(model).__name__)
def test_options_of_an_ode_are_refused_where_there_is_none(attack, model, options, message):
    channels = 3 if isinstance(model, Own) else 1
    with pytest.raises(NoODEError, match=message):
        attack(model.eval(), torch.rand(2, channels, 28, 28), torch.tensor([0, 1]), **options)


def test_an_end_time_needs_no_part_of_ours_and_a_block_no_name(attack, small, test_images):
    images = torch.rand(4, 3, 8, 8)
    moved = [attack(Timed().eval(), images, torch.tensor([0, 1, 0, 1]), 0.1, t1=t1) for t1 in (1.0, -1.0)]
    assert not torch.equal(*moved)
    with pytest.raises(NoODEError, match="gradient"):
        attack(Timed().eval(), images, torch.tensor([0, 1, 0, 1]), gradient="exact")
    renamed = nn.Sequential(*[nn.Identity(), ODEBlock(nn.Identity()), nn.Flatten(), nn.Linear(784, 10)])
    renamed[1].func.forward = lambda t, y: -y
    seen = []
    renamed[1].register_forward_hook(lambda block, *_: seen.append(block.gradient))
    attack(renamed.eval(), test_images[0][:2], test_images[1][:2], gradient="adjoint")
    assert set(seen) == {"adjoint"} and renamed[1].gradient == "exact"


class Masked(nn.Module):
    """A classifier whose second argument is no end time."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, images, mask=None):
        return self.linear((images if mask is None else images * mask).flatten(1))


class Starred(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        return self.module(*inputs)


class Renamed(nn.Module):
    """A block of ours, whose end time the model calls as it likes."""

    def __init__(self):
        super().__init__()
        self.flow, self.head = ODEBlock(Decays()), nn.Linear(784, 10)

    def forward(self, images, until=None):
        return self.head(self.flow(images, until).flatten(1))


class Decays(nn.Module):
    def forward(self, t, y):
        return -y


@pytest.mark.parametrize("model, message", [
    (Masked, "t1 is 3.0, but the second argument of Masked.forward is called 'mask'"),
    (lambda: Starred(Masked()), "second argument of Masked.forward is called 'mask'"),
    (lambda: Starred(nn.Sequential(Masked())), "Sequential.forward takes no end time"),
    (lambda: torch.jit.trace(Masked(), torch.rand(2, 1, 28, 28)), "has no signature .*traced")])
def test_a_second_argument_that_is_no_end_time_is_given_none(attack, model, message, test_images):
    images, labels, model = test_images[0][:2], test_images[1][:2], model().eval()
    assert attack(model, images, labels).shape == images.shape
    with pytest.raises(NoODEError, match=message):
        attack(model, images, labels, t1=3.0)


@pytest.mark.parametrize("model", [lambda: Starred(Timed()), lambda: torch.compile(Timed(), backend="eager"),
                                   lambda: Starred(Renamed()), Renamed])
def test_an_end_time_goes_through_wrappers_and_to_a_block_of_ours_by_any_name(model, test_images):
    images, labels = test_images[0][:2], test_images[1][:2] % 2
    assert fgsm(model().eval(), images, labels, 0.1, t1=0.5).shape == images.shape


@pytest.mark.parametrize("t1", ["12", float("nan"), True, ["1", "2"], [1.0, None]])
def test_an_end_time_that_is_no_number_is_refused(attack, t1, small, test_images):
    with pytest.raises(ValueError, match="t1 is .*; it must be a finite number"):
        attack(small, test_images[0][:1], test_images[1][:1], t1=t1)
    if isinstance(t1, str):
        with pytest.raises(ValueError, match="end time t1 is '12'"):
            small(test_images[0][:1], t1)


@pytest.mark.parametrize("output, message", [
    (lambda x: x, "expected logits of shape"), (lambda x: (x,), "type tuple"),
    (lambda x: x.mean((1, 2, 3))[:, None], "K at least 2"),
    (lambda x: x.flatten(1)[:1], "shape \\(1, 784\\)")])
def test_an_output_that_is_no_logits_is_refused(attack, output, message):
    class Odd(nn.Module):
        forward = staticmethod(output)

    images = torch.rand(2, 1, 28, 28)
    with pytest.raises(ValueError, match=message):
        attack(Odd().eval(), images, torch.tensor([0, 1]))


class Root(nn.Module):
    """Logits whose slope at black pixels is infinite."""

    def forward(self, images):
        return torch.stack([images.sqrt().sum((1, 2, 3)), images.sum((1, 2, 3))], 1)


def test_a_gradient_that_is_not_finite_is_never_stepped_along(attack):
    torch.manual_seed(0)
    chaotic = ODENet(16, 7, leaky=True).eval()  # its gradient grows beyond single precision
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([1, 2])
    assert attack(chaotic, images, labels, t1=1.0).shape == images.shape
    with pytest.raises(AttackError, match="gradient is not finite for 2 of 2 images"):
        attack(chaotic, images, labels, t1=100.0)
    with pytest.raises(AttackError, match="gradient is not finite for 2 of 2 images"):
        start = {} if attack is CALLS["fgsm"] else {"random_start": False}
        attack(Root().eval(), torch.zeros(2, 1, 4, 4), torch.tensor([1, 1]), **start)


def test_a_loss_with_nothing_to_climb_is_an_error(attack, small, test_images):
    images, labels = test_images[0][:2], test_images[1][:2]
    unknown, constant = lambda z, y: z.sum() * 0 + float("nan"), lambda z, y: z.detach().sum()
    for options, message in ((dict(logit_scale=1e38), "the loss is|gradient is not finite"),
                             (dict(loss=unknown), "the loss is nan"),
                             (dict(loss=constant), "does not depend on the images")):
        with pytest.raises(AttackError, match=message):
            attack(small, images, labels, **options)
    with pytest.raises(ValueError, match="the loss has shape"):
        attack(small, images, labels, loss=lambda logits, labels: logits.sum(1))


def test_an_attack_is_one_value(small, test_images):
    images, labels = test_images[0][:2], test_images[1][:2]
    fields = dict(step_size=0.05, steps=2, seed=4, t1=2.0, loss="margin")
    described, several = Attack("pgd", 0.1, **fields), Attack("pgd", 0.1, **{**fields, "t1": [1.0, 2.0]})
    assert len({described, Attack("pgd", 0.1, **fields), several}) == 2
    direct = pgd(small, images, labels, 0.1, **fields)
    assert torch.equal(described(small, images, labels), direct)
    for name, option, value in (("fgsm", "steps", 10), ("fgsm", "step_size", 0.1), ("fgsm", "seed", 3),
                                ("random-signs", "loss", "margin"), ("square", "momentum", 1.0),
                                ("square", "draws", 2)):
        with pytest.raises(ValueError, match=f"{option} is .* with {name}, which makes no use of it"):
            Attack(name, 0.1, **{option: value})
    with pytest.raises(ValueError, match="step_size is None"):
        Attack("pgd", 0.1)(small, images, labels)


def test_an_attack_and_the_errors_to_catch_stand_at_the_top(small, test_images):
    assert {"Attack", "AttackError", "IntegrationError", "NodelibError"} <= {*nodelib.__all__}
    images, labels = test_images[0][:2], test_images[1][:2]
    assert torch.equal(nodelib.Attack("fgsm", 0.1)(small, images, labels), fgsm(small, images, labels, 0.1))
    failing = {
        nodelib.AttackError: lambda: fgsm(Root().eval(), torch.zeros(2, 1, 4, 4), labels * 0 + 1, 0.1),
        nodelib.IntegrationError: lambda: nodelib.odeint(lambda t, y: y / 0, torch.ones(3), [0.0, 1.0]),
        nodelib.NodelibError: lambda: fgsm(small, images, labels, 2.0)}
    for error, attempt in failing.items():
        assert issubclass(error, nodelib.NodelibError)
        with pytest.raises(error):
            attempt()


def test_an_attack_by_the_recipe_is_checked_and_measured_like_any_other(small, test_images):
    @method("upwards", uses="step_size seed", loss="none", library="mine", random_start=False)
    def _upwards(attack, model, images, labels):
        return common.project(images + attack.step_size, images, attack.epsilon, attack.clip)

    try:
        images, labels = test_images[0][:4], test_images[1][:4]
        moved = Attack("upwards", 0.1, 0.05)(small, images, labels)
        assert torch.allclose(moved, (images + 0.05).clamp(0, 1))
        with pytest.raises(ValueError, match="momentum"):
            Attack("upwards", 0.1, 0.05, momentum=1.0)
        measured = Measurement(1.0, 4, "upwards", epsilon=0.1, step_size=0.05)
        with torch.no_grad():
            expected = small(moved, 1.0).argmax(1) == labels
        found, _ = evaluate(small, images, labels, measured)
        assert found.tolist() == expected.tolist()
        stored = record(measured, found, 26.0, 0.0, "cpu", None)
        assert stored["attack"] == "upwards" and stored["settings"]["step_size"] == 0.05
        said = {name: stored["settings"][name] for name in ("loss", "library", "random_start")}
        assert said == dict(loss="none", library="mine", random_start=False)
    finally:
        METHODS.pop("upwards")


REFUSED = {
    **dict.fromkeys(("clip", "random_start", "targeted", "allow_random_forward", "allow_training_mode"),
                    ("no", None, 1)),
    "queries": (-1, 1.5, 2.0, True, "1", None, [1], float("nan")),
    **dict.fromkeys(("restarts", "draws", "targets"),
                    (0, 1.5, 2.0, torch.tensor(2.0), True, "1", None, [1], float("nan"))),
    "steps": (0, 1.5, 2.0, torch.tensor(2.0), True, "1", [1], float("nan")),
    "epsilon": (-0.1, 1.01, 8, "0.3", None, True, [0.3], torch.ones(2), float("nan"), float("inf")),
    "step_size": (0.0, -0.1, "0.1", [0.1], True), "seed": (0.0, "0", None, True, [0], 2**64, float("nan")),
    "t1": ("1", b"1", [], [None], {}, float("inf")), "gradient": ("symbolic", 4, ["exact"]),
    "loss": ("hinge", None, ["margin"]), "logit_scale": (0.0, -1.0, "gaps", None, [1.0], torch.ones(2)),
    **dict.fromkeys(("noise", "momentum"), (-0.1, 1.1, "0", None, [0.1], float("nan"))),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_value_of_a_wrong_type_or_out_of_range_is_refused_by_every_attack(name):
    assert {"name", *REFUSED} == {field.name for field in dataclasses.fields(Attack)}
    for option, values in REFUSED.items():
        for value in values:
            with pytest.raises(InputError, match=option):
                Attack(**{"name": name, "epsilon": 0.1, option: value})
    for value in ("cw", None, 4, ["pgd"]):
        with pytest.raises(InputError, match="unknown attack .*fgsm.*pgd"):
            Attack(value, 0.1)


def test_an_attack_takes_as_many_steps_by_default_as_the_function_of_its_name():
    for name, function in (("apgd-ce", apgd_ce), ("apgd-dlr", apgd_dlr), ("apgd-t", apgd_t), ("fab-t", fab_t),
                           ("square", square), ("hop-skip-jump", hop_skip_jump)):
        parameters = inspect.signature(function).parameters
        own = parameters["queries" if name == "hop-skip-jump" else "steps"].default
        assert Attack(name, 0.1).steps == Attack(name, 0.1, steps=None).steps == own > 1
        assert Attack(name, 0.1, steps=1).steps == 1 and hash(Attack(name, 0.1, steps=own)) == hash(
            Attack(name, 0.1))
        with pytest.raises(InputError, match=f"steps is 1 with attack '{name}'.*it is {own}"):
            Measurement(1.0, 10, name, 0.1)
        assert Measurement(1.0, 10, name, 0.1, steps=2).as_attack().steps == 2
    for name in ("fgsm", "pgd", "random-signs"):
        assert Attack(name, 0.1).steps == Measurement(1.0, 10, name, 0.1, step_size=(name == "pgd") / 10
                                                      ).as_attack().steps == 1
    with pytest.raises(InputError, match="steps is None"):
        pgd(Linear(), torch.zeros(1, 1, 28, 28), torch.zeros(1), 0.1, step_size=0.1, steps=None)


def test_scalars_of_torch_and_numpy_make_the_same_attack():
    values = dict(epsilon=0.25, step_size=0.125, steps=3, restarts=2, t1=2.0, clip=False, seed=5, draws=2,
                  noise=0.5, momentum=1.0, logit_scale=4.0)
    expected = Attack("pgd", **values)
    for scalar in (torch.tensor, np.array, lambda value: np.array([value])[0]):
        made = Attack("pgd", **{name: scalar(value) for name, value in values.items()})
        assert made == expected and hash(made) == hash(expected)
        assert all(type(getattr(made, name)) is type(value) for name, value in values.items())
    several = Attack("pgd", 0.25, 0.125, t1=[torch.tensor(1.0), np.float32(2.0)])
    assert several == Attack("pgd", 0.25, 0.125, t1=(1.0, 2.0))
