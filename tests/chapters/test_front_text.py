from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from nodelib.chapters import front_text, state_records


def test_settled_and_turning_networks_are_told_apart():
    frame = pd.DataFrame({"run": ["a", "a", "b", "c"], "turning": [100.0, math.inf, 200.0, math.inf]})
    said = front_text.directions(frame)
    assert "in 1 of 3 networks. a and c still turn." in said
    assert "c still turns." in front_text.directions(frame[2:])
    assert front_text.directions(frame[2:3]) == "By t = 1000 it has all but stopped turning in each of 1 networks."
    assert front_text.directions(frame[:0]) == "That is not measured yet."


def test_rest_is_told_by_the_worst_seed(monkeypatch):
    frames = pd.DataFrame({"run": ["a", "a", "b"], "on_a_ray": [1.0, 0.95, 0.1]})
    monkeypatch.setattr(state_records, "ray_frame", lambda runs: frames)
    assert "at least 90 % of the images come to rest on a ray in a; in b they do not." in front_text.rest([])
    frames.loc[1, "on_a_ray"] = 0.2
    assert front_text.rest([]).endswith("they come to rest in no network.")
    monkeypatch.setattr(state_records, "ray_frame", lambda runs: frames[:0])
    assert front_text.rest([]) == "No network's states have been followed to their end yet."


@pytest.mark.parametrize("share, on_a_ray, says", [
    (0.98, 1.0, "in a; in b as many do later still."), (0.5, 1.0, "in a; in b they do not."),
    (0.98, 0.1, "they come to rest in no network by then, and later still at least 90 % of the images in b; in a they do not.")])
def test_rest_that_comes_later_still_is_told(monkeypatch, share, on_a_ray, says):
    runs = [SimpleNamespace(name=name, seed=0, config={"leaky": False}) for name in "ab"]
    monkeypatch.setattr(state_records, "ray_frame", lambda runs: pd.DataFrame({"run": ["a", "b"], "on_a_ray": [on_a_ray, 0.1]}))
    monkeypatch.setattr(state_records, "far_frame", lambda runs: pd.DataFrame(
        {"run": ["b", "b"], "seed": [0, 0], "log_time": [80.0, 10.0], "share": [share, 0.1]}))
    assert front_text.rest(runs).endswith(says)
