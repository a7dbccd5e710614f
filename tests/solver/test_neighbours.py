"""What a solve meets in other people's programs: copies, forked workers, mixed precision, compilers."""

import contextlib
import copy
import os
import pickle
import shutil

import pytest
import torch
from problems import Contraction
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from nodelib.networks import ODEBlock, ODEFunc, ODENet
from nodelib.solver.integrate import GRADIENTS, odeint


def network(**settings):
    torch.manual_seed(0)
    return ODENet(16, 7, **settings).eval()


def learned(model, images):
    """Gradients of all parameters."""
    model.zero_grad()
    model(images).square().mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=["deepcopy", "pickle"])
def test_a_trained_network_is_copied_with_all_it_knows_and_shares_nothing(duplicate):
    model, images = network(), torch.rand(2, 1, 28, 28)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    learned(model, images)
    optimiser.step()
    expected = learned(model, images)
    copied = duplicate(model)
    assert all(torch.equal(a, b) for a, b in zip(learned(copied, images), expected))
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(learned(copied, images), expected))
    assert not torch.equal(model(images), copied(images))


class Solving(nn.Module):
    """A module that solves by dynamics of its own."""

    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, y0, **settings):
        return odeint(self.func, y0, [0.0, 1.0], **settings).y[-1]


@pytest.mark.parametrize("settings, second", [
    *((settings, second) for second in (False, True) for settings in (
        {}, {"memory_budget": 0}, {"compiled": False}, {"compiled": False, "memory_budget": 0})),
    *(({"gradient": gradient}, False) for gradient in GRADIENTS[1:]),
], ids=str)
def test_tensors_lent_for_a_call_are_those_that_are_differentiated_after_it(settings, second):
    torch.manual_seed(0)
    module, y0 = Solving(ODEFunc(16)), 0.1 * torch.randn(2, 16, 7, 7)
    others = {name: torch.randn_like(p).requires_grad_() for name, p in module.named_parameters()}
    owner = copy.deepcopy(module)
    owner.load_state_dict({name: tensor.detach() for name, tensor in others.items()})

    def gradients(y, tensors):
        found = torch.autograd.grad(y.square().mean(), tensors, create_graph=second)
        return torch.autograd.grad(found[0].square().sum(), tensors) if second else found

    found = gradients(torch.func.functional_call(module, others, (y0,), settings), tuple(others.values()))
    expected = gradients(owner(y0, **settings), tuple(owner.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert not torch.equal(module.func.conv1.weight, owner.func.conv1.weight)  # given back


@contextlib.contextmanager
def double_precision_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("settings", [{}, {"compiled": False, "memory_budget": 0}, {"gradient": "adjoint"}],
                         ids=str)
@pytest.mark.parametrize("surroundings", [
    double_precision_by_default, lambda: torch.device("meta"), torch.autograd.graph.save_on_cpu,
], ids=["default type", "default device", "saved tensors elsewhere"])
def test_what_torch_is_told_around_a_solve_changes_no_bit_of_it(surroundings, settings):
    torch.manual_seed(0)
    func, y0 = ODEFunc(16), torch.randn(2, 16, 7, 7, requires_grad=True)

    def solve():
        y = odeint(func, y0, [0.0, 0.4, 1.0], **settings).y  # one time within a step
        return y.detach(), *torch.autograd.grad(y.square().sum(), (y0, *func.parameters()))

    expected = solve()
    with surroundings():
        found = solve()
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_block_within_a_checkpoint_learns_as_without(reentrant):
    model, images = network(), torch.rand(2, 1, 28, 28)
    expected = learned(model, images)
    block = model.block.forward
    model.block.forward = lambda *inputs: checkpoint(block, *inputs, use_reentrant=reentrant)
    assert all(torch.equal(a, b) for a, b in zip(learned(model, images), expected))


class Solved(Dataset):
    """Final states, solved and differentiated by whoever asks for one."""

    def __init__(self, func, y0):
        self.func, self.y0 = func, y0

    def __len__(self):
        return len(self.y0)

    def __getitem__(self, i):
        leaf = self.y0[i:i + 1].clone().requires_grad_()
        odeint(self.func, leaf, [0.0, 1.0]).y[-1].square().sum().backward()
        return leaf.grad[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_workers_of_a_data_loader_solve_where_their_parent_used_several_threads():
    torch.manual_seed(0)
    data = Solved(ODEFunc(16), torch.randn(4, 16, 7, 7))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = torch.stack([data[i] for i in range(len(data))])
        loader = DataLoader(data, batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=120)
        found = torch.cat(list(loader))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)  # one sample is one thread's, however many there are


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [{}, {"compiled": False}, {"compiled": False, "memory_budget": 0},
                                      *({"gradient": gradient} for gradient in GRADIENTS[1:-1])], ids=str)
def test_a_solve_within_autocast_is_that_of_single_precision(settings, half):
    torch.manual_seed(0)
    func, y0 = ODEFunc(16), torch.randn(2, 16, 7, 7).to(half)

    def solve(y0):
        y0 = y0.detach().requires_grad_()
        solution = odeint(func, y0, [0.0, 1.0], **settings)
        return solution, torch.autograd.grad(solution.y.square().sum(), (y0, *func.parameters()))

    expected, gradients = solve(y0.float())
    with torch.autocast("cpu", half):
        solution, found = solve(y0)
    assert solution.y.dtype == torch.float32 and torch.equal(solution.y, expected.y)
    assert found[0].dtype == half and torch.equal(found[0], gradients[0].to(half))
    assert all(torch.equal(a, b) for a, b in zip(found[1:], gradients[1:]))


def test_half_precision_without_autocast_is_the_callers_mistake():
    with pytest.raises(TypeError, match="float32 or float64"):
        odeint(ODEFunc(16), torch.randn(2, 16, 7, 7, dtype=torch.bfloat16), [0.0, 1.0])


def test_a_network_within_autocast_learns_as_if_its_block_were_outside():
    model, images = network(), torch.rand(4, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        found = learned(model, images)
        model.zero_grad()
        y0 = model.stem(images)
        with torch.autocast("cpu", enabled=False):
            y = model.block(y0.float())
        model.head(y).square().mean().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(found, model.parameters()))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_network_compiled_to_machine_code_learns_as_it_does_in_python():
    torch.manual_seed(0)
    # smooth dynamics: a compiler rounds in its own way, and at random weights a ReLU makes much of that
    block = ODEBlock(Contraction(), t1=2.0)
    model = nn.Sequential(nn.Linear(6, 6).double(), nn.Tanh(), block, nn.Linear(6, 3).double())
    inputs = torch.randn(4, 6, dtype=torch.float64)
    expected = learned(model, inputs)
    found = learned(torch.compile(model), inputs)
    assert block.nfe > 0 and block.nfe_backward > 0
    torch.testing.assert_close(found, expected)


class Reads(TorchDispatchMode):
    """Counts the numbers read out of tensors: on an accelerator, each waits for all that was asked before."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"method": "rk4", "step_size": 0.05}], ids=str)
def test_a_solve_reads_one_number_a_step_and_its_reverse_none(settings):
    def reads(end, **more):
        func, y0 = Contraction(), torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
        with Reads() as forward:
            solution = odeint(func, y0, [0.0, end], **settings, **more)
        with Reads() as backward:
            solution.y.sum().backward()
        return solution.accepted + solution.rejected, forward.count, backward.count

    (few, forward, backward), (many, forward_more, backward_more) = reads(1.0), reads(30.0)
    assert many - few > 5
    assert forward_more - forward == many - few and backward_more == backward
