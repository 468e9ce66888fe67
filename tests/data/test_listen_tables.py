from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_tunes.data import listen_tables
from parallel_tunes.data.listen_tables import COLUMNS, Reader, open_table
from parallel_tunes.schema import UserError

HEADER = "song_id,name,isrc\n"
Rows = list[list[str]]


def read(path: Path, name: str = "song_extra_info", threads: int = 1, max_mib: int = 100) -> Rows:
    rows: Rows = []
    with ThreadPoolExecutor(threads) as pool, open_table(path, max_mib=max_mib) as stream:
        for pieces in Reader(stream, name, pool, threads):
            for piece in pieces:
                for row in piece.cells.tolist():
                    rows.append([piece.data[first:last].tobytes().decode() for first, last in row])
    return rows


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that records lie across them, and that guesses where one begins are wrong."""
    monkeypatch.setattr(listen_tables, "PIECE_BYTES", 96)
    monkeypatch.setattr(listen_tables, "RECORD_BYTES", 160)


SETTINGS = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
cell = st.text('ab,"\n\r é中', max_size=12)


@SETTINGS
@given(
    rows=st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=40),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    is_quoted=st.booleans(),
    is_cut=st.booleans(),
    threads=st.integers(1, 3),
)
def test_what_csv_writes_is_read(
    rows: Sequence[Sequence[str]], end: str, is_quoted: bool, is_cut: bool, threads: int, small: None, tmp_path: Path
) -> None:
    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if is_quoted or set(text) & set(',"\n\r') else text

    whole = "".join(",".join(map(quote, row)) + end for row in [["song_id", "name", "isrc"], *rows])
    path = write(tmp_path, whole.removesuffix(end) if is_cut else whole)
    assert read(path, threads=threads) == [list(row) for row in rows]


@SETTINGS
@given(body=st.text('a,",\n\r', min_size=1, max_size=150), threads=st.integers(1, 3))
def test_any_text_is_read_as_csv_does_or_refused(body: str, threads: int, small: None, tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + body)
    rows = [cells for cells in csv.reader(io.StringIO(f"{HEADER}{body}\nLAST", newline="")) if cells][1:]
    is_whole = rows[-1:] == [["LAST"]] and len(rows) > 1 and all(len(row) == 3 for row in rows[:-1])
    if is_whole:
        assert read(path, threads=threads) == rows[:-1]
        return
    with pytest.raises(UserError) as caught:
        read(path, threads=threads)
    assert "\n" not in str(caught.value)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffisrc,"song_id",more,name\n1,"a ""b""",2,c\n\n3,d,"4,5",e\n')
    assert read(path) == [['a "b"', "c", "1"], ["d", "e", "3"]]
    quoted = write(tmp_path, '"two\nlines",song_id,name,isrc\n1,2,3,4\n')
    assert read(quoted) == [["2", "3", "4"]]


def test_large_tables_are_the_same_for_any_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen_tables, "PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(listen_tables, "RECORD_BYTES", 1 << 12)
    rng = np.random.default_rng(0)
    names = ['"a\nb"', "plain", '"x,""y"""', "歌" * 9, '12" mix', '"Heroes" live']
    lines = [f"id{k},{names[k % 6]},{rng.integers(10**9)}\n" for k in range(20_000)]
    path = write(tmp_path, HEADER + "".join(lines))
    with path.open(newline="") as stream:
        expected = list(csv.reader(stream))[1:]
    assert path.stat().st_size > 5 * listen_tables.PIECE_BYTES
    assert read(path) == expected
    assert read(path, threads=3) == expected


