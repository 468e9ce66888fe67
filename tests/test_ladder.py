"""benchmark suite=splits on audio: one recipe under each protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import TINY, corpus_of, door, write_tree

from parallel_tunes.__main__ import find_variant
from parallel_tunes.data import gtzan

LIGHT = [*TINY, "run.page=true", "model.num_residual=0", "augment=none", "features.num_mels=32", "train.num_epochs=2"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["suite=splits"], "genre_ladder"),
        (["suite=splits", "task=relisten"], "listen_ladder"),
        (["task=relisten", "suite=splits"], "listen_ladder"),
        (["suite=preprocess"], "benchmark"),
        ([], "benchmark"),
    ],
)
def test_the_more_telling_word_says_which_ladder(words: list[str], name: str) -> None:
    assert find_variant("benchmark", words) == name


def test_the_ladder_climbs_and_goes_on(workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "suite=splits",
        *corpus_of(workshop),
        *TINY,
        "run.page=true",
        "augment=none",
        "train.num_epochs=1",
        "run.name=ladder",
    ]
    assert door("benchmark", *words, cwd=tmp_path) == 0
    folder = tmp_path / "logs/benchmark/ladder"
    report = json.loads((folder / "report.json").read_text())
    rows = report["metrics"]["rows"]
    assert report["metrics"]["ratios"] == {}
    assert [(row["rung"], row["split"], row["unit"]) for row in rows] == [
        ("segments", "random", "segments"), ("tracks", "random", "tracks"), ("artists", "grouped", "tracks"),
    ]  # fmt: skip
    # tracks of 2 s are two segments of 1 s, which have half of the epochs
    num_tracks = [row["num_train"] for row in rows]
    assert num_tracks == [80, 40, 40]
    assert [row["n"] for row in rows[:2]] == [40, 20]
    assert [row["num_epochs"] for row in rows] == [1, 1, 1]
    assert all(row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1] for row in rows)
    assert all(row["judged_by"] == "test" and row["seconds"] > 0 for row in rows)
    assert "segments" in rows[0]["ci95_method"]
    assert rows[0]["num_groups"] is None
    assert rows[2]["num_groups"] == 10
    assert [each["name"] for each in report["left_out"]] == [
        "tracks at random, duplicates removed",
        "GTZAN's fault-filtered lists",
    ]
    said = capsys.readouterr().out
    assert "rung 3 of 3, artists apart:" in said
    assert f"page: {Path('logs/benchmark/ladder/report.html')}" in said
    # a rung that is complete is not trained again
    changed = {path: path.stat().st_mtime_ns for path in folder.glob("rungs/*/report.json")}
    assert len(changed) == 3
    (folder / "report.json").unlink()
    assert door("benchmark", *words, cwd=tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in changed} == changed


def test_copies_and_lists_are_rungs_and_validation_judges_where_no_test_is(tmp_path: Path) -> None:
    write_tree(tmp_path / "tones", num_tracks=8)
    lists = gtzan.read_lists()
    for genre, tones in (
        ("blues", "high"),
        ("rock", "low & slow"),
    ):  # five of the training list, three of the validation list
        names = [name for part, num in (("train", 5), ("valid", 3)) for name in _of_genre(lists[part], genre)[:num]]
        for name, path in zip(names, sorted((tmp_path / "tones" / tones).iterdir()), strict=True):
            write_copy(path, tmp_path / "music" / genre / f"{name}.wav")
    write_copy(path, tmp_path / "music" / "rock" / "rock.00099.wav")
    words = ["data.root=music", *LIGHT, "task.crop_s=0.5", "split.train=0.7", "split.valid=0.3", "split.test=0"]
    assert door("benchmark", "suite=splits", *words, "train.seeds=[0,1]", "run.name=l", cwd=tmp_path) == 0
    folder = tmp_path / "logs/benchmark/l"
    report = json.loads((folder / "report.json").read_text())
    rows = {row["rung"]: row for row in report["metrics"]["rows"]}
    assert list(rows) == ["segments", "tracks", "unique", "lists"]
    assert [rows[name]["num_dropped"] for name in ("tracks", "unique")] == [0, 1]
    assert (rows["lists"]["num_train"], rows["lists"]["n"]) == (10, 6)
    assert [each["name"] for each in report["left_out"]] == ["artists apart"]
    for name, row in rows.items():
        trained = json.loads((folder / f"rungs/{name}/report.json").read_text())
        assert row["judged_by"] == "valid"
        assert trained["metrics"]["test"] is None
        # the mean of the seeds, as the training itself has it; the interval is the ladder's
        assert row["accuracy"] == pytest.approx(trained["metrics"]["valid"]["accuracy"])
        assert row["n"] == trained["metrics"]["valid"]["n"]
        assert len(row["seeds"]) == 2
        assert row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1]
    page = (folder / "report.html").read_text()
    assert "selected on" in page
    assert "of the validation split, which also chose the epoch" in page


def _of_genre(names: tuple[str, ...], genre: str) -> list[str]:
    return [name for name in names if name.startswith(genre)]


def write_copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())


def test_nothing_to_judge_by_is_one_line(workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["split.train=1", "split.valid=0", "split.test=0", "train.num_epochs=1", "task.crop_s=1", "train.batch=8"]
    light = ["model.widths=[4,8]", "augment=none"]
    assert door("benchmark", "suite=splits", *corpus_of(workshop), *words, *light, "run.name=n", cwd=tmp_path) == 2
    assert "no protocol can be had: segments at random: it leaves nothing to judge by" in capsys.readouterr().err


def test_descriptors_are_no_ladder(workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite=splits", *corpus_of(workshop), "features=descriptors", "run.name=d"]
    assert door("benchmark", *words, cwd=tmp_path) == 2
    assert "the network wants logmel" in capsys.readouterr().err
    assert not list(tmp_path.glob("logs/benchmark/d/rungs/*"))
