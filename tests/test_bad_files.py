"""One bad file never stops a job, and never goes missing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
import soundfile
from fakes import FAULTS, RARE_FAULTS, door, tone, write_audio, write_corpus_with_faults, write_tree

from parallel_tunes import schema
from parallel_tunes.config import DataConfig
from parallel_tunes.data import index

Door = Callable[..., int]
LONGEST_S = 120  # a job that waits for a pipe, or walks in circles, would never end


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"still not done after {LONGEST_S} s")  # no Exception, that a job would list as a bad file

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """500 files, 60 of them bad, and what must be said of those; made once, only read."""
    root = tmp_path_factory.mktemp("spoilt") / "music"
    return root, write_corpus_with_faults(root)


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "logs/preprocess/a/manifest.json").read_text())
    return found


def listed(root: Path) -> list[str]:
    data = schema.build(DataConfig, schema.defaults("data", "folder"))
    return list(index.scan(dataclasses.replace(data, root=root))[0]["path"])


def test_60_bad_files_among_500_are_listed_with_their_reasons(
    spoilt: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, reasons = spoilt
    assert len(reasons) == 60
    kinds = {path.split("-", 2)[2] for path in (Path(bad).name for bad in reasons)}
    assert kinds == set(FAULTS) | set(RARE_FAULTS)
    assert door("preprocess", f"data.root={root}", "run.name=a", cwd=tmp_path) == 0
    manifest = manifest_of(tmp_path)
    assert manifest["num_tracks"] == 440
    found = {failure["path"]: failure["reason"] for failure in manifest["failed"]}
    assert set(found) == set(reasons)
    assert [path for path in found if reasons[path] not in found[path]] == []
    assert all(reason and "\n" not in reason for reason in found.values())
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ptunes: warning: ")]
    assert len(warnings) == 21  # the first 20, and where the others are
    assert "40 more failed files, all listed in" in warnings[-1]
    assert str(Path("logs/preprocess/a/manifest.json")) in warnings[-1]
    report = json.loads((tmp_path / "logs/preprocess/a/report.json").read_text())
    assert (report["status"], report["metrics"]["num_failed"]) == ("complete", 60)


def test_engines_list_the_same_files(spoilt: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, reasons = spoilt
    words = (f"data.root={root}", "run.name=a", "preprocess.shard_mib=4")
    assert door("preprocess", *words, "parallel.engines=2", cwd=tmp_path) == 0
    assert {failure["path"] for failure in manifest_of(tmp_path)["failed"]} == set(reasons)


def test_strict_makes_a_failed_file_exit_1(run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = write_corpus_with_faults(tmp_path / "music", num_good=8, num_bad=3)
    words = ("preprocess", f"data.root={tmp_path}/music", "run.name=a", "data.strict=true")
    assert run(*words) == 1
    manifest = manifest_of(tmp_path)
    assert manifest["num_tracks"] == 8
    assert {failure["path"] for failure in manifest["failed"]} == set(reasons)
    assert all(path in capsys.readouterr().err for path in list(reasons)[:1])
    assert run(*words) == 1  # the same again, though all shards are there


def test_strict_says_nothing_where_every_file_is_good(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music")
    assert run("preprocess", f"data.root={tmp_path}/music", "run.name=a", "data.strict=true") == 0


def test_a_folder_called_like_a_track_is_an_album_or_told(tmp_path: Path) -> None:
    write_audio(tmp_path / "pop/live.wav/one.flac", tone(440))
    write_audio(tmp_path / "pop/deep.wav/cd 1/two.flac", tone(440))
    (tmp_path / "pop/empty.wav").mkdir()
    (tmp_path / "pop/scans.MP3").mkdir()
    (tmp_path / "pop/scans.MP3/cover.jpg").write_bytes(b"1")
    (tmp_path / "pop/.hidden.wav").mkdir()
    (tmp_path / "pop/plain").mkdir()
    (tmp_path / "jazz.wav").mkdir()  # a label, without tracks
    assert listed(tmp_path) == ["pop/deep.wav/cd 1/two.flac", "pop/empty.wav", "pop/live.wav/one.flac", "pop/scans.MP3"]


def test_links_that_lead_back_are_not_followed_for_ever(tmp_path: Path) -> None:
    """Each of these would be walked as deep as the kernel allows, and two beside each other twice as often a level."""
    for label, other in (("pop", "jazz"), ("jazz", "pop")):
        write_audio(tmp_path / f"root/{label}/one.wav", tone(440))
        (tmp_path / f"root/{label}/again").symlink_to(".")
        (tmp_path / f"root/{label}/up").symlink_to("..")
        (tmp_path / f"root/{label}/other").symlink_to(Path("..") / other)
    (tmp_path / "root/pop/top").symlink_to("/")
    (tmp_path / "root/pop/loop.wav").symlink_to("..")
    assert listed(tmp_path / "root") == [
        "jazz/one.wav", "jazz/other/loop.wav", "jazz/other/one.wav", "pop/loop.wav", "pop/one.wav", "pop/other/one.wav",
    ]  # fmt: skip


def test_a_linked_album_is_walked_as_before(tmp_path: Path) -> None:
    write_audio(tmp_path / "elsewhere/one.wav", tone(440))
    (tmp_path / "music/pop").mkdir(parents=True)
    (tmp_path / "music/pop/album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "music/jazz").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "music") == ["jazz/one.wav", "pop/album/one.wav"]


def test_what_is_audio_is_taken_whatever_its_name_and_what_looks_like_it_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {
        "a.dat": "WAV",
        "b": "FLAC",
        "c.mp3": "OGG",
        "d.2": "AIFF",
        "e.wma": "AU",
        "f.mpga": "MP3",
        "g.rf64": "RF64",
        "h.oga": "OGG",
    }
    for label in ("one", "two"):
        (tmp_path / "music" / label).mkdir(parents=True)
        for name, kind in kinds.items():
            soundfile.write(tmp_path / "music" / label / name, tone(440, 2.0), 22050, format=kind)
        for name in ("talk.wma", "film.webm", "list.m4a"):
            (tmp_path / "music" / label / name).write_text("no audio" * 99)
        for name in ("notes.txt", "cover.jpg", "._a.wav"):
            (tmp_path / "music" / label / name).write_text("no audio" * 99)
    (tmp_path / "music/two" / os.fsdecode(b"caf\xe9.wav")).write_bytes((tmp_path / "music/two/a.dat").read_bytes())
    (tmp_path / "music/two" / os.fsdecode(b"bad\xe9.wav")).write_text("no audio" * 99)
    (tmp_path / "music/top.wav").write_bytes(b"x")
    assert door("preprocess", "data.root=music", "run.name=a", cwd=tmp_path) == 0
    said = manifest_of(tmp_path)
    assert said["num_tracks"] == 2 * len(kinds) + 1
    bad = sorted(
        [f"{label}/{name}" for label in ("one", "two") for name in ("talk.wma", "film.webm", "list.m4a")]
        + ["two/bad\\xe9.wav"]
    )
    assert sorted(failure["path"] for failure in said["failed"]) == bad
    assert all(failure["reason"].startswith("no audio that can be decoded") for failure in said["failed"])
    paths = pd.read_parquet(tmp_path / "logs/preprocess/a/index.parquet")["path"].tolist()
    assert "two/caf\\xe9.wav" in paths
    printed = capsys.readouterr().out
    assert "audio files above the folders that give labels are left out: 1 (top.wav)" in printed
    assert "other files, left alone: 6 (2 .jpg, 2 .txt, 2 hidden)" in printed
