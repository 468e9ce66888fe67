"""python limited.py MIB WORD …: the door, whose last rank may take so much more memory than it has before the first step."""

from __future__ import annotations

import resource
import sys

import psutil

from parallel_tunes.__main__ import main
from parallel_tunes.config import TrainJob
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.tasks import genre
from parallel_tunes.tasks.planning import Plan

find_batch = genre.find_batch


def find_limited(cfg: TrainJob, made: Plan, mesh: Mesh, run: Run, chosen: int) -> int:
    if mesh.rank == mesh.world_size - 1:
        limit = psutil.Process().memory_info().vms + MIB * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return find_batch(cfg, made, mesh, run, chosen)


if __name__ == "__main__":
    MIB, words = int(sys.argv[1]), sys.argv[2:]
    genre.find_batch = find_limited
    main(words)
