"""Which columns of a table of tracks are learnt from, their cells as numbers, and which values cannot be true."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from parallel_tunes.descriptor_names import NAMES as DESCRIPTORS
from parallel_tunes.schema import UserError, suggest

AUDIO = (
    "acousticness", "danceability", "duration_ms", "energy", "instrumentalness",
    "liveness", "loudness", "speechiness", "tempo", "valence",
)  # fmt: skip
KEYS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# what Spotify defines: a number that is out of these bounds (inclusive) is a failed measurement
BOUNDS = {
    **dict.fromkeys(set(AUDIO) - {"duration_ms", "loudness", "tempo"}, (0.0, 1.0)),
    "duration_ms": (1.0, 24 * 3600e3),
    "key": (-1.0, 11.0),
    "loudness": (-80.0, 20.0),
    "popularity": (0.0, 100.0),
    "tempo": (np.nextafter(0, 1), 400.0),  # 0: none was found
    "time_signature": (0.0, 7.0),
}
FIRST_YEAR = 1860  # of the oldest recording that can be played
# never learnt from as numbers, even where they are: what names a track, says when it came out, or what is learnt
NO_FEATURES = frozenset(
    ("", "album", "album_id", "artist", "artist_id", "artist_name", "artist_names", "artists", "filename", "genre", "genres",
     "group", "id", "id_artists", "index", "label", "name", "path", "performer", "popularity", "recording", "release_date",
     "segment", "split", "track_artist", "track_id", "track_name", "year")
)  # fmt: skip
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)
DATE = re.compile(r"(\d{4})(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01])(?:[T ].*)?)?)?", re.ASCII)
NUM_SHOWN = 3
Numbers = NDArray[np.float64]


@dataclass
class Sieve:
    """Rows left out, by the reason that was found first."""

    keeps: NDArray[np.bool_]
    rows: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)  # by reason, what its first rows hold

    def drop(self, reason: str, is_bad: NDArray[np.bool_], name: str, column: pd.Series[Any]) -> None:
        rows = np.flatnonzero(is_bad & self.keeps)
        if len(rows):
            self.keeps[rows] = False
            self.rows[reason] = rows
            self.shown[reason] = [f"{name}={column.iloc[row]}" for row in rows[:NUM_SHOWN]]


def choose(wanted: Sequence[str], table: pd.DataFrame, where: str) -> tuple[list[str], list[str]]:
    """The columns that `task.features` means, in its order, and for [all] those that are left out.

    Raises:
        UserError: a column that is not there, or one that gives the answer away.
    """
    columns: list[str] = [str(name) for name in table.columns]
    chosen: list[str] = []
    for word in wanted:
        if word == "audio":
            chosen += AUDIO
        elif word == "descriptors":
            chosen += DESCRIPTORS
        elif word == "all":
            known = (*BOUNDS, "mode", "explicit")
            chosen += [c for c in columns if c not in NO_FEATURES and (c in known or is_number(table[c]))]
        elif word in ("year", "release_date"):
            raise UserError(f"task.features: {word} is learnt from with task.year=true")
        elif word == "popularity":
            raise UserError("task.features: popularity is what is learnt, not what it is learnt from")
        else:
            chosen.append(word)
    for name in chosen:
        if name not in columns:
            raise UserError(
                f"task.features: no column {name!r} in {where}{suggest(name, columns)}; it has {', '.join(columns[:30])}"
            )
    if not chosen:
        raise UserError(f"task.features: no column of {where} is numbers throughout; it has {', '.join(columns[:30])}")
    unused = [c for c in columns if c not in chosen and c not in NO_FEATURES] if "all" in wanted else []
    return list(dict.fromkeys(chosen)), unused


def is_number(column: pd.Series[Any]) -> bool:
    """Whether a column is numbers throughout; the first cells tell most that are not."""
    return bool(np.isfinite(to_numbers(column.iloc[:100])).all() and np.isfinite(to_numbers(column)).all())


def to_numbers(column: pd.Series[Any]) -> Numbers:
    """Cells as numbers: NaN where one is none, truths as 1 and 0, exact to the last bit."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(np.float64, na_value=np.nan)
    try:
        cells = pa.array(column, pa.string(), from_pandas=True).cast(pa.float64())
        return np.asarray(cells.to_numpy(zero_copy_only=False), np.float64)
    except pa.ArrowException:  # one cell or more is no plain number
        known: dict[object, float] = {}
        found = np.empty(len(column))
        for row, cell in enumerate(column):
            text = str(cell)
            if text not in known:
                known[text] = _to_number(text)
            found[row] = known[text]
        return found


