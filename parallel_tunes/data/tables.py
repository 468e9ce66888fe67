"""Tables from CSV and parquet files, one or a folder of them, whose every row knows the file and line it came from."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from parallel_tunes.data import dialects
from parallel_tunes.files import explain
from parallel_tunes.schema import UserError, suggest

ENDINGS = (".csv", ".parquet")
MAX_COLUMNS = 10_000
HEADER_BYTES = 1 << 20  # a header is looked for in so many
BLOCK_BYTES = 1 << 25
# columns that are text even where they look like numbers with commas
NO_NUMBERS = frozenset(
    ("artist", "artist_id", "artist_name", "artist_names", "artists", "genre", "genres", "id", "id_artists", "name", "performer",
     "track_artist", "track_id", "track_name")
)  # fmt: skip
LAST = "end"  # a line put after the last, to see whether it is a line of its own


@dataclass(frozen=True)
class Source:
    """A file of a table, and how its rows are found again."""

    path: Path
    num_rows: int
    is_plain: bool  # a row of a CSV file takes one line, and none is empty

    @cached_property
    def lines(self) -> NDArray[np.int64]:
        """The line each row starts in, counted from 1; in parquet, which has none, the row's number."""
        is_csv = self.path.suffix.lower() == ".csv"
        if self.is_plain or not is_csv:
            return np.arange(self.num_rows, dtype=np.int64) + (2 if is_csv else 1)
        text = dialects.straighten(_decode(self.path, _read_bytes(self.path))[0])[0]
        header, *records = _records(self.path, text)
        return np.array([line for line, cells in records if cells != header[1]], np.int64)

    def name(self, *, is_full: bool) -> str:
        """What stands before a row's number."""
        return f"{self.path if is_full else self.path.name} {'line' if self.path.suffix.lower() == '.csv' else 'row'}"


@dataclass(frozen=True)
class Table:
    """Rows of one or more files, in the order of their names and lines.

    Columns of CSV files are text, an empty cell "" and never a missing value; parquet files keep their types.
    """

    frame: pd.DataFrame
    sources: list[Source]
    skipped: list[str] = field(default_factory=list)  # files of the folder that lack a required column
    remarks: list[str] = field(default_factory=list)  # how files are written that are no plain CSV

    def places(self, rows: Sequence[int] | NDArray[np.int64] | None = None, *, is_full: bool = False) -> list[str]:
        """`FILE line N` of these rows, or of all; `is_full` with the files' folder."""
        firsts = np.cumsum([0] + [source.num_rows for source in self.sources])
        names = [source.name(is_full=is_full) for source in self.sources]
        if rows is None:
            return [f"{name} {line}" for name, s in zip(names, self.sources, strict=True) for line in s.lines.tolist()]
        found = [(int(np.searchsorted(firsts, row, side="right")) - 1, row) for row in rows]
        return [f"{names[at]} {self.sources[at].lines[row - firsts[at]]}" for at, row in found]


def read(root: Path, required: Sequence[str], *, max_mib: int, max_rows: int) -> Table:
    """The table in a file, or in all files of a folder (not of those below it) that have the required columns.

    Raises:
        UserError: nothing there, too large, not UTF-8, not a table, no rows, files that do not fit together, columns that
            are missing or named twice.
    """
    paths, skipped = _choose(root, required)
    size_mib = sum(path.stat().st_size for path in paths) / 2**20
    if size_mib > max_mib:
        raise UserError(f"{root}: {size_mib:.1f} MiB, more than data.max_mib={max_mib}")
    sources: list[Source] = []
    frames: list[pd.DataFrame] = []
    remarks: list[str] = []
    num_rows = 0
    for path in paths:
        is_csv = path.suffix.lower() == ".csv"
        frame, source = (
            parse_csv(path, _read_bytes(path), remarks.append) if is_csv else _read_parquet(path, max_mib, max_rows)
        )
        if frames and set(frame.columns) != set(frames[0].columns):
            lacks, adds = (sorted(map(str, set(a) - set(b))) for a, b in ((frames[0], frame), (frame, frames[0])))
            differ = [f"{verb} {', '.join(names)}" for verb, names in (("lacks", lacks), ("adds", adds)) if names]
            raise UserError(f"{path}: its columns are not those of {paths[0].name}: it {' and '.join(differ)}")
        frames.append(frame[list(frames[0].columns)] if frames else frame)
        sources.append(source)
        num_rows += source.num_rows
        if num_rows > max_rows:
            raise UserError(f"{root}: {num_rows} rows and maybe more, but data.max_rows={max_rows}")
    if not num_rows:
        raise UserError(f"{root}: no rows, only a header; expected a row for each track")
    return Table(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0], sources, skipped, remarks)


