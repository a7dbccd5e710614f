"""Verdicts with the shorter trained networks in the ledger."""

import dataclasses

import pytest

from nodelib.experiment import artifacts
from nodelib.experiment.artifacts import find_runs, read_json
from nodelib.experiment.configs import RunConfig
from nodelib.experiment.paths import data_dir
from nodelib.verdicts import first_round, prolonged
from nodelib.verdicts.verdict import Verdict


def _of(run, cycles):
    """The run as it would be stored after the first so many cycles, nothing measured."""
    config = RunConfig.from_dict(run.config).first_cycles(cycles)
    return dataclasses.replace(run, config=config.to_dict(), metrics=[], measurements=[])


@pytest.fixture(scope="module")
def runs():
    return find_runs()


def test_a_shorter_run_takes_the_place_of_the_one_that_prolongs_it(runs):
    longer = next(run for run in runs if run.config.get("cycles"))
    shorter = _of(longer, 1)
    found = prolonged.with_shorter(runs, [shorter])
    assert len(found) == len(runs) and [run for run in found if run not in runs] == [shorter]
    once = next(run for run in runs if not run.config.get("cycles"))
    with pytest.raises(ValueError, match=f"{once.name} .* is not prolonged by any run given"):
        prolonged.with_shorter(runs, [once])


def test_what_is_not_measured_of_the_shorter_run_is_undecided_and_not_counted(runs):
    longer = next(run for run in runs if run.name == "wide-adversarial")
    seed = read_json(data_dir() / "seed.json")
    found = prolonged.stage(runs, [_of(longer, 1)], seed, "0123abc")
    assert found["runs"] == ["wide-adversarial"] and found["commit"] == "0123abc"
    assert found["epochs"] == [RunConfig.from_dict(longer.config).first_cycles(1).epochs]
    assert found["left"] == {"wide-adversarial": {}}
    assert found["verdicts"]["C14"] == prolonged.UNDECIDED and found["verdicts"]["C19"] != prolonged.UNDECIDED
    assert prolonged.differences([found], first_round(runs, seed))[0]["changes"] == []


def test_the_verdicts_that_hang_on_it_are_named():
    rows = {claim: Verdict(verdict, "", evidence=("a-seed0: none-t1", "c-seed0: none-t1"))
            for claim, verdict in (
                ("C2", "in part"), ("C10", "reproduced"), ("C12", "artefact"), ("C6", "in part"))}
    # none of the runs is its evidence
    rows["C6"] = dataclasses.replace(rows["C6"], evidence=("data/claims/C6.json",))
    stored = [{"runs": ["a", "b"], "epochs": [1, 1], "commit": "",
               "verdicts": {"C2": "in part", "C10": "in part", "C12": "reproduced", "C6": "reproduced"}},
              {"runs": ["c"], "epochs": [3], "commit": "",
               "verdicts": {"C2": "reproduced", "C10": "undecided", "C12": "artefact"}}]
    first, second = prolonged.differences(stored, rows)
    assert first["changes"] == [("C10", "in part", "reproduced"), ("C12", "reproduced", "artefact")]
    assert second["changes"] == [("C2", "reproduced", "in part")]
    same = [{"runs": ["c"], "epochs": [3], "commit": "", "verdicts": {"C2": "in part"}}]
    assert prolonged.differences(same, rows)[0]["changes"] == []


def test_stored_stages_are_of_runs_that_are_stored(runs):
    stored = prolonged.stages()
    assert stored
    today = {run.name: run.config["epochs"] for run in runs if run.seed == 0}
    for one in stored:
        assert all(epochs < today[name] for name, epochs in zip(one["runs"], one["epochs"], strict=True))
        assert len(one["verdicts"]) == 22 and set(one["left"]) == set(one["runs"])


def test_a_commit_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="wide-adversarial at no-such-commit: "):
        prolonged.at_commit(["wide-adversarial"], "no-such-commit", tmp_path)
    assert artifacts.find_runs(tmp_path) == []
    with pytest.raises(SystemExit):
        prolonged.main(["nonsense"])


def test_a_commit_that_held_records_as_json_is_read_and_its_verdicts_are_todays_but_for_chapters(tmp_path):
    """Needs the repository's history, which an archive of its files does not have."""
    stored = prolonged.stages()[0]
    try:
        (run,) = prolonged.at_commit(stored["runs"], stored["commit"], tmp_path)
    except ValueError:
        pytest.skip("no history here")
    assert run.config["epochs"] == stored["epochs"][0] and run.measurements
    assert {name: list(found) for name, found in prolonged.left(run).items()} == stored["left"][run.name]
