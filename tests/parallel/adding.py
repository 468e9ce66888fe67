"""python adding.py FILE RANK ROUNDS TIMEOUT_S: a rank that adds numbers up with others, each time at its own pace.

It says its number first, and waits for a line with those of all.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from pathlib import Path

import torch

from parallel_tunes.parallel.near import NearSum


def expect(number: int, num_ranks: int) -> torch.Tensor:
    """The sum of a round, of whole numbers: exact in any order."""
    return torch.arange(5.0, dtype=torch.float64) * number * num_ranks + sum(range(num_ranks))


def add_up(near: NearSum, rank: int, num_ranks: int, rounds: int) -> None:
    pace = random.Random(rank)
    for number in range(1, rounds + 1):
        if pace.random() < 0.02:
            time.sleep(pace.random() * 0.02)
        floats = torch.arange(5.0, dtype=torch.float64) * number + rank
        near.sum(floats)
        assert torch.equal(floats, expect(number, num_ranks)), (number, floats)
        flags = torch.tensor([rank == number % num_ranks, False])
        counts = flags.long()
        near.sum(counts)
        assert counts.tolist() == [1, 0], (number, counts)
        if number == 1:
            print("adding", flush=True)


if __name__ == "__main__":
    path, rank, rounds, timeout_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    print(os.getpid(), flush=True)
    processes = [int(word) for word in sys.stdin.readline().split()]
    with Path(path).open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    try:
        add_up(NearSum(memory, rank, processes, timeout_s), rank, len(processes), rounds)
    except RuntimeError as error:
        print(error, flush=True)
