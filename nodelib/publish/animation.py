"""Animated GIFs of states, at native size: one pixel per entry of the state, few grey levels, a clock.

The page enlarges them without smoothing. So a film of 300 frames takes tens to a few hundred kilobytes, and
equal input gives equal bytes.
"""

import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

SCALINGS = ("frame", "fixed")
LEVELS = 17  # odd, so that zero on a fixed scale is one level and not the edge between two
FIXED = 0.97  # share of a film's entries inside its fixed scale: the largest few would leave the others grey
GAP = 1  # pixels between tiles
GLYPH_HEIGHT, GLYPH_WIDTH = 5, 3

# three by five pixels each, rows from top to bottom
_FONT = {
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 1, 2, 2), "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
    ".": (0, 0, 0, 0, 2), "t": (2, 7, 2, 2, 3), " ": (0, 0, 0, 0, 0), "-": (0, 0, 7, 0, 0),
    "=": (0, 7, 0, 7, 0),
    "A": (2, 5, 7, 5, 5), "D": (6, 5, 5, 5, 6), "S": (7, 4, 7, 1, 7), "T": (7, 2, 2, 2, 2),
    "V": (5, 5, 5, 5, 2),
}

# the class colours of maps: distinct in hue or in lightness on black; the digit drawn says the same
CLASS_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167),
                 (86, 180, 233), (240, 228, 66), (170, 170, 170), (190, 120, 255), (255, 160, 150))


