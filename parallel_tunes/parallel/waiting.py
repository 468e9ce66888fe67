"""Waits for other ranks in which signals are heard: torch's own are deaf until their time is up."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, Protocol

INTERRUPTED = 130  # the exit code
POLL_S, HEED_S = 0.1, 1.0
PATIENCE_S = 30.0  # after which a rank says for whom it waits


class Work(Protocol):
    """A collective that was begun, as torch.distributed gives it."""

    def wait(self, timeout: timedelta = ...) -> Any: ...

    def is_completed(self) -> bool: ...


class Meeting:
    """The rendezvous of all ranks.

    Args:
        connect: gives the store of torch, kept by rank 0 or by torchrun for it, in which they meet.
        where: its address, and what to do where nobody comes, for people.
        timeout_s: how long they wait for each other.
    """

    def __init__(self, rank: int, world_size: int, connect: Callable[[], Any], where: str, timeout_s: float) -> None:
        self._rank, self._world_size, self._connect = rank, world_size, connect
        self._where, self._timeout_s = where, timeout_s
        self.absent = [other for other in range(world_size) if other != rank] if rank == 0 else [0]
        self._error: Exception | None = None
        self._store: Any = None
        self._thread = threading.Thread(target=self._meet, name="meeting", daemon=True)

    def __str__(self) -> str:
        """Who has not come, for people."""
        ranks = ", ".join(map(str, self.absent[:8])) + (", …" if len(self.absent) > 8 else "")
        plural = "s" if len(self.absent) > 1 else ""
        return f"rank{plural} {ranks} of {self._world_size} did not come to {self._where}"

    def hold(self, is_stopped: Callable[[], bool]) -> Any:
        """The store, once all are there. A signal to stop ends this process: nothing has begun yet.

        Raises:
            RuntimeError: not all have come in time.
        """
        self._thread.start()
        says_at = time.monotonic() + PATIENCE_S
        try:
            while self._thread.is_alive():
                self._thread.join(POLL_S)
                if is_stopped():
                    raise KeyboardInterrupt
                if time.monotonic() > says_at:
                    says_at = math.inf
                    print(f"ptunes: still waiting: {self}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            leave(f"interrupted: {self}")
        if self._store is None:
            raise RuntimeError(str(self)) from self._error
        return self._store

    def _meet(self) -> None:
        until = time.monotonic() + self._timeout_s
        try:
            store = self._connect()
            store.set(f"here/{self._rank}", "")
            while self.absent:
                here = [store.check([f"here/{other}"]) for other in range(self._world_size)]
                self.absent = [other for other, is_here in enumerate(here) if not is_here]
                if time.monotonic() > until:
                    return
                time.sleep(POLL_S if self.absent else 0)
            self._store = store
        except (RuntimeError, ValueError) as error:
            self._error = error


def leave(text: str) -> NoReturn:
    """Say why, and end this process at once: a thread of it may never come back from torch."""
    print(f"ptunes: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def finish(work: Work, most_s: float = math.inf) -> None:
    """Wait for a collective that was begun, `most_s` at most.

    Raises:
        RuntimeError: it has failed.
    """
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        try:
            work.wait(timedelta(seconds=HEED_S))
        except RuntimeError:
            if not work.is_completed():
                continue  # it was this wait that has ended: signals are heard here
            work.wait()  # raises what it has failed of
        return
