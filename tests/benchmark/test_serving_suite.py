from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from fakes import door

from parallel_tunes.benchmark.clients import make_post, post_all

POST = make_post("/x", b"sound")


class Answering(BaseHTTPRequestHandler):
    """Answers every third request with 429, and keeps what was sent."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(429 if len(self.seen) % 3 == 0 else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answering) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_clients_post_all_and_tell_each_answer(server: HTTPServer) -> None:
    found = post_all(server.server_port, POST, num_clients=1, num_posts=30)
    assert Answering.seen == [POST.partition(b"\r\n\r\n")[2]] * 30
    assert sorted(found.statuses) == [200] * 20 + [429] * 10
    assert len(found.latencies_s) == 30
    assert 0 < max(found.latencies_s) <= found.seconds


def test_it_makes_its_own_clips(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", "suite=serve", "data.root=music") == 2
    assert "suite=serve makes its own clips" in capsys.readouterr().err


@pytest.mark.slow
def test_real_servers_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("benchmark.repetitions=1", "benchmark.posts=12", "benchmark.clients=4", "benchmark.batches=[1,4]")
    assert door("benchmark", "suite=serve", "run.name=b", *words, cwd=tmp_path) == 0
    folder = tmp_path / "logs/benchmark/b"
    metrics = json.loads((folder / "report.json").read_text())["metrics"]
    assert list(metrics["ratios"]) == ["batch_4_vs_batch_1"]
    for row in metrics["serving"].values():
        assert row["statuses"] == {"200": 24}  # the first round is posted too
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert "serve.max_batch=4: 50 % within" in capsys.readouterr().out
    assert not [path.name for path in folder.iterdir() if path.is_dir()]
