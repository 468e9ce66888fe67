"""Tracks as a trainer sees them: random crops to learn from, overlapping windows to judge by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes.data.batches import Batches, Ids, draw_uniform, fit_length, hash_samples, share, window_starts
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Batch

MAX_WINDOWS = 64  # in one forward pass of an evaluation


class CropSource:
    """Crops to learn from and windows to judge by, out of a shard set and a split.

    Args:
        rows: rows of the index by split; they may have only labels of `classes`.
        seed: seed of the order and the crops.
    """

    def __init__(
        self, shards: ShardSet, rows: dict[str, Ids], classes: list[str], *,
        window: int, overlap: float, mesh: Mesh, batch: int = 1, seed: int = 0,
    ) -> None:  # fmt: skip
        self.shards, self.rows, self.mesh, self.seed = shards, rows, mesh, seed
        self.window, self.overlap = window, overlap
        self.num_classes = len(classes)
        numbers = {name: number for number, name in enumerate(classes)}
        self.labels = shards.index["label"].map(lambda name: numbers.get(name, -1)).to_numpy(np.int64)
        self.batches = Batches(rows["train"], batch=batch, seed=seed) if "train" in rows else None
        self.num_steps = self.batches.num_steps if self.batches else 0

    def train(self, epoch: int, from_step: int) -> Iterator[Batch]:
        """This rank's parts of an epoch's global batches."""
        assert self.batches is not None
        for step, ids in list(enumerate(self.batches.epoch(epoch)))[from_step:]:
            mine = share(ids, rank=self.mesh.rank, world_size=self.mesh.world_size)
            # a rank without a sample of this batch takes part with one that weighs nothing
            weight, mine = (1.0, mine) if len(mine) else (0.0, ids[:1])
            at = draw_uniform(self.seed, epoch, mine, "crop")
            starts = (at * np.maximum(self.shards.num_frames[mine] - self.window + 1, 1)).astype(np.int64)
            crops = [self._crop(row, start) for row, start in zip(mine, starts, strict=True)]
            weights = torch.full((len(mine),), weight)
            marks = torch.from_numpy(hash_samples(f"{self.seed}/{epoch}/{step}", mine, starts))
            yield Batch(_stack(crops), torch.from_numpy(self.labels[mine]), weights, marks, len(ids))

    def _crop(self, row: int, start: int) -> NDArray[np.float16]:
        return fit_length(self.shards.read(row, start, self.window), self.window)

    def num_tracks(self, split: str) -> int:
        return len(self.rows.get(split, ()))

    def targets(self, split: str) -> NDArray[np.int64]:
        return self.labels[self.rows[split]]

    def windows(self, split: str, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        places = [
            (track, int(self.rows[split][track]), start)
            for track in range(first, last)
            for start in window_starts(int(self.shards.num_frames[self.rows[split][track]]), self.window, self.overlap)
        ]
        for at in range(0, len(places), MAX_WINDOWS):
            part = places[at : at + MAX_WINDOWS]
            yield (
                torch.tensor([track for track, _, _ in part]),
                _stack([self._crop(row, start) for _, row, start in part]),
            )


def _stack(crops: list[NDArray[np.float16]]) -> Tensor:
    """Crops of shape (num_frames, num_mels) as (num, num_mels, num_frames)."""
    return torch.from_numpy(np.stack(crops)).transpose(1, 2)
