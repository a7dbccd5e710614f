"""The rules of the ledger, on synthetic artifacts: every verdict that a rule can give is reached."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from itertools import product

import builders
import numpy as np
import pytest
from builders import SEED, StubRun

from nodelib import verdicts
from nodelib.experiment import configs
from nodelib.verdicts import end_time, robustness, states
from nodelib.verdicts.evidence import (
    ANOTHER_RECIPE,
    Accuracy,
    Evidence,
    Missing,
    ordered,
    same_images,
    value_figure,
)
from nodelib.verdicts.ledger import CLAIMS, FIRST_ROUND
from nodelib.verdicts.verdict import UNDECIDED, judge

# test_second_round.py has the rules that replace some of these
CLAIM = {claim.id: claim for claim in FIRST_ROUND}


def verdict(claim, runs=(), chapters=None):
    return judge(CLAIM[claim], Evidence(list(runs), SEED, chapters or {}))


# -- statistics ------------------------------------------------------------------------------------

@pytest.mark.parametrize("only_first, only_second, p", [
    (0, 0, 1.0), (5, 0, 2 / 2**5), (0, 5, 2 / 2**5), (3, 1, 2 * 5 / 16), (4, 4, 1.0),
    (10, 2, 2 * 79 / 2**12)])
def test_mcnemar_is_the_exact_binomial_tail(only_first, only_second, p):
    first = np.r_[np.ones(only_first), np.zeros(only_second), np.ones(7)].astype(bool)
    second = np.r_[np.zeros(only_first), np.ones(only_second), np.ones(7)].astype(bool)
    assert verdicts.mcnemar(first, second) == pytest.approx(p, rel=1e-14)


def test_mcnemar_neither_overflows_nor_underflows_to_a_wrong_side_on_ten_thousand_images():
    first, second = np.arange(3000) < 1600, np.arange(3000) >= 1600
    tail = sum(math.comb(3000, k) for k in range(1401))
    assert verdicts.mcnemar(first, second) == pytest.approx(float(Fraction(2 * tail, 2**3000)), rel=1e-12)
    assert 0 <= verdicts.mcnemar(np.ones(10000, bool), np.zeros(10000, bool)) < 1e-300


def test_mcnemar_refuses_outcomes_of_different_images():
    with pytest.raises(ValueError, match="same images"):
        verdicts.mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_an_entry_reproduces_within_three_points_or_within_our_own_range():
    assert verdicts.within_tolerance([90.0], 93.0)
    assert not verdicts.within_tolerance([90.0], 93.1)
    assert verdicts.within_tolerance([85.0, 95.0], 99.0)  # mean 90, range 10
    assert not verdicts.within_tolerance([85.0, 95.0], 100.5)
    with pytest.raises(ValueError, match="at least one seed"):
        verdicts.within_tolerance([], 90.0)


# -- look-ups --------------------------------------------------------------------------------------

def test_an_ordering_must_hold_in_every_pair_of_seeds_and_be_significant():
    def accuracies(*values):
        return [Accuracy(run, run.metrics[0]) for run in (StubRun("small-10", k).clean(v, 1)
                                                          for k, v in enumerate(values))]
    assert ordered(accuracies(60, 62), accuracies(40))
    assert not ordered(accuracies(60, 39), accuracies(40))  # one seed is on the wrong side
    assert not ordered(accuracies(40.3), accuracies(40))    # three images: chance


def test_two_records_are_compared_on_the_images_that_both_saw():
    small = StubRun("small-10").clean(50, 1, n=1000)
    large = StubRun("large-10").clean(50, 1, n=100)
    a, b = same_images(Accuracy(small, small.metrics[0]), Accuracy(large, large.metrics[0]))
    assert len(a) == len(b) == 100 and a.all()  # the small network's first 100 are all correct
    large.metrics[0]["subset"] = "the hardest 100"
    with pytest.raises(Missing, match="same images"):
        same_images(Accuracy(small, small.metrics[0]), Accuracy(large, large.metrics[0]))


def test_the_posts_protocol_is_not_confused_with_another_attack():
    run = StubRun("large-100").fgsm_post(90, 100)
    for change in (dict(clip=True), dict(pooling="fixed"), dict(gradient="exact"), dict(epsilon=0.2),
                   dict(settings={"loss": "margin", "logit_scale": 1.0}),
                   dict(settings={"loss": "cross-entropy", "logit_scale": 20.0})):
        other = copy.deepcopy(run)
        other.metrics[0].update(change)
        assert verdict("C19", [other.pgd(1, 100)]).verdict == UNDECIDED, change
    assert verdict("C19", [run.pgd(1, 100)]).verdict == "artefact"


# -- the ledger as a whole -------------------------------------------------------------------------

def test_the_ledger_has_the_22_claims_one_in_two_parts_and_without_artifacts_each_says_what_is_missing():
    rows = verdicts.ledger([], SEED, {})
    assert [row.id for row in rows] == [f"C{k}" for k in range(1, 19)] + ["C19a", "C19b", "C20", "C21", "C22"]
    assert all(row.verdict == UNDECIDED and row.missing for row in rows)


def test_every_name_a_rule_asks_for_is_explained_in_the_contract():
    asked = set()

    class Recorder(Evidence):
        def fresh(self):
            return self

        def accuracies(self, name, t1, **conditions):
            raise Missing(["accuracy"])

        def measured(self, name, what, **conditions):
            asked.add(what)
            raise Missing([what])

        def chapter(self, claim, *names):
            assert set(names) <= set(verdicts.CHAPTER_VALUES[claim]), claim
            raise Missing(names)

    for claim in CLAIMS:
        judge(claim, Recorder([], SEED))
    assert asked <= set(verdicts.MEASUREMENTS)
    assert len(asked) >= 14


def test_the_seeds_table_holds_its_48_figures_for_the_known_rows():
    assert {(e["run"], e["t1"]) for e in SEED["table"]} == set(product(configs.ROWS, configs.TABLE_T1))
    assert all(0 <= e[kind] <= 100 for e in SEED["table"] for kind in ("standard", "adversarial"))
    assert sum(e["standard"] for e in SEED["table"]) == pytest.approx(1847.61)
    assert sum(e["adversarial"] for e in SEED["table"]) == pytest.approx(635.24)
    assert end_time.ROWS == configs.ROWS and end_time.END_TIMES == configs.TABLE_T1


def test_text_and_markdown_name_every_claim_and_the_changes_of_rules():
    rows = verdicts.ledger([StubRun("large-100").fgsm_post(91, 100).pgd(1, 100)], SEED, {})
    text, markdown = verdicts.as_text(rows), verdicts.as_markdown(rows)
    for row in rows:
        assert row.id in text and f"[{row.id}]" in markdown
    assert f"UNDECIDED: {ANOTHER_RECIPE.upper()} (first round: artefact)" in text
    assert "changes of rules" in text
    assert f"| - | **undecided: {ANOTHER_RECIPE}** | artefact |" in markdown
    assert all(line.count("|") - line.count("\\|") == 7 for line in markdown.splitlines())


def test_every_change_of_a_rule_names_its_claims_and_its_reason():
    for change in verdicts.RULE_CHANGES:
        assert set(change) == {"date", "claim", "change", "reason"} and all(change.values())
        assert {*change["claim"].split(", ")} <= {*CLAIM, *(claim.id for claim in CLAIMS)}
        assert change["reason"] in verdicts.changes_as_markdown()


def test_a_real_run_answers_the_rules_look_ups(tiny_run):
    found = Evidence([tiny_run], SEED).accuracies("small-10", 1.0, attack="none", pooling="fixed")
    assert found[0].percent == pytest.approx(100 * found[0].outcomes().mean())
    assert found[0].interval[0] < found[0].percent < found[0].interval[1]


# -- chapters --------------------------------------------------------------------------------------

def test_a_chapters_values_are_stored_checked_and_read_back(tmp_path):
    values = {"unit_step_difference": 0.0, "euler_order": np.float64(1.02)}
    verdicts.record_chapter("C1", "01-from-resnets-to-odes", values, tmp_path)
    assert verdicts.load_chapters(tmp_path) == {"C1": {"unit_step_difference": 0.0, "euler_order": 1.02}}
    with pytest.raises(ValueError, match="exactly"):
        verdicts.record_chapter("C1", "01", {"unit_step_difference": 0.0}, tmp_path)
    with pytest.raises(ValueError, match="finite"):
        verdicts.record_chapter("C1", "01", {**values, "euler_order": math.nan}, tmp_path)
    with pytest.raises(ValueError, match="chapters settle"):
        verdicts.record_chapter("C8", "05", {}, tmp_path)


C3 = dict(gradient_difference=1e-8, memory_growth_adjoint=1.1, memory_growth_backprop=9.0,
          end_times=[1.0, 10.0, 100.0, 500.0], adjoint_error=[0.1, 0.1, 0.1, 0.1], backprop_error=[0.1] * 4)


@pytest.mark.parametrize("claim, values, expected", [
    ("C1", dict(unit_step_difference=0.0, euler_order=1.05), "reproduced"),
    ("C1", dict(unit_step_difference=0.0, euler_order=0.3), "in part"),
    ("C1", dict(unit_step_difference=1e-7, euler_order=1.0), "not reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 40, step_against_rate=[-0.6] * 40, step_against_speed=[0.0] * 40),
     "reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 40, step_against_rate=[-0.4] * 40, step_against_speed=[0.0] * 40),
     "in part"),
    ("C2", dict(step_against_error=[0.1] * 40, step_against_rate=[-0.4] * 40, step_against_speed=[-0.9] * 40),
     "not reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 5, step_against_rate=[-0.6] * 5, step_against_speed=[0.0] * 5),
     "undecided"),
    ("C3", C3, "reproduced"),
    ("C3", {**C3, "adjoint_error": [0.1, 0.1, 0.9, 0.9]}, "in part"),
    ("C3", {**C3, "gradient_difference": 1e-3}, "not reproduced"),
    ("C3", {**C3, "memory_growth_adjoint": 8.0}, "not reproduced"),
    ("C3", {**C3, "end_times": [1.0, 10.0, 100.0, 300.0]}, "undecided"),
    ("C6", dict(rmse_ode=[1.0, 1.1], rmse_rnn=[2.0, 2.1], parameters_ode=100, parameters_rnn=110),
     "reproduced"),
    ("C6", dict(rmse_ode=[1.0, 2.5], rmse_rnn=[2.0, 2.1], parameters_ode=100, parameters_rnn=110), "in part"),
    ("C6", dict(rmse_ode=[3.0, 2.5], rmse_rnn=[2.0, 2.1], parameters_ode=100, parameters_rnn=110),
     "not reproduced"),
    ("C6", dict(rmse_ode=[1.0], rmse_rnn=[2.0], parameters_ode=100, parameters_rnn=1000), "undecided"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=1.0, logdet_exponent=2.5), "reproduced"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=2.3, logdet_exponent=2.5), "in part"),
    ("C7", dict(log_density_difference=1e-2, trace_exponent=1.0, logdet_exponent=2.5), "not reproduced"),
])
def test_claims_settled_by_chapters(claim, values, expected):
    assert verdict(claim, chapters={claim: values}).verdict == expected


def test_errors_of_both_gradients_are_shown_and_called_useless_only_where_both_are():
    judged = verdict("C3", chapters={"C3": {**C3, "adjoint_error": [0.1, 0.9, 0.95, 1.0],
                                            "backprop_error": [0.1, 0.5, 2.0, 3.0]}})
    assert judged.reason.endswith("from t1 = 100 on both are useless, their errors about as large as the "
                                  "gradient or larger")
    assert [str(figure) for figure in judged.ours[:3]] == [
        "adjoint error at t1 = 1: 0.1", "backprop error at t1 = 1: 0.1", "adjoint error at t1 = 10: 0.9"]
    assert "useless" not in verdict("C3", chapters={"C3": C3}).reason


def test_a_count_is_shown_without_decimals():
    assert str(verdicts.Figure("entries", 13, unit="of 24")) == "entries: 13 of 24"
    assert str(verdicts.Figure("evaluations", 13.0)) == "evaluations: 13.0"


# -- claims settled by runs ------------------------------------------------------------------------

def test_fewer_parameters_is_an_artefact_when_a_single_block_does_as_well():
    def runs(ode, six, one):
        return [StubRun(n).clean(v, 1, n=10000) for n, v in
                (("wide-standard", ode), ("resnet-6", six), ("resnet-1", one))]
    assert verdict("C4", runs(99.4, 99.5, 98.0)).verdict == "reproduced"
    assert verdict("C4", runs(99.4, 99.5, 99.4)).verdict == "artefact"
    assert verdict("C4", runs(99.0, 99.5, 98.0)).verdict == "not reproduced"


def test_fewer_parameters_is_in_part_when_the_sizes_are_not_three_to_one(monkeypatch):
    monkeypatch.setattr(builders, "parameters", lambda name: 100)
    runs = [StubRun(n).clean(99, 1) for n in ("wide-standard", "resnet-6", "resnet-1")]
    assert verdict("C4", runs).verdict == "in part"


@pytest.mark.parametrize("tight, usual, expected", [((60, 100), (60, 100), "reproduced"),
                                                    ((110, 100), (60, 100), "in part"),
                                                    ((110, 100), (110, 100), "not reproduced")])
def test_tolerance_trades_accuracy_for_speed(tight, usual, expected):
    # NFE at the loosest tolerance that still costs no accuracy (1e-4), and what it is at 1e-6: 130
    runs = []
    for name, (free, _) in (("small-10-tight", tight), ("small-10", usual)):
        run = StubRun(name)
        measured = [(50, 20), (80, 30), (90, 40), (98, free), (98, 120), (98.5, 130)]
        for k, (accuracy, nfe) in enumerate(measured):
            run.clean(accuracy, 10, rtol=10.0**-(k + 1), nfe=nfe)
        runs.append(run)
    assert verdict("C5", runs).verdict == expected


def test_tolerances_are_compared_on_the_seeds_that_have_them_all():
    runs = []
    for name in ("small-10-tight", "small-10"):
        runs.append(StubRun(name))
        for k in range(1, 7):
            runs[-1].clean(98, 10, rtol=10.0**-k, nfe=20 * k)
    alone = StubRun("small-10", seed=1).clean(50, 10, rtol=1e-6, nfe=500)  # this seed has one tolerance only
    assert verdict("C5", [*runs, alone]).reason == verdict("C5", runs).reason
    assert verdict("C5", [runs[0], alone]).verdict == UNDECIDED


def table_runs(offset_standard=0.0, offset_adversarial=0.0):
    runs = [StubRun(name) for name in configs.ROWS]
    for run, t1 in product(runs, configs.TABLE_T1):
        entry = next(e for e in SEED["table"] if (e["run"], e["t1"]) == (run.name, t1))
        run.clean_post(min(100, max(0, entry["standard"] + offset_standard)), t1)
        run.fgsm_post(min(100, max(0, entry["adversarial"] + offset_adversarial)), t1)
    return runs


def test_the_table_counts_its_reproduced_entries():
    assert verdict("C8", table_runs()).verdict == "reproduced"
    assert verdict("C8", table_runs(offset_adversarial=5)).verdict == "in part"
    assert verdict("C8", table_runs(-5, 5)).verdict == "not reproduced"
    missing = verdict("C8", table_runs()[:-1])
    assert missing.verdict == UNDECIDED and missing.missing == ("run large-100",)


def strong(runs, values):
    for run in runs:
        run.pgd(values(run.name), end_time.OWN_END_TIME[run.name.split("-")[1]])
    return runs


def unharmed(runs, *names):
    """Let these runs keep every image under FGSM."""
    for run in runs:
        for record in run.metrics:
            if run.name in names and record["attack"] == "fgsm":
                run.bits[record["id"]][:] = True


def test_capacity_is_an_artefact_when_the_order_is_gone_under_the_strongest_attack():
    assert verdict("C9", strong(table_runs(), lambda n: 60 if "large" in n else 30)).verdict == "reproduced"
    assert verdict("C9", strong(table_runs(), lambda n: 0)).verdict == "artefact"
    # ahead, but with nearly nothing left: not robustness
    assert verdict("C9", strong(table_runs(), lambda n: 10 if "large" in n else 0)).verdict == "artefact"
    assert verdict("C9", strong(table_runs(), lambda n: 60 if n == "large-100" else 0)).verdict == "in part"
    # half the orderings by the protocol are worth no more than all
    for left, expected in ((0, "not reproduced"), (60, "in part")):
        half = strong(table_runs(), lambda n: left if n == "large-100" else 0)
        unharmed(half, "small-10")
        assert verdict("C9", half).verdict == expected
    flat = strong(table_runs(), lambda n: 0)
    unharmed(flat, *(run.name for run in flat))
    assert verdict("C9", flat).verdict == "not reproduced"


def test_longer_training_end_times_are_judged_by_both_attacks():
    runs = strong(table_runs(), lambda n: 30 if n.endswith("-10") else 60)
    assert verdict("C10", runs).verdict == "reproduced"
    assert verdict("C10", strong(table_runs(), lambda n: 0)).verdict == "artefact"
    assert verdict("C10", strong(table_runs(), lambda n: 60 if n == "large-100" else 0)).verdict == "in part"
    for left, expected in ((0, "not reproduced"), (60, "in part")):
        half = strong(table_runs(), lambda n: left if n == "large-100" else 0)
        unharmed(half, "small-10")
        assert verdict("C10", half).verdict == expected
    flat = [StubRun(name).fgsm_post(50, t1) for name in configs.ROWS for t1 in (10, 100)]
    merged = {}
    for run in flat:
        merged.setdefault(run.name, StubRun(run.name)).fgsm_post(50, run.metrics[0]["t1"])
    assert verdict("C10", strong(list(merged.values()), lambda n: 0)).verdict == "not reproduced"


@pytest.mark.parametrize("accuracies, turning, expected", [
    ((24, 13, 86, 93), (0.1, 0.3), "reproduced"), ((24, 13, 86, 93), (0.3, 0.1), "artefact"),
    ((24, 13, 93, 86), (0.1, 0.3), "in part"), ((13, 24, 93, 86), (0.1, 0.3), "not reproduced")])
def test_random_end_times(accuracies, turning, expected):
    names = ("small-random", "small-100", "large-random", "large-100")
    runs = [StubRun(n).fgsm_post(a, 100) for n, a in zip(names, accuracies)]
    for run, value in zip(runs, turning):
        run.measure("turning", value, t1=100.0, part="centred")
    assert verdict("C11", runs).verdict == expected


def test_an_ordering_that_fails_says_in_how_many_pairs_it_held():
    runs = [StubRun(n).fgsm_post(a, 100) for n, a in (
        ("small-random", 6.0), ("small-100", 5.5), ("large-random", 0.1), ("large-100", 9.0))]
    runs.append(StubRun("small-random", 1).fgsm_post(20.0, 100))
    for run in runs:
        run.measure("turning", 0.1, t1=100.0, part="centred")
    reason = verdict("C11", runs).reason
    assert "small-random is ahead of small-100 in 2 of 2 pairs of seeds, significantly in 1" in reason
    assert "large-100 is ahead of large-random in 1 of 1 pair of seeds, significantly in 1" in reason


@pytest.mark.parametrize("at_500, expected", [((94, 72, 94, 96), "reproduced"), ((94, 95, 94, 70), "in part"),
                                              ((50, 95, 50, 96), "not reproduced")])
def test_keeping_accuracy_at_500(at_500, expected):
    runs = [StubRun(n).clean_post(98.5, 100).clean_post(v, 500) for n, v in
            zip(("small-random", "small-100", "large-random", "large-100"), at_500)]
    assert verdict("C12", runs).verdict == expected


@pytest.mark.parametrize("few, many, expected", [(26, 130, "reproduced"), (26, 60, "in part"),
                                                 (26, 32, "not reproduced"), (90, 130, "not reproduced")])
def test_adversarial_training_raises_the_nfe(few, many, expected):
    runs = [StubRun("wide-standard").clean(99, 1, nfe=few),
            StubRun("wide-adversarial").clean(99, 1, nfe=many)]
    assert verdict("C14", runs).verdict == expected


@pytest.mark.parametrize("standard, adversarial, expected", [
    (3, 300, "reproduced"), (3, 10, "in part"), (300, 3, "not reproduced")])
def test_range_of_end_times(standard, adversarial, expected):
    times = [*np.geomspace(0.1, 0.9, 10), *np.geomspace(1, 1000, 31)]
    runs = []
    for name, reach in (("wide-standard", standard), ("wide-adversarial", adversarial)):
        run = StubRun(name)
        for t1 in times:
            run.clean(98 if t1 <= reach else 40, float(t1))
        runs.append(run)
    assert verdict("C15", runs).verdict == expected
    runs[0].metrics = runs[0].metrics[:30]
    assert verdict("C15", runs).verdict == UNDECIDED


def test_the_headline_reaches_every_verdict():
    def headline(post, attacked):
        return verdict("C19", [attacked(StubRun("large-100").fgsm_post(post, 100))]).verdict
    assert headline(91, lambda run: run.worst(85, 100)) == "reproduced"
    assert headline(91, lambda run: run.worst(50, 100)) == "in part"
    assert headline(60, lambda run: run.worst(85, 100)) == "in part"
    assert headline(91, lambda run: run.pgd(2, 100)) == "artefact"
    assert headline(60, lambda run: run.pgd(2, 100)) == "not reproduced"


def test_one_attack_can_refute_robustness_but_only_the_full_set_can_support_it():
    run = StubRun("large-100").fgsm_post(91, 100).pgd(90, 100)
    undecided = verdict("C19", [run])
    assert undecided.verdict == UNDECIDED and "APGD and Square" in undecided.missing[0]
    assert verdict("C19", [run.worst(88, 100, combines=["fgsm-exact", "pgd10-exact"])]).verdict == UNDECIDED
    assert robustness.strongest(Evidence([run], SEED), "large-100", 100.0)[0].record["attack"] == "worst"


def persistent(change, angles):
    return [StubRun(n).measure("state_change", change, t1=500.0, since=100)
            .measure("state_angle", a, t1=500.0, since=100, part="centred")
            for n, a in zip(states.PERSISTENT, angles)]


def test_settling_past_the_training_time():
    assert verdict("C13", persistent(0.05, (1, 1, 1))).verdict == "reproduced"
    assert verdict("C13", persistent(4.0, (1, 1, 50))).verdict == "in part"
    assert verdict("C13", persistent(4.0, (50, 40, 50))).verdict == "not reproduced"


@pytest.mark.parametrize("norm, whole, centred, expected", [
    (10000, 2, 3, "reproduced"), (10000, 2, 30, "artefact"), (10000, 40, 50, "not reproduced"),
    (1200, 2, 3, "in part"), (1200, 40, 50, "not reproduced")])
def test_steady_state_or_forced_drift(norm, whole, centred, expected):
    run = StubRun("wide-adversarial").measure("norm", 1000.0, t1=100.0).measure("norm", norm, t1=1000.0)
    for part, value in (("whole", whole), ("centred", centred)):
        run.measure("velocity_angle", value, t1=1000.0, since=100, part=part)
    assert verdict("C16", [run]).verdict == expected


@pytest.mark.parametrize("told, angle, turning, expected", [
    ((0.98, 0.55), (40, 5), 0.01, "reproduced"), ((0.98, 0.55), (40, 5), 0.5, "in part"),
    ((0.98, 0.97), (40, 5), 0.01, "artefact"), ((0.98, 0.97), (5, 40), 0.01, "in part"),
    ((0.98, 0.75), (40, 5), 0.01, "in part"), ((0.7, 0.55), (40, 5), 0.01, "not reproduced")])
def test_six_and_four(told, angle, turning, expected):
    runs = [StubRun(n).measure("nearest_class", a, t1=1000.0, label="6-4", statistic="mean")
            .measure("class_mean_angle", b, t1=1000.0, label="6-4")
            for n, a, b in zip(("wide-adversarial", "wide-standard"), told, angle)]
    runs[0].measure("turning", turning, t1=1000.0, part="centred")
    assert verdict("C17", runs).verdict == expected


@pytest.mark.parametrize("adversarial, standard, eigenvalue, share, expected", [
    (0.97, 0.6, 0.5, 1.0, "reproduced"), (0.97, 0.95, 0.5, 1.0, "artefact"),
    (0.97, 0.6, 0.945, 1.0, "in part"), (0.97, 0.95, 1.5, 1.0, "not reproduced"),
    (0.97, 0.6, 0.5, 0.5, "not reproduced"), (0.5, 0.4, 0.5, 1.0, "in part")])
def test_one_steady_state_per_class(adversarial, standard, eigenvalue, share, expected):
    runs = [StubRun(n).measure("nearest_class", v, t1=1000.0, statistic="mean")
            for n, v in (("wide-adversarial", adversarial), ("wide-standard", standard))]
    for digit in map(str, range(10)):
        runs[0].measure("attractors", 1, label=digit, statistic="count")
        runs[0].measure("own_attractors", 1, label=digit, statistic="count")
        runs[0].measure("ray_share", share, label=digit, statistic="mean")
        runs[0].measure("ray_residual", 1e-6, label=digit, statistic="max")
        runs[0].measure("ray_eigenvalue", eigenvalue + 0.01 * int(digit), label=digit, statistic="max")
    found = verdict("C18", runs)
    assert found.verdict == expected
    runs.append(StubRun("wide-standard-leaky").measure("nearest_class", 0.99, t1=1000.0, statistic="mean"))
    assert any("leaky" in figure.label for figure in verdict("C18", runs).ours)


def test_one_ray_for_all_classes_is_not_one_per_class():
    runs = [StubRun(n).measure("nearest_class", v, t1=1000.0, statistic="mean")
            for n, v in (("wide-adversarial", 0.97), ("wide-standard", 0.6))]
    for digit in map(str, range(10)):
        for what, value, statistic in (
                ("attractors", 1, "count"), ("own_attractors", 0, "count"), ("ray_share", 1.0, "mean"),
                ("ray_residual", 1e-6, "max"), ("ray_eigenvalue", 0.5, "max")):
            runs[0].measure(what, value, label=digit, statistic=statistic)
    found = verdict("C18", runs)
    assert found.verdict == "not reproduced" and "in 0 of 10 classes" in found.reason


@pytest.mark.parametrize("turning, speed, expected", [
    ((5, 50), (90, 110), "reproduced"), ((40, 50), (90, 110), "in part"),
    ((5, states.NEVER), (90, 110), "in part"), ((5, 50), (110, 100), "reproduced"),
    ((5, 50), (200, 100), "in part"), ((50, 5), (110, 90), "not reproduced"),
    ((states.NEVER, states.NEVER), (110, 90), "not reproduced")])
def test_settling_times(turning, speed, expected):
    runs = [StubRun(n).measure("settling_time", a, measure="turning", threshold=0.1)
            .measure("settling_time", b, measure="relative_speed", threshold=0.01)
            for n, a, b in zip(("wide-adversarial", "wide-standard"), turning, speed)]
    found = verdict("C20", runs)
    assert found.verdict == expected and "1e+09" not in found.reason
    assert all(figure.words or figure.value < states.NEVER for figure in found.ours) and len(found.ours) == 4


@pytest.mark.parametrize("early, late, after, expected", [
    (0.85, 0.95, 5, "reproduced"), (0.4, 0.5, 5, "in part"), (0.99, 0.95, 5, "not reproduced"),
    (0.85, 0.95, 60, "not reproduced")])
def test_attacked_images_are_pulled_to_their_class(early, late, after, expected):
    run = StubRun("wide-adversarial").measure("nearest_class", early, t1=1.0, statistic="mean", images="pgd")
    run.measure("nearest_class", late, t1=1000.0, statistic="mean", images="pgd")
    run.measure("attacked_angle", 30, t1=1.0, images="pgd")
    run.measure("attacked_angle", after, t1=1000.0, images="pgd")
    assert verdict("C21", [run]).verdict == expected


@pytest.mark.parametrize("nfe, jacobian, turning, expected", [
    ((100, 26), (9, 3), (5, 2), "reproduced"), ((100, 26), (9, 3), (2, 5), "in part"),
    ((100, 26), (3, 9), (2, 5), "artefact"), ((20, 26), (9, 3), (5, 2), "artefact"),
    ((20, 26), (3, 9), (2, 5), "reproduced"), ((26, 26), (9, 3), (5, 2), "not reproduced")])
def test_nfe_and_complexity(nfe, jacobian, turning, expected):
    runs = [StubRun(n).clean(99, 1, nfe=a)
            .measure("jacobian_norm", b, t1=1.0).measure("path_turning", c, t1=1.0)
            for n, a, b, c in zip(("wide-adversarial", "wide-standard"), nfe, jacobian, turning)]
    found = verdict("C22", runs)
    assert found.verdict == expected
    if (nfe, jacobian, turning) == ((100, 26), (9, 3), (2, 5)):
        assert "norm is higher, its velocity turns less (one pair of seeds)" in found.reason


def test_a_share_of_images_comes_with_its_interval():
    runs = [StubRun("wide-adversarial").measure("nearest_class", 0.909, t1=1.0, statistic="mean")]
    runs[0].measurements[-1]["n"] = 970
    evidence = verdicts.Evidence(runs, {})
    share = evidence.measured_share("wide-adversarial", "nearest_class", t1=1.0, statistic="mean")
    values, said = share.values, str(share)
    assert str(share.figure("nearest")) == "nearest: 90.9 [89.0, 92.6] %"
    assert values == [0.909] and said == "90.9 % (95 % interval 89.0 to 92.6, 970 images)"
    runs.append(StubRun("wide-adversarial", 1).measure("nearest_class", 0.707, t1=1.0, statistic="mean"))
    share = evidence.measured_share("wide-adversarial", "nearest_class", t1=1.0, statistic="mean")
    assert str(share) == "80.8 %"


def test_a_stored_interval_of_a_median_is_shown_with_one_seed_only():
    def run(seed, value):
        found = StubRun("wide-adversarial", seed=seed)
        found.measurements.append({"name": "turning", "t1": 1.0, "label": "all", "images": "clean",
                                   "statistic": "median", "value": value, "n": 500,
                                   "settings": {"low": value - 1, "high": value + 2}})
        return found

    def shown(*runs):
        measured = Evidence(list(runs), SEED).measured("wide-adversarial", "turning", t1=1.0)
        return value_figure("turning", measured)
    one, two = shown(run(0, 3.0)), shown(run(0, 3.0), run(1, 4.0))
    assert str(one) == "turning: 3 [2, 5]" and one.spread == "95 % over 500 images"
    assert str(two) == "turning: 3.5 [3, 4]" and two.spread == "range over 2 seeds"
