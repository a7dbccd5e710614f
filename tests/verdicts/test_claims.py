"""The rules of the ledger, on synthetic artifacts: every verdict that a rule can give is reached."""

import copy
import math
import re
from fractions import Fraction
from itertools import product

import builders
import numpy as np
import pytest
from builders import SEED, StubRun

from nodelib import verdicts
from nodelib.experiment import configs
from nodelib.statistics import within_tolerance
from nodelib.verdicts import end_time, robustness
from nodelib.verdicts.evidence import ANOTHER_RECIPE, FGSM_POST, Evidence, Missing, value_figure
from nodelib.verdicts.ledger import CLAIMS
from nodelib.verdicts.verdict import UNDECIDED, judge, lone_seeds, tables

# the first round's rules that still judge; those of the second have tests of their own
RULE = {claim.id.rstrip("ab"): claim.until or claim.rule for claim in CLAIMS
        if claim.until or claim.test == tables("first_round.toml")[claim.id.rstrip("ab")]["test"]}


def verdict(claim, runs=(), chapters=None):
    claim = verdicts.Claim(claim, *[""] * 4, RULE[claim], first_round="")
    return judge(claim, Evidence(list(runs), SEED, chapters or {}))


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
    assert within_tolerance([90.0], 93.0)
    assert not within_tolerance([90.0], 93.1)
    assert within_tolerance([85.0, 95.0], 99.0)  # mean 90, range 10
    assert not within_tolerance([85.0, 95.0], 100.5)
    with pytest.raises(ValueError, match="at least one seed"):
        within_tolerance([], 90.0)


# -- look-ups --------------------------------------------------------------------------------------

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

        def _measurements(self, name, what, **conditions):
            asked.add(what)
            raise Missing([what])

        def chapter(self, claim, *names):
            assert set(names) <= set(verdicts.CHAPTER_VALUES[claim]), claim
            raise Missing(names)

    for claim in CLAIMS:
        judge(claim, Recorder([], SEED))
    assert {"nearest_class", "gradient_error"} <= asked <= set(verdicts.MEASUREMENTS)


def test_the_seeds_table_holds_its_48_figures_for_the_known_rows():
    assert {(e["run"], e["t1"]) for e in SEED["table"]} == set(product(configs.ROWS, configs.TABLE_T1))
    assert all(0 <= e[kind] <= 100 for e in SEED["table"] for kind in ("standard", "adversarial"))
    assert sum(e["standard"] for e in SEED["table"]) == pytest.approx(1847.61)
    assert sum(e["adversarial"] for e in SEED["table"]) == pytest.approx(635.24)


def test_text_and_markdown_name_every_claim_and_the_changes_of_rules():
    rows = verdicts.ledger([StubRun("large-100").fgsm_post(91, 100).pgd(1, 100)], SEED, {})
    text, markdown = verdicts.as_text(rows), verdicts.as_markdown(rows)
    for row in rows:
        assert row.id in text and f"[{row.id}]" in markdown
    assert f"UNDECIDED: {ANOTHER_RECIPE.upper()} (first round: in part)" in text  # of C8, as stored
    assert "changes of rules" in text
    assert f"| - | **undecided: {ANOTHER_RECIPE}** | in part |" in markdown
    assert all(line.count("|") - line.count("\\|") == 7 for line in markdown.splitlines())


def test_every_change_of_a_rule_names_its_claims_and_its_reason():
    for change in verdicts.RULE_CHANGES:
        assert set(change) - {"known", "moved"} == {"date", "claim", "change", "reason"}
        assert all(change.values())
        assert {*change["claim"].split(", ")} <= {*verdicts.first_round(), *(claim.id for claim in CLAIMS)}
        assert change["reason"] in verdicts.changes_as_markdown()


def test_changes_that_moved_a_verdict_name_claims_that_they_touch():
    moved = [change for change in verdicts.RULE_CHANGES if "moved" in change]
    assert [day for day, *_ in verdicts.moved_verdicts()] == [change["date"] for change in moved]
    for change in moved:
        named, now = change["moved"].split(": ")
        assert {*re.findall(r"C\d+[ab]?", named)} <= {*change["claim"].split(", ")}
        assert "now " in now and any(verdict in now for verdict in verdicts.VERDICTS)
        assert not re.search("no (figure and no )?verdict changed", change["reason"])


