"""Tracks cut into segments that count as tracks, as much published work has them: a split may then part a track."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.data.shards import ShardSet, index_digest

Floats = NDArray[np.float64]


class Segments(ShardSet):
    """A view of a shard set with a row of the index for each segment; nothing is copied or written.

    What is left of a track behind its last whole segment is in none; a track shorter than a segment is one itself. A
    segment's path and hash are the track's and its number, `a.wav#3`, and its group is unknown: whose it is, is left aside.

    Args:
        num_frames: length of a segment.
    """

    def __init__(self, tracks: ShardSet, num_frames: int) -> None:
        self.folder = tracks.folder
        self._find_by(_cut(tracks, num_frames))
        facts = {"num_tracks": len(self.index), "index_digest": index_digest(self.index)}
        self.manifest = {**tracks.manifest, **facts}


def _cut(tracks: ShardSet, num_frames: int) -> pd.DataFrame:
    features = tracks.manifest["features"]
    is_waveform = features["kind"] == "waveform"
    step = features["hop_length"] if is_waveform else 1  # rows of a shard that a frame takes
    nums = np.maximum(tracks.num_frames // num_frames, 1)
    rows = np.repeat(np.arange(len(nums)), nums)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(nums) - nums, nums)
    firsts, lengths = numbers * num_frames, np.minimum(num_frames, tracks.num_frames[rows])
    whole = tracks.index.iloc[rows].reset_index(drop=True)
    names = "#" + pd.Series(numbers).astype(str)
    sums, squares = _share(tracks, rows, lengths) if is_waveform else _sum(tracks, nums, num_frames)
    return whole.assign(
        path=whole["path"] + names,
        hash=whole["hash"] + names,
        group=None,
        offset=whole["offset"] + firsts * step,
        # the last frame of a waveform may reach beyond its samples
        num_rows=np.minimum(lengths * step, tracks.num_rows[rows] - firsts * step),
        num_frames=lengths,
        duration_s=whole["duration_s"] * lengths / tracks.num_frames[rows],
        db_sum=sums,
        db_square_sum=squares,
    )


def _sum(tracks: ShardSet, nums: NDArray[np.int64], num_frames: int) -> tuple[Floats, Floats]:
    """Sums of the levels of each segment, and of their squares."""
    sums, squares = list[Floats](), list[Floats]()
    for row, num in enumerate(nums.tolist()):
        levels = tracks.read(row)[: num * num_frames].astype(np.float64).reshape(num, -1)
        sums.append(levels.sum(1))
        squares.append((levels**2).sum(1))
    return np.concatenate(sums), np.concatenate(squares)


def _share(tracks: ShardSet, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Of waveforms, whose levels are not there, a segment has its share of the track's sums."""
    share = lengths / tracks.num_frames[rows]
    sums, squares = (tracks.index[name].to_numpy(np.float64)[rows] * share for name in ("db_sum", "db_square_sum"))
    return sums, squares
