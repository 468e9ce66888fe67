from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import PATIENCE_S, REAL, ROOT, door, needs_real

Door = Callable[..., int]
QUICK = ("task.refits=20", "task.resamples=50", "learner.candidates=[0.01,0.1]", "learner.folds=3")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with planted tables, made once through the door; tests only read them."""
    folder = tmp_path_factory.mktemp("tables")
    assert door("synth", "kind=tracks", "num_tracks=1200", "num_artists=30", "run.name=tables", cwd=folder) == 0
    return folder / "logs/synth/tables"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("target", ["binary", "regression", "genre"])
def test_a_training_is_reported_judged_again_and_asked(
    target: str, tables: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("task=popularity", f"data.root={tables}", f"task.target={target}", "run.name=t", *QUICK)
    assert run("train", *words) == 0
    check_report(tmp_path / "logs/train/t", target)
    check_answers(tmp_path / "logs/train/t/model", tables, target, run, tmp_path)
    before = (tmp_path / "logs/train/t/report.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run("train", *words) == 0
    assert "complete already" in capsys.readouterr().out
    assert (tmp_path / "logs/train/t/report.json").stat().st_mtime_ns == before
    assert run("train", *words, "model.C=1") == 2
    assert "model.C was auto, is 1.0" in capsys.readouterr().err


def check_report(run: Path, target: str) -> None:
    """It says all that is known."""
    report = read(run / "report.json")
    assert report["status"] == "complete"
    assert (report["task"], report["target"], report["world_size"]) == ("popularity", target, 1)
    main = {"binary": "auc", "regression": "r2", "genre": "accuracy"}[target]
    for name in ("train", "valid", "test"):
        judged = report["metrics"][name]
        assert judged["n"] == report["split"]["tracks"][name]
        low, high = judged[f"{main}_ci95"]
        assert low <= judged[main] <= high
    if target != "regression":
        assert 0 < report["metrics"]["test"]["majority_share"] < 1
        assert np.sum(report["metrics"]["test"]["confusion"]["counts"]) == report["metrics"]["test"]["n"]
    assert [(row["split"], row["year"]) for row in report["protocols"]] == [
        (kind, year) for kind in ("random", "grouped", "time") for year in (False, True)
    ]
    assert all(row["test"] or row["reason"] for row in report["protocols"])
    assert set(report["baselines"]) >= {"year_only", "linear_regression", "linear_regression_and_year"}
    assert all(s["is_certified"] and s["gap"] <= 1e-3 for s in report["solver"]["solutions"])
    assert report["cleaning"]["num_read"] == 1200
    assert {"report.html", "predictions.csv"} <= {path.name for path in run.iterdir()}
    assert {path.name for path in (run / "model").iterdir()} == {"model.json", "model.safetensors"}
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    assert len(rows) == report["metrics"]["test"]["n"]


def check_answers(model: Path, table: Path, target: str, run: Door, tmp_path: Path) -> None:
    """Evaluating and predicting say what the training said."""
    words = (f"model={model}", "data=spotify", f"data.root={table}", "evaluate.resamples=50")
    assert run("evaluate", *words, "run.name=e") == 0
    trained = read(model.parent / "report.json")["metrics"]["test"]
    judged = read(tmp_path / "logs/evaluate/e/report.json")["metrics"]["test"]
    for name in ("n", "accuracy", "auc", "r2", "rmse", "loss"):
        assert judged.get(name) == trained.get(name)
    assert run("predict", f"model={model}", "predict.top_k=1", "run.name=p", "--", str(table / "tracks.csv")) == 0
    answers = {answer["id"]: answer for answer in read(tmp_path / "logs/predict/p/report.json")["predictions"]}
    for row in csv.DictReader((model.parent / "predictions.csv").read_text().splitlines()):
        answer = answers[row["id"]]
        if target == "regression":
            assert answer["popularity"] == pytest.approx(float(row["predicted"]), abs=1e-3)
        elif answer["top"][0]["label"] == row["predicted"]:
            assert answer["top"][0]["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...], str]] = {
    "no popularity": (lambda t: t.drop(columns="popularity"), (), r"no column 'popularity'"),
    "text": (lambda t: t.assign(tempo=["abc", *map(str, t["tempo"][1:])]), (), r"tracks.csv line 2: column tempo holds 'abc'"),
    "infinite": (lambda t: t.assign(energy=[*map(str, t["energy"][:-1]), "inf"]), (), r"line 401: column energy holds 'inf'"),
    "constant": (lambda t: t.assign(valence=0.5), (), r"column valence is 0.5 in all"),
    "one class": (lambda t: t, ("task.threshold=100",), r"none of .* training tracks are 'popularity > 100'"),
    "one artist": (lambda t: t.assign(artists="['A']", id_artists="['a']"), (), r"all tracks are by 1 artist or group"),
    "no year to split by": (lambda t: t.drop(columns="release_date"), ("split=time",), r"years of release are not known"),
    "unknown feature": (lambda t: t, ("task.features=[tempp]",), r"tempp.*did you mean tempo"),
    "no genres": (lambda t: t, ("task.target=genre",), r"artists_with_genres.csv: no such file"),
    "no gpu": (lambda t: t, ("learner=cuda",), r"learner=cuda: no GPU can be used here"),
}  # fmt: skip
if os.environ.get("CUDA_VISIBLE_DEVICES") or Path("/dev/nvidia0").exists():
    del BAD["no gpu"]


def test_bad_input_is_one_line(tables: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(tables / "tracks.csv", dtype=str).head(400)
    for fault, (spoil, words, says) in BAD.items():
        spoil(table).to_csv(tmp_path / "tracks.csv", index=False)
        assert run("train", "task=popularity", "data.root=tracks.csv", f"run.name={fault}", *QUICK, *words) == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert re.search(says, err[-1]), (fault, err)
        assert not (tmp_path / f"logs/train/{fault}/model").exists()


def test_an_unknown_code_page_is_named_with_its_line(
    tables: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tables / "tracks.csv").read_bytes().splitlines(keepends=True)[:50]
    cells = text[7].split(b",")
    cells[1] = "Ἀθῆναι Привет".encode("cp1251", "ignore")
    (tmp_path / "tracks.csv").write_bytes(b"".join([*text[:7], b",".join(cells), *text[8:]]))
    assert run("train", "task=popularity", "data.root=tracks.csv") == 2
    err = capsys.readouterr().err
    assert "tracks.csv line 8" in err
    assert "name" in err


def test_dirty_rows_are_left_out_and_counted(run: Door, tmp_path: Path) -> None:
    assert run("synth", "kind=tracks", "num_tracks=800", "dirty=0.02", "run.name=dirty") == 0
    words = ("task=popularity", "data.root=logs/synth/dirty", "run.name=d", *QUICK)
    assert run("train", *words) == 2
    assert run("train", *words, "data.drop_bad=true", "run.name=e") == 0
    cleaning = read(tmp_path / "logs/train/e/report.json")["cleaning"]
    truth = read(tmp_path / "logs/synth/dirty/truth.json")
    assert sum(found["num"] for found in cleaning["dropped"].values()) >= sum(truth["dirty"].values()) > 0
    assert cleaning["num_read"] == cleaning["num_kept"] + sum(found["num"] for found in cleaning["dropped"].values())


@pytest.mark.slow
def test_two_ranks_and_an_interruption_change_nothing(tables: Path, tmp_path: Path) -> None:
    words = ["train", "task=popularity", f"data.root={tables}", "task.refits=400", "task.resamples=50"]
    assert door(*words, "run.name=plain", cwd=tmp_path) == 0
    plain = read(tmp_path / "logs/train/plain/report.json")

    done = subprocess.run(
        ["bash", str(ROOT / "hpc/torchrun.sh"), "2", *words, "run.name=ranks"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PT_VENV": "none", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranks = read(tmp_path / "logs/train/ranks/report.json")
    assert (ranks["world_size"], plain["world_size"]) == (2, 1)
    assert ranks["solver"]["C"] == plain["solver"]["C"]
    assert ranks["metrics"]["test"]["accuracy"] == pytest.approx(plain["metrics"]["test"]["accuracy"], abs=5e-3)
    assert ranks["metrics"]["test"]["auc"] == pytest.approx(plain["metrics"]["test"]["auc"], abs=1e-4)

    command = [sys.executable, "-m", "parallel_tunes", *words, "run.name=again"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "split:" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    assert read(tmp_path / "logs/train/again/report.json")["status"] == "preempted"
    assert not (tmp_path / "logs/train/again/model").exists()
    assert door(*words, "run.name=again", cwd=tmp_path) == 0
    again = read(tmp_path / "logs/train/again/report.json")
    assert (again["status"], again["metrics"]) == ("complete", plain["metrics"])
    models = [(tmp_path / f"logs/train/{name}/model/model.safetensors").read_bytes() for name in ("again", "plain")]
    assert models[0] == models[1]


@needs_real
def test_real_tracks(run: Door, tmp_path: Path) -> None:
    words = ("task=popularity", f"data.root={REAL / 'spotify/tracks_g.csv'}", "data.group=main", "run.name=g", *QUICK)
    assert run("train", *words, f"data.artists={REAL / 'spotify/artists_with_genres.csv'}") == 0
    report = read(tmp_path / "logs/train/g/report.json")
    assert report["metrics"]["test"]["n"] > 500
    scores = {(row["split"], row["year"]): row["test"]["auc"] for row in report["protocols"]}
    assert scores["grouped", True] > scores["grouped", False]  # a year leaks most of the popularity
