"""The unit of work an engine runs: a list of files → decode → log-mel → one shard."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.config import DataConfig, FeaturesConfig, PreprocessConfig
from parallel_tunes.data import index, shards
from parallel_tunes.parallel.engines import Advance, Engines, map_tasks
from parallel_tunes.schema import UserError, defaults, to_plain

# what a second of music usually takes: 16-bit mono at 22 050 Hz, or compressed
BYTES_PER_S = {".mp3": 16000, ".ogg": 14000, ".opus": 12000, ".flac": 50000}


@dataclass(frozen=True)
class ShardTask:
    """The files of one shard, in the index's order."""

    name: str
    key: str
    folder: Path
    root: Path
    rows: tuple[int, ...]
    paths: tuple[str, ...]
    features: FeaturesConfig
    max_bytes: int


def make_shard(task: ShardTask, advance: Advance) -> shards.Shard:
    """Decode and transform the files of a task, and write its shard; a file that fails is listed, not fatal."""
    arrays, tracks, failed = [], [], []
    offset = 0
    for row, path in zip(task.rows, task.paths, strict=True):
        try:
            clip = front_end.extract(task.root / path, task.features, max_bytes=task.max_bytes)
            digest = files.digest_file(task.root / path)
        except (AudioError, OSError) as error:
            failed.append(shards.Failure(path, str(error)))
        else:
            frames = np.ascontiguousarray(clip.log_mel.T)
            wide = frames.astype(np.float64)
            sums = float(wide.sum()), float((wide**2).sum())
            tracks.append(shards.Track(row, digest, clip.duration_s, offset, len(frames), *sums))
            arrays.append(frames)
            offset += len(frames)
        advance(1)
    return shards.write_shard(task.folder, task.name, task.key, arrays, tracks, failed)


@dataclass(frozen=True)
class PictureTask:
    """The tracks of one shard whose spectrograms are drawn."""

    folder: Path
    rows: tuple[int, ...]
    names: tuple[str, ...]


def draw_pictures(task: PictureTask, advance: Advance) -> None:
    """Write the spectrograms of some rows: magma, low frequencies at the bottom, a pixel a value."""
    import matplotlib.image

    features = shards.ShardSet(task.folder)
    for row, name in zip(task.rows, task.names, strict=True):
        target = task.folder / "spectrograms" / name
        made_ns = features.path(row).stat().st_mtime_ns
        if not target.exists() or target.stat().st_mtime_ns < made_ns:
            decibels = features.read(row).T.astype(np.float32)
            save = partial(matplotlib.image.imsave, arr=decibels, cmap="magma", origin="lower", format="png")
            files.write_file(target, save)
        advance(1)


def plan_pictures(folder: Path) -> list[PictureTask]:
    """A task a shard; <label>/<track>.png, or the whole path in the name where two tracks would share it."""
    table = shards.ShardSet(folder).index
    labels = table["label"].str.replace("/", "_").str.lstrip(".")
    short = labels + "/" + table["path"].map(lambda path: Path(path).stem)
    whole = labels + "/" + table["path"].str.replace("/", "_")
    names = short.where(~short.duplicated(keep=False), whole) + ".png"
    parts = table.groupby("shard").indices.values()
    return [PictureTask(folder, tuple(map(int, rows)), tuple(names.iloc[rows])) for rows in parts]


