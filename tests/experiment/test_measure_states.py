"""The measurements of a network's states are those the rules of the ledger ask for."""

import dataclasses
import shutil

import pytest
import torch

from nodelib import verdicts
from nodelib.dynamics.classes import class_directions
from nodelib.experiment import artifacts, measure_states, solver_examples
from nodelib.experiment.contract import (
    ELSEWHERE_MEASUREMENTS,
    HELD_OUT_MEASUREMENTS,
    LOCAL_MEASUREMENTS,
    SOLVER_MEASUREMENTS,
    SOUGHT_MEASUREMENTS,
    STATE_MEASUREMENTS,
)
from nodelib.experiment.evaluation import test_subset
from nodelib.experiment.protocols import AVERAGED
from nodelib.experiment.records import measurements_csv
from nodelib.solver.errors import InputError
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.ledger import CLAIMS
from nodelib.verdicts.verdict import UNDECIDED, judge

JUDGED_BY_STATES = ("C13", "C16", "C17", "C18", "C20", "C21")


@pytest.fixture(scope="module")
def records(tiny_run):
    images, labels = test_subset(60)
    model = tiny_run.load_model()

    def elsewhere(*given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(solver_examples, "TABLE_T1", (1.0,))
            patch.setattr(solver_examples, "TOLERANCES", (0.1,))
            return list(measure_states.elsewhere(*given, (0.001, 0.3)))

    return [*measure_states.trajectories(model, images, labels),
            *measure_states.six_and_four(model, images, labels),
            *measure_states.complexity(model, images[:16]),
            *measure_states.attacked(model, images, labels), *measure_states.fooled(model, images, labels),
            *measure_states.exponents(model, images, count=2, log_time=1.0),
            *measure_states.attractors(model, images[:30], labels[:30], krylov=10, max_steps=2, log_time=1.0),
            *measure_states.far(model, images[:2], labels[:2], (0.5,)),
            *measure_states.class_rays(model, images, labels, krylov=5, max_steps=1, log_time=0.5),
            # what is above made the other model one of double precision
            *measure_states.local(tiny_run.load_model(), images, labels),
            *(r for find in (measure_states.examples, measure_states.biases, elsewhere, measure_states.sought)
              for r in measure_states.solver_examples(tiny_run.load_model(),
                                                      find(tiny_run.load_model(), images[:4], labels[:4]))),
            *measure_states.held_out(tiny_run.load_model(), 2)]


def test_every_measurement_is_a_record_of_the_contract(records):
    for r in records:
        assert set(r) == {"name", "t1", "label", "images", "statistic", "value", "n", "settings"}
        assert r["name"] in verdicts.MEASUREMENTS and r["n"] > 0
        assert isinstance(r["value"], float) and r["value"] == r["value"]
    keys = [(r["name"], r["t1"], r["label"], r["images"], r["statistic"], str(r["settings"]))
            for r in records]
    assert len(keys) == len(set(keys))
    assert {r["name"] for r in records} == {*STATE_MEASUREMENTS, *LOCAL_MEASUREMENTS, *SOLVER_MEASUREMENTS,
                                           *ELSEWHERE_MEASUREMENTS, *SOUGHT_MEASUREMENTS,
                                           *HELD_OUT_MEASUREMENTS}
    known = set().union(*(part.keys for part in measure_states.PARTS.values()))
    assert {measure_states.key(r) for r in records} == known


def test_one_solve_gives_what_separate_solves_give(records, tiny_run):
    from nodelib import dynamics

    images, _ = test_subset(60)
    model = tiny_run.load_model()
    y = dynamics.states_at(model, images, (100.0, 1000.0))
    change = dynamics.norm(y[1] - y[0]) / dynamics.norm(y[0])
    (stored,) = (r["value"] for r in records if r["name"] == "state_change" and r["t1"] == 1000.0)
    assert stored == pytest.approx(change.median().item(), rel=1e-2)


def test_attacked_images_are_none_of_those_that_give_the_class_directions(tiny_run, monkeypatch):
    images, labels = test_subset(60)
    seen = []
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: seen.append(x) or x)
    found = measure_states.attacked(tiny_run.load_model(), images, labels, count=50)
    assert torch.equal(torch.cat(seen), images[30:])  # 50 asked for, 30 are not in the reference
    angles = [r["value"] for r in found if r["name"] == "attacked_angle"]
    assert angles == pytest.approx([0.0] * 5, abs=0.5)  # this attack changes nothing