@pytest.mark.parametrize("missing", [False, True])
def test_a_verdict_names_each_of_its_sources_once_in_the_order_in_which_they_were_asked_for(missing):
    def rule(evidence):
        for name in ("small-100", "small-10", "small-100"):
            evidence.accuracies(name, 100.0, **FGSM_POST)
        if missing:
            raise Missing(["more"])
        return verdicts.Verdict("reproduced", "so it is")

    claim = verdicts.Claim("C1", *[""] * 4, rule, first_round="")
    runs = [StubRun(name).fgsm_post(90, 100) for name in ("small-10", "small-100")]
    sources = [source.partition(":")[0] for source in judge(claim, Evidence(runs, SEED)).evidence]
    assert sources == ["small-100-seed0", "small-10-seed0"]


def test_a_verdict_says_of_which_networks_it_knows_one_seed():
    assert lone_seeds(["small-10-seed0: r0", "small-10-seed0: r1", "data/claims/C1.json"]) == "one seed"
    assert lone_seeds(["small-10-seed0: r0", "small-10-seed1: r0"]) == ""
    assert lone_seeds(["data/claims/C1.json"]) == ""
    several = ["small-10-seed0: r", "small-10-seed1: r", "large-10-seed0: r", "large-random-seed0: r",
               "large-100-seed0: r"]
    assert lone_seeds(several) == "one seed of large-10, large-random and large-100"
    assert lone_seeds(several[:3]) == "one seed of large-10"
    assert lone_seeds([*several, "resnet-1-seed0: r"]) == "one seed of 4 of 5 networks"
    runs = [StubRun(n).measure("state_angle", 5.0, t1=1000.0, since=100.0, part="centred")
            for n in ("small-random", "large-random", "large-100")]

    def judged():
        return next(row for row in verdicts.ledger(runs, SEED, {}) if row.id == "C13")

    assert judged().shown == "in part, one seed"
    runs.append(StubRun("small-random", 1).measure("state_angle", 5.0, t1=1000.0, since=100.0,
                                                   part="centred"))
    assert judged().shown == "in part, one seed of large-random and large-100"
    assert "**in part, one seed of large-random and large-100**" in verdicts.as_details([judged()])


def test_the_details_name_the_days_on_which_a_rule_was_changed():
    rows = {row.id: row for row in verdicts.ledger([], SEED, {})}
    assert rows["C10"].changed == ["2026-11-23", "2026-11-25", "2026-11-28", "2026-11-29", "2026-11-30"]
    assert all("2026-11-23" in rows[name].changed for name in ("C19a", "C19b"))  # C19 was split later
    assert ("*Rule changed:* 2026-11-23, 2026-11-25 (with everything known), 2026-11-28, 2026-11-29, "
            "2026-11-30 (with everything known); " in verdicts.as_details([rows["C10"]]))
    for change in verdicts.RULE_CHANGES:
        assert ("Everything was known" in change["reason"]) == (change.get("known") == "everything"), change
    assert rows["C6"].changed or "Rule changed" not in verdicts.as_details([rows["C6"]])


def test_what_the_first_rounds_rules_gave_is_stored_and_shown_of_every_claim():
    stored = verdicts.first_round()
    assert list(stored) == [f"C{k}" for k in range(1, 23)]
    for name, found in stored.items():
        assert set(found) == {"verdict", "reason", "runs"} and found["reason"]
        assert found["verdict"] in verdicts.VERDICTS and set(found["runs"]) <= set(configs.NAMES)
    rows = verdicts.ledger([], SEED, {})
    assert all(row.first_round == stored[row.id.rstrip("ab")]["verdict"] for row in rows)
    assert set(RULE) == {"C1", "C2", "C3", "C4", "C7", "C12", "C15", "C17", "C19", "C21"}
    assert f"(first round: {stored['C22']['verdict']})" in verdicts.as_text(rows[-1:])


def test_a_real_run_answers_the_rules_look_ups(tiny_run):
    found = Evidence([tiny_run], SEED).accuracies("small-10", 1.0, attack="none", pooling="fixed")
    assert found[0].percent == pytest.approx(100 * found[0].outcomes().mean())
    assert found[0].interval[0] < found[0].percent < found[0].interval[1]