def _choose(root: Path, required: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files to read, by name, and the names of those that lack a required column."""
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; give a CSV or parquet file, or a folder of them")
    if not root.is_dir():
        if not root.is_file() or root.suffix.lower() not in ENDINGS:
            raise UserError(f"{root}: not a table; give a file .csv or .parquet, or a folder of them")
        _demand(root, read_header(root), required)
        return [root], []
    try:
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({explain(error)})") from error
    paths = [path for path in found if not path.name.startswith(".")]
    if not paths:
        raise UserError(f"{root}: holds no table; expected files *.csv or *.parquet")
    headers = {path: read_header(path) for path in paths}
    fit = [path for path in paths if set(required) <= set(headers[path])]
    if not fit:
        _demand(paths[0], headers[paths[0]], required)
    return fit, [path.name for path in paths if path not in fit]


def _demand(path: Path, header: list[str], required: Sequence[str]) -> None:
    lacking = [name for name in required if name not in header]
    if lacking:
        names = ", ".join(map(repr, lacking)) + suggest(lacking[0], header)
        shown = (" ".join(name.split())[:40] for name in header[:30])  # a stray quote makes one name of many lines
        raise UserError(f"{path}: no column {names}; it has {', '.join(shown)}")


def read_header(path: Path) -> list[str]:
    """The names of a file's columns.

    Raises:
        UserError: it cannot be read, or two are the same.
    """
    if path.suffix.lower() == ".csv":
        return _check_names(path, _name_columns(path, _begin(_read_bytes(path, HEADER_BYTES))))
    return _check_names(path, list(_open_parquet(path).schema_arrow.names))


def _begin(start: bytes) -> str:
    """The beginning of a CSV file as plain text; whatever is not UTF-8 is found, with its line, when the whole is read."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = start[: len(start) & ~1].decode("utf-16", "replace")
    else:
        try:
            text = dialects.decode(Path(), start)[0]
        except UnicodeDecodeError:
            text = start.decode("utf-8-sig", "replace")
    return dialects.straighten(text)[0]


def _name_columns(path: Path, text: str) -> list[str]:
    """The first line of a plain CSV file, of which `text` is the beginning."""
    if not text.strip():
        raise UserError(f"{path}: the file is empty; expected a header and a line for each row")
    return next((cells for _, cells in _records(path, text)), [])


def _check_names(path: Path, names: list[str]) -> list[str]:
    num_named = max((number for number, name in enumerate(names, 1) if name.strip()), default=0)
    if len(names) - num_named > 1:  # empty columns at the end, to be dropped
        names = names[:num_named]
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{path}: {len(names)} columns; a table has {MAX_COLUMNS} at most")
    twice = [name for name, num in Counter(names).items() if num > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0]!r}; rename one in the header")
    return names


def open_list(path: Path) -> io.BytesIO:
    """A CSV file in UTF-8 with commas between its cells, however it is written, for pandas.

    Raises:
        UserError: it cannot be read, or its encoding cannot be told.
    """
    return io.BytesIO(dialects.straighten(_decode(path, _read_bytes(path))[0])[0].encode())


