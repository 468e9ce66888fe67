"""Waits for other ranks in which signals are heard: torch's own are deaf until their time is up."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch.distributed as dist

INTERRUPTED = 130  # the exit code
POLL_S, HEED_S = 0.1, 1.0
PATIENCE_S = 30.0  # after which a rank says for whom it waits


class Meeting:
    """The rendezvous of all ranks, through a store of torch that rank 0 keeps, or torchrun for it.

    Args:
        timeout_s: how long they wait for each other.
    """

    def __init__(self, rank: int, world_size: int, timeout_s: float) -> None:
        self._rank, self._world_size, self._timeout_s = rank, world_size, timeout_s
        self.address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self.absent = [other for other in range(world_size) if other != rank] if rank == 0 else [0]
        self._error: Exception | None = None
        self._store: Any = None
        self._thread = threading.Thread(target=self._meet, name="meeting", daemon=True)

    def __str__(self) -> str:
        """Who has not come, for people."""
        ranks = ", ".join(map(str, self.absent[:8])) + (", …" if len(self.absent) > 8 else "")
        alone = "" if "TORCHELASTIC_RUN_ID" in os.environ else "; unset RANK and WORLD_SIZE if no launcher has set them"
        return f"rank{'s' if len(self.absent) > 1 else ''} {ranks} of {self._world_size} did not come to {self.address}{alone}"

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
                    says_at = float("inf")
                    print(f"ptunes: still waiting: {self}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            leave(f"interrupted: {self}")
        if self._store is None:
            raise RuntimeError(str(self)) from self._error
        return self._store

    def _meet(self) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined] # documented, but not in the stubs

        until, timeout = time.monotonic() + self._timeout_s, timedelta(seconds=self._timeout_s)
        is_host = self._rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        host, _, port = self.address.rpartition(":")
        try:
            store = TCPStore(host, int(port), None, is_host, timeout, wait_for_workers=False)
            # ranks that torchrun has started again meet anew
            place = PrefixStore(f"ranks/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            place.set(f"here/{self._rank}", "")
            while self.absent:
                here = [place.check([f"here/{other}"]) for other in range(self._world_size)]
                self.absent = [other for other, is_here in enumerate(here) if not is_here]
                if time.monotonic() > until:
                    return
                time.sleep(POLL_S if self.absent else 0)
            self._store = place
        except (RuntimeError, ValueError) as error:
            self._error = error


def leave(text: str) -> None:
    """Say why, and end this process at once: a thread of it may never come back from torch."""
    print(f"ptunes: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def finish(work: dist.Work, most_s: float = float("inf")) -> None:
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
