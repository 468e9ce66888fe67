from __future__ import annotations

import contextlib
import io
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import pytest
import soundfile
from fakes import PATIENCE_S, num_unread, suspend, tone, wait_until
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
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "parallel_tunes.serve.decoder" in child.cmdline():
                found.append(child)
    return found


def ready(decoders: Decoders, file: IO[bytes]) -> psutil.Process:
    """The one process, once it has decoded a file."""
    put(decoders, file).result(PATIENCE_S)
    (process,) = processes()
    return process


def write(tmp_path: Path, data: bytes) -> IO[bytes]:
    (tmp_path / "x").write_bytes(data)
    return (tmp_path / "x").open("rb")


def put(decoders: Decoders, file: IO[bytes], within_s: float = PATIENCE_S) -> Future[Frames]:
    return decoders.submit(file, time.monotonic() + within_s)


def encode(samples: NDArray[Any], kind: str = "WAV", subtype: str | None = None, rate_hz: int = 22050) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


def refusal(decoders: Decoders, file: IO[bytes], within_s: float = PATIENCE_S) -> Refusal:
    with pytest.raises(Refusal) as caught:
        put(decoders, file, within_s).result(PATIENCE_S)
    return caught.value


def test_frames_are_those_of_training(decoders: Decoders, tmp_path: Path) -> None:
    for kind in ("WAV", "FLAC", "MP3"):
        with write(tmp_path, encode(tone(440, 3.0, 44100), kind, rate_hz=44100)) as file:
            found = put(decoders, file).result(PATIENCE_S)
        clip = front_end.extract(tmp_path / "x", FEATURES, max_bytes=1 << 30)
        np.testing.assert_array_equal(found.levels, clip.frames)
        assert found.duration_s == clip.source.duration_s


BAD: dict[str, tuple[int, Callable[[], bytes]]] = {
    "not recognised": (415, lambda: b"this is no audio\n" * 50),
    "empty file": (415, lambda: b""),
    "truncated: its header promises": (422, lambda: encode(tone(440, 2.0))[:30000]),
    "samples are NaN": (422, lambda: encode(np.full(22050, np.nan, np.float32), subtype="FLOAT")),
    "silent": (422, lambda: encode(np.zeros(22050, np.float32))),
    "too short": (422, lambda: encode(tone(440, 0.01))),
    "1.0 h is over the limit of 300 s": (422, lambda: encode(np.zeros(8000 * 3600, np.int16), "FLAC", rate_hz=8000)),
    "takes more memory": (422, lambda: encode(np.zeros((8000 * 270, 8), np.int16), "FLAC", rate_hz=8000)),
    "33 channels": (422, lambda: encode(tone(440, channels=33))),
}


def test_bad_uploads_have_a_status_and_a_sentence(decoders: Decoders, deaths: list[str], tmp_path: Path) -> None:
    """Among them two bombs: small files of an hour of silence, and of more samples than fit the memory of a decoder."""
    before = list(deaths)
    for says, (status, make) in BAD.items():
        with write(tmp_path, make()) as file:
            refused = refusal(decoders, file)
        assert (refused.status, says in refused.sentence) == (status, True), refused.sentence
        assert str(tmp_path) not in refused.sentence
        assert "/proc" not in refused.sentence
    assert deaths == before


def test_a_process_is_bounded(decoders: Decoders, tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        process = ready(decoders, file)
    soft_s, _ = process.rlimit(psutil.RLIMIT_CPU)
    times = process.cpu_times()
    assert 0 < soft_s - int(times.user + times.system) <= CFG.decode_cpu_s + 1
    most, _ = process.rlimit(psutil.RLIMIT_AS)
    assert CFG.decode_mib << 20 <= most < 4 << 30
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] < 32 << 20


def test_a_process_that_dies_fails_its_upload_and_no_other(
    decoders: Decoders, deaths: list[str], tmp_path: Path
) -> None:
    for number, status, says, cause in (
        (signal.SIGKILL, 503, "has died; try once more", "death"),
        (signal.SIGXCPU, 422, "more than 7 s of CPU time", "cpu"),  # as the system does, at the bound
    ):
        with write(tmp_path, encode(tone(440))) as file:
            process = ready(decoders, file)
            suspend(process)
            doomed, next_one = put(decoders, file), put(decoders, file)
            wait_until(partial(num_unread, process.pid))
            process.send_signal(number)
            process.resume()
            with pytest.raises(Refusal, match=says) as caught:
                doomed.result(PATIENCE_S)
            assert caught.value.status == status
            assert len(next_one.result(PATIENCE_S).levels)
        assert deaths[-1] == cause
        (other,) = processes()
        assert other.pid != process.pid


def test_one_that_hangs_is_ended(decoders: Decoders, deaths: list[str], tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        process = ready(decoders, file)
        before = deaths.count("hang")
        suspend(process)
        for doubled in itertools.count():  # of a busy machine the deadline may pass before the process is asked
            assert refusal(decoders, file, within_s=0.5 * 2**doubled).status == 503
            if deaths.count("hang") > before:
                break
    process.wait(PATIENCE_S)


def test_one_that_died_between_two_uploads_fails_none(decoders: Decoders, deaths: list[str], tmp_path: Path) -> None:
    with write(tmp_path, encode(tone(440))) as file:
        process = ready(decoders, file)
        process.kill()
        process.wait(PATIENCE_S)
        assert len(put(decoders, file).result(PATIENCE_S).levels)
    assert deaths[-1] == "ended"
