"""Sentences about rays, equilibria and rest say what the records say, and nothing where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nodelib.chapters import ray_text, state_records
from nodelib.experiment.measure_states import record


def run_of(tiny_run, name, measurements, **config):
    return dataclasses.replace(tiny_run, name=name, measurements=measurements, config={**tiny_run.config, **config})


def test_leaky_controls_are_counted_and_tabulated(tiny_run):
    measured = [record("on_a_ray", 0.5, n=20, t1=100.0, statistic="mean")]
    run = run_of(tiny_run, "small-100-leaky", measured, leaky=True, t1=[4.6, 4.6], test_t1=4.6)
    clean = dict(attack="none", pooling="fixed", rtol=1e-3, n=100)
    run = dataclasses.replace(run, metrics=[dict(clean, id="none-t4.6", t1=4.6, accuracy=0.985),
                                            dict(id="pgd10-exact-t4.6", t1=4.6, accuracy=0.0, n=100)])
    assert ray_text.leaky([]) == "No leaky control is measured yet."
    late = [*measured, record("state_accuracy", 0.5, n=20, t1=1000.0, statistic="mean"), record("relative_speed", 0.2, n=20, t1=4.6),
            record("distinct_attractors", 1.0, n=20, t1=100.0, statistic="count"),
            *(record("attractors", 1.0, n=2, t1=100.0, label=str(digit), statistic="count") for digit in range(10))]
    run = dataclasses.replace(run, measurements=late)
    other = run_of(tiny_run, "wide-standard-leaky", [record("on_a_ray", 0.0, n=20, t1=100.0, statistic="mean")], leaky=True)
    assert ray_text.leaky([run, other, run_of(tiny_run, "small-10", measured)]) == (
        "Of the leaky controls' images these end at an equilibrium: 10 of 20 images in small-100-leaky, all at the same one; 0 of 20 "
        "images in wide-standard-leaky.")
    (row,) = state_records.leaky_frame([run, run_of(tiny_run, "small-10", measured)]).itertuples()
    assert (row.t1, row.clean, row.n_clean, row.pgd, row.n_pgd) == (4.6, 0.985, 100, 0.0, 100)
    assert (row.pace, row.accuracy_1000, row.on, row.n_on, row.distinct) == (0.2, 0.5, 0.5, 20, 1.0)
    assert ray_text.leaky_notes([run]) == ""  # not known how fast they are at t = 1000
    late.append(record("relative_speed", 0.3, n=20, t1=1000.0))
    assert "own tolerance of 0.001, and not tightly as for that count, the states of small-100-leaky do not rest: at t = 1000 the " \
        "median one still moves by 30 %" in ray_text.leaky_notes([dataclasses.replace(run, measurements=late)])
    none = [record("on_a_ray", 0.0, n=20, t1=100.0, statistic="mean"),
            *(record(what, v, n=2, t1=100.0, label=str(digit), statistic=statistic) for digit in range(10) for what, v, statistic in
              (("attractors", 0.0, "count"), ("ray_residual", 0.3, "max"), ("ray_eigenvalue", 1.2, "max")))]
    assert ray_text.leaky_notes([run_of(tiny_run, "a", none, leaky=True)]) == (
        "In a a solve from the mean state finds none (residual 0.3, largest real part there 1.20).")


def test_the_leak_is_held_against_the_same_network_without_it(tiny_run):
    def attacked(name, left, n, **config):
        class Stub(type(tiny_run)):
            def outcomes(self, record_id):
                return np.arange(n) < left
        run = run_of(tiny_run, name, [], test_t1=1.0, **config)
        return Stub(**{f.name: getattr(run, f.name) for f in dataclasses.fields(run)}
                    | {"metrics": [dict(id="pgd10-exact-t1", t1=1.0, n=n, accuracy=left / n)]})

    told = lambda leaky, plain: ray_text.leaky_against_plain(  # noqa: E731
        [attacked("wide-standard-leaky", leaky, 50, leaky=True), attacked("wide-standard", plain, 100)])
    assert told(10, 40).startswith("Ten steps of PGD, each at the network's own end time, leave 20.0 % of 50 images in wide-standard-leaky "
                                   "and 80.0 % in wide-standard (McNemar's p = 2e-09): in none of these pairs")
    assert told(40, 10).endswith("the leaky network keeps at most 60.0 points more.")
    assert "McNemar" not in told(0, 0) and ray_text.leaky_against_plain([attacked("wide-standard", 1, 50)]) == ""


def test_what_comes_later_is_told_of_networks_that_were_not_at_rest(tiny_run):
    def run(name, *shares, rays=1.0, **config):
        return run_of(tiny_run, name, [record("on_a_ray", shares[0], n=20, t1=1000.0, statistic="mean"),
                                       *(record(what, v, n=20, t1=1000.0, statistic=statistic, log_time=s)
                                         for s, share in zip((10.0, 80.0), shares)
                                         for what, v, statistic in (("on_a_ray_later", share, "mean"), ("rays_later", rays, "count")))],
                      **config)

    runs = [run("wide-standard", 0.0, 0.95), run("small-10", 0.0, 0.0), run("small-random", 1.0, 1.0),
            run("small-100-leaky", 0.2, 0.5, rays=4.0, leaky=True)]
    assert ray_text.far(runs) == (
        "After 80 units of log time (leaky: of time), in wide-standard 19 of 20 images are on a ray, on a single one; "
        "in small-100-leaky 10 of 20 images are at an equilibrium, on 4 different ones; none of 20 images is on one in small-10.")
    stable = lambda count: record("rays_later_attracting", count, n=20, t1=1000.0, statistic="count", log_time=80.0)  # noqa: E731
    known = [dataclasses.replace(run_, measurements=[*run_.measurements, stable(count)]) for run_, count in zip(runs, (1, 0, 1, 3))]
    assert "on a single one, which attracts; " in ray_text.far(known) and "on 4 different ones, of which 3 attract; none of 20" in ray_text.far(known)
    assert ray_text.far(runs[2:3]) == "" and ray_text.far([]) == ""
    longer = [*runs[0].measurements, *(record(what, v, n=30, t1=1000.0, statistic=statistic, log_time=640.0, by_class=[[1, 2], [3, 1], [1, 0]])
                                       for what, v, statistic in (("on_a_ray_later", 0.5, "mean"), ("rays_later", 3.0, "count"),
                                                                  ("rays_later_attracting", 2.0, "count")))]
    told = ray_text.far([runs[1], dataclasses.replace(runs[0], measurements=longer)])
    assert told == ("After 80 units of log time, none of 20 images is on one in small-10. After 640 units of log time, in wide-standard 15 of 30 "
                    "images are on a ray, on 3 different ones, of which 2 attract (each with more than one image holds several classes; where the other images end is open).")
    several = dataclasses.replace(runs[0], measurements=longer)
    assert ray_text.shared([several]).startswith(
        "In wide-standard 15 of 30 images are on a ray after 640 units of log time; these rays are 3, and each with more than one image holds several classes")
    assert "arrive later" not in ray_text.shared([several])
    settled = [*longer[:-3], record("on_a_ray_later", 0.48, n=30, t1=1000.0, statistic="mean", log_time=320.0), *longer[-3:]]
    assert ray_text.shared([dataclasses.replace(runs[0], measurements=settled)]).endswith(
        "After 320 units it was 48 %; whether the others arrive later, run on a cycle or wander chaotically is not decided.")
    assert ray_text.shared([several], short=True).startswith("In no network")
    longer[-1]["settings"]["by_class"][0] = [3, 0]
    assert ray_text.shared([several]).startswith("In no network")
    assert ray_text.far([dataclasses.replace(runs[0], measurements=longer)]).endswith("of which 2 attract.")
    frame = state_records.far_frame(runs)
    assert list(frame["share"])[:2] == [0.0, 0.95] and list(frame["log_time"])[:2] == [10.0, 80.0]
    assert "on their way" not in ray_text.from_the_mean(state_records.ray_frame(runs))


def test_rays_from_the_class_means_are_counted_and_told_stable_from_unstable(tiny_run):
    def run(name, rays, residuals, eigenvalues, **config):
        return run_of(tiny_run, name, [record("class_rays", rays, n=20, t1=1000.0, statistic="count"),
                                       *(record(what, v, n=2, t1=1000.0, label=str(digit), statistic="max")
                                         for digit, both in enumerate(zip(residuals, eigenvalues))
                                         for what, v in zip(("class_ray_residual", "class_ray_eigenvalue"), both))], **config)

    runs = [run("wide-standard", 1, [1e-9] * 10, [0.8] * 10), run("wide-adversarial", 2, [1e-9] * 9 + [0.1], [1.5] * 4 + [0.5] * 6),
            run("small-10", 0, [0.3] * 10, [2.0] * 10)]
    assert ray_text.class_rays(runs) == (
        "Solves from the mean state of each class find one and the same ray, which attracts, in wide-standard; 2 rays, of which those of "
        "5 classes attract, in wide-adversarial (9 of ten solves); no ray, in small-10.")
    assert ray_text.class_rays([]) == ""
    frame = state_records.class_ray_frame(runs)
    assert list(frame["solved"]) == [10, 9, 0] and list(frame["attracting"]) == [10, 5, 0]


def test_the_leaky_pair_says_whether_training_makes_an_equilibrium_per_class(tiny_run):
    def told(own):
        facts = (("attractors", 1.0, "count"), ("own_attractors", 1.0, "count"), ("ray_share", 1.0, "mean"),
                 ("ray_residual", 1e-9, "max"), ("ray_eigenvalue", 0.5, "max"))
        runs = [run_of(tiny_run, name, [record("on_a_ray", 1.0, n=20, t1=100.0, statistic="mean"),
                                        *(record(what, v if digit < count else 0.0, n=2, t1=100.0, label=str(digit), statistic=statistic)
                                          for digit in range(10) for what, v, statistic in facts)], leaky=True)
                for name, count in zip(("wide-adversarial-leaky", "wide-standard-leaky"), (own, 0))]
        assert ray_text.leaky_pair(runs[:1]) == ""
        return ray_text.leaky_pair(runs)

    assert told(10) == ("So where equilibria exist by construction, adversarial training makes one per class: 10 of the ten classes end at an "
                        "attracting one of their own after adversarial training and 0 of the ten classes end at an attracting one of "
                        "their own after standard training.")
    assert "did not make one per class: 2 of the ten" in told(2)


def test_how_the_leaky_pair_was_trained_is_read_from_the_configurations():
    from nodelib.experiment import configs

    leaky, plain = configs.get("wide-adversarial-leaky"), configs.get("wide-adversarial")
    said = ray_text.leaky_training(leaky, plain)
    assert f"wide-adversarial-leaky is trained for {leaky.epochs} epochs against steps of PGD (3 of 0.15), wide-adversarial for" in said
    assert f"{plain.epochs} epochs against steps of PGD (3 of 0.15 then 5 of 0.1 then 6 of 0.2 along summed gradients (chapter 7))" in said and "differ in more than the leak" in said
    assert said.endswith("The end time t = 1 of a leaky network is 1.72 of the plain clock.")
    assert "differ" not in ray_text.leaky_training(leaky, dataclasses.replace(leaky, name="x"))


def test_a_ray_attracts_unless_an_eigenvalue_lies_right_of_one():
    attracting, repelling = np.array([0.5, -3.0 + 1.0j]), np.array([0.5, 1.25 + 1.0j, 1.25 - 1.0j])
    said = ray_text.stability(attracting, 1e-9)
    assert said == "The ray attracts: all 2 eigenvalues there have real part below 1, the largest being 0.50."
    said = ray_text.stability(repelling, 1e-9)
    assert said.startswith("The ray repels: of the 3 eigenvalues there, 2 have real part above 1")
    assert "repels (largest real part 1.25" in ray_text.stability(repelling, 1e-9, short=True)


def test_a_point_that_is_no_ray_neither_attracts_nor_repels():
    for values in (np.array([0.5]), np.array([0.5, 1.25])):
        said = ray_text.stability(values, 0.27)
        assert said.startswith("No ray was found: the solver stops at a residual of 0.27, although a solution of f(w) = w exists.")
        assert "repel" not in said and "attract" not in said and "nothing about a ray elsewhere" in said
    assert "eigenvalue" not in ray_text.stability(values, 0.27, short=True)


def test_rays_are_silent_without_records(tiny_run):
    assert ray_text.rays(state_records.ray_frame([])) is None


def test_rays_are_told_of_the_network_that_has_them_and_the_other_is_named(tiny_run):
    measured = [record("on_a_ray", 0.25, n=20, t1=1000.0, statistic="mean")]
    frame = state_records.ray_frame([run_of(tiny_run, "wide-adversarial", measured)])
    said = ray_text.rays(frame)
    assert "10 units of log time after t = 1000, after adversarial training 5 of 20 images are on a ray, and 0 of the ten" in said
    assert said.endswith("after standard training this is not measured yet.")
    assert "classes" not in ray_text.rays(frame, short=True)


def test_a_ray_from_the_mean_state_is_told_from_a_failed_solve(tiny_run):
    def run(name, on, residual, eigenvalue):
        return run_of(tiny_run, name, [record("on_a_ray", on, n=20, t1=1000.0, statistic="mean"),
                                       *(record(what, v, n=2, t1=1000.0, label=str(digit), statistic=statistic)
                                         for digit in range(10) for what, v, statistic in
                                         (("attractors", on, "count"), ("ray_residual", residual, "max"),
                                          ("ray_eigenvalue", eigenvalue, "max")))])

    frame = state_records.ray_frame([run("small-10", 0, 0.27, 2.8), run("wide-adversarial", 0, 8e-12, 1.54),
                                     run("small-random", 1, 1e-9, 0.2)])
    assert ray_text.from_the_mean(frame) == (
        "Where no image is on a ray after 10 units, a solve from the mean state finds one that repels in wide-adversarial (residual 8e-12, largest real "
        "part 1.54); none in small-10 (residual 0.27).")
    assert ray_text.from_the_mean(frame[:1]).endswith("finds none in small-10 (residual 0.27).")
    assert ray_text.from_the_mean(frame[2:]) == ""
    slow = ray_text.from_the_mean(state_records.ray_frame([run("wide-standard", 0, 8e-12, 0.84)]))
    assert "one that attracts in wide-standard (residual 8e-12, largest real part 0.84; a deviation shrinks tenfold in 14 units" in slow
    assert "on their way" not in ray_text.from_the_mean(state_records.ray_frame([run("wide-standard", 0, 8e-12, 0.2)]))


def test_where_directions_come_to_rest_is_listed_by_share(tiny_run):
    runs = [run_of(tiny_run, name, [record("on_a_ray", share, n=20, t1=1000.0, statistic="mean")])
            for name, share in (("small-10", 0.0), ("small-random", 1.0), ("small-100", 0.0))]
    assert ray_text.at_rest(runs) == (
        "Followed from t = 1000 on for a further factor of 22,000 in time (10 units of log time), the direction of this share of 20 images comes to rest: "
        "100 % in small-random; 0 % in small-10, small-100; not followed: large-10, large-random, large-100, wide-standard, wide-adversarial.")
    again = dataclasses.replace(runs[1], seed=1)
    assert "100 % in small-random (seed 0), small-random (seed 1);" in ray_text.at_rest([*runs, again])
    assert ray_text.at_rest([]).startswith("No network")


def test_one_ray_for_all_classes_is_told_from_one_ray_per_class(tiny_run):
    def run(name, distinct, share=1.0):
        return run_of(tiny_run, name, [record("distinct_attractors", distinct, n=20, t1=1000.0, statistic="count"),
                                       *(record("ray_share", share, n=2, t1=1000.0, label=str(digit), statistic="mean")
                                         for digit in range(10))])

    one, each, few = run("small-random", 1), run("small-100", 10), run("small-10", 1, share=0.3)
    assert ray_text.shared([few]).startswith("In no network")
    assert ray_text.shared([one, each]).startswith("In small-random all ten classes end on one and the same ray")
    assert "small-100" not in ray_text.shared([one, each])
    assert ray_text.shared([each, run_of(tiny_run, "small-10", [])]).startswith("In no network")
    assert ray_text.shared([one]).endswith("every image that is on that ray gets the same answer.")
    assert "(at least 90 % of every class): a steady state" in ray_text.shared([one])
    nearly = run("large-10", 1, share=0.7)
    assert "In large-10 the images that are on a ray by then, some of every class, are on a single one, too." in ray_text.shared([one, nearly])
    assert "large-10" not in ray_text.shared([one, nearly], short=True)
    two = run_of(tiny_run, "large-100", one.measurements)
    assert ray_text.shared([two, one]).startswith("In each of large-100 and small-random all ten classes")
    assert ray_text.shared([one], short=True).endswith("not one per class.")


@pytest.mark.parametrize("exponent, end", [(-0.82, "-0.82 ± 0.02. So ± is not the whole error: the estimate is off by 0.04."),
                                           (-0.79, "-0.79 ± 0.02.")])
def test_on_a_common_ray_the_exponent_is_held_against_the_eigenvalue(tiny_run, exponent, end):
    measured = [record("distinct_attractors", 1, n=20, t1=1000.0, statistic="count"),
                record("on_a_ray", 1.0, n=20, t1=1000.0, statistic="mean"),
                record("lyapunov_exponent", exponent, n=12, t1=1000.0, statistic="mean", standard_error=0.01)]
    for digit in range(10):
        measured += [record("ray_share", 1.0, n=2, t1=1000.0, label=str(digit), statistic="mean"),
                     record("ray_eigenvalue", 0.22, n=2, t1=1000.0, label=str(digit), statistic="max")]
    said = ray_text.exponents([run_of(tiny_run, "small-random", measured), run_of(tiny_run, "small-10", [])])
    assert "less 1: -0.78 in small-random (seed 0), where the estimate is " in said and said.endswith(end)
    assert ray_text.exponents([]) == ""
    slow = [record("on_a_ray", 0.0, n=20, t1=1000.0, statistic="mean"),
            record("lyapunov_exponent", 0.05, n=12, t1=1000.0, statistic="mean", standard_error=0.01)]
    known = run_of(tiny_run, "small-random", measured)
    told = ray_text.exponents([known, dataclasses.replace(known, seed=1), run_of(tiny_run, "wide-adversarial", slow)])
    if exponent == -0.82:
        assert "All 2 estimates are low, by 0.04: an average over" in told and "So 0.05 ± 0.02 of wide-adversarial speak of the way" in told
    else:
        assert "sign" not in told


def test_networks_at_rest_are_told_from_those_that_move(tiny_run):
    late = [record("norm", 2.0, n=5, t1=100.0), record("norm", 2.0, n=5, t1=1000.0),
            record("state_accuracy", 0.976, n=5, t1=1000.0, statistic="mean")]
    still, moving = ([*late, record("relative_speed", speed, n=5, t1=1000.0)] for speed in (1e-9, 1e-3))
    said = ray_text.come_to_rest([run_of(tiny_run, "small-100-nolast", still, last_norm=False)])
    assert "nearly come to rest (small-100-nolast, seed 0; at t = 1000 the median one moves by 0.0 % of its size" in said
    assert "97.6 % of 5 images are still classified correctly at t = 1000" in said
    attacked = [{"id": "pgd10-exact-t500", "t1": 500.0, "accuracy": 0.01, "n": 50, "epsilon": 0.3}]
    run = dataclasses.replace(run_of(tiny_run, "small-100-nolast", still, last_norm=False), metrics=attacked)
    assert "PGD of ten steps leaves 1.0 % of 50 at t = 500" in ray_text.come_to_rest([run])
    early = dataclasses.replace(run, measurements=[*still, record("relative_speed", 5e-5, n=5, t1=500.0)])
    assert "by 2.5 % of its size per unit of log time, so that it was not attacked at rest." in ray_text.come_to_rest([early])
    assert ray_text.come_to_rest([run_of(tiny_run, "small-100-nolast", moving, last_norm=False), run_of(tiny_run, "small-100", still)]) == ""


def test_rest_is_told_with_what_it_does_and_does_not_bring(tiny_run):
    run = run_of(tiny_run, "small-100-nolast", [], last_norm=False)
    run = dataclasses.replace(run, metrics=[{"id": f"pgd10-exact-t{t1:g}", "t1": t1, "accuracy": a, "n": 50, "epsilon": 0.3}
                                            for t1, a in ((100.0, 0.5), (500.0, 0.01))])
    said = ray_text.rest(run, (1e4, 0.97, 0.975, 49.0, 64.0))
    assert "97.0 % of the numerical states is exactly zero" in said and "97.5 % of the images" in said
    assert "its class with it" in said and "not one state per class" in said and said.endswith("keeps 1.0 % at t = 500.")
    on_the_way = ray_text.rest(run, (1e4, 0.1, 0.5, 49.0, 64.0))
    assert "still on their way" in on_the_way and "stays" not in on_the_way
    assert "of no use" in ray_text.rest(run, (1e4, 0.97, 0.3, 2.0, 64.0))
    attacked_early = dataclasses.replace(run, measurements=[record("relative_speed", 5e-5, n=5, t1=500.0)])
    assert "not attacked at rest" in ray_text.rest(attacked_early, (1e4, 0.97, 0.975, 49.0, 64.0))
    assert "not measured yet" in ray_text.rest(None, None) and "not measured yet" in ray_text.rest(run, None)


def test_a_leaky_network_is_held_against_a_plain_one_trained_as_long(tiny_run):
    attacked = [{"id": "pgd10-exact-t1", "t1": 1.0, "correct": 87, "accuracy": 0.87, "n": 100}]
    leaky = dataclasses.replace(run_of(tiny_run, "wide-adversarial-leaky", [], epochs=2), metrics=attacked)
    stages = [{"runs": ["wide-adversarial"], "epochs": [epochs], "left": {"wide-adversarial": {"pgd10-exact": [left, 100]}}}
              for epochs, left in ((2, 85), (3, 90))]
    said = ray_text.leaky_like_for_like([leaky], stages)
    assert said.startswith("After as many epochs against the same attack as wide-adversarial-leaky had, the plain network kept 85.0 % [")
    assert "the leaky one 87.0 % [" in said
    assert ray_text.leaky_like_for_like([leaky], stages[1:]) == ray_text.leaky_like_for_like([], stages) == ""
