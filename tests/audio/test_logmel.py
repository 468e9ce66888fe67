from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
import torch
from fakes import REAL, needs_real, tone
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.logmel import log_mel


def reference(
    samples: NDArray[np.float32], rate_hz: int, top_db: float | None = 80.0, **settings: Any
) -> NDArray[np.float32]:
    power = librosa.feature.melspectrogram(y=samples, sr=rate_hz, **settings)
    return np.asarray(librosa.power_to_db(power, top_db=top_db), np.float32)


def music(duration_s: float = 3.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    chord = sum(tone(hz, duration_s) for hz in (220, 277, 330, 1760)) * np.float32(0.2)
    return np.asarray(chord + 0.05 * rng.standard_normal(chord.shape), np.float32)


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "num_mels", "rate_hz"),
    [(2048, 512, 128, 22050), (1024, 160, 64, 16000), (1023, 300, 40, 22050)],
)
def test_equals_librosa(n_fft: int, hop_length: int, num_mels: int, rate_hz: int) -> None:
    ours = log_mel(music(), sample_rate_hz=rate_hz, n_fft=n_fft, hop_length=hop_length, num_mels=num_mels)
    theirs = reference(music(), rate_hz, n_fft=n_fft, hop_length=hop_length, n_mels=num_mels)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-3


@needs_real
def test_equals_librosa_on_real_clips() -> None:
    for path in sorted((REAL / "gtzan_mini").glob("*/*.wav"))[::9]:
        samples, _ = decode(path, sample_rate_hz=22050)
        assert np.abs(log_mel(samples, sample_rate_hz=22050) - reference(samples, 22050)).max() < 1e-3


def test_equals_torchaudio() -> None:
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    transform = MelSpectrogram(
        22050, n_fft=2048, hop_length=512, n_mels=128, power=2.0, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    theirs = AmplitudeToDB(top_db=80)(transform(torch.from_numpy(music()))).numpy()
    assert np.abs(log_mel(music(), sample_rate_hz=22050) - theirs).max() < 5e-3


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5000), st.integers(0, 2**32 - 1))
def test_any_length_gives_finite_values_within_the_range(num_samples: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, num_samples).astype(np.float32)
    decibels = log_mel(samples, sample_rate_hz=22050)
    assert decibels.shape == (128, 1 + num_samples // 512)
    assert np.isfinite(decibels).all()
    assert decibels.max() - decibels.min() <= 80.0001


def test_silence_is_the_floor_and_a_louder_tone_is_louder() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(4096, np.float32), sample_rate_hz=22050), -100, atol=1e-4)
    quiet, loud = (log_mel(tone(440) * np.float32(gain), sample_rate_hz=22050, top_db=None) for gain in (0.1, 1.0))
    assert abs(float(loud.max() - quiet.max()) - 20) < 1e-3
