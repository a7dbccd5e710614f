"""Gradients of gradients through a solve, and what torch's transforms and compiler meet there."""

import copy

import pytest
import torch
import torchdiffeq
from problems import Contraction, relative_error
from torch.fx.experimental.proxy_tensor import make_fx

from nodelib.networks import ODEFunc, ODENet
from nodelib.solver.errors import RecomputationError, UnsupportedGradientError
from nodelib.solver.integrate import odeint


def state():
    torch.manual_seed(0)
    return torch.randn(3, 6, dtype=torch.float64, requires_grad=True)


def penalty(func, y0, solve):
    """Gradients in y0 and all parameters of |dL/dy0|^2 + |dL/dparameter|^2, a loss that sees two times."""
    params = [p for p in func.parameters() if p.requires_grad]
    y = solve(y0)
    loss = y[-1].square().sum() + y[1].sin().sum()
    found = torch.autograd.grad(loss, (y0, *params), create_graph=True, allow_unused=True)
    total = sum(g.square().sum() for g in found if g is not None)
    return torch.autograd.grad(total, (y0, *params), allow_unused=True)


def reference(func, times, first_step):
    """torchdiffeq's solve, whose first step is differentiated unless given."""
    t = torch.tensor(times, dtype=torch.float64)
    return lambda y0: torchdiffeq.odeint(func, y0, t, rtol=1e-3, atol=1e-3, method="dopri5",
                                         options={"first_step": first_step})


@pytest.mark.parametrize("memory_budget", [0, 2**30])
@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.1, 0.11, 5.0]])
def test_a_gradient_penalty_is_torchdiffeqs_backpropagation(times, memory_budget):
    func, y0 = Contraction(), state()
    first_step = odeint(func, y0, times).first_step
    found = penalty(func, y0, lambda y: odeint(func, y, times, memory_budget=memory_budget).y)
    expected = penalty(func, y0, reference(func, times, first_step))
    for mine, theirs in zip(found, expected):
        assert (mine is None and theirs is None) or relative_error(mine, theirs) < 1e-10


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5-fixed"])
def test_second_derivatives_of_fixed_steps_are_finite_differences(method):
    func, y0 = Contraction(2), state()[:1, :2].detach().requires_grad_()

    def final(y0, *_):
        return odeint(func, y0, [0.0, 0.4, 1.0], method=method, step_size=0.25).y

    assert torch.autograd.gradgradcheck(final, (y0,))
    assert torch.autograd.gradgradcheck(final, (y0, func.weight, func.offset))


def test_second_derivatives_of_adaptive_steps_are_finite_differences_at_a_tight_tolerance():
    func, y0 = Contraction(), state()
    direction = torch.randn_like(y0)

    def gradient(y0, **graph):
        y = odeint(func, y0, [0.0, 3.0], rtol=1e-10, atol=1e-10).y[-1]
        return torch.autograd.grad(y.square().sum(), y0, **graph)[0]

    (found,) = torch.autograd.grad((gradient(y0, create_graph=True) * direction).sum(), y0)
    h = 1e-4
    difference = (gradient(y0 + h * direction) - gradient(y0 - h * direction)) / (2 * h)
    assert relative_error(found, difference) < 1e-6


def test_an_initial_state_made_of_the_dynamics_own_parameters_counts_them_once():
    func, x = Contraction(), state()
    first_step = odeint(func, x @ func.weight, [0.0, 2.0, 3.0]).first_step
    found = penalty(func, x, lambda x: odeint(func, x @ func.weight, [0.0, 2.0, 3.0]).y)
    expected = penalty(func, x, lambda x: reference(func, [0.0, 2.0, 3.0], first_step)(x @ func.weight))
    for mine, theirs in zip(found[:3], expected[:3]):
        assert relative_error(mine, theirs) < 1e-10


@pytest.mark.parametrize("kinds", [{}, {"leaky": True}, {"last_norm": False}])
def test_a_gradient_penalty_of_a_compiled_network_is_that_of_double_precision(kinds):
    torch.manual_seed(0)
    func, y0 = ODEFunc(16, **kinds), torch.randn(2, 16, 7, 7, requires_grad=True)
    solution = odeint(func, y0, [0.0, 0.05, 0.1], first_step=0.1)
    found = penalty(func, y0, lambda y: odeint(func, y, [0.0, 0.05, 0.1], first_step=0.1).y)
    exact = copy.deepcopy(func).double()
    expected = penalty(exact, y0.detach().double().requires_grad_(), reference(exact, [0.0, 0.05, 0.1], 0.1))
    assert solution.accepted == 1
    assert max(relative_error(mine.double(), theirs) for mine, theirs in zip(found, expected)) < 0.02


