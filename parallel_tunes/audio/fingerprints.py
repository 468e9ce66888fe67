"""Which tracks are the same recording: fingerprints of log-mel spectrograms, compared over time shifts and speeds.

After Haitsma & Kalker 2002, "A highly robust audio fingerprinting system": what counts is how a band's level moves against
its own recent mean and against the other bands', which gain, equaliser and codec leave alone. They keep the sign of it; here
it is bent softly (1 dB is halfway to the end of the scale), so that quiet cells weigh nearly as much as loud ones: other
performances of the same notes share the loud ones alone. Two fingerprints are compared by their normalised
cross-correlation, over all shifts at once by the Fourier transform, at several speeds: resampling moves time and pitch
together. Only near neighbours by average spectrum are compared, so that the cost of a track does not grow with their number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.definition import SCALES
from parallel_tunes.config import FeaturesConfig

VERSION = 1  # raised whenever the same tracks would give other pairs
# Planted copies (exact, MP3 of 64 kbit/s, gain, 0.5 s later, 1 % faster or slower) score 0.92 to 1 in 46 real clips, and
# 0.89 to 1 in synthetic ones, but for 3 of 960 of 2 s; different real clips 0.17 at most (1035 pairs), and synthetic tracks
# by one artist, which share drums, tempo and chords, 0.86 (4200 pairs of 5 to 30 s), or 2 of 2400 pairs of 2 s more
THRESHOLD = 0.87
NUM_BANDS = 32
FASTEST_HZ = 43.0  # frames a second that are looked at
FLOOR_DB = 60.0  # below a track's maximum: codecs change what is quieter
MEAN_S = 0.5  # levels are taken against their mean over this long
SMOOTH_S = 0.07  # so that it matters little where between two frames a copy begins
KNEE_DB = 1.0
FLATTEST = 0.1  # of the scale: what moves less has nothing to be told by
SHIFT_S = 2.0  # most that a copy begins earlier or later
OVERLAP = 0.5  # share of the shorter track that must lie within the other
SPEEDS = tuple(percent / 100 for percent in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5))
NUM_NEIGHBOURS = 16  # compared at a time, and more for as long as copies are among them
CACHE_BYTES = 1 << 29
BLOCK = 256  # tracks whose neighbours are looked for at a time

Levels = NDArray[np.float32]
Print = NDArray[np.int8]


class Pair(NamedTuple):
    """Two tracks that are the same recording: rows, score from 0 to 1, how much later the other begins, how much slower it plays."""

    row: int
    other: int
    score: float
    shift_s: float
    speed: float


class Printer:
    """Makes fingerprints of spectrograms of one front end."""

    def __init__(self, features: FeaturesConfig) -> None:
        rate_hz, num_mels = front_end.frames_per_s(features), features.num_mels
        is_picture = features.kind == "picture"
        self.pool = max(round(rate_hz / FASTEST_HZ), 1)
        self.rate_hz = rate_hz / self.pool
        # frames that reach beyond the ends of a clip are all alike
        self.margin = 1 if is_picture else 2 + features.n_fft // (2 * features.hop_length)
        to_mel, to_hz = SCALES[features.mel_scale]
        low, high = to_mel(np.array([features.fmin_hz, features.fmax_hz or features.sample_rate_hz / 2]))
        step = (high - low) / (num_mels + 1)
        edges = np.linspace(0, num_mels, min(NUM_BANDS, num_mels) + 1)  # of the bands, in mel bands
        hz = to_hz(low + step * (edges + 0.5))
        self.bands = {speed: _pooling((to_mel(hz / (1 + speed)) - low) / step - 0.5, num_mels) for speed in SPEEDS}

    def trim(self, levels: Levels) -> Levels:
        """The part of a spectrogram, shape (num_mels, num_frames), dB, that is compared, shape (num_frames, num_mels)."""
        frames = np.maximum(levels.T, levels.max() - np.float32(FLOOR_DB))
        heard = np.flatnonzero(frames.max(1) > frames.min())  # silence before and after it is not the recording's
        first, last = (heard[0], heard[-1] + 1) if heard.size else (0, 0)
        frames = frames[first + self.margin : max(last - self.margin, 0)]
        num = len(frames) // self.pool
        return np.asarray(frames[: num * self.pool].reshape(num, self.pool, frames.shape[1]).mean(1), np.float32)

    def summarise(self, levels: Levels) -> NDArray[np.float32]:
        """A track's average spectrum and how much each band moves, quickly and slowly, dB: copies lie near each other."""
        bands = self.trim(levels) @ self.bands[0.0]
        if len(bands) < 2:
            return np.zeros(3 * bands.shape[1], np.float32)
        slow = max(round(self.rate_hz / 10), 1)
        num = max(len(bands) // slow, 1)
        slowly = bands[: num * slow].reshape(num, -1, bands.shape[1]).mean(1)
        mean = bands.mean(0)
        return np.concatenate([mean - mean.mean(), bands.std(0), slowly.std(0)])

    def take(self, levels: Levels) -> Print:
        """The fingerprint of a track, shape (num_bands, num_frames)."""
        return self._bend(self.trim(levels) @ self.bands[0.0])

    def take_at_speeds(self, levels: Levels) -> list[Print]:
        """Its fingerprints were it played at each of `SPEEDS`."""
        frames = self.trim(levels)
        return [self._bend(_stretch(frames, speed) @ self.bands[speed]) for speed in SPEEDS]

    def _bend(self, bands: Levels) -> Print:
        from scipy.ndimage import uniform_filter1d

        if not len(bands):
            return np.zeros((bands.shape[1], 1), np.int8)
        smooth = uniform_filter1d(bands, max(round(SMOOTH_S * self.rate_hz), 2), axis=0, mode="nearest")
        moves = smooth - uniform_filter1d(
            smooth, 2 * max(round(MEAN_S * self.rate_hz / 2), 1) + 1, axis=0, mode="nearest"
        )
        moves -= moves.mean(1, keepdims=True)
        return np.asarray(np.rint(127 * moves / np.sqrt(np.square(moves) + KNEE_DB**2)).T, np.int8)


def _pooling(edges: NDArray[np.float64], num_mels: int) -> NDArray[np.float32]:
    """The matrix, (num_mels, num_bands), that averages mel bands between neighbouring edges, given in mel bands."""
    below = np.clip(edges[:, None] - np.arange(num_mels), 0, 1)
    shares = np.diff(below, axis=0)
    return np.asarray((shares / np.maximum(shares.sum(1, keepdims=True), 1e-6)).T, np.float32)


def _stretch(frames: Levels, speed: float) -> Levels:
    """Frames as if played faster by `speed`."""
    if len(frames) < 2 or not speed:
        return frames
    at = np.arange(int((len(frames) - 1) / (1 + speed)) + 1) * (1 + speed)
    before = np.minimum(at.astype(np.int64), len(frames) - 2)
    share = (at - before).astype(np.float32)[:, None]
    return np.asarray(frames[before] * (1 - share) + frames[before + 1] * share, np.float32)


def compare(speeds: list[Print], others: list[Print], rate_hz: float) -> list[tuple[float, float, float]]:
    """The score of a track, given at each of `SPEEDS`, with each of others; the shift, seconds, and the speed where it is highest.

    The score is the normalised cross-correlation of what both have of each other: 1 for the same, about 0 for what is unrelated.
    """
    import scipy.fft

    num, num_others = (np.array([each.shape[1] for each in prints]) for prints in (speeds, others))
    most = round(SHIFT_S * rate_hz)
    length = scipy.fft.next_fast_len(int(max(num.max(), num_others.max())) + most + 1, real=True)
    mine, theirs = _stack(speeds, length), _stack(others, length)
    spectra = [np.ascontiguousarray(scipy.fft.rfft(each, axis=2).transpose(2, 0, 1)) for each in (mine, theirs)]
    products = scipy.fft.irfft(spectra[0].conj() @ spectra[1].transpose(0, 2, 1), length, axis=0)
    shifts = np.arange(-most, most + 1)
    first = np.broadcast_to(np.maximum(0, -shifts)[:, None, None], (len(shifts), len(num), len(num_others)))
    last = np.minimum(num[:, None], num_others - shifts[:, None, None])
    shared = last - first
    enough = shared >= np.maximum(OVERLAP * np.minimum(num[:, None], num_others), rate_hz / 2)
    last, later = np.maximum(last, first), shifts[:, None, None]
    here, there = np.arange(len(num))[None, :, None], np.arange(len(num_others))[None, None]
    energies, others_energies = _sum_energies(mine), _sum_energies(theirs)
    flattest = (127 * FLATTEST) ** 2 * mine.shape[1] * np.maximum(shared, 1)
    energy = np.maximum(energies[here, last] - energies[here, first], flattest)
    energy = energy * np.maximum(others_energies[there, last + later] - others_energies[there, first + later], flattest)
    scores = np.where(enough, products[shifts] / np.sqrt(energy), -1).transpose(2, 0, 1)
    best = scores.reshape(len(others), -1).argmax(1)
    return [
        (float(score.flat[at]), float(shifts[at // len(num)] / rate_hz), SPEEDS[at % len(num)])
        for score, at in zip(scores, best.tolist(), strict=True)
    ]


def _stack(prints: list[Print], length: int) -> NDArray[np.float32]:
    stacked = np.zeros((len(prints), len(prints[0]), length), np.float32)
    for place, each in zip(stacked, prints, strict=True):
        place[:, : each.shape[1]] = each
    return stacked


def _sum_energies(stacked: NDArray[np.float32]) -> NDArray[np.float64]:
    """Energy before each frame, and after the last, shape (num, length + 1)."""
    energies = np.square(stacked).sum(1, dtype=np.float64)
    return np.pad(np.cumsum(energies, axis=1), ((0, 0), (1, 0)))


def find_pairs(
    sides: NDArray[np.int64],
    read: Callable[[int], Levels],
    printer: Printer,
    advance: Callable[[int], object],
    *,
    lowest: float = THRESHOLD,
    hashes: NDArray[np.object_] | None = None,
) -> list[Pair]:
    """Tracks of different sides that are the same recording.

    Args:
        sides: of each track; -1 for those that are not looked at. Each track is compared with its nearest of lower sides.
        read: gives the spectrogram of a row, shape (num_mels, num_frames), dB.
        advance: is told of each track that was looked at, and again of each of higher sides than the lowest.
        lowest: score of what is found.
        hashes: rows of equal ones are known to be the same, and not compared.
    """
    rows = np.flatnonzero(sides >= 0)
    if len(set(sides[rows].tolist())) < 2:
        return []
    summaries = list[NDArray[np.float32]]()
    for row in rows.tolist():
        summaries.append(printer.summarise(read(row)))
        advance(1)
    known, found = _Prints(read, printer), list[Pair]()
    for row, neighbours in _neighbours(np.stack(summaries), rows, sides):
        if hashes is not None:
            neighbours = neighbours[hashes[neighbours] != hashes[row]]
        speeds = printer.take_at_speeds(read(row))
        for at in range(0, len(neighbours), NUM_NEIGHBOURS):
            others = neighbours[at : at + NUM_NEIGHBOURS].tolist()
            compared = zip(others, compare(speeds, [known.of(other) for other in others], printer.rate_hz), strict=True)
            alike = [Pair(row, other, *scored) for other, scored in compared if scored[0] >= lowest]
            found += alike
            if not any(pair.score >= THRESHOLD for pair in alike):
                break
        advance(1)
    return found


def _neighbours(
    summaries: NDArray[np.float32], rows: NDArray[np.int64], sides: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row above the lowest side, with those of lower sides, nearest first."""
    norms, mine = np.square(summaries).sum(1), sides[rows]
    above = np.flatnonzero(mine > mine.min())
    for at in range(0, len(above), BLOCK):
        some = above[at : at + BLOCK]
        distances = norms - 2 * (summaries[some] @ summaries.T)
        for place, distance in zip(some.tolist(), distances, strict=True):
            below = np.flatnonzero(mine < mine[place])
            yield int(rows[place]), rows[below[np.argsort(distance[below], kind="stable")]]


class _Prints:
    """The fingerprints of tracks, those asked for last kept in memory."""

    def __init__(self, read: Callable[[int], Levels], printer: Printer) -> None:
        self._read, self._printer, self._num_bytes = read, printer, 0
        self._kept: OrderedDict[int, Print] = OrderedDict()

    def of(self, row: int) -> Print:
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        taken = self._kept[row] = np.ascontiguousarray(self._printer.take(self._read(row)))
        self._num_bytes += taken.nbytes
        while self._num_bytes > CACHE_BYTES and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes
        return taken
