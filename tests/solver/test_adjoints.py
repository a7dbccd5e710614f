import copy
import gc
import logging
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchdiffeq
from problems import Contraction, relative_error, replay, trained_networks
from torch import nn

from nodelib.networks import ODEBlock, ODEFunc
from nodelib.solver import kernel
from nodelib.solver.adjoints import _with_anchors, anchor_times, continuous_adjoint
from nodelib.solver.errors import (
    InputError,
    NonFiniteError,
    RecomputationError,
    StepLimitError,
    StepSizeUnderflowError,
    UnsupportedGradientError,
)
from nodelib.solver.forward import rms_norm
from nodelib.solver.integrate import GRADIENTS, odeint
from nodelib.solver.stepper import TorchStepper
from nodelib.solver.tableau import DOPRI5

# every dynamics of the named runs: channels, size, leaky, last_norm
DYNAMICS = {
    "small": (16, 7, False, True),
    "large": (128, 7, False, True),
    "wide": (64, 10, False, True),
    "small-leaky": (16, 7, True, True),
    "small-nolast": (16, 7, False, False),
    "wide-leaky": (64, 10, True, True),
}


def dynamics(name, samples=2, seed=0):
    """Random dynamics, with scales and offsets away from 1 and 0, and a state."""
    channels, size, leaky, last_norm = DYNAMICS[name]
    torch.manual_seed(seed)
    func = ODEFunc(channels, leaky, last_norm)
    for parameter in func.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return func, torch.randn(samples, channels, size, size)


def gradients(func, y0, times, weights, **settings):
    """Solution, and the gradients of sum(weights * y) in y0 and every parameter."""
    y0 = y0.detach().requires_grad_()
    solution = odeint(func, y0, times, **settings)
    found = torch.autograd.grad((solution.y * weights).sum(), (y0, *func.parameters()), allow_unused=True)
    return solution, found


def autograd_gradients(func, y0, solution, weights):
    """The same by autograd through the same steps."""
    y0 = y0.detach().requires_grad_()
    y = replay(func, y0, solution.steps, solution.t.tolist())
    return y, torch.autograd.grad((y * weights).sum(), (y0, *func.parameters()), allow_unused=True)


def assert_equal_gradients(found, expected, tolerance):
    for mine, theirs in zip(found, expected):
        if theirs is None or theirs.norm() == 0:
            assert mine is None or mine.norm() == 0
        else:
            assert relative_error(mine, theirs) < tolerance


@pytest.mark.parametrize("memory_budget", [0, 20_000, 2**30])
@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.1, 0.11, 3.0, 50.0], [0.0, 500.0]])
def test_exact_is_autograd_through_the_same_steps_on_smooth_dynamics(times, memory_budget):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    weights = torch.randn(len(times), 3, 6, dtype=torch.float64)
    solution, found = gradients(func, y0, times, weights, memory_budget=memory_budget)
    y, expected = autograd_gradients(func, y0, solution, weights)
    torch.testing.assert_close(solution.y, y, rtol=1e-12, atol=1e-12)
    assert_equal_gradients(found, expected, 1e-10)


@pytest.mark.parametrize("name, t1", [
    ("small", 1.0), ("small", 10.0), ("small", 100.0), ("small", 500.0), ("large", 1.0), ("large", 10.0),
    ("wide", 1.0), ("small-leaky", 1.0), ("small-nolast", 10.0), ("wide-leaky", 1.0),
])
def test_exact_is_autograd_through_the_same_steps_on_random_networks(name, t1):
    func, y0 = dynamics(name)
    func, y0, times = func.double(), y0.double(), [0.0, t1 / 3, t1]
    weights = torch.randn(3, *y0.shape, dtype=torch.float64)
    solution, found = gradients(func, y0, times, weights)
    _, expected = autograd_gradients(func, y0, solution, weights)
    assert_equal_gradients(found, expected, 1e-10)


@pytest.mark.slow
def test_exact_is_autograd_through_the_same_steps_on_trained_networks(tiny_run, test_images):
    for name, func, y0 in trained_networks(tiny_run, test_images[0][:2]):
        func, y0 = copy.deepcopy(func).double(), y0.double()
        # leaky dynamics are chaotic in ordinary time: over t = 100 they amplify the rounding of float64
        # beyond the gradient
        for t1 in (1.0, 100.0) if func.channels == 16 and not func.leaky else (1.0,):
            weights = torch.randn(2, *y0.shape, dtype=torch.float64)
            solution, found = gradients(func, y0, [0.0, t1], weights)
            _, expected = autograd_gradients(func, y0, solution, weights)
            for mine, theirs in zip(found, expected):
                assert relative_error(mine, theirs) < 1e-10, (name, t1)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", DYNAMICS)
def test_single_precision_errs_at_most_twice_as_much_as_autograd(name, compiled):
    ratios = []
    for seed in range(5):
        func, y0 = dynamics(name, 1, seed)
        weights = torch.randn(2, *y0.shape)
        # a tolerance at which the kernels sum convolutions directly
        solution, found = gradients(func, y0, [0.0, 0.05], weights, first_step=0.05, compiled=compiled,
                                    rtol=5e-5, atol=5e-5)
        _, plain = autograd_gradients(func, y0, solution, weights)
        _, reference = autograd_gradients(func.double(), y0.double(), solution, weights.double())
        ours = sum((a.double() - b).norm() / b.norm() for a, b in zip(found, reference))
        theirs = sum((a.double() - b).norm() / b.norm() for a, b in zip(plain, reference))
        ratios.append((ours / theirs).item())
    # the middle one: a ReLU that switches by one rounding and not by the other decides single draws
    assert sorted(ratios)[2] < 2, ratios


@pytest.mark.slow
def test_single_precision_errs_no_more_than_autograd_on_long_trained_solves(tiny_run, test_images):
    ratios = []
    for name, func, y0 in trained_networks(tiny_run, test_images[0][:16])[:1]:
        for t1 in (1.0, 10.0, 100.0, 500.0):
            weights = torch.randn(2, *y0.shape)
            solution, found = gradients(func, y0, [0.0, t1], weights, rtol=9e-5, atol=9e-5)
            _, plain = autograd_gradients(func, y0, solution, weights)
            _, reference = autograd_gradients(copy.deepcopy(func).double(), y0.double(), solution,
                                              weights.double())
            # image by image: a ReLU that switches by one rounding and not by the other decides single ones
            ours, theirs = ((gradient[0].double() - reference[0]).flatten(1).norm(dim=1)
                            for gradient in (found, plain))
            ratios.append(ours / theirs)
    assert torch.cat(ratios).median() < 2, ratios


