"""Which codes a model knows: those met often enough among the rows it is fitted on; what is rare shares, what is new is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING, UNSEEN, FIRST = 0, 1, 2  # model codes; from FIRST on buckets, then known codes


def fit_lookup(
    codes: NDArray[np.integer[Any]], num_codes: int, *, min_count: int = 1, num_buckets: int = 0
) -> NDArray[np.int32]:
    """A column's lookup raw code → model code, (num_codes,): MISSING of 0, UNSEEN where no row has the code, a bucket where
    fewer than `min_count` have (the hashing trick, Weinberger et al. 2009), else a code of its own, by frequency: what
    is met often lies side by side in memory.

    Args:
        codes: those of the rows that a model is fitted on; 0 is missing.
        min_count: with fewer rows a code is rare; without buckets rare codes are as good as unseen ones.
        num_buckets: that rare codes are spread over by a hash of the code.
    """
    counts = np.bincount(codes, minlength=num_codes)
    counts[:1] = 0
    lookup = np.full(num_codes, UNSEEN, np.int32)
    lookup[:1] = MISSING
    rare = np.flatnonzero((counts > 0) & (counts < min_count))
    if num_buckets:
        lookup[rare] = FIRST + hash_codes(rare) % np.uint64(num_buckets)
    known = np.flatnonzero((counts > 0) & (counts >= min_count))
    known = known[np.argsort(-counts[known], kind="stable")]
    lookup[known] = FIRST + num_buckets + np.arange(len(known))
    return lookup


def hash_codes(codes: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """64 mixed bits of each code (SplitMix64, Steele et al. 2014): the same on every machine."""
    bits = codes.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
