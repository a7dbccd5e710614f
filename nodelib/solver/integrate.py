"""Solve dy/dt = func(t, y): adaptive Dormand-Prince 5(4), and fixed steps, with a choice of gradients."""

import math
from collections.abc import Iterable
from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn

from nodelib.solver.adjoints import adjoint_solution, exact_solution, replayed_solution, torchdiffeq_solution
from nodelib.solver.errors import (
    InputError,
    StateTypeError,
    TimesError,
    ToleranceError,
    UnsupportedGradientError,
    check_choice,
    check_flag,
    check_whole,
    is_number,
    plain,
)
from nodelib.solver.forward import (
    FIXED,
    Solution,
    Solver,
    checked_norm,
    differentiated,
    refuse_batches,
    refuse_tracing,
    rms_norm,
    transforming,
    uncompiled,
)
from nodelib.solver.tuples import Flat

METHODS = ("dopri5", *FIXED)
GRADIENTS = ("exact", "adjoint", "anchored", "torchdiffeq-backprop", "torchdiffeq-adjoint")
MEMORY_BUDGET = 2 * 2**30  # bytes of kept activations


@uncompiled
def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Tensor | tuple[Tensor, ...],
    t: Tensor | Sequence[float],
    *,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    method: str = "dopri5",
    gradient: str = "exact",
    params: Sequence[Tensor] | None = None,
    step_size: float | None = None,
    first_step: float | None = None,
    max_steps: int = 10_000,
    memory_budget: int = MEMORY_BUDGET,
    norm: Callable[[Any], Tensor] = rms_norm,
    anchors: int = 20,
    compiled: bool = True,
) -> Solution:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, and return the states at all times in t.

    "dopri5" is the adaptive method of Dormand and Prince (1980) with the tableau, error norm, step
    controller, first step (Hairer, Norsett and Wanner, 1993, section II.4) and dense output of
    torchdiffeq 0.2.5: at equal tolerances it takes the same steps. Like there, the solver steps past a
    requested time and interpolates, so that asking for more times never changes the steps. The accepted
    error of a step satisfies norm(error / (atol + rtol max(|y_n|, |y_{n+1}|))) <= 1.

    Args:
        func: (t, y) -> dy/dt, with t a 0-dimensional tensor of y's type and dy/dt of y's shape and type. In
            float32 a time of 1e7 or more has lost its fractions: where func depends on it, count time from
            t[0], or use float64. func may differentiate by y or its parts itself (torch.enable_grad,
            requires_grad_, create_graph=True), as continuous normalising flows do for the trace of a
            Jacobian.
        y0: initial state, float32 or float64, any shape; an empty one gives empty states with nfe 0. Or a
            tuple of tensors of one type: func then takes and returns tuples, and `norm` takes them.
        t: times, at least two, finite, increasing or decreasing; t[0] is the initial time. Two equal times
            return the state unchanged with nfe 0, its gradient by params zero.
        rtol, atol: relative and absolute tolerance per step, above 0 (state units; fixed methods ignore
            them).
        method: "dopri5", or a fixed-step method: "euler", "rk4" (classical), "dopri5-fixed". These
            divide every interval of t into equal steps no longer than `step_size` and hit each time exactly.
        gradient: what `backward` computes.
            "exact": the gradient of the computed solution, by reversing the accepted steps with their
                sizes held constant (the first included). What an attacker of this very model needs. The one
                that can be differentiated again (create_graph=True), by torch alone: the second backward
                keeps the whole solve's graph.
            "adjoint": a second solve, of the continuous adjoint, backwards in time (Chen et al., 2018,
                algorithm 1), by the same method. It approximates the gradient of the true flow, and fails at
                long end times.
            "anchored": the same with the state restored at `anchors` log-spaced times (with fixed steps at
                the starts of the steps nearest to them).
            "torchdiffeq-backprop", "torchdiffeq-adjoint": torchdiffeq's own, as references.
            Neither kind is the other: the solution's gradient differs from the flow's by the
            discretisation error, which only a tighter tolerance reduces.
        params: tensors inside func to differentiate; by default func.parameters(). Those that do not
            require gradients cost nothing, and one named twice counts once. Inside torch.func every tensor
            that func uses is differentiated.
        step_size: longest step of the fixed methods, above 0, which need it; dopri5 refuses it.
        first_step: first step of dopri5, above 0; chosen automatically if None. Fixed methods refuse it.
        max_steps: most attempted steps of the whole solve, at least 1; as many again of every backward pass
            that solves an adjoint.
        memory_budget: bytes of activations that "exact" may keep, 0 or more; the others ignore it. Accepted
            steps beyond it keep only their states and are recomputed one at a time: slower, the same
            gradient; a func that does not return to the bit what it did in the solve (Dropout, weights or
            buffers changed since) is refused by a RecomputationError.
        norm: state -> 0-dimensional tensor of 0 or more, for the error ratio, which "euler" and "rk4" lack:
            by default the root mean square over all entries, of a tuple the largest of its tensors'.
        anchors: number of restored times of "anchored", at least 1; the others ignore it.
        compiled: allow the compiled kernels where they apply (`nodelib.solver.kernel`). From tolerances of
            1e-4 on they convolve by minimal filtering, which rounds to some 3e-6 of f instead of 1e-6; below,
            like torch.

    Returns:
        Solution.

    Raises:
        TimesError, ToleranceError, StateTypeError, DerivativeError, ChangedStateError: bad input.
        NonFiniteError, StepSizeUnderflowError, StepLimitError: the integration failed; each says where.
        RecomputationError: in a backward pass of "exact" that takes steps again, beyond memory_budget or for
            a second derivative: func is random, or was changed since the solve.
        UnsupportedGradientError: inside torch.func or forward-mode differentiation for all but "exact"; in a
            backward pass with create_graph=True for "adjoint", "anchored" and "torchdiffeq-adjoint"; for
            complex params with "adjoint" and "anchored"; for a third derivative outside torch.func; where a
            transform is around the backward pass and not the solve; over a batch of vmap, and in what traces
            a function (linearize).
        InputError: unknown method or gradient, an argument of another type, a step_size for dopri5 or a
            first_step for fixed methods; norm returns what is no 0-dimensional tensor of 0 or more; func uses
            tensors that require gradients and are not in `params`, as its first call shows (not looked for
            where `params` are given, or without gradients).

    Do not use it for stiff problems (the step size collapses: StepSizeUnderflowError or StepLimitError) or
    for gradients with respect to times. Inside torch.func (grad, vjp, jvp, jacrev, jacfwd, hessian) and
    forward-mode differentiation a solve with "exact" takes its accepted steps a second time, by torch's
    operations, which are what is differentiated: no kernel, the whole solve in memory. torch.compile leaves
    a solve as it is and compiles what is around it; within torch.autocast a solve is in float32.
    """
    refuse_tracing()
    check_arguments({"func": func, "norm": norm}, {"rtol": rtol, "atol": atol, "step_size": step_size,
                                                  "first_step": first_step})
    compiled = check_flag("compiled", compiled)
    rtol, atol, step_size, first_step, max_steps, memory_budget, anchors = map(
        plain, (rtol, atol, step_size, first_step, max_steps, memory_budget, anchors))
    if isinstance(y0, tuple):
        flat = Flat(func, y0)
        over = flat.largest_rms if norm is rms_norm else lambda y: norm(flat.split(y))
        solution = odeint(flat, flat.join(y0), t, rtol=rtol, atol=atol, method=method, gradient=gradient,
                          params=params, step_size=step_size, first_step=first_step, max_steps=max_steps,
                          memory_budget=memory_budget, norm=over, anchors=anchors, compiled=compiled)
        solution.y = flat.split(solution.y)
        return solution
    times = _check_times(t)
    _check_state(y0)
    check_settings(rtol, atol, method, gradient, step_size, first_step, max_steps, memory_budget, anchors)
    grid = torch.tensor(times, dtype=torch.float64)
    if times[0] == times[-1] or y0.numel() == 0:
        return Solution(grid, _unmoved(y0, len(times), _parameters(func, params)))
    seek_hidden = params is None and torch.is_grad_enabled()
    params = _parameters(func, params)
    differentiate = torch.is_grad_enabled() and (y0.requires_grad or bool(params))
    solver = Solver(func, times, rtol=rtol, atol=atol, method=method, step_size=step_size,
                    first_step=first_step,
                    max_steps=max_steps, norm=_check_norm(norm), compiled=compiled, seek_hidden=seek_hidden)
    if transforming():
        if gradient != "exact":
            raise UnsupportedGradientError(
                f"gradient={gradient!r} is not available inside torch.func or forward-mode differentiation; "
                "use gradient='exact' there, or torch.autograd.grad")
        return replayed_solution(solver, y0)
    if gradient.startswith("torchdiffeq"):
        return torchdiffeq_solution(solver, y0, params, gradient)
    if not differentiate:
        solution, _ = solver.solve(y0)
        return solution
    if gradient == "exact":
        return exact_solution(solver, y0, params, memory_budget)
    return adjoint_solution(solver, y0, params, anchors if gradient == "anchored" else 0)


def check_arguments(functions: dict[str, object], numbers: dict[str, object]) -> None:
    """InputError for a function that is none, ToleranceError for a number that requires gradients; by name.
    """
    for name, value in functions.items():
        if not callable(value):
            raise InputError(f"{name} is {value!r}; it must be a function")
    for name, value in numbers.items():
        if differentiated(value):
            raise ToleranceError(f"{name} requires gradients, which are not computed; pass {name}.detach()")


def check_constant(times: Sequence[object]) -> None:
    """TimesError if a time requires gradients, UnsupportedGradientError if it is one of vmap's batches: a
    number read from it would be a constant, in silence.
    """
    refuse_batches(*(x for x in times if isinstance(x, Tensor)))
    if any(map(differentiated, times)):
        raise TimesError("the times require gradients, which are not computed; pass t.detach()")


def _check_times(t: Tensor | Sequence[float]) -> list[float]:
    if isinstance(t, (str, bytes)) or not (isinstance(t, Tensor) or isinstance(t, Iterable)):
        raise TimesError(f"the times are {t!r}; needed are the initial time and those after it, such as "
                         f"[0.0, {t!r}]")
    given: list[Any] = [t] if isinstance(t, Tensor) else list(t)
    check_constant(given)
    shape = tuple(getattr(t, "shape", (0,)))
    if len(shape) != 1:
        raise TimesError(f"the times have shape {shape}; needed is one dimension: the initial time and those "
                         "after it, such as [0.0, 1.0]")
    times: list[Any] = t.tolist() if isinstance(t, Tensor) else given
    for i, value in enumerate(times):
        try:
            times[i] = float(value + 0)  # which texts refuse, and tensors without dimensions do not
        except (TypeError, ValueError, RuntimeError):
            raise TimesError(f"time {i} is {value!r}; all times must be numbers") from None
    if len(times) < 2:
        raise TimesError(f"{len(times)} time given; at least two are needed, the initial time first")
    for i, value in enumerate(times):
        if not math.isfinite(value):
            raise TimesError(f"time {i} is {value}; all times must be finite (use a large end time for a "
                             "limit)")
    if not math.isfinite(times[-1] - times[0]):
        raise TimesError(f"the times reach from {times[0]:.9g} to {times[-1]:.9g}, further than a number of "
                         "double precision; use smaller ones")
    for before, after in zip(times, times[1:]):
        ahead = after < before if times[1] < times[0] else after > before
        if not ahead and not (len(times) == 2 and after == before):
            raise TimesError(f"time {after:.9g} follows {before:.9g}; times must increase strictly, or "
                             "decrease strictly to integrate backwards")
    return times


def _check_norm(norm: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The norm, with its results looked at where it is not one of ours, or so already."""
    ours = norm is rms_norm or isinstance(getattr(norm, "__self__", None), Flat)
    return norm if ours else checked_norm(norm)


