"""python limited.py MIB WORD …: the door, whose last rank may take so much more memory than it has while the batch is settled."""

from __future__ import annotations

import resource
import sys

import psutil

from parallel_tunes.__main__ import main
from parallel_tunes.train import memory

settle_batch = memory.settle_batch


def settle_limited(wanted: int | str, accumulate: int, trial: memory.Trial, num_train: int, num_windows: int) -> int:
    if trial.mesh.rank == trial.mesh.world_size - 1:
        for is_judged in (False, True):
            trial.fits_here(1, is_judged)  # loads code, which would take an unknown part of what is left
        limit = psutil.Process().memory_info().vms + MIB * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return settle_batch(wanted, accumulate, trial, num_train, num_windows)
    finally:  # threads of the training's own take address space by the core, which differs between machines
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    MIB, words = int(sys.argv[1]), sys.argv[2:]
    memory.settle_batch = settle_limited
    main(words)