# -- chapters --------------------------------------------------------------------------------------

def test_a_chapters_values_are_stored_checked_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path))
    values = {"unit_step_difference": 0.0, "euler_order": np.float64(1.02)}
    verdicts.record_chapter("C1", "01-from-resnets-to-odes", values)
    assert verdicts.load_chapters() == {"C1": {"unit_step_difference": 0.0, "euler_order": 1.02}}
    with pytest.raises(ValueError, match="exactly"):
        verdicts.record_chapter("C1", "01", {"unit_step_difference": 0.0})
    with pytest.raises(ValueError, match="finite"):
        verdicts.record_chapter("C1", "01", {**values, "euler_order": math.nan})
    with pytest.raises(ValueError, match="chapters settle"):
        verdicts.record_chapter("C8", "05", {})


C3 = dict(gradient_difference=1e-8, memory_growth_adjoint=1.1, memory_growth_backprop=9.0,
          end_times=[1.0, 10.0, 100.0, 500.0], adjoint_error=[0.1, 0.1, 0.1, 0.1], backprop_error=[0.1] * 4)


@pytest.mark.parametrize("claim, values, expected", [
    ("C1", dict(unit_step_difference=0.0, euler_order=1.05), "reproduced"),
    ("C1", dict(unit_step_difference=0.0, euler_order=0.3), "in part"),
    ("C1", dict(unit_step_difference=0.0, euler_order=1.15), "in part"),  # too far at half
    ("C1", dict(unit_step_difference=0.0, euler_order=0.7), "in part"),  # near enough at twice
    ("C1", dict(unit_step_difference=1e-7, euler_order=1.0), "not reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 40, step_against_rate=[-0.6] * 40, step_against_speed=[0.0] * 40),
     "reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 40, step_against_rate=[-0.4] * 40, step_against_speed=[0.0] * 40),
     "in part"),
    ("C2", dict(step_against_error=[-0.3] * 40, step_against_rate=[-0.3] * 40, step_against_speed=[0.0] * 40),
     "in part"),  # at half of 0.5 both are strong
    ("C2", dict(step_against_error=[0.1] * 40, step_against_rate=[-0.2] * 40, step_against_speed=[-0.9] * 40),
     "not reproduced"),
    ("C2", dict(step_against_error=[-0.8] * 5, step_against_rate=[-0.6] * 5, step_against_speed=[0.0] * 5),
     "undecided"),
    ("C3", C3, "reproduced"),
    ("C3", {**C3, "adjoint_error": [0.1, 0.1, 0.9, 0.9]}, "in part"),
    ("C3", {**C3, "gradient_difference": 1e-3}, "not reproduced"),
    ("C3", {**C3, "memory_growth_adjoint": 8.0}, "not reproduced"),
    ("C3", {**C3, "end_times": [1.0, 10.0, 100.0, 300.0]}, "undecided"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=1.0, logdet_exponent=2.5), "reproduced"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=2.3, logdet_exponent=2.5), "in part"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=2.1, logdet_exponent=2.5), "in part"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=1.8, logdet_exponent=2.5), "reproduced"),
    ("C7", dict(log_density_difference=1e-2, trace_exponent=1.0, logdet_exponent=2.5), "not reproduced"),
])
def test_claims_settled_by_chapters(claim, values, expected):
    judged = verdict(claim, chapters={claim: values})
    assert judged.verdict == expected and judged.evidence == (f"data/claims/{claim}.json",)


@pytest.mark.parametrize("claim, values, said", [
    ("C1", dict(unit_step_difference=0.0, euler_order=1.15), "in part at 0.5 times, reproduced at 1 times"),
    ("C2", dict(step_against_error=[-0.3] * 40, step_against_rate=[-0.3] * 40, step_against_speed=[0.0] * 40),
     "reproduced at 0.5 times, not reproduced at 1 times its value"),
    ("C7", dict(log_density_difference=1e-6, trace_exponent=2.1, logdet_exponent=2.5),
     "reproduced at 0.5 times, in part at 1 times its value")])
def test_rules_of_the_first_round_say_where_they_hang_on_their_threshold(claim, values, said):
    assert said in verdict(claim, chapters={claim: values}).reason