def test_the_first_gradient_is_the_same_to_the_bit_with_a_graph():
    torch.manual_seed(0)
    func, y0 = ODEFunc(16), torch.randn(2, 16, 7, 7, requires_grad=True)
    inputs = (y0, *func.parameters())
    plain, graph = (torch.autograd.grad(odeint(func, y0, [0.0, 1.0]).y[-1].square().sum(), inputs,
                                        create_graph=create) for create in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain, graph))
    assert all(g.requires_grad for g in graph) and not any(g.requires_grad for g in plain)


def test_a_jacobian_vector_product_is_the_transposes_of_the_gradient():
    func, y0 = Contraction(), state()
    v, w = torch.randn_like(y0), torch.randn_like(y0)

    def final(y):
        return odeint(func, y, [0.0, 2.0]).y[-1]

    _, forward = torch.autograd.functional.jvp(final, y0, v)
    _, backward = torch.autograd.functional.vjp(final, y0, w)
    assert (forward * w).sum().item() == pytest.approx((backward * v).sum().item(), rel=1e-10)


@pytest.mark.parametrize("gradient", ["adjoint", "anchored", "torchdiffeq-adjoint"])
def test_a_gradient_without_a_graph_of_its_own_is_refused(gradient):
    func, y0 = Contraction(), state()
    with pytest.raises(UnsupportedGradientError, match="exact"):
        penalty(func, y0, lambda y: odeint(func, y, [0.0, 0.5, 1.0], gradient=gradient).y)


def test_a_second_derivative_of_changed_or_random_dynamics_is_refused():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(()))
            self.dropout = torch.nn.Dropout(0.5).eval()

        def forward(self, t, y):
            return self.scale * torch.sin(self.dropout(y))

    def second(change):
        func, y0 = Scaled(), state()
        y = odeint(func, y0, [0.0, 1.0], method="euler", step_size=0.5).y[-1]
        first, = torch.autograd.grad(y.square().sum(), y0, create_graph=True)
        change(func)
        return torch.autograd.grad(first.sum(), y0)[0]

    assert second(lambda func: None).isfinite().all()
    with pytest.raises(RecomputationError, match="^scale of func was changed in place"):
        second(lambda func: func.scale.fill_(2.0))
    with pytest.raises(RecomputationError, match="func draws random numbers"):
        second(lambda func: func.train())


def test_a_third_derivative_is_refused():
    func, y0 = Contraction(), state()
    y = odeint(func, y0, [0.0, 1.0]).y[-1]
    (first,) = torch.autograd.grad(y.square().sum(), y0, create_graph=True)
    with pytest.raises(UnsupportedGradientError):
        torch.autograd.grad(first.square().sum(), y0, create_graph=True)


def final(func, y0, **settings):
    return odeint(func, y0, [0.0, 0.7, 2.0], **settings).y[1:].sum(0)


def dual(f, y0, tangent):
    with torch.autograd.forward_ad.dual_level():
        y = f(torch.autograd.forward_ad.make_dual(y0, tangent))
        return torch.autograd.forward_ad.unpack_dual(y).tangent


FIXED_STEPS = {"method": "rk4", "step_size": 0.3}
TRANSFORMS = {
    "grad": lambda f, y, v: torch.func.grad(lambda y: (f(y) * v).sum())(y),
    "vjp": lambda f, y, v: torch.func.vjp(f, y)[1](v)[0],
    "jvp": lambda f, y, v: torch.func.jvp(f, (y,), (v,))[1],
    "jacrev": lambda f, y, v: torch.func.jacrev(f)(y),
    "jacfwd": lambda f, y, v: torch.func.jacfwd(f)(y),
    "hessian": lambda f, y, v: torch.func.hessian(lambda y: (f(y) * v).sum())(y),
    "grad of a grad": lambda f, y, v: torch.func.grad(
        lambda y: torch.func.grad(lambda y: f(y).square().sum())(y).square().sum())(y),
    "forward mode": dual,
}
EAGER = {
    "grad": lambda f, y, v: torch.autograd.functional.vjp(f, y, v)[1],
    "vjp": lambda f, y, v: torch.autograd.functional.vjp(f, y, v)[1],
    "jvp": lambda f, y, v: torch.autograd.functional.jvp(f, y, v)[1],
    "jacrev": lambda f, y, v: torch.autograd.functional.jacobian(f, y),
    "jacfwd": lambda f, y, v: torch.autograd.functional.jacobian(f, y),
    "hessian": lambda f, y, v: torch.autograd.functional.hessian(lambda y: (f(y) * v).sum(), y),
    "grad of a grad": lambda f, y, v: penalised(f, y),
    "forward mode": lambda f, y, v: torch.autograd.functional.jvp(f, y, v)[1],
}


