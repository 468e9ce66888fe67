"""Who listened to what: KKBOX's tables as a star of memory-mapped columns, made once.

A stage of the making (rows, users, songs) is a few .npy files and a JSON file that names them, with a checksum of each and
the key of what they were made from: a second run makes only what is missing. manifest.json comes last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.data import listen_columns as columns
from parallel_tunes.data.listen_columns import Words
from parallel_tunes.data.listen_stages import IDS, TABLES_OF, Made, Workshop, make_rows, make_star
from parallel_tunes.data.listen_stages import LISTEN_COLUMNS as LISTEN_COLUMNS
from parallel_tunes.data.listen_tables import COLUMNS
from parallel_tunes.schema import UserError

FORMAT = 1
MANIFEST = "manifest.json"
Progress = Callable[[str, int, str], AbstractContextManager[Any]]  # as `Run.progress`
Facts = dict[str, Any]


def make_listens(
    root: Path,
    folder: Path,
    *,
    max_mib: int,
    max_rows: int,
    threads: int,
    progress: Progress,
    say: Callable[[str], object],
) -> Facts:
    """Read KKBOX's tables and write their columns, or what is missing of them, into `folder`.

    The result is the same for any number of threads, and whatever the tables are packed in.

    Args:
        root: a folder with train, members, songs and song_extra_info as .csv or .csv.gz; test may be there.
        max_mib: a table that is larger when unpacked is refused, and so are more listens than `max_rows`.
        progress: opens a bar, a step for each table; `say` is told in one line what was odd.

    Returns:
        The manifest: `digest` names the data; counts `num_…` of rows, users, songs and all that was odd.

    Raises:
        UserError: a table is missing or cannot be read, or the disk refuses.
    """
    paths = find_tables(root)
    prints = {name: fingerprint(path) for name, path in paths.items()}
    stages, writing = dict[str, Facts](), dict[str, Future[Facts]]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.remove_partials(folder)
        with (
            ThreadPoolExecutor(threads) as pool,
            ThreadPoolExecutor(1) as writer,  # the disk takes one stage while the next is read
            progress("tables", len(paths), " tables") as bar,
        ):
            shop = Workshop(paths, max_mib, max_rows, threads, pool, partial(bar.update, 1))
            ids: Words = {}
            for stage, names in TABLES_OF.items():
                used = {name: prints[name] for name in (*TABLES_OF["rows"], *names) if name in prints}
                key = files.digest_json({"format": FORMAT, "tables": used})  # users and songs are numbered by the rows
                facts = read_stage(folder, stage, key)
                if facts:
                    stages[stage] = facts
                    bar.update(sum(name in paths for name in names))
                    ids = ids or {name: read_words(folder, stage, facts, name) for name in IDS}
                else:
                    (folder / MANIFEST).unlink(missing_ok=True)  # it told of files that are now replaced
                    made = make_star(shop, stage, ids[stage.removesuffix("s")]) if ids else make_rows(shop)
                    ids = ids or made.words
                    writing[stage] = writer.submit(write_stage, folder, stage, key, made)
            stages |= {stage: written.result() for stage, written in writing.items()}
        manifest = describe(root, prints, stages)
        files.write_json(folder / MANIFEST, manifest)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({files.explain(error)})") from error
    if odd := tell_odd(manifest):
        say(f"{root}: taken as missing, or passed over: {odd}")
    return manifest


def find_tables(root: Path) -> dict[str, Path]:
    """The tables' files.

    Raises:
        UserError: one is missing, other than test.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder; give the one that holds KKBOX's train.csv, songs.csv …")
    endings = (".csv.gz", ".csv")  # the plain file where both are there
    found = {name: path for name in COLUMNS for ending in endings if (path := root / f"{name}{ending}").is_file()}
    packed = [f"{name}.csv.7z" for name in COLUMNS if name not in found and (root / f"{name}.csv.7z").is_file()]
    if packed:
        commands = " && ".join(f"7z x {name}" for name in packed)
        raise UserError(f"data.root={root}: .7z is not read; unpack the tables there: {commands}")
    lacking = [f"{name}.csv" for name in COLUMNS if name not in found and name != "test"]
    if lacking:
        raise UserError(f"data.root={root}: no {', '.join(lacking)}, nor packed as .csv.gz")
    return found


