import dataclasses

import numpy as np
import pytest
import torch

from nodelib.experiment import artifacts, configs, evaluation, protocols
from nodelib.experiment.contract import LADDER
from nodelib.experiment.evaluation import Measurement, check_count, evaluate
from nodelib.experiment.measurement import made_otherwise
from nodelib.experiment.records import metric_fault, metrics_csv
from nodelib.networks import FractionalPool
from nodelib.solver.errors import InputError
from nodelib.statistics import wilson


@pytest.mark.parametrize("correct, n, low, high", [
    (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (98, 100, 0.9300, 0.9945),
])
def test_wilson_matches_published_intervals(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_reaches_its_bound_exactly():
    assert wilson(0, 100)[0] == 0.0 and wilson(100, 100)[1] == 1.0


@pytest.mark.parametrize("correct, n", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(correct, n):
    with pytest.raises(ValueError, match="of n ="):
        wilson(correct, n)


@pytest.mark.parametrize("z", [-1, 0, float("nan"), float("inf")])
def test_an_interval_has_a_level(z):
    with pytest.raises(ValueError, match="z is"):
        wilson(1, 2, z)


def test_epsilon_zero_equals_clean_accuracy(small, test_images):
    clean, _ = evaluate(small, *test_images, Measurement(1.0, 64))
    for attack, settings in (("fgsm", {}), ("pgd", dict(steps=2, step_size=0.1))):
        attacked, _ = evaluate(small, *test_images, Measurement(1.0, 64, attack, 0.0, **settings))
        assert np.array_equal(clean, attacked)


def test_accuracy_counts_what_the_model_says(small, test_images):
    correct, nfe = evaluate(small, *test_images, Measurement(1.0, 64))
    with torch.no_grad():
        expected = (small(test_images[0], 1.0).argmax(1) == test_images[1]).numpy()
    assert np.array_equal(correct, expected) and nfe == small.block.nfe
    right, _ = evaluate(small, test_images[0], small(test_images[0], 1.0).argmax(1), Measurement(1.0, 64))
    assert right.all()


def test_the_model_is_handed_back_as_it_came(small, test_images):
    small.train()
    small.pooling, small.block.rtol = "random", 1e-2
    evaluate(small, test_images[0][:8], test_images[1][:8], Measurement(1.0, 8, "fgsm", 0.1, rtol=1e-4))
    assert small.training and small.pooling == "random" and small.block.rtol == 1e-2


def test_a_part_keeps_a_mode_of_its_own(small, test_images):
    small.train()
    small.norm.eval()  # batch statistics frozen while the rest is trained
    evaluate(small, test_images[0][:2], test_images[1][:2], Measurement(1.0, 2))
    assert small.training and small.linear.training and not small.norm.training


def test_directions_are_used_again_for_the_same_images_only(small, test_images):
    (x, y), kept, step = test_images, {}, Measurement(1.0, 8, "fgsm", 0.1)
    for part in (slice(0, 8), slice(8, 16), slice(8, 16)):
        again, _ = evaluate(small, x[part], y[part], step, directions=kept)
        assert np.array_equal(again, evaluate(small, x[part], y[part], step)[0])
    assert len(kept) == 1


def test_random_pooling_follows_its_seed(small, test_images):
    def logits(seed):
        with evaluation.evaluating(small, "random", seed), torch.no_grad():
            return small(test_images[0][:8])

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))


@pytest.mark.parametrize("gradient", ["exact", "reference"])
def test_the_attack_and_the_scoring_see_regions_of_their_own(gradient, small, test_images, monkeypatch):
    drawn, draw = [], FractionalPool._draw
    monkeypatch.setattr(FractionalPool, "_draw",
                        lambda self, *shape: drawn.append(found := draw(self, *shape)) or found)
    m = Measurement(1.0, 2, "fgsm", 0.1, pooling="random", gradient=gradient, batch=2)
    evaluate(small, test_images[0][:2], test_images[1][:2], m)
    attacked, scored = drawn
    assert not torch.equal(attacked, scored)


@pytest.mark.parametrize("change, message", [
    (dict(images=torch.full((2, 1, 28, 28), 2.0)), "allowed range"),
    (dict(labels=torch.tensor([3, 11])), "0 to 9"),
    (dict(images=torch.full((2, 1, 28, 28), float("nan"))), "NaN"),
    (dict(images=torch.zeros(0, 1, 28, 28), labels=torch.zeros(0, dtype=torch.long)), "there are 0 images"),
])
def test_bad_images_and_labels_are_refused_before_any_work(change, message, small):
    values = {"images": torch.zeros(2, 1, 28, 28), "labels": torch.tensor([1, 2]), **change}
    small.block.func.nfe = 0
    with pytest.raises(ValueError, match=message):
        evaluate(small, values["images"], values["labels"], Measurement(1.0, 2))
    assert small.block.func.nfe == 0


def test_a_model_that_is_none_of_this_library_is_refused_and_the_way_out_said(test_images):
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    with pytest.raises(InputError, match="the model is a Sequential; .* nodelib.pgd"):
        evaluate(own, *test_images, Measurement(1.0, 64, "fgsm", 0.1))


@pytest.mark.parametrize("n", [0, 10001, 5.0, 2.5, True, "5"])
def test_a_number_of_images_that_is_none_is_refused(n):
    with pytest.raises(InputError, match="n is .*whole number from 1 to 10000"):
        check_count(n)


@pytest.mark.parametrize("change, message", [
    (dict(t1=0.0), "end time"), (dict(t1=-5.0), "end time"), (dict(epsilon=-1.0), "epsilon is -1"),
    (dict(attack="cw"), "unknown attack 'cw'; the known attacks are none"), (dict(n=0), "n is 0"),
    (dict(n=10001), "n is 10001"), (dict(gradient="x"), "gradient is 'x'"),
    (dict(pooling="x"), "pooling is 'x'"),
])
def test_a_measurement_refuses_values_out_of_range(change, message):
    with pytest.raises(InputError, match=message):
        Measurement(**{"t1": 1.0, "n": 10, **change})


def test_a_measurement_holds_pythons_own_numbers_and_a_label_that_can_be_read_back():
    numpys = Measurement(np.float32(2.0), np.int64(4), "pgd", epsilon=np.float64(0.1),
                         step_size=np.float32(0.25), steps=np.int64(2))
    assert numpys == Measurement(2.0, 4, "pgd", epsilon=0.1, step_size=0.25, steps=2)
    assert [type(value) for value in (numpys.t1, numpys.n, numpys.epsilon)] == [float, int, float]
    with pytest.raises(InputError, match="label is 'no-epsilon' at epsilon 0.3; what follows '-eps' names"):
        Measurement(2.0, 4, "fgsm", epsilon=0.3, label="no-epsilon")
    assert Measurement(2.0, 4, "fgsm", epsilon=0.1, label="fgsm-eps0.1").id == "fgsm-eps0.1-t2"


def test_attacks_of_another_epsilon_have_records_of_their_own():
    from nodelib.experiment.measurement import record

    usual, other = (Measurement(2.0, 4, "fgsm", epsilon) for epsilon in (0.3, 0.1))
    named = protocols.at_epsilon(dataclasses.replace(usual, label="fgsm"), 0.1)
    assert usual.id == "fgsm-t2" and other.id == named.id == "fgsm-eps0.1-t2"
    for m in (usual, other, Measurement(2.0, 4), Measurement(1e-5, 4, "worst", 1.0),
              protocols.at_epsilon(usual, 0.3)):
        made = record(m, np.ones(4, dtype=bool), 1.0, 0.0, "cpu", None)
        assert metric_fault(made) is None
        assert "its t1 is 3" in metric_fault({**made, "t1": 3.0})
        assert "its epsilon is 0.2" in metric_fault({**made, "epsilon": 0.2})


def test_the_test_order_is_a_fixed_shuffle_of_all_test_images():
    order = evaluation.test_order()
    assert sorted(order) == list(range(10000)) and order[:3].tolist() == evaluation.test_order()[:3].tolist()
    assert abs(np.mean(order[:1000] < 5000) - 0.5) < 0.05  # not only the easier first half


def test_the_full_protocol_measures_the_four_end_times_and_the_posts_attack():
    protocol = protocols.table_protocol(configs.get("small-10"))
    assert {m.t1 for m in protocol} == {1.0, 10.0, 100.0, 500.0}
    seed = [m for m in protocol if m.label == "fgsm-seed"]
    assert len(seed) == 4
    for m in seed:
        assert (m.epsilon, m.clip, m.pooling, m.batch) == (0.3, False, "random", 32)
        assert m.gradient.endswith("adjoint")
    assert all(m.n == 10000 for m in protocol)
    assert len({m.id for m in protocol}) == len(protocol)


def test_records_are_tidy_and_outcomes_add_up(tiny_run):
    assert {r["t1"] for r in tiny_run.metrics} == {1.0, 10.0, 100.0, 500.0}
    for r in tiny_run.metrics:
        assert r["accuracy"] == r["correct"] / r["n"] and r["low"] <= r["accuracy"] <= r["high"]
        assert tiny_run.outcomes(r["id"]).sum() == r["correct"] and len(tiny_run.outcomes(r["id"])) == r["n"]
        assert r["nfe"] > 6


def test_evaluation_resumes_per_record(tiny_run, tmp_path, monkeypatch):
    import shutil

    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    records = tiny_run.metrics
    artifacts.write_atomic(folder / "metrics.csv", metrics_csv(records[:-1]))
    measured = []
    original = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **k: measured.append(a[3].id) or original(*a, **k))
    config = configs.RunConfig.from_dict(tiny_run.config)
    after = evaluation.evaluate_run(folder, protocols.table_protocol(config), progress=False)
    assert measured == [records[-1]["id"]]
    assert [r["id"] for r in after] == [r["id"] for r in records]
    assert after[-1]["correct"] == records[-1]["correct"]


