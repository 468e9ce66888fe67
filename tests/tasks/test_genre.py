from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import TINY, corpus_of, door, ptunes

from parallel_tunes.data.batches import draw_uniform
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.tasks.planning import fit_scaler
from parallel_tunes.train.learner import Batch


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def source(workshop: Path, rank: int = 0, world_size: int = 1) -> CropSource:
    shards = ShardSet(workshop / "logs/preprocess/corpus")
    mesh = Mesh()
    mesh.start("cpu", timeout_s=60)
    mesh.rank, mesh.world_size = rank, world_size
    rows = {"train": np.arange(0, 60), "valid": np.arange(60, 80)}
    classes = sorted(set(shards.index["label"]))
    return CropSource(shards, rows, classes, window=40, overlap=0.5, mesh=mesh, batch=16, seed=5)


def crops(batch: Batch) -> torch.Tensor:
    assert isinstance(batch.inputs, torch.Tensor)
    return batch.inputs


@pytest.mark.parametrize("world_size", [2, 3, 4, 17])
def test_the_global_batch_is_the_same_on_every_world_size(world_size: int, workshop: Path) -> None:
    alone = list(source(workshop).train(2, 0))
    shared = [list(source(workshop, rank, world_size).train(2, 0)) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        parts = [ranks[step] for ranks in shared]
        counted = [part.weights > 0 for part in parts]
        assert sum(int(mask.sum()) for mask in counted) == batch.num_global == len(batch.targets)
        assert torch.equal(
            torch.cat([crops(part)[mask] for part, mask in zip(parts, counted, strict=True)]), crops(batch)
        )
        assert torch.equal(
            torch.cat([part.targets[mask] for part, mask in zip(parts, counted, strict=True)]), batch.targets
        )
        assert all(len(part.targets) for part in parts)


def test_crops_come_from_keyed_places_and_a_resumed_epoch_goes_on(workshop: Path) -> None:
    here = source(workshop)
    assert here.batches is not None
    ids = here.batches.epoch(1)[2]
    batch = list(here.train(1, 0))[2]
    start = int(draw_uniform(5, 1, ids[:1], "crop")[0] * (here.shards.num_frames[ids[0]] - 39))
    np.testing.assert_array_equal(crops(batch)[0].numpy().T, here.shards.read(int(ids[0]), start, 40))
    assert torch.equal(crops(next(here.train(1, 2))), crops(batch))


def test_the_scaler_sees_only_its_rows(workshop: Path) -> None:
    shards = ShardSet(workshop / "logs/preprocess/corpus")
    values = np.concatenate([shards.read(row).astype(np.float64).ravel() for row in (3, 30)])
    mean_db, deviation_db = fit_scaler(shards, np.array([3, 30]))
    assert mean_db == pytest.approx(values.mean(), abs=1e-6)
    assert deviation_db == pytest.approx(values.std(), abs=1e-6)


def test_the_report_holds_what_its_readers_rely_on(workshop: Path) -> None:
    found = report(workshop / "logs/train/tiny")
    assert found["status"] == "complete"
    keys = {
        "task",
        "metrics",
        "samples_per_s",
        "global_batch",
        "steps",
        "peak_memory_mib",
        "time_s",
        "front_end",
        "world_size",
        "device",
    }
    assert keys <= set(found)
    assert set(found["time_s"]) == {"data", "compute", "comm", "eval", "checkpoint"}
    test = found["metrics"]["test"]
    assert test["n"] == sum(map(sum, test["confusion"]["counts"])) == 20
    assert test["num_groups"] == 10
    low, high = test["accuracy_ci95"]
    assert 0 <= low <= test["accuracy"] <= high <= 1
    assert found["metrics"]["train"]["n"] == 40
    assert found["split"]["kind"] == "grouped"
    model = json.loads((workshop / "logs/train/tiny/model/model.json").read_text())
    assert model["fingerprint"] == found["front_end"]


def evaluate_words(workshop: Path, name: str) -> list[str]:
    return ["evaluate", f"model={workshop}/logs/train/tiny/model", *corpus_of(workshop), f"run.name={name}"]


def test_one_rank_and_three_judge_alike(workshop: Path) -> None:
    """Counts and metrics of an evaluation do not depend on how many ranks share it; nor does the training's own test."""
    found = []
    for ranks in (1, 3):
        words = evaluate_words(workshop, f"on-{ranks}")
        if ranks == 1:
            assert door(*words, cwd=workshop) == 0
        else:
            ptunes(*words, cwd=workshop, ranks=ranks)
        found.append(report(workshop / f"logs/evaluate/on-{ranks}"))
    assert [one["world_size"] for one in found] == [1, 3]
    trained = report(workshop / "logs/train/tiny")["metrics"]["test"]
    for one in found:
        assert one["metrics"]["test"] == trained
        assert one["metrics"]["test"]["n"] == 20


@pytest.mark.slow
def test_more_ranks_than_training_tracks_are_refused(workshop: Path) -> None:
    lists = workshop / "one.csv"
    rows = ["path,label,split"] + [
        f"logs/synth/corpus/{genre}/{genre}-000-00.wav,{genre},train" for genre in ("funk", "march")
    ]
    lists.write_text("\n".join(rows) + "\n")
    assert door("preprocess", f"data.root={lists}", "run.name=one", cwd=workshop) == 0
    words = [
        "train",
        f"data.root={lists}",
        "data.shards=logs/preprocess/one",
        "split=lists",
        "run.name=crowded",
        *TINY[:5],
    ]
    done = ptunes(*words, cwd=workshop, ranks=3, check=False)
    assert done.returncode != 0
    assert done.stderr.count("3 ranks for 2 training tracks") == 1


def test_other_data_or_features_than_the_models_are_refused(
    run: Callable[..., int], workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some"
    for genre in ("funk", "march"):
        shutil.copytree(workshop / "logs/synth/corpus" / genre, some / genre)
    shutil.copytree(workshop / "logs/synth/corpus/funk", some / "polka")
    words = ["evaluate", f"model={workshop}/logs/train/tiny/model", f"data.root={some}"]
    assert run(*words, "run.name=a") == 2
    assert "not what the model was trained on" in capsys.readouterr().err
    assert run(*words, "evaluate.split=all", "run.name=b") == 0
    assert "8 tracks with labels unknown to the model (polka) are left out" in capsys.readouterr().err
    found = report(tmp_path / "logs/evaluate/b")
    assert found["metrics"]["all"]["n"] == 16
    assert found["num_unknown"] == 8
    assert run("preprocess", f"data.root={some}", "features.num_mels=64", "run.name=c") == 0
    assert run(*words, "evaluate.split=all", "data.shards=logs/preprocess/c", "run.name=d") == 2
    assert "features.num_mels is 64 there, 128 here" in capsys.readouterr().err


def test_augmentation_is_shown_and_said(workshop: Path) -> None:
    """Every one that is on has its picture and its name; the model's cost is said."""
    words = ["train", *corpus_of(workshop), *TINY, "train.num_epochs=1", "run.name=shown", "run.page=true"]
    assert (
        door(
            *words,
            "augment=default",
            "augment.time_shift=0.5",
            "augment.without=gain",
            "augment.gain_db=3",
            cwd=workshop,
        )
        == 0
    )
    folder = workshop / "logs/train/shown"
    report = json.loads((folder / "report.json").read_text())
    assert report["augmentation"] == ["mixup", "masks", "eq", "shift", "stretch", "pitch"]
    assert report["num_multiply_adds"] == 128 * 43 * 9 * 4 + 64 * 22 * 9 * 4 * 8 + 16 * 10
    assert (folder / "augmentation.png").stat().st_size > 10_000
    assert "Augmented by mixup, masks, eq, shift" in (folder / "report.html").read_text()
    plain = json.loads((workshop / "logs/train/tiny/report.json").read_text())
    assert plain["augmentation"] == []
    assert not (workshop / "logs/train/tiny/augmentation.png").exists()
