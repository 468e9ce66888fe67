"""The log-mel spectrogram, defined once: the same numbers as librosa's melspectrogram and power_to_db."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from parallel_tunes.files import digest_json

VERSION = 2  # raised whenever the same settings would give other numbers
_BLOCK = 256  # frames at a time: the spectra of a block stay in the cache


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
    def window(self) -> NDArray[np.float32]:
        """Periodic Hann window, shape (n_fft,)."""
        return np.hanning(self.n_fft + 1)[:-1].astype(np.float32)

    @functools.cached_property
    def filters(self) -> NDArray[np.float32]:
        """Triangular mel filters, shape (num_mels, n_fft // 2 + 1)."""
        import librosa.filters  # takes a second to import: only where a filter bank is made

        bank = librosa.filters.mel(
            sr=self.sample_rate_hz, n_fft=self.n_fft, n_mels=self.num_mels, fmin=self.fmin_hz, fmax=self.fmax_hz,
            htk=self.mel_scale == "htk",
        )  # fmt: skip
        return np.asarray(bank, np.float32)


def log_mel(
    waveform: NDArray[np.float32],
    *,
    sample_rate_hz: int,
    n_fft: int = 2048,
    hop_length: int = 512,
    num_mels: int = 128,
    fmin_hz: float = 0.0,
    fmax_hz: float | None = None,
    top_db: float | None = 80.0,
) -> NDArray[np.float32]:
    """Mel power spectrogram in decibels relative to full scale.

    Hann window, frames centred on multiples of `hop_length` with zeros around the clip, Slaney's mel scale and area
    normalisation (Slaney 1998, Auditory Toolbox), power clipped at 1e-10.

    Args:
        waveform: shape (num_samples,), float32, nominally within ±1.
        sample_rate_hz: sampling rate, Hz.
        n_fft: window and FFT length, samples.
        hop_length: samples between frames.
        num_mels: number of mel bands.
        fmin_hz: lower edge of the lowest band, Hz.
        fmax_hz: upper edge of the highest band, Hz; half the sampling rate by default.
        top_db: floor the result this far below its maximum; None leaves it.

    Returns:
        Shape (num_mels, num_frames), float32, dB; num_frames = 1 + num_samples // hop_length.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
        >>> log_mel(tone, sample_rate_hz=22050).shape
        (128, 44)
    """
    samples = np.ascontiguousarray(waveform, np.float32)
    bank = _sparse_filters(sample_rate_hz, n_fft, num_mels, fmin_hz, fmax_hz)
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)  # periodic, as spectra want it
    padded = np.pad(samples, n_fft // 2 if n_fft % 2 == 0 else (n_fft // 2, n_fft - n_fft // 2))
    num_frames = 1 + samples.size // hop_length
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length][:num_frames]
    decibels = np.empty((num_mels, num_frames), np.float32)
    for first in range(0, num_frames, _BLOCK):
        spectra = scipy.fft.rfft(frames[first : first + _BLOCK] * window, axis=1)
        power = spectra.real**2 + spectra.imag**2
        mel = np.maximum(bank @ np.ascontiguousarray(power.T), np.float32(1e-10))
        decibels[:, first : first + _BLOCK] = 10 * np.log10(mel)
    if top_db is not None:
        np.maximum(decibels, decibels.max() - np.float32(top_db), out=decibels)
    return decibels


@functools.lru_cache(maxsize=8)
def mel_filters(
    sample_rate_hz: int, n_fft: int, num_mels: int, fmin_hz: float, fmax_hz: float | None
) -> NDArray[np.float32]:
    """Triangular mel filters, shape (num_mels, n_fft // 2 + 1), float32: librosa's, Slaney scale and normalisation."""
    import librosa.filters  # takes a second to import: only where a filter bank is made

    bank = librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=num_mels, fmin=fmin_hz, fmax=fmax_hz)
    return np.asarray(bank, np.float32)


@functools.lru_cache(maxsize=8)
def _sparse_filters(*settings: Any) -> Any:
    """`mel_filters` without its zeros: a product that, unlike BLAS's, adds in one order on any number of threads."""
    return scipy.sparse.csr_array(mel_filters(*settings))