def _check_state(y0: Tensor) -> None:
    if not isinstance(y0, Tensor):
        raise StateTypeError(f"the state is a {type(y0).__name__}; it must be a torch tensor or a tuple of "
                             "them")
    if y0.dtype not in (torch.float32, torch.float64):
        raise StateTypeError(f"the state is {y0.dtype}; it must be float32 or float64 (half precision cannot "
                             "hold the error estimate): use y0.float()")


def _check_step(name: str, step: float | None) -> None:
    if step is not None and not (is_number(step) and step > 0):
        raise ToleranceError(f"{name} is {step!r}; it must be a finite number above 0")


def check_settings(rtol: float, atol: float, method: str, gradient: str, step_size: float | None = None,
                   first_step: float | None = None, max_steps: int = 1, memory_budget: int = 0,
                   anchors: int = 1) -> None:
    """InputError for an unknown method or gradient, two that do not go together, or a step that the method
    would ignore; ToleranceError for a tolerance, step or count out of its range, or a step size that the
    method lacks. Ranges: see `odeint`.
    """
    check_choice("method", method, METHODS)
    if method in FIXED and step_size is None:
        raise ToleranceError(f"method {method!r} needs a step_size above 0")
    _check_step("step_size", step_size)
    check_choice("gradient", gradient, GRADIENTS)
    if gradient.startswith("torchdiffeq") and method != "dopri5":
        raise InputError(f"method is {method!r}; torchdiffeq's gradients are offered for 'dopri5' only")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (is_number(value) and value > 0):
            raise ToleranceError(f"{name} is {value!r}; it must be a finite number above 0, such as 1e-3")
    _check_step("first_step", first_step)
    if method not in FIXED and step_size is not None:
        raise InputError(f"step_size is {step_size:g} with {method}, which chooses its own; leave it out, "
                         "give a method of fixed steps, such as 'rk4', or give `odeint` a first_step")
    if method in FIXED and first_step is not None:
        raise InputError(f"first_step is {first_step:g} with {method}, whose steps are all of one size; "
                         "leave it out, or give 'dopri5' as the method")
    for name, count, least in (("max_steps", max_steps, 1), ("memory_budget", memory_budget, 0),
                               ("anchors", anchors, 1)):
        check_whole(name, count, least, ToleranceError)


def _unmoved(y0: Tensor, count: int, params: Sequence[Tensor]) -> Tensor:
    """The state `count` times, shape (count, *y0.shape), by whose gradient that of params is zero."""
    y = y0.unsqueeze(0).expand(count, *y0.shape).clone()
    if not params:
        return y
    # joined to none of their entries, and not added to zero times their sum, which changes -0.0 and is NaN
    # for an infinite one
    nothing = [p.reshape(-1)[:0].to(y) for p in params]
    return torch.cat([y.reshape(-1), *nothing]).view(y.shape)


def _parameters(func: Callable, params: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    given: Any = params
    if params is None:
        given = func.parameters() if isinstance(func, nn.Module) else ()
    given = tuple(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else (given,)
    if foreign := [p for p in given if not isinstance(p, Tensor)]:
        raise InputError(f"params holds {foreign[0]!r}; it must be a sequence of tensors, or None for those "
                         "of func")
    # by identity: of a tensor that is named twice, autograd would add the gradient twice
    return tuple({id(p): p for p in given if p.requires_grad}.values())
