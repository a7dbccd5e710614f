"""Rays and equilibria: states w with f(w) = w, and whether they attract.

In log time s = log t the scaled state w = z / t of dz/dt = f(z), with f blind to the scale of z, obeys
dw/ds = f(w) - w. Its equilibria are the straight rays z = t w. The leaky control dz/dt = f(z) - z has the
same equation in ordinary time, so everything here serves both. What f(w) means is `normalised_field`'s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodelib.dynamics.geometry import angle, norm, random_like
from nodelib.networks import ODEFunc
from nodelib.solver.errors import InputError
from nodelib.solver.integrate import odeint

LATE = 1000.0  # the eps of the first normalisation is a millionth there of what it is to w itself


def normalised_field(func: ODEFunc, smoothing: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The map w -> f(w), without the leak where func has one: (N, C, H, W) in and out.

    Plain dynamics are evaluated at z = 1000 w, where the scaled state w = z / t lies at t = `LATE`: f is
    blind to scale only up to the eps of its first normalisation, which is not small beside the entries of w.
    The states of leaky dynamics are w themselves, and are taken as they are.

    smoothing: width of the ReLU's kink, at least 0. Above 0 every relu(x) becomes (x + sqrt(x^2 +
    smoothing^2)) / 2, which is smooth and tends to it (states inside f are normalised, so 1 is wide and 1e-6
    is narrow).
    """
    if smoothing == 0:
        return (lambda w: func(0.0, w) + w) if func.leaky else (lambda w: func(0.0, LATE * w))

    smooth = lambda x: (x + torch.sqrt(x * x + smoothing * smoothing)) / 2  # noqa: E731
    return lambda w: func.layers(w if func.leaky else LATE * w, smooth)


@dataclass(frozen=True)
class Ray:
    """A solution of f(w) = w.

    w: shape (C, H, W); residual: |f(w) - w| / |w|; iterations: Newton steps taken.
    """

    w: Tensor
    residual: float
    iterations: int


@torch.no_grad()
def flow_in_log_time(func: ODEFunc, w: Tensor, log_time: float, rtol: float = 1e-5,
                     atol: float = 1e-5) -> Tensor:
    """Follow dw/ds = f(w) - w for s from 0 to `log_time`.

    Args:
        w: scaled states z / t, shape (N, C, H, W).
        log_time: above 0; multiplies the end time by its exponential.

    Returns:
        w at the end, same shape; for plain dynamics z / t, but for the eps of the first normalisation at
        times other than `LATE`.
    """
    if not (math.isfinite(log_time) and log_time > 0):
        raise InputError(f"log_time is {log_time}; it must be a finite number above 0")
    field = normalised_field(func)
    return odeint(lambda s, y: field(y) - y, w, [0.0, log_time], rtol=rtol, atol=atol, params=()).y[-1]


def solve_ray(func: ODEFunc, w: Tensor, tolerance: float = 1e-9, krylov: int = 100, smoothing: float = 1.0,
              max_steps: int = 25) -> Ray:
    """Solve f(w) = w by Newton's method with GMRES (Knoll and Keyes, 2004), continued from a smoothed f.

    Newton's method on f itself usually stalls: f has thousands of kinks, and between two of them the
    linear model leads nowhere. So the ReLUs are smoothed, widely at first, and the solution is followed as
    the width shrinks to zero; the last solve is on f itself.

    Args:
        w: start, shape (C, H, W), float64; after a flow in log time, for instance.
        tolerance: relative residual at which to stop, above 0.
        krylov: dimension of each GMRES solve.
        smoothing: first width; 0 for Newton's method on f alone.
        max_steps: Newton steps at most for each width.

    Returns:
        where the last solve, that on f itself, stopped; look at its residual, which may be above the
        tolerance: not every path reaches zero width, and one that does may end far from `w`. Many starts can
        lead to one ray, because a wide smoothing has few.

    Raises:
        ValueError: w is not float64, whose rounding the residuals below 1e-6 need.
    """
    if w.dtype != torch.float64:
        raise InputError(f"w is {w.dtype}; solving for rays needs float64: use func.double() and w.double()")
    used, width, ratio = 0, smoothing, 0.5
    accepted = w
    while width > 0:
        found = _newton(normalised_field(func, width), accepted, 1e-8, krylov, max_steps)
        used += found.iterations
        if found.residual <= 1e-8:
            accepted, ratio = found.w, ratio**1.3
            width = width * ratio if width > 1e-6 else 0.0
        elif width == smoothing or ratio > 0.97:
            break  # the path has ended; try from where it got
        else:
            width, ratio = width / ratio**0.5, ratio**0.5
    found = _newton(normalised_field(func), accepted, tolerance, krylov, max_steps)
    return Ray(found.w, found.residual, used + found.iterations)


