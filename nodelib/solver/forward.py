"""Stepping through time: adaptive Dormand-Prince 5(4) and fixed steps, and the tape that a reverse needs."""

import contextlib
import functools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from nodelib.solver.errors import (
    InputError,
    NonFiniteError,
    StepLimitError,
    StepSizeUnderflowError,
    UnsupportedGradientError,
)
from nodelib.solver.kernel import native_stepper
from nodelib.solver.stepper import Step, TorchStepper
from nodelib.solver.tableau import DOPRI5, EULER, RK4

FIXED = {"euler": EULER, "rk4": RK4, "dopri5-fixed": DOPRI5}

AUTOCAST = ("cpu", "cuda", "mps", "xpu")  # kinds of device that torch.autocast knows
# The controller of torchdiffeq's dopri5: h_next = h min(10, max(0.9 ratio^(-1/5), 0.2 or, once accepted, 1))
SAFETY, GROWTH, SHRINKAGE = 0.9, 10.0, 0.2
UNDERFLOW = ("the step size underflows: t + h equals t; the problem may be stiff or singular here, or the "
             "tolerance beyond the state's precision")


@dataclass
class Solution:
    """States at the requested times, and the record of how they were found.

    t: requested times, float64, shape (T,); y: states, shape (T, *y0.shape), y[0] = y0, differentiable; where
        y0 is a tuple, a tuple of such tensors.
    nfe: evaluations of func in the forward solve; nfe_backward: those and the vector-Jacobian products
        of all backward passes so far; None where none was counted: before the first, where there is nothing
        to solve, and always with "torchdiffeq-backprop", whose passes run through torch's own graph.
    steps, rejected_steps: (t, step size, error ratio) of every accepted and rejected step; sizes are negative
        where times decrease.
    first_step: the first step size tried, of dopri5; None for fixed methods, whose sizes `steps` tells, and
        where there is nothing to solve.
    """

    t: Tensor
    y: Tensor | tuple[Tensor, ...]
    nfe: int = 0
    steps: list[tuple[float, float, float]] = field(default_factory=list)
    rejected_steps: list[tuple[float, float, float]] = field(default_factory=list)
    first_step: float | None = None
    # one entry per backward pass; backward holds this list and not the solution, which would be a cycle
    backward_counts: list[int] = field(default_factory=list)

    @property
    def nfe_backward(self) -> int | None:
        return sum(self.backward_counts) if self.backward_counts else None

    @property
    def accepted(self) -> int:
        return len(self.steps)

    @property
    def rejected(self) -> int:
        return len(self.rejected_steps)

    @property
    def step_times(self) -> list[float]:
        """Start times of the accepted steps."""
        return [t for t, _, _ in self.steps]

    @property
    def step_sizes(self) -> list[float]:
        return [h for _, h, _ in self.steps]


def rms_norm(x: Tensor) -> Tensor:
    """Root mean square over all elements, the batch included (torchdiffeq's norm)."""
    return x.pow(2).mean().sqrt()


def checked_norm(norm: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """A user's norm, each of whose results is looked at: state -> 0-dimensional tensor, 0 or more.

    Raises:
        InputError: it returns anything else, or NaN of a state that is finite. (Infinity is an overflow,
            which rejects the step, and a state that is not finite has an error of its own.)
    """
    def call(y: Any) -> Tensor:
        value = norm(y)
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            found = type(value).__name__
            if isinstance(value, Tensor):
                found = f"{value.dtype} {tuple(value.shape)}"
            raise InputError(f"norm returns {found}; it must return one number for the whole state, a "
                             "0-dimensional tensor, such as y.abs().max()")
        parts = y if isinstance(y, tuple) else (y,)
        if not value >= 0 and all(bool(torch.isfinite(part).all()) for part in parts):
            raise InputError(f"norm returns {value.item()} of a state that is finite; it must return 0 or "
                             "more, such as y.abs().max()")
        return value

    return call


def uncompiled(function: Callable) -> Callable:
    """Run `function` as it is where torch.compile or torch.autocast is around it.

    As torch.compiler.disable, whose import takes a second, but only where a compiler is there at all. Within
    autocast it computes in single precision, as half precision cannot hold the error estimate.
    """
    @functools.wraps(function)
    def exactly(*args, **kwargs):
        active = [kind for kind in AUTOCAST if torch.is_autocast_enabled(kind)]
        if not active:
            return function(*args, **kwargs)
        with contextlib.ExitStack() as stack:
            for kind in active:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*map(_single, args), **{name: _single(value) for name, value in kwargs.items()})

    @functools.wraps(function)
    def call(*args, **kwargs):
        if "torch._dynamo" not in sys.modules:
            return exactly(*args, **kwargs)
        return torch.compiler.disable(exactly)(*args, **kwargs)

    return call


