from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import door

from parallel_tunes.data.listens import Listens
from parallel_tunes.schema import UserError
from parallel_tunes.serve.listen_predictor import ListenPredictor


@pytest.fixture
def predictor(relisten_model: Path) -> ListenPredictor:
    return ListenPredictor(relisten_model, torch.device("cpu"), max_bytes=1 << 26)


def table(heard: Path, num: int = 50) -> list[dict[str, str]]:
    with (heard / "logs/synth/l/test.csv").open(encoding="utf-8") as stream:
        return [row for row, _ in zip(csv.DictReader(stream), range(num), strict=False)]


def test_csv_json_and_posted_rows_have_the_same_answers(
    predictor: ListenPredictor, heard: Path, tmp_path: Path
) -> None:
    rows = table(heard)
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    posted = predictor.predict_rows(rows, 1)
    for name in ("rows.json", "rows.csv"):
        read = predictor.predict(tmp_path / name, 1)
        assert [answer["probability"] for answer in read] == [answer["probability"] for answer in posted]
        assert [answer["id"] for answer in read] == [row["id"] for row in rows]
    assert len({round(answer["probability"], 6) for answer in posted}) > 20


def test_a_row_alone_is_answered_as_among_others(predictor: ListenPredictor, heard: Path) -> None:
    rows = table(heard)
    together = predictor.predict_rows(rows, 1)
    for at in (0, 7, 49):
        (alone,) = predictor.predict_rows([rows[at]], 1)
        assert alone["probability"] == pytest.approx(together[at]["probability"], rel=1e-5)


def test_who_and_what_is_not_known_is_told_and_answered(predictor: ListenPredictor, heard: Path) -> None:
    row = table(heard)[0]
    strange = predictor.predict_rows([row | {"msno": "nobody", "song_id": "nothing"}, row | {"song_id": "nothing"}], 1)
    assert [answer["unseen"] for answer in strange] == [["user", "song"], ["song"]]
    assert all(0 < answer["probability"] < 1 for answer in strange)
    assert strange[0]["probability"] != strange[1]["probability"]
    (known,) = predictor.predict_rows([row], 1)
    assert "unseen" not in known


def test_missing_cells(predictor: ListenPredictor, heard: Path) -> None:
    row = table(heard)[0]
    answers = predictor.predict_rows(
        [{"msno": None, "song_id": row["song_id"]}, {"msno": row["msno"], "song_id": ""}, row], 1
    )
    assert answers[0]["reason"] == "row 1: no msno"
    assert answers[1]["reason"] == "row 2: no song_id"
    assert "probability" in answers[2]
    with pytest.raises(UserError, match="no column song_id"):
        predictor.predict_rows([{"msno": "a"}], 1)
    without_sources = predictor.predict_rows([{"msno": row["msno"], "song_id": row["song_id"]}], 1)
    assert 0 < without_sources[0]["probability"] < 1


def test_songs_to_play_next(predictor: ListenPredictor, heard: Path) -> None:
    listens = Listens(heard / "logs/preprocess/l")
    user = listens.words("user")[int(np.bincount(listens.codes["user"]).argmax())].as_py()
    songs = predictor.recommend(user, 20)
    assert [song["rank"] for song in songs] == list(range(1, 21))
    chances = [song["probability"] for song in songs]
    assert chances == sorted(chances, reverse=True)
    assert len({song["song_id"] for song in songs}) == 20
    source = predictor.dictionary.words["source_type"][
        predictor._usual_sources(int(np.bincount(listens.codes["user"]).argmax()))["source_type"]
    ]
    (first,) = predictor.predict_rows(
        [{"msno": user, "song_id": songs[0]["song_id"], "source_type": source.as_py()}], 1
    )
    assert first["probability"] == pytest.approx(chances[0], rel=1e-5)
    with pytest.raises(UserError, match="no such user"):
        predictor.recommend("nobody", 3)


def test_the_door_prints_answers(relisten_model: Path, heard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = table(heard)[0]
    assert door("predict", f"model={relisten_model}", f"user={row['msno']}", "top_k=3", cwd=heard) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["1", "2", "3"]
    assert door("predict", f"model={relisten_model}", "--", "logs/synth/l/test.csv", "missing.csv", cwd=heard) == 1
    told = capsys.readouterr()
    assert "and 580 more rows" in told.out
    assert "missing.csv" in told.err
    assert door("predict", f"model={relisten_model}", "user=nobody", cwd=heard) == 2
    assert "user=nobody" in capsys.readouterr().err


def test_counts_of_later_rows_cannot_be_served(heard: Path) -> None:
    words = ["task=relisten", "data=kkbox", "data.root=logs/synth/l", "train.num_epochs=1", "task.resamples=20"]
    assert door("train", *words, "train.batch=500", "features=transductive", "run.name=later", cwd=heard) == 0
    with pytest.raises(UserError, match="features=transductive"):
        ListenPredictor(heard / "logs/train/later/model", torch.device("cpu"), max_bytes=1 << 26)
