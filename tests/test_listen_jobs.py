from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import door

SMALL = ["task=relisten", "train.batch=500", "train.num_epochs=2", "task.resamples=20"]


def test_synth_tells_what_nobody_can_beat(heard: Path) -> None:
    folder = heard / "logs/synth/l"
    found, truth = json.loads((folder / "report.json").read_text()), json.loads((folder / "truth.json").read_text())
    assert 0.6 < found["metrics"]["bayes_auc_late"] == truth["bayes_auc_late"] < 1
    assert {path.name for path in folder.glob("*.csv")} == {
        "train.csv", "test.csv", "songs.csv", "members.csv", "song_extra_info.csv",
    }  # fmt: skip
    assert len(np.load(folder / "probability.npy")) == 6600


def test_columns_are_made_once(heard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=kkbox", "data.root=logs/synth/l", "run.name=l"]
    before = {path.name: path.stat().st_mtime_ns for path in (heard / "logs/preprocess/l").glob("*.npy")}
    assert door("preprocess", *words, cwd=heard) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (heard / "logs/preprocess/l").glob("*.npy")} == before
    assert "data.columns=logs/preprocess/l" in capsys.readouterr().out


@pytest.mark.extras  # LightGBM
@pytest.mark.slow
def test_the_ladder_climbs_and_goes_on(heard: Path) -> None:
    words = ["suite=splits", *SMALL, "data.root=logs/synth/l", "run.name=ladder"]
    assert door("benchmark", *words, cwd=heard) == 0
    folder = heard / "logs/benchmark/ladder"
    found = json.loads((folder / "report.json").read_text())["metrics"]["rows"]
    kinds = [("random", "static"), ("time", "static"), ("time", "causal"), ("time", "transductive")]
    assert [(row["split"], row["features"]) for row in found] == kinds
    assert all(row["test"]["n"] == 1200 and row["control"]["auc"] > 0.5 for row in found)
    assert (folder / "report.html").stat().st_size > 10_000
    changed = {path: path.stat().st_mtime_ns for path in folder.glob("rungs/*/report.json")}
    assert len(changed) == 4
    (folder / "report.json").unlink()
    assert door("benchmark", *words, cwd=heard) == 0
    assert {path: path.stat().st_mtime_ns for path in changed} == changed  # each rung was complete


def test_several_ranks_are_told_what_makes_the_columns(
    heard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=kkbox", f"data.columns={tmp_path}", "train.num_epochs=1"]
    assert door("train", *words, "run.name=none", cwd=heard) == 2
    assert "no finished columns" in capsys.readouterr().err


def test_what_only_genre_models_have_is_refused(heard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=kkbox", "data.root=logs/synth/l", "data.columns=logs/preprocess/l", "train.ema=0.9", "run.name=ema"]
    assert door("train", *words, cwd=heard) == 2
    assert "only task=genre has them" in capsys.readouterr().err
