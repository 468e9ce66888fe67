"""Engines and their controller die; what is found afterwards is what an undisturbed run gives."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import deadly
import psutil
import pytest
from fakes import PATIENCE_S, ptunes, start, tone, wait_until, write_audio, write_tree
from test_engines import tasks

from parallel_tunes import shard_work
from parallel_tunes.parallel.dispatch import is_alive
from parallel_tunes.parallel.engines import Engines, map_tasks

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("PT_SOAK", "1"))  # 20 were tried when this was written


def test_a_file_that_kills_two_engines_is_left_out_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    write_audio(write_tree(tmp_path / "tree") / "high/poison.wav", tone(500, 1.2))
    told: list[int] = []
    said: list[str] = []
    made = list(
        map_tasks(
            deadly.make_shard,
            tasks(tmp_path / "tree", tmp_path / "a"),
            engines=Engines(2),
            advance=told.append,
            say=said.append,
        )
    )
    failed = [failure for shard in made for failure in shard.failed]
    assert [failure.path for failure in failed] == ["high/poison.wav"]
    assert "kills the engine" in failed[0].reason
    assert sum(told) == 13
    assert sum(len(shard.tracks) for shard in made) == 12
    # more where a machine at work gives an engine no time to be heard; what was lost with it is done again
    assert sum("an engine died" in line for line in said) >= 2


def children(process: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The engines and the controller of a running preprocess job."""
    found: dict[str, list[psutil.Process]] = {"engine": [], "controller": []}
    for child in process.children(recursive=True):
        try:
            words = " ".join(child.cmdline())
        except psutil.Error:
            continue
        for kind in found:
            if "parallel.tether" in words and f"ipyparallel.{kind}" in words:
                found[kind].append(child)
    return found


def checksums(folder: Path) -> list[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return [shard["checksum"] for shard in manifest["shards"]]


def test_killed_at_random_moments_and_run_again(tmp_path: Path) -> None:
    """SIGKILL to an engine, to ipyparallel's controller or to the job itself: nothing is lost, nothing is made twice."""
    write_tree(tmp_path / "music", num_tracks=6, duration_s=8.0)
    slow = ("features.hop_length=2", "features.num_mels=16")  # some seconds of work, to be killed in the midst of
    words = (f"data.root={tmp_path}/music", "preprocess.shard_mib=6", *slow)
    ptunes("preprocess", *words, "run.name=whole", "parallel.engines=0", cwd=tmp_path)
    rng = random.Random(KILLS)
    for number in range(KILLS):
        victim = ("controller", "job", "engine")[number % 3]
        folder = tmp_path / f"logs/preprocess/{number}"
        run = (*words, f"run.name={number}", "parallel.engines=2")
        job = start("preprocess", *run, cwd=tmp_path)
        first = psutil.Process(job.pid)
        wait_until(partial(has_engines, first), what="two engines")
        family = children(first)
        time.sleep(rng.uniform(0, 3))
        with contextlib.suppress(psutil.NoSuchProcess):  # it was quicker
            (first if victim == "job" else rng.choice(family[victim] or [first])).send_signal(signal.SIGKILL)
        said = job.communicate(timeout=PATIENCE_S)[0]
        wait_until(partial(has_ended, tmp_path), what="all have ended")
        before = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
        assert job.returncode in ((0,) if victim == "engine" else (0, 2, -signal.SIGKILL)), said
        assert "Traceback" not in said
        print(f"{victim}: {job.returncode}, {len(before)} shards were made")
        ptunes("preprocess", *run, cwd=tmp_path)
        assert checksums(folder) == checksums(tmp_path / "logs/preprocess/whole"), victim
        after = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
        assert before.items() <= after.items()
        assert not list(folder.glob(".partial-*"))


def has_engines(job: psutil.Process) -> bool:
    return len(children(job)["engine"]) == 2


def has_ended(folder: Path) -> bool:
    """Whether nothing is left of the jobs that were started in a folder: no engine, and none of the controller's processes."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                "parallel_tunes.parallel.tether" in process.cmdline()
                and process.cwd() == str(folder)
                and is_alive(process)
            ):
                return False
    return True


def test_a_death_is_blamed_on_what_was_at_work_twice(tmp_path: Path) -> None:
    some = tasks(write_tree(tmp_path / "tree", num_tracks=2), tmp_path / "a")
    task = dataclasses.replace(some[0], paths=tuple(path for part in some for path in part.paths))
    again, suspects = task.after_death([], 2)
    assert isinstance(again, shard_work.ShardTask)
    assert again.quarantined == ()
    assert suspects == [task.paths[2]]
    elsewhere, _ = again.after_death(suspects, 3)
    assert elsewhere.quarantined == ()
    guilty, _ = again.after_death(suspects, 2)
    assert guilty.quarantined == (task.paths[2],)