def parse_csv(path: Path, data: bytes, say: Callable[[str], object]) -> tuple[pd.DataFrame, Source]:
    """The rows of a CSV file's bytes; `path` only names it.

    Args:
        say: told in a line how it is written, where that is not plainly.

    Raises:
        UserError: in no encoding or dialect that can be told, not a table, or columns that are named twice.
    """
    text, encoding = _decode(path, data)
    plain, separator = dialects.straighten(text)
    if encoding or separator:
        text, data = plain, plain.encode()
    header = _name_columns(path, text[:HEADER_BYTES])
    named = _check_names(path, header)
    # columns without a name, at the end
    names = named + [f"\0{number}" for number in range(len(header) - len(named))]
    if data.count(b'"') % 2:  # the parser would take all that follows an open quote for one cell
        _demand_even(path, text, len(names))
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pa.csv.ParseOptions(newlines_in_values=True)

    options = {"parse_options": parse, "convert_options": convert}
    try:
        read = pa.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names, skip_rows=0)
        table = pa.csv.read_csv(pa.py_buffer(data), read, **options).slice(1)
    except pa.ArrowException as error:
        _demand_even(path, text, len(names))
        raise UserError(f"{path}: not a table that can be read ({str(error).splitlines()[0]})") from error
    num_lines = text.count("\n") + (not text.endswith("\n"))
    is_plain = num_lines == table.num_rows + 1 and text.count("\r") == text.count("\r\n")
    frame = _drop_nameless(path, table.to_pandas(), len(named))
    again = np.flatnonzero(frame.iloc[:, 0] == named[0])
    again = again[(frame.iloc[again] == named).all(axis=1)] if len(again) else again
    if len(again):
        frame = frame.drop(index=again.tolist()).reset_index(drop=True)
    numbers = ""
    if separator or b'"' in data or b";" in data:  # else no cell holds a comma
        frame, numbers = dialects.make_plain(path, frame, separator, NO_NUMBERS)
    said = [encoding, separator, numbers, f"{len(again)} repeated headers" * bool(len(again))]
    if any(said):
        say(f"{path.name}: read as {', '.join(filter(None, said))}")
    return frame, Source(path, len(frame), is_plain and not len(again))


def _drop_nameless(path: Path, frame: pd.DataFrame, num_named: int) -> pd.DataFrame:
    """The columns that have a name; the others, at the end, are what spreadsheets leave behind."""
    filled = np.flatnonzero((frame.iloc[:, num_named:] != "").any(axis=1))
    if len(filled):
        raise UserError(
            f"{path}: row {filled[0] + 1} holds more than the header names; name its columns, or remove them"
        )
    return frame.iloc[:, :num_named]


def _read_parquet(path: Path, max_mib: int, max_rows: int) -> tuple[pd.DataFrame, Source]:
    file = _open_parquet(path)
    facts = file.metadata
    size_mib = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)) / 2**20
    if size_mib > max_mib:  # unpacked, a small file may fill the memory
        raise UserError(f"{path}: {size_mib:.1f} MiB when unpacked, more than data.max_mib={max_mib}")
    if facts.num_rows > max_rows:
        raise UserError(f"{path}: {facts.num_rows} rows, but data.max_rows={max_rows}")
    try:
        frame = file.read().to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a table that can be read ({str(error).splitlines()[0]})") from error
    return frame, Source(path, len(frame), True)


def _open_parquet(path: Path) -> pa.parquet.ParquetFile:
    try:
        return pa.parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a parquet file that can be read ({str(error).splitlines()[0]})") from error


def _read_bytes(path: Path, num_bytes: int = -1) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(num_bytes)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({explain(error)})") from error


def _decode(path: Path, data: bytes) -> tuple[str, str]:
    """The text of a file, and its encoding, "" for UTF-8.

    Raises:
        UserError: the first byte that is none of an encoding that can be told, by line and column.
    """
    try:
        return dialects.decode(path, data)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        line = before.count("\n") + 1
        records = list(_records(path, before + "?"))
        column = len(records[-1][1]) - 1
        name = repr(records[0][1][column]) if len(records) > 1 and column < len(records[0][1]) else str(column + 1)
        raise UserError(
            f"{path} line {line}, column {name}: byte 0x{data[error.start]:02x} is no UTF-8, nor the file in Windows-1252; "
            f"convert it, by iconv -f CODEPAGE -t UTF-8 {path.name} > new.csv for example"
        ) from error


def _demand_even(path: Path, text: str, num_columns: int) -> None:
    """Refuse a line with more or fewer cells than the header, or with a quote that is never closed."""
    for line, cells in _records(path, f"{text}\n{LAST}"):
        if cells != [LAST] and cells[-1].endswith(f"\n{LAST}"):  # the last line became part of a cell
            raise UserError(f"{path} line {line}: a double quote is opened and never closed; close or double it")
        if cells != [LAST] and len(cells) != num_columns:
            raise UserError(
                f"{path} line {line}: {len(cells)} cells, but the header has {num_columns}; "
                "put a cell that holds commas in double quotes"
            )


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line, counted from 1, and its cells; empty lines are none."""
    reader, line = csv.reader(io.StringIO(text, newline="")), 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:  # a cell of more than 128 KiB, which no honest one is
        raise UserError(f"{path} line {line}: {error}; is a double quote opened and never closed?") from error
