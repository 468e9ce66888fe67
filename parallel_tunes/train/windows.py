"""A clip as the windows that a model of genres judges, cut out of its samples as they come: what an exported model is fed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import to_float
from parallel_tunes.audio.front_end import Clip
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data.batches import cut_frames, window_starts

AT_ONCE = 16  # windows in one pass
Feed = dict[str, NDArray[Any]]  # by the names of a graph's inputs


def cut_windows(clip: Clip, features: FeaturesConfig, *, window: int, overlap: float) -> Iterator[Feed]:
    """The windows that a clip is judged by, up to AT_ONCE at a time: the same as `Predictor` cuts.

    Args:
        window: frames.

    Returns:
        Of pictures `levels`, (num, num_mels, window), dB. Of audio `samples`, (num, num_samples), all that the window's
        frames reach, zeros where that is outside the clip; and of the clip `gain`, `floor_db` and `num_frames`, (num,).
    """
    starts = window_starts(len(clip.frames), window, overlap)
    if features.kind == "picture":
        for at in range(0, len(starts), AT_ONCE):
            some = starts[at : at + AT_ONCE]
            yield {"levels": cut_frames(clip.frames, some, window).transpose(0, 2, 1).astype(np.float32, order="C")}
        return
    definition = front_end.definition(features)
    size = (window - 1) * definition.hop_length + definition.n_fft
    firsts = [start * definition.hop_length - definition.n_fft // 2 for start in starts]
    crops = cut_crops(map(to_float, front_end.waveform(clip.source, features)), firsts, size)
    for at in range(0, len(starts), AT_ONCE):
        some = starts[at : at + AT_ONCE]
        yield {
            "samples": np.stack(list(islice(crops, len(some)))),
            "gain": np.full(len(some), clip.gain, np.float32),
            "floor_db": np.full(len(some), clip.highest_db - features.top_db, np.float32),
            "num_frames": len(clip.frames) - np.array(some, np.int64),
        }


def cut_crops(pieces: Iterable[NDArray[np.float32]], firsts: Iterable[int], size: int) -> Iterator[NDArray[np.float32]]:
    """Crops of `size` samples of a clip that comes in pieces, zeros where they reach out of it; few of the pieces are held.

    Args:
        firsts: where crops begin, in ascending order.
    """
    held, begin, more = np.empty(0, np.float32), 0, iter(pieces)
    for first in firsts:
        while begin + held.size < first + size and (piece := next(more, None)) is not None:
            past = min(max(first - begin, 0), held.size)
            held, begin = np.concatenate([held[past:], piece]), begin + past
        crop = np.zeros(size, np.float32)
        low, high = max(first, begin), min(first + size, begin + held.size)
        if low < high:
            crop[low - first : high - first] = held[low - begin : high - begin]
        yield crop
