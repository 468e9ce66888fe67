"""Tracks as a trainer sees them: random crops to learn from, overlapping windows to judge by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes.audio import front_end
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.data import label_sets
from parallel_tunes.data.batches import Batches, Ids, draw_uniform, fit_length, hash_samples, share, window_starts
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.tasks.resident import Resident
from parallel_tunes.train.learner import Batch, Inputs, Mixed, Waveforms

MAX_WINDOWS = 64  # in one forward pass of an evaluation


class CropSource:
    """Crops to learn from and windows to judge by, out of a shard set and a split.

    Args:
        rows: rows of the index by split; each must have a label of `classes`.
        seed: seed of the order, the crops and all other draws.
        mixup: alpha of the Beta distribution of the shares that samples are mixed by; 0 mixes none.
        reach: frames of a crop to learn from, where it is longer than `window`.
        multi_label: whether a track may have several labels.
        resident: the tracks on the device that is trained on; otherwise they are read from their memory-mapped shards.

    Attributes:
        unit, chunk: as `Source` has them.
        log_mel: what the spectrograms of the crops are to be made with; None where the crops are spectrograms already.
    """

    unit = "crops"
    chunk = 8

    def __init__(
        self, shards: ShardSet, rows: dict[str, Ids], classes: list[str], *,
        window: int, overlap: float, mesh: Mesh, batch: int = 1, seed: int = 0, mixup: float = 0.0, reach: int = 0,
        multi_label: bool = False, resident: Resident | None = None,
    ) -> None:  # fmt: skip
        self.shards, self.rows, self.mesh, self.seed = shards, rows, mesh, seed
        self.window, self.overlap, self.mixup, self.resident = window, overlap, mixup, resident
        self.reach = max(reach, window)
        features = front_end.restore(shards.manifest["features"])
        self.log_mel = front_end.definition(features) if features.kind == "waveform" else None
        self.gains = shards.index["gain"].to_numpy(np.float32)
        self.floors_db = shards.index["highest_db"].to_numpy(np.float32) - np.float32(features.top_db)
        self.num_classes = len(classes)
        held = label_sets.tabulate(shards.index["label"].to_numpy(object), classes, multi_label=multi_label)
        self.labels: NDArray[np.integer] = held if multi_label else np.where(held.any(1), held.argmax(1), -1)
        self.batches = Batches(rows["train"], batch=batch, seed=seed) if "train" in rows else None
        self.num_steps = self.batches.num_steps if self.batches else 0

    def train(self, epoch: int, from_step: int) -> Iterator[Batch]:
        """This rank's parts of an epoch's global batches."""
        assert self.batches is not None
        for step, ids in list(enumerate(self.batches.epoch(epoch)))[from_step:]:
            mine = share(ids, rank=self.mesh.rank, world_size=self.mesh.world_size)
            # a rank without a sample of this batch takes part with one that weighs nothing
            weight, mine = (1.0, mine) if len(mine) else (0.0, ids[:1])
            starts = self._starts(epoch, mine)
            mixed, draws = self._mix(epoch, ids, mine) if self.mixup else (None, ())
            batch = Batch(
                self._cut(mine, starts, self.reach),
                torch.from_numpy(self.labels[mine]),
                torch.full((len(mine),), weight),
                torch.from_numpy(hash_samples(f"{self.seed}/{epoch}/{step}", mine, starts, *draws)),
                len(ids),
                self._keys(epoch, mine),
                mixed,
            )
            yield batch.pinned() if self.mesh.device.type == "cuda" else batch

    def _keys(self, epoch: int, rows: Ids) -> Tensor:
        return torch.from_numpy(hash_samples(f"{self.seed}/{epoch}/keys", rows))

    def _starts(self, epoch: int, rows: Ids) -> Ids:
        """The first frame of each track's crop in this epoch."""
        at = draw_uniform(self.seed, epoch, rows, "crop")
        places = np.maximum(self.shards.num_frames[rows] - self.reach + 1, 1)
        return np.asarray(at * places, np.int64)

    def _mix(self, epoch: int, ids: Ids, mine: Ids) -> tuple[Mixed, tuple[Ids, Ids]]:
        """What this rank's samples of the batch `ids` are mixed with: others of it, as they are cut in this epoch; and the draws."""
        from scipy.special import betaincinv  # only mixup needs it, and ranks start sooner without

        partners = dict(
            zip(
                np.sort(ids).tolist(),
                ids[np.argsort(draw_uniform(self.seed, epoch, ids, "partner"))].tolist(),
                strict=True,
            )
        )
        others = np.array([partners[row] for row in mine.tolist()], np.int64)
        # the larger share is the sample's own, whose label is counted as the right one
        shares = betaincinv(self.mixup, self.mixup, draw_uniform(self.seed, epoch, mine, "share"))
        shares = np.maximum(shares, 1 - shares).astype(np.float32)
        mixed = Mixed(
            self._cut(others, self._starts(epoch, others), self.reach),
            torch.from_numpy(self.labels[others]),
            torch.from_numpy(shares),
            self._keys(epoch, others),
        )
        return mixed, (others, shares.view(np.int32).astype(np.int64))

    def _cut(self, rows: Ids, starts: Ids, num_frames: int) -> Inputs:
        """A crop of each of some tracks, from a frame of it on."""
        if self.log_mel is not None:
            return self._cut_samples(rows, starts, num_frames, self.log_mel)
        if self.resident:
            return self.resident.cut(rows, starts, num_frames).transpose(1, 2)
        places = zip(rows.tolist(), starts.tolist(), strict=True)
        crops = [fit_length(self.shards.read(row, start, num_frames), num_frames) for row, start in places]
        return torch.from_numpy(np.stack(crops)).transpose(1, 2)

    def _cut_samples(self, rows: Ids, starts: Ids, num_frames: int, log_mel: LogMel) -> Waveforms:
        """The samples that the frames of such crops reach: they are centred, so that the first begins before its place."""
        n_fft, hop_length = log_mel.n_fft, log_mel.hop_length
        num, firsts = (num_frames - 1) * hop_length + n_fft, starts * hop_length - n_fft // 2
        of_clips = (self.gains[rows], self.floors_db[rows], self.shards.num_frames[rows] - starts)
        if self.resident:
            return Waveforms(self.resident.cut(rows, firsts, num), *map(torch.from_numpy, of_clips))
        samples = np.zeros((len(rows), num), np.int16)
        for crop, row, first in zip(samples, rows.tolist(), firsts.tolist(), strict=True):
            before = max(-first, 0)
            there = self.shards.read(row, first + before, crop.size - before)
            crop[before : before + there.size] = there
        return Waveforms(torch.from_numpy(samples), *map(torch.from_numpy, of_clips))

    @property
    def num_at_once(self) -> int:
        """Most windows that one forward pass of an evaluation judges."""
        longest = max(int(self.shards.num_frames[part].max(initial=1)) for part in self.rows.values())
        return min(MAX_WINDOWS, self.chunk * len(window_starts(longest, self.window, self.overlap)))

    def num_tracks(self, split: str) -> int:
        return len(self.rows.get(split, ()))

    def targets(self, split: str) -> NDArray[np.integer]:
        return self.labels[self.rows[split]]

    def windows(self, split: str, first: int, last: int) -> Iterator[tuple[Tensor, Inputs]]:
        places = [
            (track, int(self.rows[split][track]), start)
            for track in range(first, last)
            for start in window_starts(int(self.shards.num_frames[self.rows[split][track]]), self.window, self.overlap)
        ]
        for at in range(0, len(places), MAX_WINDOWS):
            tracks, rows, starts = np.array(places[at : at + MAX_WINDOWS], np.int64).T
            yield torch.from_numpy(tracks.copy()), self._cut(rows, starts, self.window)
