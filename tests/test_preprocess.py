"""A data set as it grows, is shared out, is spoilt, or does not fit: what the shards are afterwards."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes import PATIENCE_S, launch, ptunes, tone, write_audio, write_tree

from parallel_tunes import files
from parallel_tunes.audio import front_end
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data import partition, shards
from parallel_tunes.schema import UserError

Door = Callable[..., int]
SMALL = "preprocess.shard_mib=0.1"


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def names(folder: Path) -> set[str]:
    return {shard["file"] for shard in manifest(folder)["shards"]}


def test_cuts_are_where_they_were_but_around_a_change() -> None:
    rng = np.random.default_rng(0)
    paths = sorted(f"{rng.integers(1 << 40):x}" for _ in range(3000))
    sizes = rng.uniform(0.5, 2, 3000)
    whole = partition.cut(paths, sizes, 30.0)
    assert [row for part in whole for row in part] == list(range(3000))
    assert 20 < np.mean([sizes[list(part)].sum() for part in whole]) < 45
    assert max(sizes[list(part)].sum() for part in whole) < 62
    without = np.delete(np.arange(3000), 1234)
    fewer = partition.cut([paths[row] for row in without], sizes[without], 30.0)
    before = {tuple(paths[row] for row in part) for part in whole}
    after = {tuple(paths[without[row]] for row in part) for part in fewer}
    assert len(before - after) <= 3
    assert len(after - before) <= 3


def test_only_what_changed_is_made_again_and_the_result_is_that_of_a_fresh_start(run: Door, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "music", num_tracks=12, duration_s=2.5)
    words = ("preprocess", f"data.root={root}", SMALL)
    assert run(*words, "run.name=a") == 0
    folder = tmp_path / "logs/preprocess/a"
    before = names(folder)
    assert len(before) >= 5
    written = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
    write_audio(root / "high/0 new.wav", tone(3000))
    write_audio(root / "high/plain.wav", tone(1999, 1.3))
    (root / "low & slow/#1.wav").unlink()
    assert run(*words, "run.name=a") == 0
    assert run(*words, "run.name=fresh") == 0
    fresh = tmp_path / "logs/preprocess/fresh"
    assert manifest(folder)["shards"] == manifest(fresh)["shards"]
    assert manifest(folder)["index_digest"] == manifest(fresh)["index_digest"]
    kept = names(folder) & before
    assert len(kept) >= len(before) - 6
    assert {path.name for path in folder.glob("shard-*.npy")} == names(folder)
    assert all((folder / name).stat().st_mtime_ns == written[name] for name in kept)


def test_the_size_of_shards_stays_what_it_was_begun_with(run: Door, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "music", num_tracks=2)
    assert run("preprocess", f"data.root={root}", "run.name=a") == 0
    folder = tmp_path / "logs/preprocess/a"
    files.write_json(folder / "plan.json", {"shard_bytes": 20000})
    assert run("preprocess", f"data.root={root}", "run.name=a") == 0
    assert len(names(folder)) >= 2


def test_the_tasks_of_a_job_array_make_the_whole_and_the_last_one_merges(
    run: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "music", num_tracks=12)
    words = ("preprocess", f"data.root={root}", SMALL)
    assert run(*words, "run.name=whole") == 0
    for name, value in (("JOB_ID", "7"), ("TASK_MIN", "0"), ("TASK_MAX", "2"), ("TASK_COUNT", "3")):
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", value)
    for task in ("2", "0", "1"):
        assert not (tmp_path / "logs/preprocess/parts/manifest.json").exists()
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        assert run(*words, "run.name=parts") == 0
    whole, parts = (manifest(tmp_path / "logs/preprocess" / name) for name in ("whole", "parts"))
    assert whole == parts
    report = json.loads((tmp_path / "logs/preprocess/parts/report.json").read_text())
    assert report["metrics"]["num_tracks"] == 24


def test_checksums_are_compared_on_request(workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "shards"
    subprocess.run(["cp", "-r", str(workshop / "logs/preprocess/corpus"), str(copy)], check=True)
    shard = next(copy.glob("shard-*.npy"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    told: list[int] = []
    with pytest.raises(UserError, match=rf"{shard.name}: damaged, it has another checksum"):
        shards.ShardSet(copy).verify(told.append)


def test_a_disk_that_fills_is_one_line_and_the_job_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """A tmpfs where the tests may mount one; else the kernel's limit on file sizes, which fails in the same way."""
    root = write_tree(tmp_path / "music", num_tracks=12, duration_s=4.0)
    words = ("preprocess", f"data.root={root}", "preprocess.shard_mib=0.2", "run.name=a")
    ptunes(*words, "run.dir=whole", cwd=tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], capture_output=True).returncode == 0
    )
    try:
        command, environment = launch(*words, f"run.dir={disk}/a")
        limit = None if mounted else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90000, 90000))
        full = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, preexec_fn=limit
        )
        assert full.returncode == 2, full.stdout + full.stderr
        assert full.stderr.count("what is finished stays, the same command goes on from there") == 1
        assert "Traceback" not in full.stderr
        assert not list(disk.rglob(".partial-*"))
        for description in (disk / "a").glob("shard-*.json"):
            tree = json.loads(description.read_text())
            assert files.digest_file(description.with_suffix(".npy")) == tree["checksum"]
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = len(list((disk / "a").glob("shard-*.json")))
        again = ptunes(*words, f"run.dir={disk}/a", cwd=tmp_path)
        assert (" 0 to do" in again.stdout) is (done == len(manifest(tmp_path / "whole")["shards"]))
        assert manifest(disk / "a")["shards"] == manifest(tmp_path / "whole")["shards"]
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_goes_while_it_is_read_is_listed(
    run: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one is read twice; between the two it is gone."""
    root = write_tree(tmp_path / "music", num_tracks=2)
    digest_file = files.digest_file

    def digest_and_remove(path: Path) -> str:
        digest = digest_file(path)
        if path.name == "plain.wav":
            path.unlink()
        return digest

    monkeypatch.setattr(front_end, "WHOLE", 1000)
    monkeypatch.setattr(files, "digest_file", digest_and_remove)
    assert run("preprocess", f"data.root={root}", "run.name=a") == 0
    made = manifest(tmp_path / "logs/preprocess/a")
    assert made["num_tracks"] == 2
    assert {failure["path"] for failure in made["failed"]} == {"high/plain.wav", "low & slow/plain.wav"}
    assert all("No such file" in failure["reason"] for failure in made["failed"])


def test_a_waveform_that_goes_while_it_is_copied_is_one_line_and_no_shard(
    run: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "music", num_tracks=1)
    transform = front_end.transform

    def transform_and_remove(source: front_end.Source, features: FeaturesConfig) -> front_end.Clip:
        clip = transform(source, features)
        source.path.unlink()
        return clip

    monkeypatch.setattr(front_end, "WHOLE", 1000)
    monkeypatch.setattr(front_end, "transform", transform_and_remove)
    assert run("preprocess", f"data.root={root}", "run.name=a", "features=waveform") == 2
    assert "a file changed while it was read" in capsys.readouterr().err
    assert not [*tmp_path.rglob("shard-*"), *tmp_path.rglob(".partial-*")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logmel", "waveform"])
def test_a_three_hour_file_needs_little_memory(kind: str, tmp_path: Path) -> None:
    """Measured as the operating system does: the most that was ever resident."""
    path = tmp_path / "music/a/long.wav"
    path.parent.mkdir(parents=True)
    minute = (0.3 * np.random.default_rng(0).standard_normal((60 * 22050, 1))).astype(np.float32)
    with soundfile.SoundFile(path, "w", 22050, 1, subtype="PCM_16") as sound:
        for _ in range(180):
            sound.write(minute)
    words = ("preprocess", f"data.root={tmp_path}/music", f"features={kind}", "features.clip_s=null", "run.name=a")
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command, environment = launch(*words)
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 400 * 1024
    assert manifest(tmp_path / "logs/preprocess/a")["audio_s"] == 3 * 3600


def test_an_index_of_many_tracks_opens_at_once(tmp_path: Path) -> None:
    """A hundred thousand here; a million took 0.4 s when this was written."""
    write_big(tmp_path / "big", 100_000)
    script = (
        "import sys, time, pandas, pyarrow.parquet, xxhash, psutil\nfrom pathlib import Path\n"
        "from parallel_tunes.data.shards import ShardSet\nbefore = psutil.Process().memory_info().rss\n"
        "made = ShardSet(Path(sys.argv[1]))\nprint(len(made.index), psutil.Process().memory_info().rss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "big")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    num, used = map(int, done.stdout.split())
    assert num == 100_000
    assert used < 100 << 20


def write_big(folder: Path, num: int) -> None:
    """The index and the manifest of a large set whose one shard has no rows: for opening, not for reading."""
    folder.mkdir()
    numbers = np.arange(num)
    tracks = pd.DataFrame(
        {
            "path": [f"label-{n % 100:02d}/artist-{n // 50:05d}/track-{n:07d}.mp3" for n in numbers],
            "label": [f"label-{n % 100:02d}" for n in numbers],
            "group": [f"artist-{n // 50:05d}" for n in numbers],
            "split": None,
            "bytes": 480_000,
            "mtime_ns": 0,
        }
    )
    made = tuple(shards.Track(n, f"{n:032x}", 30.0, 0, 1292, 1292, -5e6, 2e8, 30.0, 1.0, "") for n in range(num))
    empty = shards.write_shard(folder, "shard-0", "", (128,), np.float16, iter(()))
    whole = shards.Shard("shard-0", "", empty.checksum, 0, empty.num_bytes, made, ())
    shards.write_manifest(folder, [(whole, range(num))], tracks, {"features": {}, "fingerprint": ""})
