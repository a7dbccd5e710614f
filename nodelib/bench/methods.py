"""The ways to take one training or attack step that are compared: ours, and the peers.

A method is a function Problem -> `Step`. Peers are imported when they are prepared; a missing one raises
ImportError.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelib.bench.cases import TOLERANCE, Problem
from nodelib.experiment._torchvision import import_torchvision
from nodelib.solver.integrate import MEMORY_BUDGET, odeint

Counts = dict[str, int]


@dataclass(frozen=True)
class Step:
    """Take it by calling it: gradients in the order of `Problem.wanted`.

    counts() takes one more and counts evaluations of the dynamics in the forward pass (nfe), in the backward
    pass (nfe_backward), and vector-Jacobian products; None where they cannot be counted.
    """

    take: Callable[[], list[Tensor]]
    counts: Callable[[], Counts | None]

    def __call__(self) -> list[Tensor]:
        return self.take()


def _torch_step(problem: Problem, solve: Callable[[Tensor], Tensor]) -> Step:
    def step() -> list[Tensor]:
        y = solve(problem.model.stem(problem.images))
        return list(torch.autograd.grad(problem.loss(y), problem.wanted()))

    def counts() -> Counts:
        func, products = problem.func, [0]

        def product(bar: Tensor) -> None:
            products[0] += 1

        def called(module: Any, arguments: Any, result: Tensor) -> None:
            if result.requires_grad:
                result.register_hook(product)

        func.nfe, handle = 0, func.register_forward_hook(called)
        try:
            loss = problem.loss(solve(problem.model.stem(problem.images)))
            forward = func.nfe
            torch.autograd.grad(loss, problem.wanted())
        finally:
            handle.remove()
        return {"nfe": forward, "nfe_backward": func.nfe - forward, "products": products[0]}

    return Step(step, counts)


def ours(gradient: str = "exact", tolerance: float = TOLERANCE, budget: int = MEMORY_BUDGET,
         compiled: bool = True) -> Callable[[Problem], Step]:
    """`nodelib.solver.integrate`."""
    def prepare(problem: Problem) -> Step:
        counted: Counts = {}

        def step() -> list[Tensor]:
            solution = odeint(problem.func, problem.model.stem(problem.images), [0.0, problem.case.t1],
                              rtol=tolerance, atol=tolerance, gradient=gradient, memory_budget=budget,
                              compiled=compiled)
            found = list(torch.autograd.grad(problem.loss(solution.y[-1]), problem.wanted()))
            if gradient == "exact":  # of what is kept nothing is evaluated again
                counted.update(nfe=solution.nfe, nfe_backward=0, products=solution.nfe_backward)
            return found

        def counts() -> Counts | None:
            step()
            return counted or None

        return Step(step, counts)
    return prepare


def torchdiffeq(adjoint: bool, tolerance: float = TOLERANCE, weights_too: bool = False,
                machine_code: bool = False) -> Callable[[Problem], Step]:
    """torchdiffeq's dopri5, by its continuous adjoint (the post's way) or by backprop through the solver.

    weights_too: the adjoint carries the parameters' gradients along where only the images' is wanted, as
    loss.backward() does for an attacker who does not switch them off. machine_code: f by torch.compile.
    """
    def prepare(problem: Problem) -> Step:
        import torchdiffeq as library

        if weights_too:
            problem = copy.copy(problem)
            problem.model = copy.deepcopy(problem.model).requires_grad_()
        solver = library.odeint_adjoint if adjoint else library.odeint
        t = torch.tensor([0.0, problem.case.t1], device=problem.device)
        func = _machine_code(problem.func) if machine_code else problem.func
        step = _torch_step(problem, lambda y0: solver(func, y0, t, rtol=tolerance, atol=tolerance,
                                                      method="dopri5")[-1])
        # machine code runs no hooks
        return Step(step, torchdiffeq(adjoint, tolerance)(problem).counts) if machine_code else step
    return prepare


def _machine_code(func: Any) -> Callable[[Any, Tensor], Tensor]:
    """The dynamics by torch.compile (inductor), without their counter of calls, which would compile anew."""
    def dynamics(y: Tensor) -> Tensor:
        x = func.norm0(y)
        for i in range(1, 5):
            x = getattr(func, f"norm{i}")(getattr(func, f"conv{i}")(torch.relu(x)))
        return x

    compiled = torch.compile(dynamics, dynamic=False)
    return lambda t, y: compiled(y)


def rk4(steps: int, by_torchdiffeq: bool) -> Callable[[Problem], Step]:
    """The Runge-Kutta method of order 4 with `steps` equal steps, by backprop or reversed exactly."""
    def prepare(problem: Problem) -> Step:
        h, times = problem.case.t1 / steps, [0.0, problem.case.t1]

        def solve(y0: Tensor) -> Tensor:
            if not by_torchdiffeq:
                return odeint(problem.func, y0, times, method="rk4", step_size=h).y[-1]
            import torchdiffeq
            return torchdiffeq.odeint(problem.func, y0, y0.new_tensor(times), method="rk4",
                                      options={"step_size": h})[-1]

        return _torch_step(problem, solve)
    return prepare


def torchdyn() -> Callable[[Problem], Step]:
    """torchdyn's dopri5 with backprop (Poli et al., 2020)."""
    def prepare(problem: Problem) -> Step:
        import_torchvision()  # which torchdyn's dependencies import
        from torchdyn.numerics import odeint as solve

        t = torch.tensor([0.0, problem.case.t1], device=problem.device)
        return _torch_step(problem, lambda y0: solve(problem.func, y0, t, solver="dopri5", atol=TOLERANCE,
                                                     rtol=TOLERANCE)[1][-1])
    return prepare