@pytest.mark.parametrize("name", DYNAMICS)
def test_minimal_filtering_rounds_far_below_the_tolerance_and_keeps_the_steps(name):
    func, y0 = dynamics(name)
    loose = kernel.native_stepper(func, y0, kernel.DOPRI5, (), kernel.MINIMAL_TOLERANCE,
                                  kernel.MINIMAL_TOLERANCE)
    if loose is None:
        pytest.skip("no C compiler")
    tight = kernel.native_stepper(func, y0, kernel.DOPRI5, (), 0.9 * kernel.MINIMAL_TOLERANCE, 1.0)
    assert loose.minimal and not tight.minimal
    with torch.no_grad():
        expected = copy.deepcopy(func).double()(0.0, y0.double())
    errors = [relative_error(s.unpack(s.evaluate(0.0, s.pack(y0))[0]).double(), expected)
              for s in (loose, tight)]
    assert errors[0] < 2e-5 < kernel.MINIMAL_TOLERANCE / 4 and errors[1] < 3e-6, errors
    solutions = [odeint(func, y0, [0.0, 10.0], compiled=compiled, params=()) for compiled in (True, False)]
    counts = [(s.accepted, s.rejected) for s in solutions]
    assert abs(counts[0][0] - counts[1][0]) <= 1 and abs(counts[0][1] - counts[1][1]) <= 1, counts


def test_first_step_is_held_constant_where_torchdiffeq_differentiates_it():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    weights = torch.randn(2, 3, 6, dtype=torch.float64)
    solution, found = gradients(func, y0, [0.0, 5.0], weights)
    y0 = y0.requires_grad_()
    for options, close in (({"first_step": solution.first_step}, True), ({}, False)):
        y = torchdiffeq.odeint(func, y0, torch.tensor([0.0, 5.0], dtype=torch.float64), rtol=1e-3, atol=1e-3,
                               method="dopri5", options=options)
        (expected,) = torch.autograd.grad((y * weights).sum(), y0)
        assert (relative_error(found[0], expected) < 1e-10) is close


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5-fixed"])
def test_fixed_steps_have_exact_gradients_too(method):
    func, y0 = Contraction(2), torch.randn(1, 2, dtype=torch.float64, requires_grad=True)

    def final(y0):
        return odeint(func, y0, [0.0, 0.4, 1.0], method=method, step_size=0.25).y[1:]

    assert torch.autograd.gradcheck(final, (y0,))


def test_input_gradients_skip_the_parameters(monkeypatch):
    func, y0 = dynamics("small")
    weights = torch.randn(2, *y0.shape)
    _, with_parameters = gradients(func, y0, [0.0, 10.0], weights)
    func.requires_grad_(False)
    seen = []
    original = kernel.NativeStepper.reverse
    monkeypatch.setattr(kernel.NativeStepper, "reverse",
                        lambda self, *a: (original(self, *a), seen.append(self._bars()))[0])
    y0 = y0.requires_grad_()
    (found,) = torch.autograd.grad((odeint(func, y0, [0.0, 10.0]).y * weights).sum(), y0)
    torch.testing.assert_close(found, with_parameters[0])
    assert seen and all(bars is None for bars in seen)


def test_parameters_alone_can_be_differentiated():
    func, y0 = dynamics("small")
    func.norm0.requires_grad_(False)
    odeint(func, y0, [0.0, 1.0]).y[-1].square().sum().backward()
    assert func.norm0.weight.grad is None and func.conv1.weight.grad is not None


@pytest.mark.parametrize("compiled", [True, False])
def test_gradients_at_several_end_times_share_the_forward_solve(compiled):
    func, y0 = dynamics("small")
    func, y0 = func.requires_grad_(False), y0.requires_grad_()
    times = [0.0, 1.0, 3.0, 10.0]
    solution = odeint(func, y0, times, compiled=compiled)
    calls, before = func.nfe, solution.nfe
    shared = [torch.autograd.grad(solution.y[i].square().sum(), y0, retain_graph=True)[0] for i in (1, 2, 3)]
    assert func.nfe == calls and solution.nfe == before
    for i, found in zip((1, 2, 3), shared):
        alone = odeint(func, y0, [0.0, times[i]], compiled=compiled)
        torch.testing.assert_close(found, torch.autograd.grad(alone.y[-1].square().sum(), y0)[0])


def test_a_short_end_time_reverses_only_its_own_steps():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    solution = odeint(func, y0, [0.0, 1.0, 100.0])
    torch.autograd.grad(solution.y[1].sum(), y0, retain_graph=True)
    short = solution.nfe_backward
    torch.autograd.grad(solution.y[2].sum(), y0)
    assert short < (solution.nfe_backward - short) / 2


def test_evaluations_of_the_backward_pass_are_counted():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    for memory_budget in (2**30, 0):
        solution = odeint(func, y0, [0.0, 10.0], memory_budget=memory_budget)
        assert solution.nfe_backward is None
        solution.y[-1].sum().backward()
        recomputed = 0 if memory_budget else 6 * solution.accepted
        assert solution.nfe_backward == 6 * solution.accepted + 1 + recomputed


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_backward_pass_that_was_not_counted_is_none_and_those_that_were_are_added(gradient):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    solution, block = odeint(func, y0, [0.0, 1.0], gradient=gradient), ODEBlock(func, gradient=gradient)
    y = block(y0)
    assert solution.nfe_backward is block.nfe_backward is None
    counts = []
    for _ in range(2):
        solution.y[-1].sum().backward(retain_graph=True)
        counts.append(solution.nfe_backward)
    y.sum().backward()
    if gradient == "torchdiffeq-backprop":  # which runs through torch's own graph
        assert counts == [None, None] and block.nfe_backward is None
    else:
        assert counts[1] == 2 * counts[0] > 0 and block.nfe_backward > 0


@pytest.mark.parametrize("compiled", [True, False])
def test_the_memory_budget_changes_memory_and_not_the_gradient(compiled):
    func, y0 = dynamics("small", samples=8)
    weights = torch.randn(2, *y0.shape)
    results = []
    for budget in (2**30, 2**23, 0):
        solution, found = gradients(func, y0, [0.0, 100.0], weights, memory_budget=budget, compiled=compiled)
        results.append((solution.nfe_backward, found))
    assert results[0][0] < results[1][0] < results[2][0]  # more is recomputed
    for _, found in results[1:]:
        assert_equal_gradients(found, results[0][1], 1e-5)


def test_the_memory_budget_counts_no_weights_in_an_attack_either():
    func, y0 = dynamics("small", samples=1)
    sizes = []
    for params in (tuple(func.parameters()), ()):
        stepper = TorchStepper(func, DOPRI5, params, 1e-3, 1e-3, None)
        func.requires_grad_(bool(params))
        stepper.evaluate(0.0, y0, keep=True)
        sizes.append(stepper.bytes_per_evaluation)
    weights = sum(p.nbytes for p in func.parameters())
    assert sizes[0] - weights / 2 < sizes[1] <= sizes[0]


