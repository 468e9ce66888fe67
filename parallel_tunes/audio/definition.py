"""What a log-mel spectrogram is made with, apart from what computes it."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.files import digest_json

Floats = NDArray[np.float64]
VERSION = 2  # raised whenever the same settings would give other numbers


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """What a log-mel spectrogram is made with; equal values give equal spectrograms, whichever back end computes them.

    Hann window, frames centred on multiples of `hop_length` with zeros around the clip, mel filters normalised by area
    (Slaney 1998, Auditory Toolbox), power clipped at 1e-10.

    Args:
        sample_rate_hz: sampling rate, Hz.
        n_fft: window and FFT length, samples.
        hop_length: samples between frames.
        num_mels: number of mel bands.
        fmin_hz: lower edge of the lowest band, Hz.
        fmax_hz: upper edge of the highest band, Hz; half the sampling rate by default.
        mel_scale: `slaney` or `htk`.
        top_db: floor the result this far below its maximum; None leaves it.
    """

    sample_rate_hz: int = 22050
    n_fft: int = 2048
    hop_length: int = 512
    num_mels: int = 128
    fmin_hz: float = 0.0
    fmax_hz: float | None = None
    mel_scale: str = "slaney"
    top_db: float | None = 80.0

    @property
    def fingerprint(self) -> str:
        """Names the definition: 16 hex digits."""
        return digest_json({"version": VERSION, **asdict(self)})[:16]

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip."""
        return 1 + num_samples // self.hop_length

    @functools.cached_property
    def window(self) -> NDArray[np.float64]:
        """Periodic Hann window, shape (n_fft,): float64, since rounding it would cost up to 2.5e-4 dB."""
        return np.hanning(self.n_fft + 1)[:-1]

    def place_bands(self, factor: float) -> NDArray[np.float64]:
        """Where `factor` times each band's frequency lies, counted in bands from 0, shape (num_mels,); may be outside."""
        to_mel, to_hz = SCALES[self.mel_scale]
        top_hz = self.sample_rate_hz / 2 if self.fmax_hz is None else self.fmax_hz
        lowest, highest = to_mel(np.array([self.fmin_hz, top_hz]))
        step = (highest - lowest) / (self.num_mels + 1)
        centres_hz = to_hz(lowest + step * np.arange(1, self.num_mels + 1))
        return np.asarray((to_mel(centres_hz * factor) - lowest) / step - 1, np.float64)

    @functools.cached_property
    def edges_hz(self) -> Floats:
        """Of the bands, shape (num_mels + 2,): band m rises from edge m to its centre, edge m + 1, and falls to edge m + 2."""
        to_mel, to_hz = SCALES[self.mel_scale]
        top_hz = self.sample_rate_hz / 2 if self.fmax_hz is None else self.fmax_hz
        lowest, highest = to_mel(np.array([self.fmin_hz, top_hz]))
        return to_hz(np.linspace(lowest, highest, self.num_mels + 2))

    @functools.cached_property
    def filters(self) -> NDArray[np.float32]:
        """Triangular mel filters, shape (num_mels, n_fft // 2 + 1): the same as librosa.filters.mel.

        Written out here because importing librosa takes a second and 60 MB in every engine.
        """
        edges_hz = self.edges_hz
        ramps = np.subtract.outer(edges_hz, np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate_hz))
        widths = np.diff(edges_hz)[:, None]
        rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
        bank = np.asarray(np.maximum(0, np.minimum(rising, falling)), np.float32)
        bank *= 2 / (edges_hz[2:] - edges_hz[:-2])[:, None]
        return bank


def _to_slaney(hz: Floats) -> Floats:
    """Slaney's scale (1998, Auditory Toolbox): linear up to 1 kHz, 15 mel, then logarithmic, 27 mel for a factor of 6.4."""
    return np.where(hz >= 1000, 15 + np.log(np.maximum(hz, 1000) / 1000) / LOG_STEP, hz * 3 / 200)


def _from_slaney(mel: Floats) -> Floats:
    return np.where(mel >= 15, 1000 * np.exp(LOG_STEP * (mel - 15)), mel * 200 / 3)


def _to_htk(hz: Floats) -> Floats:
    """O'Shaughnessy's scale (1987), as HTK has it."""
    return np.asarray(2595 * np.log10(1 + hz / 700))


def _from_htk(mel: Floats) -> Floats:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


LOG_STEP = np.log(6.4) / 27
SCALES = {"slaney": (_to_slaney, _from_slaney), "htk": (_to_htk, _from_htk)}
