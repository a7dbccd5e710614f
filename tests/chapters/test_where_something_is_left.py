"""Worst cases below epsilon 0.3: the right records, at the right end time, drawn where they are."""

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


def test_the_mean_smallest_epsilon_is_the_area_under_what_is_left():
    rows = [("worst", 10.0, epsilon, 100, share) for epsilon, share in
            ((0.02, 0.8), (0.05, 0.5), (0.1, 0.2), (0.15, 0.0), (0.2, 0.0))]
    run, short, bare = stub("small-10", *rows), stub("small-100", *rows[1:]), stub("large-10", *rows)
    for each in (run, short, bare):
        each.seed, each.metric = 0, lambda name: {"none-t10": {"accuracy": 0.9}}[name]
        each.measurements = [dict(name=name, statistic=statistic, value=value, n=7,
                                  settings={"low": 0.03, "high": 0.05})
                             for name in ("local_robustness", "margin") for statistic, value
                             in (("q10", 0.01), ("median", 0.04))]
    bare.measurements = []
    data = where_something_is_left.local_frame([run, short, bare])
    assert data["network"].tolist() == ["small-10", "small-100"]
    assert data.loc[0, ["n", "clean", "local_robustness", "low", "high"]].tolist() == [7, 90, .04, .03, .05]
    # a tenth falls at 0, a tenth at 0.02, three tenths at 0.05, as many at 0.1, and two at 0.15
    assert abs(data.loc[0, "smallest"] - (0.002 + 0.015 + 0.03 + 0.03)) < 1e-12
    assert data["smallest"].isna().tolist() == [False, True]


def test_every_run_is_a_line_and_a_control_is_dashed():
    rows = [stub(name, ("worst", 10.0, 0.1, 100, 0.5), ("worst", 10.0, 0.5, 100, 0.0))
            for name in ("small-100", "small-100-unscaled")]
    (axis,) = where_something_is_left.accuracy_against_epsilon(where_something_is_left.worst_cases(rows)).axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[0.1, 50.0]]] * 2
    assert [line.is_dashed() for line in axis.lines] == [False, True]
    assert where_something_is_left.accuracy_against_epsilon(where_something_is_left.worst_cases([])).axes
