"""States and times as torchdiffeq takes them: tuples of tensors, and integration towards smaller times."""

import pytest
import torch
import torchdiffeq
from problems import Contraction
from torch import nn

from nodelib.networks import ODEFunc
from nodelib.solver.errors import ChangedStateError, DerivativeError, IntegrationError, StateTypeError
from nodelib.solver.integrate import GRADIENTS, odeint

UP, DOWN = [0.0, 0.7, 2.0], [1.5, 1.0, -0.5]
TIGHT = dict(rtol=1e-9, atol=1e-10)
# the others are the continuous adjoint
LIKE = {"torchdiffeq-backprop": torchdiffeq.odeint, "exact": torchdiffeq.odeint}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Pair(nn.Module):
    """A state of two tensors that drive each other; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = Contraction(), 0

    def forward(self, t, y):
        self.calls += 1
        x, z = y
        return self.inner(t, x) + 0.1 * z[:, None] * torch.cos(t), x.tanh().mean(1) - 0.3 * z


def states() -> tuple[torch.Tensor, torch.Tensor]:
    return random(4, 6).requires_grad_(), random(4, seed=1).requires_grad_()


def loss(y) -> torch.Tensor:
    return y[0][1:].pow(2).sum() + y[1][1:].sin().sum()


@pytest.mark.parametrize("times", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_tuples_are_solved_and_differentiated_as_torchdiffeq_does(gradient, times):
    func, y0 = Pair(), states()
    wanted = (*y0, func.inner.weight, func.inner.offset)
    solve = LIKE.get(gradient, torchdiffeq.odeint_adjoint)
    theirs = solve(func, y0, torch.tensor(times, dtype=torch.float64), method="dopri5", **TIGHT)
    calls, func.calls = func.calls, 0
    expected = torch.autograd.grad(loss(theirs), wanted)
    backward, func.calls = func.calls, 0
    solution = odeint(func, y0, times, gradient=gradient, **TIGHT)
    assert solution.nfe == func.calls == calls and solution.t.tolist() == times
    for mine, other in zip(solution.y, theirs):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)
    for mine, other in zip(torch.autograd.grad(loss(solution.y), wanted), expected):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)
    if gradient in ("adjoint", "torchdiffeq-adjoint"):
        assert solution.nfe_backward == backward


class Flow(nn.Module):
    """A continuous normalising flow as torchdiffeq's example has it: the state is a pair of points and of the
    logarithm of their density, which falls by the trace of a Jacobian that func finds by autograd.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = Contraction(2)

    def forward(self, t, y):
        with torch.enable_grad():
            z = self.start(y[0])
            dz = self.inner(t, z) * torch.cos(t)
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i]
                        for i in range(z.shape[1]))
        return dz, -trace[:, None]

    def start(self, z):
        return z.requires_grad_()


@pytest.mark.parametrize("leaves", ["state and parameters", "state", "parameters"])
@pytest.mark.parametrize("settings", [
    *({"gradient": gradient} for gradient in GRADIENTS), {"memory_budget": 0}], ids=str)
def test_a_flow_that_differentiates_by_its_state_is_differentiated(settings, leaves):
    func, z = Flow(), random(4, 2).requires_grad_("state" in leaves)
    func.requires_grad_("parameters" in leaves)
    wanted = [x for x in (z, func.inner.weight, func.inner.offset) if x.requires_grad]

    def found(solve, **settings):
        y = solve(func, (z, z.new_zeros(4, 1)), **settings, **TIGHT)
        return torch.autograd.grad(loss(getattr(y, "y", y)), wanted)

    expected = found(torchdiffeq.odeint, t=torch.tensor(DOWN, dtype=torch.float64), method="dopri5")
    for mine, theirs in zip(found(odeint, t=DOWN, **settings), expected):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    assert z.requires_grad == ("state" in leaves)


@pytest.mark.parametrize("settings", [
    *({"gradient": gradient} for gradient in GRADIENTS if gradient != "torchdiffeq-backprop"),
    {"method": "rk4", "step_size": 0.1}], ids=str)
def test_a_solve_without_a_gradient_has_none_where_func_asks_for_one_by_its_state(settings):
    def downhill(t, y):
        with torch.enable_grad():
            return -torch.autograd.grad(y.requires_grad_().pow(4).sum(), y)[0]

    y0 = random(3)
    assert not odeint(downhill, y0, [0.0, 1.0], **settings).y.requires_grad and not y0.requires_grad
    func, pair = Flow().requires_grad_(False), (random(4, 2), random(4, 1))
    y = odeint(func, pair, UP, **settings).y
    assert not any(part.requires_grad for part in (*y, *pair))


def without_graph(z):
    with torch.no_grad():
        return z[:].requires_grad_()


@pytest.mark.parametrize("start", [lambda z: z.detach().requires_grad_(), without_graph])
@pytest.mark.parametrize("gradient", ["exact", "adjoint", "torchdiffeq-adjoint"])
def test_a_flow_that_cuts_its_state_off_is_refused_with_the_way_out(gradient, start):
    func = Flow()
    func.start = start
    with pytest.raises(ValueError, match=r"shape \(4, 2\).*made of the state, make it without detach"):
        odeint(func, (random(4, 2), random(4, 1)), [0.0, 1.0], gradient=gradient)


