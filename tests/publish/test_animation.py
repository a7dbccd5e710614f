"""Films of states: tiles, grey scales, clock, and GIF bytes."""

import io
import json

import numpy as np
import pytest
import torch

from nodelib.publish import animation


def growing(frames=20, channels=9, size=10):
    """A fixed pattern that only grows in scale."""
    pattern = torch.randn(channels, size, size, generator=torch.Generator().manual_seed(0))
    return torch.linspace(1, 100, frames)[:, None, None, None] * pattern


def test_channels_are_tiled_row_by_row_at_native_size():
    states = torch.arange(3.0)[None, :, None, None].expand(2, 3, 4, 5)
    tiles = animation.tile(states)
    assert tiles.shape == (2, 2 * 5 - 1, 2 * 6 - 1)
    assert (tiles[0, :4, :5] == 0).all() and (tiles[0, :4, 6:] == 1).all() and (tiles[0, 5:, :5] == 2).all()
    assert np.isnan(tiles[0, 4]).all() and np.isnan(tiles[0, 5:, 6:]).all()
    with pytest.raises(ValueError, match="one image"):
        animation.tile(torch.zeros(2, 3, 4, 5, 6))


def test_normalising_every_frame_hides_growth_and_a_fixed_scale_shows_it():
    tiles = animation.tile(growing())
    per_frame, fixed = animation.grey(tiles, "frame"), animation.grey(tiles, "fixed")
    assert (per_frame == per_frame[0]).all()
    contrast = [int(f[~np.isnan(t)].max()) - int(f[~np.isnan(t)].min()) for f, t in zip(fixed, tiles)]
    assert contrast[0] < 40 and contrast[-1] == 255 and contrast == sorted(contrast)


def test_on_a_fixed_scale_zero_is_the_middle_and_a_few_large_entries_do_not_grey_the_rest():
    tiles = animation.tile(growing())
    plain = animation.grey(tiles, "fixed")
    tiles[-1, 0, 0], tiles[0, 0, :2] = 1e6, (0.0, 1e-3)
    spiked = animation.grey(tiles, "fixed")
    assert spiked[-1, 0, 0] == 255 and (spiked[0, 0, :2] == 128).all()
    assert np.abs(spiked[-1].astype(int) - plain[-1])[1:].max() <= 16  # one level


def test_grey_uses_the_whole_range_in_the_levels_asked_for():
    values = animation.grey(animation.tile(growing(1)), levels=4)
    assert set(np.unique(values)) == {0, 85, 170, 255}
    constant = animation.grey(np.ones((1, 3, 3)))
    assert (constant == 0).all()


@pytest.mark.parametrize("arguments, message", [
    (dict(scaling="log"), "'frame' or 'fixed'"), (dict(levels=1), "2 to 256")])
def test_grey_refuses_what_it_does_not_know(arguments, message):
    with pytest.raises(ValueError, match=message):
        animation.grey(np.zeros((1, 2, 2)), **arguments)
    with pytest.raises(ValueError, match="infinite"):
        animation.grey(np.full((1, 2, 2), np.inf))


def test_the_clock_draws_different_digits_and_says_what_does_not_fit():
    lines = {digit: animation.clock(f"t={digit}", 16).tobytes() for digit in "0123456789"}
    assert len(set(lines.values())) == 10
    with pytest.raises(ValueError, match="19 pixels"):
        animation.clock("t=100", 10)
    with pytest.raises(ValueError, match="no letters"):
        animation.clock("x", 10)


def test_a_film_carries_its_clock_and_wants_one_time_per_state():
    frames = animation.film(growing(), animation.sample_times(100.0, 20), channels=[0, 1, 2, 3])
    assert frames.shape == (20, 21 + 7, 21) and frames.dtype == np.uint8
    assert (frames[:, :21] == frames[0, :21]).all()   # only growth: the picture stands still
    assert len({f[21:].tobytes() for f in frames}) == 20  # and the clock runs
    with pytest.raises(ValueError, match="one per time"):
        animation.film(growing(), [1.0])


def test_a_gif_has_the_same_bytes_each_time_and_decodes_to_its_frames():
    iio = pytest.importorskip("imageio.v3")
    frames = animation.side_by_side(animation.film(growing(), range(20), scaling="fixed"),
                                    animation.film(growing(), range(20)))
    content = animation.gif(frames)
    assert content == animation.gif(frames.copy())
    decoded = iio.imread(content, extension=".gif", plugin="pillow")
    assert decoded.shape[:3] == frames.shape
    assert np.abs(decoded[..., 0].astype(int) - frames).max() == 0
    assert len(content) < 40_000


