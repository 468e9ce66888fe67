"""Tasks handed to engines one after the other; a dead engine is replaced and its task done again."""

from __future__ import annotations

import concurrent.futures
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import psutil

from parallel_tunes.schema import UserError

Advance = Callable[[int], None]
POLL_S = 0.1
MAX_DEATHS = 8  # of engines over one task
LEFT_OUT = "kills the engine that reads it, twice in a row: left out"


class Retriable(Protocol):
    """A task that engines may be given."""

    @property
    def num_units(self) -> int:
        """Of its progress."""

    def after_death(self, suspects: list[str], unit: int) -> tuple[Self, list[str]]:
        """The task to do instead once an engine has died at `unit` of this one; and who is under suspicion from now on."""


@dataclass(frozen=True, kw_only=True)
class FileTask:
    """A task over files that nobody vouches for.

    Args:
        quarantined: those that kill engines, and are left out.
    """

    paths: tuple[str, ...]
    quarantined: tuple[str, ...] = ()

    @property
    def num_units(self) -> int:
        """Of progress: files."""
        return len(self.paths)

    def after_death(self, suspects: list[str], unit: int) -> tuple[Self, list[str]]:
        """What to do once an engine has died over this task, at file `unit`: the task again, and the files under suspicion.

        A file in whose work two engines have died is quarantined.
        """
        at_work = self.paths[unit : unit + 1]
        guilty = [path for path in at_work if path in suspects]
        return replace(self, quarantined=(*self.quarantined, *guilty)), [*suspects, *at_work]


Task = TypeVar("Task", bound=Retriable)
Result = TypeVar("Result")
Work = Callable[[Task, Advance], Result]


def run_on_engine(work: Work[Task, Result], task: Task, journal: str) -> Result:
    """Runs on an engine: does the task, and writes after each unit how many are done, for whoever outlives it."""
    done = 0
    handle = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def advance(units: int) -> None:
        nonlocal done
        done += units
        os.pwrite(handle, done.to_bytes(8, "little"), 0)

    try:
        advance(0)
        return work(task, advance)
    finally:
        os.close(handle)


def identify() -> tuple[str, int, float]:
    """Runs on an engine: its host, its process and when that was created."""
    return platform.node(), os.getpid(), psutil.Process().create_time()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs, and is not another by the same number."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Cluster:
    """Engines that run or are about to.

    Args:
        client: of theirs.
        start_one: starts one more.
        is_up: whether their controller lives.
        timeout_s: how long the first may take to come.
        folder: that all of them see.
    """

    client: Any
    start_one: Callable[[], None]
    is_up: Callable[[], bool]
    timeout_s: float
    folder: Path


@dataclass
class Assignment:
    """A task on its way."""

    number: int
    task: Any
    suspects: list[str] = field(default_factory=list)
    num_deaths: int = 0
    told: int = 0  # units that the caller knows of


@dataclass
class Engine:
    """An engine and what it was given: what it works at, and what comes next."""

    view: Any
    identity: Any  # an answer, once it is there
    given: deque[tuple[Any, Assignment]] = field(default_factory=deque)

    def is_dead(self, known: bool) -> bool:
        """Whether its process is gone, if it is on this machine; else whether the controller misses its heartbeat."""
        if not known:
            return True
        if not self.identity.ready():
            return False
        try:
            host, pid, created = self.identity.get()
        except Exception:  # it died before it could answer
            return True
        if host != platform.node():
            return False
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return True
        return abs(process.create_time() - created) > 1 or not is_alive(process)