def _single(value: Any) -> Any:
    """Half-precision tensors, those in a tuple too, in single precision; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(_single, value))
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


@dataclass
class Solver:
    """A checked problem without its initial state; `solve` runs it.

    spent: attempted steps, of max_steps, that went into what was solved before as a part of the same.
    """

    func: Callable[[Tensor, Tensor], Tensor]
    times: list[float]
    rtol: float
    atol: float
    method: str = "dopri5"
    step_size: float | None = None
    first_step: float | None = None
    max_steps: int = 10_000
    spent: int = 0
    norm: Callable[[Tensor], Tensor] = rms_norm
    compiled: bool = True
    seek_hidden: bool = False

    @property
    def direction(self) -> int:
        """1 for increasing times, -1 for decreasing ones: the sign of every step size."""
        return 1 if self.times[-1] > self.times[0] else -1

    def stepper(self, y0: Tensor, params: Sequence[Tensor] = ()) -> TorchStepper:
        """The stepper for this state; the compiled one where it applies."""
        table = FIXED.get(self.method, DOPRI5)
        if self.compiled and self.norm is rms_norm:
            found = native_stepper(self.func, y0, table, params, self.rtol, self.atol)
            if found is not None:
                return found
        return TorchStepper(self.func, table, params, self.rtol, self.atol, self.norm, self.seek_hidden)

    def solve(self, y0: Tensor, params: Sequence[Tensor] = (), keep_bytes: int | None = None,
              ) -> tuple[Solution, "Tape | None"]:
        """Integrate. With keep_bytes, also return the tape of accepted steps that the reverse needs."""
        stepper = self.stepper(y0, params)
        tape = None if keep_bytes is None else Tape(stepper, keep_bytes)
        solution = Solution(torch.tensor(self.times, dtype=torch.float64), y0)
        y = stepper.pack(y0)
        states = [y]
        if self.method == "dopri5":
            self._adaptive(stepper, y, solution, states, tape)
        else:
            self._fixed(stepper, y, solution, states, tape)
        solution.y = torch.stack([y0.detach()] + [stepper.unpack(state) for state in states[1:]])
        solution.nfe = stepper.nfe
        return solution, tape

    def _begin(self, stepper: TorchStepper, y: Tensor, tape: "Tape | None") -> Any:
        """The derivative at the start, for methods in which a step's last stage opens the next, or None."""
        if not stepper.tableau.first_same_as_last:
            return None
        k, kept = stepper.evaluate(self.times[0], y, keep=tape is not None and tape.budget >= 0)
        if tape is not None:
            tape.start = kept
        return k

    def _adaptive(self, stepper: TorchStepper, y: Tensor, solution: Solution, states: list[Tensor],
                  tape: "Tape | None") -> None:
        t, end, direction = self.times[0], self.times[-1], self.direction
        k = self._begin(stepper, y, tape)
        if self.first_step is None:
            h = initial_step(stepper, t, y, k, self.rtol, self.atol, self.norm, direction)
        else:
            h = direction * self.first_step
        solution.first_step = h
        i = 1  # the next requested time
        for _ in range(self.max_steps - self.spent):
            if t + h == t:
                raise StepSizeUnderflowError(UNDERFLOW, t, h, self._norm(stepper, y))
            step = stepper.step(t, y, k, h, keep=tape is not None and tape.has_room())
            ratio = step.error_ratio
            if not math.isfinite(ratio):
                self._check_finite(step, stepper)
            if ratio <= 1:
                solution.steps.append((t, h, ratio))
                t_next = t + h
                while i < len(self.times) and direction * (t_next - self.times[i]) >= 0:
                    x = 1.0 if self.times[i] == t_next else (self.times[i] - t) / (t_next - t)
                    step.outputs.append((i, x))
                    states.append(stepper.dense(step, x))
                    i += 1
                step.k = None
                t, y, k = t_next, step.y_next, step.k_next
                if tape is not None:
                    tape.append(step)
                if direction * (t - end) >= 0:
                    return
            else:
                solution.rejected_steps.append((t, h, ratio))
            h = next_step_size(h, ratio)
        raise StepLimitError(f"max_steps = {self.max_steps} steps end before t = {end:.9g} is reached; raise "
                             "max_steps, loosen the tolerances, or use a method for stiff "
                             "problems", t, h, self._norm(stepper, y))

    def _fixed(self, stepper: TorchStepper, y: Tensor, solution: Solution, states: list[Tensor],
               tape: "Tape | None") -> None:
        total: float = self.spent
        longest = math.inf if self.step_size is None else self.step_size
        k = self._begin(stepper, y, tape)
        for i in range(1, len(self.times)):
            start, stop = self.times[i - 1], self.times[i]
            # an integer quotient must not gain a step by rounding
            quotient = abs(stop - start) / longest * (1 - 1e-12)
            total += max(1, math.ceil(quotient)) if math.isfinite(quotient) else math.inf
            if total > self.max_steps:
                raise StepLimitError(f"{total} steps of at most {longest:.3g} exceed max_steps = "
                                     f"{self.max_steps}; raise either", start, longest,
                                     self._norm(stepper, y))
            count = max(1, math.ceil(quotient))
            h = (stop - start) / count
            for j in range(count):
                t = start + j * h
                if t + h == t:
                    raise StepSizeUnderflowError("the step size underflows: t + h equals t; use a longer "
                                                 "step_size", t,
                                                 h, self._norm(stepper, y))
                step = stepper.step(t, y, k, h, keep=tape is not None and tape.has_room())
                if not bool(torch.isfinite(step.y_next).all()):
                    self._check_finite(step, stepper)
                solution.steps.append((t, h, step.error_ratio))
                step.k = None
                y, k = step.y_next, (step.k_next if stepper.tableau.first_same_as_last else None)
                if j == count - 1:
                    step.outputs.append((i, 1.0))
                    states.append(y)
                if tape is not None:
                    tape.append(step)

    def _norm(self, stepper: TorchStepper, y: Tensor) -> float:
        return float(rms_norm(stepper.unpack(y)))

    def _check_finite(self, step: Step, stepper: TorchStepper) -> None:
        """Raise if the state or a stage is not finite. An overflow of the norm alone only rejects the step.
        """
        for name, value in (("derivative func(t, y)", stepper.stages(step)), ("state", step.y_next)):
            if not bool(torch.isfinite(value).all()):
                raise NonFiniteError(f"the {name} is NaN or infinite; check func and y0, or start with a "
                                     "smaller step", step.t, step.h, self._norm(stepper, step.y))


