"""The pair's stored records as tidy data and figures: selected by meaning, honest where there are none."""

import dataclasses

import numpy as np
import pytest

from nodelib.chapters import adversarial_training, pair
from nodelib.experiment import evaluation
from nodelib.experiment.configs import AttackConfig
from nodelib.experiment.evaluation import Measurement


def scored(measurement: Measurement, correct: int, nfe: float = 26.0) -> dict:
    outcomes = np.arange(measurement.n) < correct
    return evaluation.record(measurement, outcomes, nfe, 0.0, "cpu", None)


def run_of(tiny_run, name: str, seed: int = 0, metrics=(), measurements=()):
    config = {**tiny_run.config, "adversarial": {"epsilon": 0.3} if "adversarial" in name else None}
    return dataclasses.replace(tiny_run, name=name, seed=seed, config=config, metrics=list(metrics),
                               measurements=list(measurements))


SWEPT = [scored(Measurement(t1, 100, label="any-name"), correct, nfe)
         for t1, correct, nfe in ((0.1, 30, 20), (1.0, 90, 26))]
FGSM = [scored(Measurement(1.0, 100, "fgsm", 0.3, label="sweep"), 40)]


def test_the_pair_is_found_with_all_its_seeds_standard_first(tiny_run):
    runs = [run_of(tiny_run, *key)
            for key in (("wide-adversarial", 0), ("wide-standard", 1), ("small-10", 0), ("wide-standard", 0))]
    found = [(r.name, r.seed) for r in pair.pair_runs(runs)]
    assert found == [("wide-standard", 0), ("wide-standard", 1), ("wide-adversarial", 0)]


def test_end_time_records_are_selected_by_their_fields_and_the_larger_sample_wins(tiny_run):
    others = [scored(Measurement(1.0, 100, pooling="random", label="x"), 1),
              scored(Measurement(1.0, 100, "fgsm", 0.3, gradient="adjoint"), 2),
              scored(Measurement(1.0, 100, "fgsm", 0.3, clip=False), 3),
              scored(Measurement(1.0, 100, "fgsm", 0.1), 4),
              scored(Measurement(1.0, 100, rtol=1e-5, atol=1e-5), 5)]
    larger = scored(Measurement(1.0, 200, label="table"), 150)
    frame = pair.end_time_frame([run_of(tiny_run, "wide-standard", metrics=[larger, *others, *SWEPT, *FGSM])])
    assert frame[["test", "t1", "accuracy", "n"]].values.tolist() == [
        ["clean", 0.1, 30.0, 100], ["clean", 1.0, 75.0, 200], ["FGSM, epsilon 0.3", 1.0, 40.0, 100]]
    assert (frame["low"] < frame["accuracy"]).all() and (frame["accuracy"] < frame["high"]).all()


def test_an_attack_with_rescaled_logits_is_not_the_plain_one(tiny_run):
    rescaled = {**FGSM[0], "settings": {**FGSM[0]["settings"], "logit_scale": 0.01}}
    assert not len(pair.end_time_frame([run_of(tiny_run, "wide-standard", metrics=[rescaled])]))


def test_end_time_curves_show_the_mean_over_seeds_and_hide_no_seed(tiny_run):
    worse = [{**r, "accuracy": r["accuracy"] - 0.2, "low": r["low"] - 0.2} for r in SWEPT]
    frame = pair.end_time_frame([run_of(tiny_run, "wide-standard", 0, SWEPT),
                                 run_of(tiny_run, "wide-standard", 1, worse)])
    (axis,) = adversarial_training.end_time_curves(frame).axes
    assert axis.lines[0].get_xydata() == pytest.approx(np.array([[0.1, 20], [1.0, 80]]))
    intervals, seeds = (band.get_paths()[0].vertices for band in axis.collections)
    assert seeds[:, 1].min() == pytest.approx(10) and seeds[:, 1].max() == pytest.approx(90)
    assert intervals[:, 1].min() < 10 and intervals[:, 1].max() > 90


def test_figures_can_be_drawn_without_records():
    empty = pair.end_time_frame([])
    for figure in (adversarial_training.end_time_curves(empty),
                   adversarial_training.complexity(pair.complexity_frame([])),
                   adversarial_training.nfe(pair.training_nfe_frame([]), empty)):
        assert not any(axis.collections for axis in figure.axes)


