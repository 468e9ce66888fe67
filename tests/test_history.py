from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from parallel_tunes import history
from parallel_tunes.history import History
from parallel_tunes.schema import UserError


def killed(last: Mapping[str, Any]) -> str:
    return "the power went"


def start(folder: Path, *, restart: int = 0, cap: int = 50, counts_steps: bool = True, **where: Any) -> History:
    """A process that takes the run up."""

    def write(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    found = History(folder, write)
    found.begin({"job": "7", "restart": restart, **where}, killed, cap=cap, counts_steps=counts_steps)
    return found


def test_a_kill_costs_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.resume(0, None)
    saved = time.time()
    for step in range(1, 18):
        first.beat(step)
    second = start(tmp_path, restart=1)  # the first never said that it ended
    second.resume(12, saved)
    second.beat(20)
    second.end("preempted", "SIGUSR1")
    third = start(tmp_path, restart=2)
    third.resume(20, time.time())
    third.end("complete", None)
    told = third.summary()
    assert told["num"] == 2
    assert told["causes"] == ["the power went", "SIGUSR1"]
    assert told["lost_steps"] == 17 - 12
    assert 0 <= told["lost_s"] < 5
    assert told["waited_s"] >= 0
    assert [entry["from_step"] for entry in history.read_starts(tmp_path)] == [0, 12, 20]


def test_more_restarts_than_allowed_are_refused(tmp_path: Path) -> None:
    start(tmp_path, restart=3, cap=3)
    with pytest.raises(UserError, match=r"more than run\.max_restarts=3"):
        start(tmp_path, restart=4, cap=3)


def test_restarts_that_gain_nothing_are_refused_but_a_persons_are_not(tmp_path: Path) -> None:
    for restart in range(history.STALLED):
        start(tmp_path, restart=restart).resume(5, None)
    stalled = start(tmp_path, restart=history.STALLED)
    with pytest.raises(UserError, match="gained no step"):
        stalled.resume(5, None)
    start(tmp_path, restart=0).resume(5, None)


def test_restarts_that_gain_go_on(tmp_path: Path) -> None:
    for restart in range(history.STALLED + 3):
        start(tmp_path, restart=restart).resume(restart, None)


def test_starts_that_die_before_they_resume_are_refused_too(tmp_path: Path) -> None:
    for restart in range(history.STALLED):
        start(tmp_path, restart=restart)
    with pytest.raises(UserError, match="gained no step"):
        start(tmp_path, restart=history.STALLED)


def test_a_job_without_steps_is_only_held_to_the_cap(tmp_path: Path) -> None:
    """Preprocessing gains shards, of which the history knows nothing."""
    for restart in range(history.STALLED + 3):
        start(tmp_path, restart=restart, counts_steps=False)


def test_a_rank_that_lost_another_learns_why(tmp_path: Path) -> None:
    start(tmp_path).end("failed", "RankLost: rank 0 cannot go on")
    assert start(tmp_path, restart=1).starts[0]["cause"] == "the power went"


def test_a_torn_file_is_no_history(tmp_path: Path) -> None:
    (tmp_path / "starts.jsonl").write_text(json.dumps({"a": 1}) + "\n{")
    assert history.read_starts(tmp_path) == []
