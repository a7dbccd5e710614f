"""Small dynamics of Part I, and what the pages measure on them."""

import math

import pandas as pd
import pytest
import torch

from nodelib.chapters import complexity, toys
from nodelib.solver.integrate import odeint


def test_the_field_has_the_derivative_of_its_formula():
    field = toys.Field(2, hidden=5, seed=3, dtype=torch.float64)
    y, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    by_hand = [torch.tanh(row @ field.w1[:2] + 0.7 * field.w1[2] + field.b1) @ field.w2 + field.b2
               for row in y]
    assert torch.allclose(field(t, y), torch.stack(by_hand), atol=1e-12)


def test_the_staircase_sorts_numbers_into_three_heaps():
    assert toys.staircase(torch.tensor([-1.0, 0.0, 0.6, 0.7])).tolist() == [-1.5, 0.0, 0.0, 1.5]
    x = torch.linspace(-2, 2, 61).view(-1, 1)

    def loss(steps: int) -> float:
        found = odeint(toys.train_staircase(steps), x, (0.0, 5.0)).y[-1]
        return float((found - toys.staircase(x)).square().mean())

    assert loss(60) < 0.5 * loss(0)


def test_paths_in_one_dimension_keep_their_order():
    field = toys.train_staircase(20)
    y = odeint(field, torch.linspace(-2, 2, 9).view(-1, 1), (0.0, 2.5, 5.0), rtol=1e-6, atol=1e-6).y
    assert (y[:, 1:] > y[:, :-1]).all()


def test_the_recorder_sees_every_evaluation():
    seen = toys.Recorder(lambda t, y: -y)
    solution = odeint(seen, torch.ones(1, 1), (0.0, 1.0), params=())
    assert len(seen.times) == len(seen.states) == solution.nfe
    assert seen.times[0] == 0.0


def test_attempts_are_in_order_and_a_rejected_step_is_repeated_shorter():
    solution = odeint(lambda t, y: -10 * y, torch.ones(1), (0.0, 2.0), first_step=2.0)
    rows = complexity.attempts(solution)
    assert len(rows) == solution.accepted + solution.rejected and solution.rejected > 0
    first, second = rows.iloc[0], rows.iloc[1]
    assert not first["accepted"] and first["ratio"] > 1
    assert second["t"] == first["t"] and second["h"] < first["h"]


def test_the_local_error_falls_with_the_fifth_power_of_the_step():
    func = toys.Field(3, seed=0, dtype=torch.float64).requires_grad_(False)
    y = torch.tensor([[0.3, -0.2, 0.8]], dtype=torch.float64)
    errors = [complexity.local_error(func, 0.0, y, h) for h in (0.2, 0.1)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.6)


def test_the_profile_knows_the_rate_of_a_rotation():
    turn = torch.tensor([[0.0, 3.0], [-3.0, 0.0]], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    profile = complexity.step_profile(lambda t, y: y @ turn, y0, 2.0)
    # |f'| / |f| of a rotation is its angular speed
    assert profile["rate"].to_numpy() == pytest.approx(3.0, rel=1e-6)
    assert profile["t"].iloc[0] == 0 and profile["t"].iloc[-1] + profile["h"].iloc[-1] >= 2.0


def test_rank_correlation_is_minus_one_for_opposite_orders():
    profile = pd.DataFrame({"h": [1.0, 2.0, 4.0], "error": [9.0, 8.0, 0.1], "rate": [1.0, 2.0, 3.0],
                            "speed": [2.0, 1.0, 3.0]})
    found = complexity.rank_correlations(profile)
    assert found["error"] == pytest.approx(-1)
    assert found["rate"] == pytest.approx(1) and found["speed"] == pytest.approx(0.5)


def test_the_observed_order_is_the_methods_order_on_smooth_dynamics():
    func = toys.Field(4, seed=0, dtype=torch.float64).requires_grad_(False)
    start = torch.linspace(-1, 1, 4, dtype=torch.float64).view(1, 4)
    data = complexity.convergence(func, start, 1.0, [2.0**-k for k in range(1, 7)], tolerance=1e-13)
    for method, order in (("euler", 1), ("rk4", 4), ("dopri5-fixed", 5)):
        assert complexity.observed_order(data, method) == pytest.approx(order, abs=0.3), method


def test_correlations_have_one_row_per_state_and_tolerance():
    func = toys.Field(2, seed=1, dtype=torch.float64).requires_grad_(False)
    y0 = torch.tensor([[0.4, -0.9], [1.0, 0.2], [0.0, 0.5]], dtype=torch.float64)
    found = complexity.correlations(func, y0, 5.0, (1e-4, 1e-6))
    assert found[["image", "tolerance"]].values.tolist() == [[i, t] for t in (1e-4, 1e-6) for i in range(3)]
    profile = complexity.step_profile(func, y0[1:2], 5.0, rtol=1e-6, atol=1e-6, probe=0.1)
    late = profile.iloc[len(profile) // 3:]
    assert found.iloc[4]["rate"] == complexity.rank_correlations(profile)["rate"]
    assert found.iloc[4]["late_rate"] == complexity.rank_correlations(late)["rate"]


def test_the_profile_of_a_field_that_depends_on_time_is_exact_at_late_times():
    def turning(t, y):
        return torch.stack([torch.cos(30 * t), torch.sin(30 * t)]).view(1, 2).to(y)
    profile = complexity.step_profile(turning, torch.zeros(1, 2, dtype=torch.float64), 3.0)
    assert profile["rate"].to_numpy() == pytest.approx(30.0, rel=1e-6)
