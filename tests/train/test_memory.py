from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from fakes import PATIENCE_S, TINY, corpus_of, door, launch, wait_until
from hypothesis import given
from hypothesis import strategies as st

from parallel_tunes.train.learner import Batch
from parallel_tunes.train.memory import largest, list_left

WIDE = ["model.widths=[32,32,32,32]", "task.crop_s=1", "split.train=0.5", "split.valid=0.25", "split.test=0.25"]

# whole clips: a step of many takes more than judging eight
WHOLE = [
    "model.widths=[32,32,32,32]",
    "model.texture=false",
    "task.crop_s=2.1",
    "split=stratified",
    "split.train=0.8",
    "split.valid=0.1",
    "split.test=0.1",
]


def words(workshop: Path, name: str, *more: str) -> list[str]:
    return ["train", *corpus_of(workshop), "train.num_epochs=1", f"run.name={name}", *more]


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_the_largest_that_fits_is_found(limit: int, most: int) -> None:
    tried = []

    def fits(num: int) -> bool:
        tried.append(num)
        return num <= limit

    found = largest(fits, most)
    assert found <= min(limit, most)
    assert found == most or found + found // 16 + 1 >= limit
    assert len(tried) <= 14
    assert min(tried) > 0


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(version: int, tmp_path: Path) -> None:
    """The nearest is that of the job, two groups above this process's own, which has none."""
    kind, names = (
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
        if version == 1
        else ("", ("memory.max", "memory.current"))
    )
    listing = tmp_path / "cgroup"
    listing.write_text("12:cpu,cpuacct:/elsewhere\n" + f"{'5:memory' if kind else '0:'}:/slurm/job_7/step_0/task_0\n")
    job = tmp_path / "groups" / kind / "slurm/job_7"
    (job / "step_0/task_0").mkdir(parents=True)
    for folder, limit, used in (
        (job, "1000000", 700000),
        (job / "step_0/task_0", "max" if version == 2 else str(2**63 - 4096), 600000),
    ):
        (folder / names[0]).write_text(limit + "\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text("total_inactive_file 50000\n" if kind else "anon 3\ninactive_file 50000\n")
    assert min(list_left(listing, tmp_path / "groups")) == 350000
    assert list(list_left(tmp_path / "none", tmp_path / "groups")) == []


def test_a_batch_over_and_over() -> None:
    numbers = torch.arange(3)
    batch = Batch(numbers.float().reshape(3, 1, 1), numbers, torch.ones(3), numbers, 3, numbers).repeat(7)
    assert batch.targets.tolist() == batch.keys.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batch.num_global == 7


def test_auto_takes_all_where_all_fit_and_the_run_keeps_it(workshop: Path) -> None:
    assert door(*words(workshop, "auto", *TINY, "train.batch=auto"), cwd=workshop) == 0
    folder = workshop / "logs/train/auto"
    report = json.loads((folder / "report.json").read_text())
    newest = max((folder / "checkpoints").glob("step-*.pt"), key=lambda path: path.stat().st_mtime_ns)
    kept = torch.load(newest, weights_only=True)["progress"]["batch"]
    assert report["global_batch"] == kept == report["split"]["tracks"]["train"] == report["metrics"]["train"]["n"]
    assert report["steps"] == 1


@pytest.mark.slow
def test_what_one_rank_has_no_memory_for_is_refused_on_all(workshop: Path) -> None:
    """The last of two ranks may take less than the batch needs; what would fit is said, and is what `auto` takes."""
    script = str(Path(__file__).with_name("limited.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, "36"]
    environment = launch()[1] | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    said = {}
    for batch in ("60", "auto"):
        given_words = words(workshop, f"limited-{batch}", *WHOLE, f"train.batch={batch}")
        done = subprocess.run(
            [*command, *given_words], cwd=workshop, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert (done.returncode == 0) == (batch == "auto"), done.stdout + done.stderr
        said[batch] = done.stdout + done.stderr
    (line,) = re.findall(r"^ptunes: (?!warning).*", said["60"], re.MULTILINE)
    fitting = re.search(
        r"does not fit into the memory of 2 x cpu .*; train.batch=(\d+) would, or train.accumulate=(\d+)$", line
    )
    assert fitting, line
    chosen = json.loads((workshop / "logs/train/limited-auto/report.json").read_text())["global_batch"]
    assert f"train.batch=auto: {chosen}, which fits" in said["auto"]
    assert 0.6 * int(fitting[1]) <= chosen <= int(fitting[1]) < 60


@pytest.mark.slow
def test_a_rank_that_runs_out_of_memory_in_the_middle_says_so_and_ends_all(workshop: Path) -> None:
    given_words = words(workshop, "starved", *WIDE, "train.batch=8", "train.num_epochs=100000", "train.patience=100000")
    command, environment = launch(*given_words, ranks=2)
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # each step asks the system for memory anew
    output = workshop / "starved.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=workshop, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        curves = workshop / "logs/train/starved/metrics.jsonl"
        wait_until(lambda: curves.exists() and len(curves.read_text().splitlines()) > 2, what="three epochs")
        (starved,) = (each for each in psutil.Process(process.pid).children() if each.environ().get("RANK") == "1")
        starved.rlimit(resource.RLIMIT_AS, (2**28, 2**28))
        assert process.wait(timeout=PATIENCE_S) != 0
    finally:
        if process.poll() is None:
            for each in psutil.Process(process.pid).children(recursive=True):  # in groups of their own
                each.kill()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line for line in output.read_text().splitlines() if line.startswith("ptunes: ")]
    assert lines == [
        "ptunes: rank 1: out of memory on cpu (1 thread a rank): take a smaller batch or model, or ask for more memory"
    ]
    report = json.loads((workshop / "logs/train/starved/report.json").read_text())
    assert report["status"] == "failed"
    checkpoints = list((workshop / "logs/train/starved/checkpoints").glob("step-*.pt"))
    assert (
        torch.load(max(checkpoints, key=lambda path: path.stat().st_mtime_ns), weights_only=True)["progress"][
            "total_step"
        ]
        > 0
    )
