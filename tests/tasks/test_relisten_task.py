from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import REAL, door, needs_real, ptunes, without_times
from safetensors.torch import load_file
from scipy.stats import spearmanr

from parallel_tunes.data.causal import NAMES, causal_features
from parallel_tunes.data.listen_truth import count_earlier
from parallel_tunes.data.listens import Listens
from parallel_tunes.tasks.listen_plan import keys_of
from parallel_tunes.train.metrics import roc_auc

TRAIN = ["task=relisten", "data=kkbox", "train.batch=500", "train.lr=0.003", "train.num_epochs=3", "task.resamples=20"]


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(heard: Path) -> Path:
    """A training through the door, of tables whose columns it makes itself."""
    assert door("train", *TRAIN, "data.root=logs/synth/l", "run.name=one", cwd=heard) == 0
    return heard / "logs/train/one"


def test_the_report_holds_what_its_readers_rely_on(trained: Path) -> None:
    found = report(trained)
    assert (found["task"], found["status"], found["world_size"]) == ("relisten", "complete", 1)
    assert found["split"] == {"kind": "time", "rows": {"train": 4200, "valid": 600, "test": 1200}}
    test = found["metrics"]["test"]
    assert test["n"] == 1200
    for name in ("auc", "accuracy", "loss", "precision", "recall"):
        assert test[f"{name}_ci95"][0] <= test[name] <= test[f"{name}_ci95"][1]
    assert test["auc"] > found["baselines"]["the song's earlier rate"]["auc"]
    assert found["metrics"]["valid"]["n"] == 600
    assert set(found["time_s"]) == {"data", "compute", "comm", "eval", "checkpoint"}
    assert found["steps"] == 27
    assert found["tables"]["num_train_rows"] == 6000
    told = rows(trained)
    assert [row["epoch"] for row in told] == [0, 1, 2]
    assert told[-1]["train"]["loss"] < told[0]["train"]["loss"]
    assert (trained / "model/model.safetensors").exists()


def test_evaluate_says_what_the_training_said(trained: Path, heard: Path) -> None:
    words = ["data=kkbox", "data.root=logs/synth/l", f"model={trained}/model", "evaluate.resamples=20"]
    assert door("evaluate", *words, "run.name=again", cwd=heard) == 0
    again, test = report(heard / "logs/evaluate/again")["metrics"]["test"], report(trained)["metrics"]["test"]
    assert again["auc"] == test["auc"]
    assert again["loss"] == pytest.approx(test["loss"], rel=1e-6)
    assert again["slices"] == test["slices"]


def test_other_tables_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door("synth", "kind=listens", "num_rows=2000", "seed=5", "run.name=other", cwd=tmp_path) == 0
    words = ["data=kkbox", "data.root=logs/synth/other", f"model={trained}/model"]
    assert door("evaluate", *words, cwd=tmp_path) == 2
    assert "these are not the tables that the model was trained on" in capsys.readouterr().err


