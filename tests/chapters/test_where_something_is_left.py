"""Worst cases below epsilon 0.3: the right records, at the right end time, drawn where they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from nodelib.chapters import where_something_is_left


def stub(name: str, *records: tuple[str, float, float, int, float]) -> SimpleNamespace:
    """A run to t = 10 with records of (attack, end time, epsilon, images, accuracy)."""
    return SimpleNamespace(name=name, path=Path(f"{name}-seed0"), config={"test_t1": 10.0}, metrics=[
        dict(id=f"{attack}-{k}", attack=attack, t1=t1, epsilon=epsilon, n=n, accuracy=share, low=share,
             high=share)
        for k, (attack, t1, epsilon, n, share) in enumerate(records)])


def test_the_worst_case_on_most_images_at_the_own_end_time_is_taken():
    run = stub("small-10", ("worst", 10.0, 0.2, 100, 0.0), ("worst", 10.0, 0.1, 1000, 0.2),
               ("worst", 10.0, 0.1, 100, 0.5), ("worst", 100.0, 0.1, 2000, 0.7),
               ("pgd", 10.0, 0.05, 5000, 0.9))
    data = where_something_is_left.worst_cases([run])
    assert data[["epsilon", "accuracy", "n", "id"]].values.tolist() == [
        [0.1, 20.0, 1000, "worst-1"], [0.2, 0.0, 100, "worst-0"]]


def test_every_run_is_a_line_and_a_control_is_dashed():
    rows = [stub(name, ("worst", 10.0, 0.1, 100, 0.5), ("worst", 10.0, 0.5, 100, 0.0))
            for name in ("small-100", "small-100-unscaled")]
    (axis,) = where_something_is_left.accuracy_against_epsilon(where_something_is_left.worst_cases(rows)).axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[0.1, 50.0]]] * 2
    assert [line.is_dashed() for line in axis.lines] == [False, True]
    assert where_something_is_left.accuracy_against_epsilon(where_something_is_left.worst_cases([])).axes
