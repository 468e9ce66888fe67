from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes import PATIENCE_S, start, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_tunes.audio.decode import decode
from parallel_tunes.config_synth import SynthJob
from parallel_tunes.data import encoding, synthetic
from parallel_tunes.data.index import EXTENSIONS
from parallel_tunes.schema import UserError, keys_of

Door = Callable[..., int]
LOSSLESS = ("wav", "au", "flac")
LEAST_SNR_DB = {"wav": 60.0, "au": 60.0, "flac": 60.0, "ogg": 15.0, "mp3": 14.0, "opus": 10.0}
TINY = ("num_artists=1", "tracks_per_artist=1", "duration_s=0.5", "run.name=a")


def render(genre: int = 2, artist: int = 0, track: int = 0, sample_rate_hz: int = 48000) -> encoding.Samples:
    return synthetic.render_track(genre, artist, track, seed=0, duration_s=2.0, sample_rate_hz=sample_rate_hz)


def snr_db(found: encoding.Samples, wanted: encoding.Samples) -> float:
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2)))


@pytest.mark.parametrize("name", encoding.FORMATS)
def test_every_format_decodes_to_the_mono_track(name: str, tmp_path: Path) -> None:
    genre, channels = (0, 1) if name in ("wav", "au", "mp3") else (5, 2)  # the calmest, and the most percussive
    mono = render(genre)
    samples = encoding.widen(mono, (0, genre, 0), 48000) if channels == 2 else mono
    path = tmp_path / f"a.{name}"
    path.write_bytes(encoding.encode(samples, name, 48000))
    facts = soundfile.info(path)
    assert (facts.channels, facts.samplerate, facts.frames) == (channels, 48000, 96000)
    found, duration_s = decode(path, sample_rate_hz=48000)
    assert (duration_s, found.shape) == (2.0, mono.shape)
    # libsndfile cuts off the end that is still inside its Opus encoder
    kept = slice(0, -480) if name == "opus" else slice(None)
    assert snr_db(found[kept], mono[kept]) > LEAST_SNR_DB[name]
    if name in LOSSLESS:
        assert np.abs(found - mono).max() <= 1 / 32768


def test_both_channels_differ_and_their_mean_is_the_mono_track() -> None:
    for genre in range(len(synthetic.GENRES)):
        mono = render(genre, artist=1, sample_rate_hz=22050)
        both = encoding.widen(mono, (0, genre, 1), 22050)
        assert both.dtype == np.float32
        assert np.abs(both).max() <= encoding.CEILING + 1e-6
        np.testing.assert_allclose(both.mean(axis=1), mono, atol=1e-6)
        assert 0.5 < np.asarray(np.corrcoef(both.T))[0, 1] < 0.99
        left, right = both.T
        assert 0.5 < left.std() / right.std() < 2


def test_an_artist_is_heard_in_the_image_and_a_track_is_not() -> None:
    """An impulse shows the reflections: the same for the same artist, others for others."""
    click = np.zeros(48000, np.float32)
    click[1000] = 0.5
    one = encoding.widen(click, (0, 1, 2), 48000)
    np.testing.assert_array_equal(one, encoding.widen(click, (0, 1, 2), 48000))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert np.abs(one - encoding.widen(click, other, 48000)).max() > 0.01


def test_tracks_shorter_than_the_reflections_and_silence_widen_too() -> None:
    for mono in (np.full(1, 0.9, np.float32), np.full(400, 0.9, np.float32), np.zeros(400, np.float32)):
        both = encoding.widen(mono, (0, 0, 0), 22050)
        assert both.shape == (mono.size, 2)
        np.testing.assert_allclose(both.mean(axis=1), mono, atol=1e-6)
        assert np.abs(both).max() <= encoding.CEILING + 1e-6


def test_a_loud_track_is_not_clipped() -> None:
    loud = render(6) * np.float32(0.98 / np.abs(render(6)).max())
    both = encoding.widen(loud, (0, 6, 0), 48000)
    assert np.abs(both).max() <= encoding.CEILING + 1e-6
    assert np.abs(both[:, 0] - both[:, 1]).max() > 0.001


def test_the_bytes_of_a_mono_wav_are_those_of_soundfile_and_no_clock_is_in_them() -> None:
    mono, plain = render(), io.BytesIO()
    soundfile.write(plain, mono, 48000, format="WAV", subtype="PCM_16")
    assert encoding.encode(mono, "wav", 48000) == plain.getvalue()
    for name in set(encoding.FORMATS) - {"ogg", "opus"}:
        assert encoding.encode(mono, name, 48000) == encoding.encode(mono, name, 48000)