PEAK = """
import os, sys, threading, torch
from pathlib import Path
from nodelib.networks import ODEFunc
from nodelib.solver.integrate import GRADIENTS, odeint
torch.manual_seed(0)
func, y0 = ODEFunc(16), torch.randn(64, 16, 7, 7)
compiled, budget = sys.argv[1] == "True", int(sys.argv[2])
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def watch():
    while not done.wait(0.001):
        peak[0] = max(peak[0], resident())
odeint(func, y0, [0.0, 1.0], memory_budget=0, compiled=compiled).y[-1].sum().backward()
before, peak, done = resident(), [0], threading.Event()
thread = threading.Thread(target=watch)
thread.start()
odeint(func, y0, [0.0, 100.0], memory_budget=budget, compiled=compiled).y[-1].sum().backward()
done.set()
thread.join()
print(peak[0] - before)
"""


@pytest.mark.parametrize("compiled", [True, False])
def test_the_memory_budget_bounds_the_peak_of_the_process(compiled):
    def peak(budget):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]),
                       "MALLOC_MMAP_THRESHOLD_": "65536"}
        command = [sys.executable, "-c", PEAK, str(compiled), str(budget)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True,
                                  env=environment).stdout)

    everything, bounded = peak(2**31), peak(30 * 2**20)
    assert everything > 100 * 2**20
    assert bounded < 60 * 2**20  # beside the budget: states of the steps and the allocator's slack


@pytest.mark.parametrize("times", [[0.0, 2.0], [0.0, 0.5, 2.0]])
def test_the_continuous_adjoint_is_torchdiffeqs(times):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    weights = torch.randn(len(times), 3, 6, dtype=torch.float64)
    settings = dict(rtol=1e-5, atol=1e-5)
    ours, found = gradients(func, y0, times, weights, gradient="adjoint", **settings)
    theirs, expected = gradients(func, y0, times, weights, gradient="torchdiffeq-adjoint", **settings)
    assert (ours.nfe, ours.nfe_backward) == (theirs.nfe, theirs.nfe_backward)
    assert (ours.accepted, ours.rejected) == (theirs.accepted, theirs.rejected)
    assert_equal_gradients(found, expected, 1e-9)


def test_the_continuous_adjoint_is_torchdiffeqs_on_a_network():
    func, y0 = dynamics("small")
    weights = torch.randn(2, *y0.shape)
    ours, found = gradients(func, y0, [0.0, 1.0], weights, gradient="adjoint")
    theirs, expected = gradients(func, y0, [0.0, 1.0], weights, gradient="torchdiffeq-adjoint")
    assert abs(ours.nfe_backward - theirs.nfe_backward) <= 12
    assert_equal_gradients(found, expected, 2e-2)


def test_both_gradients_meet_as_the_tolerance_tightens():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    weights = torch.randn(2, 3, 6, dtype=torch.float64)
    gaps = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        found = [gradients(func, y0, [0.0, 2.0], weights, gradient=g, rtol=tolerance, atol=tolerance)[1][0]
                 for g in ("exact", "adjoint")]
        gaps.append(relative_error(*found))
    assert gaps[0] > 100 * gaps[1] > 10_000 * gaps[2]


def test_anchors_repair_the_continuous_adjoint_at_long_end_times():
    func, errors = Contraction(seed=3), {"adjoint": 0.0, "anchored": 0.0}
    for seed in range(8):  # how much a single draw gains differs widely
        generator = torch.Generator().manual_seed(seed)
        y0, end = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator)
        weights = torch.stack([torch.zeros_like(end), end])
        reference = gradients(func, 3 * y0, [0.0, 12.0], weights, rtol=1e-10, atol=1e-10)[1]
        for gradient in errors:
            found = gradients(func, 3 * y0, [0.0, 12.0], weights, gradient=gradient)[1]
            errors[gradient] += relative_error(found[1], reference[1])
    assert errors["anchored"] < errors["adjoint"] / 2


@pytest.mark.parametrize("gradient", ["exact", "adjoint", "anchored"])
@pytest.mark.parametrize("func", [lambda t, y: torch.ones_like(y), lambda t, y: t * torch.ones_like(y)],
                         ids=["constant", "time"])
def test_dynamics_without_a_graph_pass_cotangents_through(func, gradient):
    y0 = torch.randn(3, requires_grad=True)
    solution = odeint(func, y0, [0.0, 0.5, 1.0], gradient=gradient)
    torch.testing.assert_close(torch.autograd.grad(solution.y.sum(), y0)[0], torch.full((3,), 3.0))


@pytest.mark.parametrize("settings", [
    {}, {"method": "euler", "step_size": 0.3}, {"method": "rk4", "step_size": 0.3},
    {"method": "dopri5-fixed", "step_size": 0.3},
], ids=str)
def test_the_gradient_asked_for_changes_no_bit_of_the_solution(settings):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    expected = odeint(func, y0, [0.0, 1.0, 4.0], **settings)
    for gradient in ("adjoint", "anchored"):
        found = odeint(func, y0, [0.0, 1.0, 4.0], gradient=gradient, anchors=7, **settings)
        assert torch.equal(found.y, expected.y) and found.steps == expected.steps
        assert found.nfe == expected.nfe
        assert found.t.tolist() == [0.0, 1.0, 4.0]


@pytest.mark.parametrize("gradient", ["adjoint", "anchored"])
@pytest.mark.parametrize("method, order", [("euler", 1), ("rk4", 4), ("dopri5-fixed", 5)])
def test_the_adjoint_of_fixed_steps_takes_the_same_steps_backwards(method, order, gradient):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    weights = torch.randn(3, 3, 6, dtype=torch.float64)
    reference = gradients(func, y0, [0.0, 1.0, 3.0], weights, rtol=1e-11, atol=1e-11)[1]
    errors = []
    for step_size in (0.1, 0.05):
        solution, found = gradients(func, y0, [0.0, 1.0, 3.0], weights, method=method, step_size=step_size,
                                    gradient=gradient)
        # from a state and a derivative anew at every time where steps reuse the last stage
        assert solution.nfe <= solution.nfe_backward <= solution.nfe + 25
        errors.append(relative_error(found[1], reference[1]))
    assert order - 0.7 < math.log2(errors[0] / errors[1]) < order + 1.5, errors


@pytest.mark.parametrize("gradient", ["torchdiffeq-backprop", "torchdiffeq-adjoint"])
def test_the_references_obey_first_step_and_max_steps(gradient):
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)
    ours = odeint(func, y0, [0.0, 5.0], first_step=0.01)
    theirs = odeint(func, y0, [0.0, 5.0], first_step=0.01, gradient=gradient)
    assert (ours.accepted, ours.rejected, ours.nfe) == (theirs.accepted, theirs.rejected, theirs.nfe)
    assert theirs.first_step == theirs.step_sizes[0] == 0.01
    total = ours.accepted + ours.rejected
    odeint(func, y0, [0.0, 2.0, 5.0], first_step=0.01, gradient=gradient, max_steps=total)
    with pytest.raises(StepLimitError) as caught:
        odeint(func, y0, [0.0, 2.0, 5.0], first_step=0.01, gradient=gradient, max_steps=total - 1)
    assert 0 < caught.value.t < 5 and caught.value.norm > 0


