"""From colours back to numbers: which of matplotlib's maps a picture was drawn with, and where on its curve a pixel lies."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
# from black to bright; a reversed map has the same curve, so that colours alone cannot tell it
NAMES = ("magma", "inferno", "plasma", "viridis", "cividis", "grey")
NUM_COLOURS = 256  # of a map
BITS = 6  # of each channel, in the table of nearest colours
MOST_PIXELS = 512  # that a map is recognised by
# JPEG keeps colour coarser than brightness, by which alone all these maps could nearly be read: with this weight the
# error of pictures of quality 95 to 60 is 0.6 to 0.3 dB lower than by the plain distance between colours
CHROMA = 0.3
# colours as JPEG has them, brightness and two differences (ITU-T T.871), times how much they count
WEIGHTS: Floats = np.asarray(
    np.array([[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]]) * [1, CHROMA, CHROMA],
    np.float32,
)


@functools.cache
def read_curve(name: str, is_drawn: bool = True) -> Floats:
    """The colours of a map as they are drawn, or before they are rounded; red, green, blue to 255, shape (256, 3)."""
    import matplotlib

    colours = matplotlib.colormaps["gray" if name == "grey" else name](np.arange(NUM_COLOURS), bytes=is_drawn)
    return np.asarray(colours[:, :3] * (1 if is_drawn else 255), np.float32)


def recognise(pixels: Pixels) -> tuple[str, float]:
    """The map whose curve the pixels lie nearest to, and their mean distance from it, in steps of 8-bit colour.

    Args:
        pixels: red, green and blue, shape (…, 3).
    """
    flat = pixels.reshape(-1, 3)
    some = flat[:: max(len(flat) // MOST_PIXELS, 1)]
    distances = {name: float(_tree(name).query(some)[0].mean()) for name in NAMES}
    best = min(NAMES, key=lambda name: distances[name])
    return best, distances[best]


def invert(pixels: Pixels, name: str) -> Floats:
    """Where on a map's curve each pixel lies, from 0 to 1: at its foot on the tangent of the nearest colour.

    Args:
        pixels: red, green and blue, shape (…, 3).

    Returns:
        Shape (…).
    """
    nearest, slopes, offsets = _tabulate(name)
    flat = pixels.reshape(-1, 3)
    red, green, blue = (flat[:, channel].astype(np.int32) >> (8 - BITS) for channel in range(3))
    at = nearest[(red << 2 * BITS) | (green << BITS) | blue]
    beyond = (flat * slopes[at]).sum(1) - offsets[at]
    place = (at + np.clip(beyond, -4, 4)) / (NUM_COLOURS - 1)  # a tangent is good for a few steps only
    return np.asarray(np.clip(place, 0, 1), np.float32).reshape(pixels.shape[:-1])


@functools.cache
def _tabulate(name: str) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """The nearest colour of a map to each cell of the cube of all; and of each colour, how many steps along the curve a
    pixel lies: pixel · slopes[colour] - offsets[colour]."""
    curve = read_curve(name) @ WEIGHTS
    width = 1 << (8 - BITS)
    centres = np.arange(1 << BITS, dtype=np.float32) * width + (width - 1) / 2
    cells = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(-1, 3)
    nearest = _plant(curve).query(cells @ WEIGHTS)[1].astype(np.uint8)
    steps = np.gradient(read_curve(name, is_drawn=False) @ WEIGHTS, axis=0)
    slopes = steps / np.square(steps).sum(1, keepdims=True)
    offsets = (curve * slopes).sum(1)
    return nearest, np.asarray(slopes @ WEIGHTS.T, np.float32), np.asarray(offsets, np.float32)


@functools.cache
def _tree(name: str) -> Any:
    return _plant(read_curve(name))


def _plant(curve: Floats) -> Any:
    """A tree in which the nearest colour of a curve is found."""
    from scipy.spatial import cKDTree  # engines that read audio do without

    return cKDTree(curve)
