"""The float32 horizon against torch's own arithmetic, and the theory built on it."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nodelib.chapters import gap_growth, the_float32_horizon
from nodelib.experiment import artifacts, configs, horizon, paths
from nodelib.experiment.artifacts import Run, read_json
from nodelib.experiment.paths import data_dir
from nodelib.experiment.snapshot_records import SnapshotRecord


def gradient(logits: torch.Tensor, label: int = 0, factor: float = 1.0) -> torch.Tensor:
    """Of the mean cross-entropy over a batch of equal images, with respect to the first one's logits."""
    logits = logits.clone().requires_grad_(True)
    labels = torch.full((len(logits),), label)
    return torch.autograd.grad(F.cross_entropy(factor * logits, labels), logits)[0][0]


def logits(gap: float, wrong: int = 9, batch: int = 1, label: int = 0) -> torch.Tensor:
    """Logits of `batch` images, `wrong` classes that far below the true one and the others out of reach."""
    z = torch.full((batch, 10), -1e4)
    z[:, [k for k in range(10) if k != label][:wrong]] = -gap
    z[:, label] = 0
    return z


SLIGHTLY = 2e-5  # more than the spacing of float32 numbers near 100


@pytest.mark.parametrize("wrong", (1, 2, 9))
@pytest.mark.parametrize("label", (0, 4, 9))
def test_the_true_class_is_lost_where_the_theorem_says(wrong, label):
    kept, lost = horizon.true_class_lost(wrong + 1)
    assert lost == pytest.approx(kept + math.log(wrong)) and kept == pytest.approx(16.6355, abs=1e-4)
    assert gradient(logits(kept - SLIGHTLY, wrong, label=label), label)[label] != 0
    after = gradient(logits(lost + SLIGHTLY, wrong, label=label), label)
    assert after[label] == 0 and (after != 0).sum() == wrong


def test_before_it_is_lost_the_true_class_is_a_multiple_of_the_roundoff():
    entries = torch.stack(
        [gradient(logits(gap, 1))[0] for gap in torch.arange(10, 17, 0.1).tolist()]
    ).double()
    multiples = -entries * 2**24
    assert torch.equal(multiples, multiples.round()) and multiples.min() == 0
    assert len(set(multiples.tolist())) < len(multiples)


@pytest.mark.parametrize("batch", (1, 2, 32, 64))
@pytest.mark.parametrize("flush", (False, True))
def test_every_term_is_lost_where_the_theorem_says(batch, flush):
    edge = horizon.gradient_lost(batch, flush)
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        before, after = (gradient(logits(edge + d, batch=batch)) for d in (-SLIGHTLY, SLIGHTLY))
    finally:
        torch.set_flush_denormal(False)
    assert (before[1:] != 0).all() and before[0] == 0 and (after == 0).all()


@pytest.mark.parametrize("factor", (2.0, 7.0, 20.0))
def test_a_factor_multiplies_gaps_and_brings_nothing_back(factor):
    edge = horizon.gradient_lost(32)
    assert (gradient(logits((edge + 1e-3) / factor, batch=32), factor=factor) == 0).all()
    assert (gradient(logits((edge - 1e-3) / factor, batch=32), factor=factor) != 0).any()
    steep, plain = gradient(logits(50 / factor), factor=factor), gradient(logits(50.0))
    assert torch.allclose(steep, factor * plain, rtol=1e-4)


def test_a_threshold_is_refused_where_it_is_not_exact():
    with pytest.raises(ValueError, match="powers of 2"):
        horizon.gradient_lost(24)


@pytest.mark.parametrize("correlation, ratio", ((0.0, 1.0), (0.6, 1.0), (-0.1, 1.0), (0.3, 2.0), (0.9, 0.5)))
def test_the_turned_step_is_that_of_normal_pixels(correlation, ratio):
    draws = np.random.default_rng(0).standard_normal((2, 1_000_000))
    a = draws[0]
    b = ratio * (correlation * draws[0] + math.sqrt(1 - correlation**2) * draws[1])
    found = horizon.turned(correlation, ratio)
    assert found.signs == pytest.approx((np.sign(a) == np.sign(a - b)).mean(), abs=3e-3)
    assert found.gain == pytest.approx((np.sign(a) * (a - b)).mean() / np.abs(a - b).mean(), abs=3e-3)


