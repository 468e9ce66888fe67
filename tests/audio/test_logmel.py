from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
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
from parallel_tunes.audio.logmel import Spectrogram, log_mel
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.lanes import LANES

DEFINITIONS = {
    "defaults": LogMel(),
    "speech": LogMel(sample_rate_hz=16000, n_fft=1024, hop_length=160, num_mels=64, fmin_hz=20, fmax_hz=7600),
    "htk": LogMel(mel_scale="htk", num_mels=80),
    "fine": LogMel(sample_rate_hz=44100, n_fft=4096, hop_length=1024, num_mels=256, fmin_hz=20, fmax_hz=16000),
    "odd": LogMel(n_fft=1023, hop_length=300, num_mels=40),
    "short": LogMel(sample_rate_hz=16000, n_fft=400, hop_length=160, num_mels=40, fmin_hz=60, fmax_hz=7800, mel_scale="htk"),
    "gaps between frames": LogMel(n_fft=512, hop_length=700, num_mels=33),
}  # fmt: skip
ULPS_DB = 3.1e-5  # four steps of a float32 near 100 dB


def signals(rate_hz: int = 22050, num_samples: int = 33001) -> dict[str, NDArray[np.float32]]:
    """Signals that are hard (pure tones, silence, clicks, full-scale squares, a leap of 80 dB), and music."""
    seconds, noise = np.arange(num_samples) / rate_hz, np.random.default_rng(0).standard_normal(num_samples)
    tones = {hz: np.sin(2 * np.pi * hz * seconds) for hz in (30, 55.3, 220, 277, 330, 440, 800, 1000.3, 1760, 10_000)}
    clicks = np.zeros(num_samples)
    clicks[[7, 20000, 20001, 31000]] = 1, -1, 0.5, 1e-3
    found = {
        **{f"tone {hz:g}": tones[hz] for hz in (30, 55.3, 440, 1000.3, 10_000)},
        "square": np.sign(tones[440] + 1e-6),
        "constant": np.ones(num_samples),
        "clicks": clicks,
        "silence": np.zeros(num_samples),
        "leap": np.where(seconds < 0.7, tones[440], 1e-4 * tones[800]),
        "noise": 0.1 * noise,
        "music": 0.2 * sum(tones[hz] for hz in (220, 277, 330, 1760)) + noise * np.linspace(0, 0.05, num_samples),
    }
    return {name: wave.astype(np.float32) for name, wave in found.items()}


def reference(samples: NDArray[np.float32], definition: LogMel, top_db: float | None = None) -> NDArray[np.float32]:
    power = librosa.feature.melspectrogram(
        y=samples, sr=definition.sample_rate_hz, n_fft=definition.n_fft, hop_length=definition.hop_length,
        n_mels=definition.num_mels, fmin=definition.fmin_hz, fmax=definition.fmax_hz, htk=definition.mel_scale == "htk",
    )  # fmt: skip
    return np.asarray(librosa.power_to_db(power, top_db=top_db), np.float32)


