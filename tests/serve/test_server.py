"""One real server, asked over its socket by clients of all kinds; another that is ended under load."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import pytest
import schemathesis
import soundfile
import torch
from fakes import PATIENCE_S, num_unread, start, suspend, tone, wait_until
from hypothesis import HealthCheck, Phase, given, seed, settings
from numpy.typing import NDArray
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from parallel_tunes.audio import front_end
from parallel_tunes.serve.predictor import Predictor

LIMITS = ["serve.max_mib=4", "serve.max_seconds=60", "serve.max_files=3", "serve.max_rows=50", "serve.queue=4",
          "serve.streams=2", "serve.workers=1", "serve.max_batch=16", f"serve.timeout_s={PATIENCE_S}"]  # fmt: skip
SOAK = int(os.environ.get("PT_SOAK", "1"))  # 400 were tried when this was written: 10 000 uploads
UPLOADS = 25 * SOAK
GROWTH = 200 << 20  # bytes of memory that all those may leave behind
FORMATS = {"WAV": "PCM_16", "AU": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}


@dataclass
class Served:
    """A server at work, and what it serves."""

    folder: Path
    process: subprocess.Popen[str]
    url: str
    genre: Path
    relisten: Path

    @property
    def memory(self) -> int:
        """Bytes of it and its decoder, resident."""
        first = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [first, *first.children(recursive=True)])

    @property
    def decoder(self) -> psutil.Process:
        (found,) = psutil.Process(self.process.pid).children()
        return found


@contextlib.contextmanager
def serve(genre: Path, relisten: Path, folder: Path) -> Iterator[Served]:
    """A server of two models, at a port that the system chose; it ends with the block."""
    process = start("serve", f"models=[{genre},{relisten}]", "serve.port=0", "run.name=s", *LIMITS, cwd=folder)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving on http://127.0.0.1:"), line + process.stdout.read()
        yield Served(folder, process, line.split()[-1], genre, relisten)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served(workshop: Path, relisten_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(workshop / "logs/train/tiny/model", relisten_model, tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=PATIENCE_S, trust_env=False) as made:
        yield made


def encode(samples: NDArray[Any], kind: str = "WAV", rate_hz: int = 22050, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


CLIP = encode(tone(440, 2.5))


def post(client: httpx.Client, *files: bytes, **query: Any) -> httpx.Response:
    return client.post("/v1/genre", files=[("file", (f"{n}.wav", data)) for n, data in enumerate(files)], params=query)


def tell(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal, which names no path of the server's."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    sentence: str = answer.json()["error"]
    assert "\n" not in sentence
    assert not any(word in sentence for word in ("/proc", "/tmp", "Traceback", "serve.decoder"))
    return sentence


def count(served: Served, name: str) -> int:
    """One of the counts that the server gives Prometheus, 0 where there is none yet."""
    text = httpx.get(served.url + "/metrics", timeout=PATIENCE_S, trust_env=False).text
    return next((int(float(line.split()[-1])) for line in text.splitlines() if line.startswith(f"{name} ")), 0)


def test_the_service_says_what_predict_says(served: Served, client: httpx.Client, tmp_path: Path) -> None:
    predictor = Predictor(served.genre, torch.device("cpu"), max_bytes=1 << 30)
    for kind in (*FORMATS, "AIFF"):  # the last is too long for memory, and lies on disk
        data = encode(tone(300, 30.0 if kind == "AIFF" else 3.0, 44100) * 0.3, kind, 44100)
        (tmp_path / kind).write_bytes(data)
        (found,) = post(client, data, top_k=10).json()["files"]
        assert found["file"] == "0.wav"
        expected = predictor.predict(tmp_path / kind, 10)
        assert found["duration_s"] == expected["duration_s"]
        assert {entry["label"]: entry["probability"] for entry in found["top"]} == pytest.approx(
            {entry["label"]: entry["probability"] for entry in expected["top"]}, abs=1e-5
        )


def test_the_timeline_covers_the_file_and_its_mean_is_the_answer(client: httpx.Client) -> None:
    answer = post(client, encode(tone(440, 7.3)), top_k=1).json()
    (found,) = answer["files"]
    windows = found["windows"]
    assert windows[0]["start_s"] == 0
    assert windows[-1]["end_s"] == pytest.approx(7.3, abs=0.03)
    for one, next_one in itertools.pairwise(windows):
        assert one["start_s"] < next_one["start_s"] <= one["end_s"]
    mean = np.mean([window["probabilities"] for window in windows], axis=0)
    assert sum(mean) == pytest.approx(1, abs=1e-6)
    best = int(np.argmax(mean))
    assert found["top"] == [{"label": answer["classes"][best], "probability": pytest.approx(mean[best], abs=1e-6)}]


def test_of_several_files_each_has_its_own_answer(client: httpx.Client) -> None:
    first, second, third = post(client, CLIP, b"no audio", CLIP).json()["files"]
    assert first["top"] == third["top"]
    assert second == {"file": "1.wav", "error": second["error"], "status": 415}


def test_levels_are_those_that_the_model_was_given_and_bounded(served: Served, client: httpx.Client) -> None:
    """Each byte is a level to half a step; of a long file the loudest of neighbours."""
    predictor = Predictor(served.genre, torch.device("cpu"), max_bytes=1 << 30)
    for duration_s in (2.5, 30.0):
        wave = tone(440, duration_s) * np.linspace(0.01, 1, int(22050 * duration_s), dtype=np.float32)
        (found,) = post(client, encode(wave, subtype="FLOAT"), levels=True).json()["files"]
        shape = found["levels"]["num_columns"], found["levels"]["num_bands"]
        data = np.frombuffer(base64.b64decode(found["levels"]["data"]), np.uint8).reshape(shape)
        low, high = found["levels"]["low_db"], found["levels"]["high_db"]
        frames = front_end.hear(wave, predictor.features).frames.astype(np.float64)
        num = min(int(np.ceil(duration_s * 22050 / 512)), 400)
        assert shape == (num, 128)
        firsts = np.arange(num) * min(len(frames), int(np.ceil(duration_s * 22050 / 512))) // num
        loudest = np.maximum.reduceat(frames[: int(np.ceil(duration_s * 22050 / 512))], firsts)
        np.testing.assert_allclose(low + data / 255 * (high - low), loudest, atol=(high - low) / 255)
    assert "levels" not in post(client, CLIP).json()["files"][0]


def test_bad_files_are_refused_in_a_sentence(client: httpx.Client) -> None:
    claims = b"".join([CLIP[:40], (2**30).to_bytes(4, "little"), CLIP[44:]])
    for says, status, data in (
        ("no audio", 415, b"text in a file called .wav\n" * 99),
        ("truncated", 422, CLIP[:20000]),
        ("truncated", 422, claims),
        ("serve.max_mib=4", 413, bytes(5 << 20)),
    ):
        assert says in tell(post(client, data), status)
        assert post(client, CLIP).status_code == 200


def test_bad_forms_are_refused_in_a_sentence(client: httpx.Client) -> None:
    assert "serve.max_files=3" in tell(post(client, *[CLIP[:999]] * 4), 413)
    assert "serve.max_files=3" in tell(post(client, *[CLIP[:999]] * 40), 413)
    assert "multipart" in tell(client.post("/v1/genre", content=CLIP), 415)
    assert "no file" in tell(client.post("/v1/genre", files={}, headers={"Content-Type": FORM}), 422)
    assert "field 'path'" in tell(client.post("/v1/genre", data={"path": "/etc/passwd"}, files={"file": CLIP}), 422)
    assert "cannot be read" in tell(client.post("/v1/genre", content=b"x" * 50, headers={"Content-Type": FORM}), 400)
    for top_k in ("0", "-1", "many", "10000000000000000000000"):
        assert "top_k" in tell(post(client, CLIP, top_k=top_k), 422)
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    endless = (piece for piece in [head, *[b"x" * 65536] * 80])  # no length declared
    assert "serve.max_mib=4" in tell(client.post("/v1/genre", content=endless, headers={"Content-Type": FORM}), 413)


def record(samples: NDArray[Any], container: str, codec: str) -> bytes:
    """A recording as telephones (m4a, AAC) and browsers (webm, Opus) make them."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track: Any = file.add_stream(codec, rate=48000, layout="mono")
        resampler = av.AudioResampler(track.format.name, "mono", 48000, track.codec_context.frame_size or 960)
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = 48000
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return stream.getvalue()


