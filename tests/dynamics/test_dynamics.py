"""The dynamics library on closed-form motions, and the facts about normalised dynamics in float64."""

import math

import pytest
import torch
from torch import nn

from nodelib import dynamics
from nodelib.networks import ODEFunc
from nodelib.solver.integrate import odeint


def random_func(channels=16, seed=0, **kinds) -> ODEFunc:
    """Dynamics in float64 with every weight and bias of the normalisations away from its initial value."""
    torch.manual_seed(seed)
    func = ODEFunc(channels, **kinds).double()
    with torch.no_grad():
        for name, p in func.named_parameters():
            if "norm" in name:
                p.copy_(torch.randn_like(p) * 0.3 + (1.0 if name.endswith("weight") else 0.1))
    return func


def random_states(n=4, channels=16, size=7, seed=1) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed),
                       dtype=torch.float64)


class Affine(nn.Module):
    """A field w -> c + A w on scaled states of shape (n, 1, 1): rays and eigenvalues in closed form."""

    leaky = False
    last_norm = False

    def __init__(self, matrix: torch.Tensor, constant: torch.Tensor) -> None:
        super().__init__()
        self.matrix, self.constant = matrix, constant

    def forward(self, t, y):
        # the field is evaluated at 1000 w
        return self.constant + torch.einsum("ij,njhw->nihw", self.matrix, y / 1000)


# -- geometry and motion ---------------------------------------------------------------------------

@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.3, 30.0, 90.0, 179.9999, 180.0])
def test_angles_are_accurate_from_millionths_of_a_degree_to_opposite(degrees):
    x = math.radians(degrees)
    a = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    b = 7 * torch.tensor([math.cos(x), math.sin(x)], dtype=torch.float64).reshape(1, 2, 1, 1)
    assert dynamics.angle(a, b).item() == pytest.approx(degrees, rel=1e-7, abs=1e-12)


def test_constant_velocity_has_the_closed_form_speed_and_turning():
    z0, u = random_states(3, 2, 2, seed=0), random_states(3, 2, 2, seed=1)
    for t in (0.5, 10.0, 1000.0):
        z = z0 + t * u
        uu, zz, zu = ((a * b).flatten(1).sum(1) for a, b in ((u, u), (z, z), (z, u)))
        expected = t * (uu * zz - zu**2).sqrt() / zz
        assert torch.allclose(dynamics.turning(z, u, t), expected, rtol=1e-6)
        assert torch.allclose(dynamics.relative_speed(z, u), dynamics.norm(u) / dynamics.norm(z))
    ray = 5.0 * u
    assert dynamics.turning(ray, u, 5.0).max() < 1e-12
    assert torch.allclose(dynamics.relative_speed(ray, u), torch.full((3,), 0.2, dtype=torch.float64))


def test_the_distance_to_a_ray_vanishes_on_a_ray_and_on_a_leaky_equilibrium_only():
    z0, u = random_states(3, 2, 2, seed=0), random_states(3, 2, 2, seed=1)
    times = torch.tensor([[2.0], [50.0]], dtype=torch.float64)
    states = torch.stack([2.0 * u, 50.0 * u])
    assert dynamics.ray_distance(states, u.expand_as(states), times).max() < 1e-12
    away = dynamics.ray_distance(z0 + 50.0 * u, u, 50.0)
    assert torch.allclose(away, dynamics.norm(z0) / dynamics.norm(z0 + 50.0 * u))
    assert torch.allclose(dynamics.ray_distance(z0, u, 50.0, leaky=True),
                          dynamics.norm(u) / dynamics.norm(z0))


def test_turning_is_the_rate_of_the_angle_per_unit_of_log_time():
    z0, u = random_states(3, 2, 2, seed=0), random_states(3, 2, 2, seed=1)
    t, h = 2.0, 1e-4
    moved = dynamics.angle(z0 + t * u, z0 + t * math.exp(h) * u)
    assert torch.allclose(dynamics.turning(z0 + t * u, u, t), moved * math.pi / 180 / h, rtol=1e-3)


