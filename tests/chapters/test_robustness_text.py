"""The sentences of the robustness page say what the records say, whatever has been measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from nodelib.chapters import robustness_text
from nodelib.experiment.artifacts import read_json
from nodelib.experiment.measurement import Measurement, record
from nodelib.experiment.paths import data_dir

SET = ["square-t100", "apgd-ce-t100", "apgd-t-t100", "fab-t-t100"]


def run_of(tiny_run, name: str, *attacks: tuple[Measurement, int]):
    """The tiny run under another name, trained to t = 100, with so many images right under each attack."""
    records = [record(m, np.arange(m.n) < correct, 0.0, 0.0, "cpu", None, combines=SET if m.attack == "worst" else None)
               for m, correct in attacks]
    bits = {r["id"]: np.arange(r["n"]) < r["correct"] for r in records}

    class Stub(type(tiny_run)):
        def outcomes(self, record_id):
            return bits[record_id]
    return Stub(**{f.name: getattr(tiny_run, f.name) for f in dataclasses.fields(tiny_run)}
                | {"name": name, "metrics": records, "config": {**tiny_run.config, "test_t1": 100.0}})


def pgd(left: int, n: int = 50, label: str = "pgd10-exact") -> tuple[Measurement, int]:
    return Measurement(100.0, n, "pgd", 0.3, steps=10, step_size=0.075, label=label), left


def test_the_answer_counts_networks_attacked_by_the_whole_set_and_names_the_others(tiny_run):
    assert robustness_text.answer([]) == "No network has been attacked with the whole set yet."
    broken = run_of(tiny_run, "small-100", (Measurement(100.0, 50, "worst", 0.3), 0))
    other = run_of(tiny_run, "large-random", pgd(1))
    said = robustness_text.answer([broken, other])
    assert "1 of the table's 6 networks were put" in said and "None keeps a single one of 50 images" in said
    assert "Ten steps leave 2.0 % of 50 images of large-random" in said and "none left to try" not in said
    kept = run_of(tiny_run, "large-100", (Measurement(100.0, 50, "worst", 0.3), 5))
    assert "The one that keeps most, large-100, keeps 10.0 (4.3 to 21.4) %" in robustness_text.answer([broken, kept])


def test_the_headline_lists_what_has_and_what_has_not_been_measured(tiny_run):
    assert robustness_text.headline([]) == "The network of the headline, large-100, is not stored yet."
    run = run_of(tiny_run, "large-100", (Measurement(100.0, 50, "fgsm", 0.3, label="fgsm-exact"), 1), pgd(0))
    said = robustness_text.headline([run])
    assert "gradient leaves 2.0 % [0.4 to 10.5] of 50 images, ten such steps leave 0.0 % [0.0 to 7.1] of 50 images" in said
    clean = run_of(tiny_run, "large-100", (Measurement(100.0, 50), 49), pgd(0))
    assert "large-100, clean 98.0 % [89.5 to 99.6] of 50 images: ten such steps" in robustness_text.headline([clean])
    assert "has not been tried with other gradients, a sweep over epsilon" in said
    full = run_of(tiny_run, "large-100", pgd(0, label="mask-plain"), pgd(0, label="sweep-pgd40-eps0.3"), pgd(0, label="fgsm-by-exact-1e-3"),
                  (Measurement(100.0, 5, "hop-skip-jump", 0.3), 2), (Measurement(100.0, 5, "transfer", 0.3, source="x-seed0"), 2))
    assert robustness_text.headline([full]) == "large-100 has not been attacked yet."


def test_signs_are_told_at_the_own_end_time_and_at_the_last():
    shares = {"adjoint": (0.9, 0.5), "anchored": (0.95, 0.7), "exact-1e-3": (0.94, 0.6), "exact-1e-5": (0.99, 0.9)}
    health = pd.DataFrame([("a-seed0", t1, "sign_agreement", method, value) for method, values in shares.items()
                           for t1, value in zip((10.0, 500.0), values)], columns=["run", "t1", "name", "method", "value"])
    said = robustness_text.signs(health, {"a-seed0": 10.0})
    assert said.startswith("At the networks' own end times the continuous adjoint has 90 % of the signs right")
    assert "; at t = 500 the continuous adjoint has 50 %" in said
    assert "at t = 500" not in robustness_text.signs(health, {"a-seed0": 500.0})


@pytest.mark.parametrize("left, said", [
    ((1, 2, 0), "McNemar's test (p below 0.01) separates 0 of 3 pairs of gradients."),
    ((1, 2, 20), "separates 2 of 3 pairs of gradients: the adjoint and the reference on small-10-seed0 at t = 100 (p = 4e-06); the exact gradient and the reference on")])
def test_gradients_are_ranked_by_mcnemar_on_the_images_that_all_saw(tiny_run, left, said):
    def step(method, count, n):
        return Measurement(100.0, n, "fgsm", 0.3, label=f"fgsm-by-{method}-eps0.3"), count

    run = run_of(tiny_run, "a", *(step(method, count, n) for method, count, n in
                                  zip(("adjoint", "exact-1e-3", "reference"), left, (64, 64, 32))))
    words = robustness_text.by_gradient([run])
    assert said in words and f"leaves {left[0]}, {left[1]}, {left[2]} of 32 images of small-10-seed0 at t = 100" in words
    bare = run_of(tiny_run, "a", step("adjoint", 1, 64), step("reference", 1, 32))
    assert "No network" in robustness_text.by_gradient([bare])


def test_a_mask_is_looked_for_only_where_something_is_left(tiny_run):
    runs = [run_of(tiny_run, "small-100", pgd(left, label="mask-plain")) for left in (0, 0, 3)]
    assert robustness_text.masks([]) == "Nothing of this is measured yet."
    assert robustness_text.masks(runs).endswith("so it is in 2 of 3 columns.")
    assert robustness_text.masks(runs[2:]) == "In none of 1 columns does the plain attack leave nothing."


def test_what_a_change_of_the_attack_takes_is_judged_on_the_same_images(tiny_run):
    def told(plain, margin, adjoint, **kind):
        return robustness_text.unmasked([run_of(tiny_run, "small-100", pgd(plain, label="mask-plain"), pgd(margin, label="mask-margin"),
                                                pgd(adjoint, label="mask-adjoint"))], (0.3, 0.1))

    assert told(0, 0, 0) == "In no column does the plain attack leave anything that another could take."
    assert told(20, 19, 21).startswith("In the only column in which the plain attack leaves something, no change of the attack leaves")
    said = told(20, 5, 40)
    assert "significantly less (McNemar's p below 0.01) is left by: margin loss in small-10-seed0" in said
    assert "(10.0 against 40.0 %); significantly more (McNemar" in said and "continuous adjoint" in said


def test_what_changes_the_network_is_told_apart_from_what_changes_the_attack(tiny_run):
    def at(label: str, left: int, epsilon: float = 0.1) -> tuple[Measurement, int]:
        return Measurement(100.0, 50, "pgd", epsilon, steps=10, step_size=epsilon / 4, label=label), left

    drawn = [at("mask-plain-eps0.1", 10), at("mask-random-pooling-eps0.1", 30), at("mask-expectation-eps0.1", 25)]
    solver = [at("mask-plain", 20, 0.3), at("mask-tolerance-1e-6", 2, 0.3)]
    said = robustness_text.beyond_the_attack([run_of(tiny_run, "small-100", *drawn, *solver)], 0.1)
    assert "keeps 60 % against the gradient of one draw and 50 % against that of ten, where fixed pooling keeps 20 %: one draw's gradient makes" in said
    assert "keeps 4.0 % at epsilon 0.3 in place of 40.0 % (p = 8e-06)" in said
    nothing = run_of(tiny_run, "small-100", drawn[0], at("mask-random-pooling-eps0.1", 30), at("mask-expectation-eps0.1", 9), solver[0],
                     at("mask-tolerance-1e-6", 19, 0.3))
    assert robustness_text.beyond_the_attack([nothing], 0.1).endswith("where fixed pooling keeps 20 %.")
    assert robustness_text.beyond_the_attack([], 0.1) == ""


def test_transferred_images_are_counted_over_all_pairs_and_for_the_headlines_network(tiny_run):
    assert robustness_text.transferred([]) == "no pair has been measured yet"
    def attacked(name: str, left: int):
        return run_of(tiny_run, name, (Measurement(100.0, 50, "transfer", 0.3, source="x-seed0"), left), pgd(1))
    said = robustness_text.transferred([attacked("small-10", 5), attacked("large-100", 20)])
    assert said == "over 2 pairs they leave 10 to 40 %, and of large-100 40 %, where ten steps along its own gradient leave 2.0 %"


def test_the_librarys_warnings_are_told_network_by_network():
    assert robustness_text.heeded(None).startswith("the library is not installed")
    assert robustness_text.heeded({"a": [], "b": []}) == "it has no warning for any of 2 networks."
    assert robustness_text.heeded({"a": ["there are 2 points"], "b": []}) == "it warns of 1 of 2 networks (a: there are 2 points)."


def test_a_black_box_is_compared_with_the_gradients(tiny_run):
    box = (Measurement(100.0, 50, "hop-skip-jump", 0.3, steps=1000), 20)
    def told(left: int, worst: int = 0) -> str:
        run = run_of(tiny_run, "small-100", box, (Measurement(100.0, 50, "worst", 0.3), worst), pgd(left))
        return robustness_text.black_box([(run, run.metric("worst-t100"))])
    assert told(10, 10).startswith("With 1,000 labels an image, HopSkipJump leaves 40 % of 50 images on the network it was run on, and breaks none")
    assert told(0).endswith("The attacks by gradients leave none at all, so that a black box could not be ahead of them.")
    assert "on 1 it breaks images that attacks by gradients leave" in told(30)
    assert "has not been measured" in robustness_text.black_box([])


def test_the_pair_shows_whether_a_network_can_resist(tiny_run):
    def told(standard: int, adversarial: int) -> str:
        runs = [run_of(tiny_run, f"wide-{kind}", (Measurement(100.0, 50, "worst", 0.3), left))
                for kind, left in (("standard", standard), ("adversarial", adversarial))]
        runs[1].config["adversarial"] = {"steps": 1}
        return robustness_text.contrast(runs)

    assert "has not been through the whole set yet" in robustness_text.contrast([run_of(tiny_run, "small-100", (Measurement(100.0, 50, "worst", 0.3), 9))])
    said = told(0, 40)
    assert "wide-standard keeps 0.0 (0.0 to 7.1) % of 50 images and wide-adversarial keeps 80.0 (67.0 to 88.8) %" in said
    assert said.endswith(": an ODE-net can resist these attacks, if it is trained to.")
    assert "can resist" not in told(0, 5) and "can resist" not in told(40, 0)


def test_what_not_knowing_the_end_time_costs_has_a_sign():
    def said(half, **of):
        frame = pd.DataFrame([(name, epsilon, value, value - half, value + half, 50) for name, values in of.items()
                              for epsilon, value in zip((0.1, 0.3), values)],
                             columns=["attacker", "epsilon", "accuracy", "low", "high", "n"])
        return robustness_text.drawing(frame, ("knows", "one", "mean"))

    wide = said(10.0, knows=(90.0, 40.0), one=(90.0, 47.0), mean=(91.5, 44.5))
    assert "changes by −2.5 to +1.5 points, from that to knowing the end time by −4.5 to −1.5;" in wide
    assert "over 50 images overlap" in wide and "they leave 40.0 to 47.0 %." in wide
    assert "do not all overlap" in said(1.0, knows=(90.0, 40.0), one=(90.0, 47.0), mean=(89.0, 44.5))
    assert "each leaves 0.0 %: drawing the end time does not protect" in said(3.0, knows=(50.0, 0.0), one=(51.0, 0.0), mean=(52.0, 0.0))


def test_published_networks_lose_points_to_autoattack():
    said = robustness_text.anchors(read_json(data_dir() / "seed.json"))
    assert "the 4 that were trained against attacks lose 0.04 to 5.8 points, and 2.92 to 15.6 from clean" in said


def test_differences_are_judged_only_where_a_double_resolves_the_loss():
    rows = [dict(run=run, t1=t1, name="finite_difference", noise=0.001, value=value)
            for run, t1, value in (("a", 1.0, 0.002), ("a", 10.0, 0.03), ("b", 1.0, 0.01), ("b", 10.0, 1.0))]
    rows += [dict(run=run, t1=t1, name="logit_gap", noise=float("nan"), value=gap)
             for run, t1, gap in (("a", 1.0, 5.0), ("a", 10.0, 90.0), ("b", 1.0, 8.0), ("b", 10.0, 50.0))]
    frame = pd.DataFrame(rows)
    said = robustness_text.differenced(frame)
    assert "Over 2 networks and their end times, 3 in all, the difference lies between 0.2 and 3 % (most at a, t = 10)." in said
    assert "At b at t = 10 it checks nothing: the two largest logits lie 50 apart" in said
    resolved = robustness_text.differenced(frame.replace({"value": {50.0: 20.0}}))
    assert "between 0.2 and 1e+02 % (most at b, t = 10)" in resolved and "checks nothing" not in resolved
    assert robustness_text.differenced(frame[frame["name"] == "logit_gap"]) == "Elsewhere it has not been checked."


def test_an_attack_that_leaves_more_at_a_larger_epsilon_is_counted(tiny_run):
    def swept(*left):
        bits = {f"sweep-fgsm-eps{e:g}-t1": np.arange(100) < n for e, n in zip((0.1, 0.2, 0.3), left)}
        records = [{**record(Measurement(1.0, 100, "fgsm", e, label=f"sweep-fgsm-eps{e:g}"), bits[f"sweep-fgsm-eps{e:g}-t1"], 1, 1, "", None)}
                   for e in (0.1, 0.2, 0.3)]

        class Known(type(tiny_run)):
            def outcomes(self, record_id):
                return bits[record_id]
        bare = dataclasses.replace(tiny_run, metrics=records)
        return Known(**{f.name: getattr(bare, f.name) for f in dataclasses.fields(bare)})

    assert "in 0 of 2 cases, significantly (McNemar's p below 0.01) in none." in robustness_text.against_epsilon([swept(50, 40, 30)])
    assert "in 1 of 2 cases" in robustness_text.against_epsilon([swept(50, 30, 32)])
    said = robustness_text.against_epsilon([swept(50, 30, 60)])
    assert "in 1: FGSM on small-10-seed0 at t = 1 from 0.2 to 0.3." in said
    assert robustness_text.against_epsilon([]) == "No sweep is stored yet."
