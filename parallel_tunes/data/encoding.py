"""How a rendered track becomes a file: its stereo image, and the format it is written in."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from parallel_tunes.schema import UserError

Samples = NDArray[np.float32]
CEILING = 0.99  # no sample of a stereo track is beyond it: a clipped channel would spoil the mono mix
_NUM_TAPS = 8  # reflections that make the side signal
_BASS_HZ = 250  # what lies below stays in the middle, as in any mix
_WIDEST = 0.5  # the side signal's level is at most this share of the middle's
_IMAGE = 0x57E0  # keeps the draws of images apart from those of artists and tracks
_BLOCK = 1 << 14  # libsndfile's Vorbis encoder takes a whole block on the stack, and crashes on large ones


class Format(NamedTuple):
    """A file format as libsndfile names it, and the sampling rates it has, Hz; none stated: any."""

    container: str
    subtype: str
    rates_hz: tuple[int, ...] = ()


FORMATS = {
    "wav": Format("WAV", "PCM_16"),
    "au": Format("AU", "PCM_16"),
    "flac": Format("FLAC", "PCM_16"),
    "ogg": Format("OGG", "VORBIS"),
    "mp3": Format("MP3", "MPEG_LAYER_III", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)),
    "opus": Format("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000)),
}


def check_rate(name: str, sample_rate_hz: int) -> None:
    """Whether a format has a sampling rate, Hz.

    Raises:
        UserError: it has not; with the nearest rate that it has, the higher where there is one.
    """
    rates_hz = FORMATS[name].rates_hz
    if name == "flac" and sample_rate_hz > 65535 and sample_rate_hz % 10:
        # a frame's header holds the rate in 16 bits, in Hz or in tens of Hz
        known, nearest_hz = "whole tens above 65535 Hz only", sample_rate_hz - sample_rate_hz % -10
    elif rates_hz and sample_rate_hz not in rates_hz:
        known = ", ".join(map(str, rates_hz[:-1])) + f" and {rates_hz[-1]} Hz only"
        nearest_hz = min((rate_hz for rate_hz in rates_hz if rate_hz > sample_rate_hz), default=rates_hz[-1])
    else:
        return
    raise UserError(
        f"sample_rate_hz={sample_rate_hz}: {name} has {known}; give sample_rate_hz={nearest_hz}, or another format"
    )


def widen(mono: Samples, artist: tuple[int, ...], sample_rate_hz: int) -> Samples:
    """A mono track as stereo, in the room of its artist: the mean of both channels is the mono track.

    What one channel has more than the other is a few early reflections of the track without its bass. All tracks of
    one artist have the same reflections.

    Args:
        mono: shape (num_samples,), float32 within ±`CEILING`.
        artist: numbers that name the artist: seed, genre, artist.
        sample_rate_hz: sampling rate, Hz.

    Returns:
        Left and right, shape (num_samples, 2), float32 within ±`CEILING`.
    """
    rng = np.random.default_rng([*artist, 0, _IMAGE])
    delays_s, signs = rng.uniform(0.001, 0.015, _NUM_TAPS), rng.choice((-1.0, 1.0), _NUM_TAPS)
    gains = signs * np.exp(-delays_s / 0.006)
    gains *= rng.uniform(0.25, 0.6) / np.sqrt(np.sum(gains**2))
    bright = _without_bass(mono, sample_rate_hz)
    side = np.zeros_like(mono)
    for delay_s, gain in zip(delays_s, gains, strict=True):
        delay = min(1 + int(delay_s * sample_rate_hz), mono.size)
        side[delay:] += np.float32(gain) * bright[: mono.size - delay]
    side *= min(1.0, _WIDEST * float(np.linalg.norm(mono)) / max(float(np.linalg.norm(side)), 1e-9))
    loud = np.abs(mono) + np.abs(side) > CEILING
    if loud.any():
        side *= np.min((CEILING - np.abs(mono[loud])) / np.abs(side[loud]))
    return np.stack([mono + side, mono - side], axis=1)


def _without_bass(mono: Samples, sample_rate_hz: int) -> Samples:
    """A track less its moving average over a period of `_BASS_HZ`."""
    half = max(sample_rate_hz // (2 * _BASS_HZ), 1)
    sums = np.cumsum(np.pad(mono.astype(np.float64), (half + 1, half)))
    return np.asarray(mono - (sums[2 * half + 1 :] - sums[: mono.size]) / (2 * half + 1), np.float32)


def encode(samples: Samples, name: str, sample_rate_hz: int) -> bytes:
    """A track as a whole file, in memory: a disk that fills as libsndfile closes a file goes unsaid.

    The same samples give the same bytes, but for ogg and opus: libsndfile draws their stream's number by the clock.

    Args:
        samples: shape (num_samples,) or (num_samples, 2), float32 within ±1.
        name: one of `FORMATS`.
        sample_rate_hz: sampling rate, Hz; one that `check_rate` lets pass.
    """
    # in a thread: an interrupt, which only the main thread gets, would be lost inside soundfile's callbacks into Python
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_encode, samples, FORMATS[name], sample_rate_hz).result()


def _encode(samples: Samples, form: Format, sample_rate_hz: int) -> bytes:
    channels, file = 1 if samples.ndim == 1 else samples.shape[1], io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate_hz, channels, form.subtype, format=form.container) as sound:
        for start in range(0, len(samples), _BLOCK):
            sound.write(samples[start : start + _BLOCK])
    return file.getvalue()
