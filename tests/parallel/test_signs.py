from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fakes import PATIENCE_S, TINY, corpus_of, launch, suspend, wait_until
from signing import read_world

from parallel_tunes.parallel import signs
from parallel_tunes.parallel.launch import ranks_command
from parallel_tunes.parallel.signs import Place, Signs

SIGNING = Path(__file__).with_name("signing.py")


class World:
    """Rank 0 here, the others as processes.

    Args:
        is_near: whether rank 0 sees how the others are, as if the same torchrun had started it.
    """

    def __init__(self, num_ranks: int, *, is_near: bool = False, timeout_s: float = 60) -> None:
        self.signs = Signs(0, "127.0.0.1", timeout_s, print)
        self.processes = {
            rank: subprocess.Popen(
                [sys.executable, SIGNING, str(rank)], env=launch()[1], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for rank in range(1, num_ranks)
        }  # fmt: skip
        world = [(self.signs.address, self.signs.place)]
        for rank in self.processes:
            world += read_world(self.listen(rank))
        for rank in self.processes:
            self.tell(rank, json.dumps([(address, dataclasses.asdict(place)) for address, place in world]))
        self.places = [dataclasses.replace(place, parent=os.getppid() if is_near else -1) for _, place in world]
        self.signs.begin([(address, place) for (address, _), place in zip(world, self.places, strict=True)])
        wait_until(lambda: len(self.signs._heard) == num_ranks - 1, what="a sign of each")

    def close(self) -> None:
        self.signs.end()
        for process in self.processes.values():
            process.kill()
            with process:  # waits, and closes the pipes
                pass

    def listen(self, rank: int) -> str:
        stream = self.processes[rank].stdout
        assert stream is not None
        return stream.readline()

    def tell(self, rank: int, line: str) -> None:
        stream = self.processes[rank].stdin
        assert stream is not None
        stream.write(line + "\n")
        stream.flush()

    def find_missing(self) -> tuple[dict[int, str], bool]:
        lines, is_to_say = self.signs.find_missing()
        found = {}
        for line in lines:
            (place,) = (place for place in self.places if line.startswith(f"{place} "))
            found[place.rank] = line.removeprefix(f"{place} ")
        return found, is_to_say


def test_a_rank_is_seen_from_beside() -> None:
    """One that was started by the same torchrun: long before its silence would tell."""
    with contextlib.closing(World(4, is_near=True)) as world:
        world.processes[3].kill()
        assert world.find_missing() == ({3: "has died"}, True)
        world.processes[2].send_signal(signal.SIGSTOP)
        wait_until(lambda: signs.status_of(world.processes[2].pid) == psutil.STATUS_STOPPED, what="it is stopped")
        found, _ = world.find_missing()
        assert set(found) == {2, 3}
        assert re.fullmatch(r"has not answered for \d+ s \(parallel.timeout_s=60\): it is stopped", found[2])


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[dict[int, str], bool]]]:
    """Names ranks on other machines by the last word and moment of each, at second 100; time passes with each look."""
    clock = itertools.count(100, 0.05)
    monkeypatch.setattr(signs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    own = Signs(0, "127.0.0.1", 4, print)

    def find(*heard: tuple[bytes, float]) -> tuple[dict[int, str], bool]:
        places = [Place(rank, "elsewhere", 1, 1) for rank in range(1, len(heard) + 1)]
        own._others = {("127.0.0.1", 9): places[0]} | {("127.0.0.1", 9 + place.rank): place for place in places[1:]}
        own._heard = dict(zip(places, heard, strict=True))
        lines, is_to_say = own.find_missing()
        found = {place.rank: line.removeprefix(f"{place} ") for line in lines for place in places if str(place) in line}
        return found, is_to_say

    yield find
    own._socket.close()
    own._bell.close()


def test_a_rank_elsewhere_is_known_by_its_silence(ranks: Callable[..., tuple[dict[int, str], bool]]) -> None:
    """Rank 1 waits in vain as this one does, 2 is stopped, 3 has died, and 4 still computes and does not know yet."""
    found, is_to_say = ranks((signs.LOST, 99.9), (signs.HERE, 96.0), (signs.HERE, 99.0), (signs.HERE, 104.0))
    said = r"has not answered for \d s \(parallel.timeout_s=4\): stopped, swapped out or its node is gone"
    assert re.fullmatch(said, found.pop(2))
    assert (found, is_to_say) == ({3: "has died"}, True)


def test_ranks_that_live_are_named_only_when_no_other_is_the_cause(
    ranks: Callable[..., tuple[dict[int, str], bool]],
) -> None:
    late = "answers, but has kept the others waiting for longer than parallel.timeout_s=4"
    assert ranks((signs.LOST, 99.0), (signs.HERE, 106.0), (signs.LOST, 99.0)) == ({2: late}, True)
    ended = "has ended before the others"
    assert ranks((signs.LOST, 99.0), (signs.LEFT, 98.0), (signs.LOST, 99.0)) == ({2: ended}, True)


def test_one_rank_says_it_for_all() -> None:
    with contextlib.closing(World(3, is_near=True)) as world:
        world.processes[2].kill()
        world.tell(1, "find")  # rank 0 has not found it yet
        assert json.loads(world.listen(1)) == [["rank 2"], True]
        first = world.places[1]
        wait_until(lambda: world.signs._heard[first][0] == signs.TOLD, what="rank 1 has told the others")
        assert world.find_missing() == ({2: "has died"}, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "victim"), [(3, 2), (2, 0)], ids=["the last", "the first, which keeps the store"]
)
def test_a_stopped_rank_ends_the_run_and_is_named(num_ranks: int, victim: int, workshop: Path) -> None:
    """In a real training: after parallel.timeout_s, on one line, and nothing stays behind."""
    name = f"stopped-{victim}"
    endless = ["train.num_epochs=9999", "train.patience=9999", "parallel.timeout_s=30"]
    words = ["train", *corpus_of(workshop), *TINY, *endless, f"run.name={name}"]
    # hpc/torchrun.sh has torch keep its store in rank 0, plain torchrun in its own process
    command, environment = launch(*words, ranks=num_ranks)
    if victim == 0:
        ours = ranks_command(words, num_ranks=num_ranks, allocation=None)
        command, environment = list(ours.words), environment | ours.environment
    process = psutil.Popen(command, cwd=workshop, env=environment, stdout=-1, stderr=-1, text=True)
    folder, ranks = workshop / "logs/train" / name, dict[int, psutil.Process]()
    try:
        wait_until(lambda: (folder / "metrics.jsonl").exists() or process.poll() is not None, what="training")
        ranks = {int(child.environ()["RANK"]): child for child in process.children()}
        suspend(ranks[victim])
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        left = [rank for rank in [process, *ranks.values()] if rank.is_running()]
        for rank in left:
            rank.kill()
    assert process.returncode != 0
    assert not left
    (line,) = (line for line in errors.splitlines() if line.startswith("ptunes: "))
    where = rf"rank {victim} \(host .+, process {ranks[victim].pid}\)"
    said = rf"{where} has not answered for \d+ s \(parallel.timeout_s=30\): it is stopped"
    assert re.fullmatch(f"ptunes: {said}", line)
    if victim != 0:
        report = json.loads((folder / "report.json").read_text())
        assert report["status"] == "failed"
        assert re.fullmatch(f"RankLost: {said}", report["reason"])
