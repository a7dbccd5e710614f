import numpy as np
import pytest
import torch

from nodelib import networks
from nodelib.experiment import configs
from nodelib.solver.errors import InputError, TimesError, UnsupportedGradientError
from nodelib.solver.integrate import odeint

PARAMETERS = {"small": 17418, "large": 655370, "wide": 212874}


@pytest.mark.parametrize("name", ["small-10", "small-random", "small-100", "large-10", "large-random",
                                  "large-100", "wide-standard", "wide-adversarial"])
def test_the_networks_have_the_parameters_of_the_post(name):
    model = configs.build(configs.get(name))
    assert networks.count_parameters(model) == PARAMETERS[name.split("-")[0]]


def test_the_single_block_baseline_has_the_size_of_the_wide_network_and_six_blocks_have_more():
    assert networks.count_parameters(configs.build(configs.get("resnet-1"))) == PARAMETERS["wide"]
    assert networks.count_parameters(configs.build(configs.get("resnet-6"))) > 2 * PARAMETERS["wide"]


@pytest.mark.parametrize("channels, size", [(16, 7), (128, 7), (64, 10)])
def test_states_keep_their_shape_and_logits_are_ten(channels, size, test_images):
    model = networks.ODENet(channels, size).eval()
    with torch.no_grad():
        states = model.trajectory(test_images[0][:2], [0.5, 1.0])
        assert states.shape == (2, 2, channels, size, size)
        assert torch.allclose(model.head(states[1]), model(test_images[0][:2]), atol=1e-4)
        assert model(test_images[0][:2]).shape == (2, 10)
    assert model.block.nfe > 6


def test_the_dynamics_ignore_the_scale_of_the_state():
    func = networks.ODEFunc(16).double()
    y = torch.randn(2, 16, 7, 7, dtype=torch.float64)
    assert torch.allclose(func(0.0, y), func(0.0, 1000 * y), atol=1e-4)
    assert not torch.allclose(func(0.0, y), func(0.0, y.flip(-1)), atol=1e-2)


def test_the_controls_change_the_dynamics_as_they_say():
    torch.manual_seed(0)
    plain, leaky = networks.ODEFunc(16), networks.ODEFunc(16, leaky=True)
    nolast = networks.ODEFunc(16, last_norm=False)
    leaky.load_state_dict(plain.state_dict())
    y = torch.randn(2, 16, 7, 7)
    assert torch.allclose(leaky(0.0, y), plain(0.0, y) - y)
    assert sum(p.numel() for p in plain.parameters()) - sum(p.numel() for p in nolast.parameters()) == 32


def test_fixed_pooling_repeats_itself_and_random_pooling_does_not(test_images):
    model = networks.ODENet(16, 7).eval()
    images = test_images[0][:8]
    assert torch.equal(model.stem(images), model.stem(images))
    model.pooling = "random"
    assert not torch.equal(model.stem(images), model.stem(images))
    model.pool.generator = torch.Generator().manual_seed(1)
    first = model.stem(images)
    model.pool.generator.manual_seed(1)
    assert torch.equal(first, model.stem(images))


def test_fixed_regions_are_those_of_the_stored_draw_in_torchs_own_module(test_images):
    model = networks.ODENet(16, 7).eval()
    images = test_images[0][:3]
    before = model.norm(model.conv(images - 0.5))
    samples = model.pool.samples.expand(3, -1, -1)
    torchs = torch.nn.FractionalMaxPool2d(2, output_size=7, _random_samples=samples)
    assert torch.equal(model.stem(images), torchs(before))


def test_the_pooling_draw_is_stored_with_the_weights():
    first, second = networks.ODENet(16, 7), networks.ODENet(16, 7)
    assert not torch.equal(first.pool.samples, second.pool.samples)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.pool.samples, second.pool.samples)


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = configs.build(configs.get("small-10", seed=3))
    assert torch.equal(torch.rand(1), expected)
    second, other = (configs.build(configs.get("small-10", seed=seed)) for seed in (3, 4))
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)


@pytest.mark.parametrize("t1", [0, -1, float("nan"), float("inf"), "1", [1.0], True, torch.ones(2)])
def test_an_end_time_that_is_not_a_finite_positive_number_is_refused(t1, test_images):
    with pytest.raises(ValueError, match="end time t1 is"):
        networks.ODENet(16, 7, t1=t1)
    with pytest.raises(ValueError, match="end time t1 is"):
        networks.ODENet(16, 7)(test_images[0][:1], t1)