def test_settling_time_is_the_first_time_after_the_last_excess():
    values = torch.tensor([[9.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0], [9.0, 0.0, 0.0, 9.0],
                           [0.0, 0.0, 0.0, 9.0]])
    assert dynamics.settling_time([1, 2, 3, 4], values, 1.0).tolist() == [4.0, 1.0, 3.0, 1e9]
    with pytest.raises(ValueError, match="one per time"):
        dynamics.settling_time([1, 2, 3], values, 1.0)
    values[1, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 16 values are NaN"):
        dynamics.settling_time([1, 2, 3, 4], values, 1.0)
    with pytest.raises(ValueError, match="must increase"):
        dynamics.settling_time([1, 3, 2, 4], torch.zeros(4, 4), 1.0)


def test_path_turning_of_a_circle_is_its_angle():
    x = torch.linspace(0, 3 * math.pi, 400, dtype=torch.float64)
    velocity = torch.stack([x.cos(), x.sin()], dim=-1).reshape(400, 1, 2, 1, 1)
    assert dynamics.path_turning(velocity).item() == pytest.approx(3 * math.pi, rel=1e-9)


# -- rays and spectra ------------------------------------------------------------------------------

def test_newton_krylov_solves_for_the_ray_of_affine_dynamics():
    torch.manual_seed(0)
    matrix = 0.4 * torch.randn(12, 12, dtype=torch.float64)
    constant = torch.randn(12, 1, 1, dtype=torch.float64)
    expected = torch.linalg.solve(torch.eye(12, dtype=torch.float64) - matrix, constant.flatten())
    ray = dynamics.solve_ray(Affine(matrix, constant), torch.randn(12, 1, 1, dtype=torch.float64),
                             smoothing=0)
    assert ray.residual < 1e-9 and ray.iterations <= 3
    assert torch.allclose(ray.w.flatten(), expected, rtol=1e-7)
    with pytest.raises(ValueError, match="float64"):
        dynamics.solve_ray(Affine(matrix, constant), torch.randn(12, 1, 1))


def test_a_start_that_leads_to_no_ray_says_so_by_its_residual():
    # f(w) - w = 1
    nowhere = Affine(torch.eye(3, dtype=torch.float64), torch.ones(3, 1, 1, dtype=torch.float64))
    ray = dynamics.solve_ray(nowhere, torch.ones(3, 1, 1, dtype=torch.float64), smoothing=0, max_steps=5)
    assert ray.residual > 1e-3


def test_the_leading_eigenvalue_of_a_known_matrix_is_found_real_or_complex():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(300, 300, dtype=torch.float64))[0]
    spectrum = torch.diag(torch.linspace(-3, 0.8, 300, dtype=torch.float64))
    zero = torch.zeros(300, 1, 1, dtype=torch.float64)
    value, error = dynamics.leading_eigenvalue(Affine(basis @ spectrum @ basis.T, zero), zero, restarts=20)
    assert value.real == pytest.approx(0.8, abs=1e-3) and error < 1e-3
    spectrum[:2, :2] = torch.tensor([[1.5, -2.0], [2.0, 1.5]])
    value, error = dynamics.leading_eigenvalue(Affine(basis @ spectrum @ basis.T, zero), zero, restarts=20)
    assert value.real == pytest.approx(1.5, abs=1e-6) and abs(value.imag) == pytest.approx(2.0, abs=1e-6)


def test_the_leading_eigenvalue_of_a_network_is_that_of_its_dense_jacobian():
    func, w = random_func(2), random_states(1, 2, 5)[0]
    dense = torch.autograd.functional.jacobian(lambda x: func(0.0, x.reshape(1, 2, 5, 5)).flatten(),
                                               w.flatten())
    value, _ = dynamics.leading_eigenvalue(func, w, krylov=50)
    assert value.real == pytest.approx(torch.linalg.eigvals(dense).real.max().item(), rel=1e-6)


def test_the_lyapunov_exponent_of_affine_dynamics_is_the_leading_real_part_less_one():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))[0]
    for leading in (0.5, 1.3):
        matrix = basis @ torch.diag(torch.linspace(-1, leading, 10, dtype=torch.float64)) @ basis.T
        func = Affine(matrix, torch.ones(10, 1, 1, dtype=torch.float64))
        found = dynamics.lyapunov_exponent(func, torch.randn(3, 10, 1, 1, dtype=torch.float64), log_time=10.0,
                                           transient=15.0, rtol=1e-6, atol=1e-9)
        assert found.tolist() == pytest.approx([leading - 1] * 3, abs=0.01)


