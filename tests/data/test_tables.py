from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallel_tunes.data import tables
from parallel_tunes.schema import UserError


def read(root: Path, *required: str, max_mib: int = 100, max_rows: int = 10**6) -> tables.Table:
    return tables.read(root, required, max_mib=max_mib, max_rows=max_rows)


def test_cells_stay_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('\ufeffid,tempo,name\n007,NA,"é, ""q"""\n1e5,, nan \n'.encode())
    table = read(tmp_path / "t.csv", "id", "tempo")
    assert table.frame.to_numpy().tolist() == [["007", "NA", 'é, "q"'], ["1e5", "", " nan "]]
    assert table.places() == ["t.csv line 2", "t.csv line 3"]
    assert table.places([1], is_full=True) == [f"{tmp_path}/t.csv line 3"]


def test_lines_are_right_where_cells_hold_lines(tmp_path: Path) -> None:
    for end in ["\n", "\r\n", "\r"]:
        rows = ["id,name", "1,plain", '2,"two', 'lines"', "", "3,after", '4,"a', "", 'b"', "5,last"]
        (tmp_path / "t.csv").write_text(end.join(rows) + end, newline="")
        table = read(tmp_path / "t.csv")
        assert list(table.frame["id"]) == list("12345")
        assert [int(place.split()[-1]) for place in table.places()] == [2, 3, 6, 7, 10]


def test_rows_of_a_folder_come_in_the_order_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("id,x\n1,2\n")
    (tmp_path / "a.CSV").write_text("x,id\n4,3\n6,5")  # other order of columns, no last line end
    (tmp_path / "artists.csv").write_text("name,x\nq,1\n")
    (tmp_path / ".hidden.csv").write_text("id,x\n9,9\n")
    (tmp_path / "notes.txt").write_text("id,x\n9,9\n")
    (tmp_path / "deep.csv").mkdir()
    table = read(tmp_path, "id")
    assert list(table.frame["id"]) == ["3", "5", "1"]
    assert table.skipped == ["artists.csv"]
    assert table.places() == ["a.CSV line 2", "a.CSV line 3", "b.csv line 2"]
    assert table.places([2, 0]) == ["b.csv line 2", "a.CSV line 2"]


