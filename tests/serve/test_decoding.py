from __future__ import annotations

import fcntl
import io
import os
import signal
import struct
import termios
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import pytest
import soundfile
from fakes import tone, wait_until
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.schema import build, defaults
from parallel_tunes.serve.decoding import Decoders, Frames
from parallel_tunes.serve.refusals import Refusal

FEATURES = replace(build(FeaturesConfig, defaults("features", "logmel")), clip_s=None, pad=False)
CFG = replace(
    build(ServeConfig, defaults("serve", "default")), workers=1, max_seconds=300.0, decode_mib=64, decode_cpu_s=7
)
SOON_S = 300.0  # of a machine with much to do


@pytest.fixture(scope="module")
def deaths() -> list[str]:
    return []


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory, deaths: list[str]) -> Iterator[Decoders]:
    made = Decoders(CFG, FEATURES, tmp_path_factory.mktemp("decoding") / "log", deaths.append)
    yield made
    made.close()
    assert not processes()


def processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "parallel_tunes.serve.decoder" in child.cmdline()]


def num_told(process: psutil.Process) -> int:
    """Bytes on its standard input that it has not read."""
    with Path(f"/proc/{process.pid}/fd/0").open("rb") as pipe:
        (num,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(num)


def write(tmp_path: Path, data: bytes) -> IO[bytes]:
    (tmp_path / "x").write_bytes(data)
    return (tmp_path / "x").open("rb")


def put(decoders: Decoders, file: IO[bytes], within_s: float = SOON_S) -> Future[Frames]:
    return decoders.submit(file, time.monotonic() + within_s)


def encode(samples: NDArray[Any], kind: str = "WAV", subtype: str | None = None, rate_hz: int = 22050) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


def refusal(decoders: Decoders, file: IO[bytes], within_s: float = SOON_S) -> Refusal:
    with file, pytest.raises(Refusal) as caught:
        put(decoders, file, within_s).result(SOON_S)
    return caught.value


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AU"])
def test_frames_are_those_of_training(kind: str, decoders: Decoders, tmp_path: Path) -> None:
    data = encode(tone(440, 3.0, 44100), kind, rate_hz=44100)
    with write(tmp_path, data) as file:
        found = put(decoders, file).result(SOON_S)
    clip = front_end.extract(tmp_path / "x", FEATURES, max_bytes=1 << 30)
    np.testing.assert_array_equal(found.levels, clip.frames)
    assert found.duration_s == clip.source.duration_s


@pytest.mark.parametrize(
    ("status", "says", "data"),
    [
        (415, "not recognised", b"this is no audio\n" * 50),
        (415, "empty file", b""),
        (422, "truncated: its header promises", encode(tone(440, 2.0))[:30000]),
        (422, "samples are NaN", encode(np.full(22050, np.nan, np.float32), subtype="FLOAT")),
        (422, "silent", encode(np.zeros(22050, np.float32))),
        (422, "too short", encode(tone(440, 0.01))),
        (422, "1.0 h is over the limit of 300 s", encode(np.zeros(8000 * 3600, np.int16), "FLAC", rate_hz=8000)),
        (422, "takes more memory", encode(np.zeros((8000 * 270, 8), np.int16), "FLAC", rate_hz=8000)),
        (422, "33 channels", encode(tone(440, channels=33))),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_bad_uploads_have_a_status_and_a_sentence(
    status: int, says: str, data: bytes, decoders: Decoders, deaths: list[str], tmp_path: Path
) -> None:
    before = list(deaths)
    refused = refusal(decoders, write(tmp_path, data))
    assert (refused.status, says in refused.sentence) == (status, True), refused.sentence
    assert str(tmp_path) not in refused.sentence
    assert "/proc" not in refused.sentence
    assert deaths == before


def test_a_process_is_bounded(decoders: Decoders, tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        put(decoders, file).result(SOON_S)
    (process,) = processes()
    soft_s, _ = process.rlimit(psutil.RLIMIT_CPU)
    times = process.cpu_times()
    assert 0 < soft_s - int(times.user + times.system) <= CFG.decode_cpu_s + 1
    most, _ = process.rlimit(psutil.RLIMIT_AS)
    assert CFG.decode_mib << 20 <= most < 4 << 30
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] < 32 << 20


@pytest.mark.parametrize(
    ("number", "status", "says", "cause"),
    [
        (signal.SIGKILL, 503, "has died; try once more", "death"),
        (signal.SIGXCPU, 422, "more than 7 s of CPU time", "cpu"),  # as the system does, at the bound
    ],
)
def test_a_process_that_dies_fails_its_upload_and_no_other(
    number: signal.Signals, status: int, says: str, cause: str, decoders: Decoders, deaths: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path, encode(tone(440)))
    (process,) = processes()
    process.suspend()
    doomed, next_one = put(decoders, file), put(decoders, file)
    wait_until(lambda: num_told(process), SOON_S)
    process.send_signal(number)
    process.resume()
    with pytest.raises(Refusal, match=says) as caught:
        doomed.result(SOON_S)
    assert caught.value.status == status
    assert len(next_one.result(SOON_S).levels)
    assert deaths[-1] == cause
    (other,) = processes()
    assert other.pid != process.pid
    file.close()


def test_one_that_hangs_is_ended(decoders: Decoders, deaths: list[str], tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        (process,) = processes()
        os.kill(process.pid, signal.SIGSTOP)
        refused = refusal(decoders, file, within_s=0.5)
    assert (refused.status, deaths[-1]) == (503, "hang")
    process.wait(SOON_S)


def test_one_that_died_between_two_uploads_fails_none(decoders: Decoders, deaths: list[str], tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        put(decoders, file).result(SOON_S)
        (process,) = processes()
        process.kill()
        process.wait(SOON_S)
        assert len(put(decoders, file).result(SOON_S).levels)
    assert deaths[-1] == "ended"
