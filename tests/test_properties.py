"""Laws that hold for every value, tried on values that hypothesis draws: the same ones in every run."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from nodelib.attacks import Attack
from nodelib.experiment import checksums, records
from nodelib.solver.integrate import odeint
from nodelib.statistics import holm, mcnemar, mean_interval, welch_interval, wilson

law = settings(derandomize=True, deadline=None, database=None, max_examples=30,
               suppress_health_check=[HealthCheck.function_scoped_fixture])

# -- tables --------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
number = st.floats(allow_nan=False, allow_infinity=False)
json_value = st.recursive(st.none() | st.booleans() | st.integers() | number | st.text(),
                          lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
CELLS = {str: text, int: st.integers(), float: number, bool: st.booleans(), list: st.lists(json_value),
         dict: st.dictionaries(st.text(), json_value)}


def rows_of(columns):
    def cell(kind):
        main = next(each for each in CELLS if each is kind or each in getattr(kind, "__args__", ()))
        return CELLS[main] if main is kind else st.none() | CELLS[main]

    return st.lists(st.fixed_dictionaries({name: cell(kind) for name, kind in columns.items()}), max_size=4)


def same(a, b) -> bool:
    """Equal to the sign of a zero, and in type."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@pytest.mark.parametrize("columns", [records.METRICS, records.MEASUREMENTS, records.HISTORY],
                         ids=["metrics", "measurements", "history"])
@law
@given(data=st.data())
def test_what_is_written_is_read_again(columns, data, tmp_path):
    rows = data.draw(rows_of(columns))
    path = tmp_path / "table.csv"
    path.write_bytes(records.to_csv(rows, columns))
    assert same(records.from_csv(path, columns), rows)


@law
@given(rows=rows_of(records.MEASUREMENTS))
def test_the_order_in_which_measurements_were_made_leaves_no_trace(rows):
    rows = [row for i, row in enumerate(rows) if not records.doubled([*rows[:i], row])]
    assert records.measurements_csv(rows) == records.measurements_csv(rows[::-1])


@settings(law, max_examples=10)
@given(writes=st.lists(st.tuples(st.sampled_from(checksums.CHECKED), st.none() | st.binary()),
                       min_size=1, max_size=6))
def test_a_folder_that_only_the_library_wrote_is_in_order(writes, tmp_path):
    for name, content in writes:
        checksums.store(tmp_path / name, content)
    assert list(checksums.faults(tmp_path)) == []


# -- statistics ----------------------------------------------------------------------------------------

@law
@given(n=st.integers(1, 10**6), share=st.floats(0, 1), z=st.floats(0.1, 6))
def test_wilsons_interval_holds_the_share_is_symmetric_and_widens_with_the_level(n, share, z):
    correct = round(share * n)
    low, high = wilson(correct, n, z)
    assert 0 <= low <= correct / n <= high <= 1 and low < high
    assert wilson(n - correct, n, z) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    wider = wilson(correct, n, 1.1 * z)
    assert wider[0] <= low and high <= wider[1]


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@law
@given(pairs=pairs, seed=st.integers(0, 99))
def test_mcnemars_p_is_symmetric_and_knows_no_order(pairs, seed):
    first, second = np.array(pairs).T
    p = mcnemar(first, second)
    assert 0 <= p <= 1 and mcnemar(second, first) == mcnemar(~first, ~second) == p
    assert mcnemar(first, first) == 1
    order = np.random.default_rng(seed).permutation(len(pairs))
    assert mcnemar(first[order], second[order]) == p


@law
@given(ps=st.lists(st.floats(0, 1), max_size=8, unique=True), level=st.floats(0.001, 0.5))
def test_holm_rejects_the_smallest_and_no_more_than_without_correction(ps, level):
    found = holm(ps, level)
    assert holm(ps[::-1], level) == found[::-1]
    rejected = [p for p, yes in zip(ps, found) if yes]
    assert sorted(ps)[:len(rejected)] == sorted(rejected) and all(p <= level for p in rejected)
    assert bool(rejected) == (bool(ps) and min(ps) <= level / len(ps))