@pytest.mark.parametrize("gradient", ["exact", "adjoint", "torchdiffeq-adjoint"])
def test_a_flow_may_copy_its_state(gradient):
    func, pair = Flow(), (random(4, 2), random(4, 1))
    func.start = lambda z: z.clone().requires_grad_()
    found = [torch.autograd.grad(loss(odeint(each, pair, UP, gradient=gradient).y), each.inner.weight)[0]
             for each in (func, Flow())]
    assert torch.equal(*found)


def test_numbers_of_the_state_are_read_beside_a_hidden_tensor_and_that_is_named():
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="params"):
        odeint(lambda t, y: weight * torch.from_numpy(y.numpy()), torch.ones(3), [0.0, 1.0])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_decreasing_times_undo_increasing_ones(gradient):
    func, y0 = Contraction(), random(3, 6)
    y1 = odeint(func, y0, [0.0, 1.0], **TIGHT).y[-1].detach().requires_grad_()
    back = odeint(func, y1, [1.0, 0.0], gradient=gradient, **TIGHT)
    assert (back.y[-1] - y0).abs().max() < 1e-7
    assert max(back.step_sizes) < 0 and back.first_step < 0
    ends = [t + h for t, h in zip(back.step_times, back.step_sizes)]
    assert back.step_times[1:] == pytest.approx(ends[:-1])
    u = torch.ones_like(y1)
    there, = torch.autograd.grad(odeint(func, y0.requires_grad_(), [0.0, 1.0], **TIGHT).y[-1], y0, u)
    # the Jacobians of a flow and of its inverse are inverse to each other
    again, = torch.autograd.grad(back.y[-1], y1, there)
    torch.testing.assert_close(again, u, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5-fixed"])
def test_fixed_steps_go_down_and_hit_every_time(method):
    times = [1.0, 0.7, 0.0]
    solution = odeint(lambda t, y: torch.ones_like(y), torch.ones(1), times, method=method, step_size=0.1)
    torch.testing.assert_close(solution.y[:, 0], torch.tensor([1.0, 0.7, 0.0]))
    assert solution.accepted == 10 and all(h == pytest.approx(-0.1) for h in solution.step_sizes)


@pytest.mark.parametrize("gradient", ["exact", "adjoint", "anchored"])
def test_the_compiled_kernels_go_down_as_torch_does(gradient):
    torch.manual_seed(0)
    func, y0 = ODEFunc(16), torch.randn(2, 16, 7, 7, requires_grad=True)
    found = []
    for compiled in (True, False):
        solution = odeint(func, y0, [1.0, 0.0], gradient=gradient, rtol=1e-5, atol=1e-5, params=(),
                          compiled=compiled)
        found.append((solution.nfe, solution.y[-1], torch.autograd.grad(solution.y[-1].pow(2).sum(), y0)[0]))
    assert found[0][0] == found[1][0]
    for mine, other in zip(found[0][1:], found[1][1:]):
        assert (mine - other).norm() < 1e-2 * other.norm()  # kinks of the ReLUs


def test_a_norm_of_ones_own_sees_the_tuple_as_torchdiffeqs_does():
    func, y0 = Pair(), states()
    first = lambda y: y[0].abs().max()  # noqa: E731
    times = torch.tensor(UP, dtype=torch.float64)
    theirs = torchdiffeq.odeint(func, y0, times, options={"norm": first}, **TIGHT)
    calls, func.calls = func.calls, 0
    solution = odeint(func, y0, UP, norm=first, gradient="adjoint", **TIGHT)
    assert solution.nfe == calls
    torch.testing.assert_close(solution.y[1], theirs[1], rtol=1e-12, atol=1e-13)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss(solution.y), y0))


def test_a_failure_on_the_way_down_says_where():
    with pytest.raises(IntegrationError) as caught:
        odeint(lambda t, y: -y * y, torch.ones(3, dtype=torch.float64), [1.0, -1.0])  # 1 / t has a pole
    assert -1e-3 < caught.value.t < 1e-3 and caught.value.h < 0


def in_place(t, y):
    y[0].mul_(-1)
    return y


@pytest.mark.parametrize("func, y0, error", [
    (lambda t, y: y, (), StateTypeError), (lambda t, y: y, (1.0, torch.ones(2)), StateTypeError),
    (lambda t, y: y, (torch.ones(2), torch.ones(2, dtype=torch.float64)), StateTypeError),
    (lambda t, y: y, (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)), StateTypeError),
    (lambda t, y: y[0], (torch.ones(2), torch.ones(3)), DerivativeError),
    (lambda t, y: (y[1], y[0]), (torch.ones(2), torch.ones(3)), DerivativeError),
    (lambda t, y: (y[0], 0.0), (torch.ones(2), torch.ones(3)), DerivativeError),
    (in_place, (torch.ones(2), torch.ones(3)), ChangedStateError),
    (in_place, (torch.ones(2, requires_grad=True), torch.ones(3)), ChangedStateError),
])
def test_a_tuple_that_cannot_be_solved_is_refused(func, y0, error):
    with pytest.raises(error):
        odeint(func, y0, [0.0, 1.0])


def test_an_empty_part_and_equal_times_leave_a_tuple_a_tuple():
    y0 = (torch.ones(0, 2), torch.ones(3))
    y = odeint(lambda t, y: (-y[0], -y[1]), y0, [0.0, 1.0]).y
    assert [tuple(part.shape) for part in y] == [(2, 0, 2), (2, 3)]
    solution = odeint(lambda t, y: 1 / 0, y0, [1.0, 1.0])
    assert solution.nfe == 0 and torch.equal(solution.y[1][1], y0[1])
