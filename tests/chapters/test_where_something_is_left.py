"""What is left up to epsilon 0.3: the right records and weights, at the right end time, drawn as they are."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nodelib.chapters import where_something_is_left
from nodelib.experiment.contract import LADDER_EPSILONS


def stub(name: str, *records: tuple[str, float, float, int, float], seed: int = 0, epochs: int = 6,
         smallest: tuple[float, ...] = ()) -> SimpleNamespace:
    """A run to t = 10 with records of (attack, end time, epsilon, images, accuracy), and with a ladder that
    breaks each image at one of `smallest`, where any are given.
    """
    metrics = [dict(id=f"{attack}-{k}", attack=attack, t1=t1, epsilon=epsilon, n=n, accuracy=share)
               for k, (attack, t1, epsilon, n, share) in enumerate(records)]
    outcomes = {f"ladder-{epsilon:g}": np.array(smallest) > epsilon + 1e-9 for epsilon in LADDER_EPSILONS}
    if smallest:
        metrics += [dict(id=key, attack="worst", t1=10.0, epsilon=epsilon, n=len(smallest), clip=True,
                         pooling="fixed", accuracy=outcomes[key].mean())
                    for epsilon, key in zip(LADDER_EPSILONS, outcomes)]
    return SimpleNamespace(name=name, seed=seed, path=Path(f"{name}-seed{seed}"), metrics=metrics, earlier=[],
                           config={"test_t1": 10.0, "epochs": epochs}, outcomes=outcomes.__getitem__)


def test_the_worst_case_on_most_images_at_the_own_end_time_is_taken():
    run = stub("small-10", ("worst", 10.0, 0.2, 100, 0.0), ("worst", 10.0, 0.1, 1000, 0.2),
               ("worst", 10.0, 0.1, 100, 0.5), ("worst", 100.0, 0.1, 2000, 0.7),
               ("pgd", 10.0, 0.05, 5000, 0.9), smallest=(0.05,) * 3000)
    data = where_something_is_left.worst_cases([run])
    assert data[["epsilon", "accuracy", "n", "id"]].values.tolist() == [
        [0.1, 20.0, 1000, "worst-1"], [0.2, 0.0, 100, "worst-0"]]


def test_weights_by_the_posts_recipe_are_compared_after_equal_epochs_and_others_at_their_end():
    row, post, unfit = stub("small-10"), stub("small-10-post", epochs=100), stub("small-10-tight")
    twelve, four = stub("small-10-post", epochs=12), stub("small-10-post", epochs=4)
    post.earlier, row.earlier = [four, twelve], [stub("small-10", epochs=12)]
    assert where_something_is_left.compared(iter((post, unfit, row))) == [row, twelve]


WEAKER = [("worst", 10.0, epsilon, 100, share) for epsilon, share in
          ((0.02, 0.8), (0.05, 0.5), (0.1, 0.2), (0.15, 0.0), (0.2, 0.0))]


def test_the_ladder_tells_what_is_left_and_other_attacks_only_of_networks_without_it():
    runs = [stub("small-10", *WEAKER, smallest=(0.02, 0.1, 0.1, 0.4)), stub("small-10", *WEAKER, seed=1),
            stub("large-10", *WEAKER), stub("large-100", *WEAKER[1:]), stub("small-100")]
    assert {key: found.tolist() for key, found in where_something_is_left.ladders(runs).items()} == {
        ("small-10", 0): [0.02, 0.1, 0.1, 0.4]}
    data = where_something_is_left.left_frame(runs)
    assert [(name, part["seed"].tolist(), part["ladder"].all())
            for name, part in data.groupby("network", sort=False)] == [
        ("small-10", [0] * 6, True), ("large-10", [0] * 5, False)]
    assert data["accuracy"].tolist() == [75, 75, 25, 25, 25, 25, 80, 50, 20, 0, 0]
    assert data["n"].tolist() == [4] * 6 + [100] * 5


def test_the_ladders_check_counts_what_stronger_attacks_break_of_what_it_left():
    run = stub("small-10", smallest=(0.05, 0.15, 0.2, 0.3, 0.15, 0.15))  # all but the first are left at 0.1
    bits = {"check-square-eps0.1-t10": [True, False, True, True],
            "check-fab-t-eps0.1-t10": [False, True, True, False], "check-apgd-t-eps0.1-t10": [True] * 4,
            "check-square-eps0.1-t100": [False] * 4}
    run.metrics += [dict(id=key, attack="square", t1=100.0 if key.endswith("t100") else 10.0, epsilon=0.1)
                    for key in bits]
    before = run.outcomes
    run.outcomes = lambda key: np.array(bits[key]) if key in bits else before(key)
    others = stub("small-100", smallest=(0.3,)), stub("large-10", *WEAKER)
    half = stub("small-random", smallest=(0.3,))  # of three attacks one was made
    half.metrics.append(dict(id="check-square-eps0.1-t10", attack="square", t1=10.0, epsilon=0.1))
    half.outcomes = run.outcomes
    assert where_something_is_left.ladders([half])
    found = where_something_is_left.checked([run, *others, half])
    assert found.to_dict("records") == [dict(network="small-10", seed=0, n=4, ladder=3, after=1)]


def test_the_mean_smallest_epsilon_is_the_area_under_what_is_left():
    run, short, bare = stub("small-10", *WEAKER), stub("small-100", *WEAKER[1:]), stub("large-10", *WEAKER)
    same, other = stub("small-100", smallest=(0.1, 0.05)), stub("small-100", epochs=3, smallest=(0.2, 0.2))
    short.earlier = [other, same]
    for each in (run, short, bare):
        each.metric = lambda name: {"none-t10": {"accuracy": 0.9}}[name]
        each.measurements = [dict(name=name, statistic=statistic, value=value, n=7,
                                  settings={"low": 0.03, "high": 0.05})
                             for name in ("local_robustness", "margin") for statistic, value
                             in (("q10", 0.01), ("median", 0.04))]
    bare.measurements = []
    data = where_something_is_left.local_frame([run, short, bare])
    assert data["network"].tolist() == ["small-10", "small-100"]
    assert data.loc[0, ["n", "clean", "local_robustness", "low", "high"]].tolist() == [7, 90, .04, .03, .05]
    # a tenth falls at 0, a tenth at 0.02, three tenths at 0.05, as many at 0.1, and two at 0.15
    assert data["weaker"].tolist() == pytest.approx([0.002 + 0.015 + 0.03 + 0.03, np.nan], nan_ok=True)
    # by the ladder at weights of as many epochs only
    assert data["ladder"].tolist() == pytest.approx([np.nan, 0.075], nan_ok=True)


def test_a_network_is_a_curve_its_seeds_are_thin_and_without_the_ladder_it_is_dotted():
    runs = [stub("small-100", smallest=(0.02, 0.1)), stub("small-100", smallest=(0.1, 0.1), seed=1),
            stub("small-100-unscaled", smallest=(0.02, 0.02)), stub("large-100", *WEAKER)]
    draw = where_something_is_left.accuracy_against_epsilon
    small, large = draw(where_something_is_left.left_frame(runs), {
        "small": ("small-10", "small-100", "small-100-unscaled"), "large": ("large-100",)}).axes
    mean, first, second, control = small.lines
    assert [line.get_ydata()[0] for line in small.lines] == [75, 50, 100, 0]
    assert [line.get_label() for line in (mean, control)] == ["small-100", "small-100-unscaled"]
    assert first.get_linewidth() == second.get_linewidth() < mean.get_linewidth()
    assert [line.is_dashed() for line in (mean, control, *large.lines)] == [False, True, True]
    assert [line.get_markerfacecolor() for line in large.lines] == ["white"] != [mean.get_markerfacecolor()]
    assert large.lines[0].get_xydata().tolist() == [[0, 80], [1, 50], [2, 20], [3, 0], [4, 0]]
    assert [label.get_text() for label in large.get_xticklabels()] == [f"{e:g}" for e in LADDER_EPSILONS]
    assert len(draw(where_something_is_left.left_frame([])).axes) == len(where_something_is_left.PANELS)


def test_last_weights_that_are_stored_as_earlier_ones_too_are_compared_once():
    config = {"epochs": 12, "test_t1": 100.0}
    earlier = SimpleNamespace(name="small-100-post", seed=0, config=config, metrics=[], earlier=[])
    run = SimpleNamespace(name="small-100-post", seed=0, config=config, metrics=[], earlier=[earlier])
    longer = SimpleNamespace(name="small-100-post", seed=1, config={**config, "epochs": 30}, metrics=[],
                             earlier=[])
    assert where_something_is_left.compared([run, longer]) == [run]


def test_a_mean_smallest_epsilon_is_a_bound_where_images_outlast_the_largest():
    kept = {0.0: 100, 0.02: 100, 0.05: 50, 0.1: 20, 0.15: 10, 0.2: 0}
    mean, bound = where_something_is_left.mean_smallest(kept)
    assert (mean, bound) == (pytest.approx(0.02 + 0.03 + 0.025 + 0.01 + 0.005), False)
    mean, bound = where_something_is_left.mean_smallest({**kept, 0.2: 10, 0.3: 5})
    assert (mean, bound) == (pytest.approx(0.09 + 0.01), True)
    assert where_something_is_left.mean_smallest({**kept, 0.2: 10})[1]
    assert np.isnan(where_something_is_left.mean_smallest({0.0: 100})[0])