def plan(
    tracks: pd.DataFrame, folder: Path, root: Path, data: DataConfig, features: FeaturesConfig, cfg: PreprocessConfig
) -> list[ShardTask]:
    """Cut the index, in its order, into shards of about `cfg.shard_mib`; it depends on nothing but the index."""
    sizes = estimate_bytes(tracks, features)
    shard_bytes = cfg.shard_mib * 2**20 if cfg.shard_mib else np.clip(sizes.sum() / 64, 4 << 20, 256 << 20)
    numbers = ((np.cumsum(sizes) - sizes / 2) // shard_bytes).astype(int)
    tasks = []
    for part, (_, rows) in enumerate(tracks.groupby(numbers)):
        seen = [list(row) for row in rows[["path", "bytes", "mtime_ns"]].itertuples(index=True)]
        key = files.digest_json(
            {"fingerprint": front_end.fingerprint(features), "tracks": seen, "max_mib": data.max_mib}
        )
        paths = tuple(rows["path"])
        tasks.append(
            ShardTask(f"shard-{part:05d}", key, folder, root, tuple(rows.index), paths, features, data.max_mib << 20)
        )
    return tasks


def estimate_bytes(tracks: pd.DataFrame, features: FeaturesConfig) -> NDArray[np.float64]:
    """About how many bytes of features each file will give, from its size and kind alone, shape (num_tracks,)."""
    endings = [Path(path).suffix.lower() for path in tracks["path"]]
    bytes_per_s = np.array([BYTES_PER_S.get(ending, 44100) for ending in endings])
    seconds = np.clip(tracks["bytes"].to_numpy() / bytes_per_s, features.min_s, features.clip_s or np.inf)
    return np.asarray(seconds * features.sample_rate_hz / features.hop_length * features.num_mels * 2, np.float64)


def make_shards(
    data: DataConfig, features: FeaturesConfig, cfg: PreprocessConfig, *, folder: Path, engines: Engines,
    progress: Callable[[str, int], Any], say: Callable[[str], None], share: tuple[int, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Index a data set and make the shards that are missing in `folder`.

    Args:
        progress: called with a title and a number of units; gives a context manager with `update(n)`.
        say: takes lines for people.
        share: which share of the shards is made here, of how many; others make the others, and one merges them all. By
            default all are made and merged.

    Returns:
        `num_computed`, how many tracks this call computed, `num_missing`, how many shards others have still to make,
        and, where they are merged, the manifest.

    Raises:
        UserError: there is no data, or none of it gives features, or the disk is full.
    """
    front_end.check(features)
    tracks, root = index.scan(data)
    tasks = plan(tracks, folder, root, data, features, cfg)
    finished = {task.name: shard for task in tasks if (shard := shards.read_shard(folder, task.name, task.key))}
    mine = tasks[share[0] :: share[1]] if share else tasks
    todo = [task for task in mine if task.name not in finished]
    num_mine, num_todo = (sum(len(task.paths) for task in some) for some in (mine, todo))
    part = f"; share {share[0] + 1} of {share[1]} has {num_mine}" if share else ""
    say(
        f"{len(tracks)} tracks, {tracks['label'].nunique()} labels in {root}{part}; {num_mine - num_todo} done before, {num_todo} to do"
    )
    if not share:
        _clear(folder, tasks)
    try:
        with progress("preprocess", num_todo) as bar:
            for shard in map_tasks(make_shard, todo, engines=engines, advance=bar.update):
                finished[shard.name] = shard
        if share:
            missing = [task for task in tasks if shards.read_shard(folder, task.name, task.key) is None]
            return {"num_computed": num_todo, "num_missing": len(missing)}
        manifest = _merge(folder, [finished[task.name] for task in tasks], tracks, root, data, features)
    except OSError as error:
        raise UserError(
            f"{folder}: {files.explain(error)}; what is finished stays, the same command goes on from there"
        ) from error
    finally:
        files.remove_partials(folder, {f"{task.name}{ending}" for task in todo for ending in (".npy", ".json")})
    if cfg.pictures:
        drawing = plan_pictures(folder)
        with progress("pictures", manifest["num_tracks"]) as bar:
            for _ in map_tasks(draw_pictures, drawing, engines=engines, advance=bar.update):
                pass
    return {**manifest, "num_computed": num_todo, "num_missing": 0}


def _clear(folder: Path, tasks: list[ShardTask]) -> None:
    """Remove the shards of another plan, and the manifest until it is true again."""
    known = {folder / f"{task.name}{ending}" for task in tasks for ending in (".npy", ".json")}
    for stale in set(folder.glob("shard-*.*")) - known:
        stale.unlink()
    (folder / "manifest.json").unlink(missing_ok=True)


def _merge(
    folder: Path, made: list[shards.Shard], tracks: pd.DataFrame, root: Path, data: DataConfig, features: FeaturesConfig
) -> dict[str, Any]:
    """Index and manifest of finished shards."""
    if not any(shard.tracks for shard in made):
        first = next(failure for shard in made for failure in shard.failed)
        raise UserError(f"none of the {len(tracks)} files gives features; the first, {first.path}: {first.reason}")
    facts = {
        "root": str(root.resolve()),
        "listing": index.listing_digest(tracks),
        "features": to_plain(features),
        "fingerprint": front_end.fingerprint(features),
        "max_mib": data.max_mib,
    }
    return shards.write_manifest(folder, made, tracks, facts)


def find_shards(data: DataConfig, features: FeaturesConfig, under: Path, *, may_make: bool) -> Path | None:
    """The folder of finished shards of this data and front end: `data.shards`, or one found in `under`.

    Raises:
        UserError: `data.shards` were made with other features, or none are found and none may be made.
    """
    if data.shards is not None:
        there, here = shards.ShardSet(data.shards).manifest["features"], to_plain(features)
        differing = [
            f"features.{name} is {there.get(name)} there, {here[name]} here"
            for name in here
            if there.get(name) != here[name]
        ]
        if differing:
            raise UserError(f"data.shards={data.shards}: made with another front end ({'; '.join(differing)})")
        return data.shards
    tracks, _ = index.scan(data)
    wanted = (front_end.fingerprint(features), index.listing_digest(tracks), data.max_mib)
    for path in sorted(under.glob("*/manifest.json")):
        manifest = shards.read_manifest(path.parent)
        if manifest and (manifest["fingerprint"], manifest["listing"], manifest["max_mib"]) == wanted:
            return path.parent
    if may_make:
        return None
    changed = [
        f"features.{name}={value}"
        for name, value in to_plain(features).items()
        if value != defaults("features", features.kind)[name]
    ]
    command = " ".join(["ptunes preprocess", f"data={data.kind}", shlex.quote(f"data.root={data.root}"), *changed])
    raise UserError(f"no shards for this data and front end under {under}: run `{command}` first, or give data.shards")


def name_shards(data: DataConfig, features: FeaturesConfig) -> str:
    """A run name for the shards that `train` makes by itself."""
    tracks, _ = index.scan(data)
    return f"auto-{front_end.fingerprint(features)[:8]}-{index.listing_digest(tracks)[:8]}"
