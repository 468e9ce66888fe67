"""Signals are heard in waits that would else go on for ten minutes, and a rank that never comes is named."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fakes import PATIENCE_S, ROOT, TINY, corpus_of, launch, suspend, tone, wait_until, write_audio, write_tree

HEARD_S = 300  # half of parallel.timeout_s, when they would end by themselves
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As the README starts two ranks."""
    return subprocess.run(
        ["bash", str(ROOT / "hpc/torchrun.sh"), "2", *words], cwd=cwd, env=launch()[1] | {"PT_NUM_RANKS": "2"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def start_alone(rank: int, port: int, cwd: Path) -> subprocess.Popen[str]:
    """A rank of two whose other never comes, as with variables that another launcher has left behind."""
    left = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    command, environment = launch("train", "data.root=music")
    environment |= {**left, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)


def find_port() -> int:
    """A free port that the system gives nobody by itself, in the seconds until it is taken."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.mark.parametrize("number", STOPS)
def test_the_first_rank_waits_for_the_others_and_hears_signals(number: signal.Signals, tmp_path: Path) -> None:
    port = find_port()
    with start_alone(0, port, tmp_path) as process:
        mine = psutil.Process(process.pid)

        def is_listening() -> bool:
            return process.poll() is not None or any(each.laddr.port == port for each in mine.net_connections("tcp"))

        wait_until(is_listening, what="the store")
        process.send_signal(number)
        _, errors = process.communicate(timeout=HEARD_S)
    where = f"ptunes: interrupted: rank 1 of 2 did not come to 127.0.0.1:{port}; unset RANK and WORLD_SIZE"
    assert errors.splitlines()[-1].startswith(where)
    assert process.returncode == 130


def test_the_other_ranks_wait_for_the_first_and_hear_signals(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # which takes the call, and never answers
        server.settimeout(PATIENCE_S)
        with start_alone(1, server.getsockname()[1], tmp_path) as process:
            call, _ = server.accept()
            process.terminate()
            _, errors = process.communicate(timeout=HEARD_S)
        call.close()
    assert errors.splitlines()[-1].startswith("ptunes: interrupted: rank 0 of 2 did not come to ")
    assert process.returncode == 130


def test_variables_of_half_a_launcher_are_one_line(tmp_path: Path) -> None:
    command, environment = launch("train", "data.root=music")
    environment |= {"RANK": "0", "WORLD_SIZE": "2"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "WORLD_SIZE=2 is set, but no MASTER_ADDR: unset RANK and WORLD_SIZE" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPS)
def test_a_rank_that_waits_for_a_stopped_one_hears_signals(number: signal.Signals, workshop: Path) -> None:
    name = f"waits-{number.name}"
    endless = ["train.num_epochs=9999", "train.patience=9999"]
    command, environment = launch("train", *corpus_of(workshop), *TINY, *endless, f"run.name={name}", ranks=2)
    process = psutil.Popen(command, cwd=workshop, env=environment, stdout=-1, stderr=-1, text=True)
    ranks = dict[int, psutil.Process]()
    try:
        metrics = workshop / "logs/train" / name / "metrics.jsonl"
        wait_until(lambda: metrics.exists() or process.poll() is not None, what="training")
        ranks = {int(child.environ()["RANK"]): child for child in process.children()}
        suspend(ranks[1])
        ranks[0].send_signal(number)
        _, errors = process.communicate(timeout=HEARD_S)
    finally:
        left = [each for each in [process, *ranks.values()] if each.is_running()]
        for each in left:
            each.kill()
    assert not left
    (line,) = (line for line in errors.splitlines() if line.startswith("ptunes: interrupted"))
    assert f"while rank 1 (host {socket.gethostname()}, process {ranks[1].pid}) did not answer" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["train", "train.lrr=1"], "unknown key train.lrr"),
        (["synth"], "synth runs in one process: start it without torchrun"),
    ],
)
def test_what_the_user_can_mend_is_one_line_under_torchrun(words: list[str], says: str, tmp_path: Path) -> None:
    """Whether rank 0 finds it out, or every rank."""
    done = torchrun(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"ptunes: {says}")


@pytest.mark.slow
def test_the_first_rank_makes_shards_while_the_others_wait(tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=6)
    done = torchrun("train", "data.root=music", *TINY, "run.name=a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "logs/preprocess").iterdir())) == 1
    assert (tmp_path / "logs/train/a/model").is_dir()
    for label in ("a", "b"):
        write_audio(tmp_path / "bad" / label / "short.wav", tone(440, 0.1))
    done = torchrun("train", "data.root=bad", *TINY, "run.name=b", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none of the 2 files gives features; the first, a/short.wav: too short" in done.stderr


def test_a_rank_that_dies_is_said_by_torchrun_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "parallel_tunes").mkdir()
    (tmp_path / "parallel_tunes/__main__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    words = ["--standalone", "--nproc-per-node=1", str(tmp_path / "parallel_tunes/__main__.py")]
    done = subprocess.run(
        [sys.executable, "-m", "parallel_tunes.parallel.torchrun", *words], cwd=ROOT, env=launch()[1],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "torchrun: rank 0 (process " in done.stderr
    assert ") was killed by SIGSEGV\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["preprocess", "data.root=music", "run.name=a"]])
def test_nobody_reads_what_is_printed(words: list[str], tmp_path: Path) -> None:
    """`ptunes … | head -1`, of which head has ended before the first line."""
    write_tree(tmp_path / "music", num_tracks=2)
    command, environment = launch(*words)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "")