# -- attacks -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["fgsm", "pgd", "random-signs"])
@law
@given(shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
       classes=st.integers(2, 4), epsilon=st.floats(0, 1), clip=st.booleans(), double=st.booleans(),
       seed=st.integers(0, 99))
def test_an_attack_stays_in_ball_and_box_whatever_the_images(name, shape, classes, epsilon, clip, double,
                                                             seed):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape[1:]), classes), nn.Tanh()).to(dtype).eval()
    images = torch.rand(shape, generator=generator, dtype=dtype).mul(1.5).clamp(0, 1)  # some at the wall
    labels = torch.randint(classes, shape[:1], generator=generator)
    options = dict(steps=3, step_size=epsilon / 2 or 0.1, seed=seed) if name == "pgd" else {}
    found = Attack(name, epsilon, clip=clip, **options)(model, images, labels)
    assert found.shape == images.shape and found.dtype == dtype
    assert bool(((found - images).abs() <= epsilon + 1e-6).all())
    assert not clip or bool(((found >= 0) & (found <= 1)).all())


# -- solver --------------------------------------------------------------------------------------------

entry = st.floats(-1, 1).map(lambda x: round(x, 3))
TIGHT = dict(rtol=1e-9, atol=1e-9)


@st.composite
def linear(draw):
    """dy/dt = A y, y0, cotangents, and an end time: of up to three dimensions, in float64."""
    n = draw(st.integers(1, 3))
    matrix, y0, bar = (torch.tensor(draw(st.lists(entry, min_size=k, max_size=k)), dtype=torch.float64)
                       for k in (n * n, n, n))
    return matrix.view(n, n), y0, bar, draw(st.floats(0.01, 4)) * draw(st.sampled_from((-1, 1)))


@law
@given(problem=linear(), start=st.floats(-3, 3))
def test_a_linear_problem_follows_the_matrix_exponential_and_its_gradient_the_steps_taken(problem, start):
    matrix, y0, bar, span = problem
    flow = torch.linalg.matrix_exp(span * matrix)
    leaf = y0.clone().requires_grad_()
    end = odeint(lambda t, y: matrix @ y, leaf, [start, start + span], **TIGHT).y[-1]
    torch.testing.assert_close(end.detach(), flow @ y0, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(end, leaf, bar)
    # which make the end linear in the start: <bar, M y0> = <M' bar, y0>
    torch.testing.assert_close(gradient @ y0, bar @ end.detach(), rtol=1e-9, atol=1e-9)


@law
@given(problem=linear(), middle=st.floats(0.1, 0.9))
def test_time_runs_back_to_the_start_and_a_stop_on_the_way_changes_nothing(problem, middle):
    matrix, y0, _, span = problem
    func = lambda t, y: torch.sin(matrix @ y + t)  # noqa: E731
    there = odeint(func, y0, [0.0, middle * span, span], **TIGHT).y
    back = odeint(func, there[-1], [span, 0.0], **TIGHT).y[-1]
    torch.testing.assert_close(back, y0, rtol=1e-5, atol=1e-5)
    assert torch.equal(there[-1], odeint(func, y0, [0.0, span], **TIGHT).y[-1])


def test_a_p_value_too_small_for_a_float_is_not_zero_and_nan_is_none():
    assert 0 < mcnemar(np.ones(1100, bool), np.zeros(1100, bool)) < 1e-300
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        holm([0.2, math.nan], 0.05)
    with pytest.raises(ValueError, match="level is 95"):
        mean_interval([1.0, 2.0, 3.0], level=95)
    with pytest.raises(ValueError, match="level is 95"):
        welch_interval([1.0, 2.0], [3.0, 4.0], level=95)
    with pytest.raises(ValueError, match="2 and 1 values given"):
        welch_interval([1.0, 2.0], [3.0])


def test_an_interval_of_two_means_is_welchs():
    """Against the formula: the means' errors added in squares, and Satterthwaite's degrees of freedom."""
    low, high = welch_interval([1.0, 2.0, 6.0], [0.0, 0.5, 1.0])
    parts = 7 / 3, 0.25 / 3  # variances over three values each
    freedom = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    from scipy.stats import t
    half = t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half))
    assert welch_interval([0.0, 0.5, 1.0], [1.0, 2.0, 6.0]) == pytest.approx((-high, -low))
