"""Examples of the solver: none where solvers agree, all where one errs; jumps where steps change."""

import types

import pytest
import torch

from nodelib.attacks.losses import margins
from nodelib.experiment import solver_examples
from nodelib.experiment.solver_examples import (
    SOLVERS,
    answers,
    biases,
    by_solver,
    elsewhere,
    exactness,
    jumps,
    pattern,
    slopes,
    solve,
    sought,
)


@pytest.fixture
def known(small, test_images):
    """The network, eight images, and its own answers as their labels."""
    images = test_images[0][:8]
    with torch.no_grad():
        return small, images, small(images).argmax(1)


def found(records, name):
    return {tuple(settings.values()): values for each, values, settings in records if each == name}


def test_the_program_is_the_network(known):
    model, images, _ = known
    assert torch.equal(solve(model, images)[0], model(images))


def test_solvers_agree_on_the_flow_and_the_attacked_images_are_told_apart(known):
    model, images, labels = known
    attacked = images.clone()
    attacked[:4] = 1 - attacked[:4]
    wrong = model(attacked).argmax(1) != labels
    records = list(by_solver(model, answers(model, images), labels, attacked, 1.0))
    for name, chosen in (("fools_program_only", wrong), ("fools_solver_only", ~wrong)):
        shares = found(records, name)
        assert set(shares) == {(1.0, solver) for solver in SOLVERS}
        assert {len(values) for values in shares.values()} == {int(chosen.sum())}
    errors = found(records, "solver_error")
    assert errors[1.0, "flow"].median() < 0.5
    apart = (errors[1.0, "rk4"] - errors[1.0, "flow"]).abs().max()
    assert apart < 0.05 * errors[1.0, "flow"].max()  # RK4 is the flow, as far as the program's error goes


def test_a_program_that_errs_has_examples_of_its_own(known, monkeypatch):
    model, images, labels = known
    true = solver_examples.answers

    def err(model, images, batch=64, dtype=torch.float32, settings=None):
        logits = true(model, images, batch, dtype, settings)
        return logits if settings is not None else -logits

    monkeypatch.setattr(solver_examples, "answers", err)
    shares = found(by_solver(model, true(model, images), labels, images + 1e-6, 0.1), "fools_program_only")
    assert {float(v.double().mean()) for v in shares.values()} == {1.0} and len(shares) == len(SOLVERS)


def test_unattacked_images_are_solved_once(known, monkeypatch):
    model, images, labels = known
    seen, true = [], solver_examples.answers

    def count(model, x, *settings):
        seen.append(not settings and torch.equal(x, images))
        return true(model, x, *settings)

    monkeypatch.setattr(solver_examples, "answers", count)
    monkeypatch.setattr(solver_examples, "moved", lambda model, x, labels, attack: x + attack.epsilon)
    for part in ("jumps", "exactness"):
        monkeypatch.setattr(solver_examples, part, lambda *arguments: ())
    records = list(solver_examples.examples(model, images, labels, (0.01, 0.02)))
    assert sum(seen) == 2  # as unattacked, and as attacked by nothing
    assert {settings["epsilon"] for _, _, settings in records} == {0.0, 0.01, 0.02}


def test_a_bias_is_that_of_the_program_and_noise_moves_as_far_as_the_attack(known, monkeypatch):
    model, images, labels = known
    true, seen = solver_examples.answers, []

    def raise_the_true_class(model, x, batch=64, dtype=torch.float32, settings=None):
        seen.append(x)
        logits = true(model, x, batch, dtype, dict(rtol=1e-5, atol=1e-5))
        moved = settings is None and not torch.equal(x, images)  # the program, away from the images
        return logits + moved * torch.nn.functional.one_hot(labels, 10)

    monkeypatch.setattr(solver_examples, "answers", raise_the_true_class)
    records = list(biases(model, images, labels, (0.1,)))
    size = margins(true(model, images, 64, torch.float32, dict(rtol=1e-5, atol=1e-5)), labels).median()
    for name in ("solver_bias", "solver_distance"):
        values = found(records, name)
        assert set(values) == {(0.1, "pgd"), (0.1, "random-signs")}
        assert all(torch.allclose(each, 1 / size.expand(8)) for each in values.values())
    assert {round(float((x - images).abs().max()), 6) for x in seen} == {0.0, 0.1}


