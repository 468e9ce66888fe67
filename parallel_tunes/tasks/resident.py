"""Tracks in the memory of a GPU: crops are cut there, and nothing but their places is sent for a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet

SHARE = 0.25  # most of the memory that is free there: the rest is the training's


class Resident:
    """The frames, or samples, of some tracks.

    Args:
        rows: of the index.
        is_filled: crops beyond a track's end hold its lowest value; otherwise zeros, before its beginning too.
    """

    def __init__(self, shards: ShardSet, rows: Ids, device: torch.device, *, is_filled: bool) -> None:
        lengths = shards.num_rows[rows]
        ends = np.cumsum(lengths)
        self.firsts = np.zeros(len(shards.num_rows), np.int64)
        self.firsts[rows] = ends - lengths
        self.lengths = shards.num_rows
        example = torch.from_numpy(np.array(shards.read(int(rows[0]), 0, 1)))
        self.all = torch.empty((int(ends[-1]), *example.shape[1:]), dtype=example.dtype, device=device)
        fills = torch.zeros(len(self.firsts), dtype=example.dtype)
        for row, last, length in zip(rows.tolist(), ends.tolist(), lengths.tolist(), strict=True):
            track = torch.from_numpy(np.array(shards.read(row)))
            self.all[last - length : last] = track
            if is_filled:
                fills[row] = track.min()
        self.fills = fills.to(device)

    @classmethod
    def where_it_fits(cls, shards: ShardSet, rows: dict[str, Ids], device: torch.device) -> Resident | None:
        """The tracks of all splits, if this is a GPU with room for them."""
        if device.type != "cuda":
            return None
        every = np.concatenate(list(rows.values()))
        width = np.array(shards.read(int(every[0]), 0, 1)).nbytes
        has_room = shards.num_rows[every].sum() * width < SHARE * torch.cuda.mem_get_info(device)[0]
        is_filled = shards.manifest["features"]["kind"] != "waveform"
        return cls(shards, every, device, is_filled=is_filled) if has_room else None

    def cut(self, rows: Ids, starts: Ids, num: int) -> Tensor:
        """`num` frames or samples of each of some tracks, from `starts` on: (num_crops, num, …), on the device."""
        # one small copy for all places, so that there is but one wait for it
        facts = torch.from_numpy(np.stack([rows, starts, self.firsts[rows], self.lengths[rows]]))
        if self.all.is_cuda:
            facts = facts.pin_memory()
        tracks, first, base, length = facts.to(self.all.device, non_blocking=True)
        places = first[:, None] + torch.arange(num, device=self.all.device)
        inside = (places >= 0) & (places < length[:, None])
        crops = self.all[base[:, None] + torch.where(inside, places, 0)]
        beyond = self.fills[tracks].view(-1, *[1] * (crops.ndim - 1))
        return torch.where(inside.view(*inside.shape, *[1] * (crops.ndim - 2)), crops, beyond)
