"""The unit of work an engine runs: a list of files → decode → log-mel or descriptors → one shard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError, to_float
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data import shards
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.parallel.dispatch import LEFT_OUT, Advance, FileTask
from parallel_tunes.schema import UserError

ROWS: dict[str, tuple[tuple[int, ...], Any]] = {"waveform": ((), np.int16), "descriptors": ((len(NAMES),), np.float64)}
AHEAD = 4  # files that are fetched before they are wanted


@dataclass(frozen=True, kw_only=True)
class ShardTask(FileTask):
    """The files of one shard, in the index's order.

    Args:
        rows: of the index.
    """

    name: str
    key: str
    folder: Path
    root: Path
    rows: tuple[int, ...]
    features: FeaturesConfig
    max_bytes: int


def get_ready() -> None:
    """Load the compiled kernel, which takes a third of a second."""
    log_mel(np.zeros(1, np.int16), sample_rate_hz=22050)


def make_shard(task: ShardTask, advance: Advance) -> shards.Shard:
    """Decode and transform the files of a task, and write its shard; a file that fails is listed, not fatal."""
    features = task.features
    is_wave = features.kind == "waveform"
    shape, dtype = ROWS.get(features.kind, ((features.num_mels,), np.float16))

    def extract(path: str) -> front_end.Clip | shards.Failure:
        if path in task.quarantined:
            return shards.Failure(path, LEFT_OUT)
        try:
            return front_end.extract(task.root / path, features, max_bytes=task.max_bytes)
        except AudioError as error:
            return shards.Failure(path, str(error))

    def entries() -> Iterator[shards.Entry]:
        for path in task.paths[:AHEAD]:
            announce(task.root / path)
        for place, path in enumerate(task.paths):
            for later in task.paths[place + AHEAD : place + AHEAD + 1]:
                announce(task.root / later)
            clip = extract(path)
            if isinstance(clip, shards.Failure):
                yield clip
            else:
                sums = clip.db_sum, clip.db_square_sum, clip.highest_db, clip.gain, clip.source.note
                track = shards.Track(place, clip.source.hash, clip.source.duration_s, 0, 0, len(clip.frames), *sums)
                yield track, front_end.waveform(clip.source, features) if is_wave else [clip.frames]
            advance(1)

    try:
        return shards.write_shard(task.folder, task.name, task.key, shape, dtype, entries())
    except AudioError as error:  # of a long waveform, while it was copied: half of it is written
        raise UserError(
            f"{task.name}: a file changed while it was read ({error}); give the same command again"
        ) from error


def announce(path: Path) -> None:
    """Let the system fetch a file into memory, without waiting for it: decoding, which comes later, need not wait then."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not every system can
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class PictureTask:
    """The tracks of one shard whose spectrograms are drawn."""

    folder: Path
    rows: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def num_units(self) -> int:
        """Of progress: pictures."""
        return len(self.rows)

    def after_death(self, suspects: list[str], unit: int) -> tuple[PictureTask, list[str]]:
        """The same again."""
        del unit
        return self, suspects


def read_levels(source: shards.ShardSet, row: int, most: int | None = None) -> NDArray[np.float32]:
    """The log-mel spectrogram of a track, or its first `most` frames, shape (num_mels, num_frames), dB, of shards of either kind."""
    features, track = front_end.restore(source.manifest["features"]), source.index.iloc[row]
    num_frames = int(track["num_frames"]) if most is None else min(most, int(track["num_frames"]))
    if features.kind != "waveform":
        return np.asarray(source.read(row, 0, num_frames).T, np.float32)
    definition = front_end.definition(features)
    num_samples = (num_frames - 1) * definition.hop_length + definition.n_fft  # all that the last frame reaches
    samples = to_float(source.read(row, 0, num_samples)) * np.float32(track["gain"])
    samples = np.pad(samples, (0, num_samples - samples.size))
    levels = log_mel(samples, **{**asdict(definition), "top_db": None})[:, :num_frames]
    return np.maximum(levels, np.float32(track["highest_db"]) - np.float32(features.top_db))


def draw_pictures(task: PictureTask, advance: Advance) -> None:
    """Write the spectrograms of some rows: magma, low frequencies at the bottom, a pixel a value."""
    import matplotlib.image

    features = shards.ShardSet(task.folder)
    for row, name in zip(task.rows, task.names, strict=True):
        target = task.folder / "spectrograms" / name
        made_ns = features.path(row).stat().st_mtime_ns
        if not target.exists() or target.stat().st_mtime_ns < made_ns:
            save = partial(
                matplotlib.image.imsave, arr=read_levels(features, row), cmap="magma", origin="lower", format="png"
            )
            files.write_file(target, save)
        advance(1)