def test_the_references_backward_solve_obeys_max_steps():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)

    def solve(max_steps):
        return odeint(func, y0, [0.0, 5.0], gradient="torchdiffeq-adjoint", max_steps=max_steps)
    free = solve(1000)
    (1e6 * free.y).sum().backward()
    attempts = (free.nfe_backward - 2) // 6
    assert attempts > free.accepted + free.rejected
    enough, short = solve(attempts), solve(attempts - 1)
    for _ in range(2):  # every backward pass has steps of its own
        (1e6 * enough.y).sum().backward(retain_graph=True)
    with pytest.raises(StepLimitError):
        (1e6 * short.y).sum().backward()


@pytest.mark.parametrize("settings, first, each", [({}, 2, 6), ({"method": "rk4", "step_size": 0.1}, 0, 4)],
                         ids=str)
def test_max_steps_counts_the_steps_of_a_whole_backward_pass(settings, first, each):
    func, y0, times = Contraction(), torch.randn(3, 6, dtype=torch.float64), [0.0, 1.0, 2.0, 5.0]
    y = odeint(func, y0, times, **settings).y.detach()

    def solve(max_steps):
        return continuous_adjoint(func, times, y, 1e6 * torch.ones_like(y), list(func.parameters()),
                                  rtol=1e-3, atol=1e-3, norm=rms_norm, max_steps=max_steps,
                                  **{"method": "dopri5", "step_size": None, **settings})

    a, found, nfe = solve(10_000)
    attempts = (nfe - 3 * first) // each  # in three intervals
    assert torch.equal(solve(attempts)[0], a)
    with pytest.raises(StepLimitError, match=f"max_steps = {attempts - 1}"):
        solve(attempts - 1)


TWO = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize("gradient", ["torchdiffeq-backprop", "torchdiffeq-adjoint"])
@pytest.mark.parametrize("error, func, y0, times, settings", [
    (NonFiniteError, lambda t, y: y * math.nan, TWO, [0.0, 1.0], {}),
    (NonFiniteError, lambda t, y: y / 0, TWO, [0.0, 1.0], {}),
    (NonFiniteError, lambda t, y: -y, TWO * math.nan, [0.0, 1.0], {}),
    (NonFiniteError, lambda t, y: -y, TWO * math.nan, [0.0, 1.0], {"first_step": 0.1}),
    (NonFiniteError, lambda t, y: torch.where(t > 0.5, math.nan, -y), TWO, [0.0, 1.0], {}),
    (StepSizeUnderflowError, lambda t, y: y * y, TWO, [0.0, 2.0], {}),
    (StepSizeUnderflowError, lambda t, y: -y * y, TWO, [1.0, -1.0], {}),
    (StepSizeUnderflowError, lambda t, y: -y, TWO, [1e16, 2e16], {}),
    # 1 - 1e-16 is another number than 1, 1 + 1e-16 is not
    (StepSizeUnderflowError, lambda t, y: -y, TWO, [1.0, 2.0], {"first_step": 1e-16}),
    (StepSizeUnderflowError, lambda t, y: -y, TWO, [-1.0, -2.0], {"first_step": 1e-16}),
])
def test_the_references_fail_as_the_own_solver_does(gradient, error, func, y0, times, settings):
    for each in ("exact", gradient):
        with pytest.raises(error) as caught:
            odeint(func, y0, times, gradient=each, **settings)
        assert min(times) <= caught.value.t <= max(times)
        assert caught.value.h == 0 or (caught.value.h > 0) == (times[1] > times[0])


@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.0]])
@pytest.mark.parametrize("error, later, bar", [
    (NonFiniteError, math.nan, 1.0), (NonFiniteError, 1.0, math.nan), (NonFiniteError, 1.0, math.inf),
    (StepSizeUnderflowError, -1e30, 1.0)])
def test_the_references_backward_solve_fails_by_name(error, later, bar, times):
    factor = [1.0]
    y0 = (TWO / 2).requires_grad_()
    y = odeint(lambda t, y: -factor[0] * y * y, y0, times, gradient="torchdiffeq-adjoint").y[-1]
    factor[0] = later
    with pytest.raises(error, match="gradient" if error is NonFiniteError else "underflows") as caught:
        y.backward(torch.full_like(y, bar))
    assert caught.value.h == 0 or (caught.value.h > 0) == (times[1] < times[0])


@pytest.mark.parametrize("gradient", ["exact", "torchdiffeq-backprop", "torchdiffeq-adjoint"])
def test_an_assertion_of_func_stays_what_it_is(gradient):
    def strict(t, y):
        assert t < 0.5, "too late"
        return -y

    with pytest.raises(AssertionError, match="too late"):
        odeint(strict, TWO, [0.0, 1.0], gradient=gradient)


def test_anchor_times_are_log_spaced_and_end_at_the_end():
    times = anchor_times(1.0, 101.0, 20)
    assert len(times) == 20 and times[-1] == 101.0
    ratios = [(b - 1) / (a - 1) for a, b in zip(times, times[1:])]
    assert max(ratios) == pytest.approx(min(ratios))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_fixed_steps_are_restored_where_they_start_nearest_to_the_anchors(sign):
    steps = [SimpleNamespace(t=sign * t, y=torch.tensor(sign * t)) for t in range(100)]
    tape = SimpleNamespace(steps=steps, stepper=SimpleNamespace(unpack=lambda y: y))
    times, y = _with_anchors([0.0, sign * 100], torch.tensor([0.0, sign * 100]), tape, 3)
    assert times == y.tolist() == [0.0, sign * 1, sign * 10, sign * 99, sign * 100]


def test_the_adjoint_differentiates_what_was_made_of_a_parameter_once_for_all_evaluations():
    rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    made = rate.exp()
    y = odeint(lambda t, y: -made * y, torch.ones(1, dtype=torch.float64), [0.0, 1.0], params=(rate,),
               gradient="adjoint", rtol=1e-9, atol=1e-9).y[-1]
    found, = torch.autograd.grad(y.sum(), rate)
    assert found.item() == pytest.approx(-math.exp(0.5 - math.exp(0.5)), rel=1e-6)


def test_a_single_anchor_is_the_end_time_which_the_adjoint_restores_anyway():
    func, y0 = Contraction(), torch.randn(3, 6, dtype=torch.float64)

    def gradient(**settings):
        leaf = y0.clone().requires_grad_()
        return torch.autograd.grad(odeint(func, leaf, [0.0, 4.0], **settings).y[-1].sum(), leaf)[0]
    plain = gradient(gradient="adjoint")
    assert torch.equal(gradient(gradient="anchored", anchors=1), plain)
    assert not torch.equal(gradient(gradient="anchored", anchors=2), plain)