def _to_number(text: str) -> float:
    if NUMBER.fullmatch(text):
        return float(text)
    return {"true": 1.0, "false": 0.0}.get(text.strip().lower(), np.nan)


def to_texts(column: pd.Series[Any]) -> list[str]:
    """Cells as text without the blanks around it; "" where there is none."""
    cells = column.to_list()
    return [cell.strip() if isinstance(cell, str) else "" if _is_missing(cell) else str(cell) for cell in cells]


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, list | tuple | np.ndarray):
        return len(cell) == 0
    return bool(pd.isna(cell))


def to_years(table: pd.DataFrame) -> Numbers | None:
    """Years of release, from `release_date` (YYYY, YYYY-MM or YYYY-MM-DD) or else `year`; NaN where one cannot be true.

    Years count to the next: what is to come out has been announced.
    """
    if "release_date" in table:
        codes, dates = pd.factorize(np.array(to_texts(table["release_date"]), object))
        found = [DATE.fullmatch(date) for date in dates]
        years = np.array([float(match[1]) if match else np.nan for match in found])[codes]
    elif "year" in table:
        years = to_numbers(table["year"])
    else:
        return None
    next_year = datetime.datetime.now(datetime.UTC).year + 1
    return np.where((years >= FIRST_YEAR) & (years <= next_year) & (years == np.floor(years)), years, np.nan)


def find_impossible(name: str, numbers: Numbers) -> dict[str, NDArray[np.bool_]]:
    """Which values of one of Spotify's columns cannot be true, by the reason; columns of other names may hold anything."""
    if name == "mode":
        return {"mode is neither 0 nor 1": ~np.isin(numbers, (0, 1))}
    if name not in BOUNDS:
        return {}
    low, high = BOUNDS[name]
    bad = (numbers < low) | (numbers > high)
    if name == "tempo":
        return {"tempo 0: none was found": numbers == 0, f"tempo outside {low:g} to {high:g}": bad & (numbers != 0)}
    return {f"{name} outside {low:g} to {high:g}": bad}


def sift_impossible(name: str, numbers: Numbers, column: pd.Series[Any], sieve: Sieve) -> None:
    """Leave out the rows of impossible values."""
    for reason, rows in find_impossible(name, numbers).items():
        sieve.drop(reason, rows, name, column)


def to_matrix(numbers: dict[str, Numbers], where: str) -> tuple[Numbers, list[str]]:
    """Features, shape (num_rows, num_features), and their names; a key becomes 12 indicators, since keys form a circle.

    Raises:
        UserError: a column that is the same throughout.
    """
    names: list[str] = []
    columns: list[Numbers] = []
    for name, values in numbers.items():
        if len(values) and (values == values[0]).all():
            raise UserError(
                f"{where}: column {name} is {values[0]:g} in all {len(values)} rows that are left: nothing can be learnt from it; "
                f"name the columns that vary in task.features"
            )
        parts = {name: values}
        if name == "key":
            parts = {f"key_{note}": np.asarray(values == pitch, np.float64) for pitch, note in enumerate(KEYS)}
            parts = {part: indicator for part, indicator in parts.items() if indicator.any()}  # keys that occur
        names += parts
        columns += parts.values()
    return np.column_stack(columns) if columns else np.empty((0, 0)), names