def test_recordings_of_telephones_and_browsers_are_taken(client: httpx.Client) -> None:
    for container, codec in (("ipod", "aac"), ("webm", "libopus"), ("adts", "aac"), ("ogg", "libopus"), ("mp4", "aac")):
        (answer,) = post(client, record(tone(440, 2.5, 48000), container, codec)).json()["files"]
        assert answer["duration_s"] == pytest.approx(2.5, abs=0.1), (container, answer)
    assert "WAV, FLAC, MP3" in tell(post(client, b"not audio at all" * 99), 415)


FORM = "multipart/form-data; boundary=b"


def test_a_name_from_a_client_is_no_path(served: Served, client: httpx.Client) -> None:
    for name in ("../../evil.wav", "/etc/passwd", "a\0b.wav", "\N{SNOWMAN}" * 300, "", "x.m4a"):
        answer = client.post("/v1/genre", files={"file": (name or "?", CLIP)})
        assert answer.status_code == 200
        assert len(answer.json()["files"][0]["file"]) <= 255
    written = {path.name for path in served.folder.rglob("*") if path.is_file()}
    # a heartbeat is there after some seconds
    assert written - {"heartbeat"} == {"config.yaml", "decoder.log", "log.txt", "owner.json", "starts.jsonl"}


def rows_of(served: Served, num: int) -> list[dict[str, str]]:
    table = served.relisten.parents[2] / "synth/l/test.csv"
    with table.open(encoding="utf-8") as stream:
        return [row for row, _ in zip(csv.DictReader(stream), range(num), strict=False)]