def test_all_eigenvalues_of_a_network_are_those_of_its_dense_jacobian():
    func, w = random_func(2), random_states(1, 2, 5)[0]
    dense = torch.autograd.functional.jacobian(lambda x: func(0.0, 1000 * x.reshape(1, 2, 5, 5)).flatten(),
                                               w.flatten())
    expected = torch.linalg.eigvals(dense)
    found = dynamics.jacobian_eigenvalues(func, w, batch=7)
    assert found.real.sort().values.tolist() == pytest.approx(expected.real.sort().values.tolist(), abs=1e-8)
    with pytest.raises(ValueError, match="leading_eigenvalue"):
        dynamics.jacobian_eigenvalues(func, torch.zeros(64, 10, 10, dtype=torch.float64))


def test_continuation_from_smoothed_relus_solves_where_newton_alone_may_stall():
    func = random_func(4)
    ray = dynamics.solve_ray(func, func(0.0, random_states(1, 4))[0].detach())
    assert ray.residual < 1e-9
    assert torch.allclose(func(0.0, 1000 * ray.w[None])[0], ray.w, atol=1e-7)


def test_the_field_is_blind_to_scale_where_f_itself_is_not():
    func, w = random_func(4), 0.02 * random_states(2, 4)
    for smoothing in (0.0, 0.1):
        field = dynamics.normalised_field(func, smoothing)
        assert dynamics.norm(field(3 * w) - field(w)).max() < 1e-6
    assert dynamics.norm(func(0.0, 3 * w) - func(0.0, w)).min() > 1e-3


def test_a_smoothed_field_tends_to_the_field_itself():
    for kinds in ({}, {"leaky": True}, {"last_norm": False}):
        func, w = random_func(4, **kinds), random_states(2, 4)
        exact = dynamics.normalised_field(func)(w)
        errors = [(dynamics.normalised_field(func, d)(w) - exact).abs().max().item()
                  for d in (1e-2, 1e-4, 1e-8)]
        assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-6


def test_the_jacobian_norm_is_the_largest_singular_value():
    func, y = random_func(2), random_states(2, 2, 5)
    found = dynamics.jacobian_norm(func, y, iterations=300)
    for value, state in zip(found, y):
        dense = torch.autograd.functional.jacobian(lambda x: func(0.0, x.reshape(1, 2, 5, 5)).flatten(),
                                                   state.flatten())
        assert value.item() == pytest.approx(torch.linalg.matrix_norm(dense, 2).item(), rel=1e-4)


def test_clusters_are_directions_within_the_angle():
    rays = torch.tensor([[1, 0], [3, 0.01], [0, 1], [-0.01, 2], [-1, 0]],
                        dtype=torch.float64).reshape(5, 2, 1, 1)
    assert dynamics.cluster(rays).tolist() == [0, 0, 1, 1, 2]


# -- classes ---------------------------------------------------------------------------------------

def two_classes(spread, n=60, seed=0):
    torch.manual_seed(seed)
    labels = torch.arange(n) % 2
    centres = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    return centres[labels] + spread * torch.randn(n, 4, 3, 3, dtype=torch.float64), labels


def test_separated_classes_are_told_apart_and_mixed_ones_are_not():
    y, labels = two_classes(0.1)
    reference, judged = (y[:30], labels[:30]), (y[30:], labels[30:])
    assert dynamics.nearest_class(reference, *judged).all()
    assert dynamics.linear_probe(reference, *judged).all()
    noise = torch.randn(400, 4, 3, 3, dtype=torch.float64)
    coin = torch.arange(400) % 2
    for judge in (dynamics.nearest_class, dynamics.linear_probe):
        assert 0.35 < judge((noise[:200], coin[:200]), noise[200:], coin[200:]).double().mean() < 0.65


