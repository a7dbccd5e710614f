"""The tables and frames of the robustness page say what the records say, and nothing without records."""

import dataclasses

import numpy as np
import pytest

from nodelib.attacks.strong import STRONG
from nodelib.chapters import diagnosis, is_it_robustness
from nodelib.experiment.artifacts import read_json
from nodelib.experiment.measurement import Measurement, record
from nodelib.experiment.paths import data_dir


@pytest.fixture
def run(tiny_run):
    """The tiny run with made-up records: which images survive is given."""
    bits = {}

    class Stub(type(tiny_run)):
        def outcomes(self, record_id):
            return bits[record_id]

    def add(measurement, correct, **more):
        bits[measurement.id] = np.asarray(correct, dtype=bool)
        records.append(record(measurement, bits[measurement.id], 0.0, 0.0, "cpu", None, **more))

    records: list = []
    add(Measurement(1.0, 6), [1, 1, 1, 1, 0, 0])
    add(Measurement(1.0, 4, "fgsm", 0.3, label="fgsm-exact"), [1, 1, 0, 1])
    add(Measurement(1.0, 4, "square", 0.3, steps=5000), [0, 1, 0, 0])
    add(Measurement(1.0, 2, "apgd-ce", 0.3, steps=100), [0, 1])
    add(Measurement(1.0, 4, "worst", 0.3), [0, 1, 0, 0], combines=["square-t1"])
    add(Measurement(1.0, 2, "hop-skip-jump", 0.3, steps=1000), [1, 0])
    add(Measurement(1.0, 4, "pgd", 0.3, loss="margin", label="mask-margin"), [0, 0, 0, 1])
    add(Measurement(1.0, 4, "pgd", 0.3, label="mask-plain"), [0, 1, 0, 1])
    add(Measurement(1.0, 4, "transfer", 0.3, source="small-100-seed0", label="transfer-small-100-seed0"),
        [1, 1, 1, 0])
    for epsilon in (0.3, 0.1):
        add(Measurement(1.0, 4, "fgsm", epsilon, gradient="adjoint", label=f"fgsm-by-adjoint-eps{epsilon:g}"),
            [1, 0, 0, 0])
        add(Measurement(1.0, 4, "fgsm", epsilon, label=f"sweep-fgsm-eps{epsilon:g}"), [1, 0, 0, 0])
    fields = {f.name: getattr(tiny_run, f.name) for f in dataclasses.fields(tiny_run)}
    return Stub(**fields | {"metrics": records})


def test_the_attack_table_compares_all_attacks_on_the_worst_cases_images(run):
    row = diagnosis.attack_table([run]).splitlines()[2].split(" | ")
    assert row[:5] == ["| small-10-seed0", "1", "4", "100.0", "75.0"]  # clean: 4 of the first 4, not 4 of 6
    assert row[8] == "–"  # APGD-CE saw two of the four images only
    assert row[11] == "25.0" and row[12].startswith("25.0 (4.6 to 69.9)")
    assert row[13].startswith("50.0 (") and "n = 2" in row[13]


def test_what_is_left_falls_from_column_to_column_whatever_the_order_of_the_attacks(run):
    bits = {"pgd40-exact-t1": [0, 1, 1, 0], "apgd-t-t1": [1, 1, 0, 0]}  # the later column was measured first

    def outcomes(record_id, known=run.outcomes):
        return np.asarray(bits[record_id], dtype=bool) if record_id in bits else known(record_id)

    def step(name, kept):
        attack = "pgd" if name.startswith("pgd") else "apgd-t"
        return record(Measurement(1.0, 4, attack, 0.3, steps=40, label=name.removesuffix("-t1")),
                      np.asarray(kept, dtype=bool), 0.0, 0.0, "cpu", None, dropped=0)
    steps = [step(name, kept) for name, kept in bits.items()]
    both = dataclasses.replace(run, metrics=[*(r for r in run.metrics if r["id"] not in bits), *steps])
    object.__setattr__(both, "outcomes", outcomes)
    row = diagnosis.attack_table([both]).splitlines()[2].split(" | ")
    assert (row[6], row[9]) == ("50.0", "25.0")


def test_an_attack_that_found_no_image_left_says_so(run):
    square = next(r for r in run.metrics if r["id"] == "square-t1")
    square["settings"]["dropped"] = 4
    assert "| nothing to do | 25.0 (" in diagnosis.attack_table([run])


