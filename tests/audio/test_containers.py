"""What people have on disk, decoded here and by the program ffmpeg, whose results are the right ones."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from parallel_tunes.audio.decode import AudioError, Sound, to_float

pytestmark = pytest.mark.ffmpeg
SOAK = int(os.environ.get("PT_SOAK", "1"))  # 100 were tried when this was written: 2 000 files
NUM_FILES = 20 * SOAK
LENGTH_S, LEVEL = 0.03, 1e-3  # how far we may lie from ffmpeg without a word
TOLD_S = (
    0.1  # … and what is told of the whole, where only its beginning was decoded, from what it has: some codecs' frames
)
Wave = NDArray[np.float32]

# ending → how ffmpeg writes it, and what may be done to such a file: j(oin), p(ipe it), s(izes of its header)
KINDS = {
    "wav": ("-c:a pcm_s16le -f wav", "ps"), "24.wav": ("-c:a pcm_s24le -f wav", "ps"), "float.wav": ("-c:a pcm_f32le -f wav", "ps"),
    "u8.wav": ("-c:a pcm_u8 -f wav", "ps"), "law.wav": ("-c:a pcm_mulaw -f wav", "ps"), "ima.wav": ("-c:a adpcm_ima_wav -f wav", ""),
    "rf64": ("-c:a pcm_s16le -f wav -rf64 always", ""), "w64": ("-c:a pcm_s16le -f w64", ""), "au": ("-c:a pcm_s16be -f au", "ps"),
    "snd": ("-c:a pcm_f32be -f au", "ps"), "aiff": ("-c:a pcm_s16be -f aiff", ""), "aifc": ("-c:a pcm_s16le -f aiff", ""),
    "caf": ("-c:a pcm_s16be -f caf", ""), "flac": ("-c:a flac -f flac", "pj"), "ogg": ("-c:a libvorbis -q:a 5 -f ogg", "pj"),
    "oga": ("-c:a flac -f ogg", "p"), "opus": ("-c:a libopus -b:a 128k -f ogg", "p"), "spx": ("-c:a libspeex -f ogg", "p"),
    "mp3": ("-c:a libmp3lame -b:a 128k -f mp3", "pj"), "vbr.mp3": ("-c:a libmp3lame -q:a 2 -f mp3", "pj"),
    "bare.mp3": ("-c:a libmp3lame -q:a 4 -write_xing 0 -id3v2_version 0 -f mp3", "pj"), "mp2": ("-c:a mp2 -b:a 192k -f mp2", "pj"),
    "aac": ("-c:a aac -b:a 128k -f adts", "pj"), "m4a": ("-c:a aac -b:a 128k -f ipod", ""), "alac.m4a": ("-c:a alac -f ipod", ""),
    "mov": ("-c:a pcm_s16le -f mov", ""), "mka": ("-c:a libvorbis -f matroska", "p"), "mkv": ("-c:a flac -f matroska", "p"),
    "webm": ("-c:a libopus -f webm", "p"), "wma": ("-c:a wmav2 -b:a 128k -f asf", "p"), "ac3": ("-c:a ac3 -b:a 192k -f ac3", "pj"),
    "avi": ("-c:a libmp3lame -f avi", ""), "wv": ("-c:a wavpack -f wv", ""), "tta": ("-c:a tta -f tta", ""),
    "ts": ("-c:a aac -b:a 128k -f mpegts", "p"), "flv": ("-c:a libmp3lame -f flv", ""),
}  # fmt: skip
RATES_HZ = {"spx": (8000, 16000, 32000), "opus": (48000,), "webm": (48000,), "flv": (11025, 22050, 44100), "ac3": (32000, 44100, 48000),
            "mp2": (32000, 44100, 48000), "avi": (22050, 32000, 44100, 48000)}  # fmt: skip
# whose headers state a length, which a file that was cut off cannot hold
STATING = ("wav", "24.wav", "float.wav", "u8.wav", "law.wav", "ima.wav", "rf64", "w64", "au", "snd", "aiff", "aifc", "caf", "flac", "mp3",
           "vbr.mp3", "m4a", "alac.m4a", "mov", "wv", "tta")  # fmt: skip
MANY = ("wav", "24.wav", "float.wav", "u8.wav", "flac")  # that may have six channels
SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0x7FFFF024)  # what programs leave that write into a pipe
AU_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFF024)  # 0 and 0x80000000 ffmpeg refuses, too


def ffmpeg(*words: object) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-nostdin", "-y", "-v", "error", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    ).stdout  # fmt: skip


def decode_by_ffmpeg(path: Path, rate_hz: int, num_channels: int) -> Wave:
    """The mean of the channels at the file's own rate."""
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "quiet",
        "-i",
        path,
        "-map",
        "0:a:0",
        "-f",
        "f32le",
        "-ar",
        rate_hz,
        "-ac",
        num_channels,
        "-",
    ]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
    both = np.frombuffer(done.stdout[: len(done.stdout) // (4 * num_channels) * 4 * num_channels], np.float32)
    return np.asarray(both.reshape(-1, num_channels).mean(1), np.float32)


def draw(seed: int, rate_hz: int, channels: int, seconds: float) -> Wave:
    """A sound like music, full of tones, that swells and falls."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    tones = [
        sum(np.sin(2 * np.pi * hz * time + rng.uniform(0, 6)) for hz in rng.uniform(80, 0.3 * rate_hz, 5))
        for _ in range(channels)
    ]
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 2 * time)
    return np.stack([0.08 * swell * each + 0.01 * rng.standard_normal(time.size) for each in tones], 1).astype(
        np.float32
    )


def write(path: Path, wave: Wave, rate_hz: int, words: str, *, piped: bool = False) -> bytes:
    """A file as ffmpeg writes it, or as it writes into a pipe, in which it cannot go back to the header."""
    source = path.with_name("source.wav")
    soundfile.write(source, wave, rate_hz, "FLOAT")
    if piped:
        path.write_bytes(ffmpeg("-i", source, *words.split(), "-"))
    else:
        ffmpeg("-i", source, *words.split(), path)
    source.unlink()
    return path.read_bytes()


def spoil_sizes(data: bytes, size: int) -> bytes:
    """A WAV or AU whose header was written before its length was known."""
    at, order = (data.index(b"data") + 4, "little") if data.startswith(b"RIFF") else (8, "big")
    return data[:at] + size.to_bytes(4, "little" if order == "little" else "big") + data[at + 4 :]


def build(path: Path, rng: random.Random) -> tuple[str, int, int, list[bytes]]:
    """An odd file; what was done to it, its rate and channels, and the files that were joined for it."""
    ending, what = path.name.split(".", 1)[1], "whole"
    words, may = KINDS[ending]
    rate_hz = rng.choice(RATES_HZ.get(ending, (16000, 22050, 32000, 44100, 48000)))
    channels = 1 if ending == "spx" else rng.choice((1, 2, 2, 6) if ending in MANY else (1, 2))
    seconds = rng.choice((0.4, 1.0, 2.9876, rng.uniform(0.3, 6)))
    wave = draw(rng.randrange(1 << 30), rate_hz, channels, seconds)
    data, parts = write(path, wave, rate_hz, words), list[bytes]()
    if may and rng.random() < 0.7:
        what = rng.choice(may)
        if what == "p":
            data = write(path, wave, rate_hz, words, piped=True)
        elif what == "s":
            data = spoil_sizes(data, rng.choice(SIZES if "wav" in ending else AU_SIZES))
        else:
            other = draw(rng.randrange(1 << 30), rate_hz, channels, rng.uniform(0.5, 3))
            parts = [data, write(path, other, rate_hz, words)]
            data = b"".join(parts)
    if ending.endswith("mp3") and rng.random() < 0.3:
        data, what = data + b"TAG" + bytes(125), what + ", ID3v1"
    if what == "whole" and rng.random() < 0.15:
        data, what = data[: int(len(data) * rng.uniform(0.4, 0.7))], "cut"
    path.write_bytes(data)
    return f"{ending}: {what}, {seconds:.3f} s, {channels} at {rate_hz} Hz", rate_hz, channels, parts


def cut_out(path: Path, part: bytes) -> Path:
    """One of the files that were joined, beside the whole."""
    alone = path.with_name(f"part{path.suffix}")
    alone.write_bytes(part)
    return alone


def compare(path: Path, rate_hz: int, channels: int, parts: list[bytes]) -> str:
    """What tells the file as it is decoded here from ffmpeg's; "" for nothing, or where a line says what was left out."""
    theirs = decode_by_ffmpeg(path, rate_hz, channels)
    if parts and path.suffix == ".flac":  # of which ffmpeg 5 loses some samples where they meet
        theirs = np.concatenate([decode_by_ffmpeg(cut_out(path, part), rate_hz, channels) for part in parts])
    with Sound(path, sample_rate_hz=rate_hz, max_bytes=1 << 30) as sound:
        ours = to_float(sound.read())
    if abs(sound.duration_s - ours.size / rate_hz) > 1e-3:
        return f"{sound.duration_s:.4f} s are told, {ours.size / rate_hz:.4f} given"
    with Sound(path, sample_rate_hz=rate_hz, max_bytes=1 << 30, length_s=0.25) as part:
        begun = to_float(part.read())
    if abs(part.duration_s - sound.duration_s) > TOLD_S and not sound.note:
        return f"{part.duration_s:.4f} s are told by its beginning, {sound.duration_s:.4f} by the whole"
    num = min(ours.size, theirs.size)
    if sound.note:
        return ""
    if abs(ours.size - theirs.size) > LENGTH_S * rate_hz:
        return f"{ours.size / rate_hz:.4f} s, by ffmpeg {theirs.size / rate_hz:.4f}"
    differences = np.abs(ours[:num] - theirs[:num])
    if parts and path.suffix == ".ogg":  # FFmpeg 5 and 8 fade from one into the other in different ways
        meet = decode_by_ffmpeg(cut_out(path, parts[0]), rate_hz, channels).size
        differences[meet - 256 : meet + 256] = 0
    apart = float(differences.max(initial=0))
    apart = max(apart, float(np.abs(begun - ours[: begun.size]).max(initial=0)))
    level = (
        4 * LEVEL if path.name.endswith("ima.wav") else LEVEL
    )  # which FFmpeg 5 rounds in another way than libsndfile and we
    return f"samples {apart:.2g} apart" if apart > level else ""


@pytest.mark.parametrize("ending", KINDS)
def test_every_kind_is_decoded_as_by_ffmpeg(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    rate_hz = RATES_HZ.get(ending, (44100,))[-1]
    channels = 1 if ending == "spx" else 2
    write(path, draw(1, rate_hz, channels, 2.5), rate_hz, KINDS[ending][0])
    assert compare(path, rate_hz, channels, []) == ""


def test_odd_files_are_decoded_as_by_ffmpeg_or_refused_with_a_reason(tmp_path: Path) -> None:
    rng, faults = random.Random(20), list[str]()
    for number in range(NUM_FILES):
        path = tmp_path / f"{number}.{rng.choice(list(KINDS))}"
        what, rate_hz, channels, parts = build(path, rng)
        try:
            fault = compare(path, rate_hz, channels, parts)
            fault = fault or ("not called truncated" if "cut" in what and path.name.split(".", 1)[1] in STATING else "")
        except AudioError as error:
            fault = "" if "cut" in what else str(error)
        if fault:
            faults.append(f"{number} {what}: {fault}")
        else:
            path.unlink()
    assert not faults, "\n".join(faults)


def make_mp3(path: Path, *waves: Wave, words: str) -> bytes:
    return write(path, np.concatenate(waves), 44100, f"{words} -f mp3")


def read_xing(data: bytes) -> int:
    """Where the first frame says how many frames follow."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    return at + 8


LOUD = draw(3, 44100, 2, 6.0) + 0.2 * np.random.default_rng(3).standard_normal((6 * 44100, 2)).astype(np.float32)
QUIET = 0.01 * draw(4, 44100, 2, 8.0)


@pytest.mark.parametrize("words", ["-q:a 2", "-q:a 9", "-q:a 0 -ac 1"])
def test_vbr_without_a_length_is_read_to_its_end(words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    make_mp3(path, LOUD, QUIET, words=f"{words} -write_xing 0 -id3v2_version 0")
    assert compare(path, 44100, 1 if "-ac 1" in words else 2, []) == ""
    with Sound(path, sample_rate_hz=22050, max_bytes=1 << 30) as sound:
        assert sound.read().size / 22050 == pytest.approx(14.03, abs=0.03)


@pytest.mark.parametrize("num_frames", [1, 100, 1 << 20])
def test_a_wrong_number_of_frames_is_no_length(num_frames: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    data = make_mp3(path, LOUD, words="-q:a 2")
    at = read_xing(data)
    path.write_bytes(data[:at] + num_frames.to_bytes(4, "big") + data[at + 4 :])
    with Sound(path, sample_rate_hz=44100, max_bytes=1 << 30) as sound:
        assert sound.read().size / 44100 == pytest.approx(6.0, abs=0.03)
    path.write_bytes(data[: len(data) * 2 // 3])
    with (
        pytest.raises(AudioError, match="truncated: its header promises 6"),
        Sound(path, sample_rate_hz=44100, max_bytes=1 << 30) as sound,
    ):
        sound.read()


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "a"), ("a", "tag", "b")])
def test_joined_mp3s_are_read_to_their_end(names: tuple[str, ...], tmp_path: Path) -> None:
    files = {
        "a": make_mp3(tmp_path / "a.mp3", draw(5, 44100, 2, 3.0), words="-b:a 128k"),
        "b": make_mp3(tmp_path / "b.mp3", draw(6, 44100, 2, 2.0), words="-b:a 192k"),
        "tag": b"TAG" + bytes(125),
    }
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(files[name] for name in names))
    right = sum({"a": 3.0, "b": 2.0, "tag": 0.0}[name] for name in names)
    with Sound(path, sample_rate_hz=44100, max_bytes=1 << 30) as sound:
        heard = sound.read().size / 44100
    assert heard == pytest.approx(decode_by_ffmpeg(path, 44100, 2).size / 44100, abs=LENGTH_S)
    assert right - 0.03 < heard < right + 0.1 * (len(names) - 1)  # an encoder's delay, where they meet


@pytest.mark.parametrize("num_samples", [0, 150_000, 1 << 35])
def test_a_flac_of_unknown_length_is_read_to_its_end(num_samples: int, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    data = bytearray(write(path, draw(1, 44100, 2, 3.0), 44100, "-c:a flac -f flac"))
    data[21] = (data[21] & 0xF0) | num_samples >> 32
    data[22:26] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(data)
    if num_samples:
        with pytest.raises(AudioError, match=r"truncated|is over the limit"):
            compare(path, 44100, 2, [])
    else:
        assert compare(path, 44100, 2, []) == ""


@pytest.mark.parametrize(
    ("ending", "size"),
    [(ending, size) for ending in ("wav", "float.wav", "au") for size in SIZES if ending != "au" or size in AU_SIZES],
)
def test_a_size_that_a_stream_leaves_behind_means_to_the_end(ending: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(spoil_sizes(write(path, draw(1, 44100, 2, 3.0), 44100, KINDS[ending][0]), size))
    assert compare(path, 44100, 2, []) == ""
    with Sound(path, sample_rate_hz=44100, max_bytes=1 << 30) as sound:
        assert sound.read().size == 3 * 44100
