from __future__ import annotations

import math
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes import REAL, needs_real, tone, write_audio, write_bad

from parallel_tunes.audio.decode import (
    AudioError,
    BadSamplesError,
    BeyondBoundsError,
    NotAudioError,
    Sound,
    TruncatedError,
    UnreadableError,
    decode,
)

SOAK = int(os.environ.get("PT_SOAK", "1"))  # 100 were tried when this was written


@pytest.mark.parametrize("ending", ["wav", "au", "flac", "ogg", "mp3", "opus"])
def test_every_format_gives_the_tone(ending: str, tmp_path: Path) -> None:
    rate_hz = 48000 if ending == "opus" else 22050
    path = tmp_path / f"a.{ending}"
    kind = {"format": "OGG", "subtype": "OPUS"} if ending == "opus" else {}
    soundfile.write(path, tone(440, 1.0, rate_hz), rate_hz, **kind)
    samples, duration_s = decode(path, sample_rate_hz=22050)
    assert samples.dtype == np.float32
    assert abs(duration_s - 1) < 0.06
    spectrum = np.abs(np.fft.rfft(samples[:22050]))
    assert abs(int(spectrum.argmax()) - 440) <= 2


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (44100, 2), (96000, 6)])
def test_other_rates_and_channels_become_mono_at_the_wanted_rate(rate_hz: int, channels: int, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440, 1.0, rate_hz, channels), rate_hz)
    samples, duration_s = decode(path, sample_rate_hz=22050)
    assert samples.shape == (22050,)
    assert duration_s == 1.0
    middle = slice(2000, 20000)  # away from the resampler's edges
    assert np.abs(samples[middle] - tone(440)[middle]).max() < 2e-3


def test_the_mix_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    both = np.stack([tone(440), tone(1000)], axis=1)
    samples, _ = decode(write_audio(tmp_path / "a.wav", both, subtype="FLOAT"), sample_rate_hz=22050)
    np.testing.assert_allclose(samples, both.mean(1), atol=1e-7)


def test_only_the_first_seconds_are_decoded(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440, 5.0), subtype="FLOAT")
    samples, duration_s = decode(path, sample_rate_hz=22050, first_s=1.5)
    assert duration_s == 5.0
    np.testing.assert_array_equal(samples, tone(440, 5.0)[: int(1.5 * 22050)])


@pytest.mark.parametrize(("rate_hz", "ending"), [(22050, "wav"), (44100, "flac"), (44100, "ogg")])
def test_the_beginning_is_that_part_of_the_whole(rate_hz: int, ending: str, tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((6 * rate_hz, 2)).astype(np.float32)
    path = write_audio(tmp_path / f"a.{ending}", noise, rate_hz)
    whole, duration_s = decode(path, sample_rate_hz=22050)
    for first_s in (1.0, 1.234, 60.0):
        part, told_s = decode(path, sample_rate_hz=22050, first_s=first_s)
        assert told_s == pytest.approx(duration_s, abs=1e-6)
        assert part.size == min(whole.size, math.ceil(first_s * 22050))
        assert np.abs(part - whole[: part.size]).max() < 2e-5


def test_blocks_and_the_whole_are_the_same(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((9 * 44100, 2)).astype(np.float32)
    for rate_hz in (44100, 22050):
        path = write_audio(tmp_path / f"{rate_hz}.wav", noise, rate_hz)
        with Sound(path, sample_rate_hz=22050, max_bytes=1 << 30) as sound:
            blocks = [block.copy() for block in sound.blocks()]
        with Sound(path, sample_rate_hz=22050, max_bytes=1 << 30) as sound:
            np.testing.assert_array_equal(sound.read(), np.concatenate(blocks))
        theirs = soxr.resample(noise.mean(1), rate_hz, 22050, quality="HQ") if rate_hz != 22050 else noise.mean(1)
        assert np.abs(decode(path, sample_rate_hz=22050)[0] - theirs).max() < 1e-4  # 16 bits


def test_sixteen_bit_samples_come_as_they_are(tmp_path: Path) -> None:
    for ending in ("wav", "au", "flac"):
        path = write_audio(tmp_path / f"a.{ending}", tone(440), subtype="PCM_16")
        with Sound(path, sample_rate_hz=22050, max_bytes=1 << 30) as sound:
            samples = sound.read()
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples, soundfile.read(path, dtype="int16")[0])


def test_errors_have_types(tmp_path: Path) -> None:
    bad = write_bad(tmp_path)
    kinds = {"zero": NotAudioError, "truncated": TruncatedError, "text": NotAudioError, "silent": BadSamplesError,
             "nan": BadSamplesError, "dangling": UnreadableError, "pipe": UnreadableError}  # fmt: skip
    for path in bad:
        if Path(path).stem in kinds:
            with pytest.raises(kinds[Path(path).stem]):
                decode(tmp_path / path, sample_rate_hz=22050)
    with pytest.raises(BeyondBoundsError):
        decode(write_audio(tmp_path / "a.wav", tone(440)), sample_rate_hz=22050, max_bytes=1000)


def test_bad_files_say_why(tmp_path: Path) -> None:
    for path, reason in write_bad(tmp_path).items():
        if "too short" not in reason:  # for the front end to say
            with pytest.raises(AudioError, match=reason):
                decode(tmp_path / path, sample_rate_hz=22050)


@pytest.mark.parametrize("ending", ["au", "flac", "mp3"])
def test_truncated_files_are_found(ending: str, tmp_path: Path) -> None:
    path = write_audio(
        tmp_path / f"a.{ending}",
        tone(440, 8.0) + 0.1 * np.random.default_rng(0).standard_normal(176400).astype(np.float32),
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError):
        decode(path, sample_rate_hz=22050)


def test_a_streamed_wav_of_unknown_length_is_read(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    samples, _ = decode(path, sample_rate_hz=22050)
    assert samples.shape == (22050,)


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440))
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 2**30)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="truncated"):
        decode(path, sample_rate_hz=22050)