def _newton(field: Callable[[Tensor], Tensor], w: Tensor, tolerance: float, krylov: int,
            max_steps: int) -> Ray:
    residual = lambda x: field(x[None])[0] - x  # noqa: E731
    with torch.no_grad():
        r = residual(w)
    best = float(r.norm() / w.norm())
    for step in range(max_steps):
        if best <= tolerance:
            return Ray(w, best, step)
        jacobian = _jvp_at(field, w)
        delta = _gmres(lambda v: jacobian(v) - v, -r, krylov)
        for halving in range(12):
            trial = w + 0.5**halving * delta
            with torch.no_grad():
                r_trial = residual(trial)
            reached = float(r_trial.norm() / trial.norm())
            if reached < best:
                break
        else:
            return Ray(w, best, step)
        w, r, best = trial, r_trial, reached
    return Ray(w, best, max_steps)


def leading_eigenvalue(func: ODEFunc, w: Tensor, krylov: int = 80, restarts: int = 300,
                       tolerance: float = 1e-6) -> tuple[complex, float]:
    """Eigenvalue of the Jacobian J of f at w with the largest real part, by ARPACK (restarted Arnoldi),
    from a random start that is always the same.

    A ray attracts where all real parts lie below 1. J maps everything on centred directions (no velocity
    leaves the plane <a, f> = beta), so the common drift contributes only zeros.

    Args:
        w: shape (C, H, W), float64.
        krylov: dimension of the Krylov space; restarts: at most so many.
        tolerance: relative accuracy of the eigenvalue at which to stop.

    Returns:
        the eigenvalue and its residual |J x - lambda x| for the unit eigenvector x; NaN and infinity where
        the iteration has not converged.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    jacobian = _jvp_at(normalised_field(func), w)
    operator = _operator(jacobian, w)
    try:
        values, vectors = eigs(operator, k=1, which="LR", v0=_flat(jacobian(random_like(w))),
                               ncv=min(krylov, w.numel()), maxiter=restarts, tol=tolerance)
    except ArpackNoConvergence:
        return complex(math.nan, math.nan), math.inf
    value, x = values[0], vectors[:, 0]
    image = operator.matvec(np.ascontiguousarray(x.real)) + 1j * operator.matvec(np.ascontiguousarray(x.imag))
    return complex(value), float(np.linalg.norm(image - value * x))


@torch.no_grad()
def lyapunov_exponent(func: ODEFunc, w: Tensor, log_time: float = 20.0, transient: float = 5.0,
                      interval: float = 0.5, rtol: float = 1e-3, atol: float = 1e-3) -> Tensor:
    """Largest Lyapunov exponent of dw/ds = f(w) - w, per unit of log time (Benettin et al., 1980).

    A tangent vector v, random but always the same, dv/ds = J(w) v - v, is carried along and shortened to unit
    length every `interval`; the exponent is the mean logarithmic growth after the `transient`. Negative: the
    images settle on a ray. Zero: they keep moving along a cycle. Positive: two nearly equal states part
    exponentially in log time, that is, like a power of t: chaos.

    Args:
        w: scaled states, shape (N, C, H, W); their trajectories do not interact except through the step size.
        log_time: length of the average, at least `interval`; transient: log time before it, at least 0. Both
            are rounded to multiples of `interval`, which is above 0.
        rtol, atol: loose on purpose. J jumps at every kink of a ReLU, so tight tolerances cost many steps and
            change the estimate by less than its spread over images.

    Returns:
        shape (N,). Finite-time estimates: their spread over images tells how far to trust them.
    """
    if not (interval > 0 and transient >= 0 and interval <= log_time < math.inf and transient < math.inf):
        raise InputError(f"log_time is {log_time}, transient {transient}, interval {interval}; needed are an "
                         "interval above 0, a log_time of at least that, and a transient of at least 0")
    field, v = normalised_field(func), random_like(w)
    size = norm(w)[:, None, None, None]
    n = len(w)

    def both(s: Tensor, y: Tensor) -> Tensor:
        value, product = _linearised(field, y[:n])
        return torch.cat([value, product(y[n:])]) - y

    total = torch.zeros(n, dtype=w.dtype, device=w.device)
    warm, steps = round(transient / interval), round(log_time / interval)
    for k in range(warm + steps):
        v = v * size / norm(v)[:, None, None, None]  # as long as the state, for the solver's tolerance
        y = odeint(both, torch.cat([w, v]), [0.0, interval], rtol=rtol, atol=atol, params=()).y[-1]
        w, v = y[:n], y[n:]
        if k >= warm:
            total += torch.log(norm(v) / size.flatten())
    return total / (steps * interval)


def jacobian_eigenvalues(func: ODEFunc, w: Tensor, batch: int = 256) -> Tensor:
    """All eigenvalues of the Jacobian of f at w, from the dense matrix: complex, shape (C H W,).

    For the small network (784 entries) a matter of seconds. Not for the wide or large one, whose dense
    eigenvalue problem takes an hour and more: use `leading_eigenvalue`.
    """
    size = w.numel()
    if size > 2000:
        raise InputError(f"the state has {size} entries; the dense eigenvalue problem is meant for 2000 at "
                         "most, use leading_eigenvalue")
    columns = []
    for part in torch.eye(size, dtype=w.dtype, device=w.device).split(batch):
        point = w[None].expand(len(part), *w.shape).contiguous()
        _, product = _linearised(normalised_field(func), point)
        columns.append(product(part.reshape(-1, *w.shape)).flatten(1))
    return torch.linalg.eigvals(torch.cat(columns).T)


def jacobian_norm(func: ODEFunc, y: Tensor, iterations: int = 30) -> Tensor:
    """Largest singular value of df/dy at every state, by power iteration on the product of J^T and J,
    from a random start that is always the same.

    Args:
        y: shape (N, C, H, W); the states of a batch do not interact.
        iterations: of the power method, at least 1; a lower bound that grows with them.

    Returns:
        shape (N,).
    """
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; it must be at least 1")
    v = random_like(y)
    _, product = _linearised(lambda x: func(0.0, x), y)
    with torch.enable_grad():
        point = y.detach().requires_grad_(True)
        output = func(0.0, point)
    value = torch.zeros(len(y), dtype=y.dtype, device=y.device)
    for _ in range(iterations):
        v = v / norm(v)[:, None, None, None].clamp_min(1e-300 if y.dtype == torch.float64 else 1e-30)
        forward = product(v)
        value = norm(forward)
        v, = torch.autograd.grad(output, point, forward, retain_graph=True)
    return value.detach()


def cluster(w: Tensor, degrees: float = 5.0) -> Tensor:
    """Group directions: a state joins the first earlier leader within the angle, else becomes a leader.

    Args:
        w: shape (N, C, H, W), such as centred states; order matters at the margin only.

    Returns:
        number of the group of every state, int64, shape (N,), 0 being the first.
    """
    leaders: list[int] = []
    groups = torch.empty(len(w), dtype=torch.int64)
    for i, state in enumerate(w):
        apart = angle(w[leaders], state[None])
        if leaders and apart.min() <= degrees:
            groups[i] = apart.argmin()
        else:
            groups[i] = len(leaders)
            leaders.append(i)
    return groups


def _linearised(field: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """field(y) and the product v -> J v, by differentiating the vector-Jacobian product twice.

    Ten times faster here than forward mode, whose rules for GroupNorm run in Python.
    """
    with torch.enable_grad():
        point = y.detach().requires_grad_(True)
        value = field(point)
        cotangent = torch.zeros_like(value, requires_grad=True)
        pulled, = torch.autograd.grad(value, point, cotangent, create_graph=True)
    return value.detach(), lambda v: torch.autograd.grad(pulled, cotangent, v, retain_graph=True)[0]


def _jvp_at(field: Callable[[Tensor], Tensor], w: Tensor) -> Callable[[Tensor], Tensor]:
    _, product = _linearised(field, w[None])
    return lambda v: product(v[None])[0]


def _gmres(matvec: Callable[[Tensor], Tensor], right: Tensor, size: int) -> Tensor:
    """Least-squares solution of matvec(x) = right in a Krylov space (Saad and Schultz, 1986), x0 = 0."""
    from scipy.sparse.linalg import gmres

    size = min(size, right.numel())
    x, _ = gmres(_operator(matvec, right), _flat(right), rtol=1e-12, restart=size, maxiter=1)
    return torch.from_numpy(x).to(right).view(right.shape)


def _operator(matvec: Callable[[Tensor], Tensor], like: Tensor) -> Any:
    """A linear map of tensors as scipy's LinearOperator."""
    from scipy.sparse.linalg import LinearOperator

    size = like.numel()
    return LinearOperator((size, size), dtype=_flat(like).dtype,
                          matvec=lambda v: _flat(matvec(torch.from_numpy(v).to(like).view(like.shape))))


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().flatten().cpu().numpy()