@pytest.mark.parametrize("gradient",
                         ["exact", "adjoint", "anchored", "torchdiffeq-backprop", "torchdiffeq-adjoint"])
def test_every_gradient_name_trains(gradient):
    func, y0 = dynamics("small")
    solution = odeint(func, y0, [0.0, 1.0], gradient=gradient)
    solution.y[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in func.parameters())
    assert solution.nfe == 26 and solution.accepted == 4


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))

    def forward(self, t, y):
        return self.rate * y


@pytest.mark.parametrize("settings", [
    *({"gradient": gradient} for gradient in GRADIENTS), {"memory_budget": 0},
    {"method": "dopri5-fixed", "step_size": 0.1}, {"method": "rk4", "step_size": 0.1},
    {"method": "rk4", "step_size": 0.1, "gradient": "adjoint"},
    {"method": "rk4", "step_size": 0.1, "gradient": "anchored"},
], ids=str)
def test_a_state_without_dimensions_is_differentiated(settings):
    """y = 2 exp(rate t) at t = 0.5 and 1: dy/dy0 = exp(rate t) and dy/drate = t y."""
    func, y0 = Scaled(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    solution = odeint(func, y0, [0.0, 0.5, 1.0], rtol=1e-9, atol=1e-9, **settings)
    assert solution.y.shape == (3,)
    solution.y[1:].sum().backward()
    at = [math.exp(-0.25), math.exp(-0.5)]
    assert y0.grad.shape == () and y0.grad.item() == pytest.approx(sum(at), rel=1e-4)
    assert func.rate.grad.item() == pytest.approx(2 * (0.5 * at[0] + at[1]), rel=1e-4)


def test_a_state_without_dimensions_is_differentiated_twice():
    """d/drate dy/dy0 = t exp(rate t)."""
    func, y0 = Scaled(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = odeint(func, y0, [0.0, 1.0], rtol=1e-9, atol=1e-9).y[-1]
    slope, = torch.autograd.grad(y, y0, create_graph=True)
    assert torch.autograd.grad(slope, func.rate)[0].item() == pytest.approx(math.exp(-0.5), rel=1e-4)


def test_hidden_parameters_are_refused():
    weight = torch.ones(3, requires_grad=True)
    with pytest.raises(InputError, match="params"):
        odeint(lambda t, y: weight * y, torch.ones(3), [0.0, 1.0])
    solution = odeint(lambda t, y: weight * y, torch.ones(3), [0.0, 1.0], params=[weight])
    assert torch.autograd.grad(solution.y[-1].sum(), weight)[0].norm() > 0


@pytest.mark.parametrize("settings", [
    *({"gradient": gradient} for gradient in GRADIENTS), {"memory_budget": 0},
    {"method": "rk4", "step_size": 0.1}], ids=str)
def test_a_tensor_named_twice_has_its_gradient_once(settings):
    """y = exp(rate) + shift (exp(rate) - 1) / rate at t = 1, of dy/dt = rate y + shift."""
    rate, shift = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.5, 2.0))

    def found(params):
        y = odeint(lambda t, y: rate * y + shift, torch.ones(1, dtype=torch.float64), [0.0, 1.0],
                   params=params, rtol=1e-7, atol=1e-7, **settings).y[-1]
        return torch.autograd.grad(y, (rate, shift))

    twice = found([rate, shift, rate, rate])
    assert all(map(torch.equal, twice, found([rate, shift])))
    grown = math.exp(0.5)
    assert twice[0].item() == pytest.approx(grown + 2 * (grown - (grown - 1) / 0.5) / 0.5, rel=1e-3)
    assert twice[1].item() == pytest.approx((grown - 1) / 0.5, rel=1e-3)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_parameter_named_twice_has_its_gradient_once_in_the_kernels_too(compiled):
    func, y0 = dynamics("small")
    weight = func.conv1.weight
    ends = [odeint(func, y0, [0.0, 0.1], params=[weight] * n, compiled=compiled).y[-1] for n in (1, 2)]
    once, twice = (torch.autograd.grad(end.square().sum(), weight)[0] for end in ends)
    assert torch.equal(once, twice) and once.norm() > 0


class Precise(nn.Module):
    """Dynamics that compute in their parameters' precision and answer in the state's."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3, dtype=dtype)

    def forward(self, t, y):
        return torch.tanh(self.layer(y.to(self.layer.weight.dtype))).to(y.dtype)


@pytest.mark.parametrize("own, state", [
    (torch.float64, torch.float32), (torch.float32, torch.float64), (torch.bfloat16, torch.float32)], ids=str)
@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"gradient": "anchored"}, {
    "gradient": "adjoint", "method": "rk4", "step_size": 0.1}], ids=str)
def test_the_continuous_adjoint_takes_parameters_of_another_precision(settings, own, state):
    func, y0, weights = Precise(own), torch.randn(2, 3, dtype=state), torch.randn(2, 2, 3, dtype=state)
    _, found = gradients(func, y0, [0.0, 1.0], weights, **settings)
    _, expected = gradients(func, y0, [0.0, 1.0], weights, gradient="torchdiffeq-adjoint")
    assert [g.dtype for g in found] == [state, own, own]
    assert_equal_gradients(found, expected, 0.05 if own is torch.bfloat16 else 5e-3)


@pytest.mark.parametrize("gradient", ["adjoint", "anchored"])
def test_the_continuous_adjoint_refuses_complex_parameters(gradient):
    rate = torch.tensor(-1 + 1j, requires_grad=True)

    def turning(t, y):
        return torch.view_as_real(rate * torch.view_as_complex(y))

    y0 = torch.ones(3, 2)
    with pytest.raises(UnsupportedGradientError, match="complex64.*use gradient='exact'"):
        odeint(turning, y0, [0.0, 1.0], params=[rate], gradient=gradient)
    y = torch.view_as_complex(odeint(turning, y0, [0.0, 1.0], params=[rate], rtol=1e-5, atol=1e-5).y[-1])
    # of y = (1 + i) exp(rate), as torch writes the derivative of a real part
    expected = (torch.tensor(1 + 1j) * rate.detach().exp()).conj() * 3
    torch.testing.assert_close(torch.autograd.grad(y.real.sum(), rate)[0], expected, rtol=1e-3, atol=0.0)


class Hiding(nn.Module):
    """Dynamics with a tensor that is no parameter."""

    def __init__(self, hidden):
        super().__init__()
        self.scale, self.hidden = nn.Parameter(torch.ones(())), hidden

    def forward(self, t, y):
        return -self.scale * torch.tanh(self.hidden * y)


@pytest.mark.parametrize("settings", [
    {}, {"memory_budget": 0}, {"gradient": "adjoint"}, {"gradient": "anchored"},
    {"gradient": "torchdiffeq-adjoint"}, {"method": "rk4", "step_size": 0.1},
], ids=str)
def test_tensors_hidden_in_a_module_are_refused_and_its_own_are_not(settings):
    leaf = torch.ones(3, requires_grad=True)
    made = torch.ones(3, requires_grad=True) * 2
    for hidden in (leaf, made):
        with pytest.raises(ValueError, match="params"):
            odeint(Hiding(hidden), torch.ones(3), [0.0, 1.0], **settings)
        func = Hiding(hidden)
        solution = odeint(func, torch.ones(3), [0.0, 1.0], params=[func.scale, hidden], **settings)
        assert torch.autograd.grad(solution.y[-1].sum(), hidden, retain_graph=True)[0].norm() > 0
        assert odeint(func, torch.ones(3), [0.0, 1.0], params=(), **settings).y[-1].isfinite().all()
        with torch.no_grad():
            odeint(func, torch.ones(3), [0.0, 1.0], **settings)
    func = Hiding(torch.ones(3))
    func.hidden = func.scale * 2  # made of what is registered
    odeint(func, torch.ones(3), [0.0, 1.0], **settings).y[-1].sum().backward()
    assert func.scale.grad.norm() > 0


def test_backpropagation_finds_hidden_tensors_itself():
    hidden = torch.ones(3, requires_grad=True)
    odeint(Hiding(hidden), torch.ones(3), [0.0, 1.0], gradient="torchdiffeq-backprop").y[-1].sum().backward()
    assert hidden.grad.norm() > 0


def test_parameters_changed_between_forward_and_backward_are_noticed():
    func, y0 = dynamics("small")
    loss = odeint(func, y0, [0.0, 1.0]).y[-1].sum()
    with torch.no_grad():
        func.conv1.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Frozen(nn.Module):
    """A layer of the state as dynamics, its parameters frozen, with a buffer as a factor."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, t, y):
        return self.scale * self.layer(y)


