"""The figures of *What made 92.62 %?* and of the front page show what the stored records say."""

import pytest

from nodelib.chapters import index, what_made_it
from nodelib.experiment import snapshot_records
from nodelib.experiment.artifacts import find_runs, read_json
from nodelib.experiment.paths import data_dir
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.ledger import ledger
from nodelib.verdicts.post_recipe import KINDS, Band
from nodelib.verdicts.predictions import OWN_T1, ROWS, TABLE_T1
from nodelib.verdicts.second_round import constants


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence(find_runs(), read_json(data_dir() / "seed.json"))


def test_a_rows_factor_meets_the_posts_figure_at_the_own_end_time(evidence):
    fitted = what_made_it.fitted(evidence)
    assert [row for row, *_ in fitted] == list(ROWS)
    for row, factor, entries in fitted:
        theirs, ours = entries[TABLE_T1.index(OWN_T1[row])]
        assert ours == pytest.approx(theirs, abs=0.1) and factor > 1, row


def test_a_ring_marks_where_each_line_reaches_the_posts_figure(evidence):
    axes = what_made_it.dials(evidence).axes[0]
    rings = [line for line in axes.lines if line.get_marker() == "o"]
    assert sorted(float(ring.get_ydata()[0]) for ring in rings) == sorted(
        evidence.post(row, OWN_T1[row], "adversarial") for row in ROWS)
    assert all(1 < ring.get_xdata()[0] < 100 for ring in rings)


def test_a_short_level_in_the_lines_colour_runs_through_each_ring(evidence):
    axes = what_made_it.dials(evidence).axes[0]
    rings = [line for line in axes.lines if line.get_marker() == "o"]
    levels = {line.get_color(): line for line in axes.lines if line.get_linestyle() == "--"}
    assert len(rings) == len(levels) == len(ROWS)
    for ring in rings:
        level = levels[ring.get_color()]
        assert set(level.get_ydata()) == set(ring.get_ydata())
        assert level.get_xdata()[0] < ring.get_xdata()[0] < level.get_xdata()[1]


def test_an_entry_beside_the_post_says_on_which_side_our_band_lies():
    band = Band(5.0, 6.0, 7.0, 12, 1)
    assert [what_made_it.Beside(theirs, band).said(3) for theirs in (1.0, 3.0, 9.0, 11.0)] == [
        "5.0 to 7.0 above", "5.0 to 7.0", "5.0 to 7.0", "5.0 to 7.0 below"]


def test_the_entries_beside_the_post_are_those_that_c8_counts(evidence):
    entries = what_made_it.beside_the_post(evidence)
    claim = next(row for row in ledger(evidence.runs, evidence.seed) if row.id == "C8")
    for kind, figure in zip(KINDS, claim.ours):
        met = [e.inside(constants("C8").points) for (*_, which), e in entries.items() if which == kind]
        assert (sum(met), f"of {len(met)}") == (figure.value, figure.unit)
    assert entries["large-100", 100.0, "adversarial"].theirs == 92.62


def test_gaps_past_the_horizons_are_those_stored_at_the_own_end_time(evidence):
    found = what_made_it.past_both(evidence)
    large = evidence.named("large-100")[0]
    stored = {m["settings"]["threshold"]: 100 * m["value"] for m in large.measurements
              if m["name"] == "gap_past" and m["t1"] == 100.0 and m["settings"]["logit_scale"] == 7}
    assert found["large-100"][7.0] == (stored[17.0], stored[104.0]) and stored[17.0] > stored[104.0] > 0
    counted = {run.name for run in evidence.runs if any(m["name"] == "gap_past" for m in run.measurements)}
    assert set(found) == counted


def test_the_lines_along_training_end_at_the_last_snapshot(evidence):
    panels = what_made_it.training(evidence.runs, read_json(data_dir() / "seed.json")).axes
    run = next(run for run in evidence.runs if run.name == "large-100-post")
    last = {quantity: list(snapshot_records.values(run.snapshots, quantity, 100.0).values())[-1]
            for quantity in ("fgsm", "gap-50", "state-sum")}
    ends = [[float(line.get_ydata()[-1]) for line in axes.lines] for axes in panels]
    assert 100 * last["fgsm"] in ends[0] and last["gap-50"] in ends[1] and last["state-sum"] in ends[2]


def test_the_front_page_draws_the_posts_figures_hollow(evidence):
    axes = index.overview(evidence.runs).axes[0]
    hollow = {round(float(x), 2) for line in axes.lines if line.get_fillstyle() == "none"
              for x in line.get_xdata()}
    assert hollow >= {evidence.post(row, OWN_T1[row], kind) for row in ROWS
                      for kind in ("standard", "adversarial")}
