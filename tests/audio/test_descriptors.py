from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from fakes import REAL, needs_real, tone, write_audio
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from parallel_tunes import schema
from parallel_tunes.audio import descriptors, front_end
from parallel_tunes.audio.decode import AudioError, decode
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.descriptor_names import NAMES

FEATURES: FeaturesConfig = schema.build(FeaturesConfig, schema.defaults("features", "descriptors"))
DEFAULT = LogMel()


def ask_librosa(samples: NDArray[np.float32], made: LogMel = DEFAULT) -> dict[str, float]:
    """The descriptors as GTZAN's table had them made: a call of librosa's each, which transforms the clip anew."""
    rate: dict[str, Any] = {"sr": made.sample_rate_hz}
    both: dict[str, Any] = {"n_fft": made.n_fft, "hop_length": made.hop_length}
    hop: dict[str, Any] = {"hop_length": made.hop_length}
    mels: dict[str, Any] = {
        "n_mels": made.num_mels,
        "fmin": made.fmin_hz,
        "fmax": made.fmax_hz,
        "htk": made.mel_scale == "htk",
    }
    feature = librosa.feature
    harmonic, percussive = librosa.effects.hpss(samples, **both)
    series = {
        "chroma_stft": feature.chroma_stft(y=samples, **rate, **both),
        "rms": feature.rms(y=samples, frame_length=made.n_fft, **hop),
        "spectral_centroid": feature.spectral_centroid(y=samples, **rate, **both),
        "spectral_bandwidth": feature.spectral_bandwidth(y=samples, **rate, **both),
        "rolloff": feature.spectral_rolloff(y=samples, **rate, **both),
        "zero_crossing_rate": feature.zero_crossing_rate(samples, frame_length=made.n_fft, **hop),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    cepstrum = feature.mfcc(y=samples, n_mfcc=20, **rate, **both, **mels)
    series |= {f"mfcc{number}": row for number, row in enumerate(cepstrum, 1)}
    found = {
        f"{name}_{part}": float(getattr(np, part)(row)) for name, row in series.items() for part in ("mean", "var")
    }
    onsets = librosa.onset.onset_strength(y=samples, aggregate=np.median, **rate, **both, **mels)
    tempo, _ = librosa.beat.beat_track(onset_envelope=onsets, **rate, **hop)
    return {**found, "tempo": float(np.ravel(tempo)[0])}


def draw_music(seconds: float = 3.0) -> NDArray[np.float32]:
    """Chords with beats on them."""
    samples = np.mean([tone(frequency_hz, seconds) for frequency_hz in (220.0, 277.2, 329.6)], axis=0)
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return np.asarray(samples + 0.3 * noise * np.exp(-(np.arange(len(samples)) % 11025) / 800), np.float32)


@pytest.mark.parametrize("changed", [{}, {"n_fft": 1024, "hop_length": 256, "num_mels": 64, "mel_scale": "htk"}])
def test_librosas_own_numbers(changed: dict[str, Any]) -> None:
    made = replace(LogMel(), **changed)
    samples = draw_music()
    wanted = ask_librosa(samples, made)
    found = dict(zip(NAMES, descriptors.describe(samples, made), strict=True))
    assert set(wanted) == set(NAMES)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name
    assert found["tempo"] > 0


@needs_real
def test_librosas_own_numbers_of_music() -> None:
    path = REAL / "gtzan_mini/blues/blues.00000.wav"
    wanted = ask_librosa(soundfile.read(path, 6 * 22050, dtype="float32")[0])
    clip = front_end.extract(path, replace(FEATURES, clip_s=6.0), max_bytes=1 << 30)
    assert_allclose(clip.frames[0], [wanted[name] for name in NAMES], rtol=1e-3)


@needs_real
def test_columns_of_the_table_in_its_order() -> None:
    header = (REAL / "gtzan_tables/features_30_sec.csv").read_text().split("\n", 1)[0].split(",")
    assert header == ["filename", "length", *NAMES, "label"]


def test_where_nothing_begins_there_is_no_tempo() -> None:
    assert descriptors.describe(np.full(22050, 1e-7, np.float32), LogMel())[NAMES.index("tempo")] == 0


def test_the_front_end_gives_them_of_a_file(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", draw_music(2.0)[:, None].repeat(2, 1), 22050)
    samples, _ = decode(path, sample_rate_hz=22050)
    plain = front_end.extract(path, FEATURES, max_bytes=1 << 30)
    assert plain.frames.shape == (1, 57)
    assert plain.frames.dtype == np.float64
    assert_allclose(plain.frames[0], descriptors.describe(samples, LogMel()))
    loud = front_end.extract(path, replace(FEATURES, normalise="peak", clip_s=3.0, pad=True), max_bytes=1 << 30)
    padded = np.pad(samples / np.abs(samples).max(), (0, 22050))
    assert_allclose(loud.frames[0], descriptors.describe(padded, LogMel()), rtol=1e-4)


def test_what_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "MOST_SAMPLES", 22049)
    path = write_audio(tmp_path / "a.wav", tone(440))
    with pytest.raises(AudioError, match=r"too long for descriptors: 22050 samples.*give features.clip_s"):
        front_end.extract(path, FEATURES, max_bytes=1 << 30)


def test_a_fingerprint_of_their_own() -> None:
    spectra = replace(FEATURES, kind="logmel")
    assert front_end.fingerprint(FEATURES) != front_end.fingerprint(spectra)
    assert front_end.fingerprint(FEATURES) != front_end.fingerprint(replace(FEATURES, hop_length=256))
    assert front_end.compare(asdict(FEATURES), asdict(spectra)) == ["features.kind is descriptors there, logmel here"]
    assert front_end.compare(asdict(FEATURES), asdict(FEATURES)) == []
