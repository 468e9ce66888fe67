"""Cells of CSV text as places in bytes, and words to codes: the compiled loops that tables are read with.

No cell becomes an object: 7.4 million rows are a few hundred million bytes that are looked at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from parallel_tunes.lanes import compile_of, intrinsic, point
from parallel_tunes.schema import UserError

COMPLETE, TORN, UNEVEN = 0, 1, 2  # how a piece ends: well, within a record, with a record of too few or too many cells
ONES, TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
COMMAS, FEEDS, RETURNS = (np.uint64(ord(sign)) * ONES for sign in ",\n\r")

FACTORS = tuple(np.uint64(f) for f in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F))
PREFETCH = "llvm.prefetch.p0"
HALF, LOW, ONE, TWO = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(1), np.uint64(2)
INT8, INT32 = ir.IntType(8), ir.IntType(32)
AHEAD = (
    32  # cells are hashed before the first of them is looked up, since each would wait for its own miss of the caches
)

Bytes = NDArray[np.uint8]
Cells = NDArray[np.int32]
Codes = NDArray[np.int32]
compiled = compile_of(__file__)


@intrinsic
def load_word(typing: Any, array: Any, at: Any) -> Any:
    """The eight bytes from `at` on, the first the lowest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = point(context, builder, signature.args[0], args[0], args[1], ir.IntType(64))
        return builder.load(where, align=1)

    return types.uint64(array, types.intp), generate


