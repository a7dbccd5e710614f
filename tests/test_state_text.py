"""Sentences about states say what the records say, and nothing where there are none."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest

from nodelib import state_records, state_text
from nodelib.dynamics.measure import record


def run_of(tiny_run, name, measurements, **config):
    return dataclasses.replace(tiny_run, name=name, measurements=measurements, config={**tiny_run.config, **config})


@pytest.mark.parametrize("values, said", [([math.inf], "not by t = 1000"), ([3.0, math.inf], "3 in the best seed and not by t = 1000 in the worst"),
                                          ([12.59, 12.589], "12.6")])
def test_end_times_in_words(values, said):
    assert state_text.times(values) == said


def test_settling_is_said_of_both_networks_or_not_at_all():
    frame = pd.DataFrame({"run": ["wide-adversarial", "wide-standard"], "seed": 0, "n": 5, "turning": [4.0, math.inf],
                          "relative_speed": 1.0})
    assert "at t = 4 after adversarial training and not by t = 1000 after standard training" in state_text.settling(frame)
    never = frame.assign(turning=math.inf)
    assert "by t = 1000 neither after adversarial nor after standard training" in state_text.settling(never)
    assert state_text.settling(frame[:1]) is None


def test_a_six_is_told_from_a_four_by_the_records(tiny_run):
    measured = [record("nearest_class", 0.75, n=40, t1=1000.0, label="6-4", statistic="mean"),
                record("class_mean_angle", 12.0, n=40, t1=1000.0, label="6-4")]
    runs = [run_of(tiny_run, name, measured) for name in ("wide-adversarial", "wide-standard")]
    assert "in 75 % of images after adversarial training (mean states 12 degrees apart)" in state_text.told_apart(runs)
    assert state_text.told_apart(runs[:1]) is None


def test_leaky_controls_are_described_one_by_one(tiny_run):
    measured = [record("on_a_ray", 0.5, n=20, t1=100.0, statistic="mean"), record("norm", 2.0, n=5, t1=100.0),
                record("norm", 2.0, n=5, t1=1000.0), record("state_accuracy", 0.9, n=5, t1=1000.0, statistic="mean")]
    run = run_of(tiny_run, "small-100-leaky", measured, leaky=True)
    assert state_text.leaky([]) == "No leaky control is measured yet."
    said = state_text.leaky([run, run_of(tiny_run, "small-10", measured)])
    assert said.startswith("In small-100-leaky (seed 0) 50 % of images") and said.endswith("accuracy at t = 1000 is 90.0 %.")
    assert "small-10 " not in said


def test_rays_and_attacked_images_are_silent_without_records(tiny_run):
    assert state_text.rays(state_records.ray_frame([])) is None
    assert state_text.pulled(state_records.attacked_frame([])) is None
    frame = pd.DataFrame([["wide-adversarial", 0, t1, 5, 0.9, share, angle] for t1, share, angle in ((1.0, 0.5, 20.0), (1000.0, 0.8, 9.0))],
                         columns=["run", "seed", "t1", "n", "clean", "attacked", "angle"])
    assert "50 % of attacked images" in state_text.pulled(frame) and "from 20 to 9 degrees" in state_text.pulled(frame)


def test_rays_are_told_of_the_network_that_has_them_and_the_other_is_named(tiny_run):
    measured = [record("on_a_ray", 0.25, n=20, t1=1000.0, statistic="mean")]
    frame = state_records.ray_frame([run_of(tiny_run, "wide-adversarial", measured)])
    said = state_text.rays(frame)
    assert "after adversarial training 25 % of images end on a ray, and 0 of the ten" in said
    assert said.endswith("after standard training this is not measured yet.")


def test_where_directions_come_to_rest_is_listed_by_share(tiny_run):
    runs = [run_of(tiny_run, name, [record("on_a_ray", share, n=20, t1=1000.0, statistic="mean")])
            for name, share in (("small-10", 0.0), ("small-random", 1.0), ("small-100", 0.0))]
    assert state_text.at_rest(state_records.ray_frame(runs)) == (
        "Share of images whose direction comes to rest: 100 % in small-random (seed 0); 0 % in small-10 (seed 0), small-100 (seed 0).")
    assert state_text.at_rest(state_records.ray_frame([])).startswith("No network")


def test_one_ray_for_all_classes_is_told_from_one_ray_per_class(tiny_run):
    def run(name, distinct, share=1.0):
        return run_of(tiny_run, name, [record("distinct_attractors", distinct, n=20, t1=1000.0, statistic="count"),
                                       *(record("ray_share", share, n=2, t1=1000.0, label=str(digit), statistic="mean")
                                         for digit in range(10))])

    one, each, few = run("small-random", 1), run("small-100", 10), run("small-10", 1, share=0.3)
    assert state_text.shared([few]).startswith("In no network")
    assert state_text.shared([one, each]).startswith("In small-random (seed 0) all ten classes end on one and the same ray")
    assert "small-100" not in state_text.shared([one, each])
    assert state_text.shared([each, run_of(tiny_run, "small-10", [])]).startswith("In no network")


def test_networks_at_rest_are_told_from_those_that_move(tiny_run):
    late = [record("norm", 2.0, n=5, t1=100.0), record("norm", 2.0, n=5, t1=1000.0),
            record("state_accuracy", 0.976, n=5, t1=1000.0, statistic="mean")]
    still, moving = ([*late, record("relative_speed", speed, n=5, t1=1000.0)] for speed in (1e-9, 1e-3))
    said = state_text.come_to_rest([run_of(tiny_run, "small-100-nolast", still, last_norm=False)])
    assert "97.6 % of 5 images are still classified correctly at t = 1000" in said
    attacked = [{"id": "pgd10-exact-t500", "t1": 500.0, "accuracy": 0.01, "n": 50, "epsilon": 0.3}]
    run = dataclasses.replace(run_of(tiny_run, "small-100-nolast", still, last_norm=False), metrics=attacked)
    assert "PGD of ten steps leaves 1.0 % of 50 at t = 500" in state_text.come_to_rest([run])
    assert state_text.come_to_rest([run_of(tiny_run, "small-100-nolast", moving, last_norm=False), run_of(tiny_run, "small-100", still)]) == ""


def test_rest_is_told_with_what_it_does_and_does_not_bring(tiny_run):
    run = run_of(tiny_run, "small-100-nolast", [], last_norm=False)
    run = dataclasses.replace(run, metrics=[{"id": f"pgd10-exact-t{t1:g}", "t1": t1, "accuracy": a, "n": 50, "epsilon": 0.3}
                                            for t1, a in ((100.0, 0.5), (500.0, 0.01))])
    said = state_text.rest(run, (1e4, 0.97, 0.975, 49.0, 64.0))
    assert "97 % of the states is exactly zero" in said and "97.5 % of the images" in said and "not one state per class" in said
    assert "keeps 1.0 % at t = 500: states that come to rest do not make a network robust" in said
    moving = state_text.rest(run, (1e4, 0.1, 0.5, 49.0, 64.0))
    assert "still on their way" in moving and "do not make" not in moving
    resists = dataclasses.replace(run, metrics=[{**r, "accuracy": 0.9} for r in run.metrics])
    assert "do not make" not in state_text.rest(resists, (1e4, 0.97, 0.975, 2.0, 64.0))
    assert "not measured yet" in state_text.rest(None, None) and "not measured yet" in state_text.rest(run, None)
