"""The solver against published test problems, solved by SciPy at a tolerance far below."""

import functools
import math

import pytest
import torch
from problems import Contraction, relative_error
from torch import stack

from nodelib.networks import ODEFunc
from nodelib.solver.errors import StepLimitError
from nodelib.solver.integrate import odeint

TURN = torch.triu(torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1)


def polar(t, y):
    """B4, in which the radius is a divisor."""
    radius = torch.hypot(y[0], y[1])
    return stack([-y[1] - y[0] * y[2] / radius, y[0] - y[1] * y[2] / radius, y[0] / radius])


def sine(t, y):
    return 2 * y / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3


# name -> (dy/dt, initial state, start, end). "constant", "linear" and "sine" are of the kinds in
# torchdiffeq's own tests (Chen et al., 2018); A1 to B5 are single equations and small systems of Hull,
# Enright, Fellen and Sedgwick, Comparing numerical methods for ordinary differential equations, SIAM J.
# Numer. Anal. 9, 1972.
PROBLEMS = {
    "constant": (lambda t, y: 0.2 + (y - (0.2 * t + 3)) ** 5, (3.0,), 1.0, 8.0),
    "linear": (lambda t, y: 0.3 * (TURN - TURN.T).to(y) @ y, (1.0,) * 10, 1.0, 8.0),
    "sine": (sine, (math.pi - 1.75,), 1.0, 8.0),
    "A1": (lambda t, y: -y, (1.0,), 0.0, 20.0),
    "A2": (lambda t, y: -y**3 / 2, (1.0,), 0.0, 20.0),
    "A3": (lambda t, y: y * torch.cos(t), (1.0,), 0.0, 20.0),
    "A4": (lambda t, y: y / 4 * (1 - y / 20), (1.0,), 0.0, 20.0),
    "A5": (lambda t, y: (y - t) / (y + t), (4.0,), 0.0, 20.0),
    "B1": (lambda t, y: stack([2 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]]), (1.0, 3.0), 0.0, 20.0),
    "B2": (lambda t, y: stack([y[1] - y[0], y[0] - 2 * y[1] + y[2], y[1] - y[2]]), (2.0, 0.0, 1.0), 0.0,
           20.0),
    "B3": (lambda t, y: stack([-y[0], y[0] - y[1] ** 2, y[1] ** 2]), (1.0, 0.0, 0.0), 0.0, 20.0),
    "B4": (polar, (3.0, 0.0, 0.0), 0.0, 20.0),
    "B5": (lambda t, y: stack([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]), (0.0, 1.0, 1.0), 0.0, 20.0),
}
# global error over tolerance: errors of single steps add up, and a problem may amplify them
FACTOR, LOOSE = 100, {("B5", 1e-3): 500}  # whose phase drifts at so loose a tolerance
KINDS = [(torch.float64, 1e-3), (torch.float64, 1e-6), (torch.float64, 1e-9), (torch.float32, 1e-3)]


def times(name):
    start, end = PROBLEMS[name][2:]
    return torch.linspace(start, end, 6, dtype=torch.float64)


@functools.cache
def reference(name):
    integrate = pytest.importorskip("scipy.integrate")
    func, y0, start, end = PROBLEMS[name]

    def derivative(t, y):
        return func(torch.tensor(t, dtype=torch.float64), torch.from_numpy(y)).numpy()

    solution = integrate.solve_ivp(derivative, (start, end), y0, "DOP853", times(name).numpy(), rtol=1e-12,
                                   atol=1e-12)
    assert solution.success
    return torch.from_numpy(solution.y).T


