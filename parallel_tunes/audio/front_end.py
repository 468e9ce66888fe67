"""From a file to the numbers a model sees: the same path, with the same fingerprint, in training and in serving."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio.decode import AudioError, decode
from parallel_tunes.audio.logmel import log_mel, mel_filters
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.files import digest_json
from parallel_tunes.schema import UserError, to_plain

VERSION = 1  # raised whenever the same settings would give other numbers


@dataclass(frozen=True)
class Clip:
    """The features of one file."""

    log_mel: NDArray[np.float16]  # shape (num_mels, num_frames), dB
    duration_s: float  # of the whole file


def fingerprint(features: FeaturesConfig) -> str:
    """Names the front end: equal fingerprints mean equal features."""
    return digest_json({"version": VERSION, **to_plain(features)})[:16]


def check(features: FeaturesConfig) -> None:
    """Raise a UserError where settings contradict each other."""
    top_hz = features.sample_rate_hz / 2
    if features.fmin_hz >= (features.fmax_hz or top_hz):
        raise UserError(
            f"features.fmin_hz={features.fmin_hz:g}: must lie below features.fmax_hz={features.fmax_hz or top_hz:g}"
        )
    if features.fmax_hz is not None and features.fmax_hz > top_hz:
        raise UserError(
            f"features.fmax_hz={features.fmax_hz:g}: half the sampling rate, {top_hz:g} Hz, is the highest there is"
        )
    if features.pad and features.clip_s is None:
        raise UserError("features.pad=true: give features.clip_s, the length to pad to")
    if features.clip_s is not None and features.clip_s < features.min_s:
        raise UserError(
            f"features.clip_s={features.clip_s:g}: is below features.min_s={features.min_s:g}, so that no track would do"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bank = mel_filters(
            features.sample_rate_hz, features.n_fft, features.num_mels, features.fmin_hz, features.fmax_hz
        )
    num_empty = int(np.count_nonzero(~bank.any(axis=1)))
    if num_empty:
        raise UserError(
            f"features.num_mels={features.num_mels}: {num_empty} bands fall between the FFT's bins; lower it or raise features.n_fft"
        )


def extract(path: Path, features: FeaturesConfig, *, max_bytes: int) -> Clip:
    """Decode a file and compute its log-mel spectrogram.

    Raises:
        AudioError: the file gives no features; the message says why.
    """
    rate_hz, clip_s = features.sample_rate_hz, features.clip_s
    waveform, duration_s = decode(path, sample_rate_hz=rate_hz, first_s=clip_s, max_bytes=max_bytes)
    if duration_s < features.min_s:
        raise AudioError(f"too short: {duration_s:.2f} s, below features.min_s={features.min_s:g}")
    if clip_s is not None and duration_s > clip_s and not features.trim:
        raise AudioError(f"too long: {duration_s:.2f} s, above features.clip_s={clip_s:g} with features.trim=false")
    if features.pad and clip_s is not None:
        waveform = np.pad(waveform, (0, max(int(clip_s * rate_hz) - waveform.size, 0)))
    if features.normalise == "peak":
        waveform = waveform / np.abs(waveform).max()
    decibels = log_mel(
        waveform, sample_rate_hz=rate_hz, n_fft=features.n_fft, hop_length=features.hop_length, num_mels=features.num_mels,
        fmin_hz=features.fmin_hz, fmax_hz=features.fmax_hz, top_db=features.top_db,
    )  # fmt: skip
    return Clip(decibels.astype(np.float16), duration_s)
