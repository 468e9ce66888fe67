"""The log-mel kernel: from samples to decibels in one compiled pass, n frames side by side in the lanes of a register.

Layout. n = 16, 8 or 4 frames make a group. Row s of `work` holds sample s of all n frames, weighted by the window, so that
every instruction of the transform (`fft`) does the same for n frames and none of them shuffles; only the way in and the
way out transpose n × n blocks. For n_fft = 2048 and n = 16 `work` takes 128 KiB: it stays in the L2 cache, and nothing of
the clip's size is ever written but the result.

Steps of a group. Gather the frames, windowed and pre-emphasised; transform; power of each bin; each band's non-zero
weights alone, added in one order; the logarithm, n at once.

Exactness. float32 throughout, yet within 2e-4 dB of float64 on music: the window's rounding is added back, each group is
pre-emphasised as its spectrum tilts (`emphasise`), and frames are reported in which rounding may still blur a band
(`find_doubt`), such as those in which a pure tone begins or ends: they can be done again in float64, which keeps all within 1e-3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio.blocks import gather_frames, raise_halves, round_block
from parallel_tunes.audio.fft import compiled, find_power, make_passes, transform
from parallel_tunes.lanes import add_lanes, load, log2, maximum, splat, store

EMPHASES = (-0.6, 0.0, 0.6, 0.8)
SHORTEST = 1024  # n_fft; below, float32 is not exact enough for a pure tone's floor
LEAST_POWER = np.float32(1e-10)
DECIBELS = np.float32(10 * np.log10(2))  # an octave of power
RANGE_DB = np.float32(80)  # below the highest level so far, levels are to be exact
BLUR_DB = 55.0  # the rounding of a whole spectrum blurs bins that lie further below it by up to 8e-4 dB
Floats = NDArray[np.float32]


@compiled
def find_level(power: Any, first: Any, num: Any, weights: Any, at: Any, gain: Any, lanes: Any) -> Any:
    """One mel band of one group of frames, dB: `num` bins from `first` on, weights from `at` on, and a gain of power."""
    total = splat(np.float32(0), lanes)
    for k in range(num):
        total = total + load(power, (first + k) * len(lanes), lanes) * splat(weights[at + k], lanes)
    return to_decibels(total, gain, lanes)


@compiled
def to_decibels(power: Any, gain: Any, lanes: Any) -> Any:
    """Power in dB, with a gain."""
    return log2(maximum(power * splat(gain, lanes), splat(LEAST_POWER, lanes))) * splat(DECIBELS, lanes)


@compiled
def find_doubt(levels: Any, num_bands: Any, whole: Any, limits: Any, least: Any, lanes: Any) -> Any:
    """Of each frame, whether a level above `least` is lower than float32 is exact: then something above 0.

    Args:
        levels: of a group, shape (num_bands * n,), dB; `whole` those of the emphasised spectra as a whole.
        limits: of each band, dB relative to `whole`.
    """
    none = splat(np.float32(0), lanes)
    doubt = none
    for band in range(num_bands):
        level = load(levels, band * len(lanes), lanes)
        over = maximum(least - level, level - whole - splat(limits[band], lanes))
        doubt = maximum(doubt, none - over)
    return doubt


@compiled
def choose_emphasis(samples: Any, at: Any, num: Any, lanes: Any) -> Any:
    """Which of `EMPHASES` flattens these samples best, by the correlation of neighbours in a quarter of them."""
    n = len(lanes)
    together, power = splat(np.float32(0), lanes), splat(np.float32(1e-20), lanes)
    for place in range(at, at + num - n, 4 * n):
        here = load(samples, place, lanes)
        together = together + here * load(samples, place + 1, lanes)
        power = power + here * here
    correlation = add_lanes(together) / add_lanes(power)
    return 1 + (correlation > 0.7) + (correlation > 0.9) - (correlation < -0.7)


@compiled
def gather_group(samples: Any, at: Any, hop: Any, windows: Any, work: Any, lanes: Any) -> Any:
    """Bring the frames of a group, from sample `at` on, side by side into `work`; the emphasis they were given."""
    n, n_fft = len(lanes), windows.shape[1]
    emphasis = choose_emphasis(samples, at, (n - 1) * hop + n_fft, lanes)
    carry = np.empty(n, np.float32)
    # the last rows first, for what the first row wants from before it: frames are circles to the FFT
    gather_frames(samples, at + n_fft - n, hop, windows[emphasis], n_fft - n, work, carry, lanes)
    for row in range(0, n_fft, n):
        gather_frames(samples, at + row, hop, windows[emphasis], row, work, carry, lanes)
    return emphasis


@compiled
def read_frames(samples: Any, at: Any, hop: Any, windows: Any, edge: Any, work: Any, lanes: Any) -> Any:
    """`gather_group`, with zeros where there are no samples: `edge` holds those that there are."""
    span = edge.size
    if at >= 0 and at + span <= samples.size:
        return gather_group(samples, at, hop, windows, work, lanes)
    edge[:] = 0
    for place in range(min(max(-at, 0), span), min(max(samples.size - at, 0), span)):
        edge[place] = samples[at + place]
    return gather_group(edge, 0, hop, windows, work, lanes)


@compiled
def analyse(
    samples: Any, start: Any, hop: Any, gain: Any, tables: Any, highest: Any, out: Any, doubts: Any, lanes: Any
) -> Any:
    """Levels of the frames samples[start + f hop : start + f hop + n_fft], zeros where there are no samples.

    Args:
        samples: shape (num_samples,), float32 or int16.
        start: may be negative, for frames that begin before the samples.
        gain: float32, factor on the power of samples.
        tables: of `make_tables`.
        out: shape (num_mels, num_frames), float32: the levels, dB.
        highest: of the frames before, dB.
        doubts: shape (num_frames,), bool: frames whose levels are less exact than they should be.

    Returns:
        The highest level, of those before too.
    """
    windows, radices, starts, twiddles, order, untwist, bands, weights, limits = tables
    n, num, num_bands = len(lanes), windows.shape[1] // 2, bands.shape[0]
    num_frames = out.shape[1]
    work, power = np.empty(2 * num * n, np.float32), np.empty((num + 1) * n, np.float32)
    edge = np.empty((n - 1) * hop + 2 * num, samples.dtype)
    levels, scratch = np.empty(num_bands * n, np.float32), np.empty(n, np.float32)
    for group in range(0, num_frames, n):
        emphasis = read_frames(samples, start + group * hop, hop, windows, edge, work, lanes)
        transform(work, num, radices, starts, twiddles, lanes)
        whole = to_decibels(find_power(work, num, order, untwist, power, lanes), gain, lanes)
        top = splat(np.float32(-np.inf), lanes)
        for band in range(num_bands):
            level = find_level(power, bands[band, 0], bands[band, 1], weights[emphasis], bands[band, 2], gain, lanes)
            store(levels, band * n, level)
            top = maximum(top, level)
        store(scratch, 0, top)
        highest = max(highest, scratch[: num_frames - group].max())
        least = maximum(top, splat(highest, lanes)) - splat(RANGE_DB, lanes)
        store(scratch, 0, find_doubt(levels, num_bands, whole, limits[emphasis], least, lanes))
        for frame in range(min(n, num_frames - group)):
            doubts[group + frame] = scratch[frame] > 0
        for band in range(num_bands):
            if group + n <= num_frames:
                store(out, band * num_frames + group, load(levels, band * n, lanes))
            else:
                for frame in range(num_frames - group):
                    out[band, group + frame] = levels[band * n + frame]
    return highest


@compiled
def to_halves(levels: Any, halves: Any, lanes: Any) -> None:
    """Transpose levels, shape (num_mels, num_frames), into float16, shape (num_frames, num_mels); uint16 holds the bits."""
    n = len(lanes)
    num_mels, num_frames = levels.shape
    tile, rounded = np.zeros(n * n, np.float32), np.empty(n * n, np.uint16)
    for band in range(0, num_mels, n):
        for frame in range(0, num_frames, n):
            if band + n <= num_mels and frame + n <= num_frames:
                round_block(
                    levels, band * num_frames + frame, num_frames, halves, frame * num_mels + band, num_mels, lanes
                )
            else:
                for i in range(min(n, num_mels - band)):
                    for f in range(min(n, num_frames - frame)):
                        tile[i * n + f] = levels[band + i, frame + f]
                round_block(tile, 0, n, rounded, 0, n, lanes)
                for f in range(min(n, num_frames - frame)):
                    for i in range(min(n, num_mels - band)):
                        halves[frame + f, band + i] = rounded[f * n + i]


@compiled
def floor_halves(halves: Any, floor: Any, lanes: Any) -> tuple[float, float]:
    """Raise float16 values, shape (num,), uint16 their bits, to `floor`; their sum, and the sum of their squares."""
    n, total, squares = len(lanes), 0.0, 0.0
    whole = halves.size // n * n
    for at in range(0, whole, n):
        found = raise_halves(halves, at, floor, lanes)
        total, squares = total + found[0], squares + found[1]
    for at in range(whole, halves.size):
        found = raise_halves(halves, at, floor, (0,))
        total, squares = total + found[0], squares + found[1]
    return total, squares


def emphasise(window: NDArray[np.float64]) -> Floats:
    """Weights of each sample of a frame and of the one before it, each with what rounding leaves of it, shape (4, n_fft, 4).

    Pre-emphasis, y[i] = x[i] - e x[i-1], of the windowed frame: music has 60 dB more bass than treble, whose levels the
    rounding of the bass would otherwise blur. The filters of `make_tables` take it back exactly. All is halved, as
    `find_power` wants it.
    """
    exact = np.stack([[window, -emphasis * np.roll(window, 1)] for emphasis in EMPHASES]) * 0.5
    rounded = exact.astype(np.float32)
    rest = (exact - rounded).astype(np.float32)
    return np.ascontiguousarray(np.stack([rounded[:, 0], rest[:, 0], rounded[:, 1], rest[:, 1]], axis=2))


def make_tables(window: NDArray[np.float64], filters: Floats) -> tuple[NDArray[Any], ...]:
    """What `analyse` looks up: windows, those of the transform, the mel bands, their weights and limits under each emphasis.

    Args:
        window: shape (n_fft,); n_fft is a power of two, at least `SHORTEST`.
        filters: shape (num_mels, n_fft // 2 + 1).
    """
    n_fft = len(window)
    turned = np.exp(-2j * np.pi * np.arange(n_fft // 2 + 1) / n_fft)
    gains = np.abs(1 - np.outer(EMPHASES, turned)) ** 2  # of each emphasis in each bin
    bands, weights, at = [], [], 0
    for row in filters:
        bins = np.flatnonzero(row)
        first, last = (bins[0], bins[-1] + 1) if len(bins) else (0, 0)
        bands.append((first, last - first, at))
        weights.append(row[first:last] / gains[:, first:last])
        at += last - first
    areas = filters.sum(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # empty bands are never in doubt
        mean_gains = gains @ filters.T / areas  # of each emphasis in each band
        limits = np.where(areas > 0, 10 * np.log10(areas / mean_gains * 2 / n_fft) - BLUR_DB, -np.inf)
    return (
        emphasise(window),
        *make_passes(n_fft),
        np.array(bands),
        np.ascontiguousarray(np.concatenate(weights, axis=1), np.float32),
        np.ascontiguousarray(limits, np.float32),
    )
