"""Causal features of listens, and what is left to serve later rows by. See `causal_kernels` for what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.data.causal_kernels import (
    ALL_PRIOR,
    KEYS,
    NAMES,
    PRIORS,
    ROWS,
    VARIANCE,
    describe_rows,
    number_pairs,
    pass_over,
)
from parallel_tunes.schema import UserError

__all__ = ["NAMES", "TRANSDUCTIVE_NAMES", "CausalState", "causal_features", "transductive_counts"]

Codes = NDArray[np.integer[Any]]
Floats = NDArray[np.float32]

TRANSDUCTIVE_NAMES = tuple(f"{key}_count_of_all" for key in KEYS)


@dataclass(frozen=True)
class CausalState:
    """What is known after the last row: the features of whatever is heard next.

    Attributes:
        counts, beliefs, past, starts: as in `causal_kernels.pass_over`.
        sizes: (6,): codes of each key, nobody's among them.
        user_artist, user_source: of each code of the pairs, its pair, sorted: user · num_artists + artist …; 0 nobody's.
        smoothing: as it was given, (1,).
    """

    counts: NDArray[np.int32]
    beliefs: Floats
    past: NDArray[np.int32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    user_artist: NDArray[np.int64]
    user_source: NDArray[np.int64]
    smoothing: NDArray[np.float64]

    @classmethod
    def after(
        cls, user: Codes, song: Codes, artist: Codes, source: Codes, target: NDArray[np.int8],
        *, smoothing: float, delay: int = 0, out: Floats | None = None,
    ) -> CausalState:  # fmt: skip
        """The state after these rows, all of shape (num_rows,); `out` (num_rows, num_names) is filled with their features.

        Args:
            target: 0, 1, or -1 where it is not known.
            smoothing: labels that a parent is worth, above 0.
            delay: rows after which a label is known, beyond the next.

        Raises:
            UserError: smoothing or delay out of bounds, negative codes, or arrays of different lengths.
        """
        if not smoothing > 0 or not math.isfinite(smoothing) or delay < 0:
            raise UserError(f"smoothing={smoothing} delay={delay}: smoothing must be above 0, delay at least 0")
        parts = (user, song, artist, source)
        if len({len(target), *map(len, parts)}) > 1 or any(part.min(initial=0) < 0 for part in parts):
            raise UserError("user, song, artist, source and target must have one entry a row each, no code below 0")
        codes, pairs = _encode(user, song, artist, source)
        sizes = np.array([*(1 + int(row.max(initial=0)) for row in codes[:4]), *map(len, pairs)], np.int64)
        starts = 1 + np.cumsum(sizes - 1) - (sizes - 1)  # entries 0 and 1 are nobody and all
        counts = np.zeros((2 + int((sizes - 1).sum()), 4), np.int32)
        beliefs = np.zeros(counts.shape, np.float32)
        beliefs[1:, VARIANCE] = np.repeat([ALL_PRIOR, *PRIORS], [1, *(sizes - 1)])
        past = np.zeros((sizes[0], 5), np.int32)
        said = np.empty((0, len(NAMES)), np.float32) if out is None else out
        labels = np.ascontiguousarray(target, np.int8)
        pass_over(counts, beliefs, past, starts, codes, labels, float(smoothing), delay, said)
        return cls(counts, beliefs, past, starts, sizes, *pairs, np.array([smoothing], np.float64))

    def features(self, user: Codes, song: Codes, artist: Codes, source: Codes) -> Floats:
        """Of rows served later, none of which is counted, (num_rows, num_names); a code that no row had is nobody's."""
        codes = np.zeros((6, len(user)), np.int32)
        for row, part, up, size in zip(codes, (user, song, artist, source), (0, 0, 0, 1), self.sizes, strict=False):
            row[:] = np.where((part >= 0) & (part < size - up), part + up, 0)
        pairs = ((2, self.user_artist), (3, self.user_source))
        for place, (second, known) in enumerate(pairs, 4):
            pair = np.where(codes[second] > 0, codes[0] * self.sizes[second] + codes[second], 0) * (codes[0] > 0)
            at = np.minimum(np.searchsorted(known, pair), len(known) - 1)
            codes[place] = np.where(known[at] == pair, at, 0)
        out = np.empty((len(user), len(NAMES)), np.float32)
        describe_rows(self.counts, self.beliefs, self.past, self.starts, codes, float(self.smoothing[0]), out)
        return out

    def usual_source(self, user: int) -> int:
        """The source that most of a user's rows came from; 0 of one who has none."""
        num_sources = int(self.sizes[3])
        first, last = np.searchsorted(self.user_source, [user * num_sources, (user + 1) * num_sources])
        if user <= 0 or first == last:
            return 0
        entries = self.counts[self.starts[5] + first : self.starts[5] + last, ROWS]
        at = first + int(entries.argmax())
        return int(self.user_source[at]) - user * num_sources - 1

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, as `from_arrays` takes them."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> CausalState:
        """The state that made these arrays; others may lie among them."""
        return cls(*(np.ascontiguousarray(arrays[entry.name]) for entry in fields(cls)))


def _encode(
    user: Codes, song: Codes, artist: Codes, source: Codes
) -> tuple[NDArray[np.int32], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Codes of each key, (6, num_rows), and of each code of the pairs its pair, sorted; a source's codes start from 1 here."""
    codes = np.empty((6, len(user)), np.int32)
    codes[0], codes[1], codes[2], codes[3] = user, song, artist, source
    codes[3] += 1
    pairs = []
    for place, second in ((4, 2), (5, 3)):
        keys = number_pairs(codes[0], codes[second], 1 + int(codes[second].max(initial=0)), codes[place])
        order = np.argsort(keys, kind="stable")  # 0, nobody's, stays the first
        places = np.empty(len(keys), np.int32)
        places[order] = np.arange(len(keys), dtype=np.int32)
        codes[place] = places[codes[place]]
        pairs.append(keys[order])
    return codes, (pairs[0], pairs[1])


def causal_features(
    user: Codes, song: Codes, artist: Codes, source: Codes, target: NDArray[np.int8],
    *, smoothing: float, delay: int = 0, out: Floats | None = None,
) -> Floats:  # fmt: skip
    """What was known before each row, (num_rows, num_names), in the order of NAMES; arguments as of `CausalState.after`."""
    out = np.empty((len(user), len(NAMES)), np.float32) if out is None else out
    CausalState.after(user, song, artist, source, target, smoothing=smoothing, delay=delay, out=out)
    return out


def transductive_counts(user: Codes, song: Codes, artist: Codes, source: Codes) -> Floats:
    """log1p of rows of the same codes, past, present and future, (num_rows, 6), 0 for nobody: a leak, to show what it is worth."""
    codes, _ = _encode(user, song, artist, source)
    out = np.empty((len(user), len(KEYS)), np.float32)
    for column, own in enumerate(codes):
        counts = np.log1p(np.bincount(own)).astype(np.float32)
        counts[:1] = 0
        out[:, column] = counts[own]
    return out