def test_without_correlation_a_quarter_of_the_signs_is_lost():
    found = horizon.turned()
    assert found.signs == pytest.approx(0.75) and found.gain == pytest.approx(math.sqrt(0.5))
    gains = [horizon.turned(c).gain for c in (-0.9, -0.5, 0.0, 0.5, 0.9)]
    assert gains == sorted(gains, reverse=True)


def records(epoch: int, t1: float, **values: float) -> list[SnapshotRecord]:
    return [
        SnapshotRecord(epoch, epoch, t1, name.replace("_", "-"), value, 100) for name, value in values.items()
    ]


def test_the_quantity_that_ranks_masked_points_comes_first():
    found = []
    for epoch, (fgsm, gap, past) in enumerate(
        ((0.1, 9.0, 0.1), (0.2, 30.0, 0.2), (0.3, 8.0, 0.6), (0.4, 7.0, 0.9)), 1
    ):
        found += records(
            epoch, 10.0, fgsm=fgsm, fgsm_margin=0.0, gap_50=gap, past_17=past, past_104=0.0, zero_gradient=0.0
        )
    elsewhere = records(1, 100.0, fgsm=0.9, fgsm_margin=0.0, gap_50=1.0, past_17=0.0, past_104=0.0,
                        zero_gradient=0.0)
    assert horizon.explanations({"a": [*found, *elsewhere]}, (10.0,)) == horizon.explanations({"a": found})
    best, *others = horizon.explanations({"a": found})
    assert (best.quantity, best.n) == ("past-17", 4) and best.correlation == pytest.approx(1)
    assert {row.quantity: row.correlation for row in others} == pytest.approx(
        {"gap-50": -0.8, "past-104": 0, "zero-gradient": 0}
    )


# -- growth --------------------------------------------------------------------------------------------------


def trained(
    name: str = "small-10-post",
    law: tuple[float, float] = (0.8, 0.2),
    shrink: float = 0.5,
    epochs=(1, 2, 4, 8, 16),
) -> Run:
    """A run whose snapshots follow the law exactly, its state shrinking by that factor at each doubling of
    the epochs."""
    config = configs.get(name)
    recipe, found = gap_growth.Recipe.of(config), []
    for epoch in epochs:
        s = recipe.initial_state() * shrink ** math.log2(epoch)
        gap = law[0] * math.log(recipe.steps * epoch) + law[1] * s * recipe.noise(epoch)
        found += records(
            epoch,
            config.test_t1,
            gap_25=gap * (1 - 0.3),
            gap_50=gap,
            gap_75=gap * (1 + 0.3),
            fgsm=0.1,
            fgsm_margin=0.0,
            state_sum=s * config.test_t1 / recipe.mean,
            zero_gradient=0.0,
            past_17=0.2,
            past_104=0.0,
        )
    return Run(name, 0, Path("unused"), config.to_dict(), {}, {}, [], [], found)


def first_round() -> list[Run]:
    """Runs of the six rows that are right on 98 % of images and whose gaps are the same at every end time."""
    found = []
    for row in configs.ROWS:
        metrics = [
            {"id": f"none-random-t{t1:g}", "t1": t1, "correct": 980, "n": 1000} for t1 in configs.TABLE_T1
        ]
        gaps = [{"name": "logit_gap", "t1": t1, "value": 10.0} for t1 in configs.TABLE_T1]
        found.append(Run(row, 0, Path("unused"), configs.get(row).to_dict(), {}, {}, metrics, gaps))
    return found


def test_the_fit_finds_the_constants_it_was_made_from():
    law = gap_growth.fit([trained(), trained("small-100-post")])
    assert (law.margin, law.walk) == pytest.approx((0.8, 0.2)) and law.leak == pytest.approx(0.5)
    assert law.spread == pytest.approx(0.6 / gap_growth.QUARTILES) and law.points == 10
    assert [relative for _, relative, _ in law.state] == pytest.approx([0.5**k for k in range(5)])
    assert all(
        row.found == pytest.approx(row.measured) for row in gap_growth.against_snapshots(law, [trained()])
    )


