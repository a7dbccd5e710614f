"""Sentences about the table say what its records say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nodelib.chapters import table_text
from nodelib.experiment import artifacts, configs
from nodelib.experiment.artifacts import Run
from nodelib.publish import table


def stored(name: str, seed: int, **accuracies: float) -> Run:
    records = [{"id": key.replace("_", "-"), "t1": 10.0, "n": 1000, "accuracy": value} for key, value in accuracies.items()]
    return Run(name, seed, path=None, config={}, provenance={}, history={}, metrics=records, measurements=[])


def test_entries_where_more_steps_leave_more_are_named_as_a_failing_attack():
    failing = stored("small-10", 0, none_t10=0.125, fgsm_exact_t10=0.137, pgd10_exact_t10=0.17)
    assert "small-10 at 10 (ten steps leave 17.0 % and one 13.7 %)" in table_text.inverted(table.cells([failing]))
    other = stored("small-10", 1, none_t10=0.125, fgsm_exact_t10=0.137, pgd10_exact_t10=0.12)
    assert "means of 2 seeds, 1 of which show it" in table_text.inverted(table.cells([failing, other]))
    sound = stored("small-10", 0, fgsm_exact_t10=0.137, pgd10_exact_t10=0.137)
    assert table_text.inverted(table.cells([sound])) == "In no entry do ten steps leave more than one."


def test_the_answer_counts_what_was_compared_and_what_there_was_to_reproduce():
    assert table_text.in_words([]).startswith("None of the 48 can be compared")
    entry = table.Comparison("small-10", 10.0, "clean", 98.64, 98.5, True, (98.2, 98.7))
    attacked = table.Comparison("small-10", 1.0, "FGSM", 0.0, 0.0, True, (0.0, 0.2))
    text = table_text.in_words([entry, dataclasses.replace(entry, t1=1.0, reproduced=False), attacked])
    assert "1 of 2 clean" in text and "1 of 1 attacked" in text and "3 of the 48" in text and "1 of 6 networks" in text
    assert "Most telling" not in text  # the post's attack leaves nothing there
    left = dataclasses.replace(attacked, t1=10.0, theirs=9.34, reproduced=False)
    assert "0 of 1 do, and 0 of 1 at a network's own end time" in table_text.in_words([attacked, left])


def test_the_recipe_is_told_from_the_stored_configs():
    assert table_text.recipe([]) == "No row is stored yet."
    runs = [dataclasses.replace(stored(name, 0), config=configs.get(name).to_dict()) for name in ("small-10", "large-100")]
    small, large = (configs.get(name).epochs for name in ("small-10", "large-100"))
    assert "rises to 0.005" in table_text.recipe(runs) and f"the small ones {small} and the large ones {large}" in table_text.recipe(runs)
    assert f"in the large ones the rate rises and falls {len(configs.get('large-100').cycles)} times" in table_text.recipe(runs)


def test_the_rows_are_told_in_words_from_their_records():
    records = dict(none_random_t10=0.985, fgsm_seed_t10=0.02, fgsm_exact_t10=0.01, pgd10_exact_t10=0.0)
    cells = table.cells([stored("small-10", 0, **records)])
    (sentence,) = table_text.row_sentences(cells)
    assert "small-10" in sentence and "98.5 % clean (post 98.64 %)" in sentence and "2.0 (1.3 to 3.1) % under" in sentence
    assert table_text.strongest(cells) == "At their own end times, ten steps with the exact gradient leave 0.0 % of small-10."
    assert table_text.row_sentences(table.cells([])) == [] and "No network" in table_text.strongest(table.cells([]))


def test_persistence_tells_networks_that_keep_their_accuracy_from_those_that_lose_it():
    def run(name, own, before, after):
        metrics = [{"id": f"none-random-t{t:g}", "t1": t, "n": 1000, "accuracy": a} for t, a in ((own, before), (500.0, after))]
        return Run(name, 0, path=None, config={}, provenance={}, history={}, metrics=metrics, measurements=[])

    words = table_text.persistence(table.cells([run("small-random", 100.0, 0.98, 0.90), run("small-100", 100.0, 0.98, 0.80)]))
    assert words == ("small-random (trained at 10 to 100: from 98.0 to 90.0 %) loses at most 10 points; "
                     "small-100 (trained to 100: from 98.0 to 80.0 %) loses more than 10 points")
    assert "no network" in table_text.persistence(table.cells([]))


@pytest.mark.parametrize("clean, one_step, said", [
    (0.979, 0.021, ("Both learn alike. On the same attacked images the two cannot be told apart", "neither is robust")),
    (0.78, 0.12, ("the adjoint costs 20.0 points of clean accuracy", "keeps 10.0 points more under one exact step (McNemar's p = "))])
def test_the_controls_that_differ_in_the_training_gradient_alone_are_compared_on_the_same_images(tmp_path, clean, one_step, said):
    def run(name, clean, one_step, seconds):
        records = dict(none_t100=clean, fgsm_seed_t100=0.03, fgsm_exact_t100=one_step, pgd10_exact_t100=0.0)
        made = dataclasses.replace(stored(name, 0, **records), path=tmp_path / name,
                                   history={"seconds": np.array([seconds, 2 * seconds])})
        made.path.mkdir()
        for record in made.metrics:
            artifacts.save_outcomes(made.path / "outcomes.safetensors", record["id"], np.arange(1000) < 1000 * record["accuracy"])
        return made

    exact, adjoint = run("small-100-short", 0.98, 0.02, 0.1), run("small-100-adjoint", clean, one_step, 0.8)
    words = table_text.training_gradient([exact, adjoint])
    assert all(part in words for part in said) and ("told apart" in words) == (one_step < 0.1)
    assert "the adjoint took 0.80 s and one by the exact gradient 0.10 s" in words
    assert (f"small-100-adjoint classifies {100 * clean:.1f} % of clean images; the post's attack leaves 3.0 %, one exact step "
            f"{100 * one_step:.1f} %") in words
    assert table_text.training_gradient([exact]) == "small-100-adjoint and small-100-short are not both measured yet."
