"""What a log-mel spectrogram is made with, apart from what computes it."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.files import digest_json

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

    @functools.cached_property
    def filters(self) -> NDArray[np.float32]:
        """Triangular mel filters, shape (num_mels, n_fft // 2 + 1)."""
        import librosa.filters  # takes a second to import: only where a filter bank is made

        bank = librosa.filters.mel(
            sr=self.sample_rate_hz, n_fft=self.n_fft, n_mels=self.num_mels, fmin=self.fmin_hz, fmax=self.fmax_hz,
            htk=self.mel_scale == "htk",
        )  # fmt: skip
        return np.asarray(bank, np.float32)