def test_an_end_time_that_requires_gradients_is_refused_as_the_solver_does_and_not_taken_as_a_constant():
    t1 = torch.tensor(1.0, requires_grad=True)
    block, y0 = networks.ODEBlock(Decay()), torch.ones(3)
    for attempt in (lambda: odeint(block.func, y0, [0.0, t1]), lambda: block(y0, t1),
                    lambda: block.trajectory(y0, torch.stack([t1, 2 * t1])),
                    lambda: networks.ODEBlock(Decay(), t1), lambda: networks.ODENet(4, 7, t1),
                    lambda: torch.func.grad(lambda t: block(y0, t).sum())(torch.tensor(1.0))):
        with pytest.raises(TimesError, match="the times require gradients, which are not computed"):
            attempt()
    with pytest.raises(UnsupportedGradientError, match="vmap"):
        torch.vmap(lambda t: block(y0, t))(torch.ones(2))
    assert torch.equal(block(y0, t1.detach()), block(y0, 1.0))


@pytest.mark.parametrize("channels", [-1, 0, 33, 40, 16.5, "16", None])
def test_channels_that_groups_do_not_divide_are_refused_with_the_allowed_ones(channels):
    for make in (networks.ODEFunc, lambda c: networks.ODENet(c, 7), lambda c: networks.ResNet(c, 7, 6)):
        with pytest.raises(ValueError, match=f"channels is {channels!r}.*1 to 32"):
            make(channels)


@pytest.mark.parametrize("channels", [1, 8, 31, 32, 96])
def test_channels_in_the_allowed_range_are_solved(channels):
    assert networks.ODENet(channels, 7).eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("size", [0, 28, 7.5, "7"])
def test_a_size_that_pooling_cannot_give_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size!r}.*1 to 27"):
        networks.ODENet(16, size)


def test_the_largest_size_is_pooled():
    assert networks.ODENet(1, 27).eval().stem(torch.zeros(1, 1, 28, 28)).shape == (1, 1, 27, 27)


def test_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"shape \(2, 3, 28, 28\); expected \(N, 1, 28, 28\)"):
        networks.ODENet(16, 7)(torch.zeros(2, 3, 28, 28))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("pooling", networks.POOLINGS)
def test_no_images_give_no_logits_and_gradients_of_zero(pooling, train):
    model = networks.ODENet(16, 7, pooling=pooling).train(train)
    images = torch.zeros(0, 1, 28, 28, requires_grad=True)
    logits = model(images)
    assert logits.shape == (0, 10) and model.block.nfe == 0
    assert model.trajectory(images, [1.0, 2.0]).shape == (2, 0, 16, 7, 7)
    logits.sum().backward()
    assert images.grad.shape == images.shape and not any(p.grad.any() for p in model.parameters())
    assert model.block.nfe_backward is None


