"""python -m parallel_tunes.benchmark.tables_worker ROW ROOT FOLDER: a process that reads KKBOX's tables as often as told.

A line `go` has it read them, from the files to encoded columns, a row for each listen; the answer is a line of JSON: seconds,
and the most memory that the process has held. `digest` asks what the columns are, up to the names of the codes.

Rows: `seed`, the way of the project this one grew out of: pandas reads the tables and merges them, what is missing becomes -1,
and scikit-learn's LabelEncoder encodes every column. `ours`: the star of `make_listens`, and then its cells gathered to a row
each; `star_s` is the time of the star alone, which is all that training needs. `reload`: the star is there; it is opened, and
every byte of its columns looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from parallel_tunes.data.listen_stages import LISTEN_COLUMNS
from parallel_tunes.data.listens import Listens, make_listens
from parallel_tunes.files import digest_bytes
from parallel_tunes.lanes import compile_of

TABLES = ("train", "songs", "members", "song_extra_info")
NAMES = {"user": "msno", "song": "song_id"}
MISSING = "-1"  # as the seed calls it; where that is a word of the table too (a language), both become one
PANDAS_MISSING = ("", "#N/A", "N/A", "NA", "NaN", "None", "n/a", "nan", "null", "NULL", "<NA>", "-nan", "-NaN")
TINY = {
    "train": "msno,song_id,source_system_tab,source_screen_name,source_type,target\nu,s,a,b,c,1\n",
    "songs": 'song_id,song_length,genre_ids,artist_name,composer,lyricist,language\ns,1,1|2,"a ""b""",c,a,3\n',
    "members": "msno,city,bd,gender,registered_via,registration_init_time,expiration_date\nu,1,20,,7,20110820,20170920\n",
    "song_extra_info": "song_id,name,isrc\ns,n,TWUM71200043\n",
}
Columns = dict[str, NDArray[Any]]  # codes, (num_rows,)
compiled = compile_of(__file__)


def encode_seed(root: Path) -> Columns:
    """The seed's way, on train; the slowest part is that each text of millions is sorted, and again found, as an object."""
    from sklearn.preprocessing import LabelEncoder

    tables = {name: pd.read_csv(root / f"{name}.csv") for name in TABLES}
    merged = tables["train"]
    for name, key in (("songs", "song_id"), ("members", "msno"), ("song_extra_info", "song_id")):
        merged = merged.merge(tables.pop(name), on=key, how="left")
    encoded: Columns = {}
    for name in merged.columns:
        column = merged[name]
        filled = column.fillna(-1) if pd.api.types.is_numeric_dtype(column) else column.fillna(MISSING)
        encoded[name] = LabelEncoder().fit_transform(filled)
    return encoded


def encode_ours(root: Path, folder: Path, threads: int) -> tuple[Columns, float]:
    """Our way, from nothing; and the seconds of the star alone."""
    began = time.perf_counter()
    make_star(root, folder, threads)
    listens = Listens(folder)
    seconds = time.perf_counter() - began
    return gather(listens, threads), seconds


def make_star(root: Path, folder: Path, threads: int) -> None:
    """The columns of listens, from nothing."""

    def show(title: str, total: int, unit: str) -> tqdm[Any]:
        return tqdm(total=total, desc=title, unit=unit, disable=True)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    shutil.rmtree(folder, ignore_errors=True)
    make_listens(root, folder, max_mib=1 << 20, max_rows=1 << 31, threads=threads, progress=show, say=say)


def gather(listens: Listens, threads: int) -> Columns:
    """The star's cells, a row for each listen of train."""
    num = listens.num_labelled
    columns: Columns = {name: listens.codes[name][:num] for name in LISTEN_COLUMNS} | {"target": listens.target[:num]}
    stars = (("song", listens.song_cells), ("user", listens.user_cells))
    work = [(listens.codes[star][:num], name, cells) for star, table in stars for name, cells in table.items()]

    def take(one: tuple[NDArray[Any], str, NDArray[Any]]) -> tuple[str, NDArray[Any]]:
        codes, name, cells = one
        rows = np.empty(num, np.int32)
        pick(codes, cells, rows)
        return name, rows

    with ThreadPoolExecutor(threads) as pool:
        return columns | dict(pool.map(take, work))


@compiled
def pick(codes: Any, cells: Any, rows: Any) -> None:
    """Write cells[codes] to `rows`; NumPy's own way widens all codes first."""
    for row in range(len(rows)):
        rows[row] = cells[codes[row]]


def digest(columns: Columns) -> dict[str, str]:
    """Of each column a name that is the same whatever its codes are called: they are counted as they first appear."""
    return {name: digest_bytes(pd.factorize(codes)[0].astype(np.int32).tobytes()) for name, codes in columns.items()}


def speak_pandas(listens: Listens, columns: Columns) -> Iterator[tuple[str, NDArray[Any]]]:
    """Our columns, by the names of the tables, with what pandas and the seed take for missing become so."""
    for name, codes in columns.items():
        if name == "target":
            yield name, codes
            continue
        words = listens.cell_words(name).to_pylist()
        into = np.arange(len(words))
        into[[code for code, word in enumerate(words) if word in PANDAS_MISSING or word == MISSING]] = 0
        yield NAMES.get(name, name), into[codes]


def touch(folder: Path) -> Columns:
    """All columns of the star, every byte of them read."""
    listens = Listens(folder)
    stars = {"song": listens.songs | listens.song_numbers, "user": listens.users | listens.user_numbers}
    columns: Columns = {**listens.codes, "target": listens.target}
    columns |= {f"{star}.{name}": cells for star, table in stars.items() for name, cells in table.items()}
    for cells in columns.values():
        cells.max(initial=0)
    return columns


def peak_mib() -> float:
    """The most memory this process has held; the kernel's other count of it begins with that of whoever started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:"))


def prepare(row: str, root: Path, folder: Path) -> Callable[[], tuple[Columns, dict[str, float]]]:
    """What `go` does; what it needs is loaded, and our kernels are compiled, before."""
    if row == "reload":
        return lambda: (touch(folder), {})
    with tempfile.TemporaryDirectory() as name:
        for table, text in TINY.items():
            (Path(name) / f"{table}.csv").write_text(text)
        encode_ours(Path(name), Path(name) / "columns", 1) if row == "ours" else encode_seed(Path(name))
    if row == "seed":
        return lambda: (encode_seed(root), {})
    threads = len(os.sched_getaffinity(0))

    def ours() -> tuple[Columns, dict[str, float]]:
        columns, star_s = encode_ours(root, folder, threads)
        return columns, {"star_s": star_s}

    return ours


def main(argv: Sequence[str]) -> None:
    """Read until the lines end."""
    row, root, folder = argv[0], Path(argv[1]), Path(argv[2])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # what others print goes to standard error from now on
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    go, columns = prepare(row, root, folder), Columns()
    for line in sys.stdin:
        if line.strip() == "digest":
            named = columns if row == "seed" else dict(speak_pandas(Listens(folder), columns))
            found: dict[str, Any] = {"digests": digest(named)}
        else:
            columns = {}
            began = time.perf_counter()
            columns, more = go()
            found = {"seconds": time.perf_counter() - began, "peak_mib": peak_mib(), "columns": len(columns), **more}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1:])