def fingerprint(path: Path) -> Facts:
    """What tells whether a file is still the one that was read."""
    status = path.stat()
    return {"file": path.name, "num_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def describe(root: Path, prints: dict[str, Facts], stages: dict[str, Facts]) -> Facts:
    """The manifest."""
    ordered = [stages[stage] for stage in TABLES_OF]
    checksums = {name: file["checksum"] for facts in ordered for name, file in facts["files"].items()}
    counts = {name: num for facts in ordered for name, num in facts["counts"].items()}
    return {
        "format": FORMAT,
        "root": str(root),
        "sources": prints,
        "digest": files.digest_json(checksums),
        **counts,
        "stages": {stage: stages[stage] for stage in TABLES_OF},
    }


def tell_odd(manifest: Facts) -> str:
    """The counts of rows that were there twice, and of cells that say nothing, in words."""
    odd = {name: num for name, num in manifest.items() if num and ("_odd_" in name or name.endswith("_twice"))}
    return ", ".join(f"{name.removeprefix('num_').replace('_', ' ')}: {num}" for name, num in odd.items())


def write_stage(folder: Path, stage: str, key: str, made: Made) -> Facts:
    """Write arrays, words and counts of a stage; its JSON file, which makes it one, is the last."""
    firsts, first, num_bytes = dict[str, list[int]](), 0, 0  # of each vocabulary: its first end, words, first byte
    ends, data = list[NDArray[Any]](), list[NDArray[Any]]()
    for name, words in made.words.items():
        _, places, buffer = words.buffers()
        ends.append(np.frombuffer(places, np.int32)[: len(words) + 1])
        data.append(np.frombuffer(buffer or b"", np.uint8)[: ends[-1][-1]])
        firsts[name] = [first, len(words), num_bytes]
        first, num_bytes = first + len(ends[-1]), num_bytes + len(data[-1])
    arrays = made.arrays | {"ends": np.concatenate(ends), "words": np.concatenate(data)}
    written = dict[str, Facts]()
    for name, array in arrays.items():
        path = folder / f"{stage}-{name}.npy"
        files.write_file(path, partial(np.save, arr=array, allow_pickle=False), is_last=False)
        written[path.name] = {"num_bytes": path.stat().st_size, "checksum": files.digest_file(path)}
    facts = {"key": key, "files": written, "vocabularies": firsts, "counts": made.counts}
    files.write_json(folder / f"{stage}.json", facts)
    return facts


def read_stage(folder: Path, stage: str, key: str) -> Facts | None:
    """A stage that is there, whole, and made from what `key` names."""
    try:
        facts: Facts = json.loads((folder / f"{stage}.json").read_text())
        if facts["key"] != key:
            return None
        whole = all(files.digest_file(folder / name) == file["checksum"] for name, file in facts["files"].items())
        return facts if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_words(folder: Path, stage: str, facts: Facts, name: str) -> pa.StringArray:
    """The words of a vocabulary, memory-mapped."""
    first, num, first_byte = facts["vocabularies"][name]
    ends = np.load(folder / f"{stage}-ends.npy", mmap_mode="r")[first : first + num + 1]
    data = np.load(folder / f"{stage}-words.npy", mmap_mode="r")[first_byte : first_byte + ends[-1]]
    return pa.StringArray.from_buffers(num, pa.py_buffer(ends), pa.py_buffer(data))


class Listens:
    """Columns that `make_listens` wrote, memory-mapped: rows in the order of train, which is time, and then of test.

    Codes: 0 is missing, words count from 1 in the order in which they first appear. They are identities and fitted to
    nothing.

    Attributes:
        num_rows, num_labelled: rows, and those of train.
        codes: of `LISTEN_COLUMNS`, each (num_rows,): of user and song int32, of the sources int16 where that is enough.
        target: (num_rows,) int8, 0 or 1, -1 for rows of test.
        songs, song_numbers: `SONG_COLUMNS` and `SONG_NUMBERS` of listen_columns, each (num_songs + 1,), by code of song.
        users, user_numbers: `USER_COLUMNS` and `USER_NUMBERS`, likewise; numbers are NaN where missing.
        song_cells, user_cells: codes of the tables' cells as they stand, by the names of the tables' columns.
        manifest: see `make_listens`.

    Raises:
        UserError: the folder is none that was finished, or a file of it is missing or has another size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest: Facts = json.loads((folder / MANIFEST).read_text())
            if self.manifest["format"] != FORMAT:
                raise UserError(f"{folder}: written in another format; make the columns again")
            for facts in self.manifest["stages"].values():
                for name, file in facts["files"].items():
                    if (folder / name).stat().st_size != file["num_bytes"]:
                        raise UserError(f"{folder / name}: damaged, it has another size; make the columns again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder}: no finished columns of listens ({error}); make them again") from error
        self.num_labelled = int(self.manifest["num_train_rows"])
        self.num_rows = self.num_labelled + int(self.manifest["num_test_rows"])
        self.codes = {name: self._load("rows", name) for name in LISTEN_COLUMNS}
        self.target: NDArray[np.int8] = self._load("rows", "target")
        self.songs = self._columns("songs", "codes", columns.SONG_COLUMNS)
        self.song_numbers = self._columns("songs", "numbers", columns.SONG_NUMBERS)
        self.song_cells = self._columns("songs", "cells", COLUMNS["songs"][1:] + COLUMNS["song_extra_info"][1:])
        self.users = self._columns("users", "codes", columns.USER_COLUMNS)
        self.user_numbers = self._columns("users", "numbers", columns.USER_NUMBERS)
        self.user_cells = self._columns("users", "cells", COLUMNS["members"][1:])

    def words(self, column: str) -> pa.StringArray:
        """The word of each code of a column of `codes`, `songs` or `users`; "" of 0, which is missing."""
        return self.cell_words(columns.WORDS_OF.get(column, column))

    def cell_words(self, column: str) -> pa.StringArray:
        """The cell that each code of a column of `song_cells` or `user_cells` stands for."""
        for stage, facts in self.manifest["stages"].items():
            if column in facts["vocabularies"]:
                return read_words(self.folder, stage, facts, column)
        raise KeyError(column)

    def _load(self, stage: str, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / f"{stage}-{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    def _columns(self, stage: str, name: str, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Columns that lie one after the other in one file."""
        return dict(zip(names, self._load(stage, name), strict=True))


def is_made(root: Path, folder: Path) -> bool:
    """Whether a folder holds the finished columns of these tables as they are now."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest["sources"] == {name: fingerprint(path) for name, path in find_tables(root).items()})
    except (OSError, ValueError, KeyError, TypeError):
        return False
