"""The pair's stored records as tidy data and figures: selected by meaning, honest where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nodelib.chapters import adversarial_training, pair, pair_text
from nodelib.experiment import configs, evaluation
from nodelib.experiment.configs import AttackConfig
from nodelib.experiment.evaluation import Measurement


def scored(measurement: Measurement, correct: int, nfe: float = 26.0) -> dict:
    outcomes = np.arange(measurement.n) < correct
    return evaluation.record(measurement, outcomes, nfe, 0.0, "cpu", None)


def run_of(tiny_run, name: str, seed: int = 0, metrics=(), measurements=()):
    config = {**tiny_run.config, "adversarial": {"epsilon": 0.3} if "adversarial" in name else None}
    return dataclasses.replace(tiny_run, name=name, seed=seed, config=config, metrics=list(metrics),
                               measurements=list(measurements))


SWEPT = [scored(Measurement(t1, 100, label="any-name"), correct, nfe) for t1, correct, nfe in ((0.1, 30, 20), (1.0, 90, 26))]
FGSM = [scored(Measurement(1.0, 100, "fgsm", 0.3, label="sweep"), 40)]


def test_the_pair_is_found_with_all_its_seeds_standard_first(tiny_run):
    runs = [run_of(tiny_run, *key) for key in (("wide-adversarial", 0), ("wide-standard", 1), ("small-10", 0), ("wide-standard", 0))]
    assert [(r.name, r.seed) for r in pair.pair_runs(runs)] == [("wide-standard", 0), ("wide-standard", 1), ("wide-adversarial", 0)]


def test_end_time_records_are_selected_by_their_fields_and_the_larger_sample_wins(tiny_run):
    others = [scored(Measurement(1.0, 100, pooling="random", label="x"), 1),
              scored(Measurement(1.0, 100, "fgsm", 0.3, gradient="adjoint"), 2),
              scored(Measurement(1.0, 100, "fgsm", 0.3, clip=False), 3),
              scored(Measurement(1.0, 100, "fgsm", 0.1), 4), scored(Measurement(1.0, 100, rtol=1e-5, atol=1e-5), 5)]
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
    frame = pair.end_time_frame([run_of(tiny_run, "wide-standard", 0, SWEPT), run_of(tiny_run, "wide-standard", 1, worse)])
    (axis,) = adversarial_training.end_time_curves(frame).axes
    assert axis.lines[0].get_xydata() == pytest.approx(np.array([[0.1, 20], [1.0, 80]]))
    intervals, seeds = (band.get_paths()[0].vertices for band in axis.collections)
    assert seeds[:, 1].min() == pytest.approx(10) and seeds[:, 1].max() == pytest.approx(90)
    assert intervals[:, 1].min() < 10 and intervals[:, 1].max() > 90


def test_without_records_every_figure_says_so():
    empty = pair.end_time_frame([])
    for figure, blanks in ((adversarial_training.end_time_curves(empty), 1), (adversarial_training.complexity(pair.complexity_frame([])), 3),
                           (adversarial_training.nfe(pair.training_nfe_frame([]), empty), 2)):
        texts = [text.get_text() for axis in figure.axes for text in axis.texts]
        assert texts == ["not measured yet"] * blanks


def test_the_legend_names_each_network_once_however_many_seeds(tiny_run):
    runs = [run_of(tiny_run, name, seed, SWEPT) for name in ("wide-standard", "wide-adversarial") for seed in (0, 1)]
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
    worst = {**strong, "attack": "worst", "combines": ["none-t1", "mask-clean-1e-6-t1", "fgsm-exact-t1", "square-t1"]}
    assert pair.describe_attack(worst) == "worst case per image over 2 records of attacks"
    gap = scored(Measurement(1.0, 10, "pgd", 0.3, steps=10, step_size=0.075, logit_scale="gap"), 1)
    assert pair.describe_attack(gap) == "PGD, 10 steps, rescaled logits"
    assert pair.describe_attack({"attack": "square", "settings": {"steps": 5000}, "source": "black-box"}) == \
        "Square, 5,000 queries, black-box"


def test_the_robustness_table_begins_with_clean_accuracy_and_ends_with_the_strongest_attack(tiny_run):
    pgd = [scored(Measurement(1.0, 100, "pgd", 0.3, steps=steps, step_size=0.03, label=f"p{steps}"), correct)
           for steps, correct in ((40, 5), (10, 20))]
    unclipped = scored(Measurement(1.0, 100, "fgsm", 0.3, clip=False, label="u"), 0)
    worst = scored(Measurement(1.0, 10, "worst", 0.3), 1)
    frame = pair.robustness_frame([run_of(tiny_run, "wide-standard", metrics=[worst, *pgd, unclipped, *FGSM, *SWEPT])])
    assert frame["attack"].tolist()[:4] == ["none", "FGSM", "PGD, 10 steps", "PGD, 40 steps"]
    assert frame["accuracy"].tolist() == pytest.approx([90, 40, 20, 5, 10])  # the worst case last, on whatever images


def test_reach_and_nfe_are_none_until_enough_is_recorded(tiny_run):
    run = run_of(tiny_run, "wide-standard", metrics=SWEPT)
    assert pair.reach(run) is None and pair.test_nfe(run) == 26.0 and pair.test_nfe(run, 7.0) is None
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
    lower = [scored(Measurement(float(t), 100, label=f"s{t}"), 90 if t < 20 else 89) for t in times if t != 1.0]
    assert pair.reach(known(larger + lower)) == max(t for t in times if t < 20)


def test_complexity_joins_measurements_with_the_cost_of_a_test_solve(tiny_run):
    measured = [{"name": "jacobian_norm", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median", "value": 2.0,
                 "n": 4, "settings": {}}]
    runs = [run_of(tiny_run, "wide-standard", 0, SWEPT, measured), run_of(tiny_run, "wide-adversarial", 0, [], measured)]
    frame = pair.complexity_frame(runs)
    assert frame.values.tolist() == [["wide-standard", 0, 26.0, "jacobian_norm", 2.0]]
    figure = adversarial_training.complexity(frame)
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[26.0, 2.0]]


def test_sentences_are_there_as_soon_as_both_networks_have_what_they_speak_of(tiny_run):
    standard, adversarial = run_of(tiny_run, "wide-standard", 0, SWEPT + FGSM), run_of(tiny_run, "wide-adversarial", 0, SWEPT)
    assert pair_text.cost([standard]) is None and "takes 26 evaluations" in pair_text.cost([standard, adversarial])
    assert pair_text.robustness([standard, adversarial]) is None
    attacked = run_of(tiny_run, "wide-adversarial", 0, SWEPT + [scored(Measurement(1.0, 100, "fgsm", 0.3), 70)])
    said = pair_text.robustness([standard, attacked])
    assert "adversarial network keeps 70 % of 100 images (95 % interval 60.4 to 78.1, one seed)" in said
    assert "standard network keeps 40 %" in said
    assert pair_text.reach([standard, attacked]) is None and pair_text.complexity([standard, attacked]) is None


def test_the_order_of_the_costs_is_followed_to_where_it_turns_round(tiny_run):
    times = (1.0, 1.26, 10.0, 1000.0)
    def run(name, clean, attacked):
        return run_of(tiny_run, name, 0, [scored(Measurement(t1, 10), 9, nfe) for t1, nfe in zip(times, clean)]
                      + [scored(Measurement(1.0, 10, "fgsm", 0.3), 1, attacked)])

    standard, adversarial = run("wide-standard", (14, 32, 110, 300), 32), run("wide-adversarial", (20, 20, 38, 92), 20)
    said = pair_text.cost_elsewhere([standard, adversarial])
    assert said.startswith("That order turns round at once: at t = 1.26 it is 32 after standard and 20 after adversarial training")
    assert "; at t = 1,000, 300 after standard" in said
    assert "; on images under FGSM, epsilon 0.3 at t = 1, 32 after standard and 20 after adversarial training. So the" in said
    dearer = run("wide-adversarial", (20, 40, 120, 400), 40)
    assert pair_text.cost_elsewhere([standard, dearer]).startswith("At t = 10, 110 after standard")
    far = run("wide-adversarial", (200, 210, 220, 400), 40)
    assert "hangs on" in said and "hangs on" not in pair_text.cost_elsewhere([standard, far])
    assert pair_text.cost_elsewhere([standard]) is None


def test_attacks_that_the_adversarial_network_has_not_seen_are_named(tiny_run):
    tried = [scored(Measurement(1.0, 10, name, 0.3), 5) for name in ("apgd-ce", "fab-t", "square", "hop-skip-jump")]
    run = run_of(tiny_run, "wide-adversarial", 0, tried[:2])
    assert "On our adversarial network Square and HopSkipJump have not been run, so that" in pair_text.strongest_missing([run])
    assert pair_text.strongest_missing([run_of(tiny_run, "wide-adversarial", 0, tried[:3])]) .startswith("On our adversarial network HopSkipJump has not")
    assert pair_text.strongest_missing([run_of(tiny_run, "wide-adversarial", 0, tried)]) == ""


def test_what_is_missing_is_listed_until_nothing_is(tiny_run):
    assert pair_text.missing([]) == list(configs.PAIR)
    assert pair_text.missing([run_of(tiny_run, "wide-standard", 0, SWEPT)]) == [
        "accuracy at 40 end times of wide-standard", "accuracy under attack of wide-standard", "complexity of wide-standard",
        "wide-adversarial"]


def test_the_recipe_is_that_of_the_stored_run(tiny_run):
    run = run_of(tiny_run, "wide-adversarial")
    run = dataclasses.replace(run, config={**run.config, "adversarial": {"steps": 40, "step_size": 0.01, "epsilon": 0.3}})
    assert "PGD with 40 steps of 0.01, from" in pair_text.recipe([run]) and "cycles" not in pair_text.recipe([run])
    assert "40 steps of 0.01, projects each onto the ball of 0.3 around the original" in pair_text.recipe([run])
    assert "Neither is stored yet" in pair_text.recipe([])


def test_the_recipe_tells_how_the_attack_grew(tiny_run):
    attack = {"steps": 5, "step_size": 0.1, "epsilon": 0.3, "curriculum": [[3, 0.15]]}
    run = run_of(tiny_run, "wide-adversarial")
    run = dataclasses.replace(run, config={**run.config, "adversarial": attack, "cycles": [2, 1], "epochs": 3})
    said = pair_text.recipe([run])
    assert "3 epochs of every batch twice" in said and "3 steps of 0.15 for 2 epochs, then 5 steps of 0.1 for 1 epoch," in said
    assert "The second's epochs come in 2 cycles (2, 1)" in said and "draws them once" not in said
    same = {**attack, "curriculum": [[3, 0.15], [5, 0.1]]}
    longer = dataclasses.replace(run, config={**run.config, "adversarial": same, "cycles": [2, 1, 1], "epochs": 4})
    assert "3 steps of 0.15 for 2 epochs, then 5 steps of 0.1 for 2 epochs," in pair_text.recipe([longer])
    run = dataclasses.replace(run, config={**run.config, "adversarial": {**attack, "shared_pooling": True}})
    assert "except in the last cycle, where a step draws them once" in pair_text.recipe([run])
    said = pair_text.recipe([dataclasses.replace(run, config=configs.get("wide-adversarial").to_dict())])
    assert "5 steps of 0.1 for 2 epochs, then 6 steps of 0.2 along summed gradients (explained below) for 1 epoch, from" in said
    assert "except in the last 2 cycles, where a step draws them once" in said


@pytest.mark.parametrize("values, said", [([26.0], "26"), ([1.234, 1.234], "1.23"), ([94.26, 97.1], "94.3 to 97.1"),
                                          ([1000, 200], "200 to 1,000")])
def test_spans_are_one_number_or_two(values, said):
    assert pair_text.span(values) == said


def test_random_pooling_is_held_for_attack_and_answer_or_drawn_anew(tiny_run):
    model, (images, labels) = tiny_run.load_model(), evaluation.test_subset(12)
    attack, seen = AttackConfig(epsilon=0.3, steps=3, step_size=0.1), []
    drawn = model.pool._draw
    model.pool._draw = lambda *shape: (seen.append(shape[0]), drawn(*shape))[1]
    found = pair.under_random_pooling(model, images, labels, attack)
    assert seen == [12, 12, 12, 12, 1] and model.pooling == "fixed" and model.pool.generator is None
    assert {name: (correct.dtype, correct.shape) for name, correct in found.items()} == dict.fromkeys(("anew", "once"), (bool, (12,)))
    again = pair.under_random_pooling(model, images, labels, attack)
    assert all((again[name] == found[name]).all() for name in found)


@pytest.mark.parametrize("anew, once, said", [(190, 150, "the draws blunt the attack"), (150, 190, "the draws sharpen it"),
                                              (150, 149, "no significant difference")])
def test_whether_draws_blunt_the_attack_is_told_from_a_paired_test(anew, once, said):
    found = {name: np.arange(200) < count for name, count in (("anew", anew), ("once", once))}
    words = pair_text.blunted(found, AttackConfig(epsilon=0.3, steps=5, step_size=0.1))
    assert said in words and f"{anew / 2:.1f} % [" in words and f"{once / 2:.1f} % [" in words and "5 steps of 0.1" in words


def test_a_blind_attack_that_gets_further_is_a_sign_of_masked_gradients(tiny_run):
    def attacked(correct, dropped):
        square = scored(Measurement(1.0, 100, "square", 0.3), correct)
        return run_of(tiny_run, "wide-adversarial", metrics=[{**square, "settings": {**square["settings"], "dropped": dropped}}])
    assert "Square, which uses no gradient, broke 30 of the 80 images that the attacks before it had left of wide-adversarial" in \
        pair_text.blind_ahead([attacked(50, 20)])
    assert pair_text.blind_ahead([attacked(76, 20)]) == pair_text.blind_ahead([attacked(80, 20)]) == pair_text.blind_ahead([attacked(0, 100)]) == pair_text.blind_ahead([]) == ""


def test_why_a_blind_attack_gets_further_is_told_by_what_changes_nothing(tiny_run):
    def told(tight, margin, **more):
        shares = {"plain": 80, **more, "margin": margin, "rescaled": 82, "square": 50, "square-rescored": tight}
        records = [scored(Measurement(1.0, 100, "pgd" if "square" not in name else "square", 0.3, label=f"mask-{name}"), left)
                   for name, left in shares.items()]

        class Known(type(tiny_run)):
            def outcomes(self, record_id):
                return np.arange(100) < self.metric(record_id)["correct"]
        bare = run_of(tiny_run, pair_text.PLAIN, metrics=records)
        return pair_text.why_blind([Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})])

    assert pair_text.why_blind([]) == "Why is not measured yet."
    said = told(52, 79)
    assert "Square leaves 50.0 %, and 52.0 % when its images are scored one by one at tolerance 1e-5: they fool the network" in said
    assert "Ten steps of PGD leave 80.0 % of 100 images, and 79.0 to 82.0 % with another loss" in said and "none of them takes" in said
    assert "So it is the loss that misleads" in said
    assert "a part of them fools the solver" in told(70, 79) and "significantly less with margin" in told(52, 50)
    assert "copies with noise of 0 ten steps leave 60.0 %: the gradient around an image leads further" in told(52, 79, smoothed=60)
    assert "ten steps leave 79.0 %." in told(52, 79, smoothed=79)
    assert "misleads" not in told(52, 50) and "misleads" not in told(78, 79)
    assert "costs no more passes than plain PGD and leaves 66.0 %" in told(52, 79, momentum=66)


def measured(tiny_run, name, **correct):
    """A run of a name whose records at t = 1 left the first so many of 100 images."""
    records = [scored(Measurement(1.0, 100, "none" if label == "none" else "worst" if label == "worst" else "pgd",
                                  0.0 if label == "none" else 0.3, label=label.replace("_", "-")), left)
               for label, left in correct.items()]

    class Known(type(tiny_run)):
        def outcomes(self, record_id):
            return np.arange(100) < self.metric(record_id)["correct"]
    bare = run_of(tiny_run, name, metrics=records)
    return Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})


@pytest.mark.parametrize("after, plain, said", [(80, 82, "a gain (McNemar"), (51, 82, "no significant difference"), (20, 40, "a loss")])
def test_the_continued_network_is_compared_with_the_one_it_continues(tiny_run, after, plain, said):
    before = measured(tiny_run, pair_text.PLAIN, none=98, pgd10_exact=85, mask_momentum=50, fgsm_exact=10, worst=10)
    then = measured(tiny_run, "wide-adversarial", none=97, pgd10_exact=plain, mask_momentum=after, worst=after)
    before.metric("worst-t1")["combines"] = ["pgd10-exact-t1", "mask-momentum-t1", "fgsm-exact-t1"]
    then.metric("worst-t1")["combines"] = ["pgd10-exact-t1", "mask-momentum-t1"]
    words = pair_text.averaged([before, then])  # the attack that only one was tried with does not count
    assert said in words and f"50.0 % before and {after}.0 % after" in words
    assert ("still overstate what all attacks together leave" in words) == (plain - after > 5)
    rows = pair_text.averaged_rows([before, then])
    assert [row[0] for row in rows] == ["clean", "PGD, 10 steps", "PGD, 10 steps, summed gradients", "all together"] and rows[0][2].startswith("97.0 % [")
    assert pair_text.averaged([before]) == pair_text.averaged([]) == "What all attacks together leave of it is not measured yet."
    assert pair_text.averaged_rows([before]) == []


def test_how_the_continued_network_was_trained_is_read_from_its_config():
    said = pair_text.averaged_recipe(configs.get("wide-adversarial"))
    assert "wide-adversarial takes over where wide-adversarial-plain ended and is trained for 1 more epoch, against 6 steps of 0.2" in said
    assert "each at a point within 0.15 of where the attack is" in said


@pytest.mark.parametrize("blind, said", [(50, "it gets further"), (79, "3 fall to Square and not to plain PGD, 0 the other way round, too few to tell"),
                                         (95, "it stays behind")])
def test_a_blind_attack_is_held_against_gradients_on_the_same_images(tiny_run, blind, said):
    run = measured(tiny_run, "wide-adversarial", mask_plain=82, mask_momentum=80, mask_square=blind)
    words = pair_text.order([run])
    assert said in words and f"leaves {blind}.0 % alone, 1 steps of plain PGD 82.0 %" in words and "summed gradients 80.0 %" in words
    assert pair_text.order([]) == pair_text.order([measured(tiny_run, "wide-adversarial", mask_plain=82)]) == (
        "On our adversarial network that is not measured yet.")


def test_what_the_usual_attack_leaves_of_the_shorter_trained_network_is_named(tiny_run):
    assert pair_text.usual_bar([measured(tiny_run, pair_text.PLAIN, pgd40_exact=85)]).startswith("85.0 % [")
    assert pair_text.usual_bar([measured(tiny_run, "wide-adversarial", pgd40_exact=85)]) == "(not measured yet)"


@pytest.mark.parametrize("margin, told", [(6, True), (54, False), (90, False)])
def test_a_saturated_loss_at_a_late_end_time_is_told_by_the_margin_loss(tiny_run, margin, told):
    run = measured(tiny_run, "wide-adversarial", mask_plain=80, mask_margin=10)
    late = [scored(Measurement(100.0, 100, "pgd", 0.3, label=f"mask-{name}"), left) for name, left in (("plain", 55), ("margin", margin))]
    gap = {"name": "logit_gap", "t1": 100.0, "value": 171.2}
    words = pair_text.late_masks([dataclasses.replace(run, metrics=[*run.metrics, *late], measurements=[gap])])
    assert ("At t = 100, where the two largest logits of the median image lie 171 apart" in words) == told
    assert ("55.0 % [45.2 to 64.4] of 100 images of wide-adversarial along the cross-entropy" in words) == told
    assert pair_text.late_masks([run]) == ""  # at its own end time other words speak


def test_a_sweep_is_on_the_same_images_at_every_end_time(tiny_run):
    records = [scored(Measurement(t1, n), n // 2) for t1, n in zip((0.5, 1.0, *range(2, 12)), (10, 100, *[20] * 10))]

    class Known(type(tiny_run)):
        def outcomes(self, record_id):
            return np.arange(100) < 5
    bare = run_of(tiny_run, "small-10", metrics=records)
    run = Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})
    frame = pair.sweep_frame([run])
    assert len(frame) == 12 and set(frame["n"]) == {10} and set(frame["accuracy"]) == {50.0} and set(frame["test"]) == {"clean"}
    assert len(pair.sweep_frame([run], least=13)) == 0


def test_what_all_attacks_leave_together_goes_before_a_lower_figure_of_one(tiny_run):
    runs = [run_of(tiny_run, name, 0, [scored(Measurement(1.0, 100), 98), scored(Measurement(1.0, 200, "pgd", 0.3, steps=10, step_size=0.1), 20),
                                       scored(Measurement(1.0, 100, "worst", 0.3), 30)]) for name in ("wide-standard", "wide-adversarial")]
    assert "keeps 30 % of 100 images (95 % interval" in pair_text.robustness(runs) and "so far together" in pair_text.robustness(runs)
    summed = scored(Measurement(1.0, 100, "pgd", 0.3, steps=10, step_size=0.1, loss="margin", noise=0.15, momentum=1.0), 40)
    assert pair.describe_attack(summed) == "PGD, 10 steps, margin loss, along summed gradients (noise 0.15, momentum 1)"
