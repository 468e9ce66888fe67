"""Rows to train on, the same for every loop of `relisten_worker`: written once, mapped into the memory of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.data import causal, listens
from parallel_tunes.data.listen_stages import LISTEN_COLUMNS
from parallel_tunes.data.vocabulary import fit_lookup
from parallel_tunes.models.star import Sizes, Star
from parallel_tunes.train.learner import Batch, Rows

ARRAYS = ("codes", "numbers", "targets", "user_codes", "user_numbers", "song_codes", "song_numbers")
SIZES = "sizes.json"  # the last file: it says that the others are there
TRAIN = 0.8  # of the rows, which are in the order of time
# as model=relisten and features=causal have them; the seed kept rare codes too, so that this shortens its steps
MIN_COUNT, NUM_BUCKETS, SMOOTHING = 3, 1000, 10.0

Codes = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Listens:
    """Training rows and the tables that describe their users and songs, as `Star.describe` takes them."""

    sizes: Sizes
    num_train: int  # the first rows; those after them are for judging
    codes: Codes  # (num_rows, 2 + num_row_columns)
    numbers: Floats  # (num_rows, num_numbers)
    targets: NDArray[np.int8]  # (num_rows,)
    user_codes: Codes
    user_numbers: Floats
    song_codes: Codes
    song_numbers: Floats

    @classmethod
    def of(cls, star: listens.Listens) -> Listens:
        """The rows of train.csv, with causal features; what is fitted is fitted on the first of them."""
        num = star.num_labelled
        raw = {name: np.asarray(star.codes[name][:num]) for name in LISTEN_COLUMNS}
        target, first = star.target[:num], round(TRAIN * num)
        lookups = {name: _fit(raw[name][:first], raw[name]) for name in LISTEN_COLUMNS[2:]}
        keys = raw["user"], raw["song"], np.asarray(star.songs["artist"])[raw["song"]], raw["source_type"]
        numbers = np.empty((num, len(causal.NAMES)), np.float32)
        causal.causal_features(*keys, target, smoothing=SMOOTHING, out=numbers)
        users = _describe("user", star.users, star.user_numbers, raw["user"][:first])
        songs = _describe("song", star.songs, star.song_numbers, raw["song"][:first])
        sizes = Sizes(
            num_users=len(users[0]), num_songs=len(songs[0]), user=_count(users[0]), song=_count(songs[0]),
            row=tuple(int(lookup.max()) + 1 for lookup in lookups.values()), row_numbers=numbers.shape[1],
            user_numbers=users[1].shape[1], song_numbers=songs[1].shape[1],
        )  # fmt: skip
        codes = np.empty((num, len(LISTEN_COLUMNS)), np.int32)
        for place, name in enumerate(LISTEN_COLUMNS):
            codes[:, place] = lookups[name][raw[name]] if name in lookups else raw[name]
        return cls(sizes, first, codes, _standardise(numbers, numbers[:first]), np.asarray(target), *users, *songs)

    def keep(self, folder: Path) -> None:
        """Write it, to be mapped into memory."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        files.write_json(folder / SIZES, {"sizes": asdict(self.sizes), "num_train": self.num_train})

    @classmethod
    def open(cls, folder: Path) -> Listens:
        """Read what `keep` wrote."""
        written: dict[str, Any] = json.loads((folder / SIZES).read_text())
        sizes: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in written["sizes"].items()
        }
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        return cls(Sizes(**sizes), written["num_train"], *arrays)

    def without_numbers(self) -> Listens:
        """The same rows without numbers of their own."""
        return replace(self, sizes=replace(self.sizes, row_numbers=0), numbers=self.numbers[:, :0])

    def describe(self, model: Star) -> None:
        """Tell a model of all users and songs."""
        model.describe("user", self.user_codes, self.user_numbers)
        model.describe("song", self.song_codes, self.song_numbers)

    def ids(self, step: int, batch: int) -> NDArray[np.int64]:
        """The rows of a step, ascending: drawn anew for each."""
        return np.sort(np.random.default_rng(step).integers(0, self.num_train, batch))

    def rows(self, ids: NDArray[np.int64]) -> Rows:
        """Return the inputs of some rows."""
        return Rows(torch.from_numpy(self.codes[ids]), torch.from_numpy(self.numbers[ids]))

    def batch(self, step: int, batch: int) -> Batch:
        """The rows of a step, read."""
        ids = self.ids(step, batch)
        zeros = torch.zeros(batch, dtype=torch.int64)
        targets = torch.from_numpy(self.targets[ids]).long()
        return Batch(self.rows(ids), targets, torch.ones(batch), zeros, batch, zeros)

    def late_ids(self, most: int) -> NDArray[np.int64]:
        """Rows to judge by, at most so many, spread evenly over all that are not trained on."""
        num = len(self.codes) - self.num_train
        return self.num_train + np.arange(min(num, most)) * num // min(num, most)


def _fit(seen: NDArray[Any], column: NDArray[Any]) -> Codes:
    return fit_lookup(seen, int(column.max(initial=0)) + 1, min_count=MIN_COUNT, num_buckets=NUM_BUCKETS)


def _describe(
    kind: str, columns: Mapping[str, NDArray[Any]], numbers: Mapping[str, Floats], seen: NDArray[Any]
) -> tuple[Codes, Floats]:
    """All users or songs: codes (num, 1 + num_columns), the first their own, and standardised numbers (num, num_numbers)."""
    num = len(next(iter(columns.values())))
    raw = {kind: np.arange(num, dtype=np.int32)} | {name: np.asarray(column) for name, column in columns.items()}
    codes = np.column_stack([_fit(column[seen], column)[column] for column in raw.values()])
    values = np.column_stack([np.asarray(column, np.float32) for column in numbers.values()])
    return codes.astype(np.int32), _standardise(values, values[np.unique(seen)])


def _standardise(values: Floats, seen: Floats) -> Floats:
    """In place, by what has been seen, column by column; what is missing becomes 0, the mean."""
    moments = [
        (np.nanmean(column, dtype=np.float64), np.nanstd(column, dtype=np.float64))
        if (column == column).any()
        else (0, 1)
        for column in seen.T
    ]
    for column, (mean, deviation) in zip(values.T, moments, strict=True):
        column -= np.float32(mean)
        column /= np.float32(deviation if deviation > 1e-6 else 1)
    return np.nan_to_num(values, copy=False, nan=0.0)


def _count(codes: Codes) -> tuple[int, ...]:
    return tuple(int(num) for num in codes.max(0) + 1)
