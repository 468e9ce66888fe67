"""How a track of the synthetic corpus was recorded: what its artist's tracks share, and what it alone has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Artist:
    """The production fingerprint that all tracks of one artist share."""

    equaliser_db: NDArray[np.float64]  # gains at eight frequencies, spaced by octaves
    noise_db: float
    room_s: float
    room_gain: float
    brightness: float  # exponent on the harmonics' amplitudes
    drum_tuning: float
    drums_db: float
    tempo_at: float  # where in the genre's tempo range this artist feels at home, 0 to 1
    key: int
    comp_at: float  # which of the genre's instruments this artist owns, 0 to 1
    lead_at: float
    mix_db: NDArray[np.float64]  # gains of bass, chords and lead


@dataclass(frozen=True)
class Recording:
    """What one track has of its own: a finer equaliser, another key, another noise floor."""

    equaliser_db: NDArray[np.float64]  # gains at 25 frequencies, spaced by a third of an octave
    semitones: int = 0
    noise_db: float = 0.0


PLAIN = Recording(np.zeros(25))


def draw_artist(rng: np.random.Generator, strength: float = 1.0) -> Artist:
    """An artist; `strength` multiplies the decibels by which its sound differs from others'."""
    return Artist(
        equaliser_db=strength * rng.normal(0, 2.0, 8),
        noise_db=rng.uniform(-75, -42),
        room_s=rng.uniform(0.05, 0.5),
        room_gain=rng.uniform(0.0, 0.35),
        brightness=rng.uniform(0.7, 1.4),
        drum_tuning=2 ** rng.uniform(-0.4, 0.4),
        drums_db=strength * rng.normal(0, 3.0),
        tempo_at=rng.uniform(0, 1),
        key=int(rng.integers(0, 12)),
        comp_at=rng.random(),
        lead_at=rng.random(),
        mix_db=strength * rng.normal(0, 2.0, 3),
    )


def draw_recording(rng: np.random.Generator, strength: float) -> Recording:
    """A recording; `strength` multiplies the decibels by which it differs from others."""
    return Recording(strength * rng.normal(0, 2.0, 25), int(rng.integers(0, 12)), strength * rng.uniform(-3, 3))


def produce(
    dry: Samples, artist: Artist, recording: Recording, rng: np.random.Generator, sample_rate_hz: int
) -> Samples:
    """The recording chain: equalisers and room as one filter, then a noise floor and a level."""
    num_bins = dry.size // 2 + 1
    frequency_hz = np.linspace(0, sample_rate_hz / 2, num_bins)
    octaves = np.log2(np.maximum(frequency_hz, 20) / 60)
    curve_db = np.interp(octaves, np.arange(8), artist.equaliser_db)
    curve_db += np.interp(octaves, np.arange(25) / 3, recording.equaliser_db)
    room = rng.standard_normal(int(3 * artist.room_s * sample_rate_hz))
    room *= np.exp(-np.arange(room.size) / (artist.room_s * sample_rate_hz)) * artist.room_gain / 20
    room[0] = 1.0
    response = np.fft.rfft(room, dry.size) * 10 ** (curve_db / 20)
    wet = np.fft.irfft(np.fft.rfft(dry) * response, dry.size)
    wet /= max(float(np.abs(wet).max()), 1e-9)
    wet += 10 ** ((artist.noise_db + recording.noise_db) / 20) * rng.standard_normal(wet.size)
    level = 0.9 * 10 ** (rng.uniform(-6, 0) / 20)
    return np.asarray(level * wet / np.abs(wet).max(), np.float32)