def test_the_rules_on_states_find_all_they_ask_for(records, tiny_run):
    class Run:
        seed = 0
        metrics: list = []
        measurements = records

        def __init__(self, name):
            self.name = name

    names = ("wide-standard", "wide-adversarial", "small-random", "large-random", "large-100")
    evidence = Evidence([Run(name) for name in names], {"table": []})
    for claim in CLAIMS:
        if claim.id in JUDGED_BY_STATES:
            verdict = judge(claim, evidence)
            assert verdict.verdict != UNDECIDED, (claim.id, verdict.missing)


def test_two_digits_are_judged_on_images_that_give_no_reference(tiny_run):
    images, labels = test_subset(60)
    chosen = (labels == 6) | (labels == 4)
    found = measure_states.six_and_four(tiny_run.load_model(), images, labels)
    n = int(chosen.sum())
    assert {r["n"] for r in found if r["name"] == "nearest_class"} == {n - n // 2}
    assert {r["label"] for r in found} == {"6-4"}
    with pytest.raises(ValueError, match="images of the digits 6 and 4"):
        measure_states.six_and_four(tiny_run.load_model(), images[~chosen], labels[~chosen])


@pytest.fixture
def stored(tiny_run, tmp_path, monkeypatch):
    """A stored run with a foreign record, and parts that cost nothing."""
    folder = tmp_path / "small-10-seed0"
    shutil.copytree(tiny_run.path, folder)
    foreign = {"name": "logit_scale", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median",
               "value": 2.0,
               "n": 4, "settings": {}}
    artifacts.write_atomic(folder / "measurements.csv", measurements_csv([foreign]))
    monkeypatch.setattr(measure_states, "PARTS", {
        name: measure_states.Part(lambda *a, name=name: [measure_states.record(name, 3.0, n=2, t1=1.0)],
                                  (name,))
        for name in ("norm", "turning", "attacked")})
    return folder


def test_measuring_a_stored_run_keeps_what_others_measured_and_measures_nothing_twice(stored):
    # attacked: for the wide networks only
    assert measure_states.measure_run(stored, count=2) == ["norm", "turning"]
    assert measure_states.measure_run(stored, count=2) == []
    assert measure_states.measure_run(stored, count=2, parts=("norm", "turning")) == ["norm", "turning"]
    assert [r["name"] for r in artifacts.load_run(stored).measurements] == ["logit_scale", "norm", "turning"]


def test_a_measurement_is_never_replaced_by_one_on_fewer_images(stored, monkeypatch):
    monkeypatch.setitem(measure_states.PARTS, "turning", measure_states.Part(lambda model, images, *a: [
        measure_states.record("turning", len(images), n=len(images) - 1, t1=1.0)], ("turning",)))
    monkeypatch.setitem(measure_states.PARTS, "norm", measure_states.Part(lambda *a: [
        measure_states.record("norm", a[-1].far, n=a[-1].far, t1=1.0)], ("norm",)))
    measure_states.measure_run(stored, count=4, reach=measure_states.Reach(far=3))
    before = artifacts.load_run(stored).measurements
    for part, count, rays in (("turning", 2, 3), ("turning", 3, 3), ("norm", 2, 3), ("norm", 4, 2)):
        with pytest.raises(artifacts.ArtifactError, match="too few to replace"):
            measure_states.measure_run(stored, count=count, reach=measure_states.Reach(far=rays),
                                       parts=[part])
    assert artifacts.load_run(stored).measurements == before
    measure_states.measure_run(stored, count=5, reach=measure_states.Reach(far=4),
                               parts=("norm", "turning"))
    assert [r["value"] for r in artifacts.load_run(stored).measurements] == [2.0, 4.0, 5.0]


def test_an_interrupted_measurement_goes_on_where_it_stopped(stored, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    whole = measure_states.PARTS["turning"]
    monkeypatch.setitem(measure_states.PARTS, "turning", measure_states.Part(interrupt, ("turning",)))
    with pytest.raises(KeyboardInterrupt):
        measure_states.measure_run(stored, count=2)
    assert measure_states.pending(artifacts.load_run(stored)) == ("turning",)
    monkeypatch.setitem(measure_states.PARTS, "turning", whole)
    assert measure_states.measure_run(stored, count=2) == ["turning"]


def test_no_part_is_begun_when_the_time_is_up(stored):
    lines = []
    assert measure_states.measure_run(stored, count=2, budget=0.0, report=lines.append) == []
    assert "goes on from here" in lines[0]
    assert measure_states.pending(artifacts.load_run(stored)) == ("norm", "turning")


def test_images_on_a_common_equilibrium_count_as_one_attractor_per_class():
    """A network whose leaky dynamics pull every state to a constant: one equilibrium, and it attracts."""
    from nodelib.networks import ODENet

    torch.manual_seed(0)
    model = ODENet(16, 7, leaky=True).eval()
    # the first normalisation gives a constant: f is the pattern that its zero padding makes
    with torch.no_grad():
        model.block.func.norm0.weight.fill_(1e-9)
        model.block.func.norm0.bias.fill_(1.0)
    images, labels = test_subset(40)
    found = measure_states.attractors(model, images, labels, log_time=1.0, krylov=10, max_steps=3)
    found += measure_states.exponents(model, images, count=2, log_time=1.0)
    values = {(r["name"], r["label"]): r["value"] for r in found}
    assert values["on_a_ray", "all"] == 1.0
    assert all(values["attractors", str(d)] == 1.0 and values["own_attractors", str(d)] == 0.0
               for d in range(10))
    assert values["distinct_attractors", "all"] == 1.0
    assert all(values["ray_share", str(d)] == 1.0 for d in range(10))
    assert all(values["ray_residual", str(d)] < 1e-6 and values["ray_eigenvalue", str(d)] < 1e-3
               for d in range(10))
    assert values["lyapunov_exponent", "all"] == pytest.approx(-1.0, abs=0.05)  # d v / d s = -v
    *far, reached = measure_states.far(model, images[:4], labels[:4], (1.0, 2.0), krylov=10, max_steps=3)
    later = [(r["name"], r["settings"]["log_time"], r["value"]) for r in far]
    assert later == [("on_a_ray_later", 1.0, 1.0), ("rays_later", 1.0, 1.0), ("on_a_ray_later", 2.0, 1.0),
                     ("rays_later", 2.0, 1.0)]
    assert reached["name"] == "rays_later_attracting" and reached["value"] == 1.0
    assert reached["settings"]["on_each"] == [4]
    assert reached["settings"]["residuals"][0] < 1e-6 and reached["settings"]["eigenvalues"][0] < 1e-3
    assert reached["settings"]["by_class"] == [torch.bincount(labels[:4], minlength=10).tolist()]
    solved = measure_states.class_rays(model, images, labels, log_time=1.0, krylov=10, max_steps=3)
    assert {r["value"] for r in solved if r["name"] == "class_rays"} == {1.0}
    assert all(r["value"] < 1e-6 for r in solved if r["name"] == "class_ray_residual")


def test_the_times_at_which_a_longer_flow_is_looked_at_double():
    assert measure_states.doubling(80) == measure_states.FAR
    assert measure_states.doubling(10) == (10.0,)
    assert measure_states.doubling(100) == (10.0, 20.0, 40.0, 80.0, 100.0)
    for last in (5, float("inf"), float("nan"), 701):
        with pytest.raises(InputError, match=f"log time is {last:g}; images are followed from 10 to 700"):
            measure_states.doubling(last)


def test_of_no_state_there_is_no_class_direction():
    with pytest.raises(InputError, match="there are 0 states"):
        class_directions(torch.zeros(0, 2, 3, 3), torch.zeros(0, dtype=torch.long))


def test_images_on_no_ray_are_counted_so_however_late():
    from nodelib.networks import ODENet

    torch.manual_seed(0)
    model = ODENet(16, 7).eval()
    images, labels = test_subset(40)
    later = measure_states.far(model, images[:3], labels[:3], (0.5,))
    assert [(r["name"], r["value"]) for r in later] == [
        ("on_a_ray_later", 0.0), ("rays_later", 0.0), ("rays_later_attracting", 0.0)]
    assert later[-1]["settings"]["eigenvalues"] == []
    solved = measure_states.class_rays(model, images, labels, log_time=0.5, smoothing=0.0, krylov=2,
                                       max_steps=1)
    assert [r["value"] for r in solved if r["name"] == "class_rays"] == [0.0]  # one small step solves nothing
    assert len([r for r in solved if r["name"] == "class_ray_residual"]) == 10
    with pytest.raises(ValueError, match="no image of the classes"):
        measure_states.class_rays(model, images[:3], labels[:3])


def test_only_the_parts_asked_for_are_measured_again(tmp_path, tiny_run):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    assert measure_states.measure_run(folder, 40, parts=("complexity",)) == ["complexity"]
    first = {r["name"]: r for r in artifacts.load_run(folder).measurements}["jacobian_norm"]
    assert first["settings"]["low"] <= first["value"] <= first["settings"]["high"] and first["n"] == 40
    assert measure_states.measure_run(folder, 50, parts=("complexity",)) == ["complexity"]
    assert {r["name"]: r["n"] for r in artifacts.load_run(folder).measurements}["jacobian_norm"] == 50
    with pytest.raises(ValueError, match="unknown part 'speed'; the parts are trajectories"):
        measure_states.measure_run(folder, parts=("speed",))
    with pytest.raises(InputError, match="20 images hold 0 of some class; the part 'trajectories' needs at "
                       "least two of each"):
        measure_states.measure_run(folder, 20, parts=("trajectories",))
    with pytest.raises(ValueError, match="part 'attacked' makes no sense for"):
        measure_states.measure_run(folder, parts=("attacked",))


def test_only_images_that_fool_the_network_are_followed(tiny_run, monkeypatch):
    images, labels = test_subset(60)
    model = tiny_run.load_model()
    with torch.no_grad():
        before, said = (model(x, 1.0).argmax(1) for x in (images[30:], 1 - images[30:]))
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: 1 - x)
    found = measure_states.fooled(model, images, labels, count=50)
    wrong = (said != labels[30:]) & (before == labels[30:])  # an image that was wrong already is not fooled
    assert 0 < wrong.sum() < (said != labels[30:]).sum()
    share, *found = found
    assert (share["name"], share["value"], share["n"]) == ("fooled_share", wrong.double().mean(), 30)
    assert {r["n"] for r in found} == {int(wrong.sum())} and {r["images"] for r in found} == {"fooled"}
    assert {r["name"] for r in found} == {"nearest_class", "attacked_angle", "nearest_said"}
    attacked: list[int] = []
    monkeypatch.setattr(measure_states, "BATCH", 10)
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: attacked.append(len(x)) or 1 - x)
    first = wrong.cumsum(0).tolist()
    assert {r["n"] for r in measure_states.fooled(model, images, labels, count=1)[1:]} == {1}
    assert len(attacked) == next(k for k in (1, 2, 3) if first[10 * k - 1])  # no more than had to be
    asked: list[dict] = []
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: asked.append(k) or x)
    (none,) = measure_states.fooled(model, images, labels, count=50)
    assert (none["name"], none["value"], none["n"]) == ("fooled_share", 0.0, 30)
    kept = {key: value for key, value in AVERAGED.items() if key not in ("attack", "restarts")}
    assert asked == 3 * [{"t1": 1.0, **kept}]


