"""Gradients through an ODE solve: exact for the computed solution, or by the continuous adjoint."""

import dataclasses
import functools
import math
from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn

from nodelib.solver.errors import (
    IntegrationError,
    NonFiniteError,
    StepLimitError,
    StepSizeUnderflowError,
    UnsupportedGradientError,
)
from nodelib.solver.forward import (
    UNDERFLOW,
    Solution,
    Solver,
    Tape,
    check_reverse,
    refuse_batches,
    rms_norm,
    uncompiled,
)
from nodelib.solver.kernel import native_stepper
from nodelib.solver.stepper import Step, checked_call
from nodelib.solver.tableau import DOPRI5, Tableau


def exact_solution(solver: Solver, y0: Tensor, params: Sequence[Tensor], memory_budget: int) -> Solution:
    """A solve whose backward reverses its accepted steps; see `odeint`, gradient="exact"."""
    record: list[Solution] = []
    y = _Exact.apply(solver, memory_budget, record, y0, *params)
    solution = record[0]
    solution.y = y
    return solution


def tensors_of(func: Callable) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name; none of any other function."""
    if not isinstance(func, nn.Module):
        return {}
    return {**dict(func.named_parameters(remove_duplicate=False)), **dict(func.named_buffers())}


def within(func: Callable, tensors: dict[str, Tensor], body: Callable[[], Any]) -> Any:
    """body(), while `func` holds these tensors: those of its solve, where it holds others by now.

    torch.func.functional_call takes the tensors that it lends to a module back before any backward pass.
    """
    if all(a is b for a, b in zip(tensors.values(), tensors_of(func).values())):
        return body()
    lent = {f"func.{name}": tensor for name, tensor in tensors.items()}
    return torch.func.functional_call(_Body(func, body), lent, ())


class _Body(nn.Module):
    def __init__(self, func: Callable, body: Callable[[], Any]) -> None:
        super().__init__()
        self.func, self.body = func, body

    def forward(self) -> Any:
        return self.body()


def as_solved(backward: Callable) -> Callable:
    """Run a backward pass `within` ctx.held, (func, its tensors in the solve)."""
    @functools.wraps(backward)
    def call(ctx, *bars):
        func, tensors = ctx.held
        return within(func, tensors, lambda: backward(ctx, *bars))

    return call


class _Exact(torch.autograd.Function):
    """The exact discrete adjoint (Hager, 2000): step sizes are constants, the steps are differentiated.

    Its state is the tape of accepted steps. Backward may run again (retain_graph) from the same tape,
    for instance once per requested time, and starts at the last time whose cotangent is not zero.
    """

    @staticmethod
    def forward(ctx, solver, memory_budget, record, y0, *params):
        solution, ctx.tape = solver.solve(y0, params, keep_bytes=memory_budget)
        ctx.counts, ctx.held = solution.backward_counts, (solver.func, tensors_of(solver.func))
        ctx.tape.stepper.watch(ctx.held[1])
        record.append(solution)
        # detects parameters that changed in place between forward and backward
        ctx.save_for_backward(y0, *params)
        return solution.y

    @staticmethod
    @uncompiled
    @as_solved
    def backward(ctx, y_bar):
        check_reverse(y_bar)
        y0, *params = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: a gradient of this gradient may follow
            return None, None, None, *_Reverse.apply(ctx.tape, ctx.counts, ctx.held, y_bar, y0, *params)
        y0_bar, found = reverse(ctx.tape, y_bar, ctx.counts)
        return None, None, None, y0_bar, *found


class _Reverse(torch.autograd.Function):
    """`reverse` as a function of cotangents, y0 and parameters, for a gradient of a gradient.

    Its backward replays the accepted steps by torch's operations, the whole solve in one graph: the memory
    of a plain backpropagation twice over, whatever the memory budget.
    """

    @staticmethod
    def forward(ctx, tape, counts, held, y_bar, y0, *params):
        ctx.tape, ctx.counts, ctx.held = tape, counts, held
        ctx.save_for_backward(y_bar, y0, *params)
        ctx.set_materialize_grads(False)
        y0_bar, found = reverse(tape, y_bar, counts)
        return y0_bar, *found

    @staticmethod
    @uncompiled
    @as_solved
    def backward(ctx, *bars):
        check_reverse(*(bar for bar in bars if bar is not None))
        if torch.is_grad_enabled():
            raise UnsupportedGradientError(
                "a third derivative of a solve is not available here; nest torch.func.grad, or for a second "
                "one give create_graph=True to the first call of torch.autograd.grad alone")
        y_bar, y0, *params = ctx.saved_tensors
        stepper = ctx.tape.stepper
        with torch.enable_grad(), stepper.repeating(y0.device):
            # leaves: y0 may depend on params, whose share through y0 is the caller's graph's to add
            y_bar, start = (x.detach().requires_grad_() for x in (y_bar, y0))
            y = replay(stepper.func, stepper.tableau, start, ctx.tape.steps, len(y_bar))
            first = torch.autograd.grad(y, (start, *params), y_bar, create_graph=True, allow_unused=True)
            pairs = [(f, bar) for f, bar in zip(first, bars)
                     if bar is not None and f is not None and f.requires_grad]
            if not pairs:
                return (None,) * (5 + len(params))
            outputs, cotangents = zip(*pairs)
            found = torch.autograd.grad(outputs, (y_bar, start, *params), cotangents, allow_unused=True)
        # each, its vector-Jacobian product, and one product for either
        ctx.counts.append(4 * evaluations(stepper.tableau, len(ctx.tape.steps)))
        return None, None, None, *found


def replayed_solution(solver: Solver, y0: Tensor) -> Solution:
    """A solve that torch's own transforms differentiate (torch.func, forward mode), as often as they like.

    Its steps are found without derivatives and taken again, their sizes constant, by torch's operations: the
    same solution and the same exact gradient, for the memory of a plain backpropagation and without kernels.
    Every tensor that func uses is differentiated, whatever `params` of `odeint` says.
    """
    def field(t: Tensor, y: Tensor) -> Tensor:
        k = solver.func(t, y)
        refuse_batches(y, *([k] if isinstance(k, Tensor) else ()))
        return k

    plain = dataclasses.replace(solver, func=field, compiled=False, seek_hidden=False)
    with torch.no_grad(), torch.autograd.forward_ad._set_fwd_grad_enabled(False):
        solution, tape = plain.solve(y0.detach(), keep_bytes=-1)
    assert tape is not None
    tableau = tape.stepper.tableau
    solution.y = replay(solver.func, tableau, y0, tape.steps, len(solver.times))
    solution.nfe += evaluations(tableau, len(tape.steps))
    return solution


def evaluations(tableau: Tableau, steps: int) -> int:
    """Of func, in so many accepted steps."""
    reused = int(tableau.first_same_as_last)
    return (tableau.stages - reused) * steps + reused


def replay(func: Callable, tableau: Tableau, y0: Tensor, steps: Sequence[Step], count: int) -> Tensor:
    """The states at `count` requested times by accepted steps of constant sizes, by torch's operations."""
    states, y, k_last = [y0] * count, y0, None
    for step in steps:
        k: list[Tensor] = []
        for row, node in zip(tableau.a, tableau.c):
            if not row and k_last is not None and tableau.first_same_as_last:
                k.append(k_last)
                continue
            stage = _combine(y, step.h, row, k)
            k.append(func(torch.full((), step.t + node * step.h, dtype=y.dtype, device=y.device), stage))
        for i, x in step.outputs:
            states[i] = _combine(y, step.h, tableau.b if x == 1.0 else tableau.dense(x), k)
        y, k_last = _combine(y, step.h, tableau.b, k), k[-1]
    return torch.stack(states)


