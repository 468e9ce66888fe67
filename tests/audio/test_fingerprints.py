"""Planted copies are found, and nothing else: in synthetic music, and in real clips where they are at hand."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes import REAL, needs_real, tone, write_audio
from numpy.typing import NDArray

from parallel_tunes import schema
from parallel_tunes.audio import fingerprints, front_end
from parallel_tunes.audio.fingerprints import SPEEDS, Printer
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data import synthetic

FEATURES = schema.build(FeaturesConfig, schema.defaults("features", "logmel"))
PRINTER = Printer(FEATURES)
RATE_HZ = 22050
SOAK = int(os.environ.get("PT_SOAK", "1"))  # 10 were tried when this was written
KINDS = ("exact", "mp3", "gain", "later", "faster", "slower")

Samples = NDArray[np.float32]
Levels = NDArray[np.float32]


def plant(samples: Samples, kind: str) -> Samples:
    """A copy of a recording, as it comes into collections."""
    if kind == "mp3":
        file = io.BytesIO()
        kbits = {"bitrate_mode": "CONSTANT", "compression_level": (160 - 64) / (160 - 8)}  # 64 of 8 to 160
        with soundfile.SoundFile(file, "w", RATE_HZ, 1, "MPEG_LAYER_III", format="MP3", **kbits) as sound:
            sound.write(samples)
        assert file.tell() < 1.2 * 8000 * len(samples) / RATE_HZ + 2000
        return np.asarray(soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0])
    if kind in ("faster", "slower"):
        speed = 1.01 if kind == "faster" else 0.99
        return np.asarray(soxr.resample(samples, RATE_HZ * speed, RATE_HZ), np.float32).clip(-1, 1)
    return {"exact": samples, "gain": 0.3 * samples, "later": samples[RATE_HZ // 2 :]}[kind]


def listen(samples: Samples, folder: Path) -> Levels:
    """The spectrogram as shards hold it."""
    clip = front_end.extract(write_audio(folder / "a.wav", samples, RATE_HZ), FEATURES, max_bytes=1 << 30)
    return np.asarray(clip.frames.T, np.float32)


def find(copies: list[Levels], originals: list[Levels]) -> list[tuple[int, int]]:
    """Numbers of copies and originals that are told to be the same recording."""
    tracks, sides = copies + originals, np.array([0] * len(copies) + [1] * len(originals))
    found = fingerprints.find_pairs(sides, tracks.__getitem__, PRINTER, lambda _: None)
    return [(pair.other, pair.row - len(copies)) for pair in found]


def check(tracks: list[Samples], folder: Path) -> None:
    """Recall and precision of at least 0.95, over the copies of each kind and over all."""
    heard = [listen(samples, folder) for samples in tracks]
    for kind in KINDS:
        found = find([listen(plant(samples, kind), folder) for samples in tracks], heard)
        right = sum(copy == original for copy, original in found)
        assert right >= 0.95 * len(tracks), f"{kind}: recall {right} of {len(tracks)}"
        assert right >= 0.95 * len(found), f"{kind}: {right} of {len(found)} are right"


def render(num_artists: int, num_tracks: int, duration_s: float, seed: int = 0) -> Iterator[Samples]:
    for piece in synthetic.list_corpus(num_artists, num_tracks):
        yield synthetic.render_track(*piece.numbers, seed=seed, duration_s=duration_s, sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("seed", range(SOAK))
def test_planted_copies_are_found_in_synthetic_music(seed: int, tmp_path: Path) -> None:
    """Two tracks by each artist, who plays the same instruments in the same key: they are not the same recording."""
    check(list(render(1, 2, 2.0, seed)), tmp_path)


@needs_real
def test_planted_copies_are_found_in_real_music(tmp_path: Path) -> None:
    paths, num = sorted((REAL / "gtzan_mini").glob("*/*.wav")), -1
    if SOAK == 1:
        paths, num = paths[::5], 8 * RATE_HZ
    check([soundfile.read(path, num, dtype="float32")[0] for path in paths], tmp_path)


def test_what_a_copy_differs_by_is_told(tmp_path: Path) -> None:
    (samples,) = [next(render(1, 1, 6.0))]
    original = listen(samples, tmp_path)
    for changed, shift_s, speed in (
        (samples, 0, 0),
        (samples[RATE_HZ // 2 :], -0.5, 0),
        (np.concatenate([np.zeros(RATE_HZ, np.float32), samples]), 0, 0),  # silence before it is no part of it
        (plant(samples, "faster"), 0, 0.01),
        (plant(samples, "slower"), 0, -0.01),
    ):
        copy = PRINTER.take(listen(changed, tmp_path))
        ((score, found_s, found_speed),) = fingerprints.compare(
            PRINTER.take_at_speeds(original), [copy], PRINTER.rate_hz
        )
        assert score > fingerprints.THRESHOLD
        assert found_s == pytest.approx(shift_s, abs=0.06)
        assert found_speed == pytest.approx(speed, abs=0.0051)


def test_tones_and_short_clips_are_no_copies_of_each_other(tmp_path: Path) -> None:
    """What does not move has nothing that it could be told by, and ends are alike in all clips."""
    tones = [listen(tone(hz, 2.0), tmp_path) for hz in (200, 203, 209, 2000)]
    assert find(tones[:2], tones[2:]) == []
    short = [log_mel(samples[:2000], sample_rate_hz=RATE_HZ) for samples in render(1, 1, 0.5)]
    assert find(short[:5], short[:5]) == []


@pytest.mark.parametrize("num_mels", [1, 20, 128, 200])
def test_any_front_end_has_fingerprints(num_mels: int) -> None:
    printer = Printer(replace(FEATURES, num_mels=num_mels, hop_length=256, n_fft=4096, mel_scale="htk", fmin_hz=50.0))
    levels = np.random.default_rng(0).normal(-40, 5, (num_mels, 500)).astype(np.float32)
    taken = printer.take_at_speeds(levels)
    assert len(taken) == len(SPEEDS)
    ((score, _, speed),) = fingerprints.compare(taken, [printer.take(levels)], printer.rate_hz)
    if num_mels > 1:
        assert score == pytest.approx(1, abs=1e-3)
        assert speed == 0


def test_every_copy_is_found_however_many_there_are(tmp_path: Path) -> None:
    """More than are compared at first."""
    original = listen(next(render(1, 1, 2.0)), tmp_path)
    many = fingerprints.NUM_NEIGHBOURS + 5
    assert len(find([original] * many, [original])) == many
