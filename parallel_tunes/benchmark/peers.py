"""What others do for the same work: librosa, as the projects before this one used it, and torchaudio."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.config import FeaturesConfig
from parallel_tunes.parallel.dispatch import Advance

Levels = Callable[[Path], object]


def find_levels(path: Path, features: FeaturesConfig, *, gain: float = 1.0) -> NDArray[np.float32]:
    """librosa's log-mel spectrogram of a file, shape (num_mels, num_frames), dB.

    Args:
        gain: factor on the samples.
    """
    import librosa

    samples, _ = librosa.load(path, sr=features.sample_rate_hz)
    return transform(samples if gain == 1 else samples * np.float32(gain), features)


def transform(samples: NDArray[np.float32], features: FeaturesConfig) -> NDArray[np.float32]:
    """librosa's log-mel spectrogram of samples at the features' rate, shape (num_mels, num_frames), dB."""
    import librosa

    power = librosa.feature.melspectrogram(
        y=samples, sr=features.sample_rate_hz, n_fft=features.n_fft, hop_length=features.hop_length,
        n_mels=features.num_mels,
    )  # fmt: skip
    return np.asarray(librosa.power_to_db(power, top_db=features.top_db), np.float32)


def make_torchaudio(features: FeaturesConfig) -> Levels | None:
    """torchaudio's log-mel spectrogram of a file, float32; None where it is not installed."""
    if importlib.util.find_spec("torchaudio") is None:
        return None
    import soundfile
    import torch
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    transform = MelSpectrogram(
        features.sample_rate_hz, n_fft=features.n_fft, hop_length=features.hop_length, n_mels=features.num_mels,
        norm="slaney", mel_scale="slaney", center=True, pad_mode="constant",
    )  # fmt: skip
    decibels = AmplitudeToDB("power", top_db=features.top_db)

    def compute(path: Path) -> object:
        samples, _ = soundfile.read(path, dtype="float32")
        with torch.inference_mode():
            return decibels(transform(torch.from_numpy(samples)))

    return compute


@dataclass(frozen=True)
class PeerTask:
    """A file whose spectrogram librosa writes into a folder."""

    path: Path
    folder: Path
    features: FeaturesConfig

    @property
    def num_units(self) -> int:
        """Number of files, the unit of progress."""
        return 1

    def after_death(self, suspects: list[str], unit: int) -> tuple[PeerTask, list[str]]:
        """The same again."""
        del unit
        return self, suspects


def save_levels(task: PeerTask, advance: Advance) -> None:
    """Load, transform and save one file: float16, one .npy a clip."""
    levels = find_levels(task.path, task.features)
    np.save(task.folder / f"{task.path.stem}.npy", levels.astype(np.float16))
    advance(1)
