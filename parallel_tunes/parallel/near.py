"""Sums of a few numbers over ranks of one machine, through memory that they share.

Synchronised batch norms need several of them a step, each of some hundred numbers that all ranks wait for. gloo sends them
through sockets to threads that must be woken, for which an idle core may take milliseconds; here a rank that waits keeps
looking, and has them some microseconds after the last one. Sums are added in the order of the ranks.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from parallel_tunes.parallel.signs import GONE, status_of

if TYPE_CHECKING:
    import torch

FOLDER = Path("/dev/shm")
MOST = 16384  # numbers of 8 bytes in a sum
LINE = 8  # of them in a cache line: each rank's counter has one of its own
LOOKS, YIELDS = 1_000, 5_000  # looks without a pause, some 50 µs; then up to so many that let others run, some 3 ms
NAP_S, CHECK_S = 1e-4, 0.2

Value = TypeVar("Value")


class World(Protocol):
    """What is asked of a Mesh while it starts."""

    rank: int
    world_size: int

    def gather(self, value: Value) -> list[Value]: ...


class NearSum:
    """This rank's end of it.

    Args:
        memory: zeros at first.
        processes: of all ranks.
        timeout_s: how long a rank waits for the others.
    """

    def __init__(self, memory: mmap.mmap, rank: int, processes: list[int], timeout_s: float) -> None:
        self._rank, self._processes, self._timeout_s = rank, processes, timeout_s
        num = len(processes)
        self._counts = memoryview(memory).cast("q")[: LINE * num]
        # A rank writes its numbers of one round while slower ones still read those of the round before: two slots. It can
        # be no further ahead, for then it would have waited for them.
        self._numbers = np.frombuffer(memory, np.int64, offset=8 * LINE * num).reshape(2, num, MOST)
        self._round = 0

    @staticmethod
    def fits(tensor: torch.Tensor) -> bool:
        """Whether a tensor can be summed here: the same on all ranks."""
        import torch

        return (
            tensor.dtype in (torch.float64, torch.int64)
            and tensor.numel() <= MOST
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
        )

    def sum(self, tensor: torch.Tensor) -> None:
        """The sum of `tensor` over all ranks, in place.

        Raises:
            RuntimeError: another rank has died, or has not come within `timeout_s`.
        """
        mine = tensor.detach().numpy().reshape(-1)
        self._round += 1
        slot = self._numbers[self._round % 2, :, : mine.size].view(mine.dtype)
        slot[self._rank] = mine
        self._counts[LINE * self._rank] = self._round
        for other in range(len(self._processes)):
            self._wait(other)
        mine[:] = slot.sum(0)

    def _wait(self, rank: int) -> None:
        counts, at, num = self._counts, LINE * rank, 0
        while counts[at] < self._round:
            num += 1
            if num > YIELDS:
                self._wait_long(rank)
            elif num > LOOKS:
                time.sleep(0)

    def _wait_long(self, rank: int) -> None:
        until = time.monotonic() + self._timeout_s
        while time.monotonic() < until:
            check = time.monotonic() + CHECK_S
            while time.monotonic() < check:
                if self._counts[LINE * rank] >= self._round:
                    return
                time.sleep(NAP_S)
            if status_of(self._processes[rank]) in GONE:
                raise RuntimeError(f"rank {rank}: connection closed by peer")
        raise RuntimeError(f"rank {rank}: Timed out waiting {self._timeout_s:g} s")


def meet(world: World, has_cores: bool, timeout_s: float) -> NearSum | None:
    """The sum of ranks that all run on this machine; None on all of them where that cannot be.

    Args:
        has_cores: this rank need share none: while it looks, nobody waits for its core.
    """
    # other processors may show a rank's count before its numbers
    suits = has_cores and platform.machine() in ("x86_64", "AMD64") and FOLDER.is_dir()
    if not all(world.gather(suits)):
        return None
    size, memory = 8 * (LINE + 2 * MOST) * world.world_size, None
    with contextlib.ExitStack() as ending:
        path = ""
        with contextlib.suppress(OSError):  # it is full: asked for at once, lest a rank die of it later
            if world.rank == 0:
                file = ending.enter_context(tempfile.NamedTemporaryFile(prefix="parallel_tunes-", dir=FOLDER))
                os.posix_fallocate(file.fileno(), 0, size)
                path = file.name
        path = world.gather(path)[0]
        with contextlib.suppress(OSError), Path(path).open("r+b") as stream:  # each container has one of its own
            memory = mmap.mmap(stream.fileno(), size)
        found = world.gather((memory is not None, os.getpid()))
    # The file is gone by now: what is mapped stays, and nothing is left behind, however the ranks end
    if memory is None or not all(has_memory for has_memory, _ in found):
        return None
    return NearSum(memory, world.rank, [process for _, process in found], timeout_s)
