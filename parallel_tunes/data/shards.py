"""Features on disk: a few large .npy files, memory-mapped, each whole or absent, each with a checksum.

A shard is an array of the tracks of one stretch of the index, one after the other in time, so that a crop of a track is
one contiguous read: float16 log-mel of shape (num_frames, num_mels), or int16 samples of shape (num_samples,); of
descriptors each track has one row, float64 of shape (57,). Beside each shard, a JSON file of its name says what is in it;
when all are there, they become `index.parquet` (a row a track) and `manifest.json` (shapes, fingerprint, checksums, the
failed files and why).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.schema import UserError

if TYPE_CHECKING:  # engines only write shards, and need not wait for pandas
    import pandas as pd

FORMAT = 3
WORDS = ("path", "label", "group", "split", "hash")  # what a data set is, in index.parquet


@dataclass(frozen=True)
class Track:
    """One track inside a shard."""

    place: int  # among the files of the shard
    hash: str
    duration_s: float
    offset: int  # first row within the shard
    num_rows: int  # of the shard: frames, or samples
    num_frames: int
    db_sum: float  # over all values of its log-mel, for scalers fitted on any choice of tracks
    db_square_sum: float
    highest_db: float
    gain: float  # factor on its samples, see front_end.Clip
    note: str  # what of the file was left out, "" where nothing was


@dataclass(frozen=True)
class Failure:
    """A file that gave no features."""

    path: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """What one shard file holds; `key` names what it was made from."""

    name: str
    key: str
    checksum: str
    num_rows: int
    num_bytes: int
    tracks: tuple[Track, ...]
    failed: tuple[Failure, ...]


Entry = Failure | tuple[Track, Iterable[NDArray[Any]]]


def write_shard(
    folder: Path, name: str, key: str, shape: tuple[int, ...], dtype: Any, entries: Iterator[Entry]
) -> Shard:
    """Write one shard, track by track as `entries` gives them, and then its description.

    Args:
        shape: of a row, () or (num_mels,) or (57,).
        entries: a failure, or a track (whose `offset` and `num_rows` are filled in here) and its rows, in pieces.
    """
    tracks, failed = list[Track](), list[Failure]()

    def write(stream: IO[bytes]) -> None:
        num_rows = 0
        _write_header(stream, 0, shape, dtype)
        for entry in entries:
            if isinstance(entry, Failure):
                failed.append(entry)
                continue
            track, pieces = entry
            offset = num_rows
            for piece in pieces:
                stream.write(np.ascontiguousarray(piece, dtype).data)
                num_rows += len(piece)
            tracks.append(replace(track, offset=offset, num_rows=num_rows - offset))
        stream.seek(0)
        _write_header(stream, num_rows, shape, dtype)

    path = folder / f"{name}.npy"
    files.write_file(path, write, is_last=False)
    num_rows = sum(track.num_rows for track in tracks)
    shard = Shard(
        name, key, files.digest_file(path), num_rows, path.stat().st_size, tuple(tracks), tuple(failed)
    )  # fmt: skip
    description = {**vars(shard), "tracks": [vars(each) for each in tracks], "failed": [vars(each) for each in failed]}
    files.write_json(folder / f"{name}.json", description)
    return shard


def _write_header(stream: IO[bytes], num_rows: int, shape: tuple[int, ...], dtype: Any) -> None:
    """The header of a .npy file, which numpy pads so that it keeps its length whatever `num_rows` is."""
    facts = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (num_rows, *shape),
    }
    np.lib.format.write_array_header_1_0(stream, facts)


def read_shard(folder: Path, name: str, key: str) -> Shard | None:
    """The finished shard `name` if it is there, whole, and was made from what `key` names."""
    try:
        tree = json.loads((folder / f"{name}.json").read_text())
        if tree["key"] != key or (folder / f"{name}.npy").stat().st_size != tree["num_bytes"]:
            return None
        tree["tracks"] = tuple(Track(**track) for track in tree["tracks"])
        tree["failed"] = tuple(Failure(**failure) for failure in tree["failed"])
        return Shard(**tree)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_manifest(
    folder: Path, made: Sequence[tuple[Shard, Iterable[int]]], tracks: pd.DataFrame, facts: dict[str, Any]
) -> dict[str, Any]:
    """Merge the shards' descriptions into index.parquet and manifest.json.

    Args:
        made: each shard, and which rows of `tracks` its files are.
        tracks: all files, as `index.scan` gives them.
        facts: go into the manifest.
    """
    import pandas as pd

    merged = [
        {"row": row, "shard": number, **vars(track)}
        for number, (shard, rows) in enumerate(made)
        for row, track in _at(rows, shard.tracks)
    ]
    found = pd.DataFrame(merged, columns=["row", "shard", *Track.__dataclass_fields__]).set_index("row")
    index = (
        tracks.drop(columns=["bytes", "mtime_ns"]).join(found.drop(columns="place"), how="inner").reset_index(drop=True)
    )
    index["path"] = index["path"].map(files.escape)  # a name may be no text
    files.write_file(folder / "index.parquet", lambda stream: index.to_parquet(stream, index=False))
    manifest = {
        "format": FORMAT,
        **facts,
        "num_tracks": len(index),
        "audio_s": round(float(index["duration_s"].sum()), 3),
        "index_digest": index_digest(index),
        "index_checksum": files.digest_file(folder / "index.parquet"),
        "shards": [
            {"file": f"{s.name}.npy", "num_rows": s.num_rows, "num_bytes": s.num_bytes, "num_tracks": len(s.tracks), "checksum": s.checksum}
            for s, _ in made
        ],
        "failed": [
            {"path": files.escape(bad.path), "reason": bad.reason} for shard, _ in made for bad in shard.failed
        ],
        "notes": [{"path": row.path, "note": row.note} for row in index[index["note"] != ""].itertuples()],
    }  # fmt: skip
    files.write_json(folder / "manifest.json", manifest)
    return manifest


def _at(rows: Iterable[int], tracks: Iterable[Track]) -> Iterator[tuple[int, Track]]:
    numbers = list(rows)
    return ((numbers[track.place], track) for track in tracks)


def index_digest(index: pd.DataFrame) -> str:
    """Names a data set by what it holds: paths, labels, groups, splits and content hashes."""
    columns = ["\x1f".join(index[name].astype(object).where(index[name].notna(), "\x00").tolist()) for name in WORDS]
    return files.digest_bytes("\x1e".join(columns).encode(errors="surrogateescape"))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished preprocess folder; None where there is none that can be read."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _read_index(path: Path) -> pd.DataFrame:
    """The table, column by column: pandas' own way takes twice the memory while it reads."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, memory_map=True)
    index: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    pyarrow.default_memory_pool().release_unused()
    return index