def test_films_of_different_length_do_not_stand_side_by_side():
    with pytest.raises(ValueError, match="equal"):
        animation.side_by_side(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        animation.gif(np.zeros((2, 3, 3)))


def test_sample_times_include_both_ends():
    assert animation.sample_times(10.0, 3) == [0.0, 5.0, 10.0]


def test_a_title_stands_above_the_film_and_the_clock_below():
    plain, titled = (animation.film(growing(), range(20), title=title) for title in ("", "ADV 6"))
    assert titled.shape == (20, plain.shape[1] + 7, plain.shape[2])
    assert (titled[:, 7:] == plain).all() and titled[0, :7].any() and (titled[:, :7] == titled[0, :7]).all()


def test_stacked_films_keep_every_pixel():
    a, b = np.full((2, 3, 4), 7, np.uint8), np.full((2, 5, 4), 9, np.uint8)
    both = animation.stacked(a, b, gap=2)
    assert both.shape == (2, 10, 4)
    assert (both[:, :3] == 7).all() and (both[:, 3:5] == 0).all() and (both[:, 5:] == 9).all()
    with pytest.raises(ValueError, match="equal"):
        animation.stacked(a, np.zeros((2, 3, 5), np.uint8))


def test_the_clock_of_unequal_times_shows_tenths_below_ten_only():
    assert (animation.clocks([0.1, 1.0, 10.0, 1000.0], 40) == np.stack(
        [animation.clock(text, 40) for text in ("t=0.1", "t=1.0", "t=10", "t=1000")])).all()


def test_a_map_draws_every_point_as_its_digit_in_its_colour():
    points = np.array([[[-1.0, 0.0], [1.0, 0.5]], [[-1.0, 0.0], [1.0, -0.5]]])
    frames = animation.moving_map(points, [3, 8], [0.0, 1.0], size=60, trail=1)
    assert frames.shape == (2, 67, 60, 3)
    for k, height in enumerate((-0.5, 0.5)):
        for label, x, y in ((3, -1.0, 0.0), (8, 1.0, height)):
            found = np.argwhere((frames[k, :60] == animation.CLASS_COLOURS[label]).all(-1))
            # up on the map is a smaller row
            assert abs(found.mean(0) - (30 + y * 25, 30 + x * 25)).max() <= 1
            assert len(found) == {3: 11, 8: 13}[label]
    dim = np.array(animation.CLASS_COLOURS[8], np.uint8) // 2
    assert not (frames[0, :60] == dim).all(-1).any() and (frames[1, :60] == dim).all(-1).sum() == 1
    with pytest.raises(ValueError, match="times, labels"):
        animation.moving_map(points, [3], [0.0, 1.0])


def test_a_film_in_colour_decodes_to_its_colours():
    iio = pytest.importorskip("imageio.v3")
    points = np.random.default_rng(0).normal(size=(5, 10, 2))
    frames = animation.moving_map(points, range(10), range(5))
    decoded = iio.imread(animation.gif(frames), extension=".gif", plugin="pillow")
    assert np.abs(decoded[..., :3].astype(int) - frames).max() <= 4


def test_a_sheet_holds_every_frame_where_its_header_says():
    image = pytest.importorskip("PIL.Image")
    states = {"a": growing(), "b": -growing()}
    films = {name: animation.grey(animation.tile(part)) for name, part in states.items()}
    content = animation.sheet(films, range(20), columns=6)
    assert content == animation.sheet(dict(films), range(20), columns=6)
    with image.open(io.BytesIO(content)) as sheet:
        header, pixels = json.loads(sheet.text["film"]), np.asarray(sheet)
    height, width = header["height"], header["width"]
    assert header["titles"] == ["a", "b"] and header["times"] == list(range(20))
    for k, frames in enumerate(films.values()):
        for i, frame in enumerate(frames):
            top, left = (4 * k + i // 6) * height, i % 6 * width
            assert (pixels[top:top + height, left:left + width] == frame).all()
    with pytest.raises(ValueError, match="one frame per time"):
        animation.sheet(films, range(19))


def test_times_of_a_sheet_serve_time_and_log_time():
    times = animation.sheet_times(1000.0, 40)
    assert times == sorted(set(times)) and times[0] == 0 and times[-1] == 1000
    assert max(np.diff(times)) < 60  # even steps in time
    assert max(b / a for a, b in zip(times[1:], times[2:])) < 1.7  # and in log time
