"""The measurements of a network's states are those the rules of the ledger ask for."""

from __future__ import annotations

import pytest
import torch

from nodelib import artifacts, claims
from nodelib.claims.contract import STATE_MEASUREMENTS
from nodelib.claims.evidence import Evidence
from nodelib.claims.ledger import CLAIMS
from nodelib.claims.verdict import UNDECIDED, judge
from nodelib.dynamics import measure
from nodelib.evaluation import test_subset

JUDGED_BY_STATES = ("C13", "C16", "C17", "C18", "C20", "C21")


@pytest.fixture(scope="module")
def records(tiny_run):
    images, labels = test_subset(60)
    return measure.measure(tiny_run.load_model(), images, labels, attack_t1=1.0, ray_images=30, krylov=10, max_steps=2,
                           lyapunov_images=2, log_time=1.0)


def test_every_measurement_is_a_record_of_the_contract(records):
    for r in records:
        assert set(r) == {"name", "t1", "label", "images", "statistic", "value", "n", "settings"}
        assert r["name"] in claims.MEASUREMENTS and r["n"] > 0
        assert isinstance(r["value"], float) and r["value"] == r["value"]
    keys = [(r["name"], r["t1"], r["label"], r["images"], r["statistic"], str(r["settings"])) for r in records]
    assert len(keys) == len(set(keys))
    assert {r["name"] for r in records} == set(STATE_MEASUREMENTS)


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


def test_measuring_a_stored_run_writes_its_file_and_keeps_what_others_measured(tiny_run, tmp_path, monkeypatch):
    import shutil

    folder = tmp_path / "small-10-seed0"
    shutil.copytree(tiny_run.path, folder)
    foreign = {"name": "logit_scale", "t1": 1.0, "label": "all", "images": "clean", "statistic": "median", "value": 2.0,
               "n": 4, "settings": {}}
    artifacts.write_json(folder / "measurements.json", [foreign])
    monkeypatch.setattr(measure, "measure", lambda *a, **k: [measure.record("norm", 3.0, n=2, t1=1.0)])
    measure.measure_run(folder, count=2)
    measure.measure_run(folder, count=2)
    stored = artifacts.load_run(folder).measurements
    assert [r["name"] for r in stored] == ["logit_scale", "norm"]


def test_images_on_a_common_equilibrium_count_as_one_attractor_per_class():
    """A network whose leaky dynamics pull every state to a constant: one equilibrium, and it attracts."""
    from nodelib.models import ODENet

    torch.manual_seed(0)
    model = ODENet(16, 7, leaky=True).eval()
    with torch.no_grad():  # the first normalisation gives a constant: f is the pattern that its zero padding makes
        model.block.func.norm0.weight.fill_(1e-9)
        model.block.func.norm0.bias.fill_(1.0)
    images, labels = test_subset(40)
    found = measure.attractors(model, images, labels, lyapunov_images=2, log_time=1.0, krylov=10, max_steps=3)
    values = {(r["name"], r["label"]): r["value"] for r in found}
    assert values["on_a_ray", "all"] == 1.0
    assert all(values["attractors", str(d)] == 1.0 for d in range(10))
    assert all(values["ray_residual", str(d)] < 1e-6 and values["ray_eigenvalue", str(d)] < 1e-3 for d in range(10))
    assert values["lyapunov_exponent", "all"] == pytest.approx(-1.0, abs=0.05)  # d v / d s = -v
