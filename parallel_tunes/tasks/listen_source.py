"""Listens as a trainer sees them: batches of rows to learn from, long stretches to judge by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes.data.batches import Batches, Ids, hash_samples, share
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.tasks.listen_plan import ListenPlan
from parallel_tunes.train.learner import Batch, Inputs, Rows


class ListenSource:
    """Rows of a plan.

    Args:
        seed: seed of their order.

    Attributes:
        unit, chunk: as `Source` has them.
    """

    unit = "rows"
    chunk = 1 << 16
    num_classes = 2

    def __init__(self, made: ListenPlan, mesh: Mesh, *, batch: int, seed: int) -> None:
        self.made, self.mesh, self.seed = made, mesh, seed
        self.batches = Batches(made.rows["train"], batch=batch, seed=seed)
        self.num_steps = self.batches.num_steps

    def train(self, epoch: int, from_step: int) -> Iterator[Batch]:
        """This rank's parts of an epoch's global batches."""
        for step, ids in list(enumerate(self.batches.epoch(epoch)))[from_step:]:
            mine = np.sort(
                share(ids, rank=self.mesh.rank, world_size=self.mesh.world_size)
            )  # near rows are read together
            weight, mine = (1.0, mine) if len(mine) else (0.0, ids[:1])
            batch = Batch(
                self._read(mine),
                torch.from_numpy(self.made.targets[mine].astype(np.int64)),
                torch.full((len(mine),), weight),
                torch.from_numpy(hash_samples(f"{self.seed}/{epoch}/{step}", mine)),
                len(ids),
                torch.from_numpy(hash_samples(f"{self.seed}/{epoch}/keys", mine)),
            )
            yield batch.pinned() if self.mesh.device.type == "cuda" else batch

    def _read(self, rows: Ids) -> Rows:
        return Rows(torch.from_numpy(self.made.codes[rows]), torch.from_numpy(self.made.numbers[rows]))

    def num_tracks(self, split: str) -> int:
        return len(self.made.rows[split])

    def targets(self, split: str) -> NDArray[np.int64]:
        return self.made.targets[self.made.rows[split]].astype(np.int64)

    def windows(self, split: str, first: int, last: int) -> Iterator[tuple[Tensor, Inputs]]:
        yield torch.arange(first, last), self._read(self.made.rows[split][first:last])