BAD: dict[str, tuple[str | bytes, str]] = {
    "empty": (b"", "t.csv: the file is empty; expected a header"),
    "blank": (b"\n \n"[:1], "t.csv: the file is empty"),
    "no rows": (HEADER, "t.csv: no rows, only a header"),
    "renamed": ("songid,name,isrc\n1,2,3\n", "t.csv: no column 'song_id' (did you mean songid?); it has songid, name, isrc"),
    "twice": ("song_id,name,isrc,name\n1,2,3,4\n", "t.csv: two columns are called 'name'"),
    "few cells": (HEADER + "1,2,3\n\n1,2\n", "t.csv line 4: 2 cells, but the header has 3"),
    "many cells": (HEADER + '1,"2\n2",3\n1,2,3,4\n', "t.csv line 4: 4 cells, but the header has 3"),
    "open quote": (HEADER + '1,2,3\n1,"2,3\n1,2,3\n', "t.csv line 3: a double quote is opened and never closed"),
    "open quote in the last": (HEADER + '1,2,3\n1,2,"3', "t.csv line 3: a double quote is opened and never closed"),
    "open quote in a long table": (HEADER + '1,"2,3\n' + "1,2,3\n" * 400_000, "t.csv line 2: a double quote is opened"),
    "open quote in the header": ('song_id,"name,isrc\n' + "1,2,3\n" * 50_000, "t.csv line 1: field larger than"),
    "latin-1": (
        (HEADER + '1,2,3\n"1\n1",café,3\n').encode("latin-1"),
        "t.csv line 4, column 'name': byte 0xe9 is no UTF-8; convert the file, for example iconv",
    ),
    "latin-1 header": ("song_id,name,isrc,é\n1,2,3,4\n".encode("latin-1"), "t.csv line 1: a column's name is no UTF-8; convert the file"),
}  # fmt: skip


def test_bad_tables(tmp_path: Path) -> None:
    for fault, (data, says) in BAD.items():
        path = write(tmp_path, data)
        for threads in (1, 2):
            with pytest.raises(UserError) as caught:
                read(path, threads=threads)
            assert says in str(caught.value), fault
            assert "\n" not in str(caught.value)


def test_lines_are_right_far_into_a_table(small: None, tmp_path: Path) -> None:
    for end in ("\n", "\r\n"):
        rows = [f'{k},"a{end}b",c{end}' for k in range(200)]
        rows[150] = f"150,b{end}"
        path = write(tmp_path, HEADER.replace("\n", end) + "".join(rows))
        with pytest.raises(UserError, match=r"t\.csv line 302: 2 cells"):
            read(path, threads=2)


def test_packed_tables_are_the_same_and_damaged_ones_are_one_line(tmp_path: Path) -> None:
    text = (HEADER + "".join(f"s{k},{k * k % 977},x\n" for k in range(3000))).encode()
    path = write(tmp_path, gzip.compress(text[:5000]) + gzip.compress(text[5000:]), "t.csv.gz")  # of two members
    rows = read(write(tmp_path, text))
    assert read(path) == rows
    whole, rng, says = path.read_bytes(), np.random.default_rng(1), list[str]()
    damaged = [whole[:stop] for stop in (1, 5, 20, len(whole) // 2, len(whole) - 1)]
    for _ in range(20):
        flipped = bytearray(whole)
        flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        try:
            assert read(path) == rows  # a flag or a name in the header may differ, never what comes out
        except UserError as error:
            says.append(str(error))
    assert len(says) >= 15
    assert all(line.startswith(str(path)) and "\n" not in line for line in says)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_what_unpacks_to_more_is_refused(ending: str, tmp_path: Path) -> None:
    data = (HEADER + "1,2,3\n").encode().ljust(2**20 + 1, b"\n")
    path = write(tmp_path, gzip.compress(data) if ending == ".csv.gz" else data, f"t{ending}")
    with pytest.raises(UserError, match=rf"t{ending}: more than data\.max_mib=1 MiB"):
        read(path, max_mib=1)
    assert read(path, max_mib=2) == [["1", "2", "3"]]


def test_every_table_knows_its_columns() -> None:
    assert {names[0] for names in COLUMNS.values()} == {"msno", "song_id"}
    assert all(len(set(names)) == len(names) for names in COLUMNS.values())
