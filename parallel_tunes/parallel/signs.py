"""Signs of life: every rank tells the others each second that it is there, so that one that is lost can be named.

They go as datagrams from rank to rank. Keys of torch's store would do as long as its host lives; but that is rank 0 under
hpc/torchrun.sh, and while it is stopped, a question to its store has neither an answer nor an end.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

PERIOD_S = 1.0
ALONE_S = 0.5  # after a signal to stop, what waits for a rank that does not answer is given up
SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
GRACE_S = 3.0  # who is not heard for so long, while one listens, is not just short of time
TOGETHER_S = 0.3  # within which ranks that lose another at the same time hear it of each other
# the words: at work; has lost another rank and cannot go on; has said so to the user; has ended by itself
HERE, LOST, TOLD, LEFT = b"here", b"lost", b"told", b"left"

# what has become of a rank; the first of these groups that has any is the cause, and the next are its victims
UNANSWERED = "has not answered for {silence_s:.0f} s (parallel.timeout_s={timeout_s:g})"
STOPPED, SILENT = f"{UNANSWERED}: it is stopped", f"{UNANSWERED}: stopped, swapped out or its node is gone"
DIED, ENDED = "has died", "has ended before the others"
LATE = "answers, but has kept the others waiting for longer than parallel.timeout_s={timeout_s:g}"
CAUSES = ((DIED, STOPPED, SILENT), (ENDED,), (LATE,))
WAITS = "waits in vain as well"
NEVER = HERE, 0.0
GONE = psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD

Address = tuple[str, int]


def status_of(process: int) -> str:
    """How a process of this machine is, in psutil's words."""
    try:
        return psutil.Process(process).status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


@dataclass(frozen=True)
class Place:
    """Where a rank is."""

    rank: int
    host: str
    process: int
    parent: int

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.process})"

    def status(self) -> str | None:
        """How its process is, in psutil's words; None where that cannot be seen: another torchrun has started it."""
        if (self.host, self.parent) != (platform.node(), os.getppid()):
            return None
        return status_of(self.process)