def slope(func, start=1.0, change=None, **settings):
    """Gradient in the start of the sum of six states at t = 1, after a change of what the solve used."""
    y0 = torch.full((6, 1), start, requires_grad=True)
    y = odeint(func, y0, [0.0, 1.0], **settings).y[-1]
    if change is not None:
        with torch.no_grad():
            change()
    return torch.autograd.grad(y.sum(), y0)[0]


METHODS = [{}, {"method": "euler", "step_size": 0.5}, {"method": "rk4", "step_size": 0.5}]


@pytest.mark.parametrize("settings", METHODS, ids=str)
@pytest.mark.parametrize("start", [1.0, 0.0])  # at zero the states are the same whatever the weights
@pytest.mark.parametrize("name", ["layer.weight", "scale"])
def test_frozen_tensors_changed_before_steps_are_taken_again_are_named(name, start, settings):
    func = Frozen(nn.Linear(1, 1, bias=False))
    tensor = func.state_dict(keep_vars=True)[name]
    with pytest.raises(RecomputationError, match=f"^{name} of func was changed in place"):
        slope(func, start, lambda: tensor.fill_(2.0), memory_budget=0, **settings)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # torch's own word
        slope(func, start, lambda: tensor.fill_(3.0), **settings)


@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_changes_that_leave_no_trace_are_seen_by_what_comes_out(settings):
    func, held = Frozen(nn.Linear(1, 1, bias=False)), torch.ones(())
    with pytest.raises(RecomputationError, match="step from t = .* comes out otherwise by .* memory_budget"):
        slope(func, 1.0, lambda: func.layer.weight.data.add_(1e-3), memory_budget=0, **settings)
    with pytest.raises(RecomputationError, match="comes out otherwise"):
        slope(lambda t, y: held * y, 1.0, lambda: held.add_(1e-3), memory_budget=0, **settings)
    generator = torch.Generator()  # not torch's own
    with pytest.raises(RecomputationError, match="comes out otherwise"):
        slope(lambda t, y: y * torch.rand((), generator=generator), memory_budget=0, method="euler",
              step_size=0.5)


@pytest.mark.parametrize("start", [1.0, 0.0])
def test_random_dynamics_are_differentiated_as_drawn_or_refused(start):
    func, settings = Frozen(nn.Dropout(0.5)), {"method": "euler", "step_size": 0.5}
    torch.manual_seed(1)
    masks = 2.0 * torch.empty(2, 6, 1).bernoulli_(0.5)
    torch.manual_seed(1)
    assert torch.equal(slope(func, start, **settings), (1 + masks / 2).prod(0))
    assert masks.unique().numel() == 2
    with pytest.raises(RecomputationError, match="func draws random numbers.*memory_budget"):
        slope(func, start, memory_budget=0, **settings)
    func.eval()
    assert torch.equal(slope(func, start, memory_budget=0, **settings), torch.full((6, 1), 1.5**2))


def test_the_last_stage_is_compared_too():
    calls = []

    def otherwise_at_the_end(t, y):  # which the state after the step does not depend on
        calls.append(t)
        return y * (len(calls) if t == 1.0 and len(calls) % 6 == 1 else 1)

    with pytest.raises(RecomputationError, match="comes out otherwise"):
        slope(otherwise_at_the_end, memory_budget=0, method="dopri5-fixed", step_size=1.0)


def test_what_the_dynamics_change_themselves_is_no_change():
    class Counting(Frozen):
        def forward(self, t, y):
            self.calls += 1
            return super().forward(t, y)

    func = Counting(nn.BatchNorm1d(1))  # whose running mean moves
    func.register_buffer("calls", torch.zeros(()))
    y0 = torch.randn(6, 1, requires_grad=True)
    found = []
    for memory_budget in (2**30, 0):
        y = odeint(func, y0, [0.0, 1.0], memory_budget=memory_budget).y[-1].square().sum()
        odeint(func, y0, [0.0, 0.1])
        found += [torch.autograd.grad(y, y0, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(each, found[0]) for each in found)
    assert func.calls > 0 and func.layer.running_mean != 0


def test_dynamics_that_round_otherwise_under_autograd_are_recomputed_all_the_same():
    def thirds(t, y):
        return y / 3 if torch.is_grad_enabled() else y * (1 / 3)

    starts = torch.linspace(0, 1, 50)
    assert not torch.equal(starts / 3, starts * (1 / 3))
    y0 = starts.requires_grad_()
    solutions = [odeint(thirds, y0, [0.0, 1.0], memory_budget=budget) for budget in (2**30, 0)]
    first, second = (torch.autograd.grad(solution.y[-1].sum(), y0)[0] for solution in solutions)
    torch.testing.assert_close(first, second, rtol=1e-6, atol=0.0)


def test_compiled_kernels_differentiate_the_weights_of_the_solve():
    func, y0 = dynamics("small")
    if kernel.native_stepper(func, y0, kernel.DOPRI5, (), 1e-3, 1e-3) is None:
        pytest.skip("no C compiler")
    func.requires_grad_(False)
    found = []
    for memory_budget in (2**30, 0):
        leaf = y0.clone().requires_grad_()
        y = odeint(func, leaf, [0.0, 1.0], memory_budget=memory_budget).y[-1].sum()
        kept = func.conv1.weight.clone()
        func.conv1.weight.zero_()
        found += torch.autograd.grad(y, leaf)
        func.conv1.weight.copy_(kept)
    assert_equal_gradients(found[:1], found[1:], 1e-5)


@pytest.mark.parametrize("change", [
    lambda func: func.conv1.weight.mul_(-1.0),
    lambda func: func.conv1.weight.data.mul_(-1.0),  # no new version
    lambda func: func.norm2.bias.data.copy_(func.norm2.bias.data.flip(0)),
    lambda func: func.conv3.weight.numpy().__imul__(-1.0),
    lambda func: func.conv2.weight.set_(func.conv3.weight.data),
], ids=["in place", "data", "offsets", "numpy", "storage"])
def test_changed_weights_reach_the_compiled_kernels(change):
    func, y0 = dynamics("small")
    with torch.no_grad():
        before = odeint(func, y0, [0.0, 1.0]).y
        change(func.requires_grad_(False))
        found = odeint(func, y0, [0.0, 1.0]).y
        assert relative_error(before[-1], found[-1]) > 1e-2
        torch.testing.assert_close(found, odeint(func, y0, [0.0, 1.0], compiled=False).y, rtol=1e-4,
                                   atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])  # minimal filtering, and the sum