@pytest.mark.parametrize("changes, message", [
    (dict(rtol=1e-4, atol=1e-4), "none-t1 is stored with rtol 0.001, not 0.0001; atol"),
    (dict(pooling="random"), "pooling fixed, not random; pooling_seed None, not 0"),
    (dict(t1=1.0000001), "t1 1.0, not 1.0000001"), (dict(batch=7), "batch 250, not 7"),
])
def test_a_record_of_another_measurement_is_never_taken_for_it(changes, message, tiny_run):
    m = dataclasses.replace(Measurement(1.0, 4), **changes)
    with pytest.raises(InputError, match=f"{message}.*; give the measurement a label of its own"):
        evaluation.evaluate_run(tiny_run.path, [m], progress=False)


def test_two_measurements_of_one_id_are_refused_before_any_work(tiny_run):
    one, other = (Measurement(1.0, 4, "pgd", 0.05, step_size=0.01, steps=steps) for steps in (1, 20))
    with pytest.raises(InputError, match="two measurements would be stored as pgd-eps0.05-t1"):
        evaluation.evaluate_run(tiny_run.path, [one, other], progress=False)
    assert "pgd-eps0.05-t1" not in {r["id"] for r in artifacts.load_run(tiny_run.path).metrics}


def test_stored_records_are_those_of_todays_protocols():
    compared = 0
    for run in artifacts.find_runs():
        for one in (run, *run.earlier):
            stored = {r["id"]: r for r in one.metrics}
            for m in protocols.get("all", configs.RunConfig.from_dict(one.config), ["small-100-seed0"]):
                if m.id in stored:
                    compared += 1
                    assert not made_otherwise(m, stored[m.id]), (one.path.name, m.id)
    assert compared > 4000