def test_only_small_rows_of_the_posts_recipe_are_fitted():
    alone = gap_growth.fit([trained()])
    assert gap_growth.fit([trained(), trained("large-100-post", law=(9.0, 9.0)), *first_round()]) == alone
    with pytest.raises(ValueError, match="needs 3"):
        gap_growth.fit([trained("large-100-post")])


def test_an_odd_training_shows_in_the_fit_without_it():
    exact = gap_growth.leave_one_out([trained(), trained(), *first_round()])
    assert len(exact) == 2 and all(law.walk == pytest.approx(0.2) and law.points == 5 for law in exact)
    odd = trained()
    snapshots = [
        dataclasses.replace(r, value=3 * r.value) if (r.epoch, r.quantity) == (16, "gap-50") else r
        for r in odd.snapshots
    ]
    odd = dataclasses.replace(odd, snapshots=snapshots)
    walks = [law.walk for law in gap_growth.leave_one_out([trained(), odd, trained()])]
    assert walks[1] == pytest.approx(0.2) and all(abs(walk - 0.2) > 0.05 for walk in walks[::2])
    with pytest.raises(ValueError, match="0 snapshots of .* needs 3"):
        gap_growth.leave_one_out([trained()])


def test_a_head_on_states_held_fixed_makes_gaps_in_proportion_to_the_reach_of_its_steps():
    draw = torch.Generator().manual_seed(1)
    centres = torch.randn(10, 50, generator=draw)
    labels = torch.arange(600) % 10
    states = 20 * (centres[labels] + 0.5 * torch.randn(600, 50, generator=draw))
    far, near, nearer = (
        gap_growth.head_alone(states[:500], labels[:500], states[500:], labels[500:], factor, steps=300)
        for factor in (64.0, 8.0, 0.01)
    )
    assert far.reach == pytest.approx(8 * near.reach)
    assert far.reach == pytest.approx(64e-3 * states[500:].abs().sum(1).mean().item(), rel=1e-5)
    assert 6 < far.gap / near.gap < 10 and near.gap > 8 * nearer.gap
    assert min(far.right, near.right) > 0.95
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"factor is {factor}"):
            gap_growth.head_alone(states, labels, states, labels, factor)


def test_the_posts_figures_change_no_prediction(tmp_path, monkeypatch):
    before = gap_growth.predict(gap_growth.fit([trained()]), first_round())
    post = read_json(data_dir() / "seed.json")
    for entry in post["table"]:
        entry["adversarial"] = 50.0
    (tmp_path / "seed.json").write_text(json.dumps(post))
    for module in (artifacts, paths, gap_growth):
        if hasattr(module, "data_dir"):
            monkeypatch.setattr(module, "data_dir", lambda: tmp_path)
    assert gap_growth.predict(gap_growth.fit([trained()]), first_round()) == before and len(before) == 24
    assert gap_growth.compare(before, post).rank == 0


def test_a_comparison_is_right_where_the_prediction_is():
    post = read_json(data_dir() / "seed.json")
    figures = {(e["run"], e["t1"]): e["adversarial"] for e in post["table"]}
    exact = gap_growth.compare(figures, post)
    assert (exact.rank, exact.error, exact.n) == (pytest.approx(1), 0, 24)
    of_large = [value for (row, _), value in figures.items() if row.startswith("large")]
    of_small = [value for (row, _), value in figures.items() if row.startswith("small")]
    residual = np.concatenate([np.subtract(x, np.mean(x)) for x in (of_large, of_small)])
    assert exact.constant_error == pytest.approx(float(np.sqrt(np.mean(residual**2))))
    assert gap_growth.compare({key: -value for key, value in figures.items()}, post).rank == pytest.approx(-1)


def test_size_and_the_end_time_one_rank_the_posts_entries_without_a_theory():
    post = read_json(data_dir() / "seed.json")
    size, with_time = (gap_growth.compare(each, post) for each in gap_growth.without_theory(post).values())
    assert (size.rank, size.error) == (pytest.approx(size.constant_rank), pytest.approx(size.constant_error))
    assert with_time.rank > size.rank + 0.2 and with_time.error < size.error
    shifted = {"table": [{**e, "adversarial": 10.0 * e["run"].startswith("large") + (e["t1"] > 1)}
                         for e in post["table"]]}
    exact = gap_growth.without_theory(shifted)["of each size, t = 1 apart"]
    assert exact == {(e["run"], e["t1"]): e["adversarial"] for e in shifted["table"]}


