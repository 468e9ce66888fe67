"""What processor this is, and which of its cores are whose."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def cpu_model() -> str:
    """What it calls itself."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def take_cores(local_rank: int, num_ranks: int, num_threads: int) -> bool:
    """Keep this rank, and all threads it will start, to its share of the cores, where the ranks here fill all there are.

    Ranks wait for the slowest: none is to have another's helpers on its cores.

    Returns:
        Whether there are cores for all.
    """
    cores = sorted(os.sched_getaffinity(0))
    if num_ranks > 1 and num_ranks * num_threads == len(cores):
        os.sched_setaffinity(0, cores[local_rank * num_threads :][:num_threads])
    return num_ranks * num_threads <= len(cores)