class Tape:
    """Accepted steps in order, with activations kept up to a budget in bytes (below 0: none, ever).

    One step's activations are reserved for recomputing, so that the peak stays within the budget as
    long as it holds at least one step.
    """

    def __init__(self, stepper: TorchStepper, budget: int) -> None:
        self.stepper, self.budget = stepper, budget
        self.steps: list[Step] = []
        self.start: object = None
        self.used = 0

    def step_bytes(self) -> int:
        """Size of the activations of one step."""
        table = self.stepper.tableau
        stages = table.stages - (1 if table.first_same_as_last else 0)
        return stages * (self.stepper.bytes_per_evaluation or 0)

    def has_room(self) -> bool:
        return self.used + 2 * self.step_bytes() <= self.budget

    def append(self, step: Step) -> None:
        if not self.has_room():  # the first evaluation of all tells the size of its activations
            step.kept = None
        if step.kept is not None:
            self.used += self.step_bytes()
        self.steps.append(step)


def initial_step(stepper: TorchStepper, t: float, y: Tensor, k: Tensor, rtol: float, atol: float,
                 norm: Callable[[Tensor], Tensor], direction: int = 1) -> float:
    """First step size after Hairer, Norsett and Wanner (1993), section II.4, as in torchdiffeq; the sign is
    that of `direction`.
    """
    scale = y.abs().mul_(rtol).add_(atol)
    d0, d1 = torch.stack([norm(y / scale), norm(k / scale)]).tolist()
    for what, value, size in (("initial state y0", y, d0), ("derivative func(t, y0)", k, d1)):
        if not math.isfinite(size):
            of = "norm of the " if bool(torch.isfinite(value).all()) else ""
            raise NonFiniteError(f"the {of}{what} is NaN or infinite", t, 0.0, size)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    k_probe, _ = stepper.evaluate(t + direction * h0, torch.add(y, k, alpha=direction * h0))
    d2 = norm((k_probe - k).div_(scale)).item() / h0
    if not math.isfinite(d2):
        raise NonFiniteError("the derivative func(t, y) is NaN or infinite", t + direction * h0,
                             direction * h0, d2)
    if d1 <= 1e-15 and d2 <= 1e-15:
        h1 = max(1e-6, h0 * 1e-3)
    else:
        h1 = (0.01 / max(d1, d2)) ** (1 / 5)
    return direction * min(100 * h0, h1)


