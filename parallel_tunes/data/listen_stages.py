"""From KKBOX's tables to arrays: the rows first, and then what the other tables tell of the users and songs in them.

No table is ever held. Ids become codes by a look-up of hashes, a block of rows at a time; of the 2.3 million songs those that
nobody listened to are passed over as soon as their id is read, and only the cells of the others are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from parallel_tunes.data.cells import Bytes, Cells, Codes, Vocabulary, compiled
from parallel_tunes.data.listen_columns import Words, transform_songs, transform_users
from parallel_tunes.data.listen_tables import COLUMNS, Piece, Reader, open_table
from parallel_tunes.schema import UserError

LISTEN_COLUMNS = (
    "user",
    "song",
    "source_system_tab",
    "source_screen_name",
    "source_type",
)  # in the order of the tables
IDS = ("user", "song")
TABLES_OF = {"rows": ("train", "test"), "users": ("members",), "songs": ("songs", "song_extra_info")}


@dataclass(frozen=True)
class Made:
    """What a stage gives: arrays, the words of vocabularies, and counts."""

    arrays: dict[str, NDArray[Any]]
    words: Words
    counts: dict[str, int]


@dataclass(frozen=True)
class Workshop:
    """What tables are read with; `advance` is called after each."""

    paths: Mapping[str, Path]
    max_mib: int
    max_rows: int
    threads: int
    pool: ThreadPoolExecutor
    advance: Callable[[], object]

    @contextmanager
    def read(self, name: str) -> Iterator[Reader]:
        """The cells of a table."""
        with open_table(self.paths[name], max_mib=self.max_mib) as stream:
            yield Reader(stream, name, self.pool, self.threads)
        self.advance()


def make_rows(shop: Workshop) -> Made:
    """The rows of train and then of test: arrays `LISTEN_COLUMNS` of codes and `target`, each (num_rows,).

    Raises:
        UserError: a table cannot be read, or is too long; a target is neither 0 nor 1.
    """
    known = {name: Vocabulary() for name in LISTEN_COLUMNS}
    codes: dict[str, list[Codes]] = {name: [] for name in LISTEN_COLUMNS}
    targets, counts = list[NDArray[np.int8]](), {"num_train_rows": 0, "num_test_rows": 0}
    for table in (name for name in TABLES_OF["rows"] if name in shop.paths):
        before = {name: known[name].num for name in IDS}
        with shop.read(table) as reader:
            for pieces in reader:

                def encode(slot: int, pieces: list[Piece] = pieces) -> None:
                    name = LISTEN_COLUMNS[slot]
                    codes[name] += [known[name].encode(piece.data, piece.cells, slot) for piece in pieces]

                list(shop.pool.map(encode, (1, 0, 2, 3, 4)))  # the longest first
                for piece in pieces:
                    targets.append(
                        read_targets(reader, piece) if table == "train" else np.full(len(piece.cells), -1, np.int8)
                    )
                    counts[f"num_{table}_rows"] += len(piece.cells)
                if counts["num_train_rows"] + counts["num_test_rows"] > shop.max_rows:
                    raise UserError(f"{reader.path}: more listens than data.max_rows={shop.max_rows}")
        if table == "test":
            counts |= {f"num_{name}s_in_test_alone": known[name].num - before[name] for name in IDS}
    arrays: dict[str, NDArray[Any]] = {"target": np.concatenate(targets)}
    for name in LISTEN_COLUMNS:
        is_small = name not in IDS and known[name].num < 2**15
        arrays[name] = np.concatenate(codes.pop(name), dtype=np.int16 if is_small else np.int32, casting="same_kind")
        counts[f"num_rows_without_{name}"] = len(arrays[name]) - int(np.count_nonzero(arrays[name]))
    counts |= {f"num_{name}s": known[name].num - 1 for name in IDS}
    return Made(arrays, {name: vocabulary.words() for name, vocabulary in known.items()}, counts)


def read_targets(reader: Reader, piece: Piece) -> NDArray[np.int8]:
    """0 or 1 of each row; any other is refused."""
    slot = reader.columns.index("target")
    targets = np.empty(len(piece.cells), np.int8)
    row = copy_targets(piece.data, piece.cells, slot, targets)
    if row < len(targets):
        first, last = piece.cells[row, slot].tolist()
        cell = " ".join(piece.data[first:last].tobytes().decode().split())[:40]
        raise UserError(
            f"{reader.path} line {reader.find_line(piece.place + first)}, column 'target': {cell!r} is neither 0 nor 1; "
            "rows without one belong in test.csv"
        )
    return targets


@compiled
def copy_targets(data: Any, cells: Any, slot: Any, targets: Any) -> Any:
    """Write 0 or 1 of each row; returns the first row with neither, or how many there are."""
    for row in range(len(targets)):
        first, last = cells[row, slot, 0], cells[row, slot, 1]
        if last - first != 1 or (data[first] != 48 and data[first] != 49):
            return row
        targets[row] = data[first] - 48
    return len(targets)


def make_star(shop: Workshop, stage: str, ids: pa.StringArray) -> Made:
    """What the tables of a stage, users or songs, tell of those in the rows.

    Args:
        ids: of each code.

    Returns:
        Arrays `cells` (a code for each cell as it stands), `codes` and `numbers` (what they mean, in the order of the
        names in `listen_columns`), each (num_columns, num_codes), column 0 of those without id.
    """
    vocabulary = Vocabulary.of(ids)
    cells, words, counts = dict[str, Codes](), Words(), dict[str, int]()
    for table in TABLES_OF[stage]:
        new = {name: Vocabulary() for name in COLUMNS[table][1:]}
        found = {name: np.zeros(vocabulary.num, np.int32) for name in new}
        seen, nums = np.zeros(vocabulary.num, np.bool_), np.zeros(3, np.int64)
        with shop.read(table) as reader:
            for pieces in reader:
                codes = list(shop.pool.map(partial(find, vocabulary), pieces))
                kept = [keep(*each, seen, nums) for each in zip(pieces, codes, strict=True)]

                names = reader.columns[1:]
                todo = ([found[name] for name in names], [new[name] for name in names], range(1, len(names) + 1))
                list(shop.pool.map(partial(encode_column, kept), *todo))
        cells, words = cells | found, words | {name: vocabulary.words() for name, vocabulary in new.items()}
        odd = zip(("nobody_has", "twice", "without_id"), nums.tolist(), strict=True)
        counts |= {f"num_{table}_{what}": num for what, num in odd}
        counts[f"num_{stage}_not_in_{table}"] = vocabulary.num - 1 - int(seen.sum())
    made = transform_songs(cells, words) if stage == "songs" else transform_users(cells, words)
    counts |= {f"num_{stage}_odd_{name}": num for name, num in made.odd.items()}
    arrays: dict[str, Mapping[str, NDArray[Any]]] = {"cells": cells, "codes": made.codes, "numbers": made.numbers}
    return Made({name: np.stack(list(each.values())) for name, each in arrays.items()}, words | made.words, counts)


Kept = tuple[Bytes, Cells, Codes]


def encode_column(kept: list[Kept], found: Codes, words: Vocabulary, slot: int) -> None:
    """Write into `found`, of each user or song, the code of its cell in a column; new words join the column's own."""
    for data, chosen, codes in kept:
        found[codes] = words.encode(data, chosen, slot)


def find(ids: Vocabulary, piece: Piece) -> Codes:
    """Of each row of a piece the code of its id, 0 where it has none."""
    return ids.encode(piece.data, piece.cells, 0, is_open=False)


def keep(piece: Piece, codes: Codes, seen: NDArray[np.bool_], nums: NDArray[np.int64]) -> Kept:
    """Of a piece the bytes, the cells of rows whose code is not yet `seen`, and their codes."""
    rows = np.empty(len(codes), np.int64)
    rows = rows[: choose(codes, piece.cells, seen, nums, rows)]
    return piece.data, piece.cells[rows], codes[rows]


@compiled
def choose(codes: Any, cells: Any, seen: Any, nums: Any, rows: Any) -> Any:
    """Write to `rows` those whose code was not `seen`; `nums` counts unknown ids, repeated ones, empty ones."""
    num = 0
    for row in range(len(codes)):
        code = codes[row]
        if code == 0:
            nums[2 if cells[row, 0, 0] == cells[row, 0, 1] else 0] += 1
        elif seen[code]:
            nums[1] += 1
        else:
            seen[code] = True
            rows[num] = row
            num += 1
    return num
