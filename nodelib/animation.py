"""Animated GIFs of states, at native size: one pixel per entry of the state, few grey levels, a clock.

The page enlarges them without smoothing. So a film of 300 frames takes tens to a few hundred kilobytes, and
equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SCALINGS = ("frame", "fixed")
LEVELS = 16
GAP = 1  # pixels between tiles
GLYPH_HEIGHT, GLYPH_WIDTH = 5, 3

# three by five pixels each, rows from top to bottom
_FONT = {
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 7, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 1, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
    ".": (0, 0, 0, 0, 2), "t": (2, 7, 2, 2, 3), " ": (0, 0, 0, 0, 0), "-": (0, 0, 7, 0, 0), "=": (0, 7, 0, 7, 0),
}


def tile(states: Tensor, columns: int | None = None, fill: float = float("nan")) -> np.ndarray:
    """Lay the channels of every state side by side, row after row, with a gap of one pixel.

    Args:
        states: shape (T, C, H, W).
        columns: tiles per row; by default the square root of C, rounded up.
        fill: value of the gaps and of tiles left over.

    Returns:
        float64, shape (T, rows (H + 1) - 1, columns (W + 1) - 1).
    """
    if states.ndim != 4:
        raise ValueError(f"states have shape {tuple(states.shape)}; expected (T, C, H, W), the states of one image")
    values = states.detach().cpu().double().numpy()
    steps, channels, height, width = values.shape
    columns = columns or int(np.ceil(np.sqrt(channels)))
    rows = -(-channels // columns)
    canvas = np.full((steps, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), fill)
    for c in range(channels):
        top, left = (c // columns) * (height + GAP), (c % columns) * (width + GAP)
        canvas[:, top:top + height, left:left + width] = values[:, c]
    return canvas


def grey(tiles: np.ndarray, scaling: str = "frame", levels: int = LEVELS) -> np.ndarray:
    """Grey values 0 to 255 in few levels; gaps (NaN) become black.

    Args:
        tiles: shape (T, H, W), of `tile`.
        scaling: "frame" maps each frame's own least and greatest value to black and white, as the post's
            films do: a state that only grows looks constant. "fixed" maps those of the whole film: growth is
            seen, and early frames look grey.
        levels: grey levels, 2 to 256.

    Returns:
        uint8, shape of tiles.

    Raises:
        ValueError: unknown scaling, levels out of range, or an infinite value.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling is {scaling!r}; it must be 'frame' or 'fixed'")
    if not 2 <= levels <= 256:
        raise ValueError(f"levels is {levels}; it must be from 2 to 256")
    if np.isinf(tiles).any():
        raise ValueError("a state is infinite; nothing can be drawn")
    axes = (1, 2) if scaling == "frame" else None
    low, high = np.nanmin(tiles, axis=axes, keepdims=True), np.nanmax(tiles, axis=axes, keepdims=True)
    # rounded first: 1e-16 more or less must not change a level, or films would differ between machines
    unit = np.round((tiles - low) / np.where(high > low, high - low, 1.0), 6)
    steps = np.floor(np.nan_to_num(unit) * levels).clip(0, levels - 1)
    return np.round(steps * 255 / (levels - 1)).astype(np.uint8)


def clock(text: str, width: int) -> np.ndarray:
    """A line of text in three-by-five pixel letters, white on black, uint8, shape (7, width).

    Args:
        text: digits, ".", "t", "=", "-" and spaces.
        width: pixels; at least 4 per character.

    Raises:
        ValueError: a character without a letter, or too little width.
    """
    if unknown := sorted(set(text) - set(_FONT)):
        raise ValueError(f"no letters for {unknown}; the clock knows {''.join(_FONT)!r}")
    if 4 * len(text) > width + 1:
        raise ValueError(f"{text!r} needs {4 * len(text) - 1} pixels; the film is {width} wide")
    line = np.zeros((GLYPH_HEIGHT + 2, width), dtype=np.uint8)
    for k, letter in enumerate(text):
        for row, bits in enumerate(_FONT[letter]):
            for column in range(GLYPH_WIDTH):
                if bits >> (GLYPH_WIDTH - 1 - column) & 1:
                    line[1 + row, 4 * k + column] = 255
    return line


def film(states: Tensor, times: Sequence[float], channels: Sequence[int] | None = None, scaling: str = "frame",
         levels: int = LEVELS) -> np.ndarray:
    """Frames of one image's state with a clock below: uint8, shape (T, H, W).

    Args:
        states: shape (T, C, H, W); times: the T end times shown by the clock.
        channels: which channels to show; by default all.
        scaling, levels: see `grey`.
    """
    if len(states) != len(times):
        raise ValueError(f"{len(states)} states for {len(times)} times; there must be one per time")
    chosen = states if channels is None else states[:, list(channels)]
    frames = grey(tile(chosen), scaling, levels)
    return np.concatenate([frames, clocks(times, frames.shape[2])], axis=1)


def clocks(times: Sequence[float], width: int) -> np.ndarray:
    """One `clock` line per time, all with the same number of decimals: uint8, shape (T, 7, width)."""
    decimals = 1 if max(times) < 100 else 0
    return np.stack([clock(f"t={t:.{decimals}f}", width) for t in times])


def side_by_side(*films: np.ndarray, gap: int = 4) -> np.ndarray:
    """Films of equal length and height next to each other, with a black gap."""
    shapes = {f.shape[:2] for f in films}
    if len(shapes) > 1:
        raise ValueError(f"films have lengths and heights {sorted(shapes)}; they must be equal")
    space = np.zeros((*films[0].shape[:2], gap), dtype=np.uint8)
    parts = [part for f in films for part in (f, space)]
    return np.concatenate(parts[:-1], axis=2)


def gif(frames: np.ndarray, seconds: float = 12.0) -> bytes:
    """The film as an endless GIF, the same bytes for the same frames.

    Args:
        frames: uint8, shape (T, H, W).
        seconds: length of the film; a frame lasts at least 2/100 s, which browsers respect.
    """
    import imageio.v3 as iio

    if frames.dtype != np.uint8 or frames.ndim != 3:
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 (T, H, W)")
    milliseconds = max(20, 10 * round(100 * seconds / len(frames)))
    return iio.imwrite("<bytes>", list(frames), extension=".gif", plugin="pillow", duration=milliseconds, loop=0,
                       optimize=True)


def sample_times(end: float, frames: int, first: float = 0.0) -> list[float]:
    """Equally spaced times from `first` to `end`, the end included."""
    return torch.linspace(first, end, frames, dtype=torch.float64).tolist()