def test_a_network_that_nothing_fools_is_measured_once(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    monkeypatch.setattr(measure_states, "parts_of", lambda run: ("fooled",))
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: x)
    for _ in range(2):  # the record takes its own place
        assert measure_states.measure_run(folder, 40, parts=("fooled",)) == ["fooled"]
    assert [r["name"] for r in artifacts.load_run(folder).measurements] == ["fooled_share"]
    assert measure_states.measure_run(folder, 40) == []
    monkeypatch.setattr(measure_states, "pgd", lambda model, x, y, *a, **k: 1 - x)
    assert measure_states.measure_run(folder, 40, parts=("fooled",)) == ["fooled"]
    run = artifacts.load_run(folder)
    assert measure_states.pending(run) == () and len({r["name"] for r in run.measurements}) == 4
    for name, pending in (("fooled_share", ()), ("nearest_said", ("fooled",))):  # older runs lack the first
        lacking = [r for r in run.measurements if r["name"] != name]
        assert measure_states.pending(dataclasses.replace(run, measurements=lacking)) == pending


@pytest.mark.parametrize("part, empty", [
    ("solver", ("fools_program_only", "fools_solver_only", "step_jump")),
    ("elsewhere", ("fools_program_only_there", "fools_solver_only_there"))])
def test_a_part_is_done_without_records_that_no_image_is_left_for(part, empty, tiny_run, tmp_path,
                                                                  monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    monkeypatch.setattr(measure_states, "parts_of", lambda run: (part,))
    names = {name for name, *_ in measure_states.PARTS[part].keys}
    assert names > set(empty)
    monkeypatch.setattr(measure_states, "examples" if part == "solver" else "elsewhere", lambda *a: (
        (name, torch.zeros(0 if name in empty else 2), dict(epsilon=0.1)) for name in sorted(names)))
    assert measure_states.measure_run(folder, 2) == [part]
    assert {r["name"] for r in artifacts.load_run(folder).measurements} == names - set(empty)
    assert measure_states.measure_run(folder, 2) == []


@pytest.mark.parametrize("part, measured, asked", [
    ("far", dict(count=40, reach=measure_states.Reach(far=8)), dict(reach=measure_states.Reach(far=4))),
    ("attacked", dict(count=40), dict(count=30)), ("two digits", dict(count=100), dict(count=60)),
])
def test_too_few_images_are_refused_before_the_work(part, measured, asked, tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    monkeypatch.setattr(measure_states, "parts_of", lambda run: (part,))
    whole, name = measure_states.PARTS[part], measure_states.PARTS[part].names[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure_states.PARTS, part, dataclasses.replace(whole, measure=lambda m, x, y, reach: [
            measure_states.record(name, 1.0, 1.0, whole.used(y, reach), images=whole.images,
                                  label="6-4" if whole.two else "all")]))
        measure_states.measure_run(folder, **measured, parts=(part,))
    (stored,) = artifacts.load_run(folder).measurements
    monkeypatch.setitem(measure_states.PARTS, part, dataclasses.replace(
        whole, measure=lambda *a: pytest.fail("worked first")))
    with pytest.raises(artifacts.ArtifactError, match="too few to replace"):
        measure_states.measure_run(folder, **{**measured, **asked}, parts=(part,))
    assert artifacts.load_run(folder).measurements == [stored]


def test_held_out_training_images_are_as_many_whatever_is_asked_for(tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    monkeypatch.setattr(measure_states, "parts_of", lambda run: ("held out",))
    monkeypatch.setattr(measure_states, "held_out", lambda model: [
        measure_states.record("held_out_left", 0.5, 1.0, 1000, "mean")])
    for _ in range(2):
        assert measure_states.measure_run(folder, 2, parts=("held out",)) == ["held out"]