def test_a_worst_case_counts_as_the_whole_set_only_with_all_strong_attacks_in_it(run):
    own = dataclasses.replace(run, config={**run.config, "test_t1": 1.0})
    assert diagnosis.strong_bounds([own]) == []
    worst = next(r for r in own.metrics if r["attack"] == "worst")
    worst["combines"] += ["apgd-ce-t1", "apgd-t-t1", "fab-t-t1"]
    assert diagnosis.strong_bounds([own]) == [(own, worst)]


def test_a_black_box_is_ahead_where_it_breaks_what_gradients_leave(run):
    assert diagnosis.black_box_ahead(run, 1.0) == (0, 2)  # FGSM broke its only broken image too
    few = ("none-t1", "fgsm-exact-t1", "apgd-ce-t1", "hop-skip-jump-t1")
    without = dataclasses.replace(run, metrics=[r for r in run.metrics if r["id"] in few])
    assert diagnosis.black_box_ahead(without, 1.0) == (1, 2)
    assert diagnosis.black_box_ahead(run, 10.0) is None
    # what a later attack by gradients dropped because the black box had broken it is not its own doing
    fgsm = next(r for r in without.metrics if r["id"] == "fgsm-exact-t1")
    dropped = {**fgsm, "combines": ["hop-skip-jump-t1"]}
    changed = dataclasses.replace(without, metrics=[dropped if r is fgsm else r for r in without.metrics])
    assert diagnosis.black_box_ahead(changed, 1.0) == (1, 2)


def test_the_other_tables_name_what_they_compare(run):
    assert "| margin loss | 25.0 |" in diagnosis.masking_table([run])
    assert diagnosis.masking_table([run], 0.1) == ""
    # on the four images of the attack
    assert "| *clean, fixed pooling* | 100.0 |" in diagnosis.masking_table([run])
    own = dataclasses.replace(run, config={**run.config, "test_t1": 1.0})
    assert diagnosis.randomised_table([run]) == ""
    drawn = [{**next(r for r in run.metrics if r["id"] == "fgsm-exact-t1"), "id": f"random-{name}-t1"}
             for name in ("apgd-ce", "apgd-dlr")]
    kept = {"random-apgd-ce-t1": [1, 1, 0, 0], "random-apgd-dlr-t1": [0, 1, 1, 0]}

    class Drawn(type(run)):
        def outcomes(self, record_id):
            return np.asarray(kept[record_id], dtype=bool) if record_id in kept else run.outcomes(record_id)

    both = Drawn(**{f.name: getattr(run, f.name) for f in dataclasses.fields(run)}
                 | {"metrics": [*run.metrics, *drawn], "config": {**run.config, "test_t1": 1.0}})
    row = "| small-10-seed0 | 1 | 4 | – | 50.0 (15.0 to 85.0) | 50.0 (15.0 to 85.0) | 25.0 ("
    assert row in diagnosis.randomised_table([both])
    assert "| small-10-seed0 | 100.0 | 75.0 | 4 |" in diagnosis.transfer_table([own])
    assert "| small-10-seed0 | – | 75.0 | 4 |" in diagnosis.transfer_table(
        [dataclasses.replace(run, config={**run.config, "test_t1": 7.0})])
    more = {**next(r for r in own.metrics if r["attack"] == "transfer"), "id": "transfer-more",
            "source": "other-seed0", "n": 8}
    twice = dataclasses.replace(own, metrics=[*own.metrics, more])
    assert "| small-10-seed0 | – | 75.0 (n = 4) | 75.0 | 8 |" in diagnosis.transfer_table([twice])
    ahead = dataclasses.replace(own, path=own.path.with_name("other-seed0"))
    heads = [line.split("|")[3:5] for line in diagnosis.transfer_table([ahead, twice]).splitlines()[:1]]
    assert heads == [[" other-seed0 ", " small-100-seed0 "]]  # columns in the order of the rows
    assert diagnosis.anchor_table(read_json(data_dir() / "seed.json")).count("\n") == 6


def test_a_run_without_records_is_left_out(tiny_run):
    bare = dataclasses.replace(tiny_run, metrics=[], measurements=[])
    assert diagnosis.attack_table([bare]).count("\n") == 1
    assert diagnosis.masking_table([bare]) == diagnosis.transfer_table([bare]) == ""
    for frame in (diagnosis.epsilon_frame, diagnosis.gradient_frame, diagnosis.health_frame):
        assert len(frame([bare])) == 0
    assert diagnosis.strong_bounds([bare]) == []