def test_the_reference_is_the_closed_form():
    t = times("A3")
    torch.testing.assert_close(reference("A3")[:, 0], t.sin().exp(), rtol=1e-10, atol=0.0)
    t = times("sine")
    bounded = torch.stack([t.new_ones(6), torch.cos(2 * t), torch.sin(2 * t)])
    weights = torch.stack([2 * t**4 - t**3, t**2 / 4 - t**4 / 2, t**3 / 2])
    exact = (weights * bounded).sum(0)
    exact += (reference("sine")[0, 0] - exact[0]) * t**2  # the homogeneous equation's share
    torch.testing.assert_close(reference("sine")[:, 0], exact, rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]} at {kind[1]:g}".removeprefix("torch."))
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_global_error_stays_within_a_factor_of_the_tolerance(name, kind):
    dtype, tolerance = kind
    func, y0, *_ = PROBLEMS[name]
    solution = odeint(func, torch.tensor(y0, dtype=dtype), times(name), rtol=tolerance, atol=tolerance)
    expected = reference(name)
    ratio = ((solution.y.double() - expected).abs() / (tolerance * (1 + expected.abs()))).max().item()
    assert ratio < LOOSE.get((name, tolerance), FACTOR)


@pytest.mark.parametrize("method, order, counts", [
    ("euler", 1, (2000, 4000)), ("rk4", 4, (200, 400)), ("dopri5-fixed", 5, (100, 200)),
])
@pytest.mark.parametrize("name", ["A3", "B5"])  # with a time in it, and without one
def test_the_error_of_fixed_steps_falls_with_their_order_on_published_problems(name, method, order, counts):
    func, y0, start, end = PROBLEMS[name]
    errors = [relative_error(odeint(func, torch.tensor(y0, dtype=torch.float64), times(name), method=method,
                                    step_size=(end - start) / count).y, reference(name)) for count in counts]
    assert order - 0.3 < math.log2(errors[0] / errors[1]) < order + 0.3


@pytest.mark.parametrize("name", ["smooth", "compiled", "torch"])
def test_the_exact_gradient_is_linear_in_the_cotangent(name):
    torch.manual_seed(0)
    func, y0 = (Contraction(), torch.randn(3, 6, dtype=torch.float64)) if name == "smooth" else (
        ODEFunc(16), torch.randn(3, 16, 7, 7))
    y0 = y0.requires_grad_()
    y = odeint(func, y0, [0.0, 0.7, 2.0], compiled=name == "compiled").y
    v, w = torch.randn(2, *y.shape, dtype=y.dtype)

    def gradient(cotangent):
        inputs = (y0, *func.parameters())
        found = torch.autograd.grad(y, inputs, cotangent, retain_graph=True, allow_unused=True)
        return [g for g in found if g is not None]

    for both, one, other in zip(gradient(3 * v - 0.5 * w), gradient(v), gradient(w)):
        assert relative_error(both, 3 * one - 0.5 * other) < (1e-12 if name == "smooth" else 1e-4)


@pytest.mark.parametrize("func, shape, tolerance", [
    (ODEFunc, (16, 7, 7), 1e-3), (Contraction, (6,), 1e-3), (Contraction, (6,), 1e-6),
])
@torch.no_grad()
def test_a_batch_is_solved_as_its_samples_are_within_the_tolerance(func, shape, tolerance):
    torch.manual_seed(0)
    func = func(16) if func is ODEFunc else func()
    y0 = torch.randn(6, *shape, dtype=next(func.parameters()).dtype)
    together = odeint(func, y0, [0.0, 1.0], rtol=tolerance, atol=tolerance).y[-1]
    for i in range(len(y0)):
        alone = odeint(func, y0[i:i + 1], [0.0, 1.0], rtol=tolerance, atol=tolerance).y[-1]
        assert relative_error(together[i:i + 1], alone) < 10 * tolerance


def test_a_stiff_problem_ends_at_the_limit_of_steps_and_says_where():
    def van_der_pol(t, y, mu=1e4):
        return stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    with pytest.raises(StepLimitError) as stop:
        odeint(van_der_pol, torch.tensor([2.0, 0.0], dtype=torch.float64), [0.0, 1e4], max_steps=1000)
    assert 0 < stop.value.t < 1 and stop.value.h < 1e-2
