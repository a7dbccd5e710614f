"""Where an adaptive solver puts its steps, and what the dynamics do there."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nodelib.solver.integrate import Solution, odeint, rms_norm
from nodelib.solver.stepper import TorchStepper
from nodelib.solver.tableau import DOPRI5


def attempts(solution: Solution) -> pd.DataFrame:
    """Every step a solve tried, in order: t, h, error ratio, accepted."""
    rows = [(*step, True) for step in solution.steps] + [(*step, False) for step in solution.rejected_steps]
    rows.sort(key=lambda row: (row[0], -row[1]))  # a rejected step is tried again from t with a smaller h
    return pd.DataFrame(rows, columns=["t", "h", "ratio", "accepted"])


def local_error(func: Callable, t: float, y: Tensor, h: float) -> float:
    """Root mean square of Dormand and Prince's error estimate h |sum_i e_i k_i| for one step of size h.

    y: float64, since in float32 the estimate of a small step is rounding noise; h: above 0.
    """
    stepper = TorchStepper(func, DOPRI5, (), 1.0, 1.0, rms_norm)
    k1, _ = stepper.evaluate(t, y)
    step = stepper.step(t, y, k1, h, estimate=False)
    return float(rms_norm(h * torch.tensordot(torch.tensor(DOPRI5.error, dtype=y.dtype), step.k, 1)))


def step_profile(func: Callable, y0: Tensor, t1: float, *, rtol: float = 1e-3, atol: float = 1e-3,
                 probe: float = 0.1) -> pd.DataFrame:
    """One row per accepted step of dopri5 from 0 to t1, with the dynamics at the step's start.

    Columns: t, h (accepted step size), error (`local_error` of a step of size `probe`), rate
    (|f'| / |f|, the rate at which the velocity changes along the path, by central differences),
    speed (|f|, root mean square).

    func: (t, y) -> dy/dt; y0: one initial state, float64; probe: above 0.
    """
    with torch.no_grad():
        first = odeint(func, y0, (0.0, t1), rtol=rtol, atol=atol)
        times = first.step_times
        # asking for more times never changes the steps
        states = odeint(func, y0, (*times, t1), rtol=rtol, atol=atol).y if times else y0[None]
        rows = []
        for t, h, y in zip(times, first.step_sizes, states):
            # float32 would round t by more than the difference below at large t
            at = torch.tensor(t, dtype=y.dtype)
            f = func(at, y)
            small = 1e-5
            change = (func(at + small, y + small * f) - func(at - small, y - small * f)) / (2 * small)
            rows.append({"t": t, "h": h, "error": local_error(func, t, y, probe),
                         "rate": float(change.norm() / f.norm()), "speed": float(rms_norm(f))})
    return pd.DataFrame(rows)


def rank_correlations(profile: pd.DataFrame) -> dict[str, float]:
    """Spearman correlation of the step size with error, rate and speed, over one trajectory's steps."""
    ranks = profile.rank()
    return {name: float(ranks["h"].corr(ranks[name])) for name in ("error", "rate", "speed")}


def correlations(func: Callable, y0: Tensor, t1: float, tolerances: Sequence[float]) -> pd.DataFrame:
    """`rank_correlations` of every initial state at every tolerance, one state per solve.

    Args:
        func: (t, y) -> dy/dt; y0: N initial states, float64, (N, ...); t1: end time; tolerances: rtol = atol.

    Returns:
        one row per state and tolerance: image (its number), t1, tolerance, error, rate, speed, and late_rate,
        that without the first third of the steps, in which the controller grows from a cautious start.
    """
    rows = []
    for tolerance in tolerances:
        for i in range(len(y0)):
            profile = step_profile(func, y0[i : i + 1], t1, rtol=tolerance, atol=tolerance)
            late = rank_correlations(profile.iloc[len(profile) // 3:])
            rows.append({"image": i, "t1": t1, "tolerance": tolerance, **rank_correlations(profile),
                         "late_rate": late["rate"]})
    return pd.DataFrame(rows)


def convergence(func: Callable, y0: Tensor, t1: float, steps: Sequence[float],
                tolerance: float) -> pd.DataFrame:
    """Error at the end time of three methods with fixed steps: Euler, Runge-Kutta 4 and Dormand-Prince.

    Args:
        func: (t, y) -> dy/dt; y0: initial state, float64; t1: end time; steps: step sizes, above 0.
        tolerance: of the adaptive solve that takes the place of the exact solution.

    Returns:
        one row per step size and method: method, h, error (Euclidean, relative to the final state).
    """
    rows = []
    with torch.no_grad():
        exact = odeint(func, y0, (0.0, t1), rtol=tolerance, atol=tolerance).y[-1]
        for h in steps:
            for method in ("euler", "rk4", "dopri5-fixed"):
                found = odeint(func, y0, (0.0, t1), method=method, step_size=h).y[-1]
                rows.append({"method": method, "h": h, "error": float((found - exact).norm() / exact.norm())})
    return pd.DataFrame(rows)


def observed_order(data: pd.DataFrame, method: str) -> float:
    """Slope of log error against log step size, by least squares over the four shortest steps with errors
    above 1e-12, below which they are rounding. data: of `convergence`.
    """
    part = data[(data["method"] == method) & (data["error"] > 1e-12)].sort_values("h").head(4)
    return float(np.polyfit(np.log(part["h"]), np.log(part["error"]), 1)[0])
