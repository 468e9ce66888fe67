"""Tracks of several labels through the door: learnt, judged, predicted and shown."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from fakes import TINY, door, tone, write_audio
from numpy.typing import NDArray

from parallel_tunes.data import label_sets
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.serve.predictor import Predictor
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.train import multi_label
from parallel_tunes.train.learner import Batch, Sums

NAMES = ["clicks", "hiss & hum", "tone"]
WORDS = [
    "data.root=a|b/music", "data.shards=logs/preprocess/p", "task.multi_label=true", *TINY, "model.widths=[8,16]", "run.page=true",
    "train.lr=0.02",
]  # fmt: skip


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def play(name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A sound 1.2 s long that its name tells."""
    if name == "tone":
        return 0.6 * tone(rng.uniform(300, 2500), 1.2).astype(np.float64)
    noise = rng.standard_normal(26460)
    if name == "clicks":
        strikes = np.zeros_like(noise)
        strikes[rng.integers(0, 2000) :: 4000] = 0.5
        return np.convolve(strikes, noise[:8])[: noise.size]
    return 0.05 * noise


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tree of tracks, each the sum of what its labels are, its shards, and a model of them."""
    folder = tmp_path_factory.mktemp("place")
    sets = [chosen for num in (1, 2, 3) for chosen in itertools.combinations(NAMES, num)]
    rng = np.random.default_rng(0)
    for chosen, number in itertools.product(sets, range(8)):
        samples = np.sum([play(name, rng) for name in chosen], axis=0) / 3
        write_audio(folder / "a|b/music" / "|".join(chosen) / f"{number}.wav", samples.astype(np.float32))
    assert door("preprocess", "data.root=a|b/music", "run.name=p", cwd=folder) == 0
    words = ["train", *WORDS, "train.num_epochs=12", "train.seeds=[0,1]", "run.name=m"]
    assert door(*words, cwd=folder) == 0
    return folder


def test_a_planted_truth_is_found(place: Path) -> None:
    found = report(place / "logs/train/m")
    test = found["metrics"]["test"]
    assert found["classes"] == NAMES
    assert test["n"] == found["metrics"]["valid"]["n"] == 14
    assert test["map"] > 0.9
    assert test["macro_auc"] > 0.9
    assert test["accuracy"] > test["majority_share"] + 0.2
    assert test["hamming_loss"] < 0.2
    assert set(test["map_by_seed"]) == set(test["seeds"]) == {"0", "1"}
    assert {*multi_label.HEADLINES} <= {*test["ensemble"]}
    assert test["ensemble"]["map"] > 0.9
    assert found["split"]["per_label"]["tone"] == {"train": 16, "valid": 8, "test": 8}


def judge_rows(place: Path, split: str) -> tuple[NDArray[np.float64], multi_label.Table]:
    """The answers on a split as an evaluation writes them, and the truth."""
    folder = place / "logs/evaluate" / split
    words = ["evaluate", f"evaluate.split={split}", f"run.name={split}", "model=logs/train/m/model", *WORDS[:2]]
    if not folder.exists():
        assert door(*words, cwd=place) == 0
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    classes = report(folder)["classes"]
    chances = np.array([[float(row[f"probability of {name}"]) for name in classes] for row in rows])
    labels = np.array([row["label"] for row in rows], object)
    return chances, label_sets.tabulate(labels, classes, multi_label=True)


def test_thresholds_are_those_of_the_validation_tracks(place: Path) -> None:
    found = report(place / "logs/train/m")
    model = json.loads((place / "logs/train/m/model/model.json").read_text())
    wanted = multi_label.choose_thresholds(*judge_rows(place, "valid"))
    assert list(model["thresholds"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)
    assert model["thresholds"] == found["thresholds"]
    assert found["thresholds_chosen_by"] == {"split": "valid", "n": 14}
    assert model["multi_label"] is True
    assert any("better here" in warning for warning in report(place / "logs/evaluate/valid")["split"]["warnings"])


def test_an_evaluation_reads_as_the_training_did(place: Path) -> None:
    chances, held = judge_rows(place, "test")
    judged = report(place / "logs/evaluate/test")["metrics"]["test"]
    trained = report(place / "logs/train/m")
    seed = json.loads((place / "logs/train/m/model/model.json").read_text())["training"]["seed"]
    assert judged["map"] == trained["metrics"]["test"]["map_by_seed"][str(seed)]
    assert judged["accuracy"] == trained["metrics"]["test"]["seeds"][str(seed)]
    told = chances >= list(trained["thresholds"].values())
    assert judged["accuracy"] == (told == held).all(1).mean()


def test_predict_lists_what_reaches_its_threshold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track = place / "a|b/music/clicks|tone/3.wav"
    words = ["predict", "model=logs/train/m/model", "run.name=p", "--", str(track)]
    assert door(*words, cwd=place) == 0
    (answer,) = report(place / "logs/predict/p")["predictions"]
    thresholds = report(place / "logs/train/m")["thresholds"]
    assert len(answer["top"]) == 3
    reached = [entry for entry in answer["top"] if entry["probability"] >= thresholds[entry["label"]]]
    assert [entry["label"] for entry in answer["labels"]] == [entry["label"] for entry in reached]
    assert {entry["label"] for entry in answer["labels"]} == {"clicks", "tone"}
    assert all(entry["threshold"] == thresholds[entry["label"]] for entry in answer["labels"])
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert head.split() == ["file", "labels", "#1", "#2", "#3"]
    assert {*line.removeprefix(str(track)).split()[0].split("|")} == {"clicks", "tone"}
    rows = list(csv.DictReader((place / "logs/train/m/predictions.csv").read_text().splitlines()))
    if json.loads((place / "logs/train/m/model/model.json").read_text())["training"]["seed"] == 0:
        predictor = Predictor(place / "logs/train/m/model", torch.device("cpu"), max_bytes=1 << 30)
        told = predictor.predict(place / "a|b/music" / rows[0]["path"], 3)
        found = {entry["label"] for entry in told["labels"]}
        assert found == {*rows[0]["predicted"].split("|")} - {""}


def test_the_page_shows_each_label(place: Path) -> None:
    folder = place / "logs/train/m"
    page = (folder / "report.html").read_text()
    for words in (
        "mean average precision",
        "By label",
        "threshold",
        "ROC-AUC",
        "hiss &amp; hum",
        "ensemble",
        "Hamming loss",
    ):
        assert words in page, words
    assert "Confusion" not in page
    assert not (folder / "confusion_matrix.png").exists()
    assert matplotlib.image.imread(folder / "average_precision.png")[..., :3].std() > 0.02
    assert "mean average precision" in (folder / "log.txt").read_text()


def test_without_the_key_a_set_is_a_label_and_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in WORDS if "multi_label" not in word and "batch" not in word]
    assert door("train", *words, "train.batch=99", "run.name=single", cwd=place) == 2  # said before it is refused
    said = capsys.readouterr().err
    assert "4 labels hold a |, clicks|hiss & hum say, and count as one each; task.multi_label=true" in said


def test_labels_the_model_does_not_know(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A track that has others too is judged by those; one that has none is left out."""
    for label in ("clicks|wail", "wail", "tone"):
        shutil.copytree(place / "a|b/music/clicks|tone", tmp_path / "more" / label)
    model = place / "logs/train/m/model"
    words = ["evaluate", f"model={model}", f"data.root={tmp_path}/more", "evaluate.split=all", "run.name=more"]
    assert door(*words, cwd=tmp_path) == 0
    said = capsys.readouterr().err
    assert "all: 8 tracks with labels unknown to the model (wail) are left out" in said
    assert "all: 8 tracks with labels unknown to the model (wail) are judged by their other labels" in said
    found = report(tmp_path / "logs/evaluate/more")
    assert found["metrics"]["all"]["n"] == 16
    assert found["metrics"]["all"]["per_class"]["clicks"]["support"] == 8


