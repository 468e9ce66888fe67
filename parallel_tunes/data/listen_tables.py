"""KKBOX's five tables as CSV, cut into cells at the speed of memory: blocks of bytes, and where in them each cell lies.

No cell becomes an object here. A block is read into one of two buffers while the other is worked on; threads each cut a
piece of it, begun at a line end on the guess that this is no line end within quotes. Whether it was one is known when the piece
before is done: that one ends where the guess began, or else the piece is cut once more from where it did end. So the
result is the same for any number of threads, and only names that hold lines cost time.

Why no library: they make the strings of 7.4 million rows, to look them up and drop them. Side by side, pyarrow's streaming
reader with dictionaries, the quickest of them, took 1.5 times the processor's time of all of this, the star included, and
twice its memory.

The dialect is that of Python's csv and of pandas: cells in double quotes hold commas, lines and doubled quotes; a quote
within a cell that does not begin with one is a character; lines end in LF, CRLF or CR; empty lines are none.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import NoReturn

import numpy as np
import pyarrow as pa

from parallel_tunes.data import dialects
from parallel_tunes.data.cells import TORN, UNEVEN, Bytes, Cells, cut_cells, unquote
from parallel_tunes.files import explain
from parallel_tunes.schema import UserError, suggest

COLUMNS = {  # that each table needs; others are passed over
    "train": ("msno", "song_id", "source_system_tab", "source_screen_name", "source_type", "target"),
    "test": ("msno", "song_id", "source_system_tab", "source_screen_name", "source_type"),
    "members": ("msno", "city", "bd", "gender", "registered_via", "registration_init_time", "expiration_date"),
    "songs": ("song_id", "song_length", "genre_ids", "artist_name", "composer", "lyricist", "language"),
    "song_extra_info": ("song_id", "name", "isrc"),
}
PIECE_BYTES = 1 << 22  # its cells stay in the caches until they are looked up
RECORD_BYTES = 1 << 20  # no honest record is longer: an open quote is
PAD_BYTES = 64  # behind a block, so that eight bytes can be read anywhere in it
BOM = b"\xef\xbb\xbf"


class Stream:
    """The bytes of a table from its beginning, at most `max_mib` of them."""

    def __init__(self, path: Path, file: io.FileIO | gzip.GzipFile, max_mib: int) -> None:
        self.path = path
        self._file, self._max_mib, self._num_read = file, max_mib, 0

    def fill(self, buffer: memoryview) -> int:
        """Read into all of `buffer`, or up to the end of the table.

        Returns:
            Bytes read; fewer than asked for only at the end.

        Raises:
            UserError: the file cannot be read or unpacked, or holds more than `max_mib`.
        """
        done = 0
        try:
            while done < len(buffer) and (num := self._file.readinto(buffer[done:])):
                done += num
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{self.path}: not a gzip file that can be unpacked ({error}); is it cut off? Fetch it again"
            ) from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({explain(error)})") from error
        self._num_read += done
        if self._num_read > self._max_mib << 20:
            raise UserError(f"{self.path}: more than data.max_mib={self._max_mib} MiB when unpacked")
        return done

    def rewind(self) -> None:
        """Go back to the beginning."""
        self._file.seek(0)
        self._num_read = 0


@contextlib.contextmanager
def open_table(path: Path, *, max_mib: int) -> Iterator[Stream]:
    """Open `NAME.csv` or `NAME.csv.gz`; more than `max_mib` of it, unpacked, is refused.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb", buffering=0) as file:
            yield Stream(path, file, max_mib)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({explain(error)})") from error


@dataclass(frozen=True)
class Piece:
    """Whole records of a block: `cells` are places in its `data`, (num_rows, num_columns, 2), first and one after the last."""

    data: Bytes
    cells: Cells
    place: int  # in the file, of data[0]


@dataclass(frozen=True)
class Cut:
    """What `cut_cells` found from `start` on."""

    start: int
    num_rows: int
    end: int
    status: int
    num_odd: int
    is_text: bool