def test_the_legend_names_each_network_once_however_many_seeds(tiny_run):
    runs = [run_of(tiny_run, name, seed, SWEPT)
            for name in ("wide-standard", "wide-adversarial") for seed in (0, 1)]
    figure = adversarial_training.nfe(pair.training_nfe_frame(runs), pair.end_time_frame(runs))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["standard", "adversarial"]
    assert len(figure.axes[0].lines) == 4


def test_training_is_counted_in_passes_over_the_images(tiny_run):
    frame = pair.training_nfe_frame([run_of(tiny_run, "wide-standard")])
    assert 0 < frame["epoch"].min() and frame["epoch"].max() <= tiny_run.config["epochs"]
    assert frame["nfe"].mean() == pytest.approx(tiny_run.history["nfe_forward"].mean())


def test_attacks_are_put_in_words():
    strong = scored(Measurement(1.0, 10, "pgd", 0.3, steps=40, step_size=0.01, restarts=5), 1)
    assert pair.describe_attack(strong) == "PGD, 40 steps, 5 restarts"
    assert pair.describe_attack(FGSM[0]) == "FGSM"
    worst = {**strong, "attack": "worst",
             "combines": ["none-t1", "mask-clean-1e-6-t1", "fgsm-exact-t1", "square-t1"]}
    assert pair.describe_attack(worst) == "worst case per image over 2 records of attacks"
    gap = scored(Measurement(1.0, 10, "pgd", 0.3, steps=10, step_size=0.075, logit_scale="gap"), 1)
    assert pair.describe_attack(gap) == "PGD, 10 steps, rescaled logits"
    summed = scored(Measurement(1.0, 100, "pgd", 0.3, steps=10, step_size=0.1, loss="margin", noise=0.15,
                                momentum=1.0), 40)
    assert pair.describe_attack(summed) == (
        "PGD, 10 steps, margin loss, along summed gradients (noise 0.15, momentum 1)")
    assert pair.describe_attack({"attack": "square", "settings": {"steps": 5000}, "source": "black-box"}) == \
        "Square, 5,000 queries, black-box"


@pytest.mark.parametrize("change, said", [
    (dict(queries=1000), "from where 1,000 queries of Square end"),
    (dict(targeted=True, loss="cross-entropy"), "one wrong class after another"),
    (dict(attack_steps=20), "solved by rk4, 20 steps"), (dict(seed=1), "seed 1"),
    (dict(attack_tolerance=1e-6), "solved at tolerance 1e-06")])
def test_attacks_that_differ_differ_in_words(change, said):
    plain, other = (pair.describe_attack(scored(Measurement(1.0, 10, "pgd", 0.3, **{
        **dict(steps=40, step_size=0.02, loss="margin"), **changes}), 5)) for changes in ({}, change))
    assert said in other and said not in plain


def test_the_robustness_table_begins_with_clean_accuracy_and_ends_with_the_strongest_attack(tiny_run):
    pgd = [scored(Measurement(1.0, 100, "pgd", 0.3, steps=steps, step_size=0.03, label=f"p{steps}"), correct)
           for steps, correct in ((40, 5), (10, 20))]
    unclipped = scored(Measurement(1.0, 100, "fgsm", 0.3, clip=False, label="u"), 0)
    worst = scored(Measurement(1.0, 10, "worst", 0.3), 1)
    run = run_of(tiny_run, "wide-standard", metrics=[worst, *pgd, unclipped, *FGSM, *SWEPT])
    frame = pair.robustness_frame([run])
    assert frame["attack"].tolist()[:4] == ["none", "FGSM", "PGD, 10 steps", "PGD, 40 steps"]
    # the worst case last, on whatever images
    assert frame["accuracy"].tolist() == pytest.approx([90, 40, 20, 5, 10])


def test_reach_and_nfe_are_none_until_enough_is_recorded(tiny_run):
    run = run_of(tiny_run, "wide-standard", metrics=SWEPT)
    assert pair.reach(run) is None
    times = [*np.geomspace(0.1, 0.9, 30), 1.0, *np.geomspace(2.0, 1000.0, 12)]
    curve = [scored(Measurement(float(t), 100, label=f"s{t}"), 90 if t < 50 else 20) for t in times]

    class Known(type(tiny_run)):
        def outcomes(self, record_id):
            record = self.metric(record_id)
            return np.arange(record["n"]) < record["correct"]

    def known(metrics):
        bare = run_of(tiny_run, "wide-standard", metrics=metrics)
        return Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})

    assert pair.reach(known(curve)) == max(t for t in times if t < 50)
    # of 200 images at t1 = 1 the first 100 are all right: 90 of 100 later are 10 points less, 89 too few
    larger = [scored(Measurement(1.0, 200, label="large"), 150)]
    lower = [scored(Measurement(float(t), 100, label=f"s{t}"), 90 if t < 20 else 89)
             for t in times if t != 1.0]
    assert pair.reach(known(larger + lower)) == max(t for t in times if t < 20)