def tile(states: Tensor) -> np.ndarray:
    """Lay the channels of every state side by side, row after row, with a gap of one pixel.

    Args:
        states: shape (T, C, H, W).

    Returns:
        float64, shape (T, rows (H + 1) - 1, columns (W + 1) - 1), NaN in the gaps and in tiles left over;
        columns is the square root of C, rounded up.
    """
    if states.ndim != 4:
        raise ValueError(f"states have shape {tuple(states.shape)}; expected (T, C, H, W), the states of one "
                         "image")
    values = states.detach().cpu().double().numpy()
    steps, channels, height, width = values.shape
    columns = int(np.ceil(np.sqrt(channels)))
    rows = -(-channels // columns)
    canvas = np.full((steps, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), np.nan)
    for c in range(channels):
        top, left = (c // columns) * (height + GAP), (c % columns) * (width + GAP)
        canvas[:, top:top + height, left:left + width] = values[:, c]
    return canvas


def grey(tiles: np.ndarray, scaling: str = "frame", levels: int = LEVELS) -> np.ndarray:
    """Grey values 0 to 255 in few levels; gaps (NaN) become black.

    Args:
        tiles: shape (T, H, W), of `tile`.
        scaling: "frame" maps each frame's own least and greatest value to black and white, as the post's
            films do: a state that only grows looks constant. "fixed" is one scale for the whole film, zero in
            the middle and `FIXED` of the absolute entries inside: growth is seen as growing contrast.
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
    if scaling == "frame":
        low, high = (f(tiles, axis=(1, 2), keepdims=True) for f in (np.nanmin, np.nanmax))
    else:
        high = np.nanquantile(np.abs(tiles), FIXED)
        low = -high
    # rounded first: 1e-16 more or less must not change a level, or films would differ between machines
    unit = np.round((tiles - low) / np.where(high > low, high - low, 1.0), 6)
    steps = np.floor(np.nan_to_num(unit) * levels).clip(0, levels - 1)
    return np.round(steps * 255 / (levels - 1)).astype(np.uint8)


def clock(text: str, width: int) -> np.ndarray:
    """A line of text in three-by-five pixel letters, white on black, uint8, shape (7, width).

    Args:
        text: digits, ".", "t", "=", "-", spaces and the capitals of ADV and STD.
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
        line[1:1 + GLYPH_HEIGHT, 4 * k:4 * k + GLYPH_WIDTH][_glyph(letter)] = 255
    return line


def _glyph(letter: str) -> np.ndarray:
    """The pixels of a letter: bool, shape (5, 3)."""
    return np.array([[bits >> (GLYPH_WIDTH - 1 - column) & 1 for column in range(GLYPH_WIDTH)]
                     for bits in _FONT[letter]], dtype=bool)


def film(states: Tensor, times: Sequence[float], channels: Sequence[int] | None = None,
         scaling: str = "frame", levels: int = LEVELS, title: str = "") -> np.ndarray:
    """Frames of one image's state with a clock below: uint8, shape (T, H, W).

    Args:
        states: shape (T, C, H, W); times: the T end times shown by the clock.
        channels: which channels to show; by default all.
        scaling, levels: see `grey`.
        title: a line of letters above, see `clock`; none by default.
    """
    if len(states) != len(times):
        raise ValueError(f"{len(states)} states for {len(times)} times; there must be one per time")
    chosen = states if channels is None else states[:, list(channels)]
    frames = grey(tile(chosen), scaling, levels)
    return np.concatenate([*_titles(title, frames), frames, clocks(times, frames.shape[2])], axis=1)


def _titles(title: str, frames: np.ndarray) -> list[np.ndarray]:
    """The line above every frame, as a list to put before them; an empty one without a title."""
    return [np.repeat(clock(title, frames.shape[2])[None], len(frames), 0)] if title else []


def clocks(times: Sequence[float], width: int) -> np.ndarray:
    """One `clock` line per time: uint8, shape (T, 7, width).

    All with the same number of decimals; where the times are not equally spaced, below 10 with one decimal.
    """
    even = np.allclose(np.diff(times), (times[-1] - times[0]) / max(1, len(times) - 1))
    decimals = lambda t: (1 if max(times) < 100 else 0) if even else (1 if t < 9.95 else 0)  # noqa: E731
    return np.stack([clock(f"t={t:.{decimals(t)}f}", width) for t in times])


def moving_map(points: np.ndarray, labels: Sequence[int], times: Sequence[float], size: int = 150,
               trail: int = 6, title: str = "") -> np.ndarray:
    """Points moving in a plane, each drawn as the digit of its class in the colour of its class, on black.

    Args:
        points: shape (T, N, 2); one scale serves the whole film, the origin in the middle.
        labels: N classes, 0 to 9; times: the T end times shown by the clock.
        size: width and height of the map in pixels.
        trail: how many frames back each point leaves a single darker pixel.
        title: see `film`.

    Returns:
        uint8, shape (T, H, W, 3).
    """
    if points.shape[:2] != (len(times), len(labels)) or points.shape[2:] != (2,):
        raise ValueError(f"points have shape {points.shape}; expected ({len(times)}, {len(labels)}, 2): "
                         "times, labels, 2")
    margin = GLYPH_HEIGHT
    extent = np.abs(points).max() or 1.0
    # rounded first, for the reason given in `grey`; the second coordinate points up
    pixel = np.round(np.round(points / extent, 6) * [1, -1] * (size / 2 - margin) + size / 2).astype(int)
    frames = np.zeros((len(times), size, size, 3), dtype=np.uint8)
    colours = np.array(CLASS_COLOURS, dtype=np.uint8)
    for k, frame in enumerate(frames):
        for before in pixel[max(0, k - trail):k]:
            frame[before[:, 1], before[:, 0]] = colours[list(labels)] // 2
        for (x, y), label in zip(pixel[k], labels):
            corner = frame[y - 2:y + 3, x - 1:x + 2]
            corner[_glyph(str(int(label)))] = colours[int(label)]
    lines = [*_titles(title, frames), clocks(times, size)]
    *above, below = (np.repeat(line[..., None], 3, axis=3) for line in lines)
    return np.concatenate([*above, frames, below], axis=1)


def side_by_side(*films: np.ndarray, gap: int = 4) -> np.ndarray:
    """Films of equal length and height next to each other, with a black gap."""
    return _joined(films, gap, 2, "heights")


def stacked(*films: np.ndarray, gap: int = 4) -> np.ndarray:
    """Films of equal length and width one above the other, with a black gap."""
    return _joined(films, gap, 1, "widths")


def _joined(films: Sequence[np.ndarray], gap: int, axis: int, other: str) -> np.ndarray:
    """Films along an axis, 1 or 2, with a gap; the other size must be equal, and the length."""
    shapes = {(len(f), f.shape[3 - axis]) for f in films}
    if len(shapes) > 1:
        raise ValueError(f"films have lengths and {other} {sorted(shapes)}; they must be equal")
    shape = list(films[0].shape)
    shape[axis] = gap
    parts = [part for f in films for part in (f, np.zeros(shape, dtype=np.uint8))]
    return np.concatenate(parts[:-1], axis=axis)


def gif(frames: np.ndarray) -> bytes:
    """The film as an endless GIF of twelve seconds, the same bytes for the same frames.

    Args:
        frames: uint8, shape (T, H, W), or (T, H, W, 3) in colour; each lasts at least 2/100 s, which
            browsers respect.
    """
    import imageio.v3 as iio

    if frames.dtype != np.uint8 or not (frames.ndim == 3 or frames.ndim == 4 and frames.shape[3] == 3):
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}; expected uint8 (T, H, W) or "
                         "(T, H, W, 3)")
    milliseconds = max(20, 10 * round(1200 / len(frames)))
    return iio.imwrite("<bytes>", list(frames), extension=".gif", plugin="pillow", duration=milliseconds,
                       loop=0, optimize=True)


