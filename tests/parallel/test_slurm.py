from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import PATIENCE_S

from parallel_tunes.parallel import batch, partitions, slurm
from parallel_tunes.parallel.slurm import Allocation
from parallel_tunes.schema import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:30", 30), ("05:00", 300), ("1:02:03", 3723), ("2-00:00:00", 172800), ("1-12", 129600), ("1-12:30", 131400), ("UNLIMITED", None)],
)  # fmt: skip
def test_times_as_slurm_writes_them(text: str, seconds: float | None) -> None:
    assert slurm.parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("1d12h", 129600),
        ("30", 1800),
        ("10:30", 630),
        ("02:00:00", 7200),
        ("1-12", 129600),
    ],
)
def test_times_as_people_write_them(text: str, seconds: int) -> None:
    assert partitions.parse_time(text) == seconds
    assert slurm.parse_seconds(partitions.say_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "two hours", "2x", "h2", "-5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"resources\.time="):
        partitions.parse_time(text)


@pytest.mark.parametrize(
    ("task", "low", "high", "count", "step", "share"),
    [(0, 0, 7, 8, 1, (0, 8)), (7, 0, 7, 8, 1, (7, 8)), (12, 10, 14, 3, 2, (1, 3)), (5, 5, 5, 1, 1, (0, 1)), (3, 1, 7, 3, 1, (0, 1))],
)  # fmt: skip
def test_an_array_task_knows_its_share(
    task: int, low: int, high: int, count: int, step: int, share: tuple[int, int]
) -> None:
    """With gaps, or alone, a task does whatever is missing."""
    env = {"TASK_ID": task, "TASK_MIN": low, "TASK_MAX": high, "TASK_COUNT": count, "TASK_STEP": step}
    assert slurm.array_share({f"SLURM_ARRAY_{name}": str(value) for name, value in env.items()}) == share
    assert slurm.array_share({}) is None


def test_an_allocation_counts_ranks_by_gpus_then_by_tasks() -> None:
    allocation = Allocation(
        job="41234", restart=0, nodes=("a", "b"), gpus_per_node=4, cpus_per_node=8, tasks_per_node=2, port=20001
    )
    assert (allocation.ranks_per_node, allocation.num_ranks) == (4, 8)
    assert replace(allocation, gpus_per_node=0).num_ranks == 4


def test_ports_differ_between_jobs_and_between_clusters() -> None:
    ports = [slurm.rendezvous_port(job, conf) for job in ("7", "8") for conf in ("/a/slurm.conf", "/b/slurm.conf")]
    assert len(set(ports)) == 4
    assert all(20000 <= port < 40000 for port in ports)


@pytest.mark.parametrize("word", ["run.name=a\nrm -rf x", "data.root=a\rb"])
def test_a_line_break_in_a_word_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch.main(["train", word]) == 2
    assert "line break" in capsys.readouterr().err


def test_a_batch_process_outside_of_a_job_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert batch.main(["train"]) == 2
    assert "sbatch slurm/train.sbatch" in capsys.readouterr().err


def test_how_a_run_ended_is_read_from_its_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert batch.read_status(report) == "failed"
    report.write_text('{"status": "preempted"}')
    assert batch.read_status(report) == "preempted"
    report.write_text("{")
    assert batch.read_status(report) == "failed"


def test_a_command_that_is_missing_or_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="false: exit code 1"):
        slurm.ask("false")
    with pytest.raises(UserError, match="not on PATH"):
        slurm.ask("no-such-command-of-slurm")


def test_a_job_outlives_usr1_from_its_first_moment_to_its_last() -> None:
    """Slurm's USR1 is passed on again and again: before the job listens, and while it ends, it must not kill it."""
    job = """
import os, signal
from parallel_tunes.run import Stop
from parallel_tunes.session import heed_signals
def tell():
    os.kill(os.getpid(), signal.SIGUSR1)
tell()
stop = Stop()
with heed_signals(stop, finishes_step=True):
    tell()
    print(stop.signal_name)
tell()
print("the end")
"""

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*words, sys.executable, "-c", job]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    assert start(*batch.DEAF).stdout.splitlines() == ["SIGUSR1", "the end"]
    assert start().returncode == -signal.SIGUSR1
