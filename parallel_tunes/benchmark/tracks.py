"""The tracks that training is measured on: noise as loud as music, in shards that a preprocess run might have made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes import files
from parallel_tunes.audio import front_end
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data.shards import Track, write_manifest, write_shard
from parallel_tunes.schema import build, defaults, to_plain

NUM_LABELS = 10
NUM_FRAMES = 431  # of a track to learn from: 10 s
WINDOW = 128  # frames of a crop
CROP_S = 2.972  # which are these, of 512 samples each at 22 050 Hz
MEAN_DB, DEVIATION_DB = -40.0, 12.0
SHARD = "shard-00000"


def count_tracks(batch: int) -> int:
    """Tracks to learn from: about a thousand, and a whole number of steps on up to 4 ranks of this batch each."""
    return 4 * batch * max(256 // batch, 1)


def write_tracks(folder: Path, batch: int, seed: int) -> None:
    """Shard, index and manifest; a few tracks of one window each, to judge by, follow those to learn from."""
    features: FeaturesConfig = build(FeaturesConfig, defaults("features", "logmel"), "features.")
    num = count_tracks(batch)
    names = ["train"] * num + ["valid"] * NUM_LABELS + ["test"] * NUM_LABELS
    lengths = [NUM_FRAMES if name == "train" else WINDOW for name in names]
    folder.mkdir(parents=True)

    def entries() -> Iterator[tuple[Track, list[NDArray[np.float16]]]]:
        for place, num_frames in enumerate(lengths):
            noise = np.random.default_rng([seed, place]).standard_normal((num_frames, features.num_mels), np.float32)
            levels = np.clip(MEAN_DB + DEVIATION_DB * noise, -features.top_db, 0).astype(np.float16)
            exact = levels.astype(np.float64)
            sums = float(exact.sum()), float((exact**2).sum()), float(levels.max())
            seconds = num_frames * features.hop_length / features.sample_rate_hz
            yield Track(place, f"{place:032x}", seconds, 0, 0, num_frames, *sums, gain=1.0, note=""), [levels]

    shard = write_shard(folder, SHARD, "benchmark", (features.num_mels,), np.float16, entries())
    table = pd.DataFrame(
        {
            "path": [f"{place:05d}.wav" for place in range(len(names))],
            "label": [f"label-{place % NUM_LABELS}" for place in range(len(names))],
            "group": None, "split": names, "bytes": 0, "mtime_ns": 0,
        }
    )  # fmt: skip
    print_of = front_end.fingerprint(features)
    facts = {"root": str(folder), "listing": "", "features": to_plain(features), "fingerprint": print_of, "max_mib": 0}
    write_manifest(folder, [(shard, range(len(names)))], table, facts)


def read_tracks(folder: Path) -> tuple[Tensor, Tensor]:
    """Those to learn from, in memory: dB, float16, (num_tracks, NUM_FRAMES, num_mels); and labels (num_tracks,), int64."""
    rows = np.load(folder / f"{SHARD}.npy", allow_pickle=False)
    index = pd.read_parquet(folder / "index.parquet", columns=["split"])
    num = int((index["split"] == "train").sum())
    tracks = rows[: num * NUM_FRAMES].reshape(num, NUM_FRAMES, rows.shape[1])
    return torch.from_numpy(tracks.copy()), torch.arange(num) % NUM_LABELS


def digest() -> str:
    """Names what these tracks are made like."""
    return files.digest_json([NUM_LABELS, NUM_FRAMES, WINDOW, MEAN_DB, DEVIATION_DB])