def test_the_frames_are_in_order_of_epsilon_and_are_drawn(run):
    swept, by_gradient = diagnosis.epsilon_frame([run]), diagnosis.gradient_frame([run])
    fgsm = swept[swept["attack"] == "FGSM"]
    assert fgsm["epsilon"].tolist() == by_gradient["epsilon"].tolist() == [0.1, 0.3]
    # FGSM and chance, not a lone worst case
    assert len(is_it_robustness.epsilon_sweep(swept).axes[0].lines) == 2
    axis = is_it_robustness.epsilon_by_gradient(by_gradient).axes[0]
    # a band of 95 % intervals
    assert len(axis.collections) == 1 and (by_gradient["low"] < by_gradient["accuracy"]).all()
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["continuous adjoint"]


def test_the_health_of_gradients_is_read_by_method(tiny_run):
    from nodelib.experiment.gradient_health import record as health_record

    records = [health_record("sign_agreement", 0.7, 1.0, 4, "mean", gradient="exact", rtol=1e-5),
               health_record("logit_gap", 3.0, 1.0, 4),
               health_record("zero_gradient", 0.25, 1.0, 4, "mean", gradient="exact", rtol=1e-3,
                             loss="margin", logit_scale=1.0)]
    data = diagnosis.health_frame([dataclasses.replace(tiny_run, measurements=records)])
    assert data[data["name"] == "sign_agreement"]["method"].tolist() == ["exact-1e-5"]
    assert "| small-10-seed0 | 1 | 3.0 | – | – | – | 25.0 % | – | 4 |" in diagnosis.zero_table(data)
    (axis,) = is_it_robustness.gradient_health(data).axes
    assert axis.get_title() == "small-10"
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["exact, 1e-5"]


def test_measuring_now_adds_records_without_storing_them(tiny_run):
    before = (tiny_run.path / "metrics.csv").read_bytes()
    added = diagnosis.measured_now(tiny_run, [Measurement(1.0, 4, "fgsm", 0.1, label="sweep-fgsm-eps0.1")])
    assert len(diagnosis.epsilon_frame([added])) == 1
    assert (tiny_run.path / "metrics.csv").read_bytes() == before


def test_an_interval_reaches_farthest_where_one_half_is_right():
    assert [round(diagnosis.reach(n)) for n in (256, 100)] == [6, 10]


def known(tiny_run, *attacks: tuple[Measurement, np.ndarray], name: str = "small-100"):
    """The tiny run with these records alone, trained to t = 100: which images survive is given."""
    bits = {m.id: np.asarray(right, dtype=bool) for m, right in attacks}

    class Stub(type(tiny_run)):
        def outcomes(self, record_id):
            return bits[record_id]
    return Stub(**{f.name: getattr(tiny_run, f.name) for f in dataclasses.fields(tiny_run)} | {
        "name": name, "metrics": [record(m, bits[m.id], 0.0, 0.0, "cpu", None) for m, _ in attacks],
        "config": {**tiny_run.config, "test_t1": 100.0}})


def first(right: int, n: int = 50) -> np.ndarray:
    return np.arange(n) < right


def mask(name: str, epsilon: float = 0.3) -> Measurement:
    middle = "" if epsilon == 0.3 else f"-eps{epsilon:g}"
    return Measurement(100.0, 50, "pgd", epsilon, steps=10, step_size=0.075, label=f"mask-{name}{middle}")


@pytest.mark.parametrize("plain, margin, arrow",
                         [(40, 10, "↓"), (10, 40, "↑"), (40, 39, None), (0, 30, None)])
def test_an_arrow_marks_what_another_attack_leaves_significantly_less_or_more(tiny_run, plain, margin, arrow):
    run = known(tiny_run, (mask("plain"), first(plain)), (mask("margin"), first(margin)),
                (mask("unclipped"), first(0)))
    assert diagnosis.told_apart(run, "-t100") == ({"margin": arrow} if arrow else {})
    table = diagnosis.masking_table([run])
    assert f"| margin loss | {2 * margin}.0{f' {arrow}' if arrow else ''} |" in table
    assert "| not clipped | 0.0 |" in table
    few = diagnosis.masking_table([run], exceptions=True)
    assert ("margin loss" in few) == (arrow is not None) and "not clipped" not in few
    assert bool(few) == (plain > 0)


def test_gradients_are_compared_on_the_images_that_all_of_them_saw(tiny_run):
    by = {name: Measurement(100.0, n, "fgsm", 0.3, label=f"fgsm-by-{name}-eps0.3")
          for name, n in (("adjoint", 50), ("exact-1e-3", 50), ("reference", 20))}
    run = known(tiny_run, *((m, first(30, m.n)) for m in by.values()))
    (found,) = diagnosis.kept_by_gradient([run], 0.3).values()
    assert [len(bits) for bits in found.values()] == [20, 20, 20]
    assert diagnosis.kept_by_gradient([run], 0.1) == {}