@intrinsic
def count_zeros(typing: Any, word: Any) -> Any:
    """Zero bits below the lowest set one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def fetch(typing: Any, array: Any, at: Any) -> Any:
    """Have the caches fetch element `at`, and go on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT8.as_pointer(), INT32, INT32, INT32])
        call = builder.module.globals.get(PREFETCH) or ir.Function(builder.module, kind, PREFETCH)
        where = point(context, builder, signature.args[0], args[0], args[1], INT8)
        builder.call(call, [where, INT32(0), INT32(3), INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@compiled
def find_end(data: Any, at: Any) -> Any:
    """Where the next comma, LF or CR is; eight bytes a step (Mycroft's test for a zero byte)."""
    while True:
        word = load_word(data, at)
        commas, feeds, returns = word ^ COMMAS, word ^ FEEDS, word ^ RETURNS
        found = ((commas - ONES) & ~commas) | ((feeds - ONES) & ~feeds) | ((returns - ONES) & ~returns)
        if found & TOPS:
            return at + np.int64(count_zeros(found & TOPS) >> np.uint64(3))
        at += 8


@compiled
def cut_cells(data: Any, start: Any, stop: Any, limit: Any, slots: Any, cells: Any) -> Any:
    """Cut the records that begin in data[start:stop]; the last may run on, up to `limit`, where an LF must stand.

    Args:
        slots: where in `cells` each column of the file goes, -1 for nowhere.
        cells: written, (num_rows, num_slots, 2): first byte and the one after the last; negative, quotes included, where
            `unquote` has something to do.

    Returns:
        Rows cut, where the next record begins, how it ended (where not well, the place is that record's), and how many
        cells are for `unquote`; where `UNEVEN`, how many the record has.
    """
    at, row, num_odd, num_columns = start, 0, 0, len(slots)
    while at < stop:
        if data[at] == 10 or data[at] == 13:  # an empty line, or CRLF's second half
            at += 1
            continue
        record, column, end = at, 0, 44
        while end == 44:
            first, is_odd = at, False
            if data[at] == 34 and at < limit:
                at += 1
                while True:
                    while data[at] != 34 and at < limit:
                        at += 1
                    if at >= limit:
                        return row, record, TORN, num_odd
                    if data[at + 1] != 34 or at + 1 >= limit:
                        break
                    at, is_odd = at + 2, True
                at += 1
                end = find_end(data, at)
                is_odd |= end != at
                num_odd += is_odd
                last = end if is_odd else at - 1
                at, first = end, first if is_odd else first + 1
            else:
                at = last = find_end(data, at)
            if column < num_columns and slots[column] >= 0:
                cells[row, slots[column], 0] = first
                cells[row, slots[column], 1] = -last if is_odd else last
            if at >= limit:
                return row, record, TORN, num_odd
            end = data[at]
            column, at = column + 1, at + 1
        if column != num_columns:
            return row, record, UNEVEN, column
        row += 1
    return row, at, COMPLETE, num_odd


@compiled
def unquote(data: Any, cells: Any) -> Any:
    """Take the quotes off cells that are marked, in place, as Python's csv reads them."""
    for row in range(len(cells)):
        for slot in range(cells.shape[1]):
            at, last = cells[row, slot, 0] + 1, -cells[row, slot, 1]
            if last <= 0:
                continue
            to, is_open = at - 1, True
            while at < last:
                if is_open and data[at] == 34:
                    is_open = at + 1 < last and data[at + 1] == 34
                    at += 1
                    if not is_open:
                        continue
                data[to] = data[at]
                to, at = to + 1, at + 1
            cells[row, slot, 1] = to


@compiled
def hash_bytes(data: Any, first: Any, last: Any) -> Any:
    """Two hashes of data[first:last], 64 bits each, of multiplications and shifts; up to seven bytes beyond are read."""
    one = np.uint64(last - first) * FACTORS[0]
    two = ~one
    for at in range(first, last, 8):
        word = load_word(data, at)
        if at + 8 > last:
            word &= (np.uint64(1) << np.uint64(8 * (last - at))) - np.uint64(1)
        one, two = (one ^ word) * FACTORS[1], (two + word) * FACTORS[2]
        one, two = one ^ (one >> HALF), two ^ (two >> np.uint64(29))
    one, two = one * FACTORS[0], two * FACTORS[1]
    return one ^ (one >> HALF), two ^ (two >> HALF)


@compiled
def look_up(
    data: Any, cells: Any, slot: Any, start: Any, is_open: Any, num: Any, table: Any, ends: Any, words: Any, codes: Any
) -> Any:
    """Codes of the cells of one column, from row `start` on: known words', 0 for empty ones, and new ones where `is_open`.

    Args:
        num: codes given so far; `table`, `ends` and `words` as in `Vocabulary`.
        codes: written.

    Returns:
        Rows done, fewer than all where the vocabulary is full, and codes given.
    """
    mask = np.uint64(len(table) - 2)
    keys = np.empty((AHEAD, 2), np.uint64)
    for row in range(start, len(cells)):
        ahead = (row - start) % AHEAD
        if ahead == 0:
            for k in range(min(AHEAD, len(cells) - row)):
                keys[k] = hash_bytes(data, np.int64(cells[row + k, slot, 0]), np.int64(cells[row + k, slot, 1]))
                fetch(table, np.int64(keys[k, 0] & mask))
        first, last = np.int64(cells[row, slot, 0]), np.int64(cells[row, slot, 1])
        if first == last:
            codes[row] = 0
            continue
        key, more = keys[ahead]
        at = key & mask
        while table[at + ONE] != 0 and (table[at] != key or (table[at + ONE] ^ more) >> HALF != 0):
            at = (at + TWO) & mask
        code = np.int64(table[at + ONE] & LOW)
        if code == 0 and is_open:
            begin = ends[num]
            if 4 * (num + 1) > len(table) or num + 2 > len(ends) or begin + last - first > len(words):
                return row, num
            words[begin : begin + last - first] = data[first:last]
            ends[num + 1] = begin + last - first
            table[at], table[at + ONE] = key, (more & ~LOW) | np.uint64(num)
            code, num = num, num + 1
        codes[row] = code
    return len(cells), num


@compiled
def move_entries(old: Any, new: Any) -> None:
    """Put the entries of one table into another, empty one."""
    mask = np.uint64(len(new) - 2)
    for entry in range(0, len(old), 2):
        if old[entry + 1] != 0:
            at = old[entry] & mask
            while new[at + ONE] != 0:
                at = (at + TWO) & mask
            new[at], new[at + ONE] = old[entry], old[entry + 1]


class Vocabulary:
    """Words and their codes, 1 … in the order in which they came; 0 is the empty word, which means missing.

    A word is known by 96 bits of its hashes (that any two of ten million share them has a chance of 1e-15); to compare the
    bytes as well would be two more misses of the caches for each of them, which took longer than all the rest.
    """

    def __init__(self) -> None:
        self.num = 1
        self._table = np.zeros(
            1 << 10, np.uint64
        )  # pairs: hash, upper half of the other and code; at most half are taken
        self._ends = np.zeros(1 << 8, np.int64)  # word c is words[ends[c] : ends[c + 1]], but the empty one
        self._words = np.zeros(1 << 12, np.uint8)

    @classmethod
    def of(cls, words: pa.StringArray) -> Vocabulary:
        """The vocabulary whose `words` these are."""
        made, (_, ends, data) = cls(), words.buffers()
        places = np.frombuffer(ends, np.int32)[: len(words) + 1]
        padded = np.concatenate([np.frombuffer(data or b"", np.uint8), np.zeros(8, np.uint8)])
        made.encode(padded, np.stack([places[:-1], places[1:]], -1)[1:, None], 0)
        return made

    def encode(self, data: Bytes, cells: Cells, slot: int, *, is_open: bool = True) -> Codes:
        """Codes of the cells of column `slot`, (num_rows,); unknown words are given one where `is_open`, else 0.

        Args:
            data: bytes, with eight to spare at their end; cells: places, (num_rows, num_slots, 2).
        """
        codes, row = np.empty(len(cells), np.int32), 0
        while row < len(cells):
            row, self.num = look_up(
                data, cells, slot, row, is_open, self.num, self._table, self._ends, self._words, codes
            )
            if row < len(cells):
                self._grow(int(cells[row, slot, 1] - cells[row, slot, 0]))
        return codes

    def _grow(self, num_bytes: int) -> None:
        """Make room for one more word, and as many as there are."""
        if 4 * (self.num + 1) > len(self._table):
            table = np.zeros(2 * len(self._table), np.uint64)
            move_entries(self._table, table)
            self._table = table
        if self.num + 2 > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
        needed = int(self._ends[self.num]) + num_bytes
        if needed > np.iinfo(np.int32).max:
            raise UserError(f"a column of more than 2 GiB of different words ({self.num} so far); is it the right one?")
        if needed > len(self._words):
            self._words = np.concatenate([self._words, np.zeros(max(num_bytes, len(self._words)), np.uint8)])

    def words(self) -> pa.StringArray:
        """The word of each code, "" of 0."""
        ends = self._ends[: self.num + 1].astype(np.int32)
        used = self._words[: ends[-1]].copy()
        return pa.StringArray.from_buffers(self.num, pa.py_buffer(ends), pa.py_buffer(used))