@pytest.mark.parametrize("make", [
    lambda: networks.ODENet(16, 7, leaky="no"), lambda: networks.ODENet(16, 7, last_norm=0),
    lambda: networks.ResNet(16, 7, 1.5), lambda: networks.ResNet(16, 7, "1"),
    lambda: networks.ResNet(16, 7, -1), lambda: networks.ResNet(16, 7, 2.0),
    lambda: networks.ODENet(16.0, 7), lambda: networks.ODENet(16, 7.0), lambda: networks.ODENet(True, 7),
    lambda: networks.ODENet(16, 7, gradient=None), lambda: networks.ODENet(16, 7, pooling=["fixed"]),
])
def test_an_option_of_a_wrong_type_is_refused_when_the_network_is_made(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("whole, flag", [(np.int64, np.bool_), (np.array, np.array),
                                         (torch.tensor, torch.tensor)])
def test_scalars_of_torch_and_numpy_make_the_same_networks(whole, flag):
    made = networks.ODENet(whole(4), whole(7), whole(2), leaky=flag(True), last_norm=flag(False))
    expected = networks.ODENet(4, 7, 2, leaky=True, last_norm=False)
    assert repr(made) == repr(expected) and made.block.func.leaky is True
    blocks = networks.ResNet(whole(4), whole(7), whole(2)).blocks
    assert repr(blocks) == repr(networks.ResNet(4, 7, 2).blocks)
    images = torch.zeros(2, 1, 28, 28)
    expected.load_state_dict(made.state_dict())
    for t1 in (whole(3), np.float32(0.5), torch.tensor(0.5)):
        assert torch.equal(made(images, t1), expected(images, float(t1)))


class Decay(torch.nn.Module):
    def forward(self, t, y):
        return -y


def test_a_block_is_solved_by_the_method_it_is_given():
    y0 = torch.linspace(-1, 1, 8)
    block = networks.ODEBlock(Decay(), 2.0, method="rk4", step_size=0.5)
    assert torch.allclose(block(y0), y0 * (1 - 0.5 + 0.5**2 / 2 - 0.5**3 / 6 + 0.5**4 / 24)**4)
    assert block.nfe == 16
    for options, message in ((dict(method="rk5"), "method is 'rk5'"),
                             (dict(method="rk4"), "needs a step_size"),
                             (dict(step_size=0.0), "step_size is 0"),
                             (dict(step_size=0.5), "step_size is 0.5 with dopri5")):
        with pytest.raises(InputError, match=message):
            networks.ODEBlock(Decay(), 2.0, **options)


class Pair(torch.nn.Module):
    """y turns by a learned matrix, z decays."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.turn = torch.nn.Linear(2, 2)

    def forward(self, t, state):
        y, z = state
        return self.turn(y), -z


def test_a_block_takes_a_tuple_and_gives_a_tuple_of_what_the_solver_finds():
    block, times = networks.ODEBlock(Pair(), 2.0), [0.5, 1.0, 2.0]
    y0 = (torch.ones(4, 2, requires_grad=True), torch.ones(4, 1))
    paths = odeint(block.func, y0, [0.0, *times]).y
    found = block.trajectory(y0, times)
    assert [part.shape for part in found] == [(3, 4, 2), (3, 4, 1)]
    assert all(torch.equal(part, path[1:]) for part, path in zip(found, paths))
    end = block(y0)
    assert [part.shape for part in end] == [(4, 2), (4, 1)]
    assert all(torch.equal(part, path[-1]) for part, path in zip(end, odeint(block.func, y0, [0.0, 2.0]).y))
    sum(part.sum() for part in end).backward()
    assert y0[0].grad.any() and block.func.turn.weight.grad.any()


@pytest.mark.parametrize("settings", [
    dict(rtol=-1), dict(rtol="1e-3"), dict(rtol=torch.ones(2)), dict(atol=0.0), dict(atol=float("nan")),
    dict(atol=None), dict(rtol=torch.tensor(0.1, requires_grad=True)), dict(gradient="symbolic"),
    dict(method="rk4", step_size=0.1, gradient="torchdiffeq-backprop"), dict(method="rk5"),
    dict(method="rk4"), dict(method="rk4", step_size=-0.1), dict(step_size=0.1),
    dict(method="rk4", step_size=torch.tensor(0.1, requires_grad=True)), dict(func=None)], ids=str)
def test_a_block_refuses_settings_when_it_is_made_as_the_solver_does_at_a_solve(settings):
    func = settings.get("func", Decay())
    options = {name: value for name, value in settings.items() if name != "func"}
    with pytest.raises(InputError) as expected:
        odeint(func, torch.ones(3), [0.0, 1.0], **options)
    with pytest.raises(type(expected.value)) as found:
        networks.ODEBlock(func, **options)
    assert str(found.value) == str(expected.value)
    if {*settings} <= {"rtol", "atol", "gradient"}:
        with pytest.raises(type(expected.value)):
            networks.ODENet(4, 7, **settings)


def test_unknown_gradients_and_poolings_name_the_known_ones():
    with pytest.raises(ValueError, match="'magic'.*exact"):
        networks.ODENet(16, 7, gradient="magic")
    with pytest.raises(ValueError, match="'max'.*'random', 'fixed'"):
        networks.ODENet(16, 7).pooling = "max"
    with pytest.raises(InputError, match="mode is 'randon'.*'random', 'fixed'"):
        networks.FractionalPool(16, 7, mode="randon")
    pool = networks.FractionalPool(16, 7, "random")
    with pytest.raises(InputError, match="mode is None"):
        pool.mode = None
    assert pool.mode == "random"
