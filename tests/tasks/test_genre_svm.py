from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import REAL, needs_real
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from parallel_tunes.__main__ import compose, to_overrides
from parallel_tunes.config import GenreSvmJob
from parallel_tunes.data.tracks import Tracks, read_tracks
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks import genre_svm
from parallel_tunes.tasks.margin_fit import Fitted
from parallel_tunes.tasks.protocols import Case
from parallel_tunes.train.margin_model import KernelModel

Door = Callable[..., int]
QUICK = ("learner.candidates=[0.1,1]", "learner.gammas=[0.3,1]", "learner.folds=3", "task.resamples=50")
TABLE = REAL / "gtzan_tables/features_30_sec.csv"


def draw_table(num: int = 150, seed: int = 0) -> pd.DataFrame:
    """Tracks called as in GTZAN whose genre lies in two directions of the 57 columns, in a ring around another."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, len(NAMES)))
    labels = np.arange(num) % 3
    radius, angle = np.where(labels == 0, 0.5, 4.0), rng.uniform(0, np.pi, num) + np.pi * (labels == 2)
    features[:, 2] = radius * np.cos(angle) + 0.2 * rng.normal(size=num)
    features[:, 5] = radius * np.sin(angle) + 0.2 * rng.normal(size=num)
    features[:, NAMES.index("tempo")] = 120 + 20 * rng.uniform(size=num)
    table = pd.DataFrame(features, columns=list(NAMES))
    genres = np.array(["blues", "disco", "jazz"])[labels]
    table.insert(0, "filename", [f"{genre}.{number // 3:05d}.wav" for number, genre in enumerate(genres)])
    table.insert(1, "length", 661794)
    return table.assign(label=genres)


def make(table: pd.DataFrame, folder: Path, *words: str) -> tuple[Case, Fitted, Tracks]:
    """What is learnt of a table."""
    path = folder / "t.csv"
    table.to_csv(path, index=False)
    return learn(path, folder, *words)


def learn(path: Path, folder: Path, *words: str) -> tuple[Case, Fitted, Tracks]:
    job = compose("genre_svm", to_overrides("genre_svm", ["task=genre", f"data.root={path}", *QUICK, *words]))
    assert isinstance(job, GenreSvmJob)
    tracks = read_tracks(*genre_svm.to_table_configs(job, path))
    run = Run("train", job, folder / "run", is_writer=False, started=0.0)
    case = genre_svm.make_case(job, genre_svm.to_margins(job.learner), tracks, Mesh(), run)
    return *genre_svm.choose(case, job.learner), tracks


def accuracy(case: Case, made: Fitted, split: str = "test") -> float:
    rows = case.rows[split]
    return float((made.model.labels(case.ground.features[rows]) == case.goal.values[rows]).mean())


def test_a_ring_is_told_by_the_radial_kernel_alone(tmp_path: Path) -> None:
    table, words = draw_table(), ("task.features=[rms_mean,spectral_centroid_var]",)
    radial, made = make(table, tmp_path, *words)[:2]
    assert isinstance(made.model, KernelModel)
    assert accuracy(radial, made) > 0.95
    line, flat = make(table, tmp_path, *words, "learner.kernel=linear")[:2]
    assert len(flat.solutions) == 3
    assert all(solution.is_certified for solution in flat.solutions)
    assert accuracy(line, flat) < 0.9


@pytest.mark.parametrize(("kernel", "pca"), [("linear", "0.9"), ("rbf", "null")])
def test_nothing_but_training_tracks_is_learnt_from(kernel: str, pca: str, tmp_path: Path) -> None:
    """Scale, components, C, gamma and weights stay when all other tracks change."""
    table, words = draw_table(90), (f"learner.kernel={kernel}", f"learner.pca={pca}")
    case, made, _ = make(table, tmp_path, *words)
    others = np.concatenate([case.rows["valid"], case.rows["test"]])
    columns = [name for name in NAMES if name != "tempo"]
    table.loc[others, columns] *= 7.0
    again = make(table, tmp_path, *words)[1]
    assert (again.C, again.candidates) == (made.C, made.candidates)
    for name in set(made.model.arrays) - {"sigmoids"}:  # which validation tracks calibrate
        assert getattr(again.model, name).tobytes() == getattr(made.model, name).tobytes(), name


def test_a_linear_machine_on_all_components_is_the_one_on_columns(tmp_path: Path) -> None:
    words = ("learner.kernel=linear", "learner.C=0.1", "learner.tolerance=1e-8")
    case, plain, tracks = make(draw_table(), tmp_path, *words)
    rotated = make(draw_table(), tmp_path, *words, "learner.pca=57")[1]
    wanted = plain.model.margins(tracks.features)
    assert rotated.model.margins(tracks.features) == pytest.approx(wanted, abs=1e-3)
    assert rotated.model.weights.shape == (3, 57)
    found = genre_svm.describe_components(replace(case, ground=replace(case.ground, pca=0.5)))
    assert found is not None
    assert 0.5 <= found["explained_variance_sum"] == pytest.approx(sum(found["explained_variance"]))


def test_splits_are_of_each_genre_alike_or_of_whole_groups_or_by_name(tmp_path: Path) -> None:
    table = draw_table()
    case = make(table, tmp_path)[0]
    assert case.kind == "stratified"
    counts = np.bincount(case.goal.values[case.rows["test"]].astype(int))
    assert counts.tolist() == [10, 10, 10]
    grouped = make(table.assign(artist=[f"a{row // 5}" for row in range(150)]), tmp_path)[0]
    assert grouped.kind == "grouped"
    assert grouped.ground.groups is not None
    assert not set(grouped.ground.groups[grouped.rows["train"]]) & set(grouped.ground.groups[grouped.rows["test"]])
    named = make(table, tmp_path, "split=gtzan_fault_filtered")[0]
    assert named.split.num_excluded + sum(map(len, named.rows.values())) == 150


def test_twins_on_both_sides_are_said(tmp_path: Path) -> None:
    table = draw_table()
    twins = pd.concat([table, table.assign(filename="copy-" + table["filename"])])
    case = make(twins, tmp_path, "split=random")[0]
    assert "sets of tracks with the very same numbers lie on both sides" in case.split.warnings[0]
    assert not make(twins, tmp_path, "split=random", "split.drop_duplicates=true")[0].split.warnings


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    table = draw_table(60)
    bad: list[tuple[pd.DataFrame, tuple[str, ...], str]] = [
        (table.drop(columns="label"), (), "no column label or genre"),
        (table.assign(label="blues"), (), "the training tracks have 1 genres"),
        (table.drop(columns="rms_mean"), (), "no column 'rms_mean'"),
        (table, ("learner.pca=58",), "learner.pca=58: 57 columns of"),
        (table, ("learner.candidates=[]",), "expected a list"),
    ]
    for spoilt, words, says in bad:
        with pytest.raises(UserError, match=says):
            make(spoilt, tmp_path, *words)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_through_the_door(run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training is reported, judged again and asked; a table's model takes no audio, since nobody knows its front end."""
    table = draw_table()
    table.loc[3, "rms_mean"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ("train", "task=genre", "learner=svm", "data.root=t.csv", "learner.pca=0.9", *QUICK)
    assert run(*words, "run.name=a") == 0
    assert "accuracy" in capsys.readouterr().out
    folder = tmp_path / "logs/train/a"
    report = read(folder / "report.json")
    assert (report["task"], report["learner"], report["status"]) == ("genre", "svm", "complete")
    assert (report["cleaning"]["num_read"], report["cleaning"]["num_kept"]) == (150, 149)
    for name in ("train", "valid", "test"):
        judged = report["metrics"][name]
        assert judged["accuracy_ci95"][0] <= judged["accuracy"] <= judged["accuracy_ci95"][1]
        assert {"n", "balanced_accuracy", "f1", "confusion"} <= set(judged)
    assert report["baselines"]["majority"]["n"] == report["metrics"]["test"]["n"]
    assert report["pca"]["explained_variance_sum"] >= 0.9
    page = (folder / "report.html").read_text()
    assert "principal components of the 57 columns" in page
    assert "rbf kernel" in page
    of_table = ("data=spotify", "data.root=t.csv", "data.drop_bad=true", "evaluate.split=test")
    assert run("evaluate", f"model={folder}/model", *of_table, "run.name=e") == 0
    again = read(tmp_path / "logs/evaluate/e/report.json")["metrics"]["test"]
    assert again["accuracy"] == report["metrics"]["test"]["accuracy"]
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert run("predict", f"model={folder}/model", "run.name=p", "--", "t.csv", "a.wav") == 1
    answers = read(tmp_path / "logs/predict/p/report.json")["predictions"]
    assert answers[0]["id"] == "blues.00000.wav"
    assert "has learnt from a table" in answers[-1]["reason"]
    rows = pd.read_csv(folder / "predictions.csv").set_index("id")
    by_id = {answer["id"]: answer for answer in answers if "id" in answer and "top" in answer}
    assert len(rows) == report["metrics"]["test"]["n"]
    for called, row in rows.iterrows():
        best = {top["label"]: top["probability"] for top in by_id[str(called)]["top"]}
        assert best[str(row["predicted"])] == pytest.approx(row["probability"], abs=1e-6)
    assert run(*words, "features=logmel") == 2
    assert "learner=svm learns from features=descriptors" in capsys.readouterr().err


def test_audio_is_described_learnt_from_and_asked_about(workshop: Path, run: Door, tmp_path: Path) -> None:
    """What is not there yet is made; a file is answered as its row is."""
    root = workshop / "logs/synth/corpus"
    listed = pd.read_csv(root / "tracks.csv")
    chosen = listed[listed["label"].isin(sorted(set(listed["label"]))[:2])]
    chosen.assign(path=[str(root / path) for path in chosen["path"]]).to_csv(tmp_path / "list.csv", index=False)
    words = (
        "task=genre",
        "learner=svm",
        "data.root=list.csv",
        "split=random",
        "learner.C=1",
        "learner.gamma=1",
        *QUICK,
    )
    assert run("train", *words, "run.name=a", "parallel.engines=0") == 0
    made = next((tmp_path / "logs/preprocess").iterdir())
    model = tmp_path / "logs/train/a/model"
    track = chosen["path"].iloc[0]
    assert run("predict", f"model={model}", "run.name=p", "--", str(root / track), str(made / "descriptors.csv")) == 0
    first, *rows = read(tmp_path / "logs/predict/p/report.json")["predictions"]
    same = next(row for row in rows if row["id"] == Path(track).name)
    assert first["margins"] == pytest.approx(same["margins"], rel=1e-6)
    report = read(tmp_path / "logs/train/a/report.json")
    assert report["metrics"]["train"]["n"] + report["metrics"]["valid"]["n"] + report["metrics"]["test"]["n"] == 16
    case, again, _ = learn(made, tmp_path, "split=random", "learner.C=1", "learner.gamma=1")
    assert accuracy(case, again) == report["metrics"]["test"]["accuracy"]


@needs_real
def test_gtzans_table_as_it_is(tmp_path: Path) -> None:
    words = ("split=gtzan_fault_filtered", "learner.C=10", "learner.gamma=0.3")
    case, made, tracks = learn(TABLE, tmp_path, *words)
    assert {name: len(rows) for name, rows in case.rows.items()} == {"train": 443, "valid": 197, "test": 0}
    assert case.split.num_excluded == 70
    train, valid = case.rows["train"], case.rows["valid"]
    labels = case.goal.values
    theirs = make_pipeline(StandardScaler(), SVC(C=10, gamma=0.3 / 57, decision_function_shape="ovr"))
    theirs.fit(tracks.features[train], labels[train])
    assert accuracy(case, made, "valid") == pytest.approx(theirs.score(tracks.features[valid], labels[valid]), abs=0.06)
    assert accuracy(case, made, "valid") > 0.35