def _combine(y: Tensor, h: float, weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    for weight, derivative in zip(weights, k):
        if weight:
            y = torch.add(y, derivative, alpha=h * weight)
    return y


def reverse(tape: Tape, y_bar: Tensor, counts: list[int]) -> tuple[Tensor, list[Tensor | None]]:
    """Cotangents of y0 and of the parameters from those of the states at all times, shape (T, *y0.shape)."""
    stepper = tape.stepper
    before = stepper.nfe
    gradients: list[Tensor | None] = [None] * len(stepper.params)
    used = y_bar.reshape(len(y_bar), -1).any(1).tolist()  # a state may have no dimensions
    powers = stepper.powers(y_bar)
    if powers is not None:
        y_bar = y_bar * powers
    state_bar, k_bar, products = None, None, 0
    for step in reversed(tape.steps):
        outputs = [(x, stepper.pack(y_bar[i])) for i, x in step.outputs if used[i]]
        if state_bar is None and k_bar is None and not outputs:
            continue
        state_bar, k_bar = stepper.reverse(step, state_bar, k_bar, outputs, gradients)
        products += stepper.tableau.stages - (1 if stepper.tableau.first_same_as_last else 0)
    if k_bar is not None:
        start_bar = stepper.vjp(tape.start, k_bar, gradients)
        products += 1
        if start_bar is not None:
            state_bar = start_bar if state_bar is None else state_bar + start_bar
    y0_bar = y_bar[0].clone()
    if state_bar is not None:
        y0_bar = y0_bar + stepper.unpack(state_bar)
    if powers is not None:
        y0_bar = y0_bar / powers
    gradients = stepper.finish(gradients)
    counts.append(products + stepper.nfe - before)
    return y0_bar, gradients


def adjoint_solution(solver: Solver, y0: Tensor, params: Sequence[Tensor], anchors: int = 0) -> Solution:
    """A solve whose backward is the continuous adjoint, restored at `anchors` more times if above 0.

    Adaptive steps have states between their ends, fixed ones do not: there the starts of steps nearest to
    the anchors are restored. Neither changes the steps.
    """
    if complex_ones := [p.dtype for p in params if p.is_complex()]:
        raise UnsupportedGradientError(
            f"params holds a tensor of {complex_ones[0]}, and the continuous adjoint solves for gradients of "
            "real numbers: use gradient='exact'")
    wanted = solver.times
    if anchors and solver.method == "dopri5":
        times = {*wanted, *anchor_times(wanted[0], wanted[-1], anchors)}
        solver.times, anchors = sorted(times, reverse=solver.direction < 0), 0
    record: list[Any] = []
    y = _ContinuousAdjoint.apply(solver, anchors, record, y0, *params)
    solution, times = record
    index = [times.index(time) for time in wanted]
    solution.t, solution.y = torch.tensor(wanted, dtype=torch.float64), y[index]
    return solution


def anchor_times(start: float, end: float, count: int) -> list[float]:
    """`count` times from `start` on, log-spaced over the last three decades of the interval, `end` the last.

    Steps of these dynamics grow in proportion to t, so equal ratios hold equal numbers of steps.
    """
    length = end - start
    return [start + length * 10 ** (-3 * (1 - i / count)) for i in range(1, count)] + [end]


def _refuse_graph(y_bar: Tensor) -> None:
    """Raise where a backward pass is to be differentiated in its turn: its result would be a constant."""
    if torch.is_grad_enabled():
        raise UnsupportedGradientError(
            "create_graph=True is not available with the continuous adjoint; for a gradient of a gradient "
            "use gradient='exact' or 'torchdiffeq-backprop'")


class _ContinuousAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, solver, anchors, record, y0, *params):
        solution, tape = solver.solve(y0, params, keep_bytes=0 if anchors else None)
        times, y = solver.times, solution.y
        if tape is not None:
            times, y = _with_anchors(times, y, tape, anchors)
        ctx.solver, ctx.times, ctx.counts = solver, times, solution.backward_counts
        ctx.held = solver.func, tensors_of(solver.func)
        record += [solution, times]
        ctx.save_for_backward(y, *params)
        return y.clone()

    @staticmethod
    @uncompiled
    @as_solved
    def backward(ctx, y_bar):
        check_reverse(y_bar)
        _refuse_graph(y_bar)
        y, *params = ctx.saved_tensors
        solver = ctx.solver
        a, params_bar, nfe = continuous_adjoint(
            solver.func, ctx.times, y, y_bar, params, rtol=solver.rtol, atol=solver.atol, norm=solver.norm,
            max_steps=solver.max_steps, method=solver.method, step_size=solver.step_size,
            compiled=solver.compiled)
        ctx.counts.append(nfe)
        return None, None, None, a, *params_bar