def test_complexity_joins_measurements_with_the_cost_of_a_test_solve(tiny_run):
    measured = [{"name": "jacobian_norm", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median",
                 "value": 2.0, "n": 4, "settings": {}}]
    runs = [run_of(tiny_run, "wide-standard", 0, SWEPT, measured),
            run_of(tiny_run, "wide-adversarial", 0, [], measured)]
    frame = pair.complexity_frame(runs)
    assert frame.values.tolist() == [["wide-standard", 0, 26.0, "jacobian_norm", 2.0]]
    figure = adversarial_training.complexity(frame)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert drawn == {"other networks": [], "wide-standard": [[26.0, 2.0]], "wide-adversarial": []}


def test_random_pooling_is_held_for_attack_and_answer_or_drawn_anew(tiny_run):
    model, (images, labels) = tiny_run.load_model(), evaluation.test_subset(12)
    attack, seen = AttackConfig(epsilon=0.3, steps=3, step_size=0.1), []
    drawn = model.pool._draw
    model.pool._draw = lambda *shape: (seen.append(shape[0]), drawn(*shape))[1]
    found = pair.under_random_pooling(model, images, labels, attack)
    assert seen == [12, 12, 12, 12, 1] and model.pooling == "fixed" and model.pool.generator is None
    assert set(found) == {"anew", "once"}
    assert all((correct.dtype, correct.shape) == (bool, (12,)) for correct in found.values())
    again = pair.under_random_pooling(model, images, labels, attack)
    assert all((again[name] == found[name]).all() for name in found)


def measured(tiny_run, name, **correct):
    """A run of a name whose records at t = 1 left the first so many of 100 images."""
    records = []
    for label, left in correct.items():
        attack, epsilon = {"none": ("none", 0.0), "worst": ("worst", 0.3)}.get(label, ("pgd", 0.3))
        records.append(scored(Measurement(1.0, 100, attack, epsilon, label=label.replace("_", "-")), left))

    class Known(type(tiny_run)):
        def outcomes(self, record_id):
            return np.arange(100) < self.metric(record_id)["correct"]
    bare = run_of(tiny_run, name, metrics=records)
    return Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})


def test_a_sweep_is_on_the_same_images_at_every_end_time(tiny_run):
    records = [scored(Measurement(t1, n), n // 2)
               for t1, n in zip((0.5, 1.0, *range(2, 12)), (10, 100, *[20] * 10))]
    records += [scored(Measurement(20.0, 100, label="ladder-clean"), 50)]  # a rung is no sweep's

    class Known(type(tiny_run)):
        def outcomes(self, record_id):
            return np.arange(100) < 5
    bare = run_of(tiny_run, "small-10", metrics=records)
    run = Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})
    frame = pair.sweep_frame([run])
    assert len(frame) == 12 and set(frame["n"]) == {10}
    assert set(frame["accuracy"]) == {50.0} and set(frame["test"]) == {"clean"}
    assert len(pair.sweep_frame([run], least=13)) == 0


def test_attacks_are_compared_on_the_images_that_all_networks_of_a_row_were_tried_on(tiny_run):
    first, second = (measured(tiny_run, name, none=98, mask_square=left)
                     for name, left in (("wide-standard", 30), ("wide-adversarial", 84)))
    second.metric("mask-square-t1")["n"] = 50
    object.__setattr__(second, "outcomes", lambda record_id: np.arange(second.metric(record_id)["n"]) < 40)
    rows = adversarial_training.attack_rows([first, second],
                                            {"none": "clean", "mask-square": "Square", "worst": "all"})
    assert rows[1] == ["Square", "50", "60.0 [46.2, 72.4]", "80.0 [67.0, 88.8]"] and rows[0][1] == "100"
    assert rows[2] == ["all", "0", None, None]
    unattacked = measured(tiny_run, "wide-adversarial", none=90)
    rows = adversarial_training.attack_rows([first, unattacked], {"mask-square": "Square"})
    assert rows == [["Square", "100", "30.0 [21.9, 39.6]", None]]
