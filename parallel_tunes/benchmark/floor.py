"""What no program can do faster on this core: a clip's Fourier transforms at the speed of a matrix product, its bytes at a copy's."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from parallel_tunes.config import FeaturesConfig

SIDE = 512  # of the matrices: 3 MiB, in the cache
COPIED = 1 << 26  # bytes at a time: beyond any cache


@dataclass(frozen=True)
class Work:
    """What one clip takes at the least.

    Args:
        num_frames: of its spectrogram.
        flops: of their real Fourier transforms, 2.5 n_fft log2 n_fft each: additions and products.
        bytes_read, bytes_written: the file, and its features as float16.
    """

    num_frames: int
    flops: float
    bytes_read: int
    bytes_written: int


def count_work(features: FeaturesConfig, num_samples: int, file_bytes: int) -> Work:
    """The least work for a clip of this many samples at the features' rate, whose file has so many bytes."""
    num_frames = 1 + num_samples // features.hop_length
    flops = 2.5 * features.n_fft * math.log2(features.n_fft) * num_frames
    return Work(num_frames, flops, file_bytes, 2 * num_frames * features.num_mels)


def time_flops(work: Work, n: int) -> float:
    """Seconds that the operations of n clips would take at the rate of a float32 matrix product."""
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    out, products = one @ other, 40
    began = time.perf_counter()
    for _ in range(products):
        np.matmul(one, other, out=out)
    return (time.perf_counter() - began) * n * work.flops / (products * 2 * SIDE**3)


def time_bytes(work: Work, n: int) -> float:
    """Seconds that the bytes of n clips would take at the rate of a copy in memory."""
    source, copies = np.ones(COPIED, np.uint8), 4
    target = source.copy()
    began = time.perf_counter()
    for _ in range(copies):
        np.copyto(target, source)
    return (time.perf_counter() - began) * n * (work.bytes_read + work.bytes_written) / (copies * COPIED)
