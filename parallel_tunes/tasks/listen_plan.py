"""What a re-listen training is made of: split, codes the model has seen, standardised numbers; all fitted on the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.config_listens import ListenFeaturesConfig, RelistenModelConfig
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import causal
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.listen_stages import LISTEN_COLUMNS
from parallel_tunes.data.listens import Listens
from parallel_tunes.data.vocabulary import MISSING, UNSEEN, fit_lookup
from parallel_tunes.models.star import Sizes
from parallel_tunes.schema import UserError, to_plain

OWN = LISTEN_COLUMNS[2:]  # columns of the row itself
STRETCH = 1 << 17  # rows at a time
Lookup = NDArray[np.int32]
Floats = NDArray[np.float32]
Keys = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Scale:
    """Standardises numbers by what the training rows have; what is missing becomes 0, the mean."""

    center: Floats
    scale: Floats

    @classmethod
    def fit(cls, columns: Floats, rows: Ids) -> Scale:
        """Of some rows of columns (num_rows, num_numbers), NaN where missing; a stretch at a time, since there may be millions."""
        stretches = [rows[at : at + STRETCH] for at in range(0, len(rows), STRETCH)]
        num, total, squares = np.zeros((3, columns.shape[1]))
        for stretch in stretches:
            num += (~np.isnan(columns[stretch])).sum(0)
            total += np.nansum(columns[stretch], 0, dtype=np.float64)
        center = total / np.maximum(num, 1)
        for stretch in stretches:
            squares += np.nansum((columns[stretch] - center) ** 2, 0)
        deviation = np.sqrt(squares / np.maximum(num, 1))
        return cls(center.astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32))

    def apply(self, columns: Floats) -> Floats:
        """In place."""
        for at in range(0, len(columns), STRETCH):
            part = columns[at : at + STRETCH]
            part -= self.center
            part /= self.scale
            np.nan_to_num(part, copy=False, nan=0.0)
        return columns

    def undo(self, column: Floats, at: int) -> Floats:
        """Numbers as they were before `apply`, of one of the columns."""
        return np.asarray(column * self.scale[at] + self.center[at], np.float32)


@dataclass(frozen=True)
class Entities:
    """All users or all songs, and last a stranger: (num + 1, num_columns) codes of the model and (num + 1, num_numbers) numbers."""

    names: tuple[str, ...]  # of the columns; the first is the entity itself
    codes: NDArray[np.int32]
    numbers: Floats
    number_names: tuple[str, ...]
    scale: Scale
    lookups: dict[str, Lookup]  # raw code → code of the model
    num_codes: tuple[int, ...]


@dataclass(frozen=True)
class ListenPlan:
    """What a training is made of, decided before it starts.

    Attributes:
        rows: by split, numbers of labelled rows.
        codes: (num_labelled, 2 + num_own), int32: user and song by their raw codes, the row's own columns by the model's.
        numbers: (num_labelled, num_numbers), standardised.
        number_names: of them.
    """

    listens: Listens
    kind: str
    rows: dict[str, Ids]
    codes: NDArray[np.int32]
    numbers: Floats
    number_names: tuple[str, ...]
    scale: Scale
    own_lookups: dict[str, Lookup]
    users: Entities
    songs: Entities
    sizes: Sizes
    digest: str

    @property
    def targets(self) -> NDArray[np.int8]:
        """Of all labelled rows, 0 or 1."""
        return self.listens.target[: self.listens.num_labelled]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Of all columns, in the order of `Sizes.columns`."""
        return (*self.users.names, *self.songs.names, *OWN)

    def is_known(self, kind: str) -> NDArray[np.bool_]:
        """Of each labelled row, whether its user or song occurs among the training rows."""
        codes = self.codes[:, 0 if kind == "user" else 1]
        seen = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
        seen[codes[self.rows["train"]]] = True
        return np.asarray(seen[codes])


def draw_rows(num: int, cfg: SplitConfig) -> dict[str, Ids]:
    """Rows by split: in the order of time, or at random as the seed does it.

    Raises:
        UserError: another split, shares that do not add up, or no row to learn from.
    """
    if cfg.kind not in ("time", "random"):
        raise UserError(
            f"split={cfg.kind}: rows of listens are split by time, the default, or at random: split=time or split=random"
        )
    if abs(cfg.train + cfg.valid + cfg.test - 1) > 1e-6:
        raise UserError(
            f"split.train={cfg.train:g} split.valid={cfg.valid:g} split.test={cfg.test:g}: shares must add up to 1"
        )
    ends = [round(num * cfg.train), round(num * (cfg.train + cfg.valid))]
    if not ends[0]:
        raise UserError(f"split.train={cfg.train:g} of {num} listens leaves no row to learn from")
    order = np.arange(num)
    if cfg.kind == "random":
        order = np.random.Generator(np.random.Philox(key=cfg.seed)).permutation(num)
    return {name: np.sort(part) for name, part in zip(("train", "valid", "test"), np.split(order, ends), strict=True)}


