"""Preprocessing: a data set is indexed, cut into shards, and what is missing of them is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio import front_end, pictures
from parallel_tunes.config import DataConfig, FeaturesConfig, PreprocessConfig
from parallel_tunes.config_run import ParallelConfig
from parallel_tunes.data import descriptor_tables, estimates, index, partition, shards
from parallel_tunes.parallel.dispatch import Advance, Cluster, Result, Task, Work
from parallel_tunes.parallel.engines import Engines, choose, map_tasks, start_beside
from parallel_tunes.schema import UserError, to_plain
from parallel_tunes.shard_work import PictureTask, ShardTask, draw_pictures, get_ready, make_shard

READY = f"{get_ready.__module__}:{get_ready.__name__}"
PLAN = "plan.json"  # the size of shards that a folder was begun with


def look(
    data: DataConfig, features: FeaturesConfig, say: index.Say = lambda _: None
) -> tuple[pd.DataFrame, Path, FeaturesConfig]:
    """The tracks of a data set, their folder, and the features that are made of them: audio or pictures, as they are.

    Args:
        say: takes lines for people: what else lies there.

    Raises:
        UserError: there is no data, or settings contradict each other or it.
    """
    tracks, root = index.scan(data, say)
    if index.holds_pictures(tracks):
        features = pictures.settle(features, [root / path for path in tracks["path"]], max_bytes=data.max_mib << 20)
    elif features.kind == "picture":
        raise UserError(f"data.root={data.root}: holds audio, where spectrogram pictures are wanted (.jpg .jpeg .png)")
    front_end.check(features)
    return tracks, root, features


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
    """Cut the index, in its order, into shards; it depends on nothing but the index and the size that was begun with."""
    if cfg.pictures and features.kind == "descriptors":
        raise UserError(
            "preprocess.pictures=true: features=descriptors are 57 numbers a track, of which no picture is drawn"
        )
    paths, sizes = tracks["path"].tolist(), estimates.find_bytes(tracks, features)
    facts = {"fingerprint": front_end.fingerprint(features), "kind": features.kind, "max_mib": data.max_mib}
    seen = list(zip(paths, tracks["bytes"].tolist(), tracks["mtime_ns"].tolist(), strict=True))
    tasks = []
    for rows in partition.cut(paths, sizes, shard_bytes(folder, float(sizes.sum()), cfg)):
        key = files.digest_json({**facts, "tracks": seen[rows.start : rows.stop]})
        task = ShardTask(
            name=f"shard-{key[:16]}", key=key, folder=folder, root=root, features=features, max_bytes=data.max_mib << 20,
            rows=tuple(rows), paths=tuple(paths[rows.start : rows.stop]),
        )  # fmt: skip
        tasks.append(task)
    return tasks


def shard_bytes(folder: Path, total_bytes: float, cfg: PreprocessConfig) -> float:
    """The size of shards: as given, or as the folder was begun with, so that more files do not move every cut."""
    if cfg.shard_mib:
        return cfg.shard_mib * 2**20
    try:
        return float(json.loads((folder / PLAN).read_text())["shard_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        chosen = partition.choose_size(total_bytes)
        files.write_json(folder / PLAN, {"shard_bytes": chosen})
        return float(chosen)


def make_shards(
    data: DataConfig, features: FeaturesConfig, cfg: PreprocessConfig, parallel: ParallelConfig, *, folder: Path,
    progress: Callable[[str, int], Any], say: Callable[[str], None], share: tuple[int, int] | None = None,
    cluster: Cluster | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Index a data set and make the shards that are missing in `folder`.

    Args:
        progress: called with a title and a number of units; gives a context manager with `update(n)`.
        say: takes lines for people.
        share: which share of the shards is made here, of how many; others make the others, and one merges them all. By
            default all are made and merged.
        cluster: of the engines that `parallel` asks for, if they run already.

    Returns:
        `num_computed`, how many tracks this call computed, `num_missing`, how many shards others have still to make,
        `engines`, how it was done, and, where they are merged, the manifest.

    Raises:
        UserError: there is no data, or none of it gives features, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fixed = parallel.engines != "auto"
    asked = Engines(int(parallel.engines), parallel.launcher, folder, ready=READY) if fixed else None
    looking = partial(look, data, features, say)
    with start_beside(None if cluster else asked, looking) as ((tracks, root, features), started):
        tasks = plan(tracks, folder, root, data, features, cfg)
        finished = {task.name: shard for task in tasks if (shard := shards.read_shard(folder, task.name, task.key))}
        todo = [task for task in (tasks[share[0] :: share[1]] if share else tasks) if task.name not in finished]
        num_todo = sum(task.num_units for task in todo)
        say(f"{describe(tracks, root, tasks, share, features)}; {num_todo} to do")
        work_s = sort_by_cost(todo, estimates.find_costs(tracks, features))
        engines = asked or choose(parallel.launcher, folder, work_s, len(todo), say)

        def run(work: Work[Task, Result], some: Sequence[Task], advance: Advance) -> Iterator[Result]:
            return map_tasks(work, some, engines=engines, advance=advance, say=say, cluster=cluster or started)

        try:
            with progress("preprocess", num_todo) as bar:
                for shard in run(make_shard, todo, bar.update):
                    finished[shard.name] = shard
            how = {"engines": engines.num, "threads": engines.threads, "num_computed": num_todo}
            if share:
                missing = [task for task in tasks if shards.read_shard(folder, task.name, task.key) is None]
                return {**how, "num_missing": len(missing)}
            made = [(finished[task.name], task.rows) for task in tasks]
            manifest = _merge(folder, made, tracks, root, data, features)
            _clear(folder, tasks)
        except OSError as error:
            raise UserError(
                f"{folder}: {files.explain(error)}; what is finished stays, the same command goes on from there"
            ) from error
        finally:
            files.remove_partials(folder, {f"{task.name}{ending}" for task in todo for ending in (".npy", ".json")})
        if cfg.pictures:
            with progress("pictures", manifest["num_tracks"]) as bar:
                for _ in run(draw_pictures, plan_pictures(folder), bar.update):
                    pass
        return {**manifest, **how, "num_missing": 0}


def sort_by_cost(tasks: list[ShardTask], costs: NDArray[np.float64]) -> float:
    """Put the largest tasks first, so that all end together; what all of them cost."""
    cost_of = {task.name: float(costs[list(task.rows)].sum()) for task in tasks}
    tasks.sort(key=lambda task: -cost_of[task.name])
    return sum(cost_of.values())


def describe(
    tracks: pd.DataFrame, root: Path, tasks: list[ShardTask], share: tuple[int, int] | None, features: FeaturesConfig
) -> str:
    """What was found, and how much of it is this share."""
    found = f"{len(tracks)} tracks, {tracks['label'].nunique()} labels in {root}; {len(tasks)} shards"
    found += f"; {pictures.describe(features)}" if features.kind == "picture" else ""
    if share is None:
        return found
    num_mine = sum(task.num_units for task in tasks[share[0] :: share[1]])
    return f"{found}; share {share[0]} of {share[1]} has {num_mine} tracks"


def _clear(folder: Path, tasks: list[ShardTask]) -> None:
    """Remove the shards of another plan, now that no manifest names them."""
    known = {folder / f"{task.name}{ending}" for task in tasks for ending in (".npy", ".json")}
    for stale in set(folder.glob("shard-*.*")) - known:
        stale.unlink()


def _merge(
    folder: Path,
    made: list[tuple[shards.Shard, tuple[int, ...]]],
    tracks: pd.DataFrame,
    root: Path,
    data: DataConfig,
    features: FeaturesConfig,
) -> dict[str, Any]:
    """Index and manifest of finished shards."""
    if not any(shard.tracks for shard, _ in made):
        first = next(failure for shard, _ in made for failure in shard.failed)
        raise UserError(f"none of the {len(tracks)} files gives features; the first, {first.path}: {first.reason}")
    facts = {
        "root": str(root.resolve()),
        "listing": index.listing_digest(tracks),
        "features": to_plain(features),
        "fingerprint": front_end.fingerprint(features),
        "max_mib": data.max_mib,
    }
    manifest = shards.write_manifest(folder, made, tracks, facts)
    if features.kind == "descriptors":
        descriptor_tables.write(folder)
    return manifest


def find_shards(data: DataConfig, features: FeaturesConfig, under: Path) -> Path | None:
    """The folder of finished shards of this data and front end: `data.shards`, or one found in `under`.

    Raises:
        UserError: `data.shards` were made with other features.
    """
    if data.shards is not None:
        differing = front_end.compare(shards.ShardSet(data.shards).manifest["features"], to_plain(features))
        if differing:
            raise UserError(f"data.shards={data.shards}: made with another front end ({'; '.join(differing)})")
        return data.shards
    tracks, _, settled = look(data, features)
    wanted = (front_end.fingerprint(settled), settled.kind, index.listing_digest(tracks), data.max_mib)
    for path in sorted(under.glob("*/manifest.json")):
        manifest = shards.read_manifest(path.parent)
        if manifest:
            found = (manifest["fingerprint"], manifest["features"]["kind"], manifest["listing"], manifest["max_mib"])
            if found == wanted:
                return path.parent
    return None


def name_shards(data: DataConfig, features: FeaturesConfig) -> str:
    """A run name for the shards that `train` makes by itself."""
    tracks, _, features = look(data, features)
    kind = "" if features.kind == "logmel" else f"{features.kind}-"
    return f"auto-{kind}{front_end.fingerprint(features)[:8]}-{index.listing_digest(tracks)[:8]}"
