"""Descriptors through the door: what is in the run's folder, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import tone, write_audio
from numpy.testing import assert_allclose

from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.descriptors import describe
from parallel_tunes.data import descriptor_tables
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.schema import UserError

Door = Callable[..., int]
WORDS = ("preprocess", "data=folder", "data.root=music", "features=descriptors", "run.name=d", "parallel.engines=0")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three tracks of two genres, and a file that is none."""
    rng = np.random.default_rng(0)
    for number, label in enumerate(("high", "high", "low & slow")):
        noise = 0.1 * rng.standard_normal(22050 + number).astype(np.float32)
        write_audio(
            tmp_path / "music" / label / f"b,{number}.wav", tone(300.0 * (number + 1), 1 + number / 22050) + noise
        )
    (tmp_path / "music/high/bad 9.wav").write_bytes(b"no music")
    return tmp_path / "music"


def test_a_table_like_gtzans_beside_the_shards(music: Path, run: Door, tmp_path: Path) -> None:
    assert run(*WORDS) == 0
    folder = tmp_path / "logs/preprocess/d"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [failure["path"] for failure in manifest["failed"]] == ["high/bad 9.wav"]
    table = pd.read_csv(folder / "descriptors.csv")
    assert list(table) == ["filename", "length", *NAMES, "label"]
    assert table["filename"].tolist() == ["b,0.wav", "b,1.wav", "b,2.wav"]
    assert table["length"].tolist() == [22050, 22051, 22052]
    assert table["label"].tolist() == ["high", "high", "low & slow"]
    shards = ShardSet(folder)
    for row, path in enumerate(shards.index["path"]):
        wanted = describe(decode(music / path, sample_rate_hz=22050)[0], LogMel())
        assert_allclose(table.loc[row, list(NAMES)].to_numpy(float), wanted, rtol=1e-9)
        assert_allclose(shards.read(row), wanted[None, :])


def test_only_what_changed_is_made_again(
    music: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*WORDS, "preprocess.shard_mib=0.1")
    assert run(*words) == 0
    folder = tmp_path / "logs/preprocess/d"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
    write_audio(music / "low & slow/b,0.wav", tone(900))
    assert run(*words) == 0
    assert set(before) & {path.name for path in folder.glob("shard-*.npy")}
    names = pd.read_csv(folder / "descriptors.csv")["filename"].tolist()
    assert names == [
        "high/b,0.wav",
        "high/b,1.wav",
        "low & slow/b,0.wav",
        "low & slow/b,2.wav",
    ]  # since two are b,0.wav
    capsys.readouterr()
    assert run(*words) == 0
    assert "; 0 to do" in capsys.readouterr().out


def test_a_run_is_read_as_a_table_with_its_groups(music: Path, run: Door, tmp_path: Path) -> None:
    assert run(*WORDS, "data.group_regex=([0-9])") == 0
    table = descriptor_tables.read(tmp_path / "logs/preprocess/d")
    assert list(table.frame) == ["id", *NAMES, "label", "split", "artist"]
    assert table.frame["artist"].tolist() == ["0", "1", "2"]
    assert table.places()[0] == "index.parquet row 1"


def test_a_run_of_spectrograms_is_refused(workshop: Path) -> None:
    with pytest.raises(UserError, match=r"holds features=logmel; make descriptors: ptunes preprocess"):
        descriptor_tables.read(workshop / "logs/preprocess/corpus")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("preprocess.pictures=true",), "of which no picture is drawn"),
        (("features.fmax_hz=20000",), "features.fmax_hz=20000"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], says: str, music: Path, run: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*WORDS, *words) == 2
    assert says in capsys.readouterr().err


def test_the_network_wants_spectrograms(run: Door, music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "data.root=music", "features=descriptors") == 2
    assert "which learner=svm learns from; the network wants logmel" in capsys.readouterr().err