def _with_anchors(times: list[float], y: Tensor, tape: Tape, count: int) -> tuple[list[float], Tensor]:
    """Times and states, with those of the steps that start nearest to `count` anchors."""
    states = dict(zip(times, y))
    starts = {step.t: step.y for step in tape.steps}
    for anchor in anchor_times(times[0], times[-1], count):
        nearest = min(starts, key=lambda t: abs(t - anchor))
        states.setdefault(nearest, tape.stepper.unpack(starts[nearest]))
    times = sorted(states, reverse=times[-1] < times[0])
    return times, torch.stack([states[t] for t in times])


def continuous_adjoint(func: Callable, times: Sequence[float], y: Tensor, y_bar: Tensor,
                       params: Sequence[Tensor],
                       **settings) -> tuple[Tensor, list[Tensor], int]:
    """Gradients by one augmented solve, from the last time back, of state, adjoint and parameter gradient.

        dy/dt = f(t, y),   da/dt = -a df/dy,   dg/dt = -a df/dtheta

    (Chen et al., 2018, equations 4 and 5, algorithm 1), with a = dL/dy and g = dL/dtheta.

    Args:
        func: (t, y) -> dy/dt; times: increasing or decreasing, T of them.
        y, y_bar: states at these times and dL/dy of each as a direct argument of L, (T, *y0.shape).
        params: tensors of func to differentiate; settings: rtol, atol, norm, max_steps, method, step_size and
            compiled of `odeint`, max_steps for all intervals of times together: the compiled kernels give f
            and a df/dy where they apply and no parameter is asked for, as in an attack.

    Returns:
        dL/dy0, [dL/dtheta], and the number of evaluations of the augmented dynamics.

    The state is solved again backwards, which undoes a contraction and so diverges at long end times:
    compare gradient="exact".
    """
    norm, compiled, nfe, spent = settings.pop("norm"), settings.pop("compiled", False), 0, 0
    sizes = [y[0].numel()] * 2 + [p.numel() for p in params]
    stepper: Any = None
    # the norm does not depend on the kernels' order of pixels and channels
    if compiled and not params and norm is rms_norm:
        stepper = native_stepper(func, y[0], DOPRI5, (), settings["rtol"], settings["atol"])
    if stepper is not None:
        y, y_bar = (torch.stack([stepper.pack(each) for each in states]) for states in (y, y_bar))

    def split(z):
        return z.split(sizes)

    def augmented(t, z):
        state, a, *_ = split(z)
        with torch.enable_grad():
            state = state.detach().view(y[0].shape).requires_grad_()
            f = func(t, state)
            if not f.requires_grad:  # depends on neither the state nor params
                return torch.cat([f.reshape(-1), z.new_zeros(sum(sizes[1:]))])
            # func may hold tensors made of its parameters once for all evaluations: their graph must stay
            found = torch.autograd.grad(f, (state, *params), -a.view(f.shape), retain_graph=True,
                                        allow_unused=True)
        # a parameter may have another precision than the state, of which func's result is
        grads = [z.new_zeros(n) if g is None else g.reshape(-1).to(z.dtype)
                 for g, n in zip(found, sizes[1:])]
        return torch.cat([f.detach().reshape(-1), *grads])

    def by_kernel(t, z):
        state, a = (part.view(y[0].shape) for part in split(z))
        f, kept = stepper.evaluate(t, state, keep=True)
        return torch.cat([f.view(-1), -stepper.vjp(kept, a, []).view(-1)])

    def mixed(z):  # the largest norm of the parts, as torchdiffeq has it; `norm` is one of states
        state, a, *rest = split(z)
        return torch.stack([norm(state.view(y[0].shape)), norm(a.view(y[0].shape)),
                            *(rms_norm(part) for part in rest if part.numel())]).max()

    a, gradient = y_bar[-1], y.new_zeros(sum(sizes[2:]))
    for i in range(len(times) - 1, 0, -1):
        z = torch.cat([y[i].reshape(-1), a.reshape(-1), gradient])  # y[i]: the state of the forward solve
        with torch.no_grad():
            solver = Solver(augmented if stepper is None else by_kernel, [times[i], times[i - 1]], norm=mixed,
                            compiled=False, spent=spent, **settings)
            solution, _ = solver.solve(z)
        spent += solution.accepted + solution.rejected
        _, a, gradient = solution.y[-1].split([*sizes[:2], sum(sizes[2:])])
        a = a.view(y[0].shape) + y_bar[i - 1]
        nfe += solution.nfe
    if stepper is not None:
        a = stepper.unpack(a)
    return a, [g.view(p.shape).to(p.dtype) for g, p in zip(gradient.split(sizes[2:]), params)], nfe


