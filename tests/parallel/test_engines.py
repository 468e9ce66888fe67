from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes import write_bad, write_tree

from parallel_tunes import preprocess, schema, shard_work
from parallel_tunes.config import DataConfig, FeaturesConfig, PreprocessConfig
from parallel_tunes.data import index
from parallel_tunes.parallel.engines import Engines, map_tasks
from parallel_tunes.schema import UserError


def tasks(root: Path, folder: Path) -> list[shard_work.ShardTask]:
    values = {**schema.defaults("data", "folder"), "root": str(root)}
    data = schema.build(DataConfig, values)
    features = schema.build(FeaturesConfig, schema.defaults("features", "logmel"))
    small = schema.build(PreprocessConfig, {"shard_mib": 0.1, "pictures": False})
    folder.mkdir()
    tracks, _ = index.scan(data)
    return preprocess.plan(tracks, folder, root, data, features, small)


def test_engines_make_the_same_shards_as_the_serial_map_and_leave_nothing_running(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree")
    write_bad(tmp_path / "tree")
    told: list[int] = []
    serial = list(
        map_tasks(
            shard_work.make_shard, tasks(tmp_path / "tree", tmp_path / "a"), engines=Engines(0), advance=told.append
        )
    )
    assert len(serial) >= 3
    assert sum(told) == 20
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    home = Path.home() / ".ipython"
    had_home = home.exists()
    told.clear()
    shared = list(
        map_tasks(
            shard_work.make_shard, tasks(tmp_path / "tree", tmp_path / "b"), engines=Engines(2), advance=told.append
        )
    )
    assert sum(told) == 20
    for one in serial:
        other = next(shard for shard in shared if shard.name == one.name)
        assert (one.checksum, one.tracks, one.failed) == (other.checksum, other.tracks, other.failed)
        np.testing.assert_array_equal(
            np.load(tmp_path / "a" / f"{one.name}.npy"), np.load(tmp_path / "b" / f"{one.name}.npy")
        )
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and child.status() != "zombie"
    ]
    assert not left
    assert home.exists() == had_home


def test_an_error_on_an_engine_reaches_the_caller_and_stops_the_engines(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", num_tracks=1)
    broken = tasks(tmp_path / "tree", tmp_path / "a")
    (tmp_path / "a").rmdir()
    (tmp_path / "a").write_text("no folder")
    before = psutil.Process().children(recursive=True)
    with pytest.raises(UserError, match=r"an engine failed .*Error"):
        list(map_tasks(shard_work.make_shard, broken, engines=Engines(1), advance=lambda _: None))
    assert len([child for child in psutil.Process().children(recursive=True) if child.status() != "zombie"]) <= len(
        before
    )
    assert os.environ["IPYTHONDIR"].startswith("/")