def test_without_validation_thresholds_are_one_half(place: Path) -> None:
    words = [*WORDS, "split.train=0.5", "split.valid=0", "split.test=0.5", "train.num_epochs=1", "run.name=half"]
    assert door("train", *words, cwd=place) == 0
    found = report(place / "logs/train/half")
    assert set(found["thresholds"].values()) == {0.5}
    assert found["thresholds_chosen_by"]["n"] == 0
    assert "there were no validation tracks" in (place / "logs/train/half/report.html").read_text()


def test_a_model_without_its_thresholds_is_damaged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "logs/train/m/model", place / "broken")
    facts = json.loads((place / "broken/model.json").read_text())
    del facts["thresholds"]["tone"]
    (place / "broken/model.json").write_text(json.dumps(facts))
    assert door("predict", "model=broken", "--", "a.wav", cwd=place) == 2
    assert "model.json is damaged (KeyError: 'tone')" in capsys.readouterr().err


def source(place: Path, rank: int = 0, world_size: int = 1) -> CropSource:
    shards = ShardSet(place / "logs/preprocess/p")
    mesh = Mesh()
    mesh.start("cpu", timeout_s=60)
    mesh.rank, mesh.world_size = rank, world_size
    rows = {"train": np.arange(0, 40), "test": np.arange(40, 56)}
    return CropSource(
        shards,
        rows,
        NAMES,
        window=20,
        overlap=0.5,
        mesh=mesh,
        batch=7,
        seed=5,
        mixup=0.4,
        multi_label=True,
    )