class _Counted(nn.Module):
    # odeint_adjoint finds parameters, and torchdiffeq finds callbacks, through the module it is given
    def __init__(self, solver: Solver, solution: Solution, hidden_beside: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.func, self.solution, self.hidden_beside = solver.func, solution, hidden_beside
        self.checked, self.held = False, tensors_of(solver.func)
        self.max_steps, self.direction, self.attempts = solver.max_steps, solver.direction, 0
        self.counts: list[int] | None = None  # of the backward solve, once the forward one is done

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.counts is None:
            self.solution.nfe += 1
        else:
            self.counts[-1] += 1
        if self.checked:
            return within(self.func, self.held, lambda: self.func(t, y))
        self.checked = True
        seek = self.hidden_beside is not None  # the adjoint solves without a graph, by which to look
        with torch.set_grad_enabled(seek or torch.is_grad_enabled()):
            k = checked_call(self.func, t, y.clone(), self.hidden_beside)
        return k.detach() if seek else k

    def callback_step(self, t: Tensor, y: Tensor | tuple[Tensor, ...], h: Tensor) -> None:
        """Before each attempted step: the limit that torchdiffeq lacks, and what it would assert next."""
        backwards = self.counts is not None
        start, size = t.item(), h.item() * (-self.direction if backwards else self.direction)
        if self.solution.first_step is None:
            self.solution.first_step = size
        parts = (y,) if isinstance(y, Tensor) else y  # the adjoint's solve has (., y, dL/dy, ...)
        error: type[IntegrationError] | None = None
        if self.attempts == self.max_steps:
            error = StepLimitError
            message = f"max_steps = {self.max_steps} steps are spent; raise it, or loosen the tolerances"
        elif size == 0 or not all(bool(torch.isfinite(part).all()) for part in parts):
            # torchdiffeq goes on from an error ratio that is not finite with a step of 0
            error = NonFiniteError
            what = "gradient" if backwards else "norm"
            message = (f"the state, the derivative func(t, y) or a {what} is NaN or infinite; check func and "
                       "y0, or start with a smaller step")
        elif start + size == start:
            error, message = StepSizeUnderflowError, UNDERFLOW
        if error is not None:
            state = parts[1] if backwards else parts[0]
            raise error(message, start, size, float(rms_norm(state.detach())))
        self.attempts += 1

    callback_step_adjoint = callback_step

    def begin_backward(self, y_bar: Tensor) -> None:
        check_reverse(y_bar)
        _refuse_graph(y_bar)
        assert self.counts is not None  # the forward solve is done
        self.counts.append(0)
        self.attempts = 0

    def callback_accept_step(self, t: Tensor, y: Tensor, h: Tensor) -> None:
        self.solution.steps.append((t.item(), self.direction * h.item(), math.nan))

    def callback_reject_step(self, t: Tensor, y: Tensor, h: Tensor) -> None:
        self.solution.rejected_steps.append((t.item(), self.direction * h.item(), math.nan))


def torchdiffeq_solution(solver: Solver, y0: Tensor, params: Sequence[Tensor], gradient: str) -> Solution:
    """The reference: torchdiffeq's solve and gradient. Error ratios are not available there (NaN)."""
    import torchdiffeq

    solution = Solution(torch.tensor(solver.times, dtype=torch.float64), y0)
    seek = solver.seek_hidden and gradient == "torchdiffeq-adjoint"
    func = _Counted(solver, solution, tuple(params) if seek else None)
    t = torch.tensor(solver.times, dtype=torch.float64, device=y0.device)
    options = {"rtol": solver.rtol, "atol": solver.atol, "method": "dopri5",
               "options": {"norm": solver.norm, "first_step": solver.first_step}}
    if gradient == "torchdiffeq-adjoint":
        y = torchdiffeq.odeint_adjoint(func, y0, t, adjoint_params=tuple(params), adjoint_options={},
                                       **options)
        if y.requires_grad:
            y.register_hook(func.begin_backward)
        solution.y = y
    else:
        solution.y = torchdiffeq.odeint(func, y0, t, **options)
    if gradient == "torchdiffeq-adjoint":
        func.solution, func.counts = Solution(solution.t, y0), solution.backward_counts
    return solution
