from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest
from fakes import PATIENCE_S

from parallel_tunes.parallel.launch import Command
from parallel_tunes.parallel.workers import Worker, launcher_settings, plain_command, ranks_command
from parallel_tunes.schema import UserError

ECHO = """
import json, os, subprocess, sys
child = subprocess.Popen(["sleep", "100"])
for line in sys.stdin:
    print(json.dumps({"told": line.strip(), "child": child.pid, "environment": dict(os.environ)}), flush=True)
"""


def python(text: str, **environment: str) -> Command:
    return Command((sys.executable, "-c", text), environment)


def test_a_worker_answers_and_ends_with_all_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "7")
    worker = Worker("echo", python(ECHO, MALLOC_TRIM_THRESHOLD_="5"), tmp_path / "log")
    try:
        answer = worker.ask("go 3")
        assert answer["told"] == "go 3"
        assert answer["environment"]["MALLOC_TRIM_THRESHOLD_"] == "5"
        assert not {"OMP_NUM_THREADS", "MALLOC_TOP_PAD_"} & set(answer["environment"])
        assert worker.ask("again")["told"] == "again"
        assert worker.cpu_s() > 0
        assert psutil.pid_exists(answer["child"])
    finally:
        worker.close()
    assert not psutil.pid_exists(answer["child"])
    assert worker.exit_code == -signal.SIGKILL  # not lost to psutil, which could have waited for it
    worker.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise ValueError('too small')", "w: its process has ended; its last words: ValueError: too small"),
        ("import sys; sys.exit('ptunes: no such thing')", "last words: ptunes: no such thing"),
        ("import time; time.sleep(100)", "w: no answer within 0.5 s; its last words: none"),
    ],
)
def test_workers_that_fail(text: str, says: str, tmp_path: Path) -> None:
    worker = Worker("w", python(text), tmp_path / "log")
    try:
        with pytest.raises(UserError, match=says):
            worker.ask("go 1", timeout_s=0.5 if "sleep" in text else 60)
    finally:
        worker.close()


def test_a_worker_that_nobody_keeps_ends(tmp_path: Path) -> None:
    """Its lines end with the process that would write them."""
    worker = Worker("echo", python("import sys; sys.stdin.read()"), tmp_path / "log")
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(PATIENCE_S) == 0
    worker.close()


def test_settings_are_the_launchers() -> None:
    found = launcher_settings()
    assert {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLOO_SOCKET_IFNAME"} <= set(found)
    assert found["MALLOC_MMAP_THRESHOLD_"] == str(2**32)
    assert found["GLOO_SOCKET_IFNAME"] == "lo"
    assert "OMP_NUM_THREADS" not in found


def test_commands() -> None:
    plain = plain_command("a.b", ["x"], {"Y": "z"})
    assert (plain.words[1:], plain.environment) == (("-m", "a.b", "x"), {"Y": "z"})
    ranks = ranks_command("a.b", ["x"], num_ranks=2, num_threads=3)
    assert ranks.words[-3:] == ("-m", "a.b", "x")
    assert "--nproc-per-node=2" in ranks.words
    assert ranks.environment["OMP_NUM_THREADS"] == "3"