def sample_times(end: float, frames: int) -> list[float]:
    """Equally spaced times from 0 to `end`, the end included."""
    return torch.linspace(0.0, end, frames, dtype=torch.float64).tolist()


def sheet_times(end: float, frames: int) -> list[float]:
    """About `frames` times from 0 to `end` for a film that can be played in time and in log time."""
    even = sample_times(end, frames // 2)
    return sorted({*even, *np.geomspace(min(0.1, end / 10), end, frames // 2)[:-1].tolist()})


def sheet(films: Mapping[str, np.ndarray], times: Sequence[float], columns: int = 20) -> bytes:
    """Films in step as one PNG, which the page's player (`book/live/film.js`) cuts into frames.

    Args:
        films: title -> grey frames without a clock, uint8, all of one shape (T, H, W), in the order of
            reading.
        times: the T times, ascending, of which the player shows a clock.
        columns: frames in a row.

    Returns:
        PNG: frame after frame in rows, the films one below the other, each in ceil(T / columns) rows; the
        text chunk "film" holds JSON: titles, times, width, height, columns.
    """
    shapes = {frames.shape for frames in films.values()}
    if len(shapes) != 1 or len(times) != (shape := shapes.pop())[0]:
        raise ValueError(f"films have shapes {[frames.shape for frames in films.values()]} for {len(times)} "
                         "times; they must be equal, one frame per time")
    count, height, width = shape
    rows = -(-count // columns)
    canvas = np.zeros((len(films), rows * columns, height, width), dtype=np.uint8)
    canvas[:, :count] = list(films.values())
    canvas = canvas.reshape(len(films) * rows, columns, height, width).swapaxes(1, 2)
    header = dict(titles=list(films), times=_short(times), width=width, height=height, columns=columns)
    return _png(canvas.reshape(len(films) * rows * height, columns * width), header)


def map_sheet(maps: Mapping[str, np.ndarray], images: np.ndarray, labels: Sequence[int],
              times: Sequence[float]) -> bytes:
    """A moving map for the page's player: points, and the images that they are of.

    Args:
        maps: title -> points, shape (T, N, 2), each scaled by its own largest coordinate.
        images: shape (N, H, W) in [0, 1]; labels: N classes; times: the T times, ascending.

    Returns:
        PNG: the N images, one below the other; the text chunk "film" holds JSON: titles, times, width,
        height, labels, colours of the classes, and points: for each map, time and image x and y from -1000 to
        1000.
    """
    points = []
    for title, found in maps.items():
        if found.shape != (len(times), len(labels), 2) or len(images) != len(labels):
            raise ValueError(f"the points of {title!r} have shape {found.shape}; expected ({len(times)}, "
                             f"{len(labels)}, 2): times, labels, 2, and one image for each label")
        points.append(np.round(1000 * found / (np.abs(found).max() or 1.0)).astype(int).tolist())
    header = dict(titles=list(maps), times=_short(times), width=images.shape[2], height=images.shape[1],
                  labels=[int(label) for label in labels], colours=CLASS_COLOURS, points=points)
    return _png(np.round(255 * images).astype(np.uint8).reshape(-1, images.shape[2]), header)


def _short(times: Sequence[float]) -> list[float]:
    return [float(f"{t:.5g}") for t in times]


def _png(pixels: np.ndarray, header: dict) -> bytes:
    """A grey picture that carries a header: the same bytes for the same content."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text, content = PngInfo(), io.BytesIO()
    text.add_text("film", json.dumps(header, separators=(",", ":")), zip=True)
    Image.fromarray(pixels).save(content, "PNG", pnginfo=text, optimize=True)
    return content.getvalue()