def test_the_choices_of_the_door_are_the_formats_that_are_read_again() -> None:
    (choices,) = (leaf.choices for leaf in keys_of(SynthJob) if leaf.name == "format")
    assert set(choices) == set(encoding.FORMATS)
    assert {f".{name}" for name in encoding.FORMATS} <= EXTENSIONS


def test_rates_that_a_format_has_not_are_refused_and_what_is_advised_works() -> None:
    for name, rate_hz, mended_hz in (
        ("opus", 22050, 24000),
        ("opus", 96000, 48000),
        ("mp3", 4000, 8000),
        ("flac", 88201, 88210),
    ):
        with pytest.raises(UserError, match=f"{name} has .* only; give sample_rate_hz={mended_hz}, or another format"):
            encoding.check_rate(name, rate_hz)
        with pytest.raises(soundfile.LibsndfileError):
            encoding.encode(np.zeros(1000, np.float32), name, rate_hz)
        encoding.check_rate(name, mended_hz)
        assert encoding.encode(np.zeros(1000, np.float32), name, mended_hz)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.sampled_from(list(encoding.FORMATS)), st.integers(4000, 192000))
def test_rates_that_pass_can_be_written(name: str, rate_hz: int) -> None:
    try:
        encoding.check_rate(name, rate_hz)
    except UserError:
        assert name in ("mp3", "opus") or (name == "flac" and rate_hz > 65535)
    else:
        assert encoding.encode(np.zeros((400, 2), np.float32), name, rate_hz)


def test_synth_writes_stereo_at_44100_hz_that_preprocess_reads(run: Door, tmp_path: Path) -> None:
    words = ("synth", *TINY, "format=mp3", "channels=2", "sample_rate_hz=44100")
    assert run(*words) == 0
    corpus = tmp_path / "logs/synth/a"
    listed = pd.read_csv(corpus / "tracks.csv")
    assert listed["path"][0] == "ambient/ambient-000-00.mp3"
    for path in listed["path"]:
        facts = soundfile.info(corpus / path)
        assert (facts.format, facts.channels, facts.samplerate) == ("MP3", 2, 44100)
    assert run("preprocess", "data=synthetic", f"data.root={corpus}", "run.name=a") == 0
    manifest = json.loads((tmp_path / "logs/preprocess/a/manifest.json").read_text())
    assert (manifest["num_tracks"], manifest["failed"]) == (10, [])
    kept = (corpus / listed["path"][3]).stat().st_mtime_ns
    (corpus / "report.json").unlink()
    (corpus / listed["path"][4]).unlink()
    assert run(*words) == 0
    assert (corpus / listed["path"][4]).exists()
    assert (corpus / listed["path"][3]).stat().st_mtime_ns == kept


def test_stereo_through_the_door_is_the_mono_corpus_made_wide(run: Door, tmp_path: Path) -> None:
    assert run("synth", *TINY) == 0
    assert run("synth", *TINY[:-1], "run.name=b", "format=flac", "channels=2") == 0
    for genre in synthetic.GENRES:
        one, two = (
            soundfile.read(tmp_path / f"logs/synth/{name}/{genre.name}/{genre.name}-000-00.{ending}", always_2d=True)[0]
            for name, ending in (("a", "wav"), ("b", "flac"))
        )
        assert (one.shape[1], two.shape[1]) == (1, 2)
        np.testing.assert_allclose(two.mean(axis=1), one[:, 0], atol=2 / 32768)
        assert np.abs(two[:, 0] - two[:, 1]).max() > 0.005


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("format=opus",), "opus has 8000, 12000, 16000, 24000 and 48000 Hz only; give sample_rate_hz=24000"),
        (("format=mp4",), "expected one of wav, au, flac, ogg, mp3, opus (did you mean mp3?)"),
        (("channels=3",), "expected a whole number from 1 to 2"),
    ],
)
def test_refusals_are_one_line(
    words: tuple[str, ...], says: str, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("synth", *TINY, *words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert says in errors[0]
    assert not list(tmp_path.glob("logs/synth/a/*/*"))


def test_an_interrupt_while_a_track_is_encoded_leaves_no_half_file(tmp_path: Path) -> None:
    words = ("synth", "num_artists=1", "tracks_per_artist=50", "run.name=a", "duration_s=20", "channels=2",
             "format=opus", "sample_rate_hz=48000")  # fmt: skip
    process = start(*words, cwd=tmp_path)
    wait_until(lambda: process.poll() is not None or list(tmp_path.rglob("[!.]*.opus")), what="the first of 500 tracks")
    os.killpg(process.pid, signal.SIGINT)  # most likely while the second is encoded, which takes most of the time
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob(".partial-*"))
    assert {soundfile.info(path).frames for path in tmp_path.rglob("*.opus")} == {20 * 48000}
