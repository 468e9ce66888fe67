"""torchrun worlds.py FOLDER: named checks that each need several ranks, all carried out by one world.

Starting a world costs seconds, mostly to import torch in each rank. The fixture `worlds` starts one of each size a test
run; every rank writes what its checks found to FOLDER/<check>-<rank>.pt, up to the first that fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from parallel_tunes.parallel.mesh import Mesh

HERE = Path(__file__).parent
# by number of ranks: module:function, called with the mesh and a folder for the runs of the check; it returns tensors and numbers
CHECKS: dict[int, tuple[str, ...]] = {
    2: (
        "parallel.test_batch_norm:learn",
        "parallel.test_near:meet_here",
        "train.test_world_size:train_here",
        "train.test_relisten_learner:learn_here",
        "train.test_profile:train_twice",
        "train.test_timing:train_timed",
    ),
    3: (
        "parallel.test_batch_norm:learn",
        "train.test_world_size:train_here",
        "train.test_world_size:accumulate_here",
        "train.sharing:solve_here",
    ),
}


def find(name: str) -> Callable[[Mesh, Path], Any]:
    """The function of a check."""
    module, _, function = name.partition(":")
    room, _, file = module.partition(".")
    if str(HERE / room) not in sys.path:
        sys.path[:0] = [str(HERE), str(HERE / room)]
    check: Callable[[Mesh, Path], Any] = getattr(importlib.import_module(file), function)
    return check


if __name__ == "__main__":
    torch.set_num_threads(1)
    world = Mesh()
    world.start("cpu", 600)
    for name in CHECKS[world.world_size]:
        found = find(name)(world, Path(sys.argv[1]))
        torch.save(found, Path(sys.argv[1]) / f"{name.partition(':')[2]}-{world.rank}.pt")
    world.stop()
