"""Stored measurements become the tables of the chapters, and what is not measured stays missing."""

import dataclasses
import math

import pytest

from nodelib.chapters import state_records
from nodelib.experiment.measure_states import record


def run_of(tiny_run, measurements, name="wide-adversarial", seed=0):
    return dataclasses.replace(tiny_run, name=name, seed=seed, measurements=measurements)


def rays(counts, residual=1e-9, eigenvalue=0.5, own=True, share=1.0):
    found = [record("on_a_ray", 1.0, n=20, t1=1000.0, statistic="mean")]
    for digit, count in enumerate(counts):
        common = dict(label=str(digit), n=2, t1=1000.0)
        found += [record("attractors", count, statistic="count", **common),
                  record("own_attractors", count if own else 0, statistic="count", **common),
                  record("ray_share", share, statistic="mean", **common),
                  record("ray_residual", residual, statistic="max", **common),
                  record("ray_eigenvalue", eigenvalue, statistic="max", **common)]
    return found


def test_a_value_that_is_not_measured_is_missing(tiny_run):
    run = run_of(tiny_run, [record("norm", 3.0, n=2, t1=1.0)])
    assert state_records.value(run, "norm", t1=1.0) == 3.0
    assert math.isnan(state_records.value(run, "norm", t1=2.0))
    assert math.isnan(state_records.value(run, "norm", t1=1.0, label="6"))


def test_a_class_counts_as_single_only_on_one_solved_attracting_ray(tiny_run):
    frame = state_records.ray_frame([run_of(tiny_run, rays([1] * 8 + [2, 0])),
                                     run_of(tiny_run, rays([1] * 10, eigenvalue=1.2)),
                                     run_of(tiny_run, rays([1] * 10, residual=0.1)), run_of(tiny_run, []),
                                     run_of(tiny_run, rays([1] * 10, own=False)),  # one ray shared by all
                                     run_of(tiny_run, rays([1] * 10, share=0.3))])  # and one that takes few
    assert frame["single"].tolist() == [8, 0, 0, 0, 0]
    assert frame["exponent"].isna().all()


def test_an_entry_is_found_by_what_its_row_says(tiny_run):
    frame = state_records.ray_frame([run_of(tiny_run, rays([1] * 10), seed=1),
                                     run_of(tiny_run, rays([1] * 10, eigenvalue=0.2), seed=2)])
    assert state_records.at(frame, "eigenvalue", seed=2) == 0.2
    assert state_records.at(frame, "eigenvalue", run="wide-adversarial") == 0.5
    assert math.isnan(state_records.at(frame, "eigenvalue", run="small-10"))


def test_settling_that_never_came_is_infinite(tiny_run):
    measured = [record("settling_time", v, n=5, t1=1.0, measure=m, threshold=0.1)
                for m, v in (("turning", 1e9), ("relative_speed", 7.0))]
    frame = state_records.settling_frame([run_of(tiny_run, measured), run_of(tiny_run, measured[:1])])
    assert frame.values.tolist()[0][:-1] == ["wide-adversarial", 0, 5, math.inf, 7.0] and len(frame) == 1
    measured.append(record("turning", 0.12, n=5, t1=1000.0, part="centred"))
    assert state_records.settling_frame([run_of(tiny_run, measured)])["turning_1000"].tolist() == [0.12]


def test_separation_is_the_mean_over_seeds(tiny_run):
    runs = [run_of(tiny_run, [record("nearest_class", v, n=5, t1=1.0, statistic="mean")], seed=seed)
            for seed, v in enumerate((0.5, 0.7))]
    frame = state_records.separation_frame(runs)
    assert frame[["run", "t1", "measure"]].values.tolist() == [["wide-adversarial", 1.0, "nearest class"]]
    assert frame["value"].tolist() == pytest.approx([0.6])
    for runs in ([run_of(tiny_run, [])], []):
        assert list(state_records.separation_frame(runs)) == list(frame)


def test_the_late_exponent_is_that_of_the_norm(tiny_run):
    measured = [record("norm", 20.0, n=5, t1=100.0), record("norm", 200.0, n=5, t1=1000.0),
                record("velocity_angle", 4.0, n=5, t1=1000.0, since=100, part="centred")]
    (row,) = state_records.late_frame([run_of(tiny_run, measured), run_of(tiny_run, [])]).itertuples()
    assert row.exponent == pytest.approx(1.0) and row.velocity_angle_centred == 4.0
    assert math.isnan(row.velocity_angle)
    leaky = run_of(tiny_run, measured)
    leaky = dataclasses.replace(leaky, config={**leaky.config, "leaky": True})
    assert state_records.late_frame([leaky])["velocity_angle_centred"].isna().all()


def test_a_state_that_may_rest_has_no_direction(tiny_run):
    measured = [record("norm", 20.0, n=5, t1=t1) for t1 in (100.0, 1000.0)]
    measured += [record("velocity_angle", 4.0, n=5, t1=1000.0, since=100, part="centred")]
    run = run_of(tiny_run, measured)
    resting = dataclasses.replace(run, config={**run.config, "last_norm": False})
    (plain,), (rest,) = (state_records.late_frame([r])["velocity_angle_centred"] for r in (run, resting))
    assert plain == 4.0 and math.isnan(rest)


def test_attacked_images_stand_beside_clean_ones(tiny_run):
    measured = [record("nearest_class", 0.9, n=5, t1=1.0, statistic="mean"),
                record("nearest_class", 0.4, n=5, t1=1.0, images="pgd", statistic="mean"),
                record("attacked_angle", 12.0, n=5, t1=1.0, images="pgd")]
    (row,) = state_records.attacked_frame([run_of(tiny_run, measured)]).values.tolist()
    assert row[:-1] == ["wide-adversarial", 0, 1.0, 5, 0.9, 0.4, 12.0] and math.isnan(row[-1])
    measured.append(record("class_mean_angle", 48.0, n=5, t1=1.0, label="6-4"))
    assert state_records.attacked_frame([run_of(tiny_run, measured)])["relative"].tolist() == [0.25]


def test_controls_are_no_plain_networks(tiny_run):
    runs = [dataclasses.replace(tiny_run, config={**tiny_run.config, **more})
            for more in ({}, {"leaky": True}, {"last_norm": False})]
    assert state_records.plain(runs) == runs[:1]


def test_every_record_name_looked_up_is_one_of_the_contract():
    import re
    from pathlib import Path

    from nodelib.verdicts import MEASUREMENTS

    source = Path(state_records.__file__).read_text()
    names = set(re.findall(r'(?:value|look_up)\(run, "(\w+)"', source)) | set(state_records.SEPARATION)
    assert names and names <= set(MEASUREMENTS)


def test_a_table_shows_a_missing_value_as_a_dash():
    pytest.importorskip("IPython")
    from nodelib.publish.page import markdown_table

    table = markdown_table(["run:", "share"], [("a|b", 0.5), ("c", math.nan)]).data
    assert table.splitlines() == ["| run | share |", "| --- | ---: |", "| a\\|b | 0.5 |", "| c | – |"]