def test_the_summary_shows_two_figures_and_that_there_are_more():
    values = dict(log_density_difference=1e-6, trace_exponent=1.0, logdet_exponent=2.5)
    rows = verdicts.ledger([], SEED, {"C7": values})
    line, = (line for line in verdicts.summary(rows).splitlines() if line.startswith("| [C7]"))
    assert "| difference: 1e-06 nats; trace exponent: 1; ... | reproduced |" in line
    assert "log-determinant exponent: 2.5 |" in verdicts.as_markdown(rows)


def test_the_details_list_some_of_what_is_missing_and_count_the_rest():
    rows = verdicts.ledger([], SEED, {"C1": dict(unit_step_difference=0.0, euler_order=1.05)})
    found, missing, _ = rows[:3]
    assert "- *First round, by its own rule:* reproduced." in verdicts.as_details([found])
    assert "*From:* `data/claims/C1.json`." in verdicts.as_details([found])
    names = [f"data/claims/C2.json: {name}" for name in verdicts.CHAPTER_VALUES["C2"]]
    assert missing.missing == tuple(names) and len(names) == 3
    assert f"*Missing:* {'; '.join(names)}.\n" in verdicts.as_details([missing], 3) + "\n"
    assert f"*Missing:* {names[0]}; and 2 more." in verdicts.as_details([missing], 1)


def test_errors_of_both_gradients_are_shown_and_called_useless_only_where_both_are():
    judged = verdict("C3", chapters={"C3": {**C3, "adjoint_error": [0.1, 0.9, 0.95, 1.0],
                                            "backprop_error": [0.1, 0.5, 2.0, 3.0]}})
    assert "useless from t1 = 100 on" in judged.reason
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
    reproduced = verdict("C4", runs(99.4, 99.5, 98.0))
    assert reproduced.verdict == "reproduced" and reproduced.evidence == (
        "wide-standard-seed0: r0", "resnet-6-seed0: r0", "resnet-1-seed0: r0")
    assert verdict("C4", runs(99.4, 99.5, 99.4)).verdict == "artefact"
    assert verdict("C4", runs(98.8, 99.5, 98.0)).verdict == "not reproduced"
    assert verdict("C4", runs(99.3, 99.5, 98.0)).verdict == "in part"  # not within half of 0.3 points
    assert verdict("C4", runs(99.4, 99.5, 99.0)).verdict == "in part"  # one block within twice that


def test_fewer_parameters_is_in_part_when_the_sizes_are_not_three_to_one(monkeypatch):
    monkeypatch.setattr(builders, "parameters", lambda name: 100)
    runs = [StubRun(n).clean(99, 1) for n in ("wide-standard", "resnet-6", "resnet-1")]
    assert verdict("C4", runs).verdict == "in part"
    sizes = {"wide-standard": 100, "resnet-6": 300, "resnet-1": 1000}  # a single block that saves nothing
    monkeypatch.setattr(builders, "parameters", sizes.get)
    assert verdict("C4", runs).verdict == "reproduced"


@pytest.mark.parametrize("at_500, expected", [((94, 72, 94, 96), "reproduced"), ((94, 95, 94, 70), "in part"),
                                              ((50, 95, 50, 96), "not reproduced"),
                                              ((93, 72, 94, 96), "in part"), ((94, 80, 94, 96), "in part")])
def test_keeping_accuracy_at_500(at_500, expected):
    runs = [StubRun(n).clean_post(98.5, 100).clean_post(v, 500) for n, v in
            zip(("small-random", "small-100", "large-random", "large-100"), at_500)]
    assert verdict("C12", runs).verdict == expected


@pytest.mark.parametrize("standard, adversarial, expected", [
    (3, 300, "reproduced"), (3, 10, "in part"), (3, 20, "in part"), (300, 3, "not reproduced")])
def test_range_of_end_times(standard, adversarial, expected):
    times = [*np.geomspace(0.1, 0.9, 10), *np.geomspace(1, 1000, 30)]  # no fewer
    runs = []
    for name, reach in (("wide-standard", standard), ("wide-adversarial", adversarial)):
        run = StubRun(name)
        for t1 in times:
            run.clean(98 if t1 <= reach else 40, float(t1))
        runs.append(run)
    assert verdict("C15", runs).verdict == expected
    runs[0].metrics = runs[0].metrics[1:]
    assert verdict("C15", runs).verdict == UNDECIDED


