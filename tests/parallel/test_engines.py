from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes import PATIENCE_S, write_bad, write_tree

from parallel_tunes import preprocess, schema, shard_work
from parallel_tunes.config import DataConfig, FeaturesConfig, PreprocessConfig
from parallel_tunes.data import index
from parallel_tunes.parallel.engines import Engines, choose, map_tasks, start_cluster
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


def test_connections_are_private_and_on_loopback() -> None:
    """Files that hold addresses and keys are this user's alone; controller and engines listen on loopback only."""
    with start_cluster(Engines(1)) as cluster:
        cluster.client.wait_for_engines(1, timeout=PATIENCE_S)
        keys = [path for path in cluster.folder.rglob("*") if path.is_file() and '"key"' in path.read_text()]
        assert len(keys) == 2
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
        assert stat.S_IMODE(cluster.folder.stat().st_mode) == 0o700
        family = {child.pid for child in psutil.Process().children(recursive=True)} | {os.getpid()}
        listening = [
            str(next(iter(connection.laddr)))
            for connection in psutil.net_connections("inet")
            if connection.pid in family and connection.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert all(ipaddress.ip_address(address).is_loopback for address in listening)


def test_auto_takes_engines_only_where_they_win_back_their_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    small = choose("local", tmp_path, work_s=10.0, num_tasks=100, say=said.append)
    assert (small.num, small.threads) == (0, 4)
    large = choose("local", tmp_path, work_s=1000.0, num_tasks=100, say=said.append)
    assert large.num == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert choose("local", tmp_path, work_s=1e6, num_tasks=100, say=said.append).threads == 2
    assert [("threads" in line, "engines," in line) for line in said] == [(True, False), (False, True), (True, False)]


def test_threads_give_the_serial_results_and_an_error_stops_all_of_them(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree")
    told: list[int] = []
    found = [
        sorted(
            map_tasks(
                shard_work.make_shard, tasks(tmp_path / "tree", tmp_path / name), engines=engines, advance=told.append
            ),
            key=lambda shard: shard.name,
        )
        for name, engines in (("a", Engines(0)), ("b", Engines(0, threads=3)))
    ]
    assert found[0] == found[1]
    assert sum(told) == 24
    broken = tasks(tmp_path / "tree", tmp_path / "c")
    (tmp_path / "c").rmdir()
    (tmp_path / "c").write_text("no folder")
    with pytest.raises(OSError, match="File exists"):
        list(map_tasks(shard_work.make_shard, broken, engines=Engines(0, threads=3), advance=told.append))