def test_parquet_keeps_types_and_counts_rows(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a", "b"], "x": [1.5, None], "names": [["p", "q"], []]}).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "u.csv").write_text("id,x,names\nc,2.5,p\n")
    table = read(tmp_path, "id")
    assert table.places() == ["t.parquet row 1", "t.parquet row 2", "u.csv line 2"]
    assert table.frame["x"].iloc[0] == 1.5
    assert np.isnan(table.frame["x"].iloc[1])
    assert table.frame["x"].iloc[2] == "2.5"
    assert list(table.frame["names"].iloc[0]) == ["p", "q"]


BAD = {
    "empty": (b"", "t.csv: the file is empty; expected a header"),
    "blank": (b"\n \n", "t.csv: the file is empty"),
    "no rows": (b"id,x\n", ": no rows, only a header"),
    "short line": (
        b'id,x\n1,"a\nb"\n3\n',
        "t.csv line 4: 1 cells, but the header has 2; put a cell that holds commas in double",
    ),
    "long line": (b"id,x\n1,2\n3,4,5\n", "t.csv line 3: 3 cells, but the header has 2"),
    "open quote": (b'id,x\n1,2\n3,"4\n5,6\n', "t.csv line 3: a double quote is opened and never closed"),
    "open quote in the last": (b'id,x\n1,2\n"3,4', "t.csv line 3: a double quote is opened and never closed"),
    "open quote in a long file": (b'id,x\n1,"2\n' + b"3,4\n" * 50000, "t.csv line 2: field larger than field limit"),
    "twice": (b"id,x,id\n1,2,3\n", "t.csv: two columns are called 'id'; rename one"),
    "an unknown code page": (
        'id,x\n1,2\n"3\n3",ТЕКСТ\n'.encode("cp1251"),
        "t.csv line 4, column 'x': byte 0xd2 is no UTF-8, nor the file in Windows-1252; convert it, by iconv -f CODEPAGE",
    ),
    "latin-1 after a mark": (
        b"\xef\xbb\xbfid,x\n1,\xe92\n",
        "t.csv line 2, column 'x': byte 0xe9 is no UTF-8",
    ),
    "a header of another": ("id,ł\n1,2\n".encode("cp1250"), "t.csv line 1, column 2: byte 0xb3 is no UTF-8"),
    "lacks": (b"ids,x\n1,2\n", "t.csv: no column 'id' (did you mean ids?); it has ids, x"),
}


def test_bad_files(tmp_path: Path) -> None:
    for fault, (data, says) in BAD.items():
        (tmp_path / "t.csv").write_bytes(data)
        for root in (tmp_path / "t.csv", tmp_path):
            with pytest.raises(UserError) as caught:
                read(root, "id")
            assert says in str(caught.value), fault
            assert "\n" not in str(caught.value)


def test_an_inch_is_no_open_quote(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,x\n1,12" mix\n2,b\n')
    assert list(read(tmp_path, "id").frame["x"]) == ['12" mix', "b"]


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.csv: no such file or folder"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match=r"holds no table; expected files \*\.csv or \*\.parquet"):
        read(tmp_path)
    (tmp_path / "t.txt").write_text("id\n1\n")
    with pytest.raises(UserError, match=r"t\.txt: not a table; give a file \.csv or \.parquet"):
        read(tmp_path / "t.txt")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"t\.parquet: not a parquet file that can be read"):
        read(tmp_path)
    pd.DataFrame({"id": ["a" * 50] * 1000}).to_parquet(tmp_path / "t.parquet", compression=None)
    whole = bytearray((tmp_path / "t.parquet").read_bytes())
    whole[10:60] = b"\xff" * 50
    (tmp_path / "t.parquet").write_bytes(whole)
    with pytest.raises(UserError, match=r"t\.parquet: not a table that can be read"):
        read(tmp_path)


def test_files_of_a_folder_must_be_alike(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x,y\n1,2,3\n")
    (tmp_path / "b.csv").write_text("id,x,z\n1,2,3\n")
    with pytest.raises(UserError, match=r"b\.csv: its columns are not those of a\.csv: it lacks y and adds z$"):
        read(tmp_path, "id")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "1\n" * 60)
    (tmp_path / "b.csv").write_text("id\n" + "1\n" * 60)
    assert len(read(tmp_path, max_rows=120).frame) == 120
    with pytest.raises(UserError, match=r"120 rows and maybe more, but data\.max_rows=119"):
        read(tmp_path, max_rows=119)
    (tmp_path / "c.csv").write_text("id\n" + "1" * 2**21)
    with pytest.raises(UserError, match=r"2\.0 MiB, more than data\.max_mib=1"):
        read(tmp_path, max_mib=1)
    for path in tmp_path.iterdir():
        path.unlink()
    # packed it is small
    pd.DataFrame({"id": np.arange(10**6)}).to_parquet(tmp_path / "z.parquet", compression="zstd")
    with pytest.raises(UserError, match=r"1000000 rows, but data\.max_rows=5"):
        read(tmp_path, max_rows=5)
    with pytest.raises(UserError, match=r"MiB(| when unpacked), more than data\.max_mib=1"):
        read(tmp_path, max_mib=1)


MUTATIONS = 60 * int(os.environ.get("PT_SOAK", "1"))  # 100 were tried when this was written


def test_mangled_tables_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Whatever bytes a table has, it is a table or a UserError."""
    rng = np.random.default_rng(0)
    whole = b"id,name,tempo,popularity\n" + b"".join(
        b'%d,"a, ""b""\nc",%.2f,%d\n' % (n, n * 1.5, n % 100) for n in range(20)
    )
    pieces = [
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xc3",
        b'""',
        b"nan",
        b"1e999",
        b"-" * 300,
        b"\x1a",
    ]
    for _ in range(MUTATIONS):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(0, len(data) + 1))
            kind = rng.integers(0, 3)
            if kind == 0:
                data[at:at] = pieces[rng.integers(len(pieces))]
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 40))]
            else:
                data[at : at + 1] = bytes([int(rng.integers(0, 256))])
        path = tmp_path / "x.csv"
        path.write_bytes(data)
        refusal = f"x.csv {len(data)}"
        try:
            table = tables.read(path, ["id"], max_mib=1, max_rows=1000)
        except UserError as error:
            refusal = str(error)
        else:
            assert len(table.places()) == len(table.frame), data
        assert "x.csv" in refusal, data
        assert "\n" not in refusal, data


ROWS: list[list[Any]] = [
    ["a1", "Café, Ltd", 0.5, -7.25, 215000, 1234567.5],
    ["b2", "Déjà vu", 0.125, -60.0, 90500, 12.0],
    ["c3", "", 1.0, -3.5, 1000, 0.25],
]
NAMES = ["id", "who", "energy", "loudness", "duration_ms", "plays"]


def spell(separator: str = ",", decimal: str = ".", thousands: str = "", *, end: str = "\n") -> str:
    """`ROWS` as a program writes them."""

    def cell(value: Any) -> str:
        if isinstance(value, str):
            return f'"{value}"' if separator in value else value
        text = f"{value:,.3f}" if value > 1000 and isinstance(value, float) else f"{value:,}"
        text = text.translate({ord(","): thousands, ord("."): decimal})
        return f'"{text}"' if separator in text else text

    rows: list[list[Any]] = [NAMES, *ROWS]
    return end.join(separator.join(map(cell, row)) for row in rows) + end


DIALECTS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "plain": (spell().encode(), {}, ""),
    "semicolons": (spell(";").encode(), {"sep": ";"}, "semicolons between cells"),
    "Excel in Germany": (spell(";", ",", ".", end="\r\n").encode("utf-8-sig"), {"sep": ";", "decimal": ",", "thousands": "."},
                         "semicolons between cells, decimal commas and points between thousands"),
    "Excel in France": (spell(";", ",", end="\r\n").encode("cp1252"), {"sep": ";", "decimal": ",", "encoding": "cp1252"},
                        "Windows-1252, semicolons between cells, decimal commas"),
    "Unicode text": (spell("\t", ".", ",", end="\r\n").encode("utf-16"), {"sep": "\t", "thousands": ",", "encoding": "utf-16"},
                     "UTF-16, tabs between cells, commas between thousands"),
    "big endian": (b"\xfe\xff" + spell("\t").encode("utf-16-be"), {"sep": "\t", "encoding": "utf-16"}, "UTF-16, tabs between cells"),
    "tabs and decimal commas": (spell("\t", ",").encode(), {"sep": "\t", "decimal": ","}, "tabs between cells, decimal commas"),
    "bars": (spell("|").encode(), {"sep": "|"}, "bars between cells"),
    "Kaggle's thousands": (spell(",", ".", ",").encode(), {"thousands": ","}, "commas between thousands"),
    "LibreOffice": (spell(",", ",").encode(), {"decimal": ","}, "decimal commas"),
    "a hint for Excel": (b"sep=;\n" + spell(";", ",").encode(), {"sep": ";", "decimal": ",", "skiprows": 1},
                         "semicolons between cells, decimal commas"),
    "a hint for commas": (b"sep=,\r\n" + spell().encode(), {"skiprows": 1}, "a line sep=,"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_tables_as_spreadsheets_write_them(dialect: str, tmp_path: Path) -> None:
    data, how, says = DIALECTS[dialect]
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    table = read(path, "id", "energy")
    right: pd.DataFrame = pd.read_csv(path, keep_default_na=False, **how)
    assert list(table.frame) == NAMES == list(right)
    for name in NAMES[:2]:
        assert table.frame[name].tolist() == right[name].tolist()
    for name in NAMES[2:]:
        assert table.frame[name].astype(float).tolist() == right[name].astype(float).tolist(), name
    assert table.remarks == ([f"t.csv: read as {says}"] if says else [])
    first = 3 if dialect.startswith("a hint") else 2
    assert [int(place.split()[-1]) for place in table.places()] == [first, first + 1, first + 2]


def test_headers_that_are_repeated_and_columns_without_a_name_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id;x;;\n1;2;;\nid;x;;\n\n3;4;;\n")
    table = read(tmp_path / "t.csv", "id")
    assert table.frame.to_dict("list") == {"id": ["1", "3"], "x": ["2", "4"]}
    assert table.places() == ["t.csv line 2", "t.csv line 5"]
    assert table.remarks == ["t.csv: read as semicolons between cells, 1 repeated headers"]
    (tmp_path / "t.csv").write_text("id,x,,\n1,2,,\n3,4,5,\n")
    with pytest.raises(UserError, match="row 2 holds more than the header names"):
        read(tmp_path / "t.csv", "id")


AMBIGUOUS = {
    "id\tx\na\t1,234\nb\t5,678\n": "column x holds 1,234: a decimal comma, or one between thousands? save it as CSV UTF-8",
    "id;x;y\na;0,5;0.5\nb;1,5;2.5\n": "written in two ways, decimal commas and decimal points",
    "id|x|y\na|1,234,567|0,5\nb|2,5|0,25\n": "written in two ways",
}


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_what_can_be_meant_in_two_ways_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(AMBIGUOUS[text])):
        read(tmp_path / "t.csv", "id")


@pytest.mark.parametrize("cells", [["1,234", "5,678"], ["1,234,567", "0,5"], ["1.5", "1,5"], ["1.234.567", "0.5"]])
def test_between_commas_what_is_meant_in_two_ways_stays_text(cells: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x\n" + "".join(f'{n},"{cell}"\n' for n, cell in enumerate(cells)))
    table = read(tmp_path / "t.csv", "id")
    assert table.frame["x"].tolist() == cells
    assert table.remarks == []


def test_text_that_looks_odd_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id,x,artists,note\n1.234,5,"12,5","1,5 or so"\n5.678,1.234,"3,4",-\n')
    table = read(tmp_path / "t.csv", "id")
    assert table.frame.to_numpy().tolist() == [["1.234", "5", "12,5", "1,5 or so"], ["5.678", "1.234", "3,4", "-"]]
    assert table.remarks == []