def test_the_angle_between_identical_states_is_exactly_zero():
    state = torch.randn(1, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    y = torch.cat([state, state, state, -state])
    within, across = dynamics.class_angles(y, torch.tensor([0, 0, 0, 1]))
    assert within == 0.0 and across == pytest.approx(180.0)


def test_class_angles_are_means_over_pairs():
    y = torch.tensor([[1, 0], [0, 1], [-1, 0.0]], dtype=torch.float64).reshape(3, 2, 1, 1)
    within, across = dynamics.class_angles(y, torch.tensor([0, 0, 1]))
    assert within == pytest.approx(90) and across == pytest.approx((180 + 90) / 2)


def test_following_images_agrees_with_the_networks_own_answer(tiny_run, test_images):
    model = tiny_run.load_model()
    images, labels = test_images
    paths = dynamics.follow(model, images, labels, [0.0, 0.5, 1.0], keep=[1.0], batch=64)
    with torch.no_grad():
        assert (paths.predicted[2] == model(images, 1.0).argmax(1).numpy()).mean() > 0.98
    assert set(paths.values) == {name + suffix for name in dynamics.QUANTITIES for suffix in ("", "_centred")}
    assert paths.values["turning"].shape == (3, 64) and paths.kept[1.0].shape == (64, 16, 7, 7)
    assert paths.accuracy[2] == (paths.predicted[2] == labels.numpy()).mean()
    with pytest.raises(ValueError, match="not among the times"):
        dynamics.follow(model, images, labels, [0.0, 1.0], keep=[2.0])


def test_states_are_given_at_the_times_asked_for_or_not_at_all(small, test_images):
    images = test_images[0][:2]
    start, *_ = both = dynamics.states_at(small, images, [0.0, 0.5])
    assert len(both) == 2 and torch.equal(start, small.stem(images))
    assert torch.equal(dynamics.states_at(small, images, [0.0])[0], start)
    for times in ([-1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [], [0.0, math.nan]):
        with pytest.raises(ValueError, match="must increase"):
            dynamics.states_at(small, images, times)


def test_following_needs_a_model_as_it_is_used_and_a_label_per_image(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    for wrong in (labels[:3], labels.float(), labels > 3):
        with pytest.raises(ValueError, match="labels have"):
            dynamics.follow(small, images, wrong, [0.0, 1.0])
    mean = small.norm.running_mean.clone()
    with pytest.raises(ValueError, match="training mode"):
        dynamics.follow(small.train(), images, labels, [0.0, 1.0])
    assert torch.equal(small.norm.running_mean, mean)
    small.eval().pooling = "random"
    with pytest.raises(ValueError, match="pooling"):
        dynamics.follow(small, images, labels, [0.0, 1.0])


def test_lengths_and_counts_that_measure_nothing_are_refused():
    func, w = random_func(2), random_states(1, 2, 5)
    for name, value in (("transient", -5.0), ("log_time", 0.0), ("log_time", math.inf), ("interval", 0.0)):
        with pytest.raises(ValueError, match="log_time is .*, transient .*, interval "):
            dynamics.lyapunov_exponent(func, w, **{name: value})
    with pytest.raises(ValueError, match="log_time is -1"):
        dynamics.flow_in_log_time(func, w, -1.0)
    with pytest.raises(ValueError, match="iterations is 0"):
        dynamics.jacobian_norm(func, w, iterations=0)
    with pytest.raises(ValueError, match="end time t1 is -1"):
        dynamics.sensitivity(func, w, [-1.0])


def test_an_eigenvalue_that_has_not_converged_is_not_given_out():
    func, w = random_func(2), random_states(1, 2, 5)[0]
    value, error = dynamics.leading_eigenvalue(func, w, krylov=4, restarts=1, tolerance=1e-14)
    assert math.isnan(value.real) and error == math.inf


def test_the_length_of_states_plays_no_role_in_class_separation():
    y, labels = two_classes(0.8)
    scale = torch.rand(len(y), 1, 1, 1, dtype=torch.float64) * 100 + 0.01
    for judge in (dynamics.nearest_class, dynamics.linear_probe):
        before = judge((y[:30], labels[:30]), y[30:], labels[30:])
        after = judge(((scale * y)[:30], labels[:30]), (scale * y)[30:], labels[30:])
        assert torch.equal(before, after)


def test_a_state_alone_in_its_class_has_a_silhouette_of_zero():
    torch.manual_seed(0)
    assert dynamics.silhouette(torch.randn(4, 2, 3, 3), torch.arange(4)).tolist() == [0.0] * 4


def test_a_silhouette_needs_two_classes():
    with pytest.raises(ValueError, match="two classes"):
        dynamics.silhouette(two_classes(0.8)[0], torch.zeros(60, dtype=torch.int64))


# -- what the normalisations do --------------------------------------------------------------------

@pytest.mark.parametrize("channels", [16, 64])
def test_f_is_blind_to_its_groups_own_offset_and_scale(channels):
    func, y = random_func(channels), random_states(2, channels)
    groups = func.norm0.num_groups
    offset, scale = torch.randn(groups, dtype=torch.float64), torch.rand(groups, dtype=torch.float64).add(0.5)
    offset, scale = (x.repeat_interleave(channels // groups)[:, None, None] for x in (offset, scale))
    assert torch.allclose(func(0.0, y + 100 * offset), func(0.0, y), atol=1e-9)
    # with eps the scale is forgotten only approximately, the better the larger the state
    errors = [(func(0.0, size * scale * y) - func(0.0, size * y)).abs().max().item()
              for size in (1.0, 10.0, 100.0)]
    assert errors[0] > 1e-9 and errors[1] < errors[0] / 50 and errors[2] < errors[1] / 50
    func.norm0.eps = 0.0
    assert torch.allclose(func(0.0, 1e6 * scale * y), func(0.0, y), atol=1e-9)


@pytest.mark.parametrize("channels", [16, 64, 128])
@pytest.mark.parametrize("eps", [1e-5, 10.0])
def test_the_last_normalisation_forces_the_common_drift_for_every_input_and_eps(channels, eps):
    func, y = random_func(channels), random_states(3, channels)
    for norm in (func.norm0, func.norm1, func.norm2, func.norm3, func.norm4):
        norm.eps = eps
    for state in (y, 1e-4 * y, torch.zeros_like(y)):
        found = dynamics.drift_coordinates(func, func(0.0, state))
        assert torch.allclose(found, dynamics.common_drift(func, 7).rates.expand_as(found), atol=1e-10)
    g, b = func.norm4.weight, func.norm4.bias
    group = slice(0, channels // func.norm4.num_groups)
    by_hand = (func(0.0, y).mean((2, 3)) / g)[:, group].sum(1)
    assert torch.allclose(by_hand, (b / g)[group].sum().expand(3), atol=1e-10)


def test_the_drift_grows_at_a_constant_rate_along_every_trajectory():
    func, y0 = random_func(64), random_states(3, 64, 10)
    times = [0.0, 1.0, 10.0, 50.0]
    with torch.no_grad():
        states = odeint(func, y0, times, rtol=1e-3, atol=1e-3, params=()).y
    start = dynamics.drift_coordinates(func, y0)
    for t, y in zip(times, states):
        expected = start + t * dynamics.common_drift(func, 10).rates
        # a linear invariant: no solver error
        assert torch.allclose(dynamics.drift_coordinates(func, y), expected, atol=1e-9)


def test_removing_the_drift_is_the_orthogonal_projection_and_leaves_no_drift():
    func, y = random_func(64), random_states(3, 64)
    part, rest = dynamics.drift_part(func, y), dynamics.remove_drift(func, y)
    assert torch.allclose(part + rest, y) and dynamics.drift_coordinates(func, rest).abs().max() < 1e-12
    assert dynamics.inner(part, rest).abs().max() < 1e-10
    assert torch.allclose(dynamics.remove_drift(func, rest), rest)
    assert torch.allclose(dynamics.drift_part(func, func(0.0, y)),
                          dynamics.common_drift(func, 7).velocity.expand_as(y))


def test_with_one_channel_per_group_the_drift_is_every_channels_mean():
    func, y = random_func(16), random_states(3)
    assert torch.allclose(dynamics.remove_drift(func, y), y - y.mean((2, 3), keepdim=True))


def test_without_a_last_normalisation_there_is_no_drift_to_remove():
    func, y = random_func(16, last_norm=False), random_states(2)
    assert dynamics.common_drift(func, 7) is None and torch.equal(dynamics.remove_drift(func, y), y)
    with pytest.raises(ValueError, match="no forced drift"):
        dynamics.drift_coordinates(func, y)


def test_a_zero_weight_of_the_last_normalisation_is_an_error_that_names_it():
    func = random_func(16)
    with torch.no_grad():
        func.norm4.weight[3] = 0.0
    with pytest.raises(ValueError, match="weight 3"):
        dynamics.common_drift(func, 7)


def test_with_one_channel_per_group_the_speed_is_pinned_by_the_last_normalisation():
    func, y = random_func(16), random_states(5)
    before = []
    hook = func.norm4.register_forward_pre_hook(lambda module, inputs: before.append(inputs[0]))
    f = func(0.0, y)
    hook.remove()
    variance = before[0].var((2, 3), unbiased=False)
    g, b, eps = func.norm4.weight, func.norm4.bias, func.norm4.eps
    expected = 49 * (b**2 + g**2 * variance / (variance + eps)).sum(1)
    assert torch.allclose(dynamics.norm(f) ** 2, expected, rtol=1e-12)
    assert torch.allclose(dynamics.norm(f) ** 2, (49 * (b**2 + g**2).sum()).expand(5), rtol=1e-3)


def test_in_log_time_the_scaled_state_follows_f_minus_itself():
    func, y0 = random_func(16), random_states(2)
    func.norm0.eps = 1e-14  # the statement holds as eps goes to 0
    times = [1.0, 8.0]
    with torch.no_grad():
        start, end = odeint(func, y0, [0.0, *times], rtol=1e-9, atol=1e-9, params=()).y[1:]
    flowed = dynamics.flow_in_log_time(func, start / times[0], math.log(times[1] / times[0]), rtol=1e-9,
                                       atol=1e-9)
    assert torch.allclose(flowed, end / times[1], atol=3e-5)


def test_the_jacobian_ignores_the_state_itself_and_never_leaves_the_centred_directions():
    func, w = random_func(64), random_states(1, 64)
    func.norm0.eps = 0.0
    field = lambda y: func(0.0, y)  # noqa: E731
    assert torch.func.jvp(field, (w,), (w,))[1].abs().max() < 1e-10  # homogeneous of degree 0
    v = random_states(1, 64, seed=5)
    assert dynamics.drift_coordinates(func, torch.func.jvp(field, (w,), (v,))[1]).abs().max() < 1e-10


def test_leaky_dynamics_stay_in_a_ball_and_share_their_equilibria_with_the_rays_of_the_plain_ones():
    plain, leaky = random_func(16), random_func(16, leaky=True)
    leaky.load_state_dict(plain.state_dict())
    radius = (49 * (leaky.norm4.bias**2 + leaky.norm4.weight**2).sum()).sqrt()
    with torch.no_grad():
        states = odeint(leaky, 5 * random_states(3), [0.0, 1.0, 10.0, 100.0], rtol=1e-4, atol=1e-4,
                        params=()).y
    start = dynamics.norm(states[0])
    for t, y in zip((1.0, 10.0, 100.0), states[1:]):
        assert (dynamics.norm(y) <= radius + (start - radius).clamp_min(0) * math.exp(-t) + 1e-2).all()
    w = random_states(2, seed=9)
    assert torch.allclose(dynamics.normalised_field(leaky)(1000 * w), dynamics.normalised_field(plain)(w))


def test_log_like_nfe_does_not_prove_a_ray():
    # At random initialisation the cost grows like log t, and yet f and z stay apart.
    torch.manual_seed(0)
    func, y0 = ODEFunc(16).double(), random_states(4)
    nfe, cosine = [], []
    with torch.no_grad():
        for t in (1e2, 1e3, 1e4):
            solution = odeint(func, y0, [0.0, t], params=())
            nfe.append(solution.nfe)
            z = solution.y[-1]
            cosine.append(torch.cos(dynamics.angle(z, func(0.0, z)) / dynamics.geometry.DEGREES).min().item())
    assert nfe[2] - nfe[1] < 3 * max(6, nfe[1] - nfe[0])  # not ten times as many for ten times the time
    assert cosine[-1] < 0.99


def test_without_the_last_normalisation_f_vanishes_only_where_the_last_relu_is_off():
    func = random_func(4, last_norm=False)
    basis = torch.eye(4 * 25, dtype=torch.float64).reshape(-1, 4, 5, 5)
    matrix = func.conv4(basis).flatten(1)
    assert torch.linalg.svdvals(matrix).min() > 1e-6  # the last convolution is invertible