def join(parts: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Targets, those of the partners, and their shares, of all samples that count."""
    mixed = [part.mixed for part in parts if part.mixed]
    kept = [part.weights > 0 for part in parts]
    assert len(mixed) == len(parts)
    return (
        torch.cat([part.targets[mask] for part, mask in zip(parts, kept, strict=True)]),
        torch.cat([each.targets[mask] for each, mask in zip(mixed, kept, strict=True)]),
        torch.cat([each.shares[mask] for each, mask in zip(mixed, kept, strict=True)]),
    )


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_a_global_batch_holds_the_same_sets_on_every_world_size(world_size: int, place: Path) -> None:
    alone = list(source(place).train(2, 0))
    shared = [list(source(place, rank, world_size).train(2, 0)) for rank in range(world_size)]
    held = source(place).labels
    assert held.shape == (56, 3)
    counts = torch.zeros(3, dtype=torch.int64)
    for step, batch in enumerate(alone):
        parts = [ranks[step] for ranks in shared]
        for ours, theirs in zip(join(parts), join([batch]), strict=True):
            assert torch.equal(ours, theirs)
        losses, total = torch.rand(len(batch.targets)), Sums()
        right = batch.targets[:, 0] > 0
        whole = Sums.of(losses, right, batch.weights, batch.marks)
        at = 0
        for part in parts:
            num = int((part.weights > 0).sum())
            mine = slice(at, at + num) if num else slice(at - 1, at)  # a stand-in weighs nothing, whatever it is
            total += Sums.of(losses[mine], right[mine], part.weights, part.marks)
            at += num
        assert torch.equal(total.values, whole.values)
        counts += batch.targets.sum(0)
    assert counts.tolist() == held[:40].sum(0).tolist()


def test_a_resumed_epoch_goes_on_with_the_same_sets_and_partners(place: Path) -> None:
    whole, rest = list(source(place).train(1, 0))[2:], list(source(place).train(1, 2))
    for one, other in zip(whole, rest, strict=True):
        for ours, theirs in zip(join([one]), join([other]), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(one.marks, other.marks)
        assert isinstance(one.targets, torch.Tensor)
        assert one.targets.dtype == torch.int8