def test_images_are_made_at_two_tolerances_and_scored_at_one(known, monkeypatch):
    model, images, labels = known
    made, scored, true = [], [], solver_examples.answers

    def move(maker, x, labels, attack):
        made.append((maker.block.rtol, maker.block.atol, attack.epsilon))
        return x + (0.1 if maker.block.rtol == 1e-3 else 0.01)

    def answer(of, x, batch=64, dtype=torch.float32, settings=None):
        scored.append((of.block.rtol, round(float((x - images).max()), 6), settings is None))
        logits = true(model, images, 64, torch.float32, dict(rtol=1e-5, atol=1e-5))
        away = float((x - images).max())  # the program errs by ten times as far as the images were moved
        return logits - (settings is None) * 10 * away * torch.nn.functional.one_hot(labels, 10)

    monkeypatch.setattr(solver_examples, "moved", move)
    monkeypatch.setattr(solver_examples, "answers", answer)
    records = list(sought(model, images, labels, (0.3,)))
    assert made == [(1e-3, 1e-3, 0.3), (1e-5, 1e-5, 0.3)] and {rtol for rtol, _, _ in scored} == {1e-3}
    flow = margins(answer(model, images), labels)
    size = flow.median()
    for name, sign in (("solver_bias_made", -1), ("solver_distance_made", 1)):
        values = found(records, name)
        assert {key: value.tolist() for key, value in values.items()} == {
            (0.3, tolerance): pytest.approx([sign * fall / float(size)] * 8, rel=1e-4)
            for tolerance, fall in ((1e-3, 1.0), (1e-5, 0.1))}
    [farther] = found(records, "solver_distance_sought").values()
    assert farther.tolist() == pytest.approx([0.9 / float(size)] * 8, rel=1e-4)
    for (_, tolerance), fooled in found(records, "fools_program_made").items():
        assert torch.equal(fooled, flow < (1.0 if tolerance == 1e-3 else 0.1))


def test_a_pattern_says_before_which_step_others_were_rejected():
    solution = types.SimpleNamespace(step_times=[0.0, 0.5, 2.0],
                                     rejected_steps=[(0.5, 3.0, 2.0), (0.5, 2.0, 1.1), (2.0, 9.0, 5.0)])
    assert pattern(solution) == (0, 2, 1)


def test_jumps_are_counted_and_measured_where_the_steps_change(known, monkeypatch):
    model, images, labels = known
    flip = 0.3

    def steps(model, x, **settings):
        late = float(x.mean()) > flip
        logits = torch.zeros(1, 10)
        logits[0, labels[0]] = 2.0 + late  # a jump by half of the margin at the change
        return logits, types.SimpleNamespace(step_times=[0.0], rejected_steps=[(0.0, 1.0, 2.0)] * late)

    monkeypatch.setattr(solver_examples, "solve", steps)
    start, end = torch.zeros(2, 1, 28, 28), torch.ones(2, 1, 28, 28)
    end[1] = 0.2  # never gets there
    counts, sizes = (values for _, values, _ in jumps(model, start, labels[:1].repeat(2), end, 0.1))
    assert counts.tolist() == [1.0, 0.0] and sizes.tolist() == pytest.approx([0.5])


def test_the_reverse_is_exact_once_the_steps_are_held_and_a_smooth_program_shows_no_error(known):
    model, images, labels = known
    errors = found(exactness(model, images[:3], labels[:3], (1e-8,)), "reverse_error")
    assert set(errors) == {(steps, direction, 1e-8) for steps in ("of the image", "held")
                           for direction in ("gradient", "random")}
    for direction in ("gradient", "random"):
        held, own = (errors[steps, direction, 1e-8].median() for steps in ("held", "of the image"))
        assert held < 1e-6 < 1e-4 < own

    weight = torch.randn(784, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = images[:1].double()
    linear = slopes(lambda x: x.flatten(1) @ weight, image, labels[:1], torch.ones_like(image), (1e-3,))
    assert max(linear.values()) < 1e-9


def test_elsewhere_the_program_and_the_flow_are_those_of_that_end_time_and_tolerance(known, monkeypatch):
    model, images, labels = known
    monkeypatch.setattr(solver_examples, "TABLE_T1", (1.0, 3.0))
    monkeypatch.setattr(solver_examples, "TOLERANCES", (0.1,))
    monkeypatch.setattr(solver_examples, "moved", lambda model, x, labels, attack: 1 - x)
    records = list(elsewhere(model, images, labels, (0.3,)))
    block = model.block
    assert (block.t1, block.rtol, block.atol) == (1.0, 1e-3, 1e-3)  # left as they were
    places = dict.fromkeys((settings["t1"], settings["tolerance"]) for _, _, settings in records)
    assert list(places) == [(1.0, 1e-3), (3.0, 1e-3), (1.0, 0.1)]
    for t1, tolerance in places:
        block.t1, block.rtol, block.atol = t1, tolerance, tolerance
        right = next(values for name, values, settings in records if name == "program_right"
                     and (settings["t1"], settings["tolerance"]) == (t1, tolerance))
        assert torch.equal(right, answers(model, images).argmax(1) == labels)
        expected = list(by_solver(model, answers(model, images), labels, 1 - images, 0.3, ("flow", "rk4")))
        told = [(name, values) for name, values, settings in records
                if (settings["t1"], settings["tolerance"]) == (t1, tolerance) and "there" in name]
        assert len(told) == len(expected) == 6
        for (name, values), (wanted, kept, _) in zip(told, expected):
            assert name == f"{wanted}_there" and torch.equal(values, kept)
