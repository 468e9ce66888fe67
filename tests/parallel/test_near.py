from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TypeVar, cast

import pytest
import torch
from fakes import PATIENCE_S, Worlds, launch

from parallel_tunes.parallel import near
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.parallel.near import LINE, MOST, NearSum, meet

Value = TypeVar("Value")
ADDING = Path(__file__).with_name("adding.py")


def begin(folder: Path, num_ranks: int, rounds: int, timeout_s: float = 60) -> list[subprocess.Popen[str]]:
    """Ranks that have begun to add."""
    memory = folder / "memory"
    memory.write_bytes(bytes(8 * (LINE + 2 * MOST) * num_ranks))
    ranks = [
        subprocess.Popen(
            [sys.executable, ADDING, memory, str(rank), str(rounds), str(timeout_s)],
            env=launch()[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    processes = []
    for rank in ranks:
        assert rank.stdout is not None
        processes.append(rank.stdout.readline().strip())
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write(" ".join(processes) + "\n")
        rank.stdin.flush()
    return ranks


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_sums_are_right_whoever_comes_last(num_ranks: int, tmp_path: Path) -> None:
    for rank in begin(tmp_path, num_ranks, rounds=1500):
        said, _ = rank.communicate(timeout=PATIENCE_S)
        assert rank.returncode == 0
        assert said == "adding\n"


def test_a_dead_rank_is_noticed_and_one_that_is_stopped_after_the_timeout(tmp_path: Path) -> None:
    for number, timeout_s, words in (
        (signal.SIGKILL, 60.0, "closed by peer"),
        (signal.SIGSTOP, 2.0, "Timed out waiting 2 s"),
    ):
        one, other = begin(tmp_path, 2, rounds=10**9, timeout_s=timeout_s)
        for rank in (one, other):
            assert rank.stdout is not None
            assert rank.stdout.readline() == "adding\n"
        other.send_signal(number)
        said, _ = one.communicate(timeout=PATIENCE_S)
        other.kill()
        other.communicate()
        assert words in said
        assert "rank 1: " in said


class Loner:
    """A world of two, as one of them sees it."""

    rank, world_size = 0, 2

    def __init__(self, *others: object) -> None:
        self.others = list(others)

    def gather(self, value: Value) -> list[Value]:
        return [value, cast(Value, self.others.pop(0))]


@pytest.mark.parametrize("others", [(False,), (True, "", (False, 1))])
def test_where_one_cannot_none_does_and_nothing_is_left(others: tuple[object, ...]) -> None:
    before = set(Path("/dev/shm").iterdir())
    assert meet(Loner(*others), True, 1.0) is None
    assert set(Path("/dev/shm").iterdir()) <= before


def test_where_there_is_no_room_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank has no memory to share; the others, which have found none, answer as they would."""
    before = set(Path("/dev/shm").iterdir())
    monkeypatch.setattr(near, "MOST", 2**45)
    loner = Loner(True, "", (False, 1))
    assert meet(loner, True, 1.0) is None
    assert not loner.others
    assert set(Path("/dev/shm").iterdir()) <= before


def test_what_is_summed_here() -> None:
    assert NearSum.fits(torch.zeros(3, dtype=torch.int64))
    assert NearSum.fits(torch.zeros(MOST, dtype=torch.float64))
    for tensor in (
        torch.zeros(3),
        torch.zeros(MOST + 1, dtype=torch.float64),
        torch.zeros(4, 4, dtype=torch.float64).T[:2],
    ):
        assert not NearSum.fits(tensor)


def meet_here(mesh: Mesh, folder: Path) -> dict[str, object]:
    """What a sum and an agreement of a world give, and how many ranks share this machine's cores."""
    total = mesh.sum(torch.tensor([mesh.rank + 1.5], dtype=torch.float64)).item()
    flags = mesh.agree(mesh.rank == 1, False)
    cores = sorted(os.sched_getaffinity(0))
    return {"is_near": mesh._near is not None, "total": total, "flags": flags, "cores": cores}


def test_ranks_of_one_machine_use_it(worlds: Worlds) -> None:
    """Two ranks of one thread on two cores: each has a core of its own, and the sum in memory that they share."""
    found = worlds(2, "meet_here")
    assert [(rank["is_near"], rank["total"], rank["flags"]) for rank in found] == [(True, 4.0, [True, False])] * 2
    if len(os.sched_getaffinity(0)) == 2:
        assert [len(rank["cores"]) for rank in found] == [1, 1]
        assert found[0]["cores"] != found[1]["cores"]