def next_step_size(h: float, ratio: float) -> float:
    """Step size after one with this error ratio; one that is infinite or NaN, as the norm overflows, shrinks
    it as far as any.
    """
    if not math.isfinite(ratio):
        return h * SHRINKAGE  # by the rule below, too, but for a NaN, of which min and max make the growth
    if ratio == 0:
        return h * GROWTH
    return h * min(GROWTH, max(SAFETY / ratio**0.2, 1.0 if ratio < 1 else SHRINKAGE))


def transforming() -> bool:
    """Whether a transform of torch.func, or forward-mode differentiation, is around this call."""
    forward = torch.autograd.forward_ad._current_level >= 0
    return forward or torch._C._functorch.maybe_current_level() is not None


def refuse_tracing() -> None:
    """Raise where what runs is recorded and not computed, so that no number can be read."""
    level = torch._C._functorch.peek_interpreter_stack()
    recording = {type(mode).__name__ for mode in _get_current_dispatch_mode_stack()}
    if (recording & {"ProxyTorchDispatchMode", "FakeTensorMode", "FunctionalTensorMode"}
        or level is not None and level.key() == torch._C._functorch.TransformType.Functionalize):
        raise UnsupportedGradientError(
            "a solve cannot be traced (torch.func.linearize and functionalize, make_fx, torch.export), for "
            "its steps depend on the numbers of the state: use torch.func.jvp, or torch.compile, which "
            "leaves a solve as it is")


def refuse_batches(*tensors: Tensor) -> None:
    """Raise if a tensor is one of vmap's batches, from which step control cannot read a number."""
    functorch = torch._C._functorch
    if any(functorch.is_legacy_batchedtensor(x) or any(map(functorch.is_batchedtensor, _layers(x)))
           for x in tensors):
        raise UnsupportedGradientError(
            "a solve cannot run over a batch of vmap, nor its reverse over batched cotangents "
            "(vectorize=True, is_grads_batched=True): give the batch as y0's first dimension, or loop")


def check_reverse(*bars: Tensor) -> None:
    """Raise where a reverse cannot run: over batches, or inside a transform that its solve stood outside."""
    refuse_batches(*bars)
    if transforming():
        raise UnsupportedGradientError(
            "torch.func and forward-mode differentiation cannot transform the gradient of a solve that "
            "stands outside; let the solve, with gradient='exact', stand inside the transformed function")


def differentiated(x: object) -> bool:
    """Whether a derivative by x is asked for, by autograd or a transform around this call."""
    return isinstance(x, Tensor) and any(
        each.requires_grad or torch.autograd.forward_ad.unpack_dual(each).tangent is not None
        for each in _layers(x))


def _layers(x: Tensor) -> Iterator[Tensor]:
    """A tensor, and those that transforms have wrapped, the outermost first."""
    yield x
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
        yield x