def test_rows_are_answered_from_json_and_csv_alike(served: Served, client: httpx.Client) -> None:
    rows = rows_of(served, 40)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    by_json = client.post("/v1/relisten", json={"rows": rows})
    by_csv = client.post("/v1/relisten", content=text.getvalue(), headers={"Content-Type": "text/csv; charset=utf-8"})
    assert by_json.status_code == 200, by_json.text
    assert by_json.json() == by_csv.json()
    found = by_json.json()["rows"]
    assert [row["row"] for row in found] == list(range(1, 41))
    assert all(0 < row["probability"] < 1 for row in found)


def test_bad_rows_are_refused_in_a_sentence(client: httpx.Client) -> None:
    for kind, status, says, body in (
        ("application/json", 422, "JSON", b"{"),
        ("application/json", 422, "expected", b"{}"),
        ("application/json", 422, "expected", b'{"rows": []}'),
        ("application/json", 422, "expected", b'{"rows": [1, 2]}'),
        ("application/json", 422, "no column song_id", b'{"rows": [{"msno": "a"}]}'),
        ("application/json", 422, "50 are answered", b'{"rows": [' + b"{}," * 50 + b"{}]}"),
        ("application/json", 422, "surrogate", rb'{"rows": [{"msno": "\ud800", "song_id": "b"}]}'),
        ("application/json", 422, "JSON", b"[" * 40000),
        ("application/json", 413, "1 KiB for each of serve.max_rows=50", b" " * 60000),
        ("text/csv", 422, "body.csv line 3: 1 cells", b"msno,song_id\na,b\nc\n"),
        ("text/csv", 422, "0x81 is no UTF-8", b"msno,song_id\n\x81,b\n"),
        ("text/csv", 422, "the file is empty", b""),
        ("text/plain", 415, "text/csv", b"x"),
    ):
        assert says in tell(client.post("/v1/relisten", content=body, headers={"Content-Type": kind}), status)


def test_what_is_not_served_is_told(client: httpx.Client) -> None:
    assert "no model of task=popularity" in tell(client.post("/v1/popularity", json={"rows": [{}]}), 404)
    assert "nothing at this address" in tell(client.get("/v1/nothing"), 404)
    assert "method" in tell(client.get("/v1/genre"), 405)


