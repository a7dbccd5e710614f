"""Errors of gradients, the backward state, and the memory that a gradient needs."""

import copy

import pytest
import torch

from nodelib.bench import memory
from nodelib.experiment import gradients
from nodelib.solver.errors import InputError


@pytest.fixture(scope="module")
def case(tiny_run, test_images):
    model = tiny_run.load_model()
    images, labels = test_images
    return model, images[:4], labels[:4]


def test_the_exact_gradient_is_that_of_the_models_own_backward_pass(case):
    model, images, labels = case
    x = images.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(x, 2.0), labels).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.block.func.parameters()])
    found = gradients.loss_gradient(model, images, labels, 2.0)
    assert gradients.relative_error(found.images, x.grad.double()) < 1e-6
    assert gradients.relative_error(found.parameters, expected.double()) < 1e-6
    model.zero_grad()


def test_scaling_the_loss_changes_nothing_for_the_exact_gradient(case):
    model, images, labels = case
    plain, scaled = (gradients.loss_gradient(model, images, labels, 1.0, scale=s) for s in (1.0, 1024.0))
    assert gradients.relative_error(scaled.images, plain.images.double()) < 1e-5


@pytest.mark.parametrize("method", ["adjoint", "anchored", "exact"])
def test_every_gradient_approaches_the_reference_as_the_tolerance_falls(case, method):
    model, images, labels = case
    model, images, labels = copy.deepcopy(model).double(), images[:2].double(), labels[:2]
    reference = gradients.reference_gradient(model, images, labels, 1.0, 1e-6)
    loose, tight = (gradients.loss_gradient(model, images, labels, 1.0, method, rtol=t, atol=t)
                    for t in (1e-2, 1e-5))
    loose, tight = (gradients.relative_error(found.images, reference.images) for found in (loose, tight))
    assert tight < 0.5 * loose


def test_a_backward_tolerance_is_refused_for_other_methods(case):
    model, images, labels = case
    with pytest.raises(InputError, match="only the continuous adjoint"):
        gradients.loss_gradient(model, images, labels, 1.0, "exact", backward_tolerance=1e-6)


def test_the_error_table_has_one_row_per_method_and_time(case):
    model, images, labels = case
    found = gradients.loss_gradient(model, images, labels, 1.0)
    reference = gradients.Gradient(found.images.double(), found.parameters.double(), 0)
    data = gradients.gradient_errors(model, images, labels, [1.0], {"a": {}, "b": {"gradient": "adjoint"}},
                                     {1.0: reference})
    assert data["method"].tolist() == ["a", "b"]
    assert data.loc[0, "input_error"] == 0 and data.loc[0, "signs"] == 0
    assert data.loc[0, "cosine"] == pytest.approx(1)
    assert 0 < data.loc[1, "input_error"] < 1


def test_signs_disagree_where_they_do():
    first, second = torch.tensor([1.0, -1.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 3.0, 0.0])
    assert gradients.sign_disagreement(first, second) == 0.25


def test_the_backward_state_of_a_contraction_is_amplified_by_its_exponential():
    y0, errors = torch.full((1,), 0.5, dtype=torch.float64), {}
    for t1 in (6.0, 12.0):
        start = gradients.backward_state(lambda t, y: 1 - y, y0, t1, [], rtol=1e-6, atol=1e-6).iloc[0]
        errors[t1] = start["error"] * start["forward"]
    # exp(6) is about 400; the steps differ between the two, so only the size is right
    assert 40 < errors[12.0] / errors[6.0] < 4000


def test_backprop_keeps_memory_in_proportion_to_the_steps_and_the_adjoint_none():
    func, y0 = memory.problem()
    y0 = y0[:4].requires_grad_()
    kept = {method: [memory.kept_bytes(method, func, y0, steps) for steps in (2, 4, 8)]
            for method in memory.METHODS}
    per_step = {method: (found[2] - found[1]) / 4 for method, found in kept.items()}
    for method in ("backprop", "exact"):
        assert kept[method][1] - kept[method][0] == pytest.approx(2 * per_step[method], rel=0.01)
        assert per_step[method] > 30 * y0.numel() * 4  # four evaluations, each with several states
    assert per_step["adjoint"] == 0
    assert per_step["exact, states only"] == pytest.approx(2 * y0.numel() * 4, rel=0.6)


def test_all_ways_to_solve_give_the_same_state_and_the_exact_ones_the_same_gradient():
    func, y0 = memory.problem()
    y0 = y0[:2]
    found = {}
    for method in memory.METHODS:
        x = y0.clone().requires_grad_()
        y = memory.solve(method, func, x, 8)
        y.square().mean().backward()
        found[method] = (y.detach(), x.grad)
    for method in memory.METHODS:
        assert torch.allclose(found[method][0], found["backprop"][0], atol=1e-4)
    for method in ("exact", "exact, states only"):
        assert gradients.relative_error(found[method][1], found["backprop"][1].double()) < 1e-3