class ShardSet:
    """A finished preprocess folder: the index and random access to each track's rows.

    Shards are opened when they are first read, so that a set of a million tracks opens in a second.

    Raises:
        UserError: the folder is no such thing, is unfinished, or a shard is missing or has another size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("manifest.json", "index.parquet"):
            if not (folder / name).is_file():
                raise UserError(
                    f"data.shards={folder}: no finished preprocess run (no {name}); run the preprocess job again"
                )
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
            if self.manifest.get("format") != FORMAT:
                raise UserError(f"data.shards={folder}: written in another format; run the preprocess job again")
            if files.digest_file(folder / "index.parquet") != self.manifest["index_checksum"]:
                raise UserError(
                    f"data.shards={folder}: index.parquet is not the one its manifest names; run the preprocess job again"
                )
            index = _read_index(folder / "index.parquet")
            sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".npy")}
        except (OSError, ValueError) as error:
            raise UserError(f"data.shards={folder}: cannot be read ({error}); run the preprocess job again") from error
        for shard in self.manifest["shards"]:
            if sizes.get(shard["file"]) != shard["num_bytes"]:
                found = (
                    f"{sizes[shard['file']]} bytes, not {shard['num_bytes']}" if shard["file"] in sizes else "missing"
                )
                raise UserError(f"{folder / shard['file']}: missing or damaged ({found}); run the preprocess job again")
        self._find_by(index)

    def _find_by(self, index: pd.DataFrame) -> None:
        """Rows are those of this index, whose offsets are into the shards."""
        self.index = index
        self._arrays: dict[int, NDArray[Any]] = {}
        self._shard = index["shard"].to_numpy(np.int64)
        self._offset = index["offset"].to_numpy(np.int64)
        self.num_frames = index["num_frames"].to_numpy(np.int64)
        self.num_rows = index["num_rows"].to_numpy(np.int64)

    def verify(self, advance: Callable[[int], object]) -> None:
        """Read every shard and compare its checksum; `advance` is told of each.

        Raises:
            UserError: one differs.
        """
        for shard in self.manifest["shards"]:
            if files.digest_file(self.folder / shard["file"]) != shard["checksum"]:
                raise UserError(
                    f"{self.folder / shard['file']}: damaged, it has another checksum; delete it and run the preprocess job again"
                )
            advance(1)

    def recall(self, name: str) -> dict[str, Any] | None:
        """What `keep` has kept beside the shards under a name, if it is there."""
        try:
            kept = json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return kept if isinstance(kept, dict) else None

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Keep what was found out about the tracks; not, where the folder cannot be written to."""
        with contextlib.suppress(OSError):
            files.write_json(self.folder / f"{name}.json", value)

    def path(self, row: int) -> Path:
        """The shard file that holds the track in row `row`."""
        return self.folder / str(self.manifest["shards"][self._shard[row]]["file"])

    def read(self, row: int, start: int = 0, num_rows: int | None = None) -> NDArray[Any]:
        """What the track in row `row` of the index has: frames, samples, or one row of descriptors, shape (num_rows, …).

        Args:
            start: first frame or sample; `num_rows`: how many, cut at the track's end; by default all.
        """
        number = int(self._shard[row])
        if number not in self._arrays:
            self._arrays[number] = np.load(self.path(row), mmap_mode="r", allow_pickle=False)
        stop = self.num_rows[row] if num_rows is None else min(start + num_rows, self.num_rows[row])
        offset = self._offset[row]
        return self._arrays[number][offset + start : offset + stop]
