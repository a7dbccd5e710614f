"""The figures of *What made 92.62 %?* and of the front page show what the stored records say."""

import pytest

from nodelib.chapters import index, what_made_it
from nodelib.experiment import snapshot_records
from nodelib.experiment.artifacts import find_runs, read_json
from nodelib.experiment.paths import data_dir
from nodelib.verdicts.evidence import Evidence
from nodelib.verdicts.predictions import OWN_T1, ROWS, TABLE_T1


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
