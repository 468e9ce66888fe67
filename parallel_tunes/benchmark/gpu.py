"""Rows on a GPU: batches of clips transformed by torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.benchmark.clips import MAX_BYTES
from parallel_tunes.benchmark.suite import Cell
from parallel_tunes.config import FeaturesConfig

GROUP = "gpu"
GROUPS = {GROUP: "The GPU"}
BATCH, BATCHES = 64, 8


def list_cells(paths: Sequence[Path], features: FeaturesConfig, device: str = "cuda") -> Iterator[Cell]:
    """A row for the spectrograms of batches that lie in the host's memory; the decibels stay on the device."""
    what = f"ours, the spectrogram alone: {BATCH} clips at a time, from host memory"
    yield Cell(
        "ours_gpu",
        what,
        GROUP,
        "ours",
        BATCH * BATCHES,
        partial(time_batches, make_batch(paths, features), features, device),
    )


def make_batch(paths: Sequence[Path], features: FeaturesConfig) -> Tensor:
    """Clips as int16, shape (BATCH, num_samples); the same ones again where there are fewer."""
    clips = [decode(path, sample_rate_hz=features.sample_rate_hz, max_bytes=MAX_BYTES)[0] for path in paths]
    shortest = min(clip.size for clip in clips)
    rows = [np.rint(clips[number % len(clips)][:shortest] * 32767).astype(np.int16) for number in range(BATCH)]
    return torch.from_numpy(np.stack(rows))


def time_batches(batch: Tensor, features: FeaturesConfig, device: str) -> float:
    """Seconds for `BATCHES` batches, from host memory to decibels on the device."""
    transform = LogMelTransform(front_end.definition(features)).to(device)
    source = batch.pin_memory() if device == "cuda" else batch
    _wait(device)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(BATCHES):
            transform(source.to(device, non_blocking=True))
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
