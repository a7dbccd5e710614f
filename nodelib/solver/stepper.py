"""One Runge-Kutta step forward, and its exact reverse.

`TorchStepper` works for every dynamics that torch can differentiate. `nodelib.solver.kernel` has a stepper
with the same methods for `nodelib.networks.ODEFunc` on a CPU with a C compiler.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn

from nodelib.solver.errors import ChangedStateError, DerivativeError, InputError, RecomputationError
from nodelib.solver.tableau import Tableau

CHANGED = ("func changes the state that it is given, in place; the solver still needs it: compute from a "
           "copy (y.clone()), or leave out what works in place (y.mul_, ReLU(inplace=True))")


@dataclass
class Step:
    """An attempted step from (t, y) of size h, with what its reverse needs.

    error_ratio: norm of the error estimate over the tolerance, at most 1 for an accepted step.
    k1: derivative at (t, y), shape of y, where the method reuses that of the step before; else None.
    k: derivatives of the stages, shape (s, *y.shape); None once the step no longer needs them.
    k_next: derivative of the last stage, which opens the next step where the method reuses it.
    kept: saved activations per stage (None where a stage has none), or None to recompute them.
    outputs: pairs (index of a requested time, position x in (0, 1] inside the step).
    """

    t: float
    h: float
    y: Tensor
    k1: Any
    y_next: Tensor
    k: Any
    k_next: Any
    error_ratio: float
    kept: Any = None
    outputs: list[tuple[int, float]] = field(default_factory=list)


class TorchStepper:
    """Steps of `tableau` for `func`, evaluated and differentiated by torch.

    Args:
        func: (t, y) -> dy/dt.
        tableau: coefficients.
        params: tensors that func uses and whose gradient is wanted; empty in an attack.
        rtol, atol: tolerances of the error ratio.
        norm: tensor -> 0-dimensional tensor; None where a stepper has its own.
        seek_hidden: refuse a func that uses tensors which require gradients and are not in params, whose
            gradient would silently be missing.

    `nfe` counts evaluations of func; `bytes_per_evaluation` is the size of the activations that one
    evaluation keeps, measured at the first kept one.
    """

    def __init__(self, func: Callable, tableau: Tableau, params: Sequence[Tensor], rtol: float, atol: float,
                 norm: Callable[[Tensor], Tensor] | None, seek_hidden: bool = False) -> None:
        self.func: Any = func
        self.tableau, self.params = tableau, tuple(params)
        self.seek_hidden, self.checked = seek_hidden, False
        self.rtol, self.atol = rtol, atol
        self.norm: Any = norm
        self.nfe = 0
        self.bytes_per_evaluation: int | None = None
        self.watched: dict[str, tuple[Tensor, int]] = {}
        self._coefficients: dict[Any, Tensor] = {}

    # The solver keeps states in the stepper's own layout between these two.
    def pack(self, y: Tensor) -> Tensor:
        return y.detach().contiguous()

    def unpack(self, y: Tensor) -> Tensor:
        return y

    def evaluate(self, t: float, y: Tensor, keep: bool = False) -> tuple[Tensor, Any]:
        """Derivative at (t, y), and what `vjp` needs if `keep`."""
        self.nfe += 1
        time = torch.full((), t, dtype=y.dtype, device=y.device)  # no copy from the host, which would wait
        func, seek = self.func, False
        if not self.checked:
            # on a copy, so that the caller's state survives
            self.checked, seek, y = True, self.seek_hidden, y.clone()
            func = partial(checked_call, func, params=self.params if seek else None)
        version = _version(y)
        if not keep:
            with torch.set_grad_enabled(seek):
                k = func(time, y.detach())  # func may call requires_grad_() on what it is given
                check_derivative(k, y)
                # copied: func may write every result into one tensor of its own
                k, kept = k.detach().clone(), None
        else:
            with torch.enable_grad():
                leaf = y.detach().requires_grad_()
                if self.bytes_per_evaluation is None:
                    k, self.bytes_per_evaluation = _measure(lambda: func(time, leaf), self._held())
                else:
                    k = func(time, leaf)
            check_derivative(k, y)
            k, kept = k.detach().clone(), (leaf, k, _version(k))
        if _version(y) != version:
            raise ChangedStateError(CHANGED)
        return k, kept

    def _held(self) -> Iterator[Tensor]:
        """Tensors that func holds anyway, whether or not a graph keeps them: in an attack params are none."""
        yield from self.params
        if isinstance(self.func, nn.Module):
            yield from self.func.parameters()
            yield from self.func.buffers()

    def vjp(self, kept: Any, k_bar: Tensor, gradients: list[Tensor | None]) -> Tensor | None:
        """k_bar times the Jacobian of one evaluation; adds the parameters' share to `gradients`."""
        leaf, k, version = kept
        if not k.requires_grad:
            return None
        if _version(k) != version:
            raise DerivativeError("func writes its results into one tensor of its own, and a later call has "
                                  "replaced the graph of this one; return a copy of it, result.clone()")
        found = torch.autograd.grad(k, (leaf, *self.params), k_bar, retain_graph=True, allow_unused=True)
        for i, gradient in enumerate(found[1:]):
            if gradient is not None:
                gradients[i] = _add(gradients[i], gradient)
        return found[0]

    def powers(self, y_bar: Tensor) -> Tensor | None:
        """Factors by which cotangents may be multiplied before a reverse and divided after it, or None."""
        return None

    def finish(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """The parameters' gradients in their order, once a whole reverse is done."""
        return gradients

    def combine(self, y: Tensor, h: float, weights: Sequence[float], k: Tensor) -> Tensor:
        """y + h sum_i weights_i k_i."""
        n = len(weights)
        while n and weights[n - 1] == 0:
            n -= 1
        if n == 0:
            return y
        if n == 1:
            return torch.add(y, k[0], alpha=h * weights[0])
        vector = self._vector(weights[:n], y) * h
        return torch.addmv(y.reshape(-1), k[:n].view(n, -1).t(), vector).view(y.shape)

    def _vector(self, weights: Sequence[float], like: Tensor) -> Tensor:
        key = tuple(weights)
        if key not in self._coefficients:
            if len(self._coefficients) > 64:
                self._coefficients.clear()
            self._coefficients[key] = torch.tensor(weights, dtype=like.dtype, device=like.device)
        return self._coefficients[key]

    def step(self, t: float, y: Tensor, k1: Tensor | None, h: float, keep: bool = False,
             estimate: bool = True) -> Step:
        """Attempt one step. k1 is the derivative at (t, y) where the method reuses it, else None."""
        table = self.tableau
        k = y.new_empty((table.stages, *y.shape))
        kept: list[Any] = [None] * table.stages
        first = 0
        if table.first_same_as_last and k1 is not None:
            k[0] = k1
            first = 1
        y_next = y
        for i in range(first, table.stages):
            y_next = self.combine(y, h, table.a[i], k)
            derivative, kept[i] = self.evaluate(t + table.c[i] * h, y_next, keep)
            k[i] = derivative
        if not table.first_same_as_last:
            y_next = self.combine(y, h, table.b, k)
        ratio = self._error_ratio(y, y_next, h, k) if table.error and estimate else 0.0
        return Step(t, h, y, k1, y_next, k, derivative, ratio, kept if keep else None)

    def _error_ratio(self, y: Tensor, y_next: Tensor, h: float, k: Tensor) -> float:
        error = torch.mv(k.view(len(k), -1).t(), self._vector(self.tableau.error, y) * h).view(y.shape)
        tolerance = torch.maximum(y.abs(), y_next.abs()).mul_(self.rtol).add_(self.atol)
        return self.norm(error.div_(tolerance)).item()

    def stages(self, step: Step) -> Tensor:
        """The stage derivatives of a step that still holds them."""
        return step.k

    def dense(self, step: Step, x: float) -> Tensor:
        """State at t + x h, x in (0, 1]."""
        return step.y_next if x == 1.0 else self.combine(step.y, step.h, self.tableau.dense(x), step.k)

    def again(self, step: Step, keep: bool) -> Step:
        """The same step, taken a second time."""
        return self.step(step.t, step.y, step.k1, step.h, keep, estimate=False)

    def restore(self, step: Step) -> Any:
        """The activations of a step whose own were dropped; RecomputationError unless it ends as it did."""
        with self.repeating(step.y.device):
            found = self.again(step, keep=True)
        # recorded by autograd, some operations round otherwise (matmul, attention): then as in the solve
        if not _ends_alike(found, step) and not _ends_alike(self.again(step, keep=False), step):
            gap = max((a - b).abs().max().item() for a, b in zip(_end(found), _end(step)))
            raise RecomputationError(
                f"the step from t = {step.t:.9g}, whose activations were dropped, comes out otherwise by "
                f"{gap:.3g} when it is taken again: func is random, rounds otherwise at every call, or uses "
                "what was changed since the solve. Call backward before the change; for a random func raise "
                "memory_budget, so that no activations are dropped")
        return found.kept

    def watch(self, tensors: dict[str, Tensor]) -> None:
        """Remember func's tensors, by name, as a solve leaves them: `repeating` looks for changes since."""
        self.watched = {name: (x, _version(x)) for name, x in tensors.items()}

    @contextlib.contextmanager
    def repeating(self, device: torch.device) -> Iterator[None]:
        """Around evaluations of func that repeat those of its solve.

        What comes out may be equal where its derivative is not: at a state of zeros, weights and Dropout only
        show in the latter.

        Raises:
            RecomputationError: a tensor of func was changed in place since the solve, and is none that func
                changes itself (a running mean, a counter), or func draws from torch's generators.
        """
        before, drawn = [_version(x) for x, _ in self.watched.values()], _generators(device)
        yield
        changed = [name for (name, (x, then)), now in zip(self.watched.items(), before)
                   if then != now == _version(x)]
        if changed:
            raise RecomputationError(
                f"{changed[0]} of func was changed in place between the solve and its backward pass, which "
                "takes steps again and so would differentiate another func: call backward before the change")
        if not all(map(torch.equal, drawn, _generators(device))):
            raise RecomputationError(
                "func draws random numbers, which are others when a backward pass takes a step again: raise "
                "memory_budget, so that no activations are dropped, or draw them before the solve (a second "
                "derivative takes all steps again), or switch Dropout off by eval()")

    def reverse(self, step: Step, y_bar: Tensor | None, k_bar_last: Tensor | None,
                outputs: list[tuple[float, Tensor]],
                gradients: list[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
        """Cotangents of (y_n, k_1) from those of (y_{n+1}, k_s) and of outputs [(x, cotangent)] in the step.

        In a method whose last stage opens the next step, k_s is that step's k_1: its cotangent enters
        here once, and stage s is skipped where nothing depends on it. A None stands for zero.
        """
        table, h = self.tableau, step.h
        last = table.stages - 1
        kept = self.restore(step) if step.kept is None else step.kept
        k_bar: list[Tensor | None] = [None] * table.stages
        if table.first_same_as_last:
            k_bar[last] = k_bar_last
        y_start = None  # cotangent of y_n
        for x, cotangent in outputs:
            if x == 1.0:
                y_bar = _add(y_bar, cotangent)
                continue
            y_start = _add(y_start, cotangent)
            for i, weight in enumerate(table.dense(x)):
                k_bar[i] = _add(k_bar[i], cotangent, h * weight)
        if table.first_same_as_last and (bar := k_bar[last]) is not None:
            y_bar = _add(y_bar, self.vjp(kept[last], bar, gradients))
        for i in range(table.stages):
            k_bar[i] = _add(k_bar[i], y_bar, h * table.b[i])
        y_start = _add(y_start, y_bar)
        first = 1 if table.first_same_as_last else 0
        for i in range(last - 1 if table.first_same_as_last else last, first - 1, -1):
            if (bar := k_bar[i]) is None:
                continue
            stage_bar = self.vjp(kept[i], bar, gradients)
            y_start = _add(y_start, stage_bar)
            for j, weight in enumerate(table.a[i]):
                k_bar[j] = _add(k_bar[j], stage_bar, h * weight)
        return y_start, k_bar[0] if table.first_same_as_last else None


def _add(total: Tensor | None, value: Tensor | None, weight: float = 1.0) -> Tensor | None:
    """total + weight value, where a None stands for zero."""
    if value is None or weight == 0:
        return total
    if total is None:
        return value * weight if weight != 1.0 else value
    return torch.add(total, value, alpha=weight)


def check_derivative(k: Any, y: Tensor) -> None:
    """DerivativeError unless func's result has the state's shape and type."""
    if not isinstance(k, Tensor) or k.shape != y.shape or k.dtype != y.dtype:
        found = f"{k.dtype} {tuple(k.shape)}" if isinstance(k, Tensor) else type(k).__name__
        raise DerivativeError(f"func returns {found}; it must return the state's {y.dtype} {tuple(y.shape)}")


def checked_call(func: Callable, t: Tensor, y: Tensor, params: Sequence[Tensor] | None) -> Tensor:
    """func(t, y), its first call in a solve.

    Raises:
        ChangedStateError: func changes y.
        DerivativeError: the result has not y's shape and type.
        InputError: unless params is None, the result depends on a tensor that requires gradients and is
            neither y, nor made of it, nor in params.
    """
    before, version = y.detach().clone(), _version(y)
    try:
        k = func(t, y)
    except RuntimeError as error:
        with torch.no_grad():  # autograd forbids in its own words to change a leaf
            if y.requires_grad and _changes(func, t, before.clone()):
                raise ChangedStateError(CHANGED) from error
        raise
    # the bits too: an edit through .data changes no version
    if _version(y) != version or not torch.equal(_bits(y), _bits(before)):
        raise ChangedStateError(CHANGED)
    check_derivative(k, y)
    hidden = None if params is None else _hidden(k, (y, *params))
    if params is not None and hidden is not None and not y.requires_grad:
        # Dynamics that differentiate by their state, as a trace of their Jacobian asks for, call
        # requires_grad_() on it or its parts: leaves here, and none where the state requires gradients, as in
        # a backward pass. A second call, which no count shows, tells these from what is truly hidden.
        leaf = before.requires_grad_()
        with contextlib.suppress(RuntimeError):  # func may call numpy(): then what was found stays found
            hidden = _hidden(func(t, leaf), (leaf, *params))
    if hidden is not None:
        raise InputError(
            f"func uses a tensor of shape {tuple(hidden.shape)} that requires gradients and is not among its "
            "parameters, so that its gradient would be missing: make it an nn.Parameter of the module, name "
            "all such tensors in params, or pass params=() to leave them out (if it is made of the state, "
            "make it without detach() and no_grad())")
    return k


def _changes(func: Callable, t: Tensor, y: Tensor) -> bool:
    version = _version(y)
    try:
        func(t, y)
    except RuntimeError:
        pass
    return _version(y) != version


def _version(y: Tensor) -> int:
    return 0 if y.is_inference() else y._version


def _bits(y: Tensor) -> Tensor:
    return y.detach().resolve_neg().view(torch.int32 if y.dtype == torch.float32 else torch.int64)


def _end(step: Step) -> tuple[Tensor, Tensor]:
    return step.y_next, step.k_next


def _ends_alike(one: Step, other: Step) -> bool:
    """Whether two steps end in the same state and derivative, to the bit."""
    return all(torch.equal(_bits(a), _bits(b)) for a, b in zip(_end(one), _end(other)))


def _generators(device: torch.device) -> list[Tensor]:
    """States of torch's generators from which an evaluation on a device may draw."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _hidden(result: Tensor, known: Sequence[Tensor]) -> Tensor | None:
    """A leaf that requires gradients, reached from the result otherwise than through `known`; or None."""
    if result.grad_fn is None:
        return result if result.requires_grad and not any(result is x for x in known) else None
    seen = {x.grad_fn for x in known}
    nodes = [result.grad_fn]
    while nodes:
        node: Any = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad" and not any(node.variable is x for x in known):
            return node.variable
        nodes += [following for following, _ in node.next_functions if following is not None]
    return None


def _measure(evaluate: Callable[[], Tensor], held: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Result of `evaluate` and the bytes that its autograd graph keeps, without those of tensors held anyway.
    """
    own = {x.untyped_storage().data_ptr() for x in held}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a saved result that kept its node would be a cycle, and never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = evaluate()
    # the result itself stays alive with its graph
    storages[result.untyped_storage().data_ptr()] = result.untyped_storage().nbytes()
    return result, sum(storages.values())
