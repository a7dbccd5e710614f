"""The first round's verdicts with shorter trained networks."""

from nodelib.experiment.artifacts import find_runs
from nodelib.verdicts import prolonged


def test_the_verdicts_that_hang_on_it_are_named(monkeypatch):
    last = {"C2": "in part", "C10": "reproduced", "C12": "artefact", "C6": "in part"}
    monkeypatch.setattr(prolonged, "first_round", lambda: {
        # none of the runs is the evidence of C6
        claim: {"verdict": verdict, "runs": [] if claim == "C6" else ["a", "c"]}
        for claim, verdict in last.items()})
    stored = [{"runs": ["a", "b"], "epochs": [1, 1],
               "verdicts": {"C2": "in part", "C10": "in part", "C12": "reproduced", "C6": "reproduced"}},
              {"runs": ["c"], "epochs": [3],
               "verdicts": {"C2": "reproduced", "C10": "undecided", "C12": "artefact"}},
              {"runs": ["c"], "epochs": [3], "verdicts": {"C2": "in part"}}]
    monkeypatch.setattr(prolonged, "stages", lambda: stored)
    first, second, same = prolonged.differences()
    assert first["changes"] == [("C10", "in part", "reproduced"), ("C12", "reproduced", "artefact")]
    assert second["changes"] == [("C2", "reproduced", "in part")] and same["changes"] == []


def test_stored_stages_are_of_runs_that_are_stored():
    stored = prolonged.stages()
    assert stored
    today = {run.name: run.config["epochs"] for run in find_runs() if run.seed == 0}
    for one in stored:
        assert all(epochs < today[name] for name, epochs in zip(one["runs"], one["epochs"], strict=True))
        assert len(one["verdicts"]) == 22 and set(one["left"]) == set(one["runs"])
