"""The figure style: fixed colours, honest blanks, and the same bytes for the same drawing."""

import itertools

import matplotlib
import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from nodelib.experiment import configs
from nodelib.publish import page, style


def test_every_named_run_has_a_colour_a_dash_and_a_marker():
    assert set(style.RUNS) == set(style.DASHES) == set(style.MARKERS) == set(configs.NAMES)


def test_no_two_runs_look_the_same():
    looks = [(style.colour(name), style.DASHES[name], style.MARKERS[name]) for name in configs.NAMES]
    assert len(set(looks)) == len(looks)


def test_the_main_runs_have_colours_that_differ_in_grey_or_in_hue():
    names = configs.ROWS + configs.PAIR
    for a, b in itertools.combinations(names, 2):
        first, second = (np.array(matplotlib.colors.to_rgb(style.colour(name))) for name in (a, b))
        assert np.abs(first - second).max() > 0.15, (a, b)


def test_an_unknown_run_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="small-11.*small-10, "):
        style.colour("small-11")


def test_the_style_ends_with_its_context():
    before = matplotlib.rcParams["axes.grid"]
    with style.style():
        assert matplotlib.rcParams["axes.grid"] is True
    assert matplotlib.rcParams["axes.grid"] == before


def test_the_training_history_keeps_the_mean_of_every_column(tiny_run):
    data = style.history_frame(tiny_run, bins=3)
    loss = data[data["quantity"] == "loss"]
    assert loss["value"].mean() == pytest.approx(tiny_run.history["loss"].mean())
    assert (loss["low"] <= loss["value"]).all() and (loss["value"] <= loss["high"]).all()
    labels = [axis.get_ylabel() for axis in style.training_history(tiny_run).axes]
    assert labels == ["training loss", "training accuracy", "evaluations per step (NFE)"]


def test_lines_show_the_mean_over_seeds_in_the_methods_colour():
    data = pd.DataFrame({"t1": [1, 1, 10, 10], "error": [1.0, 3.0, 4.0, 6.0], "method": "adjoint"})
    figure = style.lines(data, "t1", "error", "method", log="x")
    line = figure.axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 2], [10, 5]]
    assert line.get_color() == style.METHODS["adjoint"]


def test_the_same_figure_is_saved_as_the_same_bytes(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("NODELIB_FIGURES", str(tmp_path))
    for name in ("one.svg", "two.svg"):
        page.save_figure(style.training_history(tiny_run), name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("values, said", [
    ([26.0], "26"), ([1.234, 1.234], "1.23"), ([94.26, 97.1], "94.3 to 97.1"), ([1000, 200], "200 to 1,000"),
    ([12.0, 12.8], "12.0 to 12.8"), ([0, 1.7], "0.0 to 1.7"), ([5, 12], "5 to 12"),
    ([94.1, 100], "94.1 to 100"), ([0, 0.0123], "0 to 0.0123"), ([1e-9, 3], "1e-09 to 3")])
def test_spans_are_one_number_or_two(values, said):
    assert page.span(values) == said


def test_sweeps_over_end_times_have_a_panel_for_every_test_and_size():
    import pandas as pd

    from nodelib.chapters.is_it_robustness import end_time_sweeps

    rows = [dict(network=name, seed=seed, test=test, t1=t1, accuracy=50.0, low=40.0, high=60.0, n=10)
            for name, seed in (("small-10", 0), ("small-10", 1), ("large-100", 0))
            for test in ("clean", "FGSM") for t1 in (1.0, 10.0)]
    axes = end_time_sweeps(pd.DataFrame(rows)).axes
    assert [axis.get_title() for axis in axes] == [
        "small, clean", "large, clean", "small, FGSM", "large, FGSM"]
    assert [len(axis.lines) for axis in axes] == [3, 2, 3, 2]  # a line per seed, and chance
    assert end_time_sweeps(pd.DataFrame(rows)[:0]).axes


def test_a_picture_has_no_ground_and_words_that_are_read_on_black_and_on_white(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("NODELIB_FIGURES", str(tmp_path))
    with style.style():
        figure, (axis,) = style.panels(1)
        axis.set(xlabel="time", ylabel="norm", title="A state")
        page.save_figure(figure, "a-picture.png")
    pixels = np.asarray(image.open(tmp_path / "a-picture.png").convert("RGBA"))
    height, width = pixels.shape[:2]
    assert pixels[0, 0, 3] == 0  # around the axes
    assert pixels[height // 2 + 7, width // 2 + 7, 3] == 0  # and in them
    drawn = pixels[pixels[..., 3] == 255]
    assert drawn[:, :3].min() == int(page.ANY_GROUND[1:3], 16)  # nothing darker


def test_the_grey_for_any_ground_has_contrast_with_white_and_with_the_dark_page():
    level = int(page.ANY_GROUND[1:3], 16) / 255
    luminance = ((level + 0.055) / 1.055) ** 2.4
    dark = ((18 / 255 + 0.055) / 1.055) ** 2.4
    assert min(1.05 / (luminance + 0.05), (luminance + 0.05) / (dark + 0.05)) > 4.2