@pytest.mark.parametrize("left, count", [((50, 40, 30), 0), ((50, 30, 32), 1), ((50, 30, 60), 1)])
def test_what_an_attack_leaves_at_a_larger_epsilon_is_tested_where_it_is_more(tiny_run, left, count):
    run = known(tiny_run, *(
        (Measurement(100.0, 100, "fgsm", e, label=f"sweep-fgsm-eps{e:g}"), first(right, 100))
        for e, right in zip((0.0, 0.1, 0.2), left)))
    pairs, ps = diagnosis.rises([run])
    assert pairs == 2 and len(ps) == count and all((p < 0.01) == (left[2] == 60) for p in ps)


def test_the_summary_is_on_the_images_of_the_worst_case(run):
    worst = next(r for r in run.metrics if r["attack"] == "worst")
    worst["combines"] += ["apgd-ce-t1", "apgd-t-t1", "fab-t-t1"]
    ten = Measurement(1.0, 2, "pgd", 0.3, label="pgd10-exact")
    run.metrics.append(record(ten, np.array([True, False]), 0.0, 0.0, "cpu", None))

    class More(type(run)):
        def outcomes(self, record_id):
            return np.array([True, False]) if record_id == ten.id else run.outcomes(record_id)
    own = More(**{f.name: getattr(run, f.name) for f in dataclasses.fields(run)}
               | {"config": {**run.config, "test_t1": 1.0}})
    ((name, t, n, clean, one, few, left),) = diagnosis.attack_summary([own])
    assert (name, t, n, clean, one, few) == ("small-10-seed0", "1", "4", "100.0", "75.0", "50.0 (n = 2)")
    assert left.startswith("25.0 (")


def test_the_library_is_asked_before_and_after_its_attacks(tiny_run, monkeypatch):
    monkeypatch.setattr(diagnosis, "require", lambda name: None)
    monkeypatch.setattr(diagnosis, "library_warnings", lambda model, images, labels, t1: [f"at {t1:g}"])
    monkeypatch.setattr(diagnosis, "library_afterthoughts", lambda left: [f"{len(left)} attacks"])
    attacked = known(tiny_run, *((Measurement(100.0, 50, name, 0.3, steps=100), first(10))
                                 for name in STRONG))
    bare = dataclasses.replace(tiny_run, metrics=[])
    heard = diagnosis.library_says([attacked], None, None), diagnosis.library_says([bare], None, None)
    assert [list(each.values()) for each in heard] == [[["at 100", "4 attacks"]], [["at 1"]]]


def test_examples_of_the_solver_are_drawn_with_a_line_a_network_and_a_dotted_one_for_held_steps(tiny_run):
    from nodelib.experiment.measure_states import record as entry

    found = [entry("norm", 1.0, n=4, t1=1.0),
             *(entry("fools_program_only", share, n=10, t1=1.0, statistic="mean", epsilon=epsilon,
                     solver=solver)
               for solver, share in (("flow", 0.1), ("rk4", 0.9)) for epsilon in (0.1, 0.3)),
             *(entry("fools_program_only_there", share, n=10, t1=t1, statistic="mean", epsilon=epsilon,
                     solver="flow", tolerance=tolerance)
               for t1, epsilon, tolerance, share in ((1.0, 0.1, 1e-1, 0.5), (1.0, 0.1, 1e-3, 0.2),
                                                     (1.0, 0.3, 1e-1, 0.9), (9.0, 0.1, 1e-3, 0.8))),
             *(entry("reverse_error", h, n=4, t1=1.0, steps=steps, direction=direction, difference=h)
               for steps in ("held", "of the image") for direction in ("gradient", "random")
               for h in (1e-4, 1e-6))]
    data = is_it_robustness.solver_frame([dataclasses.replace(tiny_run, measurements=found)])
    assert len(data) == 16 and set(data["network"]) == {"small-10"}
    left, middle, right = is_it_robustness.solver_examples(data).axes
    assert left.lines[0].get_xydata().tolist() == [[0.1, 10.0], [0.3, 10.0]]
    assert middle.lines[0].get_xydata().tolist() == [[1e-3, 20.0], [1e-1, 50.0]]  # own end time, 0.1
    drawn = [line for line in right.lines if len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in drawn] == [[1e-6, 1e-4]] * 2
    assert sorted(line.get_linestyle() for line in drawn) == ["-", ":"]
    assert len(is_it_robustness.solver_examples(data[:0]).axes) == 3