class Dispatcher:
    """Hands tasks to the engines of a cluster.

    Each engine has one task at work and one waiting, so that it never idles; towards the end only the one at work, so
    that whoever is free takes the rest.

    Args:
        cluster: of the engines.
        say: takes lines for people.
    """

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.cluster, self.client, self.say = cluster, cluster.client, say
        self.engines: dict[int, Engine] = {}
        self.buried: set[int] = set()
        self.waiting: deque[Assignment] = deque()

    def map(self, work: Work[Task, Result], tasks: Sequence[Task], advance: Advance) -> Iterator[Result]:
        """Results of `work(task, advance)` as they come."""
        self.waiting = deque(Assignment(number, task) for number, task in enumerate(tasks))
        left = len(tasks)
        checked, met = 0.0, time.monotonic()
        while left:
            self._meet()
            self._hand_out(work)
            answers = [answer for engine in self.engines.values() for answer, _ in engine.given]
            concurrent.futures.wait(answers, timeout=POLL_S, return_when=concurrent.futures.FIRST_COMPLETED)
            if answers:
                met = time.monotonic()
            elif time.monotonic() - met < self.cluster.timeout_s:
                time.sleep(POLL_S)
            else:
                raise UserError(
                    f"no engine has come within {self.cluster.timeout_s:.0f} s; parallel.engines=0 does without"
                )
            for engine in self.engines.values():
                while engine.given and engine.given[0][0].ready():
                    answer, job = engine.given[0]
                    try:
                        result = answer.get()
                    except Exception as error:
                        if getattr(error, "ename", type(error).__name__) == "EngineError":
                            break  # it has died: below
                        raise UserError(f"an engine failed ({error}); the same command goes on from here") from error
                    engine.given.popleft()
                    self._tell(job, job.task.num_units, advance)
                    left -= 1
                    yield result
            if time.monotonic() - checked > 2 * POLL_S:
                checked = time.monotonic()
                for engine in self.engines.values():
                    if engine.given:
                        self._tell(engine.given[0][1], self._read_journal(engine.given[0][1]) or 0, advance)
                self._bury(left)

    def _meet(self) -> None:
        for number in self.client.ids:
            if number not in self.engines and number not in self.buried:
                view = self.client[number]
                self.engines[number] = Engine(view, view.apply_async(identify))

    def _hand_out(self, work: Any) -> None:
        for depth in (1, 2):
            for engine in self.engines.values():
                # nobody takes a second task while the others might still want a first one
                if (
                    self.waiting
                    and len(engine.given) < depth
                    and (depth == 1 or len(self.waiting) >= len(self.engines))
                ):
                    job = self.waiting.popleft()
                    answer = engine.view.apply_async(run_on_engine, work, job.task, str(self._journal(job)))
                    engine.given.append((answer, job))

    def _bury(self, left: int) -> None:
        """Take the tasks of dead engines back, and start others where there is work for them."""
        if not self.cluster.is_up():
            raise UserError("the controller of the engines died; the same command goes on from here")
        known = set(self.client.ids)
        for number, engine in list(self.engines.items()):
            if not engine.is_dead(number in known):
                continue
            del self.engines[number]
            self.buried.add(number)  # the client knows it until the controller misses its heartbeat
            for place, (_, job) in enumerate(reversed(engine.given)):
                if place == len(engine.given) - 1:  # the one at work
                    unit = self._read_journal(job)
                    job.num_deaths += 1
                    if job.num_deaths > MAX_DEATHS:
                        raise UserError(
                            f"{MAX_DEATHS} engines have died over the same task: is there enough memory for an engine?"
                        )
                    if unit is not None:
                        job.task, job.suspects = job.task.after_death(job.suspects, unit)
                self.waiting.appendleft(job)
            self.say("an engine died; its task is done again" + ("" if left <= len(self.engines) else " by a new one"))
            if left > len(self.engines):
                self.cluster.start_one()

    def _journal(self, job: Assignment) -> Path:
        return self.cluster.folder / f"task-{job.number}.{job.num_deaths}"

    def _read_journal(self, job: Assignment) -> int | None:
        try:
            return int.from_bytes(self._journal(job).read_bytes(), "little")
        except OSError:
            return None

    def _tell(self, job: Assignment, done: int, advance: Advance) -> None:
        if done > job.told:
            advance(done - job.told)
            job.told = done