class Reader:
    """The cells of one table, block by block.

    Args:
        name: of the table, in `COLUMNS`.
        threads: of `pool`, that cut.
    """

    def __init__(self, stream: Stream, name: str, pool: ThreadPoolExecutor, threads: int) -> None:
        self.path, self.columns = stream.path, COLUMNS[name]
        self._stream, self._pool, self._threads, self._lock = stream, pool, threads, Lock()
        self._num_fresh = PIECE_BYTES * threads
        self._buffers = [np.zeros(RECORD_BYTES + self._num_fresh + PAD_BYTES, np.uint8) for _ in range(2)]
        num_most = (PIECE_BYTES + 2 * RECORD_BYTES) // len(self.columns) + 2
        self._cells = [np.empty((num_most, len(self.columns), 2), np.int32) for _ in range(threads)]
        self._header: list[str] = []

    def __iter__(self) -> Iterator[list[Piece]]:
        """The pieces of each block, in order; they last until the next is asked for.

        Raises:
            UserError: no header or no rows, a column is missing or named twice, a line has too few or too many cells, a
                quote stays open, bytes are no UTF-8.
        """
        with ThreadPoolExecutor(1) as ahead:
            reading, tail, place, num_rows, is_last = ahead.submit(self._fill, 0), b"", 0, 0, False
            while not is_last:
                number = place // self._num_fresh
                data, num_fresh = self._buffers[number % 2], reading.result()
                is_last = num_fresh < self._num_fresh
                start, limit = RECORD_BYTES - len(tail), RECORD_BYTES + num_fresh
                data[start:RECORD_BYTES] = np.frombuffer(tail, np.uint8)
                if is_last and data[limit - 1] not in (10, 13):  # the last line may do without its end
                    data[limit] = 10
                    limit += 1
                data[limit] = 10
                if not self._header:
                    start += self._read_header(data[start : min(limit, start + RECORD_BYTES)].tobytes())
                if not is_last:
                    reading = ahead.submit(self._fill, number + 1)
                pieces, end = self._cut(data, start, limit, place - RECORD_BYTES)
                if end < limit:
                    self._check_tail(end, limit, place - RECORD_BYTES, is_last)
                tail = data[end:limit].tobytes()
                place += self._num_fresh
                num_rows += sum(len(piece.cells) for piece in pieces)
                yield pieces
        if not num_rows:
            raise UserError(f"{self.path}: no rows, only a header")

    def _fill(self, number: int) -> int:
        with self._lock:
            return self._stream.fill(self._buffers[number % 2].data[RECORD_BYTES : RECORD_BYTES + self._num_fresh])

    def _cut(self, data: Bytes, start: int, limit: int, place: int) -> tuple[list[Piece], int]:
        """Pieces of whole records, and where those end."""
        size = (limit - start) // self._threads + 1
        bounds = [start]
        for guess in range(start + size, limit, size):
            line = data[guess : min(guess + RECORD_BYTES, limit)].tobytes().find(b"\n")
            bounds += [guess + line + 1] if line >= 0 and guess + line + 1 > bounds[-1] else []
        bounds += [limit] if bounds[-1] < limit else []
        stretches = list(pairwise(bounds))
        cuts = list(self._pool.map(lambda k: self._cut_one(data, *stretches[k], limit, k), range(len(stretches))))
        pieces, end = list[Piece](), start
        for number, (_, stop) in enumerate(stretches):
            if end >= stop:
                continue  # a record of the piece before reaches beyond this one
            cut = cuts[number]
            if cut.start != end:  # the guess was wrong
                cut = self._cut_one(data, end, stop, limit, number)
            cells = self._cells[number][: cut.num_rows]
            if not cut.is_text:
                self._refuse_bytes(data, cells, cut, place)
            if cut.status == UNEVEN:
                self._refuse_cells(cut, place)
            if cut.num_odd:
                unquote(data, cells)
            pieces.append(Piece(data, cells, place))
            end = cut.end
            if cut.status == TORN:
                break
        return pieces, end

    def _cut_one(self, data: Bytes, start: int, stop: int, limit: int, number: int) -> Cut:
        num_rows, end, status, num_odd = cut_cells(data, start, stop, limit, self._slots, self._cells[number])
        return Cut(start, num_rows, end, status, num_odd, is_text(data[start:end]))

    def _read_header(self, data: bytes) -> int:
        """Learn which column is where; returns the bytes it takes."""
        mark = len(BOM) if data.startswith(BOM) else 0
        lines = io.StringIO(data[mark:].decode(errors="surrogateescape"), newline="")
        try:
            self._header = next((cells for cells in csv.reader(iter(lines.readline, "")) if any(cells)), [])
        except csv.Error as error:
            raise UserError(f"{self.path} line 1: {error}; is a double quote opened and never closed?") from error
        if not self._header:
            raise UserError(f"{self.path}: the file is empty; expected a header and a line for each row")
        if any("\udc80" <= sign <= "\udcff" for name in self._header for sign in name):
            raise UserError(f"{self.path} line 1: a column's name is no UTF-8; {self._convert()}")
        shown = ", ".join(" ".join(name.split())[:40] for name in self._header[:30])
        dialect = dialects.name(data)
        if dialect and not set(self.columns) & set(self._header):
            raise UserError(f"{self.path}: written as {dialect}; {dialects.SAVE}")
        for name in self.columns:
            if self._header.count(name) != 1:
                what = "two columns are called" if name in self._header else "no column"
                raise UserError(f"{self.path}: {what} {name!r}{suggest(name, self._header)}; it has {shown}")
        slots = {name: slot for slot, name in enumerate(self.columns)}
        self._slots = np.array([slots.get(name, -1) for name in self._header], np.int64)
        return mark + len(lines.getvalue()[: lines.tell()].encode(errors="surrogateescape"))

    def find_line(self, place: int) -> int:
        """The line, counted from 1, of a byte of the file; reads it once more, since nobody counts lines for nothing."""
        with self._lock:
            self._stream.rewind()
            buffer, num_feeds, num_returns = bytearray(PIECE_BYTES), 0, 0
            while place > 0 and (num := self._stream.fill(memoryview(buffer)[: min(place, PIECE_BYTES)])):
                num_feeds += buffer.count(b"\n", 0, num)
                num_returns += buffer.count(b"\r", 0, num)
                place -= num
        return 1 + max(num_feeds, num_returns)  # LF, CRLF or CR

    def _check_tail(self, end: int, limit: int, place: int, is_last: bool) -> None:
        if is_last or limit - end > RECORD_BYTES:
            line = self.find_line(place + end)
            raise UserError(f"{self.path} line {line}: a double quote is opened and never closed; close or double it")

    def _refuse_cells(self, cut: Cut, place: int) -> NoReturn:
        what = f"{cut.num_odd} cells, but the header has {len(self._header)}"
        mend = "put a cell that holds commas in double quotes, and close every quote"
        raise UserError(f"{self.path} line {self.find_line(place + cut.end)}: {what}; {mend}")

    def _refuse_bytes(self, data: Bytes, cells: Cells, cut: Cut, place: int) -> NoReturn:
        try:
            data[cut.start : cut.end].tobytes().decode()
        except UnicodeDecodeError as error:
            at = cut.start + error.start
            found = np.argwhere((cells[:, :, 0] <= at) & (at < np.abs(cells[:, :, 1])))
            name = f", column {self.columns[found[0, 1]]!r}" if len(found) else ""
            raise UserError(
                f"{self.path} line {self.find_line(place + at)}{name}: byte 0x{data[at]:02x} is no UTF-8; {self._convert()}"
            ) from error
        raise AssertionError("Arrow and Python differ on what UTF-8 is")

    def _convert(self) -> str:
        return f"convert the file, for example iconv -f WINDOWS-1252 -t UTF-8 {self.path.name} > new.csv"


def is_text(data: Bytes) -> bool:
    """Whether bytes are UTF-8, as Arrow checks it, four times as fast as Python decodes."""
    ends = np.array([0, len(data)], np.int32)
    try:
        pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
