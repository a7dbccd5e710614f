"""The page of a run shows all of the run, or says what is missing."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from builders import tiny_config

from nodelib.chapters import the_runs
from nodelib.experiment import artifacts, configs, evaluation, protocols
from nodelib.experiment.paths import runs_dir
from nodelib.experiment.records import metrics_csv
from nodelib.verdicts.evidence import CLEAN, matches


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the tiny run without its last three records."""
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    artifacts.write_atomic(folder / "metrics.csv", metrics_csv(tiny_run.metrics[:-3]))
    return folder


def test_an_interrupted_evaluation_goes_on_before_the_page_is_shown(copy, tiny_run):
    measured = the_runs.measured_run(tiny_config(), copy.parent)
    found, expected = ([(r["id"], r["correct"]) for r in run.metrics] for run in (measured, tiny_run))
    assert found == expected


def test_what_is_stored_on_fewer_images_is_not_measured_again(copy, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation, "evaluate_run", lambda folder, measurements: asked.extend(measurements))
    fewer = [{**r, "n": r["n"] // 2, "correct": 0, "accuracy": 0.0} for r in artifacts.load_run(copy).metrics]
    artifacts.write_atomic(copy / "metrics.csv", metrics_csv(fewer))
    the_runs.measured_run(tiny_config(), copy.parent)
    assert len(asked) == 3


def test_the_table_says_what_of_the_protocol_was_not_measured(copy, tiny_run):
    missing = [r["id"] for r in tiny_run.metrics[-3:]]
    table = the_runs.metrics_table(artifacts.load_run(copy))
    assert f"of the 8 records of the table's protocol: {', '.join(f'`{name}`' for name in missing)}." in table
    assert "Not measured" not in the_runs.metrics_table(tiny_run)


def test_a_page_needs_the_whole_table_of_a_row_and_the_own_end_time_of_a_control():
    row, control = configs.get("small-10"), configs.get("small-10-tight")
    assert protocols.page_protocol(row) == protocols.table_protocol(row)
    assert {m.t1 for m in protocols.page_protocol(control)} == {control.test_t1}
    smoke = dataclasses.replace(control, scale="smoke")
    assert protocols.page_protocol(smoke) == protocols.table_protocol(smoke)


PAGES = Path(__file__).resolve().parents[2] / "book" / "runs"


@pytest.mark.parametrize("run",
                         [run for run in artifacts.find_runs() if (PAGES / f"{run.name}.ipynb").exists()],
                         ids=lambda run: run.path.name)
def test_no_published_run_waits_for_its_page_to_be_measured(run):
    wanted = protocols.page_protocol(configs.RunConfig.from_dict(run.config))
    assert {m.id for m in wanted} <= {r["id"] for r in run.metrics}


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_runs_page_opens_with_the_record_on_most_images(path):
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    said = {output["metadata"]["scrapbook"]["name"]: "".join(*output["data"].values()).strip("'")
            for output in outputs if "scrapbook" in output.get("metadata", {})}
    run = artifacts.load_run(runs_dir() / f"{path.stem}-seed0")
    clean = [r for r in run.metrics if matches(r, t1=float(run.config["test_t1"]), **CLEAN)]
    most = max(clean, key=lambda r: r["n"])
    assert (said["run-images"], said["run-accuracy"]) == (f"{most['n']:,}", f"{100 * most['accuracy']:.2f} %")
