"""Protocols, worst cases and resumed evaluation: the records are those the rules of the ledger ask for."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from nodelib.attacks import fgsm
from nodelib.experiment import artifacts, configs, evaluation, protocols
from nodelib.experiment.contract import LADDER_EPSILONS
from nodelib.experiment.evaluation import evaluate
from nodelib.experiment.measurement import Measurement, record
from nodelib.experiment.paths import runs_root
from nodelib.experiment.protocols import EPSILONS, SWEEP_T1
from nodelib.experiment.worst_case import inside, survivors
from nodelib.networks import ResNet
from nodelib.verdicts import end_time, robustness
from nodelib.verdicts.evidence import CLEAN, CLEAN_POST, FGSM_POST, PGD_EXACT, WORST, Evidence, matches


@pytest.fixture
def folder(tiny_run, tmp_path):
    """A copy of the tiny run, with its clean and FGSM records."""
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    return tmp_path / tiny_run.path.name


def few(measurements, n=4):
    """The same on few images and with few steps: what is stored, not how strong it is, is under test."""
    return [dataclasses.replace(m, n=min(m.n, n), steps=min(m.steps, 4), draws=min(m.draws, 2),
                                restarts=min(m.restarts, 2))
            for m in measurements]


def test_every_run_is_measured_at_its_own_end_time():
    for name in configs.NAMES:
        config = configs.get(name)
        assert config.test_t1 in {m.t1 for m in protocols.table_protocol(config)}, name
    assert protocols.end_times(configs.get("small-100-leaky")) == (1.0, 4.6, 10.0, 100.0, 500.0)
    assert protocols.end_times(configs.get("resnet-6")) == (1.0,)


def test_the_sweep_has_the_end_times_of_the_rule():
    assert len(SWEEP_T1) >= 40 and SWEEP_T1[0] == 0.1 and SWEEP_T1[-1] == 1000
    assert {1.0, 10.0, 100.0, 500.0} <= set(SWEEP_T1)


@pytest.mark.parametrize("name", ["small-10", "small-random", "large-100", "wide-adversarial", "resnet-1"])
@pytest.mark.parametrize("scale", configs.SCALES)
def test_every_measurement_of_a_run_has_an_id_of_its_own(name, scale):
    config = configs.get(name, scale=scale)
    measurements = protocols.get("all", config, ["large-10-seed0", config.folder])
    by_id: dict = {}
    for m in measurements:
        by_id.setdefault(m.id, set()).add(dataclasses.replace(m, n=1, batch=1))
    assert all(len(same) == 1 for same in by_id.values()), [i for i, same in by_id.items() if len(same) > 1]
    assert sum(m.label.startswith("transfer") for m in measurements) == 1  # not on itself


def test_the_strong_set_is_autoattacks_and_a_label_only_attack_at_two_end_times():
    strong = protocols.strong_protocol(configs.get("small-10"))
    for t1 in (10.0, 100.0):
        attacks = [m.attack for m in strong if m.t1 == t1]
        assert attacks == ["pgd", "pgd", "apgd-ce", "apgd-t", "fab-t", "square", "hop-skip-jump", "worst"]
    assert {m.n for m in strong if m.attack in ("apgd-ce", "apgd-t", "fab-t", "square", "worst")} == {1000}
    assert all(m.drop for m in strong if m.attack not in ("hop-skip-jump", "worst"))
    attacked = [m.label or m.attack for m in protocols.strong_protocol(configs.get("wide-adversarial"))
                if m.t1 == 1.0]
    assert attacked[-5:] == ["fab-t", "pgd40-averaged", "square", "hop-skip-jump", "worst"]
    assert {m.t1 for m in strong if m.label == "pgd40-exact"} == {1.0, 10.0, 100.0, 500.0}


def test_images_cap_every_measurement_and_bad_names_are_refused():
    config = configs.get("small-10")
    assert max(m.n for m in protocols.get("all", config, (), 32)) == 32
    with pytest.raises(ValueError, match="unknown protocol 'weak'; the known protocols are table, strong"):
        protocols.get("weak", config)
    with pytest.raises(ValueError, match="images is 0"):
        protocols.get("table", config, (), 0)


@pytest.mark.parametrize("name", ["large-100-post", "small-10-post", "small-100-post", "small-random-post"])
def test_a_protocol_asks_for_every_record_that_judges_a_run_by_the_posts_recipe(name):
    run = artifacts.load_run(runs_root() / configs.get(name).folder)
    wanted = {m.id: m.n for m in protocols.get("post", configs.RunConfig.from_dict(run.config))}
    assert wanted.items() <= {record["id"]: record["n"] for record in run.metrics}.items()


@pytest.mark.parametrize("name", ["small-10", "large-100", "wide-standard"])
def test_all_protocols_together_ask_for_every_record_once_on_most_images(name):
    config = configs.get(name)
    every = protocols.get("all", config, ("small-100-seed0",))
    assert len({m.id for m in every}) == len(every)
    wanted = {m.id: m.n for m in protocols.sweep_protocol(config)}
    clean = next(m for m in every if m.id == "none-t10")
    assert clean.n == 10_000 > wanted["none-t10"]


def test_a_record_asked_for_twice_is_measured_once_where_the_first_is_larger(folder):
    twice = [Measurement(3.0, 8, label="twice"), Measurement(3.0, 4, label="twice")]
    evaluation.evaluate_run(folder, twice, progress=False)
    assert artifacts.load_run(folder).metric("twice-t3")["n"] == 8


def test_an_evaluation_keeps_what_another_stored_meanwhile_and_refuses_other_weights(folder):
    run = artifacts.load_run(folder)
    evaluation.evaluate_run(folder, [Measurement(6.0, 4, label="meanwhile")], progress=False)
    m = Measurement(6.0, 4, label="mine")
    correct = np.ones(4, dtype=bool)
    artifacts.add_metric(run, evaluation.record(m, correct, 0.0, 0.0, "cpu", None), correct)
    assert {"meanwhile-t6", "mine-t6"} <= {r["id"] for r in artifacts.load_run(folder).metrics}
    before = (folder / "metrics.csv").read_bytes()
    other = dataclasses.replace(run, provenance={**run.provenance, "weights_sha256": 64 * "0"})
    with pytest.raises(artifacts.ArtifactError,
                       match="has other weights by now .* nothing was stored, measure it again"):
        artifacts.add_metric(other, evaluation.record(m, correct, 0.0, 0.0, "cpu", None), correct)
    assert (folder / "metrics.csv").read_bytes() == before


def test_fgsm_in_batches_of_its_own_moves_no_pixel_twice(folder):
    images, labels = evaluation.test_subset(4)
    m = Measurement(1.0, 4, "fgsm", 0.05, batch=4, attack_batch=2)
    model = artifacts.load_run(folder).load_model()
    again, _ = evaluation.evaluate(model, images, labels, m, directions={})
    once, _ = evaluation.evaluate(model, images, labels, m)
    assert np.array_equal(again, once)


def test_a_larger_worst_case_is_kept_up_to_date_too(folder):
    evaluation.evaluate_run(folder, [Measurement(4.0, 8, "fgsm", 0.3), Measurement(4.0, 8, "worst", 0.3)],
                            progress=False)
    later = [Measurement(4.0, 4, "fgsm", 0.2, label="later"), Measurement(4.0, 4, "worst", 0.3)]
    evaluation.evaluate_run(folder, later, progress=False)
    worst = artifacts.load_run(folder).metric("worst-t4")
    assert worst["n"] == 8 and "later-eps0.2-t4" in worst["combines"]


@pytest.mark.parametrize("n", [0, -5, 20_000, 2.5])
def test_a_subset_has_as_many_images_as_the_test_set_can_give(n):
    with pytest.raises(ValueError, match="it must be a whole number from 1 to 10000"):
        evaluation.test_subset(n)


@pytest.mark.parametrize("change, message", [
    (dict(gradient="reference", attack="pgd"), "too slow"), (dict(loss="hinge"), "loss is 'hinge'"),
    (dict(attack="transfer"), "source is None"),
    (dict(source="small-10-seed0"), "a transfer attack, and no other"),
    (dict(draws=0), "draws is 0"), (dict(logit_scale=-1), "logit_scale is -1"), (dict(batch=0), "batch is 0"),
    (dict(steps=0), "steps is 0"), (dict(rtol=-1.0), "rtol is -1"),
    (dict(attack_batch=0), "attack_batch is 0"), (dict(attack_steps=0), "attack_steps is 0"),
    (dict(targeted=True), "targeted is True with fgsm, which makes no use of it"),
    (dict(attack_tolerance=0.0), "attack_tolerance is 0"), (dict(n=5.5), "n is 5.5"),
    (dict(noise=0.1), "noise is .* makes no use of it"),
    (dict(momentum=0.9), "momentum is .* makes no use of it"),
    (dict(momentum=2.0, attack="pgd"), "momentum is 2"),
    (dict(noise=-1.0, attack="pgd"), "noise is -1"), (dict(attack="none"), "clean images have epsilon 0"),
])
def test_a_measurement_refuses_what_contradicts_itself(change, message):
    with pytest.raises(ValueError, match=message):
        Measurement(**{"t1": 1.0, "n": 4, "attack": "fgsm", "epsilon": 0.3, **change})


def test_a_worst_case_is_no_higher_than_any_record_in_its_ball_and_falls_with_epsilon(folder):
    step = Measurement(1.0, 12, "fgsm", 0.3, label="f")
    epsilons = (0.0, 0.02, 0.1, 0.3)
    attacks = [protocols.at_epsilon(step, e) for e in epsilons]
    worst = [Measurement(1.0, 12, "worst", e, label=f"w-eps{e:g}") for e in epsilons]
    evaluation.evaluate_run(folder, [*worst, *attacks], progress=False)
    run = artifacts.load_run(folder)
    clean = run.outcomes("none-t1")[:12]
    # the clean record saw its images in a larger batch, with another step size: at epsilon 0 both count
    before = clean & run.outcomes("f-eps0-t1")
    assert np.array_equal(run.outcomes("w-eps0-t1"), before)
    for epsilon in epsilons[1:]:
        now = run.outcomes(f"w-eps{epsilon:g}-t1")
        assert not (now & ~before).any()  # monotone image by image, though single attacks may not be
        assert not (now & ~run.outcomes(f"f-eps{epsilon:g}-t1")).any()
        before = now
    record = run.metric("w-eps0.1-t1")
    assert {"none-t1", "f-eps0.02-t1", "f-eps0.1-t1"} <= set(record["combines"])
    assert "f-eps0.3-t1" not in record["combines"] and "fgsm-exact-t1" not in record["combines"]


def test_a_worst_case_is_computed_again_only_when_there_is_more_to_combine(folder):
    worst = Measurement(1.0, 8, "worst", 0.3)
    evaluation.evaluate_run(folder, [worst], progress=False)
    artifact = (folder / "metrics.csv").read_bytes()
    evaluation.evaluate_run(folder, [worst], progress=False)
    assert (folder / "metrics.csv").read_bytes() == artifact
    new = Measurement(1.0, 8, "fgsm", 0.2, label="another")
    evaluation.evaluate_run(folder, [new, worst], progress=False)
    assert "another-eps0.2-t1" in artifacts.load_run(folder).metric("worst-t1")["combines"]


@pytest.mark.parametrize("change, wanted", [
    ({}, True), (dict(t1=10.0), False), (dict(pooling="random"), False), (dict(clip=False), False),
    (dict(epsilon=0.4), False),
    (dict(epsilon=0.1), True), (dict(rtol=1e-5), False), (dict(attack="worst"), False),
    (dict(attack="none", clip=None, epsilon=0.0), True),
])
def test_only_images_of_the_same_ball_and_network_count_as_broken(change, wanted):
    record = dict(t1=1.0, pooling="fixed", rtol=1e-3, atol=1e-3, attack="pgd", clip=True, epsilon=0.3)
    record |= change
    assert inside(record, Measurement(1.0, 4, "worst", 0.3)) is wanted


def test_a_record_on_fewer_images_speaks_for_those_only():
    record = dict(id="a", t1=1.0, pooling="fixed", rtol=1e-3, atol=1e-3, attack="pgd", clip=True, epsilon=0.3)
    alive, ids = survivors([record], lambda _: np.array([False, True]), Measurement(1.0, 4, "worst", 0.3))
    assert alive.tolist() == [False, True, True, True] and ids == ["a"]


def test_broken_images_are_dropped_count_as_broken_and_are_named(folder):
    first = Measurement(1.0, 16, "fgsm", 0.02, label="small-step")
    then = Measurement(1.0, 16, "pgd", 0.02, steps=2, step_size=0.01, drop=True, label="then")
    evaluation.evaluate_run(folder, [first, then], progress=False)
    run = artifacts.load_run(folder)
    record = run.metric("then-eps0.02-t1")
    broken = ~(run.outcomes("none-t1")[:16] & run.outcomes("small-step-eps0.02-t1"))
    assert 0 < broken.sum() < 16
    assert record["settings"]["dropped"] == broken.sum()
    assert set(record["combines"]) == {"none-t1", "small-step-eps0.02-t1"}
    assert not (run.outcomes("then-eps0.02-t1") & broken).any() and len(run.outcomes("then-eps0.02-t1")) == 16


def test_adversarial_images_are_scored_in_fixed_batches_whatever_the_attack_used(small, test_images):
    images, labels = test_images[0][:12], test_images[1][:12]
    m = Measurement(1.0, 12, "fgsm", 0.1, batch=12, attack_batch=1)
    found, _ = evaluation.evaluate(small, images, labels, m)
    attacked = torch.cat([fgsm(small, x, y, 0.1, t1=1.0) for x, y in zip(images.split(1), labels.split(1))])
    expected, _ = evaluation.evaluate(small, attacked, labels, Measurement(1.0, 12, batch=12))
    assert np.array_equal(found, expected)


def test_fgsm_with_remembered_directions_is_fgsm(small, test_images):
    images, labels = test_images[0][:24], test_images[1][:24]
    for clip in (True, False):
        directions: dict = {}
        for epsilon in (0.0, 0.05, 0.3):
            m = Measurement(1.0, 24, "fgsm", epsilon, batch=10, clip=clip)
            again, _ = evaluation.evaluate(small, images, labels, m, directions=directions)
            fresh, _ = evaluation.evaluate(small, images, labels, m)
            assert np.array_equal(again, fresh)
        assert len(directions) == 3


def test_the_reference_gradient_agrees_with_a_tight_one_in_most_signs(small, test_images):
    images, labels = test_images[0][:4], test_images[1][:4]
    found = [evaluation.attack(small, images, labels, Measurement(1.0, 4, "fgsm", 0.1, clip=False, **method))
             for method in (dict(gradient="reference"), dict(gradient="exact", attack_tolerance=1e-5),
                            dict(gradient="adjoint"))]
    assert found[0].dtype == images.dtype
    agreement = [((f - images).sign() == (found[0] - images).sign()).double().mean().item() for f in found]
    assert agreement[0] == 1 and agreement[1] > 0.9 and agreement[1] > agreement[2]


def test_a_record_on_fewer_images_is_measured_again_and_a_larger_one_kept(folder):
    evaluation.evaluate_run(folder, [Measurement(3.0, 8)], progress=False)
    assert artifacts.load_run(folder).metric("none-t3")["n"] == 8
    evaluation.evaluate_run(folder, [Measurement(3.0, 12)], progress=False)
    evaluation.evaluate_run(folder, [Measurement(3.0, 10)], progress=False)
    run = artifacts.load_run(folder)
    assert [r["n"] for r in run.metrics if r["id"] == "none-t3"] == [12]
    assert len(run.outcomes("none-t3")) == 12


def test_a_transfer_attack_names_its_source_and_attacks_it_at_its_own_end_time(folder):
    source = folder.parent / "small-100-seed0"
    shutil.copytree(folder, source)
    stored = artifacts.read_json(source / "config.json")
    artifacts.write_json(source / "config.json",
                         {**stored, "config": {**stored["config"], "name": "small-100"}})
    (m,) = few(protocols.transfer_protocol(configs.RunConfig.from_dict(artifacts.load_run(folder).config),
                                           ["small-10-seed0", "small-100-seed0"]))
    own = dataclasses.replace(m, attack="pgd", source=None, label="own")
    records = evaluation.evaluate_run(folder, [m, own], progress=False)
    transfer, own = (r for name in (m.id, "own-t1") for r in records if r["id"] == name)
    assert transfer["source"] == "small-100-seed0" and transfer["settings"]["t1"] == 1.0
    assert transfer["correct"] == own["correct"]  # the source has the weights of this very network


def test_the_rules_find_the_records_of_every_protocol(folder):
    """Run on four images with few steps: an end-to-end check of ids, fields and attack names."""
    pytest.importorskip("pyautoattack",
                        reason="the attack libraries are missing: pip install 'nodelib[attacks]'")
    pytest.importorskip("foolbox")
    run = artifacts.load_run(folder)
    config = dataclasses.replace(configs.RunConfig.from_dict(run.config), scale="full", test_images=4)
    table = few([m for m in protocols.table_protocol(config) if m.t1 == 1.0])
    strong = few([m for m in protocols.strong_protocol(config) if m.t1 == 1.0])
    records = evaluation.evaluate_run(folder, table + strong, progress=False)
    run = artifacts.load_run(folder)
    for protocol in (CLEAN, CLEAN_POST, FGSM_POST, PGD_EXACT, WORST):
        assert any(matches(r, t1=1.0, **protocol) for r in records), protocol
    (bound,) = robustness.strongest(Evidence([run], {"table": []}), "small-10", 1.0)
    assert bound.record["id"] == "worst-t1" and robustness.complete([bound])
    for r in records:
        assert r["accuracy"] == r["correct"] / r["n"]
        if r["attack"] not in ("none", "worst"):
            assert {"loss", "steps", "step_size", "restarts", "random_start", "draws", "logit_scale", "rtol",
                    "atol", "dtype", "batch", "pooling", "t1", "seed", "library"} <= set(r["settings"])


def test_the_sweeps_records_carry_the_rule_on_the_range_of_end_times(folder):
    config = configs.RunConfig.from_dict(artifacts.load_run(folder).config)
    clean = [m for m in few(protocols.sweep_protocol(config), 2) if m.attack == "none"]
    evaluation.evaluate_run(folder, clean, progress=False)
    assert 1 <= end_time.accuracy_reach(artifacts.load_run(folder)) <= 1000


def test_masking_and_epsilon_records_are_stored_and_do_not_pose_as_clean_accuracy(folder):
    config = configs.RunConfig.from_dict(artifacts.load_run(folder).config)
    wanted = [m for m in few(protocols.get("masking", config) + protocols.get("epsilon", config), 3)
              if m.t1 == 1.0]
    records = {r["id"]: r for r in evaluation.evaluate_run(folder, wanted, progress=False)}
    assert {m.id for m in wanted} <= set(records)
    assert records["sweep-fgsm-eps0-t1"]["correct"] == records["sweep-pgd40-eps0-t1"]["correct"]
    assert records["mask-expectation-t1"]["settings"]["draws"] == 2
    rescored = records["mask-rescored-t1"]
    assert rescored["rtol"] == 1e-5 and rescored["settings"]["rtol"] == 1e-3
    assert records["fgsm-by-reference-eps0.3-t1"]["gradient"] == "reference"
    assert records["fgsm-by-reference-eps0.3-t1"]["settings"]["dtype"] == "float64"
    assert not any(matches(r, t1=1.0, **CLEAN) for i, r in records.items() if i.startswith("mask-clean-1e-6"))
    assert EPSILONS[0] == 0 and EPSILONS[-1] == 1


def test_a_budget_of_no_seconds_begins_no_record_but_the_worst_case(folder):
    before = len(artifacts.load_run(folder).metrics)
    after = evaluation.evaluate_run(folder, [Measurement(7.0, 4), Measurement(1.0, 4, "worst", 0.3)],
                                    progress=False, budget=0)
    assert [r["id"] for r in after[before:]] == ["worst-t1"]


@pytest.mark.parametrize("n, k", [(6, 1), (9, 2), (100, 40), (500, 228)])
def test_a_medians_interval_is_that_of_the_order_statistics(n, k):
    from nodelib.experiment.measurement import median_interval

    values = np.random.default_rng(0).permutation(n) + 1.0
    assert median_interval(values) == (k, n + 1 - k)  # as tabulated, for instance by Conover
    assert median_interval(values[:5]) is None
    draws = np.random.default_rng(1).normal(size=(2000, 25))
    covered = np.mean([low <= 0 <= high for low, high in map(median_interval, draws)])
    assert 0.94 < covered < 0.975


def test_a_surrogate_is_solved_by_fixed_steps_while_it_is_attacked_and_only_then(small, test_images):
    images, labels = test_images[0][:8], test_images[1][:8]
    seen = Measurement(1.0, 8, "fgsm", 0.1, attack_steps=100)
    before = small.block.method, small.block.step_size
    moved = evaluation.attack(small, images, labels, seen)
    assert small.block.nfe == 100 * 4 and (small.block.method, small.block.step_size) == before
    tight = dataclasses.replace(seen, attack_steps=None, attack_tolerance=1e-6)
    assert (moved == evaluation.attack(small, images, labels, tight)).float().mean() > 0.9
    assert small.block.nfe < 400
    found, nfe = evaluate(small, images, labels, seen)
    assert found.tolist() == (small(moved, 1.0).argmax(1) == labels).tolist() and nfe < 400
    settings = record(seen, found, nfe, 0.0, "cpu", None)["settings"]
    assert settings["solver"] == "rk4, 100 steps" and settings["rtol"] is None
    with pytest.raises(ValueError, match="attack_steps is 100 for a network without a solver"):
        evaluation.attack(ResNet(16, 7, 1).eval(), images, labels, seen)


@pytest.mark.parametrize("change", [
    dict(attack="none", epsilon=0.0), dict(attack="square"), dict(attack="random-signs"),
    dict(attack="transfer", source="small-10-seed0"), dict(attack_tolerance=1e-6), dict(gradient="reference"),
    dict(gradient="torchdiffeq-adjoint")])
def test_fixed_steps_are_refused_where_no_attack_would_see_them(change):
    with pytest.raises(ValueError, match="attack_steps is 5 with attack"):
        Measurement(**{"t1": 1.0, "n": 4, "attack": "fgsm", "epsilon": 0.3, "attack_steps": 5, **change})


def test_a_robust_network_is_attacked_by_all_that_hurts_it_and_others_are_not():
    twin = "wide-adversarial-leaky-seed0"
    config = configs.get("wide-adversarial-further")
    asked = protocols.get("robust", config, ["small-10-seed0", twin])
    assert {"apgd-ce", "apgd-t", "fab-t", "square", "pgd", "transfer", "worst"} <= {m.attack for m in asked}
    assert {m.n for m in asked} == {500, 128} and all(m.epsilon == 0.3 for m in asked if m.attack != "none")
    [worst] = [m for m in asked if m.attack == "worst"]
    judged = {m.label for m in asked if m.attack != "none" and inside(
        dict(id=m.id, attack=m.attack, t1=m.t1, epsilon=m.epsilon, clip=m.clip, pooling=m.pooling,
             rtol=m.rtol, atol=m.atol), worst)}
    aside = {m.label for m in asked} - judged - {"worst", ""}
    assert aside == {"robust-expectation", "robust-rescored"}  # another network, or a forward pass by chance
    assert [m.source for m in asked if m.source] == [twin]
    assert not any(m.source for m in protocols.get("robust", config))  # a twin that is not stored
    assert not protocols.get("transfer", config, [twin])
    for name in ("wide-standard", "small-10", "wide-adversarial-post"):
        assert not protocols.robust_protocol(configs.get(name))


def test_the_posts_step_is_told_apart_one_change_at_a_time():
    asked = protocols.apart_protocol(configs.get("small-100-post"))
    whole = next(m for m in asked if m.label == "apart-cross-entropy-random-adjoint")
    [post] = [m for m in protocols.rescaling_protocol(configs.get("small-100-post"))
              if m.t1 == whole.t1 and m.label == "rescaled-adjoint-s1"]
    assert dataclasses.replace(post, label="") == dataclasses.replace(whole, label="")
    changes = {m.label: {f.name for f in dataclasses.fields(m) if f.name != "label"
                         and getattr(m, f.name) != getattr(whole, f.name)} for m in asked}
    alone = [fields for fields in changes.values() if len(fields) == 1]
    assert sorted(alone, key=str) == [{"clip"}, {"gradient"}, {"loss"}, {"pooling"}]
    assert len(asked) == 9 and len({m.id for m in asked}) == 9
    assert not protocols.apart_protocol(configs.get("resnet-1"))


def test_the_ladder_breaks_every_network_by_its_own_attacks_only():
    measurement = next(m for m in protocols.ladder_protocol(configs.get("small-10")) if m.attack == "worst")
    record = dict(id="pgd40-exact-t10", t1=10.0, pooling="fixed", rtol=1e-3, atol=1e-3, attack="pgd",
                  clip=True, epsilon=0.01)
    assert not inside(record, measurement)
    assert inside({**record, "id": "ladder-pgd40-margin-eps0.01-t10"}, measurement)
    swept = dataclasses.replace(measurement, label="worst-eps0.02")
    assert inside(record, swept)
    for climbed in ("ladder-fgsm-eps0.01-t10", "check-fab-t-eps0.01-t10"):
        assert not inside({**record, "id": climbed}, swept)  # some networks have climbed, others not
        assert inside({**record, "id": climbed}, dataclasses.replace(measurement, label="worst"))


def test_the_ladder_climbs_and_every_rung_ends_in_a_worst_case():
    rungs = [m.epsilon for m in protocols.ladder_protocol(configs.get("large-100")) if m.attack == "worst"]
    assert rungs == sorted(rungs) and rungs[-1] == 0.3 and len(rungs) == len(LADDER_EPSILONS)
    assert all(m.drop for m in protocols.ladder_protocol(configs.get("large-100"))
               if m.attack not in ("none", "worst"))


def test_the_ladders_check_asks_for_what_its_rungs_are_short_of_and_never_counts_as_a_rung():
    config = configs.get("small-10")
    rung = {m.attack: m for m in protocols.ladder_protocol(config) if m.epsilon == 0.1}
    check = {m.attack: m for m in protocols.ladder_check_protocol(config)}
    assert set(check) == {"apgd-t", "fab-t", "square"} and {m.n for m in check.values()} == {64}
    assert check["apgd-t"].targets == 9 > rung["apgd-t"].targets
    assert check["square"].steps == 5000 > rung["square"].steps
    for m in check.values():
        said = dict(id=m.id, attack=m.attack, t1=m.t1, epsilon=m.epsilon, clip=m.clip, pooling=m.pooling,
                    rtol=m.rtol, atol=m.atol)
        assert m.drop and m.epsilon == 0.1 and not inside(said, rung["worst"])


def test_a_network_with_a_ray_per_class_and_its_control_are_attacked_alike_late_and_later():
    with_rays, without, other = (protocols.rays_protocol(configs.get(name))
                                 for name in ("small-10-rays", "small-10", "small-100"))
    assert with_rays == without and not other
    attacked = [(m.t1, m.epsilon, m.loss) for m in with_rays if m.attack == "pgd"]
    assert [a for a in attacked if a[0] == 10] == [(10, 0.1, "margin")]  # there the ladder stands by itself
    for t1 in (100.0, 1000.0, 10000.0):
        rungs = [m for m in with_rays if m.t1 == t1 and m.label.startswith("ladder")]
        own = [m for m in protocols.ladder_protocol(configs.get("small-10"))]
        assert [(m.label, m.epsilon, m.attack, m.loss) for m in rungs] == [
            (m.label, m.epsilon, m.attack, m.loss) for m in own]
        assert {m.n for m in rungs} == {256}
    later = protocols.rays_protocol(configs.get("small-10-rays", seed=1))
    assert later == [m for m in with_rays if not m.label.startswith("ladder")]
    brief = protocols.rays_protocol(configs.get("small-10-brief"))
    assert brief == [m for m in later if m.t1 == 10] and {m.attack for m in brief} == {"none", "pgd"}
