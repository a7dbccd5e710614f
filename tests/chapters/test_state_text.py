"""Sentences about states say what the records say, and nothing where there are none."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest

from nodelib.chapters import state_records, state_text
from nodelib.experiment.measure_states import record


def run_of(tiny_run, name, measurements, **config):
    return dataclasses.replace(tiny_run, name=name, measurements=measurements, config={**tiny_run.config, **config})


@pytest.mark.parametrize("values, said", [([math.inf], "not by t = 1000"), ([3.0, math.inf], "3 in the best seed and not by t = 1000 in the worst"),
                                          ([12.59, 12.589], "12.6")])
def test_end_times_in_words(values, said):
    assert state_text.times(values) == said
    assert state_text.time(1000.0) == "1000" and state_text.time(1.2589) == "1.26"


def test_settling_is_said_of_both_networks_or_not_at_all():
    frame = pd.DataFrame({"run": ["wide-adversarial", "wide-standard"], "seed": 0, "n": 5, "turning": [4.0, math.inf],
                          "relative_speed": 1.0, "turning_1000": [0.107, 0.115]})
    assert "at t = 4 after adversarial training and not by t = 1000 after standard training" in state_text.settling(frame)
    never = frame.assign(turning=math.inf)
    assert state_text.settling(never) == (
        "In the post's pair the direction of the median image does not settle by t = 1000, after either training; it turns there by "
        "0.107 radians per unit of log time after adversarial and by 0.115 after standard training, where 0.1 would count as settled, "
        "so that the answer hangs on where we stop.")
    assert state_text.settling(never.assign(turning_1000=0.3)).endswith("settled.")
    assert state_text.settling(never.assign(turning_1000=math.nan)).endswith("after either training.")
    assert state_text.settling(frame[:1]) is None


@pytest.mark.parametrize("turning, said", [((200.0, 300.0, math.inf), "in large-100 (at t = 200 to 300) and not in small-10 ("),
                                           ((200.0, math.inf, math.inf), "in none of large-100, small-10 ("),
                                           ((200.0, 200.0, 7.0), "in small-10 (at t = 7), large-100 (at t = 200) (")])
def test_every_network_is_said_to_settle_or_not(turning, said):
    frame = pd.DataFrame({"run": ["large-100", "large-100", "small-10"], "seed": [0, 1, 0], "n": 5, "turning": turning})
    assert f"settles by t = 1000 {said}" in state_text.directions(frame)
    assert "not measured" in state_text.directions(frame[:0])


def moving(tiny_run, name, turning, accuracy):
    return run_of(tiny_run, name, [record("state_accuracy", accuracy, n=5, t1=10.0, statistic="mean"),
                                   *(record("turning", v, n=5, t1=t1, part="centred")
                                     for t1, v in zip((1.0, 10.0, 100.0, 1000.0), turning))])


def test_the_window_of_the_films_is_told_from_later_times(tiny_run):
    adversarial = moving(tiny_run, "wide-adversarial", (2, 0.1, 0.2, 0.1), 0.98)
    standard = moving(tiny_run, "wide-standard", (1, 0.3, 0.2, 0.1), 0.3)
    said = state_text.window([adversarial, standard])
    assert "by 2, 0.1, 0.2 and 0.1 after adversarial training and by 1, 0.3" in said
    assert "98.0 % [56.6, 100.0] of 5 images and 30.0 % [" in said and "(adversarial and standard)" in said
    assert said.endswith("the adversarially trained state turns less. But it turns faster again later (0.2 at t = 100); at t = 100 the two "
                         "turn equally fast.")
    assert "holds" not in state_text.window([moving(tiny_run, "wide-adversarial", (1, 0.3, 0.2, 0.1), 0.9), standard])
    assert state_text.window([adversarial]) is None


def test_a_six_is_told_from_a_four_by_the_records(tiny_run):
    measured = [record("nearest_class", 0.75, n=40, t1=1000.0, label="6-4", statistic="mean"),
                record("class_mean_angle", 12.0, n=40, t1=1000.0, label="6-4")]
    runs = [run_of(tiny_run, name, measured) for name in ("wide-adversarial", "wide-standard")]
    said = state_text.told_apart(runs)
    assert ("in 75 % of 40 images [95 %: 59.8 to 85.8] after adversarial training (mean states, drift included, "
            "12 degrees apart)") in said
    assert "chance: 50 %" in said and "[" not in state_text.told_apart(runs * 2)
    assert state_text.told_apart(runs[:1]) is None


def test_classes_that_the_head_no_longer_tells_apart_are_named(tiny_run):
    def run(name, near, head, **config):
        return run_of(tiny_run, name, [record(what, v, n=5, t1=1000.0, statistic="mean")
                                       for what, v in (("nearest_class", near), ("state_accuracy", head))], **config)

    said = state_text.readable([run("large-100", 0.96, 0.46), run("small-10", 0.96, 0.95),
                                run("small-100-leaky", 0.96, 0.1, leaky=True)])
    assert said.endswith("the nearest class is right for 96.0 % of 5 images and the head for 46.0 % of 5 in large-100 (seed 0).")
    assert state_text.readable([run("small-10", 0.5, 0.1), run_of(tiny_run, "small-100", [])]) is None


def test_constant_velocities_are_found_in_whatever_network_has_them():
    frame = pd.DataFrame({"run": ["small-random", "large-10", "wide-adversarial"], "exponent": [1.0, 0.95, 0.8],
                          "velocity_angle": [3.0, 5.0, 12.0], "velocity_angle_centred": [4.0, 6.0, 30.0]})
    said = state_text.constant(frame)
    assert said.startswith("In small-random and large-10 the norm grows in proportion to time and the velocity keeps its direction within 10")
    assert said.endswith("though not in wide-adversarial, of which the post says it.")
    assert state_text.constant(frame[2:]) == "" and state_text.constant(frame[:1]).endswith("claim C16 describes.")
    assert state_text.constant(frame.assign(velocity_angle_centred=11.0)) == ""


def test_attacked_images_are_silent_without_records(tiny_run):
    assert state_text.pulled(state_records.attacked_frame([])) is None
    frame = pd.DataFrame([["wide-adversarial", 0, t1, 5, clean, share, angle, relative] for t1, clean, share, angle, relative in
                          ((1.0, 0.9, 0.5, 20.0, 0.2), (1000.0, 0.6, 0.8, 9.0, 1.5))],
                         columns=["run", "seed", "t1", "n", "clean", "attacked", "angle", "relative"])
    said = state_text.pulled(frame)
    assert "50 % of attacked images" in said and "of clean images 90 and 60 %" in said and "from 20 to 9 degrees" in said
    assert "drift included, shrinks by more meanwhile" in said
    assert "shrinks by less" in state_text.pulled(frame.assign(relative=0.2))
    assert "shrinks" not in state_text.pulled(frame.assign(relative=math.nan))


def test_what_the_drift_alone_moves_is_the_bound_of_the_corollary(tiny_run):
    from nodelib import dynamics
    drift = dynamics.common_drift(tiny_run.load_model().block.func, tiny_run.config["size"])
    size = 400 * float(dynamics.norm(drift.velocity)) / 0.5
    run = dataclasses.replace(tiny_run, name="small-random", measurements=[record("norm", size, n=5, t1=100.0)])
    said = state_text.forced([run])
    assert said == ("The common drift alone moves the median state of small-random by 0.5 of its norm in that time, so that none of them could "
                    "meet that, whatever it does besides.")
    still = dataclasses.replace(run, measurements=[record("norm", 10 * size, n=5, t1=100.0)])
    assert state_text.forced([still]).endswith("by 0.05 of its norm in that time.")
    assert state_text.forced([dataclasses.replace(run, name="small-10")]) == "How far the common drift alone moves their states is not measured yet."
