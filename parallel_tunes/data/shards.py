"""Features on disk: a few large .npy files, memory-mapped, each whole or absent, each with a checksum.

A shard is an array of shape (num_frames, num_mels), float16: its tracks one after the other in time, so that a crop of
a track is one contiguous read. Beside each shard, `shard-N.json` says what is in it; when all are there, they become
`index.parquet` (a row a track) and `manifest.json` (shapes, fingerprint, checksums, the failed files and why).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.schema import UserError

FORMAT = 1


@dataclass(frozen=True)
class Track:
    """One track inside a shard."""

    row: int  # in the scanned index
    hash: str
    duration_s: float
    offset: int  # first frame within the shard
    num_frames: int
    db_sum: float  # over all its values, for scalers fitted on any choice of tracks
    db_square_sum: float


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
    num_frames: int
    tracks: tuple[Track, ...]
    failed: tuple[Failure, ...]


def write_shard(
    folder: Path, name: str, key: str, arrays: list[NDArray[np.float16]], tracks: list[Track], failed: list[Failure]
) -> Shard:
    """Write one shard, arrays of shape (num_frames, num_mels) in order, and then its description."""
    frames = np.concatenate(arrays) if arrays else np.empty((0, 0), np.float16)
    path = folder / f"{name}.npy"
    files.write_file(path, lambda stream: np.save(stream, frames, allow_pickle=False))
    shard = Shard(name, key, files.digest_file(path), len(frames), tuple(tracks), tuple(failed))
    files.write_json(folder / f"{name}.json", asdict(shard))
    return shard


def read_shard(folder: Path, name: str, key: str) -> Shard | None:
    """The finished shard `name` if it is there and was made from what `key` names."""
    try:
        tree = json.loads((folder / f"{name}.json").read_text())
        frames = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)  # fails where the file is cut off
        if tree["key"] != key or len(frames) != tree["num_frames"]:
            return None
        tracks = tuple(Track(**track) for track in tree["tracks"])
        return Shard(
            name,
            key,
            tree["checksum"],
            tree["num_frames"],
            tracks,
            tuple(Failure(**failure) for failure in tree["failed"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_manifest(folder: Path, shards: list[Shard], tracks: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """Merge the shards' descriptions into index.parquet and manifest.json; `facts` go into the latter."""
    made = [{"shard": number, **asdict(track)} for number, shard in enumerate(shards) for track in shard.tracks]
    rows = pd.DataFrame(made, columns=["shard", *Track.__dataclass_fields__]).set_index("row")
    index = tracks.drop(columns=["mtime_ns"]).join(rows, how="inner").reset_index(drop=True)
    files.write_file(folder / "index.parquet", lambda stream: index.to_parquet(stream, index=False))
    manifest = {
        "format": FORMAT,
        **facts,
        "num_tracks": len(index),
        "audio_s": round(float(index["duration_s"].sum()), 3),
        "index_digest": index_digest(index),
        "shards": [
            {"file": f"{s.name}.npy", "num_frames": s.num_frames, "num_tracks": len(s.tracks), "checksum": s.checksum}
            for s in shards
        ],
        "failed": [asdict(failure) for shard in shards for failure in shard.failed],
    }
    files.write_json(folder / "manifest.json", manifest)
    return manifest


def index_digest(index: pd.DataFrame) -> str:
    """Names a data set by what it holds: paths, labels, groups, splits and content hashes."""
    columns = index[["path", "label", "group", "split", "hash"]].astype(object)
    return files.digest_json(columns.where(columns.notna(), None).values.tolist())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished preprocess folder; None where there is none that can be read."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


class ShardSet:
    """A finished preprocess folder: the index and random access to each track's frames.

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
            self.index = pd.read_parquet(folder / "index.parquet")
        except (OSError, ValueError) as error:
            raise UserError(f"data.shards={folder}: cannot be read ({error}); run the preprocess job again") from error
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"data.shards={folder}: written in another format; run the preprocess job again")
        if index_digest(self.index) != self.manifest["index_digest"]:
            raise UserError(
                f"data.shards={folder}: index.parquet is not the one its manifest names; run the preprocess job again"
            )
        self._arrays: list[NDArray[np.float16]] = []
        for shard in self.manifest["shards"]:
            try:
                array = np.load(folder / shard["file"], mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{folder / shard['file']}: missing or damaged ({error}); run the preprocess job again"
                ) from error
            if len(array) != shard["num_frames"] or array.dtype != np.float16:
                found = f"{len(array)} frames, not {shard['num_frames']}"
                raise UserError(f"{folder / shard['file']}: damaged, it holds {found}; run the preprocess job again")
            self._arrays.append(array)
        self._shard = self.index["shard"].to_numpy(np.int64)
        self._offset = self.index["offset"].to_numpy(np.int64)
        self.num_frames = self.index["num_frames"].to_numpy(np.int64)

    def path(self, row: int) -> Path:
        """The shard file that holds the track in row `row`."""
        return self.folder / str(self.manifest["shards"][self._shard[row]]["file"])

    def read(self, row: int, start: int = 0, num_frames: int | None = None) -> NDArray[np.float16]:
        """Frames of the track in row `row` of the index, shape (num_frames, num_mels), cut at the track's end."""
        stop = self.num_frames[row] if num_frames is None else min(start + num_frames, self.num_frames[row])
        offset = self._offset[row]
        frames: NDArray[np.float16] = self._arrays[self._shard[row]][offset + start : offset + stop]
        return frames
