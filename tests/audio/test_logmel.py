from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from fakes import REAL, needs_real, tone
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parallel_tunes.audio import logmel
from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.lanes import LANES


def reference(
    samples: NDArray[np.float32], rate_hz: int, top_db: float | None = 80.0, **settings: Any
) -> NDArray[np.float32]:
    power = librosa.feature.melspectrogram(y=samples, sr=rate_hz, **settings)
    return np.asarray(librosa.power_to_db(power, top_db=top_db), np.float32)


def music(duration_s: float = 3.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    chord = sum(tone(hz, duration_s) for hz in (220, 277, 330, 1760)) * np.float32(0.2)
    return np.asarray(chord + 0.05 * rng.standard_normal(chord.shape), np.float32)


def signals(rate_hz: int) -> dict[str, NDArray[np.float32]]:
    """What is hard: pure tones, silence, clicks, full-scale squares, a leap of 80 dB; and what is not."""
    seconds = np.arange(rate_hz * 3 // 2) / rate_hz
    tones = {f"tone {hz:g}": np.sin(2 * np.pi * hz * seconds) for hz in (55.3, 440, 1000.3)}
    leap = np.where(seconds < 0.7, np.sin(2 * np.pi * 440 * seconds), 1e-4 * np.sin(2 * np.pi * 800 * seconds))
    found = {
        **tones,
        "silence": 0 * seconds,
        "clicks": (np.arange(seconds.size) % 5000 == 7).astype(float),
        "square": np.sign(np.sin(2 * np.pi * 300 * seconds)),
        "leap": leap,
        "noise": 0.1 * np.random.default_rng(0).standard_normal(seconds.size),
    }
    return {name: wave.astype(np.float32) for name, wave in found.items()}


@pytest.mark.parametrize("back_end", ["auto", "pocketfft", "torch"])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("n_fft", "hop_length", "num_mels", "rate_hz", "fmin_hz", "fmax_hz"),
    [
        (2048, 512, 128, 22050, 0.0, None),
        (1024, 160, 64, 16000, 20.0, 7600.0),
        (1023, 300, 40, 22050, 0.0, None),
        (4096, 1000, 96, 44100, 30.0, 16000.0),
        (512, 600, 20, 8000, 0.0, None),  # with gaps between frames
    ],
)
def test_every_back_end_is_within_a_thousandth_of_a_decibel_of_librosa(
    n_fft: int,
    hop_length: int,
    num_mels: int,
    rate_hz: int,
    fmin_hz: float,
    fmax_hz: float | None,
    scale: str,
    back_end: Any,
) -> None:
    """Wherever a level lies within 80 dB of its frame's highest."""
    for name, wave in signals(rate_hz).items():
        ours = log_mel(
            wave, sample_rate_hz=rate_hz, n_fft=n_fft, hop_length=hop_length, num_mels=num_mels, fmin_hz=fmin_hz,
            fmax_hz=fmax_hz, mel_scale=scale, top_db=None, back_end=back_end,
        )  # fmt: skip
        theirs = reference(
            wave, rate_hz, None, n_fft=n_fft, hop_length=hop_length, n_mels=num_mels, fmin=fmin_hz, fmax=fmax_hz,
            htk=scale == "htk",
        )  # fmt: skip
        assert ours.dtype == np.float32
        # librosa has a frame less where an odd frame length meets a multiple of the hop
        num = min(ours.shape[1], theirs.shape[1])
        ours, theirs = ours[:, :num], theirs[:, :num]
        near = theirs > theirs.max(axis=0) - 80
        assert np.abs(ours - theirs)[near].max() < 1e-3, name


@needs_real
def test_real_clips_are_within_two_ten_thousandths_of_a_decibel_of_librosa() -> None:
    for path in sorted((REAL / "gtzan_mini").glob("*/*.wav")):
        samples, _ = decode(path, sample_rate_hz=22050)
        for wave in (samples, samples / np.abs(samples).max()):
            assert np.abs(log_mel(wave, sample_rate_hz=22050) - reference(wave, 22050)).max() < 2e-4, path.name


def test_where_a_pure_tone_begins_and_ends_float64_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, float32 would blur bands far below the tone by up to 2e-3 dB."""
    rng, redone = np.random.default_rng(1), list[int]()
    exactly = logmel._analyse_exactly

    def count(*args: Any) -> Any:
        redone.append(len(args[1]))
        return exactly(*args)

    seconds = np.arange(33075) / 22050
    for hz in np.exp(rng.uniform(np.log(30), np.log(10500), 40)):
        wave = np.sin(2 * np.pi * hz * seconds).astype(np.float32)
        wave[: rng.integers(3000, 12000)] = 0
        wave[-rng.integers(3000, 12000) :] = 0
        theirs = reference(wave, 22050, None)
        monkeypatch.setattr(logmel, "_analyse_exactly", count)
        ours = log_mel(wave, sample_rate_hz=22050, top_db=None)
        monkeypatch.undo()
        assert np.abs(ours - theirs)[theirs > theirs.max(axis=0) - 80].max() < 1e-3, f"{hz:.1f} Hz"
    assert 0 < sum(redone) < 40 * 65 / 4  # of all frames few


def add_in_a_process(folder: Path, environment: dict[str, str]) -> str:
    """What a kernel says the sum of 64 ones is, and that of their squares."""
    script = (
        "import numpy as np; from parallel_tunes.audio import fused; from parallel_tunes.lanes import LANES;"
        "print(fused.floor_halves(np.ones(64, np.float16).view(np.uint16), np.float32(0), LANES))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | environment, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_where_no_folder_can_keep_kernels_they_are_compiled_all_the_same(tmp_path: Path) -> None:
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}  # which finds none for a file that is in no archive
    assert add_in_a_process(tmp_path, nowhere) == "(64.0, 64.0)"


def test_a_kernel_kept_on_disk_is_not_used_once_any_of_its_sources_has_changed(tmp_path: Path) -> None:
    """numba looks at the file of the function that is called, and not at those of what it calls."""
    package = tmp_path / "parallel_tunes"
    shutil.copytree(Path(logmel.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    kept_in = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}

    def run() -> str:
        return add_in_a_process(tmp_path, kept_in)

    assert run() == "(64.0, 64.0)"
    kept = list((tmp_path / "kept").rglob("*floor_halves*.nbc"))
    assert run() == "(64.0, 64.0)"
    assert len(kept) == 1
    assert list((tmp_path / "kept").rglob("*floor_halves*.nbc")) == kept
    lanes = package / "lanes.py"
    changed = lanes.read_text().replace("builder.fadd(*(", "builder.fsub(*(")
    assert changed != lanes.read_text()
    lanes.write_text(changed)
    assert run() != "(64.0, 64.0)"


def test_any_width_of_register_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer lanes than this machine has: 8, as of AVX2, or 4."""
    levels = []
    for num in (len(LANES), 8 if len(LANES) > 8 else 4):
        monkeypatch.setattr(logmel, "LANES", (0,) * num)
        clip = logmel.Spectrogram(LogMel(num_mels=70), 30000)
        clip.feed(music()[:30000].copy(), is_last=True)
        clip.finish()
        levels.append(clip.frames.astype(np.float64))
    # a unit of float16's last place, where float32 rounds otherwise
    assert np.abs(levels[0] - levels[1]).max() <= 0.07


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 60000), max_size=5),
    st.sampled_from([(2048, 512), (1000, 333), (1024, 1500)]),
    st.booleans(),
)
def test_a_clip_in_blocks_has_the_same_bits_as_in_one(cuts: list[int], shape: tuple[int, int], as_int: bool) -> None:
    wave = np.tile(music(), 6)[:300000]
    samples = (wave * 9000).astype(np.int16) if as_int else wave
    definition = LogMel(n_fft=shape[0], hop_length=shape[1], num_mels=20)
    whole, parts = (logmel.Spectrogram(definition, samples.size, gain=1.7) for _ in range(2))
    whole.feed(samples, is_last=True)
    at = 0
    for size in cuts:
        parts.feed(samples[at : at + size], is_last=False)
        at += size
    parts.feed(samples[at:], is_last=False)
    parts.feed(samples[:0], is_last=True)
    assert whole.finish() == parts.finish()
    np.testing.assert_array_equal(whole.frames, parts.frames)