def test_more_of_everything_loses_more():
    law = gap_growth.fit([trained()])
    small = gap_growth.Recipe(16, 7, 10, 10)
    gap = law.median_gap(small, 30)
    assert all(
        law.median_gap(other, epochs) > gap
        for other, epochs in (
            (small, 60),
            (dataclasses.replace(small, channels=32), 30),
            (dataclasses.replace(small, rate=2e-3), 30),
            (dataclasses.replace(small, low=20.0, high=20.0), 30),
        )
    )
    assert law.median_gap(small, 30, "relative") < gap
    assert law.left(98, 1000) > law.left(98, 100) > law.left(98, 40) > law.left(98, 10)
    by_rate = gap_growth.phases(law, (16, 64, 128), (1.0, 10.0, 100.0), rates=(3e-4, 1e-3, 3e-3)).lost
    found = by_rate[1e-3]
    assert (np.diff(found, axis=0) >= 0).all() and (np.diff(found, axis=1) >= 0).all()
    assert found[0, 0] < 0.01 and found[-1, -1] > 0.9
    assert by_rate[3e-4][1, 1] < found[1, 1] < by_rate[3e-3][1, 1]
    shrunk = gap_growth.phases(law, (128,), (100.0,), state="relative").lost[1e-3][0, 0]
    assert shrunk < found[-1, -1]


def snapshot(name: str = "small-100-post", **changed: float) -> Run:
    """A run with one snapshot, after epoch 4, alike at all end times but for what its name's law says."""
    config = configs.get(name)
    values = {"clean": 0.5, "gap_50": 200.0, "zero_gradient": 0.25, "state_sum": 1e4, **changed}
    found = [r for t1 in configs.TABLE_T1 for r in records(4, t1, **values)]
    return Run(name, 0, Path("unused"), config.to_dict(), {}, {}, [], [], found)


def test_lost_gradients_are_those_of_right_images_whose_gaps_are_past_the_horizon():
    law = gap_growth.Law(1.0, 0.5, 0.3, 0.2, ((1.0, 0.5, 1e4),))
    run = snapshot()
    lost = gap_growth.lost_gradients(law, [run, *first_round()])
    assert [r.t1 for r in lost] == list(configs.TABLE_T1) and {r.found for r in lost} == {0.25}
    past = 0.5 * math.erfc((horizon.gradient_lost(32) / 200 - 1) / (0.3 * math.sqrt(2)))
    (median,) = gap_growth.against_snapshots(law, [run])
    for row in lost:
        assert row.predicted["measured gaps"] == pytest.approx(0.5 * past)
        for source, gap in {"measured state": median.measured, **median.states}.items():
            assert row.predicted[source] == pytest.approx(0.98 * law.past(horizon.gradient_lost(32), gap))
    assert len({round(value, 6) for value in lost[0].predicted.values()}) > 2


def test_gaps_at_other_end_times_are_in_the_ratios_of_the_first_round():
    law = gap_growth.Law(1.0, 0.5, 0.3, 0.2, ((1.0, 0.5, 1e4),))
    others = first_round()
    for run in others:
        run.measurements[0]["value"] = 5.0  # half the gap at t = 1
    at = {r.t1: r.predicted["measured state"]
          for r in gap_growth.lost_gradients(law, [snapshot(state_sum=1e5), *others])}
    assert at[1.0] < at[10.0] == at[100.0] == at[500.0]


def test_lost_gradients_are_asked_only_of_the_rows_by_the_posts_recipe():
    law = gap_growth.Law(1.0, 0.5, 0.3, 0.2, ((1.0, 0.5, 1e4),))
    assert gap_growth.lost_gradients(law, [snapshot()]) == []  # neither accuracies nor ratios
    others = [snapshot("small-100-post-cosine"), snapshot("wide-standard-post")]
    assert gap_growth.lost_gradients(law, [*others, *first_round()]) == []


