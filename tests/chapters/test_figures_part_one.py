"""What the figures of Part I draw is what their data says."""

import numpy as np
import pandas as pd
import pytest
import torch

from nodelib.chapters import (
    complexity,
    flows,
    from_resnets_to_odes,
    spiral,
    the_adjoint_method,
    toys,
    what_ode_nets_buy,
)
from nodelib.publish import style
from nodelib.solver.integrate import odeint


def test_the_ode_net_has_one_tick_per_evaluation():
    (axis,) = from_resnets_to_odes.architecture([0.0, 0.4, 2.5], 3.0).axes
    (ticks,) = [c for c in axis.collections if len(c.get_segments()) == 3]
    assert [segment[0][0] for segment in ticks.get_segments()] == [0.0, 0.4, 2.5]


def test_euler_evaluates_at_whole_times_and_dopri5_elsewhere_too():
    figure = from_resnets_to_odes.fields_and_evaluations(toys.Field(1, seed=0).requires_grad_(False),
                                                         torch.tensor([0.5]), 3.0)
    times = [axis.lines[1].get_ydata() for axis in figure.axes]
    assert sorted(set(times[0])) == [0.0, 1.0, 2.0]
    assert not np.allclose(times[1], np.round(times[1]))


def test_rejected_steps_lie_above_the_limit():
    solution = odeint(lambda t, y: -10 * y, torch.ones(1), (0.0, 2.0), first_step=2.0)
    (axis,) = from_resnets_to_odes.attempted_steps(complexity.attempts(solution), 1e-3).axes
    crosses = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_ydata())]
    assert len(crosses) == solution.rejected and all(line.get_ydata()[0] > 1 for line in crosses)


def test_every_seed_of_a_network_has_its_own_point():
    data = pd.DataFrame({"run": ["resnet-6", "resnet-0", "resnet-0"], "parameters": [500_000, 60_000, 60_000],
                         "accuracy": [99.0, 98.0, 98.2], "low": 97.7, "high": 99.2})
    (axis,) = what_ode_nets_buy.size_accuracy(data).axes
    heights = [container.lines[0].get_ydata().tolist() for container in axis.containers]
    assert heights == [[98.0, 98.2], [99.0]]
    assert [text.get_text() for text in axis.texts] == ["resnet-0", "resnet-6"]
    assert axis.get_ylim()[0] < 97.7


def test_the_exponent_of_a_power_is_its_power():
    data = pd.DataFrame({"dimension": [8, 16, 32], "quantity": "trace",
                         "operations": [3 * d**2 for d in (8, 16, 32)]})
    assert what_ode_nets_buy.exponent(data, "trace") == pytest.approx(2)


def test_spirals_and_moons_draw_the_models_they_are_given():
    data = spiral.make_data(1, trajectories=2)
    figure = what_ode_nets_buy.spirals(data, {"ODE": spiral.ODEModel(1)}, which=(0, 1))
    truth, predicted, observed = figure.axes[0].lines
    assert len(truth.get_xdata()) == spiral.INSTANTS + 1 and len(predicted.get_xdata()) == spiral.INSTANTS
    assert predicted.get_color() == style.METHODS["ODE"] and len(observed.get_xdata()) == spiral.SEEN
    (image,) = what_ode_nets_buy.moons(flows.Flow(1), side=20).axes[1].images
    assert image.get_array().shape == (20, 20) and (image.get_array() >= 0).all()


@pytest.mark.parametrize("value, text", [(1.7e-9, "2 × 10⁻⁹"), (0.3, "3 × 10⁻¹"), (12345.0, "1 × 10⁴")])
def test_numbers_for_the_prose(value, text):
    assert style.scientific(value) == text


def test_every_network_has_its_own_panels_of_gradient_errors():
    rows = [{"run": run, "method": method, "t1": t1, "input_error": 0.1, "parameter_error": 0.2, "signs": 0.3}
            for run in ("small-10", "small-100")
            for method in ("continuous adjoint", "anchored adjoint") for t1 in (1.0, 10.0)]
    figure = the_adjoint_method.errors_over_time(pd.DataFrame(rows))
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 6 and titles[0].startswith("small-10:") and titles[3].startswith("small-100:")
    back = pd.DataFrame({"run": ["small-10"] * 3 + ["small-100"] * 3, "t1": 10.0, "t": [0.0, 1.0, 10.0] * 2,
                         "error": [0.5, 0.1, 0.0, 2.0, 0.1, 0.0]})
    first, second = the_adjoint_method.backward_states(back).axes
    assert [axis.get_title() for axis in (first, second)] == ["small-10", "small-100"]
    assert first.lines[0].get_ydata().tolist() == [0.5, 0.1]
    assert second.lines[0].get_ydata().tolist() == [2.0, 0.1]


def test_networks_of_equal_size_do_not_hide_each_other():
    data = pd.DataFrame({"run": ["wide-standard", "resnet-1", "resnet-6"],
                         "parameters": [200_000, 200_000, 500_000],
                         "accuracy": 99.0, "low": 98.8, "high": 99.2})
    (axis,) = what_ode_nets_buy.size_accuracy(data).axes
    places = [container.lines[0].get_xdata()[0] for container in axis.containers]
    assert len({round(place) for place in places}) == 3
    assert sorted(text.get_text() for text in axis.texts) == ["resnet-1", "resnet-6", "wide-standard"]


def test_evaluations_in_training_have_one_line_per_network():
    data = pd.DataFrame({"run": ["small-10"] * 4 + ["small-100"] * 2,
                         "quantity": ["nfe_forward"] * 2 + ["nfe_backward"] * 2 + ["nfe_forward"] * 2,
                         "share": [0.0, 50.0] * 3, "value": [10.0, 20.0, 9.0, 19.0, 50.0, 80.0],
                         "low": 5.0, "high": 90.0})
    (axis,) = what_ode_nets_buy.evaluations_in_training(data).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axis.lines}
    assert lines == {"small-10": [10.0, 20.0], "small-100": [50.0, 80.0]}
