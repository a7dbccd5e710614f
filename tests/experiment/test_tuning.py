import dataclasses

import pytest
from builders import tiny_config

from nodelib.experiment import artifacts, configs, tuning


def test_a_trial_learns_something_and_says_what_it_did():
    record = tuning.trial(tiny_config(train_images=640, batch_size=16, epochs=1), held_out=200)
    assert record["accuracy"] > 0.2 and record["loss"] < 3
    settings = [record[key] for key in ("run", "images", "batch_size", "held_out")]
    assert settings == ["small-10", 640, 16, 200]


def test_no_trial_sees_the_images_that_judge_it():
    for name, images, changes in tuning.TRIALS:
        assert tuning.trial_config(name, images, changes).train_images <= 60000 - tuning.HELD_OUT
    with pytest.raises(ValueError, match="images is 55000; a trial may see at most the first 54000"):
        tuning.trial_config("small-10", 55000, {})


def test_the_recipe_is_among_the_trials_and_differs_from_each_other_one_in_one_field():
    for name, images, changes in tuning.TRIALS:
        tried, recipe = tuning.trial_config(name, images, changes), configs.get(name)
        different = {f.name for f in dataclasses.fields(tried)
                     if getattr(tried, f.name) != getattr(recipe, f.name)}
        assert different - {"train_images", "epochs", "cycles"} == set(changes) and len(changes) <= 1
    assert {name for name, _, changes in tuning.TRIALS if not changes} == {"small-100", "large-10"}


def test_a_trial_that_is_stored_is_not_run_again(tmp_path, monkeypatch):
    calls = []

    def trial(config, held_out):
        calls.append(config)
        return {"run": config.name, "images": config.train_images, "batch_size": config.batch_size,
                "learning_rate": config.learning_rate, "head_scale": config.head_scale, "held_out": 1,
                "accuracy": 0.5, "loss": 1.0, "seconds": 1.0}

    monkeypatch.setattr(tuning, "trial", trial)
    first = tuning.measure(tmp_path / "tuning.json")
    assert len(calls) == len(tuning.TRIALS) == len(first)
    artifacts.write_json(tmp_path / "tuning.json", first[1:])
    assert sorted(map(str, tuning.measure(tmp_path / "tuning.json"))) == sorted(map(str, first))
    assert len(calls) == len(tuning.TRIALS) + 1
    assert tuning.as_markdown(first).count("50.0 %") == len(first)