def test_a_record_that_lost_its_outcomes_is_measured_again(tiny_run, tmp_path):
    import shutil

    import safetensors.numpy

    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    path, lost = folder / "outcomes.safetensors", tiny_run.metric("none-t1")
    safetensors.numpy.save_file({k: v for k, v in safetensors.numpy.load_file(path).items()
                                 if k != lost["id"]}, path)
    evaluation.evaluate_run(folder, [Measurement(lost["t1"], lost["n"])], progress=False)
    assert artifacts.load_run(folder).outcomes(lost["id"]).tolist() == tiny_run.outcomes(lost["id"]).tolist()


def test_a_tighter_tolerance_costs_more_evaluations(small, test_images):
    measurement = Measurement(1.0, 64)
    _, loose = evaluate(small, *test_images, measurement)
    _, tight = evaluate(small, *test_images, dataclasses.replace(measurement, rtol=1e-6, atol=1e-6))
    assert tight > loose


STORED = [run for run in artifacts.find_runs() if any(r["id"].startswith("sweep-") for r in run.metrics)]


@pytest.mark.parametrize("run", STORED, ids=lambda run: run.path.name)
def test_stored_sweeps_over_epsilon_keep_what_the_protocol_says_must_hold(run):
    for t1 in {r["t1"] for r in run.metrics if r["id"].startswith("sweep-")}:
        here = [r for r in run.metrics if r["t1"] == t1]
        nothing = [run.outcomes(r["id"]) for r in here if r["id"].startswith("sweep-") and r["epsilon"] == 0]
        # epsilon 0 is the clean image, whatever the attack
        assert all((outcomes == nothing[0]).all() for outcomes in nothing)
        worst = sorted((r for r in here if r["attack"] == "worst"), key=lambda r: r["epsilon"])
        for ladder in (False, True):  # another cascade, broken by its own attacks only
            cascade = [r for r in worst if r["id"].startswith(LADDER) is ladder]
            for small, large in zip(cascade, cascade[1:]):
                a, b = (run.outcomes(r["id"])[:min(small["n"], large["n"])] for r in (small, large))
                risen = f"the worst case rises from {small['id']} to {large['id']}"
                assert not (b & ~a).any(), f"{run.path.name}, t = {t1:g}: {risen}"
        for r in worst:
            kept = r["epsilon"] < 0.5 or r["low"] <= 0.1
            assert kept, f"{run.path.name}: {r['id']} leaves more than chance"