def test_bounds(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440))
    with pytest.raises(AudioError, match="over the limit"):
        decode(path, sample_rate_hz=22050, max_bytes=1000)
    with pytest.raises(AudioError, match="not a regular file"):
        decode(tmp_path, sample_rate_hz=22050)
    with pytest.raises(AudioError, match="cannot be read"):
        decode(tmp_path / "nothing.wav", sample_rate_hz=22050)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few bytes set, cut out or put in, mostly in the header."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(spoilt), 200) if rng.random() < 0.6 else len(spoilt))
        kind = rng.randrange(4)
        if kind == 0:
            spoilt[at] = rng.randrange(256)
        elif kind == 1:
            spoilt[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"])
        elif kind == 2 and len(spoilt) > 1000:
            del spoilt[at : at + rng.randint(1, 300)]
        else:
            spoilt[at:at] = rng.randbytes(rng.randint(1, 50))
    return bytes(spoilt)


def test_mutated_files_decode_or_say_why_not(tmp_path: Path) -> None:
    noise, outcomes = np.random.default_rng(0).standard_normal(33075).astype(np.float32), set()
    for ending in ("wav", "au", "flac", "ogg", "mp3"):
        whole = write_audio(tmp_path / f"whole.{ending}", tone(440, 1.5) + 0.1 * noise).read_bytes()
        path, rng = tmp_path / f"spoilt.{ending}", random.Random(ending)
        for _ in range(60 * SOAK):
            path.write_bytes(mutate(whole, rng))
            try:
                samples, _ = decode(path, sample_rate_hz=22050, first_s=30)
            except AudioError:
                outcomes.add("refused")
            else:
                assert np.isfinite(samples).all()
                assert 0 < samples.size <= 30 * 22050
                outcomes.add("decoded")
    assert outcomes == {"refused", "decoded"}


def test_rates_beyond_belief_are_refused(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440))
    data = bytearray(path.read_bytes())
    for rate_hz in (3, 2_000_000_000):
        data[24:28] = struct.pack("<I", rate_hz)
        path.write_bytes(data)
        with pytest.raises(AudioError, match="beyond what is read"):
            decode(path, sample_rate_hz=22050)


@needs_real
def test_real_recordings() -> None:
    for name in ("solo-trumpet.ogg", "sweet-waltz.stereo.ogg", "vibe-ace.ogg"):
        samples, duration_s = decode(REAL / "formats" / name, sample_rate_hz=22050)
        assert abs(samples.size / 22050 - duration_s) < 1e-3
        assert 0.01 < np.abs(samples).max() < 2
