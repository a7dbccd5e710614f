"""Films of states: tiles, grey scales, clock, and GIF bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nodelib import animation


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
    assert contrast[0] < 30 and contrast[-1] == 255 and contrast == sorted(contrast)


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
