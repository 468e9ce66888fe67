"""A training that is held between measurements: told to go N steps, it answers with the seconds they took."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import IO, Any

import torch

from parallel_tunes.parallel.mesh import Mesh


class Hold(contextlib.AbstractContextManager["Hold"]):
    """The steps of epochs, timed; all ranks of a training hold together, at the same step.

        with hold:  # an epoch
            for batch in …:
                …
                hold.step()

    What lies between epochs is not counted. A line `go N` lets N steps happen; the end of the lines ends the process.

    Args:
        lines, answers: where rank 0 is told, and where it answers.
    """

    def __init__(self, lines: IO[str], answers: IO[str]) -> None:
        self.lines, self.answers = lines, answers
        self._num, self._left, self._seconds, self._since = 0, 0, 0.0, 0.0

    def __enter__(self) -> Hold:
        if not self._left:
            self._wait()
        self._since = _now()
        return self

    def __exit__(self, *reason: object) -> None:
        self._seconds += _now() - self._since

    def step(self) -> None:
        """A step is done."""
        self._left -= 1
        if not self._left:
            self._seconds += _now() - self._since
            if Mesh().is_first:
                print(json.dumps({"steps": self._num, "seconds": self._seconds}), file=self.answers, flush=True)
            self._wait()
            self._since = _now()

    def _wait(self) -> None:
        """Until told how many steps to go: rank 0 in a read, the others in a collective, which do not spin."""
        line = Mesh().on_first(self.lines.readline)
        if not line:
            sys.exit()
        self._num = self._left = int(line.removeprefix("go "))
        self._seconds = 0.0


class HeldBar(contextlib.AbstractContextManager["HeldBar"]):
    """A progress bar of an epoch's steps that holds them."""

    def __init__(self, bar: Any, hold: Hold) -> None:
        self.bar, self.hold = bar, hold

    def __enter__(self) -> HeldBar:
        self.bar.__enter__()
        self.hold.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self.hold.__exit__(*reason)
        self.bar.__exit__(*reason)

    def update(self, units: float | None = 1) -> None:
        """A step is done: this is called once in each, by the trainer of every rank."""
        self.bar.update(units)
        self.hold.step()


def _now() -> float:
    """Seconds, once everything that was begun is done."""
    if torch.cuda.memory_allocated():  # else this process is none that uses a GPU
        torch.cuda.synchronize()
    return time.perf_counter()


def take_pipes() -> Hold:
    """A hold on this process's standard input and output; what others print goes to standard error from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Hold(sys.stdin, answers)