class Signs:
    """This rank's signs of life, and what it has heard of the others'.

    Args:
        rank: of this process.
        address: of this machine, as the others reach it.
        timeout_s: how long a rank waits for the others in a collective.
        give_up: ends this process, which was told to stop and cannot hear it, with the line that it is given.
    """

    def __init__(self, rank: int, address: str, timeout_s: float, give_up: Callable[[str], object]) -> None:
        self._timeout_s, self._give_up = timeout_s, give_up
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self.place = Place(rank, platform.node(), os.getpid(), os.getppid())
        self.address: Address = self._socket.getsockname()
        self._others: dict[Address, Place] = {}
        self._heard: dict[Place, tuple[bytes, float]] = {}  # each one's last word, and when it came by the clock here
        self._news = threading.Condition()
        self._word, self._ends = HERE, False
        # what C itself sends when a signal comes, while the main thread may wait within torch and hear none
        self._bell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._bell.bind((address, 0))
        self._bell.connect(self.address)
        self._bell.setblocking(False)
        self._bell_address: Address = self._bell.getsockname()
        self._told_at = math.inf
        self._thread = threading.Thread(target=self._keep_on, name="signs", daemon=True)

    def begin(self, world: Sequence[tuple[Address, Place]]) -> None:
        """Tell the others, and listen to them, from now on."""
        self._others = {address: place for address, place in world if address != self.address}
        self._thread.start()
        with contextlib.suppress(ValueError):  # not the main thread, which alone hears signals
            signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)

    def end(self) -> None:
        """Take leave of the others."""
        self._ends = True
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        self._bell.close()
        self._socket.sendto(b"", self.address)  # wakes the thread
        self._thread.join()
        self._tell(LEFT if self._word == HERE else self._word)
        self._socket.close()

    def claim(self) -> None:
        """Tell the others that this rank says itself why it cannot go on."""
        self._tell(TOLD)

    def _tell(self, word: bytes) -> None:
        self._word = word
        for address in self._others:
            with contextlib.suppress(OSError):  # no way there any more: silence will say so
                self._socket.sendto(word, address)

    def _keep_on(self) -> None:
        due = 0.0
        while not self._ends:
            with self._news:
                if time.monotonic() >= due:
                    self._tell(self._word)
                    due = time.monotonic() + PERIOD_S
            if time.monotonic() > self._told_at + ALONE_S:
                self._leave_the_silent()
            self._socket.settimeout(max(min(due, self._told_at + ALONE_S) - time.monotonic(), 0.02))
            with contextlib.suppress(OSError):  # nothing has come
                word, address = self._socket.recvfrom(16)
                if address == self._bell_address and not SIGNALS.isdisjoint(word):
                    self._told_at = min(self._told_at, time.monotonic())
                if address in self._others:
                    with self._news:
                        self._heard[self._others[address]] = word, time.monotonic()
                        self._news.notify()

    def is_silent(self, rank: int) -> bool:
        """Whether a rank has not answered for as long as ranks wait for each other, or its process is stopped or gone."""
        place = next((place for place in self._others.values() if place.rank == rank), None)
        if place is None:  # this one
            return False
        heard = self._heard.get(place, NEVER)[1]
        return place.status() in GONE or (bool(heard) and time.monotonic() - heard > self._timeout_s)

    def _leave_the_silent(self) -> None:
        """End this process, which was told to stop but may wait within torch for ranks that do not answer."""
        fates = {place: self._fate(place, 0.0) for place in self._others.values()}
        silent = [str(place) for place, fate in fates.items() if fate in (STOPPED, SILENT)]
        if silent:
            self._give_up(f"interrupted while {', '.join(silent)} did not answer")

    def find_missing(self) -> tuple[list[str], bool]:
        """What to say of the ranks that the others wait for in vain, and whether it is for this rank to say it.

        To be asked when a collective has failed here, because a rank has died or has not come in time. Whoever finds that
        out tells the others that it has lost a rank itself: so it is not the one.
        """
        began = time.monotonic()
        until, fates = began + GRACE_S + PERIOD_S, dict[Place, str | None]()
        with self._news:
            with contextlib.suppress(KeyboardInterrupt):  # torchrun ends its ranks: there is no time for more
                while (now := time.monotonic()) < until:
                    # whoever hears of it may end a stopped rank at once: that it was stopped is seen first, and stays so
                    fates = {
                        place: STOPPED if fates.get(place) == STOPPED else self._fate(place, began)
                        for place in self._others.values()
                    }
                    self._tell(LOST)
                    if None not in fates.values() or not set(CAUSES[0]).isdisjoint(fates.values()):
                        until = min(until, now + TOGETHER_S)
                    self._news.wait(TOGETHER_S / 10)
            missing = self._name(fates, began)
            words = [(word, place.rank) for place, (word, _) in self._heard.items()]
            is_to_say = not any(word == TOLD or (word == LOST and rank < self.place.rank) for word, rank in words)
            self._tell(TOLD if is_to_say else LOST)
        return missing, is_to_say

    def _fate(self, place: Place, began: float) -> str | None:
        """What has become of a rank, None while that is open; at `began` this rank has lost one."""
        word, heard = self._heard.get(place, NEVER)
        if word != HERE:
            return ENDED if word == LEFT else WAITS
        status = place.status()
        if status in GONE:
            return DIED
        if status == psutil.STATUS_STOPPED:
            return STOPPED
        # Silence counts while this process listens: it may have been stopped itself, and all others with it. Who was
        # never heard may be behind a firewall.
        if not heard or time.monotonic() - max(began, heard) < GRACE_S:
            return None
        # a connection that breaks long before its time is up has lost its process
        return DIED if status is None and began - heard < self._timeout_s / 2 else SILENT

    def _name(self, fates: dict[Place, str | None], began: float) -> list[str]:
        """The ranks that are the cause, and what has become of them."""
        heard = {place: self._heard.get(place, NEVER)[1] for place in fates}
        known = {place: fate or LATE for place, fate in fates.items() if fate or heard[place] > began}
        for causes in CAUSES:
            found = {place: fate for place, fate in known.items() if fate in causes}
            if found:
                now = time.monotonic()
                return [
                    f"{place} {fate.format(silence_s=now - heard[place], timeout_s=self._timeout_s)}"
                    for place, fate in found.items()
                ]
        return []


def stopped_siblings(variable: str) -> list[Place]:
    """The stopped ranks that have this one's parent; `variable` of their environment is their rank."""
    found = []
    for process in psutil.Process(os.getppid()).children():
        with contextlib.suppress(psutil.Error, KeyError):  # it has just ended, or is none of ours
            if process.status() == psutil.STATUS_STOPPED:
                found.append(Place(int(process.environ()[variable]), platform.node(), process.pid, os.getppid()))
    return found


def kill_stopped_siblings(variable: str) -> None:
    """End them at once."""
    for place in stopped_siblings(variable):
        with contextlib.suppress(psutil.NoSuchProcess):  # another rank has done it
            psutil.Process(place.process).kill()
