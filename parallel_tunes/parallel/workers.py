"""Processes that stay up, idle, and work when told: a line goes to their standard input, a line of JSON comes back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from parallel_tunes.parallel.launch import Command, last_words
from parallel_tunes.schema import UserError, shipped

TIMEOUT_S = 900.0  # for an answer; the first waits for imports and compilers


def launcher_settings() -> dict[str, str]:
    """What hpc/torchrun.sh exports on one node whatever the ranks, the allocator's settings first of all; read there."""
    text = (shipped("hpc") / "torchrun.sh").read_text()
    found = re.findall(r"^\s*export (\w+)=(?:\$\{\1:-)?(\w+)\b", text, re.MULTILINE)
    return {name: value for name, value in found if name != "OMP_NUM_THREADS"}


def plain_command(module: str, words: Sequence[str], environment: Mapping[str, str]) -> Command:
    """`python -m MODULE WORDS`, of all settings with those that are given."""
    return Command((sys.executable, "-m", module, *words), dict(environment))


def ranks_command(module: str, words: Sequence[str], *, num_ranks: int, num_threads: int) -> Command:
    """MODULE on ranks of this machine, under the torchrun and the settings that hpc/torchrun.sh has for the door."""
    meet = ("--standalone", f"--nproc-per-node={num_ranks}", "--max-restarts=0")
    settings = launcher_settings() | {"OMP_NUM_THREADS": str(num_threads), "PT_NUM_RANKS": str(num_ranks)}
    return Command((sys.executable, "-m", "torch.distributed.run", *meet, "-m", module, *words), settings)


class NoAnswer(UserError):
    """A worker has not answered in time."""


class Ended(UserError):
    """A worker's process is no more."""


class Worker:
    """One such process, or torchrun and its ranks; it ends with its standard input, or when it is closed.

    Args:
        name: for messages.
        command: what it runs; allocator and threads are as this says, whatever the environment here.
        log: where its standard error goes.
    """

    def __init__(self, name: str, command: Command, log: Path) -> None:
        self.name, self._log = name, log
        settings = {*launcher_settings(), "OMP_NUM_THREADS", "PT_NUM_RANKS"}
        inherited = {name: value for name, value in os.environ.items() if name not in settings}
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command.words, env=inherited | command.environment, bufsize=0, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream,
            )  # fmt: skip

    def ask(self, line: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Tell it a line; what it answers.

        Raises:
            NoAnswer: it says nothing for so long.
            Ended: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its answer is missing too
            self._process.stdin.write(f"{line}\n".encode())
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise NoAnswer(f"{self.name}: no answer within {timeout_s:g} s; its last words: {last_words(self._log)}")
        answer = self._process.stdout.readline()
        if not answer:
            raise Ended(f"{self.name}: its process has ended; its last words: {last_words(self._log)}")
        return json.loads(answer)

    @property
    def exit_code(self) -> int | None:
        """Of its process, the negative number of a signal that has ended it; None while it runs."""
        return self._process.poll()

    def cpu_s(self) -> float:
        """CPU time of its processes until now, seconds."""
        spent = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system
        return spent

    def close(self) -> None:
        """End its processes; nothing of theirs is worth waiting for."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()  # before psutil can, to whom its exit code would be lost
        psutil.wait_procs(processes, timeout=30)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _processes(self) -> list[psutil.Process]:
        """Its process and, as torchrun's ranks, those started by it."""
        if self._process.poll() is not None:  # its number may be another's by now
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]