def plan(
    listens: Listens, split: SplitConfig, features: ListenFeaturesConfig, model: RelistenModelConfig
) -> ListenPlan:
    """Split the labelled rows, number what the training rows have seen, standardise.

    Raises:
        UserError: see `draw_rows`; or the training rows all have the same target.
    """
    num = listens.num_labelled
    rows = draw_rows(num, split)
    train, targets = rows["train"], listens.target[:num]
    if len(np.unique(targets[train])) < 2:
        raise UserError("all training rows have the same target: there is nothing to learn")
    raw = {name: np.asarray(listens.codes[name][:num]) for name in LISTEN_COLUMNS}
    users = _encode(listens, "user", raw["user"][train], model)
    songs = _encode(listens, "song", raw["song"][train], model)
    own_lookups = {name: _fit(raw[name][train], len(listens.words(name)), model) for name in OWN}
    codes = np.column_stack([raw["user"], raw["song"], *(own_lookups[name][raw[name]] for name in OWN)]).astype(
        np.int32
    )
    numbers, names = describe_rows(listens, features)
    scale = Scale.fit(numbers, train)
    sizes = Sizes(
        num_users=len(users.codes), num_songs=len(songs.codes), user=users.num_codes, song=songs.num_codes,
        row=tuple(int(own_lookups[name].max()) + 1 for name in OWN),
        row_numbers=len(names), user_numbers=len(users.number_names), song_numbers=len(songs.number_names),
    )  # fmt: skip
    settings = [listens.manifest["digest"], to_plain(split), to_plain(features)]
    return ListenPlan(
        listens, split.kind, rows, codes, scale.apply(numbers), names, scale, own_lookups, users, songs, sizes,
        files.digest_json(settings),
    )  # fmt: skip


def describe_rows(listens: Listens, cfg: ListenFeaturesConfig) -> tuple[Floats, tuple[str, ...]]:
    """Numbers of each labelled row, (num_labelled, num_numbers), and their names."""
    num = listens.num_labelled
    if cfg.kind == "static":
        return np.empty((num, 0), np.float32), ()
    keys = keys_of(listens, slice(0, num))
    counts = causal.transductive_counts(*keys_of(listens, slice(None))) if cfg.kind == "transductive" else None
    names = causal.NAMES + (causal.TRANSDUCTIVE_NAMES if counts is not None else ())
    numbers = np.empty((num, len(names)), np.float32)
    target = listens.target[:num]
    if counts is None:
        causal.causal_features(*keys, target, smoothing=cfg.smoothing, delay=cfg.delay, out=numbers)
    else:
        numbers[:, : len(causal.NAMES)] = causal.causal_features(
            *keys, target, smoothing=cfg.smoothing, delay=cfg.delay
        )
        numbers[:, len(causal.NAMES) :] = counts[:num]
    return numbers, names


def keys_of(listens: Listens, rows: slice) -> Keys:
    """User, song, artist and source of rows, by raw codes: what is counted."""
    song = np.asarray(listens.codes["song"][rows])
    source = np.asarray(listens.codes["source_type"][rows])
    return np.asarray(listens.codes["user"][rows]), song, np.asarray(listens.songs["artist"])[song], source


def _fit(seen: NDArray[Any], num_codes: int, cfg: RelistenModelConfig) -> Lookup:
    return fit_lookup(seen, num_codes, min_count=cfg.min_count, num_buckets=cfg.buckets)


def _encode(listens: Listens, kind: str, seen: NDArray[Any], cfg: RelistenModelConfig) -> Entities:
    """All users or songs as the model sees them; `seen` is that of each training row."""
    columns = listens.users if kind == "user" else listens.songs
    numbers = listens.user_numbers if kind == "user" else listens.song_numbers
    num = len(next(iter(columns.values())))
    raw = {kind: np.arange(num, dtype=np.int32), **{name: np.asarray(column) for name, column in columns.items()}}
    lookups = {name: _fit(column[seen], int(column.max(initial=0)) + 1, cfg) for name, column in raw.items()}
    codes = np.column_stack([lookups[name][column] for name, column in raw.items()]).astype(np.int32)
    stranger = np.where(np.arange(len(raw)) == 0, UNSEEN, MISSING).astype(np.int32)
    values = np.column_stack([np.asarray(column, np.float32) for column in numbers.values()])
    scale = Scale.fit(values, np.unique(seen).astype(np.int64))
    num_codes = tuple(int(lookup.max(initial=1)) + 1 for lookup in lookups.values())
    known = np.vstack([scale.apply(values), np.zeros((1, values.shape[1]), np.float32)])
    return Entities(tuple(raw), np.vstack([codes, stranger]), known, tuple(numbers), scale, lookups, num_codes)