def test_the_state_is_told(served: Served, client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    told = client.get("/version").json()
    facts = json.loads((served.genre / "model.json").read_text())
    assert told["models"]["genre"]["front_end"] == facts["fingerprint"]
    assert told["limits"]["max_files"] == 3
    assert str(served.folder) not in json.dumps(told)
    assert 'ptunes_requests_total{endpoint="/version",status="200"}' in client.get("/metrics").text
    assert "<html" in client.get("/").text
    for origin, status in ((served.url, 200), ("http://evil.example", 403)):
        assert client.post("/v1/genre", files={"file": CLIP}, headers={"Origin": origin}).status_code == status
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403


@contextlib.contextmanager
def stream(served: Served, rate_hz: int = 22050, kind: str = "f32", num_open: int = 0) -> Iterator[ClientConnection]:
    """A stream, begun when the server has closed all but `num_open` others."""
    wait_until(lambda: count(served, "ptunes_streams") == num_open)
    with connect(served.url.replace("http", "ws") + "/v1/stream?top_k=10&levels=true", proxy=None) as made:
        made.send(json.dumps({"sample_rate_hz": rate_hz, "format": kind}))
        yield made


def test_a_stream_says_what_a_file_says(served: Served, client: httpx.Client) -> None:
    """The last window of the stream is a window of the file, whatever the rate and format it comes in."""
    window_s = client.get("/version").json()["models"]["genre"]["window_s"]
    for rate_hz, kind in ((22050, "s16"), (44100, "f32")):
        wave = tone(440, 4.0, rate_hz) * np.linspace(0.1, 1, 4 * rate_hz, dtype=np.float32)
        data = wave.tobytes() if kind == "f32" else (wave * 32767).astype("<i2").tobytes()
        with stream(served, rate_hz, kind) as socket:
            for at in range(0, len(data), 10000):
                socket.send(data[at : at + 10000])
            socket.send("end")
            classes, *told = [json.loads(message) for message in socket]
        assert len(classes["classes"]) == 10
        assert [round(moment["at_s"]) for moment in told][:4] == [1, 2, 3, 4]
        assert all(moment["heard_s"] <= window_s for moment in told)
        assert told[-1]["levels"]["num_columns"] == round(window_s * 22050 / 512)
        tail = wave[-round(told[-1]["heard_s"] * rate_hz) :]
        (found,) = post(client, encode(tail, subtype="FLOAT", rate_hz=rate_hz), top_k=10).json()["files"]
        expected = {entry["label"]: entry["probability"] for entry in found["top"]}
        last = {entry["label"]: entry["probability"] for entry in told[-1]["top"]}
        assert last == pytest.approx(expected, abs=0.01)


def test_a_stream_says_why_it_hears_nothing(served: Served) -> None:
    with stream(served) as socket:
        socket.send(np.zeros(22050, np.float32).tobytes())
        socket.send(tone(440, 1.0).tobytes())
        socket.send(np.full(2205, np.nan, np.float32).tobytes())
        socket.send("end")
        _, silent, loud, broken = [json.loads(message) for message in socket]
    assert "silent" in silent["reason"]
    assert loud["top"]
    assert "NaN" in broken["reason"]
    with stream(served) as socket:
        socket.send(tone(440, 0.01).tobytes())
        socket.send("end")
        assert "too short" in [json.loads(message) for message in socket][1]["reason"]


def test_other_words_end_a_stream(served: Served) -> None:
    greeting = '{"sample_rate_hz": 22050, "format": "f32"}'
    ends: list[tuple[list[str | bytes], int, str | None]] = [
        (["hello"], 1008, "begin with"),
        ([b"\0" * 8], 1008, "begin with"),
        ([greeting, "more"], 1008, "bytes, or the text `end`"),
        ([greeting, b"123"], 1008, "within a sample"),
        ([greeting, bytes(1 << 19)], 1009, None),
    ]
    for words, code, says in ends:
        wait_until(lambda: count(served, "ptunes_streams") == 0)
        with connect(served.url.replace("http", "ws") + "/v1/stream", proxy=None) as socket:
            for word in words:
                socket.send(word)
            told: list[Any] = []
            with pytest.raises(ConnectionClosed) as caught:
                told.extend(json.loads(socket.recv(timeout=PATIENCE_S)) for _ in itertools.count())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == code
        if says:
            assert says in told[-1]["error"]


def test_streams_are_refused_before_they_begin(served: Served) -> None:
    url = served.url.replace("http", "ws") + "/v1/stream"
    with pytest.raises(InvalidStatus) as caught, connect(url, proxy=None, origin=Origin("http://evil.example")):
        pass
    assert caught.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as caught, connect(url + "?top_k=0", proxy=None):
        pass
    assert caught.value.response.status_code == 422
    assert b"top_k" in (caught.value.response.body or b"")
    with stream(served), stream(served, num_open=1):
        wait_until(lambda: count(served, "ptunes_streams") == 2)
        with pytest.raises(InvalidStatus) as caught, connect(url, proxy=None):
            pass
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"]
    with stream(served):
        pass


def test_a_full_queue_says_when_to_come_again(served: Served, client: httpx.Client) -> None:
    """With the decoder asleep, as many requests as the queue takes wait, and one more is told so at once."""
    suspend(served.decoder)
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=PATIENCE_S, trust_env=False) as other:
            answers.append(post(other, CLIP).status_code)

    waiting = [threading.Thread(target=ask) for _ in range(4)]
    try:
        for thread in waiting:
            thread.start()
        wait_until(lambda: count(served, "ptunes_requests_in_flight") == 4)
        refused = post(client, CLIP)
        assert "come again" in tell(refused, 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/health").status_code == 200
    finally:
        served.decoder.resume()
    for thread in waiting:
        thread.join()
    assert answers == [200] * 4


def test_the_death_of_the_decoder_fails_one_request(served: Served, client: httpx.Client) -> None:
    name = 'ptunes_decoder_ends_total{cause="death"}'
    before, answers = count(served, name), []
    assert post(client, CLIP).status_code == 200  # it has a process now
    decoder = served.decoder
    suspend(decoder)
    asking = threading.Thread(target=lambda: answers.append(post(client, CLIP)))
    asking.start()
    wait_until(lambda: num_unread(decoder.pid))
    decoder.kill()
    asking.join()
    assert "has died" in tell(answers[0], 503)
    assert post(client, CLIP).status_code == 200
    assert count(served, name) == before + 1


def spoil(whole: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, most in the header; or a part cut out, doubled or put in."""
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(0, min(len(data), 128 if rng.random() < 0.7 else len(data)) or 1))
        kind, size = int(rng.integers(0, 4)), int(rng.integers(1, 9))
        if kind == 0:
            data[at : at + size] = rng.bytes(size)
        elif kind == 1:
            data[at : at + size] = [b"\xff" * size, b"\0" * size, (2**31).to_bytes(4, "little")][
                int(rng.integers(0, 3))
            ]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, len(data) + 1))]
        else:
            data[at:at] = data[at : at + 64 * size]
    return bytes(data)


def test_fuzzed_uploads_are_answered_or_refused(served: Served, client: httpx.Client) -> None:
    """Whatever bytes come: no 500, no hang, no death of the server, no memory that stays."""
    rng = np.random.default_rng(0)
    wave = tone(440, 1.0, 16000) * 0.5
    whole = [encode(wave, kind, 16000, subtype) for kind, subtype in FORMATS.items()]
    statuses: Counter[int] = Counter()
    before = served.memory
    for number in range(UPLOADS):
        answer = post(client, spoil(whole[number % len(whole)], rng))
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 415, 422, 503), answer.text
    assert served.process.poll() is None
    assert served.memory - before < GROWTH
    assert statuses[422] + statuses[415] > UPLOADS / 4
    print(f"{dict(statuses)}, {(served.memory - before) >> 20} MiB more")
    assert post(client, CLIP).status_code == 200


def test_the_service_keeps_to_its_openapi(served: Served) -> None:
    """Whatever fits the description has an answer that fits it too; what makes a file or a table good is beyond it."""
    api = schemathesis.openapi.from_url(served.url + "/openapi.json")
    tried: Counter[str] = Counter()
    for found in api.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @seed(0)
        @settings(
            max_examples=SOAK * 3,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            answer = case.call()
            is_open = case.path in ("/v1/genre", "/v1/popularity") or case.media_type == "text/csv"
            case.validate_response(answer, excluded_checks=[positive_data_acceptance] if is_open else [])
            tried[case.path] += 1

        check()
    assert {"/v1/genre", "/v1/relisten", "/v1/popularity", "/version", "/metrics"} <= set(tried)


def talk_on(socket: ClientConnection) -> None:
    """Until the other end closes."""
    while True:
        socket.send(tone(440, 0.05).tobytes())
        time.sleep(0.01)


@pytest.mark.slow
def test_sigterm_loses_no_accepted_request(workshop: Path, relisten_model: Path, tmp_path: Path) -> None:
    """Under load: every answer that the server counts has arrived, and none is half of one; then comes the report."""
    seen: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as own:
            while True:
                try:
                    answer = post(own, CLIP)
                except httpx.TransportError:  # the server is closed; what it was closed before is not counted either
                    return
                assert answer.json()
                with lock:
                    seen[answer.status_code] += 1

    with serve(workshop / "logs/train/tiny/model", relisten_model, tmp_path) as served:
        clients = [threading.Thread(target=ask, args=(served.url,)) for _ in range(4)]
        for thread in clients:
            thread.start()
        wait_until(lambda: seen[200] > 8)
        with stream(served) as socket:
            socket.send(tone(440, 1.0).tobytes())
            assert [json.loads(socket.recv(PATIENCE_S)) for _ in range(2)][1]["top"]
            served.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as caught:
                talk_on(socket)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012  # the service restarts, or so clients may hope
        for thread in clients:
            thread.join(PATIENCE_S)
        said, _ = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0, said
    assert said.splitlines()[-1] == "report: logs/serve/s/report.json"
    assert "Traceback" not in said
    report = json.loads((tmp_path / "logs/serve/s/report.json").read_text())
    assert (report["status"], report["stopped_by"]) == ("complete", "SIGTERM")
    found = report["metrics"]["endpoints"]["/v1/genre"]
    assert found["statuses"]["200"] == seen[200]
    assert set(seen) <= {200, 429, 503}
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert not psutil.pid_exists(served.process.pid)