def penalised(f, y):
    y = y.detach().requires_grad_()
    (g,) = torch.autograd.grad(f(y).square().sum(), y, create_graph=True)
    return torch.autograd.grad(g.square().sum(), y)[0]


@pytest.mark.parametrize("settings", [{}, FIXED_STEPS], ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_torchs_transforms_give_what_autograd_gives(name, settings):
    func, y0 = Contraction(), state().detach()
    v = torch.randn_like(y0)
    found = TRANSFORMS[name](lambda y: final(func, y, **settings), y0, v)
    expected = EAGER[name](lambda y: final(func, y, **settings), y0, v)
    assert expected.abs().max() > 1e-3 and relative_error(found, expected) < 1e-10


def test_a_transform_differentiates_the_tensors_that_a_function_closes_over():
    y0, times = state().detach(), [0.0, 1.0]

    def solved(rate):
        return odeint(lambda t, y: -rate * y, y0, times, rtol=1e-9, atol=1e-9).y[-1].sum()

    rate = torch.tensor(0.5, dtype=torch.float64)
    first, second = torch.func.grad(solved)(rate), torch.func.grad(torch.func.grad(solved))(rate)
    assert relative_error(first, -y0.sum() * torch.exp(-rate)) < 1e-6
    assert relative_error(second, y0.sum() * torch.exp(-rate)) < 1e-5


def test_a_transformed_solve_is_the_same_solve_and_tells_what_it_cost():
    func, y0 = Contraction(), state().detach()
    seen = []

    def solved(y):
        seen.append(odeint(func, y, [0.0, 2.0]))
        return seen[-1].y[-1].sum(), seen[-1].y[-1]

    _, y = torch.func.grad(solved, has_aux=True)(y0)
    expected = odeint(func, y0, [0.0, 2.0])
    assert seen[0].steps == expected.steps and relative_error(y, expected.y[-1]) < 1e-14
    assert seen[0].nfe == expected.nfe + 1 + 6 * expected.accepted


def test_a_network_is_transformed_in_its_images_and_in_its_parameters():
    torch.manual_seed(0)
    model, images = ODENet(16, 7).double().eval(), torch.rand(2, 1, 28, 28, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, images):
        return torch.func.functional_call(model, parameters, (images,)).square().mean()

    learned, pixels = torch.func.grad(loss, argnums=(0, 1))(parameters, images)
    leaf = images.clone().requires_grad_()
    model(leaf).square().mean().backward()
    assert relative_error(pixels, leaf.grad) < 1e-10
    assert all(relative_error(learned[name], p.grad) < 1e-9 for name, p in model.named_parameters()
               if p.grad.abs().max() > 1e-12)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_gradient_that_no_transform_can_take_is_refused_in_the_solvers_words(name):
    func, y0 = Contraction(), state().detach()
    with pytest.raises(UnsupportedGradientError, match="gradient='exact'"):
        TRANSFORMS[name](lambda y: final(func, y, gradient="adjoint"), y0, y0)


@pytest.mark.parametrize("settings", [{}, {"compiled": False}, {"gradient": "adjoint"}], ids=str)
@pytest.mark.parametrize("compiled", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("name", ["jvp", "grad", "forward mode"])
def test_the_gradient_of_a_solve_outside_is_not_transformed(name, compiled, settings):
    torch.manual_seed(0)
    func = ODEFunc(16) if compiled else Contraction()
    y0 = torch.randn(2, 16, 7, 7) if compiled else state().detach()
    y0.requires_grad_()
    y = odeint(func, y0, [0.0, 1.0], **settings).y[-1]

    def gradient(v):
        return torch.autograd.grad(y, y0, v, retain_graph=True)[0]

    with pytest.raises(UnsupportedGradientError, match="stand inside"):
        TRANSFORMS[name](gradient, torch.ones_like(y0.detach()), torch.ones_like(y0.detach()))


@pytest.mark.parametrize("name", ["grad", "jvp", "forward mode", "jacfwd"])
@pytest.mark.parametrize("solve, error", [
    (lambda f, y, h: odeint(f, y, [0.0, h]), "the times require gradients"),
    (lambda f, y, h: odeint(f, y, torch.stack([0 * h, h])), "the times require gradients"),
    (lambda f, y, h: odeint(f, y, [0.0, 1.0], first_step=h), "first_step requires gradients"),
    (lambda f, y, h: odeint(f, y, [0.0, 1.0], method="rk4", step_size=h), "step_size requires gradients"),
    (lambda f, y, h: odeint(f, y, [0.0, 1.0], rtol=h), "rtol requires gradients"),
], ids=["listed times", "times", "first step", "step size", "tolerance"])
def test_a_derivative_by_times_or_settings_is_refused_and_not_zero(name, solve, error):
    func, y0 = Contraction(), state().detach()
    h = torch.tensor(0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match=error):
        solve(func, y0, h.clone().requires_grad_())
    with pytest.raises(ValueError, match=error):
        TRANSFORMS[name](lambda h: solve(func, y0, h).y[-1].sum(), h, torch.ones_like(h))


def test_times_and_settings_made_inside_a_transform_are_numbers_all_the_same():
    func, y0 = Contraction(), state().detach()

    def solved(y, start):
        times = torch.linspace(0, 1, 3) + start.detach()
        return odeint(func, y, times, first_step=torch.tensor(0.1) + 0 * start.detach()).y[-1].sum()

    found = torch.func.grad(solved)(y0, torch.zeros(()))
    expected = torch.func.grad(lambda y: odeint(func, y, [0.0, 0.5, 1.0], first_step=0.1).y[-1].sum())(y0)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("traced", [
    lambda f, y: torch.func.linearize(f, y), lambda f, y: torch.func.functionalize(f)(y),
    lambda f, y: make_fx(f)(y), lambda f, y: make_fx(f, tracing_mode="fake")(y),
], ids=["linearize", "functionalize", "make_fx", "make_fx, fake"])
def test_what_is_recorded_and_not_computed_is_refused_in_the_solvers_words(traced):
    func, y0 = Contraction(), state().detach()
    with pytest.raises(UnsupportedGradientError, match="cannot be traced"):
        traced(lambda y: final(func, y), y0)


def test_a_batch_of_times_is_refused_in_the_solvers_words():
    func, y0 = Contraction(), state().detach()
    with pytest.raises(UnsupportedGradientError, match="first dimension, or loop"):
        torch.func.vmap(lambda end: odeint(func, y0, [0.0, end]).y[-1])(torch.ones(2))


@pytest.mark.parametrize("over", [
    lambda func, y0: torch.func.vmap(lambda y: final(func, y))(y0),
    lambda func, y0: torch.func.vmap(torch.func.grad(lambda y: final(func, y).sum()))(y0),
    lambda func, y0: torch.func.vmap(lambda rate: final(lambda t, y: -rate * y, y0))(y0[0]),
    lambda func, y0: torch.autograd.functional.jacobian(lambda y: final(func, y), y0, vectorize=True),
], ids=["states", "gradients of states", "rates", "cotangents"])
def test_a_batch_of_vmap_is_refused_in_the_solvers_words(over):
    with pytest.raises(UnsupportedGradientError, match="first dimension, or loop"):
        over(Contraction(), state().detach())


@pytest.mark.parametrize("gradient", ["exact", "adjoint"])
def test_a_compiled_network_solves_and_learns_as_it_does_uncompiled(gradient):
    torch.manual_seed(0)
    model, images = ODENet(16, 7, gradient=gradient).eval(), torch.rand(2, 1, 28, 28)

    def step(model):
        loss = model(images).square().mean()
        loss.backward()
        return loss.detach(), [p.grad for p in model.parameters()]

    expected = step(copy.deepcopy(model))
    compiled = step(torch.compile(copy.deepcopy(model), backend="eager"))
    whole = torch.compile(step, backend="eager")(copy.deepcopy(model))
    for loss, grads in (compiled, whole):
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(grads, expected[1], rtol=1e-3, atol=1e-5)