def test_accuracy_that_falls_at_once_reaches_no_further_than_one():
    run = StubRun("wide-standard")
    for t1 in (*np.geomspace(0.1, 0.9, 10), *np.geomspace(1, 1000, 30)):
        run.clean(98 if t1 <= 1 else 40, t1)
    assert end_time.accuracy_reach(run) == 1.0


def test_the_headline_reaches_every_verdict():
    def headline(post, attacked):
        return verdict("C19", [attacked(StubRun("large-100").fgsm_post(post, 100))]).verdict
    assert headline(91, lambda run: run.worst(85, 100)) == "reproduced"
    assert headline(91, lambda run: run.worst(30, 100)) == "in part"
    assert headline(91, lambda run: run.worst(15, 100)) == "in part"  # not surely below half of 20 %
    assert headline(91, lambda run: run.worst(50, 100)) == "in part"
    assert headline(60, lambda run: run.worst(85, 100)) == "in part"
    assert headline(91, lambda run: run.worst(81, 100)) == "in part"  # of 1,000 images: from 78 % on
    assert headline(91, lambda run: run.pgd(2, 100)) == "artefact"
    assert headline(60, lambda run: run.pgd(2, 100)) == "not reproduced"


def test_one_attack_can_refute_robustness_but_only_the_full_set_can_support_it():
    run = StubRun("large-100").fgsm_post(91, 100).pgd(90, 100)
    undecided = verdict("C19", [run])
    assert undecided.verdict == UNDECIDED and "APGD and Square" in undecided.missing[0]
    assert verdict("C19", [run.worst(88, 100, combines=["fgsm-exact", "pgd10-exact"])]).verdict == UNDECIDED
    assert robustness.strongest(Evidence([run], SEED), "large-100", 100.0)[0].record["attack"] == "worst"


@pytest.mark.parametrize("told, angle, turning, expected", [
    ((0.98, 0.55), (40, 5), 0.01, "reproduced"), ((0.98, 0.55), (40, 5), 0.5, "in part"),
    ((0.98, 0.97), (40, 5), 0.01, "artefact"), ((0.98, 0.97), (5, 40), 0.01, "in part"),
    ((0.98, 0.75), (40, 5), 0.01, "in part"), ((0.65, 0.55), (40, 5), 0.01, "not reproduced"),
    ((0.98, 0.55), (40, 5), 0.08, "in part"), ((0.98, 0.58), (40, 5), 0.01, "in part"),
    ((0.98, 0.85), (40, 5), 0.01, "in part"), ((0.85, 0.55), (40, 5), 0.01, "in part")])
def test_six_and_four(told, angle, turning, expected):
    runs = [StubRun(n).measure("nearest_class", a, t1=1000.0, label="6-4", statistic="mean")
            .measure("class_mean_angle", b, t1=1000.0, label="6-4")
            for n, a, b in zip(("wide-adversarial", "wide-standard"), told, angle)]
    runs[0].measure("turning", turning, t1=1000.0, part="centred")
    judged = verdict("C17", runs)
    assert judged.verdict == expected and "reaches below" not in judged.reason
    runs[0].measurements[0]["value"] = 0.91  # of 1,000 images: from 89 % on
    assert "reaches below" in verdict("C17", runs).reason


@pytest.mark.parametrize("early, late, after, expected", [
    (0.85, 0.95, 5, "reproduced"), (0.4, 0.5, 5, "in part"), (0.99, 0.95, 5, "not reproduced"),
    (0.85, 0.95, 60, "not reproduced")])
def test_attacked_images_are_pulled_to_their_class(early, late, after, expected):
    run = StubRun("wide-adversarial").measure("nearest_class", early, t1=1.0, statistic="mean", images="pgd")
    run.measure("nearest_class", late, t1=1000.0, statistic="mean", images="pgd")
    run.measure("attacked_angle", 30, t1=1.0, images="pgd")
    run.measure("attacked_angle", after, t1=1000.0, images="pgd")
    assert verdict("C21", [run]).verdict == expected


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
    assert str(one) == "turning: 3 [2, 5]" and str(two) == "turning: 3.5 [3, 4]"
