"""The leaky controls are held against the networks that they vary, on the same images."""

import dataclasses

import numpy as np
import pytest

from nodelib.chapters import two_controls
from nodelib.experiment.measure_states import record


def test_the_leak_is_held_against_the_same_network_without_it(tiny_run):
    class Stub(type(tiny_run)):
        def outcomes(self, record_id):
            return np.arange(self.metrics[0]["n"]) < self.metrics[0]["correct"]

    def attacked(name, left, n, **config):
        fields = {f.name: getattr(tiny_run, f.name) for f in dataclasses.fields(tiny_run)}
        ends = [
            record("on_a_ray", 0.9, n=20, t1=100.0, statistic="mean"),
            record("distinct_attractors", 1, n=20, t1=100.0, statistic="count"),
        ]
        return Stub(
            **fields
            | {
                "name": name,
                "measurements": ends,
                "config": {**tiny_run.config, "test_t1": 1.0, **config},
                "metrics": [dict(id="pgd10-exact-t1", t1=1.0, n=n, correct=left)],
            }
        )

    leaky, plain = attacked("wide-standard-leaky", 10, 50, leaky=True), attacked("wide-standard", 40, 100)
    (row,) = two_controls.leaky_frame([leaky, plain]).itertuples()
    assert (row.leaky, row.plain, row.n) == (0.2, 0.8, 50) and row.p == pytest.approx(2 * 0.5**30)
    assert (row.on, row.of, row.rays) == (18, 20, 1)
    assert two_controls.leaky_frame([plain]).empty and two_controls.ten_steps(None, 1.0) == {}