def torchode() -> Callable[[Problem], Step]:
    """torchode's Dopri5 with its integral controller and backprop; it steps every sample on its own."""
    def prepare(problem: Problem) -> Step:
        import torchode as to

        def solve(y0: Tensor) -> Tensor:
            shape, n = y0.shape, len(y0)
            term = to.ODETerm(lambda t, y: problem.func(t, y.view(shape)).reshape(n, -1))
            solver = to.AutoDiffAdjoint(to.Dopri5(term=term),
                                        to.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term))
            times = torch.full((n,), problem.case.t1, device=problem.device)
            initial = to.InitialValueProblem(y0=y0.reshape(n, -1), t_start=torch.zeros_like(times),
                                             t_end=times)
            return solver.solve(initial).ys[:, -1].view(shape)

        return _torch_step(problem, solve)
    return prepare


def diffrax() -> Callable[[Problem], Step]:
    """diffrax's Dopri5, jitted, with its default adjoint (recursive checkpointing).

    Stem in torch, everything after it in JAX on the same weights; the loss's gradient in y0 returns to torch.
    """
    def prepare(problem: Problem) -> Step:
        import diffrax as dfx
        import jax
        import jax.numpy as jnp

        model, groups = problem.model, problem.func.norm0.num_groups
        named = dict(model.named_parameters())
        late = [name for name in named if name.startswith(("block.", "linear."))]
        early = [name for name in named if name not in late]

        def norm(p: dict, i: int, x: Any) -> Any:
            n, c, h, w = x.shape
            z = x.reshape(n, groups, -1)
            z = (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + problem.func.norm0.eps)
            scale, offset = (p[f"block.func.norm{i}.{part}"][:, None, None] for part in ("weight", "bias"))
            return z.reshape(n, c, h, w) * scale + offset

        def dynamics(t: Any, y: Any, p: dict) -> Any:
            x = norm(p, 0, y)
            for i in range(1, 5):
                x = jax.lax.conv_general_dilated(jax.nn.relu(x), p[f"block.func.conv{i}.weight"], (1, 1),
                                                 "SAME")
                x = norm(p, i, x)
            return x

        def loss(y0: Any, p: dict, labels: Any) -> Any:
            y = dfx.diffeqsolve(dfx.ODETerm(dynamics), dfx.Dopri5(), 0.0, problem.case.t1, None, y0, p,
                                stepsize_controller=dfx.PIDController(rtol=TOLERANCE, atol=TOLERANCE)).ys[0]
            logits = y.reshape(len(y), -1) @ p["linear.weight"].T + p["linear.bias"]
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))

        def step() -> list[Tensor]:
            y0 = model.stem(problem.images)
            p = {name: jnp.asarray(named[name].detach().cpu().numpy()) for name in late}
            y_bar, p_bar = jax.block_until_ready(
                gradient(jnp.asarray(y0.detach().cpu().numpy()), p,
                         jnp.asarray(problem.labels.cpu().numpy())))
            # copies, since arrays of JAX cannot be written to
            found = {name: torch.from_numpy(np.array(bar)) for name, bar in p_bar.items()}
            first = torch.autograd.grad(y0, [named[name] for name in early],
                                        torch.from_numpy(np.array(y_bar)).to(y0))
            return [{**found, **dict(zip(early, first))}[name] for name in named]

        return Step(step, lambda: None)
    return prepare


METHODS: dict[str, Callable[[Problem], Step]] = {
    "exact": ours(), "exact, torch alone": ours(compiled=False),
    "torchdiffeq-adjoint": torchdiffeq(adjoint=True), "torchdiffeq-backprop": torchdiffeq(adjoint=False),
    "torchdiffeq-compile": torchdiffeq(adjoint=False, machine_code=True), "torchode": torchode(),
    "torchdyn": torchdyn(), "diffrax": diffrax(),
}
# of the images alone
ATTACKS: dict[str, Callable[[Problem], Step]] = {
    "exact": ours(), "exact, torch alone": ours(compiled=False),
    "torchdiffeq-adjoint": torchdiffeq(adjoint=True),
    "torchdiffeq-adjoint, weights too": torchdiffeq(adjoint=True, weights_too=True),
    "torchdiffeq-backprop": torchdiffeq(adjoint=False), "torchode": torchode(),
}