def test_what_cannot_be_trained_is_one_line(heard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, said in (
        ("train.compile=true", "train.compile"),
        ("train.batch=auto", "train.batch=auto"),
        ("train.seeds=[1,1]", "listed twice"),
        ("split=grouped", "split=grouped"),
        ("data.root=nowhere", "nowhere"),
        ("data.root=null", "data.root"),
    ):
        assert door("train", *TRAIN, "data.root=logs/synth/l", word, f"run.name=bad {word[6:11]}", cwd=heard) == 2
        (error,) = (line for line in capsys.readouterr().err.splitlines() if "warning" not in line)
        assert said in error


def test_columns_that_changed_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door("synth", "kind=listens", "num_rows=1000", "run.name=l", cwd=tmp_path) == 0
    words = [*TRAIN, "train.num_epochs=1", "data.root=logs/synth/l"]
    assert door("train", *words, "run.name=a", cwd=tmp_path) == 0
    assert "making them under" in capsys.readouterr().out
    assert door("train", *words, "run.name=b", cwd=tmp_path) == 0
    assert "making them under" not in capsys.readouterr().out
    shutil.copy(tmp_path / "logs/synth/l/train.csv", tmp_path / "copy.csv")
    text = (tmp_path / "copy.csv").read_text().splitlines()
    (tmp_path / "logs/synth/l/train.csv").write_text("\n".join(text[:-100]) + "\n")
    assert door("train", *words, "run.name=c", cwd=tmp_path) == 0
    assert "making them under" in capsys.readouterr().out
    assert report(tmp_path / "logs/train/c")["tables"]["num_train_rows"] == 900


@pytest.mark.slow
def test_two_ranks_an_interruption_and_a_resume_change_nothing(trained: Path, heard: Path) -> None:
    words = [*TRAIN, "data.root=logs/synth/l", "train.checkpoint_every=4"]
    ptunes("train", *words, "run.name=two", cwd=heard, ranks=2)
    two, one = rows(heard / "logs/train/two"), rows(trained)
    for here, there in zip(two, one, strict=True):
        assert here["samples"] == there["samples"]
        assert here["train"]["loss"] == pytest.approx(there["train"]["loss"], rel=1e-4)
    assert report(heard / "logs/train/two")["world_size"] == 2
    killed = ptunes("train", *words, "run.name=cut", cwd=heard, check=False, PT_DISTURB="step:14")
    assert killed.returncode != 0
    ptunes("train", *words, "run.name=cut", cwd=heard)
    assert [without_times(row) for row in rows(heard / "logs/train/cut")] == [without_times(row) for row in one]
    weights = [load_file(folder / "model/model.safetensors") for folder in (heard / "logs/train/cut", trained)]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


def test_the_seeds_network_and_several_seeds(heard: Path) -> None:
    words = [*TRAIN, "data.root=logs/synth/l", "train.num_epochs=1"]
    assert (
        door("train", "-m", *words, "model=relisten,relisten_seed", "features=static", "run.name=nets", cwd=heard) == 0
    )
    ours, theirs = (report(heard / f"logs/train/nets-{part}") for part in (0, 1))
    assert 10_000 < ours["num_parameters"] < theirs["num_parameters"]
    assert ours["features"] == {"kind": "static", "smoothing": 10.0, "delay": 0, "numbers": []}
    assert door("train", *words, "train.seeds=[1,2]", "run.name=seeds", cwd=heard) == 0
    test = report(heard / "logs/train/seeds")["metrics"]["test"]
    assert test["auc"] == pytest.approx(np.mean(list(test["auc_seeds"].values())))
    assert test["ensemble"]["n"] == test["n"]
    one_row = ["split.train=0.8", "split.valid=0.1999", "split.test=0.0001"]
    assert door("train", *words, *one_row, "train.seeds=[1,2]", "run.name=row", cwd=heard) == 0
    test = report(heard / "logs/train/row")["metrics"]["test"]
    assert (test["n"], test["auc"]) == (1, None)


def test_a_model_that_lost_a_part_is_refused(
    trained: Path, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    facts = json.loads((tmp_path / "model/model.json").read_text())
    del facts["sizes"]["num_users"]
    (tmp_path / "model/model.json").write_text(json.dumps(facts))
    assert run("predict", "model=model", "user=x") == 2
    assert "damaged" in capsys.readouterr().err


@needs_real
def test_real_listens_go_all_the_way(tmp_path: Path) -> None:
    words = [*TRAIN, f"data.root={REAL / 'kkbox'}", "run.name=real"]
    assert door("train", *words, cwd=tmp_path) == 0
    found = report(tmp_path / "logs/train/real")
    test = found["metrics"]["test"]
    assert test["n"] == 4000
    assert test["auc_ci95"][0] < test["auc"] < test["auc_ci95"][1]
    assert test["auc"] > 0.55


@pytest.mark.slow
def test_warm_rows_come_near_to_what_can_be_known_and_random_splits_flatter(tmp_path: Path) -> None:
    """At least 90 % of the way from the song's earlier rate to the best AUC there is, where user and song are well known."""
    num_rows = 60_000 * int(os.environ.get("PT_SOAK", "1"))
    assert door("synth", "kind=listens", f"num_rows={num_rows}", "run.name=l", cwd=tmp_path) == 0
    truth = json.loads((tmp_path / "logs/synth/l/truth.json").read_text())
    how = ["data.root=logs/synth/l", "train.batch=2048", "train.lr=0.0005", "train.patience=3", "train.min_delta=0"]
    words = ["task=relisten", *how, "train.num_epochs=20", "task.resamples=20"]
    assert door("train", *words, "run.name=causal", cwd=tmp_path) == 0
    warm = "user and song in 20 earlier rows or more"
    reached = report(tmp_path / "logs/train/causal")["metrics"]["test"]["slices"][warm]
    listens = Listens(next((tmp_path / "logs/preprocess").glob("listens-*")))
    user, song, _, _ = keys = keys_of(listens, slice(0, num_rows))
    targets = listens.target[:num_rows]
    rates = causal_features(*keys, targets, smoothing=10.0)[:, NAMES.index("song_rate")]
    is_warm = (np.minimum(count_earlier(user), count_earlier(song)) >= 20) & (np.arange(num_rows) >= 0.8 * num_rows)
    assert reached["n"] == is_warm.sum() == truth["num_warm"]
    base = roc_auc(rates[is_warm], targets[is_warm])
    share = (reached["auc"] - base) / (truth["bayes_auc_warm"] - base)
    print(f"{base:.3f} → {reached['auc']:.3f} of {truth['bayes_auc_warm']:.3f}: {share:.1%} of the way")
    assert share >= 0.9
    assert door("train", "-m", *words, "features=static", "split=random,time", "run.name=split", cwd=tmp_path) == 0
    random, time = (report(tmp_path / f"logs/train/split-{part}")["metrics"]["test"]["auc"] for part in (0, 1))
    assert random > time + 0.005


def test_predictions_follow_the_planted_chances(trained: Path, heard: Path) -> None:
    """Of test.csv, which went on where the training's rows ended."""
    table = heard / "logs/synth/l/test.csv"
    assert door("predict", f"model={trained}/model", "run.name=test", "--", str(table), cwd=heard) == 0
    found = report(heard / "logs/predict/test")["predictions"]
    planted = np.load(heard / "logs/synth/l/probability.npy")[6000:]
    assert len(found) == len(planted)
    assert spearmanr([answer["probability"] for answer in found], planted).statistic > 0.4