@pytest.mark.parametrize("samples", [1, 7, 19])
@pytest.mark.parametrize("name", DYNAMICS)
def test_compiled_evaluations_and_their_reverse_match_double_precision(name, samples, tolerance):
    func, y = dynamics(name, samples)
    stepper = kernel.native_stepper(func, y, kernel.DOPRI5, tuple(func.parameters()), tolerance, tolerance)
    if stepper is None:
        pytest.skip("no C compiler")
    packed = stepper.pack(y)
    k, kept = stepper.evaluate(0.0, packed, keep=True)
    k_bar = torch.randn_like(y)
    y_bar = stepper.vjp(kept, stepper.pack(k_bar), [])
    parameters = stepper.finish([])
    exact = copy.deepcopy(func).double()
    leaf = y.double().requires_grad_()
    expected = exact(0.0, leaf)
    bars = torch.autograd.grad(expected, (leaf, *exact.parameters()), k_bar.double())
    assert relative_error(stepper.unpack(k).double(), expected) < 1e-5
    errors = [relative_error(mine.double(), theirs) for mine, theirs in zip(stepper.unpack(y_bar), bars[0])]
    # a ReLU that rounding switches changes its sample's gradient
    switched = sum(error > 1e-5 for error in errors)
    assert switched <= 2 and max(errors) < 0.1, errors
    for mine, theirs in zip(parameters, bars[1:]):
        assert relative_error(mine.double(), theirs) < (0.1 if switched else 2e-5)


