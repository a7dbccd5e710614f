import pytest

from nodelib.experiment.evaluation import Measurement, evaluate
from nodelib.experiment.sweeps import sweep


def test_a_sweep_over_epsilon_starts_at_clean_accuracy_and_measures_what_evaluate_does(tiny_run, test_images):
    model = tiny_run.load_model()
    measurement = Measurement(1.0, 64, "fgsm", 0.1)
    data = sweep(model, *test_images, measurement, "epsilon", (0.0, 0.1, 0.3), attack="FGSM")
    clean, _ = evaluate(model, *test_images, Measurement(1.0, 64))
    attacked, nfe = evaluate(model, *test_images, measurement)
    assert data["accuracy"].tolist()[:2] == pytest.approx([100 * clean.mean(), 100 * attacked.mean()])
    assert (data["attack"] == "FGSM").all() and data["nfe"][1] == nfe
    assert ((data["low"] <= data["accuracy"]) & (data["accuracy"] <= data["high"])).all()


def test_a_sweep_over_end_times_costs_more_at_longer_ones(tiny_run, test_images):
    data = sweep(tiny_run.load_model(), *test_images, Measurement(1.0, 64), "t1", (0.5, 50.0))
    assert data["t1"].tolist() == [0.5, 50.0] and data["nfe"][1] > data["nfe"][0]