def music() -> NDArray[np.float32]:
    return signals(num_samples=66150)["music"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_back_end_equals_librosa(name: str) -> None:
    """The CPU's kernel, torch in float64 and float32, and the float16 of shards; with the floor and without."""
    floored = DEFINITIONS[name]
    definition, clips = replace(floored, top_db=None), signals(floored.sample_rate_hz)
    batch = torch.from_numpy(np.stack(list(clips.values())))
    exact, floored_exact = (LogMelTransform(each)(batch).numpy() for each in (definition, floored))
    coarse = LogMelTransform(definition, torch.float32)(batch).numpy()
    for place, (signal, wave) in enumerate(clips.items()):
        theirs, theirs_floored = (reference(wave, definition, top_db) for top_db in (None, 80.0))
        assert theirs.shape == (definition.num_mels, definition.num_frames(wave.size))
        np.testing.assert_allclose(exact[place], theirs, rtol=0, atol=ULPS_DB, err_msg=signal)
        np.testing.assert_allclose(floored_exact[place], theirs_floored, rtol=0, atol=ULPS_DB, err_msg=signal)
        near = theirs > theirs.max(axis=0) - 80
        assert np.abs(coarse[place] - theirs)[near].max() < 2e-2, signal
        ours, ours_floored = (log_mel(wave, **asdict(each)) for each in (definition, floored))
        assert ours.dtype == coarse.dtype == exact.dtype == np.float32
        assert np.abs(ours - theirs)[near].max() < 1e-3, signal
        assert np.abs(ours_floored - theirs_floored)[near].max() < 1e-3, signal
        clip = Spectrogram(floored, wave.size)
        clip.feed(wave, is_last=True)
        clip.finish()
        assert np.abs(clip.frames.T.astype(np.float32) - theirs_floored)[near].max() < 0.04, signal


def test_int16_is_taken_as_float32_of_full_scale() -> None:
    pcm = (music() * 20000).astype(np.int16)
    wanted = reference(np.asarray(pcm / 32768, np.float32), LogMel(), 80.0)
    np.testing.assert_allclose(log_mel(pcm, sample_rate_hz=22050), wanted, rtol=0, atol=1e-3)


@needs_real
def test_real_clips_equal_librosa() -> None:
    transform = LogMelTransform(LogMel(top_db=None))
    for path in sorted((REAL / "gtzan_mini").glob("*/*.wav"))[::4]:
        samples, _ = decode(path, sample_rate_hz=22050)
        for wave in (samples, samples / np.abs(samples).max()):
            assert np.abs(log_mel(wave, sample_rate_hz=22050) - reference(wave, LogMel(), 80.0)).max() < 2e-4, path.name
        ours = transform(torch.from_numpy(samples)[None])[0].numpy()
        np.testing.assert_allclose(ours, reference(samples, LogMel()), rtol=0, atol=ULPS_DB)


def test_where_a_pure_tone_begins_and_ends_float64_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, float32 would blur bands far below the tone by up to 2e-3 dB."""
    rng, redone = np.random.default_rng(1), list[int]()
    exactly = logmel._analyse_exactly

    def count(*args: Any) -> Any:
        redone.append(len(args[1]))
        return exactly(*args)

    seconds = np.arange(33075) / 22050
    for hz in np.exp(rng.uniform(np.log(30), np.log(10500), 20)):
        wave = np.sin(2 * np.pi * hz * seconds).astype(np.float32)
        wave[: rng.integers(3000, 12000)] = 0
        wave[-rng.integers(3000, 12000) :] = 0
        theirs = reference(wave, LogMel())
        monkeypatch.setattr(logmel, "_analyse_exactly", count)
        ours = log_mel(wave, sample_rate_hz=22050, top_db=None)
        monkeypatch.undo()
        assert np.abs(ours - theirs)[theirs > theirs.max(axis=0) - 80].max() < 1e-3, f"{hz:.1f} Hz"
    assert 0 < sum(redone) < 20 * 65 / 4  # of all frames few


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
        clip = Spectrogram(LogMel(num_mels=70), 30000)
        clip.feed(music()[:30000].copy(), is_last=True)
        clip.finish()
        levels.append(clip.frames.astype(np.float64))
    # a unit of float16's last place, where float32 rounds otherwise
    assert np.abs(levels[0] - levels[1]).max() <= 0.07


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.lists(st.integers(1, 60000), max_size=5),
    st.sampled_from([(2048, 512), (1000, 333), (1024, 1500)]),
    st.booleans(),
)
def test_a_clip_in_blocks_has_the_same_bits_as_in_one(cuts: list[int], shape: tuple[int, int], as_int: bool) -> None:
    wave = np.tile(music(), 6)[:300000]
    samples = (wave * 9000).astype(np.int16) if as_int else wave
    definition = LogMel(n_fft=shape[0], hop_length=shape[1], num_mels=20)
    whole, parts = (Spectrogram(definition, samples.size, gain=1.7) for _ in range(2))
    whole.feed(samples, is_last=True)
    at = 0
    for size in cuts:
        parts.feed(samples[at : at + size], is_last=False)
        at += size
    parts.feed(samples[at:], is_last=False)
    parts.feed(samples[:0], is_last=True)
    assert whole.finish() == parts.finish()
    np.testing.assert_array_equal(whole.frames, parts.frames)


def test_other_waveforms_are_refused() -> None:
    waves: list[NDArray[Any]] = [music().astype(np.float64), music()[None]]
    for wave in waves:
        with pytest.raises(ValueError, match="expected float32 or int16"):
            log_mel(wave, sample_rate_hz=22050)


def test_the_kernel_leaves_the_interpreter_to_other_threads() -> None:
    """Two clips at once in two threads give what they give alone, many times over."""
    clips = [np.roll(music(), shift) for shift in (0, 5000)]
    alone = [log_mel(clip, sample_rate_hz=22050) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: log_mel(clip, sample_rate_hz=22050), clips * 20))
    for number, levels in enumerate(together):
        np.testing.assert_array_equal(levels, alone[number % 2])


def test_filters_are_librosas() -> None:
    narrow = LogMel(sample_rate_hz=44100, n_fft=1023, num_mels=80, fmin_hz=900.0, fmax_hz=1100.0)
    for definition in (*DEFINITIONS.values(), narrow):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bands between bins
            theirs = librosa.filters.mel(
                sr=definition.sample_rate_hz, n_fft=definition.n_fft, n_mels=definition.num_mels,
                fmin=definition.fmin_hz, fmax=definition.fmax_hz, htk=definition.mel_scale == "htk",
            )  # fmt: skip
        assert definition.filters.dtype == np.float32
        np.testing.assert_allclose(definition.filters, theirs, rtol=2e-6, atol=2e-9)


@settings(deadline=None, max_examples=25, derandomize=True)
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
