"""python -m parallel_tunes.benchmark.relisten_worker ROW FOLDER BATCH: a process that trains on listens, as many steps as told.

A line `go N` lets N steps happen; the answer is a line of JSON: rows a second, the most memory the process has held, in MiB, and
the last step's loss. `learn N LR M FILE` trains a new network for N steps at this learning rate, and writes to FILE what it
then says of M later rows. FOLDER holds what `Listens.keep` wrote: all rows train on the same batches.

Rows: `seed`, the network and the loop of the project this one grew out of: an embedding for each column, dense gradients, a sigmoid,
BCELoss, Adam as PyTorch has it. The columns of its batches are laid out beforehand, out of its time. `ours`: RelistenLearner,
which gathers the columns of users and songs itself, in its time. `ours_static`: the same without causal features.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallel_tunes.benchmark.hold import take_pipes
from parallel_tunes.benchmark.relisten_rows import Listens
from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Rows
from parallel_tunes.train.relisten_learner import FrozenListens, RelistenLearner

LR = 1e-3
WIDTH = 64  # of all embeddings
CHUNK = 1 << 14  # rows that are answered at a time


class Seed:
    """The seed's network and loop."""

    def __init__(self, listens: Listens, batch: int, lr: float) -> None:
        self.listens, self.batch, self.loss = listens, batch, 0.0
        self.model = RelistenSeed(listens.sizes, width=WIDTH)
        listens.describe(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.criterion = nn.BCELoss()

    def prepare(self, step: int) -> tuple[Tensor, Tensor]:
        """A batch as the seed has it: all columns of all rows, side by side; out of its time."""
        made = self.listens.batch(step, self.batch)
        assert isinstance(made.inputs, Rows)
        return self.model.rows_of(made.inputs.codes).long(), made.targets.float()

    def step(self, step: int) -> float:
        """Train on a batch; the seconds that took."""
        table_rows, targets = self.prepare(step)
        began = time.perf_counter()
        self.optimizer.zero_grad()
        answers = torch.sigmoid(self.model.layers(self.model.embed(table_rows).flatten(1)).squeeze(1))
        loss = self.criterion(answers, targets)
        loss.backward()
        self.optimizer.step()
        self.loss = float(loss.detach())
        return time.perf_counter() - began


class Ours:
    """This project's network and learner."""

    def __init__(self, listens: Listens, batch: int, lr: float) -> None:
        self.listens, self.batch, self.loss = listens, batch, 0.0
        mesh = Mesh()
        mesh.start("cpu", 60)
        self.model = RelistenNet(listens.sizes, width=WIDTH)
        listens.describe(self.model)
        self.learner = RelistenLearner(self.model, mesh, learning_rate=lambda _: lr)

    def step(self, step: int) -> float:
        """Read a batch and train on it; the seconds that took."""
        began = time.perf_counter()
        self.loss = self.learner.step(self.listens.batch(step, self.batch), step).means()["loss"]
        return time.perf_counter() - began


def ours_static(listens: Listens, batch: int, lr: float) -> Ours:
    """Without causal features: what is known of a row are its columns, as for the seed's network."""
    return Ours(listens.without_numbers(), batch, lr)


LOOPS: dict[str, Callable[[Listens, int, float], Seed | Ours]] = {
    "seed": Seed,
    "ours": Ours,
    "ours_static": ours_static,
}


def answer(model: RelistenNet | RelistenSeed, listens: Listens, most: int) -> NDArray[np.float32]:
    """The probability of each row to judge by."""
    frozen, ids = FrozenListens(model, torch.device("cpu")), listens.late_ids(most)
    parts = [frozen.predict(listens.rows(ids[at : at + CHUNK]))[:, 1] for at in range(0, len(ids), CHUNK)]
    return torch.cat(parts).float().numpy()


def peak_memory_mib() -> float:
    """The most that this process has held; the kernel's other count of it begins with that of whoever started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))


def main(argv: Sequence[str]) -> None:
    """Train until the lines end."""
    row, folder, batch = argv[0], Path(argv[1]), int(argv[2])
    hold = take_pipes()
    listens, done = Listens.open(folder), 0

    def begin(lr: float) -> Seed | Ours:
        torch.manual_seed(0)
        return LOOPS[row](listens, batch, lr)

    loop = begin(LR)
    loop.step(done)  # compiled, and memory taken, before the first step that counts
    for line in hold.lines:
        word, num, *more = line.strip().split(" ", 4)
        if word == "learn":
            lr, most, file = more
            loop = begin(float(lr))
            seconds = sum(loop.step(1 + at) for at in range(int(num)))
            np.save(file, answer(loop.model, loop.listens, int(most)))
            found: dict[str, Any] = {"seconds": seconds, "loss": loop.loss}
        else:
            seconds = sum(loop.step(done + at + 1) for at in range(int(num)))
            done += int(num)
            found = {"rows_per_s": int(num) * batch / seconds, "loss": loop.loss, "peak_memory_mib": peak_memory_mib()}
        print(json.dumps(found), file=hold.answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