FORK = """
import os, signal, torch
from nodelib.networks import ODEFunc
from nodelib.solver.integrate import GRADIENTS, odeint
torch.manual_seed(0)
func, y0 = ODEFunc(16), torch.randn(4, 16, 7, 7)
def solve():
    leaf = y0.clone().requires_grad_()
    odeint(func, leaf, [0.0, 1.0]).y[-1].square().sum().backward()
    return leaf.grad
torch.set_num_threads(1)
expected = solve()
torch.set_num_threads(2)
solve()
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if torch.equal(solve(), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_solves_where_its_parent_used_several_threads():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.split() == ["0"], done.stderr


class Doubled(ODEFunc):
    def forward(self, t, y):
        return 2 * super().forward(t, y)


def double(module, inputs, output):
    return 2 * output


def convolution(**settings):
    return nn.Conv2d(16, 16, 3, bias=False, **settings)


def tied(func):
    func.conv2.weight = func.conv1.weight


def scaled(func, name):
    """Override the forward of one instance."""
    part = func.get_submodule(name)
    original = part.forward
    part.forward = lambda *inputs: 2 * original(*inputs)


CHANGES = {
    "groups": lambda f: setattr(f, "norm2", nn.GroupNorm(4, 16)),
    "eps of one": lambda f: setattr(f.norm3, "eps", 0.5),
    "no affine": lambda f: setattr(f, "norm1", nn.GroupNorm(16, 16, affine=False)),
    "a norm of another kind": lambda f: setattr(f, "norm1", nn.BatchNorm2d(16).eval()),
    "no norm": lambda f: setattr(f, "norm1", nn.Identity()),
    "no first norm": lambda f: setattr(f, "norm0", nn.Identity()),
    "a bias": lambda f: setattr(f, "conv1", nn.Conv2d(16, 16, 3, padding=1)),
    "dilation": lambda f: setattr(f, "conv2", convolution(padding=2, dilation=2)),
    "grouped convolution": lambda f: setattr(f, "conv2", convolution(padding=1, groups=4)),
    "kernel of five": lambda f: setattr(f, "conv3", nn.Conv2d(16, 16, 5, padding=2, bias=False)),
    "kernel of one": lambda f: setattr(f, "conv3", nn.Conv2d(16, 16, 1, bias=False)),
    "circular padding": lambda f: setattr(f, "conv4", convolution(padding=1, padding_mode="circular")),
    "padding in words": lambda f: setattr(f, "conv4", convolution(padding="same")),
    "a convolution in parts": lambda f: setattr(f, "conv1", nn.Sequential(f.conv1, nn.Tanh())),
    "tied weights": tied,
    "a hook": lambda f: f.conv2.register_forward_hook(double),
    "a hook on the whole": lambda f: f.register_forward_hook(double),
    "a hook before": lambda f: f.norm2.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],)),
    "a hook backwards": lambda f: f.conv2.register_full_backward_hook(lambda m, g, _: (2 * g[0],)),
    "a forward of one part": lambda f: scaled(f, "conv2"),
    "a forward of the whole": lambda f: scaled(f, ""),
    "parametrised weights": lambda f: nn.utils.parametrizations.weight_norm(f.conv1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_parts_are_solved_and_differentiated_as_they_are(name):
    func, y0 = dynamics("small")
    assert kernel.misfit(func, y0, kernel.DOPRI5, ()) is None
    CHANGES[name](func)
    weights = torch.randn(2, *y0.shape)
    (ours, found), (theirs, expected) = (gradients(func, y0, [0.0, 0.2], weights, compiled=compiled)
                                         for compiled in (True, False))
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-4, atol=1e-4)
    assert_equal_gradients(found, expected, 1e-2)


def test_dynamics_that_the_kernels_do_not_know_are_logged_once_for_each_reason(monkeypatch, caplog):
    monkeypatch.setattr(kernel, "_told", set())
    func, narrow = ODEFunc(16), ODEFunc(8)
    with caplog.at_level(logging.INFO, logger="nodelib"), torch.no_grad():
        for _ in range(2):
            odeint(narrow, torch.randn(1, 8, 7, 7), [0.0, 0.1])
            odeint(func, torch.randn(1, 16, 4, 7), [0.0, 0.1])
            odeint(func, torch.randn(1, 16, 7, 7), [0.0, 0.1], compiled=False)
    told = [record.getMessage() for record in caplog.records if "do not apply" in record.getMessage()]
    assert len(told) == 2 and "8 x 7 x 7" in told[0] and "16 x 4 x 7" in told[1]


def test_global_hooks_are_called():
    func, y0 = dynamics("small")
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        with torch.no_grad():
            solution = odeint(func, y0, [0.0, 0.2])
    finally:
        handle.remove()
    assert sum(module is func.conv2 for module in seen) == solution.nfe


def test_other_dynamics_use_torch():
    y0 = torch.randn(2, 16, 7, 7)
    for func in (Doubled(16), nn.Identity(), lambda t, y: y):
        assert kernel.misfit(func, y0, kernel.DOPRI5, ()) is not None
    func = ODEFunc(16)
    for state in (y0.double(), y0[:, :8], y0[0], y0[..., :4], nn.functional.pad(y0, (0, 6))):
        assert kernel.misfit(func, state, kernel.DOPRI5, ()) is not None
    assert kernel.misfit(func.double(), y0, kernel.DOPRI5, ()) is not None
    assert kernel.misfit(ODEFunc(16), y0, kernel.DOPRI5, [torch.ones(1)]) is not None


@pytest.mark.parametrize("settings", [{}, {"memory_budget": 0}, {"gradient": "adjoint"}], ids=str)
def test_a_solve_by_torch_leaves_no_activation_behind(settings, monkeypatch):
    func, y0 = dynamics("small")
    seen = weakref.WeakSet()

    class Activation(torch.autograd.Function):  # saves its result, as many of torch's do
        @staticmethod
        def forward(ctx, x):
            y = x.relu()
            ctx.save_for_backward(y)
            ctx.box = set()
            seen.add(ctx)
            return y

        @staticmethod
        def backward(ctx, g):
            return g * (ctx.saved_tensors[0] > 0)

    monkeypatch.setattr(nn.functional, "relu", Activation.apply)
    gc.disable()
    try:
        odeint(func, y0, [0.0, 1.0], compiled=False, **settings).y[-1].sum().backward()
        assert len(seen) == 0
    finally:
        gc.enable()


def test_a_solution_frees_its_steps_at_once():
    func, y0 = dynamics("small")
    gc.disable()
    try:
        solution = odeint(func, y0, [0.0, 1.0])
        tape = weakref.ref(solution.y.grad_fn.tape)
        assert tape().steps
        del solution
        assert tape() is None  # no cycle that would wait for the garbage collector
    finally:
        gc.enable()


@pytest.mark.parametrize("name", DYNAMICS)
def test_tiny_cotangents_lose_nothing_to_the_end_of_the_float_range(name):
    # what a softmax that is all but saturated sends back; every sample has a size of its own
    func, y0 = dynamics(name, samples=3)
    # in sixteenths, so that the smallest keep their bits when they are made tiny
    weights = torch.randn(3, *y0.shape, generator=torch.Generator().manual_seed(1)).mul(16).round() / 16
    sizes = torch.tensor([1.0, 2.0**-90, 2.0**-115]).view(1, 3, 1, 1, 1)

    def gradient(w):
        leaf = y0.clone().requires_grad_()
        return torch.autograd.grad((odeint(func, leaf, [0.0, 0.5, 4.0], params=()).y * w).sum(), leaf)[0]
    normal, tiny = gradient(weights), gradient(weights * sizes)
    scaled = normal * sizes[0]
    above = scaled.abs() >= torch.finfo(torch.float32).tiny  # the quotient at the end may still fall below
    assert above[:2].all() and torch.equal(tiny[above], scaled[above])


def test_cotangents_left_unbalanced_are_lost_below_the_range_of_floats():
    func, y0 = dynamics("small")
    leaf = y0.requires_grad_()
    y = odeint(func, leaf, [0.0, 4.0], params=()).y[-1]

    def gradient(size):
        return torch.autograd.grad(y, leaf, weights * size, retain_graph=True)[0].double()
    weights, size = torch.randn(y.shape), 2.0**-140
    expected, balanced = gradient(1.0) * size, gradient(size)
    with kernel.unbalanced(False):
        assert torch.equal(gradient(size), balanced)
    with kernel.unbalanced():
        lost = gradient(size)
        with kernel.unbalanced(False):
            assert torch.equal(gradient(size), lost)
    assert torch.equal(gradient(size), balanced)
    assert relative_error(balanced, expected) < 0.01 < relative_error(lost, expected)


def test_cotangents_without_a_size_go_through_as_they_are():
    func, y0 = dynamics("small")
    leaf = y0.requires_grad_()
    y = odeint(func, leaf, [0.0, 1.0], params=()).y
    weights = torch.ones_like(y)
    weights[:, 0] = 0.0
    (zero,) = torch.autograd.grad((y * weights).sum(), leaf, retain_graph=True)
    assert not zero[0].any() and zero[1].any()
    weights[-1, 0, 0, 0, 0] = float("inf")
    (infinite,) = torch.autograd.grad((y * weights).sum(), leaf)
    assert not infinite[0].isfinite().all() and torch.equal(infinite[1], zero[1])


def test_the_error_estimate_sums_its_threads_in_their_order():
    func, y0 = ODEFunc(16), torch.randn(4, 16, 8, 8)  # of powers of two: means lose nothing
    y0 = y0 * torch.tensor([1e4, 1e2, 1e3, 1e1]).view(4, 1, 1, 1)  # sizes at which the order of a sum shows

    def mean_square(y, threads, h):
        stepper = kernel.native_stepper(func, y, kernel.DOPRI5, (), 1e-3, 1e-3)
        if stepper is None:
            pytest.skip("no C compiler")
        stepper.threads = threads
        stepper.scratch = torch.empty(threads * stepper.library.nodelib_scratch())
        packed = stepper.pack(y)
        squares = []
        stepper._call = lambda name, *a: squares.append(kernel.NativeStepper._call(stepper, name, *a)) or 1.0
        stepper.step(0.0, packed, torch.zeros_like(packed), h)
        return squares[0]
    for i in range(1, 30):
        alone = [mean_square(y0[j:j + 1], 1, 0.01 * i) for j in range(4)]
        without_openmp = mean_square(y0, 1, 0.01 * i)
        in_order = ((alone[0] + alone[1]) + alone[2]) + alone[3]  # sum() compensates, since Python 3.12
        assert mean_square(y0, 4, 0.01 * i) in (in_order / 4, without_openmp)
