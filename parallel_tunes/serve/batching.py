"""Micro-batching: one thread owns the model, and windows of all requests together go through it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.serve.refusals import Refusal, too_late

Windows = NDArray[Any]  # (num, num_frames, num_mels)
Chances = NDArray[np.float64]  # (num, num_classes)


@dataclass
class Ask:
    """Windows of one clip that wait for their probabilities; or work of another kind.

    Args:
        work: gives windows, from one number to another; or, where `num` is 0, is called without any and gives the answer.
        num: how many windows.
        deadline: of time.monotonic(), after which nobody waits any more.
    """

    work: Callable[..., Any]
    num: int
    deadline: float
    answer: Future[Any] = field(default_factory=Future)
    num_taken: int = 0
    done: list[Chances] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answer.set_running_or_notify_cancel()  # who waits may go away, but not in the middle of an answer

    @property
    def num_left(self) -> int:
        """Windows that no batch has taken yet."""
        return self.num - self.num_taken


class Batcher:
    """The thread in which models work; a network on a CPU keeps scratch memory, so that no two threads may use it.

    Long clips and short ones take turns: a clip that has had its part of a batch goes to the end of the queue.

    Args:
        classify: what a batch of windows goes through.
        max_batch: most windows in a batch.
        max_wait_s: how long one that is not full waits for more, seconds.
        timeout_s: what is told who waited in vain.
        observe: told the size of each batch.
    """

    def __init__(
        self, classify: Callable[[Windows], Chances] | None, *, max_batch: int, max_wait_s: float, timeout_s: float,
        observe: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._classify, self._observe = classify, observe
        self._max_batch, self._max_wait_s, self._timeout_s = max_batch, max_wait_s, timeout_s
        self._asks: deque[Ask] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it can answer."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Windows that wait."""
        with self._changed:
            return sum(ask.num_left for ask in self._asks)

    def submit(self, cut: Callable[[int, int], Windows], num: int, deadline: float) -> Future[Chances]:
        """The probabilities of a clip's windows, shape (num, num_classes), some time soon; or a Refusal.

        Args:
            cut: gives the windows from one number to another.
        """
        return self._put(Ask(cut, num, deadline))

    def call(self, work: Callable[[], Any], deadline: float) -> Future[Any]:
        """What `work`, done in the model's thread, returns or raises."""
        return self._put(Ask(work, 0, deadline))

    def close(self) -> None:
        """Finish what was asked, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, ask: Ask) -> Future[Any]:
        with self._changed:
            if self._closing:
                raise Refusal(503, "the server is stopping", retry_s=5)
            self._asks.append(ask)
            self._changed.notify_all()
        return ask.answer

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asks or self._closing)
                if not self._asks:
                    return
                other = None if self._asks[0].num else self._asks.popleft()
                if other is None:
                    self._wait_for_more()
                    taken = self._take()
            if other:
                self._settle(other)
            elif taken:
                self._answer(taken)

    def _wait_for_more(self) -> None:
        until = time.monotonic() + self._max_wait_s
        while sum(ask.num_left for ask in self._asks) < self._max_batch and not self._closing:
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                return

    def _take(self) -> list[tuple[Ask, int, int]]:
        """Whose windows the next batch has, from which to which."""
        taken: list[tuple[Ask, int, int]] = []
        room, now = self._max_batch, time.monotonic()
        for _ in range(len(self._asks)):
            if not room or not self._asks[0].num:
                break
            ask = self._asks.popleft()
            if ask.answer.done():  # a batch that it was in has failed
                continue
            if ask.deadline < now:
                ask.answer.set_exception(too_late(self._timeout_s))
                continue
            first, num = ask.num_taken, min(ask.num_left, room)
            ask.num_taken += num
            room -= num
            taken.append((ask, first, first + num))
            if ask.num_left:
                self._asks.append(ask)
        return taken

    def _answer(self, taken: list[tuple[Ask, int, int]]) -> None:
        assert self._classify is not None
        try:
            found = self._classify(np.concatenate([ask.work(first, last) for ask, first, last in taken]))
        except Exception as error:
            for ask, *_ in taken:
                ask.answer.set_exception(error)
            return
        self._observe(len(found))
        at = 0
        for ask, first, last in taken:
            ask.done.append(found[at : at + last - first])
            at += last - first
            if not ask.num_left:
                ask.answer.set_result(np.concatenate(ask.done))

    def _settle(self, ask: Ask) -> None:
        try:
            if ask.deadline < time.monotonic():
                raise too_late(self._timeout_s)
            ask.answer.set_result(ask.work())
        except Exception as error:
            ask.answer.set_exception(error)
