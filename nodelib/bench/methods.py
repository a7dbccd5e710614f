"""The ways to take one training step that are compared: ours, and the peers.

A method is a function Problem -> step, and step() -> list of gradients in the order of the model's
parameters. Peers are imported when they are prepared; a missing one raises ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelib.bench.cases import TOLERANCE, Problem
from nodelib.solver.integrate import MEMORY_BUDGET, odeint

Step = Callable[[], list[Tensor]]


def _torch_step(problem: Problem, solve: Callable[[Tensor], Tensor]) -> Step:
    def step() -> list[Tensor]:
        y = solve(problem.model.stem(problem.images))
        return list(torch.autograd.grad(problem.loss(y), problem.parameters()))
    return step


def ours(gradient: str = "exact", tolerance: float = TOLERANCE, budget: int = MEMORY_BUDGET,
         compiled: bool = True,
         ) -> Callable[[Problem], Step]:
    """`nodelib.solver.integrate`; the step's attribute `counts` holds (nfe, nfe_backward) of the last step.
    """
    def prepare(problem: Problem) -> Step:
        def step() -> list[Tensor]:
            solution = odeint(problem.func, problem.model.stem(problem.images), [0.0, problem.case.t1],
                              rtol=tolerance,
                              atol=tolerance, gradient=gradient, memory_budget=budget, compiled=compiled)
            found = list(torch.autograd.grad(problem.loss(solution.y[-1]), problem.parameters()))
            setattr(step, "counts", (solution.nfe, solution.nfe_backward))
            return found
        return step
    return prepare


def torchdiffeq(adjoint: bool, tolerance: float = TOLERANCE) -> Callable[[Problem], Step]:
    """torchdiffeq's dopri5, by its continuous adjoint (the post's way) or by backprop through the solver."""
    def prepare(problem: Problem) -> Step:
        import torchdiffeq

        solver = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        t = torch.tensor([0.0, problem.case.t1], device=problem.device)
        return _torch_step(problem, lambda y0: solver(problem.func, y0, t, rtol=tolerance, atol=tolerance,
                                                      method="dopri5")[-1])
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

        return step
    return prepare


METHODS: dict[str, Callable[[Problem], Step]] = {
    "exact": ours(), "exact, torch alone": ours(compiled=False),
    "torchdiffeq-adjoint": torchdiffeq(adjoint=True), "torchdiffeq-backprop": torchdiffeq(adjoint=False),
    "torchode": torchode(), "diffrax": diffrax(),
}
