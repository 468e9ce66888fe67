"""The descriptors of a preprocess run as a table, of the columns that GTZAN's has: to be looked at, and to be learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.data.tables import Source, Table
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.schema import UserError

TABLE = "descriptors.csv"


def write(folder: Path) -> None:
    """Write descriptors.csv into a finished run: filename, length in samples, the 57 columns and the label, a row a track.

    A track is called by its file's name, or by its whole path where any two files share a name.
    """
    found = ShardSet(folder)
    paths = found.index["path"]
    names = paths.str.rpartition("/")[2]
    features = found.manifest["features"]
    lengths = np.rint(found.index["duration_s"].to_numpy(np.float64) * features["sample_rate_hz"])
    if features["clip_s"] is not None:
        lengths = np.minimum(lengths, np.ceil(features["clip_s"] * features["sample_rate_hz"]))
    table = pd.DataFrame(_matrix(found), columns=list(NAMES))
    table.insert(0, "filename", paths if names.duplicated().any() else names)
    table.insert(1, "length", lengths.astype(np.int64))
    table["label"] = found.index["label"]
    files.write_text(folder / TABLE, table.to_csv(index=False))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a preprocess run, finished or not."""
    return (folder / "manifest.json").is_file() or (folder / "plan.json").is_file()


def read(folder: Path) -> Table:
    """A finished run as a table: the columns id (the path), label, split and the 57; artist too, where groups are known.

    Raises:
        UserError: it is unfinished or damaged, or holds no descriptors.
    """
    found = ShardSet(folder)
    kind = found.manifest["features"]["kind"]
    if kind != "descriptors":
        raise UserError(f"{folder}: holds features={kind}; make descriptors: ptunes preprocess features=descriptors …")
    frame = pd.DataFrame(_matrix(found), columns=list(NAMES))
    index = found.index
    frame.insert(0, "id", index["path"])
    for name in ("label", "split"):
        frame[name] = index[name].where(index[name].notna(), "")
    if index["group"].notna().any():
        frame["artist"] = index["group"].where(index["group"].notna(), index["path"])
    return Table(frame, [Source(folder / "index.parquet", len(frame), True)])


def _matrix(found: ShardSet) -> NDArray[np.float64]:
    """The descriptors, shape (num_tracks, 57), in the order of the index."""
    rows: list[NDArray[Any]] = [found.read(row)[0] for row in range(len(found.index))]
    return np.array(rows, np.float64).reshape(len(rows), len(NAMES))
