from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
from fakes import REAL, needs_real, tone
from numpy.typing import NDArray

from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.features import db_to_power, mfcc, pcen
from parallel_tunes.audio.logmel import log_mel

RATE_HZ, HOP = 22050, 512
AT = {"sample_rate_hz": RATE_HZ, "hop_length": HOP}


def noise(duration_s: float = 2.0) -> NDArray[np.float32]:
    """Noise that swells and falls silent, with a click in the silence."""
    samples = np.random.default_rng(0).standard_normal(int(duration_s * RATE_HZ)).astype(np.float32) * np.float32(0.1)
    samples *= np.linspace(0, 1, samples.size, dtype=np.float32)
    samples[samples.size // 2 : -5000] = 0
    samples[-8000] = 1
    return samples


SIGNALS = {
    "tone": tone(440),
    "square": np.sign(tone(101) + np.float32(1e-6)),
    "silence": np.zeros(RATE_HZ, np.float32),
    "noise": noise(),
}


def power_of(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """librosa's mel power, on the scale that PCEN's defaults are meant for."""
    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ) * np.float32(2.0**62)
    return np.asarray(power, np.float32)


@pytest.mark.parametrize("num_coefficients", [1, 13, 20, 128])
@pytest.mark.parametrize("signal", SIGNALS)
def test_mfcc_equals_librosa(signal: str, num_coefficients: int) -> None:
    decibels = log_mel(SIGNALS[signal], sample_rate_hz=RATE_HZ)
    ours = mfcc(decibels, num_coefficients)
    assert ours.dtype == np.float32
    assert ours.shape == (num_coefficients, decibels.shape[1])
    np.testing.assert_array_equal(ours, librosa.feature.mfcc(S=decibels, n_mfcc=num_coefficients))


def test_mfcc_of_a_batch_and_of_shards() -> None:
    decibels = log_mel(noise(), sample_rate_hz=RATE_HZ)
    batch = np.stack([decibels, decibels + 3])
    np.testing.assert_array_equal(mfcc(batch)[0], mfcc(decibels))
    # a level of 3 dB more is in the 0th coefficient alone
    np.testing.assert_allclose(mfcc(batch)[1, 1:], mfcc(decibels)[1:], atol=1e-3)
    assert mfcc(decibels.astype(np.float16)).dtype == np.float32  # as shards hold them


@pytest.mark.parametrize("num_coefficients", [0, 129])
def test_mfcc_refuses_what_the_bands_cannot_give(num_coefficients: int) -> None:
    with pytest.raises(ValueError, match="128 mel bands give 1 to 128"):
        mfcc(np.zeros((128, 4), np.float32), num_coefficients)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gain": 0.8, "bias": 10, "power": 0.25},
        {"power": 0},
        {"bias": 0},
        {"gain": 0},
        {"time_constant_s": 0.06, "eps": 1e-3},
    ],
    ids=str,
)
@pytest.mark.parametrize("signal", SIGNALS)
def test_pcen_equals_librosa(signal: str, settings: dict[str, Any]) -> None:
    power = power_of(SIGNALS[signal])
    ours = pcen(power, **AT, **settings)
    theirs = {"time_constant" if name == "time_constant_s" else name: value for name, value in settings.items()}
    with np.errstate(divide="ignore"):  # librosa takes the logarithm of silence where the bias is 0
        expected = librosa.pcen(power, sr=RATE_HZ, hop_length=HOP, **theirs)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=1e-12)


def test_pcen_of_a_batch() -> None:
    power = power_of(noise())
    np.testing.assert_array_equal(pcen(np.stack([power, 2 * power]), **AT)[0], pcen(power, **AT))


def test_pcen_takes_the_level_out() -> None:
    """A hundred times the power moves a steady tone by a few per cent, once the filter has forgotten its start."""
    power = power_of(tone(440, 6.0))
    quiet, loud = pcen(power, **AT), pcen(100 * power, **AT)
    band = int(power.mean(axis=1).argmax())
    assert loud[band, 200] / quiet[band, 200] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": -1}, "gain=-1: must not be negative"),
        ({"bias": -1}, "bias=-1"),
        ({"power": float("nan")}, "power=nan"),
        ({"eps": 0}, "eps=0: must be positive"),
        ({"time_constant_s": 0}, "time_constant_s=0"),
    ],
    ids=str,
)
def test_pcen_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pcen(np.ones((4, 8), np.float32), **(AT | settings))


def test_pcen_refuses_decibels() -> None:
    with pytest.raises(ValueError, match=r"mel_power holds -100: .*db_to_power first"):
        pcen(np.full((4, 8), -100.0), **AT)


def test_power_from_decibels() -> None:
    power = librosa.feature.melspectrogram(y=noise(), sr=RATE_HZ)
    ours = db_to_power(log_mel(noise(), sample_rate_hz=RATE_HZ, top_db=None))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.maximum(power, 1e-10), rtol=1e-3)
    np.testing.assert_array_equal(db_to_power([-100, 0, 10]), np.array([1e-10, 1, 10], np.float32))


@needs_real
def test_real_clips() -> None:
    for path in sorted((REAL / "gtzan_mini").glob("*/*.wav"))[::15]:
        samples, _ = decode(path, sample_rate_hz=RATE_HZ, first_s=5)
        decibels = log_mel(samples, sample_rate_hz=RATE_HZ, top_db=None)
        np.testing.assert_array_equal(mfcc(decibels), librosa.feature.mfcc(S=decibels))
        expected = librosa.pcen(power_of(samples), sr=RATE_HZ, hop_length=HOP)
        np.testing.assert_allclose(pcen(db_to_power(decibels) * 2.0**62, **AT), expected, rtol=1e-3, atol=1e-4)