def test_a_prediction_is_judged_by_order_and_by_size():
    assert gap_growth.judge([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]) == (
        pytest.approx(1), pytest.approx(math.sqrt((81 + 324 + 729) / 3)))
    assert gap_growth.judge([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == (0, pytest.approx(math.sqrt(2 / 3)))


def test_noise_adds_like_the_root_of_epochs_until_the_rate_is_halved():
    recipe = gap_growth.Recipe(16, 7, 10, 10, rate=1e-3, halve_after=(50, 100))
    assert recipe.noise(25) == pytest.approx(5e-3)
    assert recipe.noise(90) == pytest.approx(math.sqrt(50 * 1e-6 + 40 * 0.25e-6))
    with pytest.raises(ValueError, match="above 0"):
        recipe.noise(0)


def adam(weight: torch.Tensor, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam([weight], lr=rate, eps=1e-300)


def test_no_gradients_move_a_weight_by_more_than_adams_bound():
    steps, bound = 3000, gap_growth.step_bound()
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = adam(weight, 1e-3)
    for k in range(steps):  # the worst of all: growing by beta2 / beta1
        before = weight.item()
        weight.grad = torch.tensor([(0.999 / 0.9) ** (k - steps)], dtype=torch.float64)
        optimiser.step()
    assert 0.97 * bound < (before - weight.item()) / 1e-3 <= bound
    with pytest.raises(ValueError, match="beta1"):
        gap_growth.step_bound(0.9, 0.5)


def test_without_a_scale_of_the_loss_gaps_are_proportional_to_rate_times_state():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (40,), generator=generator)

    def gaps(rate: float, size: float) -> torch.Tensor:
        weight = torch.zeros(3, 12, dtype=torch.float64, requires_grad=True)
        optimiser = adam(weight, rate)
        for _ in range(50):
            optimiser.zero_grad()
            logits = size * states @ weight.T
            margin_loss = (logits.amax(1) - logits.gather(1, labels[:, None])[:, 0]).mean()
            margin_loss.backward()
            optimiser.step()
        return (size * states @ weight.T).detach().topk(2, 1).values.diff(dim=1)[:, 0]

    assert torch.allclose(gaps(4e-3, 8.0), 32 * gaps(1e-3, 1.0), rtol=1e-9, atol=1e-12)


def test_an_untrained_last_normalisation_bounds_the_state(small):
    y = torch.randn(4, 16, 7, 7)
    speed = small.block.func(0.0, y).abs().flatten(1).sum(1)
    expected = gap_growth.Recipe(16, 7, 1, 1).initial_state()
    assert (speed < 16 * 49).all() and speed.mean().item() == pytest.approx(expected, rel=0.05)


def test_the_figure_shows_torchs_own_entries():
    first, last = horizon.true_class_lost(2)[0], horizon.gradient_lost(32)
    true, wrong, exact = the_float32_horizon.entries([5.0, first - 0.1, first + 0.1, last - 0.1, last + 0.1])
    assert (true > 0).tolist() == [True, True, False, False, False]
    assert (wrong > 0).tolist() == [True, True, True, True, False]
    assert wrong[:3] == pytest.approx(exact[:3], rel=1e-5) and true[0] == pytest.approx(exact[0], rel=1e-4)


def test_the_figures_hold_what_they_are_given():
    law, post = gap_growth.fit([trained()]), read_json(data_dir() / "seed.json")
    times = np.geomspace(1, 500, 30)
    diagram = gap_growth.phases(law, (16, 64, 128), times.tolist())
    axis = the_float32_horizon.phase_diagram([diagram]).axes[0]
    drawn, *lines = axis.collections
    at_the_posts_rate = 100 * diagram.lost[1e-3]
    assert drawn.get_array().ravel().tolist() == pytest.approx(at_the_posts_rate.ravel().tolist())
    assert [text.get_text() for text in axis.texts] == ["0.0003", "0.001", "0.003"]
    for line, lost in zip(lines, diagram.lost.values(), strict=True):
        at_top = min(line.get_paths()[0].vertices, key=lambda point: -point[1])
        assert at_top[1] == 128 and np.interp(at_top[0], times, lost[-1]) == pytest.approx(0.5, abs=1e-6)
    predicted = gap_growth.predict(law, first_round())
    axis = the_float32_horizon.against_the_post({"initial": predicted}, post).axes[0]
    shown = np.concatenate(
        [line.get_ydata() for line in axis.get_lines() if line.get_label() in configs.ROWS]
    )
    assert sorted(shown) == pytest.approx(sorted(predicted.values()))