def test_the_fused_kernel_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="power of two, at least 1024"):
        log_mel(music(), sample_rate_hz=22050, n_fft=1000, back_end="fused")
    with pytest.raises(ValueError, match="float64"):
        log_mel(music().astype(np.float64), sample_rate_hz=22050)


def test_the_kernel_leaves_the_interpreter_to_other_threads() -> None:
    """Two clips at once in two threads give what they give alone, many times over."""
    clips = [np.roll(music(), shift) for shift in (0, 5000)]
    alone = [log_mel(clip, sample_rate_hz=22050) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: log_mel(clip, sample_rate_hz=22050), clips * 20))
    for number, levels in enumerate(together):
        np.testing.assert_array_equal(levels, alone[number % 2])


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "num_mels", "fmin_hz", "fmax_hz"),
    [
        (22050, 2048, 128, 0.0, None),
        (16000, 400, 23, 20.0, 7600.0),
        (44100, 1023, 80, 900.0, 1100.0),
        (48000, 4096, 256, 0.0, 2e4),
    ],
)
def test_filters_are_librosas(
    scale: str, rate_hz: int, n_fft: int, num_mels: int, fmin_hz: float, fmax_hz: float | None
) -> None:
    ours = LogMel(
        sample_rate_hz=rate_hz, n_fft=n_fft, num_mels=num_mels, fmin_hz=fmin_hz, fmax_hz=fmax_hz, mel_scale=scale
    ).filters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands between bins
        theirs = librosa.filters.mel(
            sr=rate_hz, n_fft=n_fft, n_mels=num_mels, fmin=fmin_hz, fmax=fmax_hz, htk=scale == "htk"
        )
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-9)


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
