"""The spiral, the two-moons flow, the counted operations and the tolerance dial."""

import dataclasses

import pytest
import torch

from nodelib.chapters import flows, spiral
from nodelib.experiment import tolerance


@pytest.fixture(scope="module")
def data():
    return spiral.make_data(2, trajectories=6)


def test_every_trajectory_has_its_own_observations_and_none_is_held_out(data):
    assert data.seen.shape == (2, 6, spiral.SEEN) and (data.times.diff() > 0).all()
    for seen, held in zip(data.seen.view(-1, spiral.SEEN).tolist(), data.held.view(12, -1).tolist()):
        assert sorted(seen + held) == list(range(1, spiral.INSTANTS + 1))
    assert len({tuple(row) for row in data.seen.view(-1, spiral.SEEN).tolist()}) > 1


def test_both_models_are_of_equal_size():
    sizes = [spiral.count_parameters(model) for model in (spiral.ODEModel(2), spiral.RNNModel(2))]
    assert max(sizes) / min(sizes) < 1.1


def test_seeds_that_train_side_by_side_do_not_influence_each_other(data):
    model = spiral.RNNModel(2)
    before = model.w["out"][1].detach().clone()
    loss = (model(data, data.seen) - spiral.targets(data.observed, data.seen)).square().mean((1, 2, 3))
    loss[0].backward()
    assert model.w["out"].grad[0].abs().sum() > 0 and model.w["out"].grad[1].abs().sum() == 0
    assert torch.equal(model.w["out"][1], before)


@pytest.mark.parametrize("kind", [spiral.ODEModel, spiral.RNNModel])
def test_training_lowers_the_error_at_times_never_seen(data, kind):
    model = kind(2)
    before = spiral.held_out_error(model, data)
    spiral.train(model, data, 60, 0.05)
    assert all(a < b for a, b in zip(spiral.held_out_error(model, data), before))


def test_the_ode_models_answer_does_not_depend_on_what_else_is_asked(data):
    model = spiral.ODEModel(2)
    at_once = spiral.held_out_error(model, data, at_once=True)
    assert spiral.held_out_error(model, data) == pytest.approx(at_once, rel=1e-4)
    rnn = spiral.RNNModel(2)
    at_once = spiral.held_out_error(rnn, data, at_once=True)
    assert spiral.held_out_error(rnn, data) != pytest.approx(at_once, rel=1e-4)


def test_predictions_at_all_times_are_in_the_order_of_the_times(data):
    model = spiral.ODEModel(2)
    with torch.no_grad():
        expected = model(data, torch.arange(1, spiral.INSTANTS + 1).expand(2, 6, -1))
    assert torch.allclose(spiral.predict_all(model, data), expected, atol=1e-5)


def test_the_closed_form_trace_is_the_trace_of_the_jacobian():
    flow = flows.Flow(1, hidden=7, dimension=3, dtype=torch.float64)
    x, t = torch.randn(1, 1, 3, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow.velocity(t, z.view(1, 1, 3)).view(3),
                                                  x.view(3))
    assert float(flow.trace(t, x).detach()) == pytest.approx(float(jacobian.trace()), rel=1e-9)


def test_the_two_log_densities_are_the_same_number():
    flow = flows.Flow(2, dtype=torch.float64)
    x = torch.stack([flows.two_moons(20, k).double() for k in range(2)])
    with torch.no_grad():
        by_trace = flow.log_density(x, 1e-9)
    assert (by_trace - flow.log_density_by_jacobian(x, 1e-9)).abs().max() < 1e-6


def test_a_flow_that_does_not_move_has_the_normal_density():
    flow = flows.Flow(1, dtype=torch.float64)
    with torch.no_grad():
        flow.w2.zero_()
        found = flow.log_density(torch.tensor([[[0.0, 0.0], [1.0, 2.0]]], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([-flows.NORMAL, -flows.NORMAL - 2.5])


def test_training_a_flow_raises_the_likelihood():
    flow, points = flows.Flow(2), torch.stack([flows.two_moons(200, k) for k in range(2)])
    with torch.no_grad():
        before = flow.log_density(points).mean(1)
    flows.train(flow, 25)
    with torch.no_grad():
        assert (flow.log_density(points).mean(1) > before).all()


def test_counted_operations_find_the_right_values_and_grow_as_known():
    small, large = flows.operations(24), flows.operations(48)
    assert small["trace"][1] == pytest.approx(small["closed form"][1], rel=1e-9)
    assert large["closed form"][0] / small["closed form"][0] == pytest.approx(2, rel=0.1)
    assert large["trace"][0] / small["trace"][0] == pytest.approx(4, rel=0.1)
    assert large["log-determinant"][0] > large["trace"][0] > large["estimated trace"][0]


def test_elimination_finds_the_log_determinant():
    matrix = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(flows._eliminate(matrix)) == pytest.approx(float(torch.linalg.slogdet(matrix)[1]))


def test_the_dial_measures_what_is_not_stored_and_reads_what_is(tiny_run):
    found = tolerance.dial(tiny_run, 32, (1e-1, 1e-3))
    assert found["nfe"].iloc[0] <= found["nfe"].iloc[1] and (found["n"] == 32).all()
    (wanted,) = tolerance.measurements(tiny_run.config["test_t1"], 500, (1e-1,))
    record = {"id": wanted.id, "n": 500, "accuracy": 0.25, "low": 0.2, "high": 0.3, "nfe": 9.0}
    stored = dataclasses.replace(tiny_run, metrics=[record])
    row = tolerance.dial(stored, 32, (1e-1,)).iloc[0]
    assert (row["n"], row["accuracy"], row["nfe"]) == (500, 25.0, 9.0)
