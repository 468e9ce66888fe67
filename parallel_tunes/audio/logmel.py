"""The log-mel spectrogram: the same numbers as librosa's melspectrogram and power_to_db."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import fused
from parallel_tunes.audio.decode import Samples
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.lanes import LANES

BLOCK = 512  # frames at a time: what lies between the steps stays in the cache


def log_mel(
    waveform: Samples,
    *,
    sample_rate_hz: int,
    n_fft: int = 2048,
    hop_length: int = 512,
    num_mels: int = 128,
    fmin_hz: float = 0.0,
    fmax_hz: float | None = None,
    mel_scale: str = "slaney",
    top_db: float | None = 80.0,
) -> NDArray[np.float32]:
    """Mel power spectrogram in decibels relative to full scale.

    Powers of two from 1024 are transformed by a compiled kernel, any other `n_fft` by scipy in float64. Both agree with
    librosa to 1e-3 dB wherever a level lies within 80 dB of its frame's highest.

    Args:
        waveform: shape (num_samples,), float32, nominally within ±1; or int16.
        sample_rate_hz, n_fft, hop_length, num_mels, fmin_hz, fmax_hz, mel_scale, top_db: as for `LogMel`.

    Returns:
        Shape (num_mels, num_frames), float32, dB; num_frames = 1 + num_samples // hop_length.

    Raises:
        ValueError: the waveform has another shape or type.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
        >>> log_mel(tone, sample_rate_hz=22050).shape
        (128, 44)
    """
    definition = LogMel(
        sample_rate_hz=sample_rate_hz, n_fft=n_fft, hop_length=hop_length, num_mels=num_mels,
        fmin_hz=fmin_hz, fmax_hz=fmax_hz, mel_scale=mel_scale, top_db=top_db,
    )  # fmt: skip
    samples: Any = np.ascontiguousarray(waveform)
    if samples.ndim != 1 or samples.dtype not in (np.float32, np.int16):
        raise ValueError(
            f"waveform: {samples.dtype} of shape {samples.shape}, expected float32 or int16, (num_samples,)"
        )
    levels = np.empty((num_mels, definition.num_frames(samples.size)), np.float32)
    highest = _analyse(samples, -(n_fft // 2), definition, 1.0, levels)
    if top_db is not None:
        np.maximum(levels, np.float32(highest) - np.float32(top_db), out=levels)
    return levels


class Spectrogram:
    """The log-mel spectrogram of a clip that comes in blocks, float16 and a row a frame, as shards hold it.

    Args:
        num_samples: length of the clip, with the silence it is padded with.
        gain: factor on the samples.
    """

    def __init__(self, definition: LogMel, num_samples: int, *, gain: float = 1.0) -> None:
        self.definition, self.gain = definition, gain
        self.frames = np.empty((definition.num_frames(num_samples), definition.num_mels), np.float16)
        self._done = 0  # frames
        self._tail: Samples | None = None
        self._start = -(definition.n_fft // 2)  # of the next frame, within the samples at hand
        self.highest = -np.inf  # level, dB

    def feed(self, samples: Samples, *, is_last: bool) -> None:
        """Take the next samples, shape (num,), float32 or int16; after the last ones come zeros."""
        at_hand = samples if self._tail is None else np.concatenate([self._tail, samples])
        n_fft, hop = self.definition.n_fft, self.definition.hop_length
        ready = max((at_hand.size - n_fft - self._start) // hop + 1, 0)
        left = len(self.frames) - self._done
        # whole groups of the kernel's, so that blocks change nothing
        last = self._done + (left if is_last else min(ready // BLOCK * BLOCK, left))
        while self._done < last:
            num = min(BLOCK, last - self._done)
            levels = np.empty((self.definition.num_mels, num), np.float32)
            self.highest = _analyse(at_hand, self._start, self.definition, self.gain, levels, highest=self.highest)
            fused.to_halves(levels, self.frames[self._done : self._done + num].view(np.uint16), LANES)
            self._done += num
            self._start += num * hop
        keep = min(max(self._start, 0), at_hand.size)
        self._tail = at_hand[keep:].copy() if not is_last else None
        self._start -= keep

    def finish(self) -> tuple[float, float]:
        """Floor the levels at `top_db` below the highest; the sum of all values and of their squares."""
        top_db = self.definition.top_db
        floor = np.float32(-np.inf) if top_db is None else np.float32(self.highest) - np.float32(top_db)
        total: tuple[float, float] = fused.floor_halves(self.frames.view(np.uint16).reshape(-1), floor, LANES)
        return total


def is_fusible(definition: LogMel) -> bool:
    """Return True if the fused kernel supports this frame length: a power of two, and long enough to be exact."""
    n_fft = definition.n_fft
    return n_fft >= fused.SHORTEST and n_fft & (n_fft - 1) == 0


def _analyse(
    samples: Samples,
    start: int,
    definition: LogMel,
    gain: float,
    levels: NDArray[np.float32],
    *,
    highest: float = -np.inf,
) -> float:
    """Fill `levels` with those of the frames that begin at samples[start + f hop]; the highest of them and of those before."""
    scale = gain / 32768 if samples.dtype == np.int16 else gain
    hop, num_frames = definition.hop_length, levels.shape[1]
    doubtful = np.arange(num_frames)
    if is_fusible(definition):
        doubts, gains, tables = np.empty(num_frames, np.bool_), np.float32(scale**2), _tables(definition)
        highest = float(fused.analyse(samples, start, hop, gains, tables, np.float32(highest), levels, doubts, LANES))
        doubtful = np.flatnonzero(doubts)
    for first in range(0, doubtful.size, BLOCK):
        frames = doubtful[first : first + BLOCK]
        levels[:, frames] = _analyse_exactly(samples, start + frames * hop, definition, scale)
    return max(highest, float(levels.max())) if doubtful.size else highest


def _analyse_exactly(samples: Samples, starts: NDArray[Any], definition: LogMel, scale: float) -> NDArray[np.float64]:
    """Levels of the frames that begin at `starts`, in float64, shape (num_mels, num_frames)."""
    import scipy.fft  # not needed by most

    frames = np.zeros((len(starts), definition.n_fft), samples.dtype)
    for frame, start in zip(frames, starts.tolist(), strict=True):
        there = samples[max(start, 0) : max(start + definition.n_fft, 0)]
        frame[max(-start, 0) :][: there.size] = there
    spectra = scipy.fft.rfft(frames * (definition.window * scale), axis=1)
    power = spectra.real**2 + spectra.imag**2
    mel: NDArray[np.float64] = _sparse_filters(definition) @ np.ascontiguousarray(power.T)
    return 10 * np.log10(np.maximum(mel, 1e-10))


@functools.lru_cache(maxsize=8)
def _tables(definition: LogMel) -> tuple[NDArray[Any], ...]:
    tables: tuple[NDArray[Any], ...] = fused.make_tables(definition.window, definition.filters)
    return tables


@functools.lru_cache(maxsize=8)
def _sparse_filters(definition: LogMel) -> Any:
    """The filters without their zeros: a product that, unlike BLAS's, adds in one order on any number of threads."""
    import scipy.sparse

    return scipy.sparse.csr_array(definition.filters)
