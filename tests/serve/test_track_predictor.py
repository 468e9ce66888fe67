from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import door

from parallel_tunes.schema import UserError
from parallel_tunes.serve.rows import format_rows, parse_rows
from parallel_tunes.serve.track_predictor import TrackPredictor
from parallel_tunes.train.margin_model import load

WORDS = ("task.features=[all]", "task.year=true", "model.C=0.1", "task.refits=20", "task.resamples=20", "run.name=all")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a model of all its columns, keys and year among them."""
    folder = tmp_path_factory.mktemp("studio")
    assert door("synth", "kind=tracks", "num_tracks=600", "num_artists=20", "run.name=t", cwd=folder) == 0
    assert door("train", "task=popularity", "data.root=logs/synth/t", *WORDS, cwd=folder) == 0
    return folder


@pytest.fixture
def predictor(studio: Path) -> TrackPredictor:
    return TrackPredictor(studio / "logs/train/all/model", max_bytes=1 << 30)


@pytest.fixture
def table(studio: Path) -> pd.DataFrame:
    return pd.read_csv(studio / "logs/synth/t/tracks.csv")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows


def test_keys_and_years_become_what_the_model_learnt_from(
    predictor: TrackPredictor, table: pd.DataFrame, studio: Path
) -> None:
    model, _ = load(studio / "logs/train/all/model")
    assert {"year", "key_C", "explicit"} <= set(model.names)
    answers = predictor.predict_rows(records(table.head(20)), 2)
    columns = {name: table[name].head(20).to_numpy(float) if name in table else np.zeros(20) for name in model.names}
    columns["year"] = table["release_date"].head(20).astype(str).str[:4].to_numpy(float)
    notes = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    columns |= {f"key_{note}": (table["key"].head(20) == pitch).to_numpy(float) for pitch, note in enumerate(notes)}
    margins = model.margins(np.column_stack([columns[name] for name in model.names]))
    assert [answer["margins"][0] for answer in answers] == pytest.approx(margins[:, 0].tolist())
    assert all(answer["top"][0]["probability"] >= answer["top"][1]["probability"] for answer in answers)


def test_formats_say_the_same(predictor: TrackPredictor, table: pd.DataFrame, tmp_path: Path) -> None:
    part = table.head(30)
    part.to_csv(tmp_path / "a.csv", index=False)
    part.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(part.to_json(orient="records"))
    found = [predictor.predict(tmp_path / f"a.{ending}", 1) for ending in ("csv", "parquet", "json")]
    for answers in found:
        assert [answer["id"] for answer in answers] == part["id"].tolist()
        assert [answer["margins"][0] for answer in answers] == pytest.approx([a["margins"][0] for a in found[0]])


def test_rows_without_a_number_say_which_and_the_others_are_answered(
    predictor: TrackPredictor, table: pd.DataFrame
) -> None:
    rows = records(table.head(4))
    rows[1]["tempo"] = "presto"
    del rows[2]["energy"]
    rows[3]["release_date"] = "once"
    answers = predictor.predict_rows(rows, 1)
    assert "top" in answers[0]
    assert [answer.get("reason") for answer in answers[1:]] == [
        "row 2: tempo holds 'presto'", "row 3: no energy", "row 4: its year is not known",
    ]  # fmt: skip


def test_rows_that_training_leaves_out_are_refused_with_its_reason(
    predictor: TrackPredictor, table: pd.DataFrame
) -> None:
    rows = records(table.head(5))
    rows[1]["tempo"], rows[2]["energy"], rows[3]["mode"], rows[4]["mode"] = 0, 1.5, 2, None
    answers = predictor.predict_rows(rows, 1)
    assert [answer.get("reason") for answer in answers] == [
        None, "row 2: tempo 0: none was found", "row 3: energy outside 0 to 1", "row 4: mode is neither 0 nor 1", "row 5: no mode",
    ]  # fmt: skip


def test_what_is_no_list_of_rows_is_refused(predictor: TrackPredictor, table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a list of rows"):
        predictor.predict_rows([], 1)
    with pytest.raises(UserError, match=r"no column .*tempo"):
        predictor.predict_rows([{"energy": 1}], 1)
    for text in ("{}", "[]", '{"rows": [1]}', "[" * 100_000, "nonsense", '[{"a": 1}, 2]'):
        (tmp_path / "x.json").write_text(text)
        answers = predictor.predict(tmp_path / "x.json", 1)
        assert len(answers) == 1
        assert "reason" in answers[0]
    predictor.max_bytes = 1000
    (tmp_path / "x.json").write_text(table.to_json(orient="records"))
    assert "larger than" in predictor.predict(tmp_path / "x.json", 1)[0]["reason"]


def test_a_hostile_list_costs_no_more_than_its_rows(predictor: TrackPredictor, table: pd.DataFrame) -> None:
    row = records(table.head(1))[0]
    rows = [{**row, f"x{number}": number, "tempo": [[number]]} for number in range(5000)]
    answers = predictor.predict_rows([row, *rows], 1)
    assert len(answers) == 5001
    assert "top" in answers[0]
    assert answers[1]["reason"] == "row 2: tempo holds '[[0]]'"


def test_a_table_for_people_has_no_control_signs() -> None:
    answers = [{"file": "a\x1b[31m.csv", "row": number, "popularity": 40.0} for number in range(1, 26)]
    text = format_rows(answers)
    assert "\x1b" not in text
    assert "and 5 more rows" in text
    assert text.count("\n") == 21


def test_rows_of_json_are_answered_one_by_one(
    studio: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = records(pd.read_csv(studio / "logs/synth/t/tracks.csv").head(3))
    rows[1]["tempo"] = "fast"
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "bad.json").write_text("[1, 2")
    model = studio / "logs/train/all/model"
    words = (f"model={model}", "predict.format=json", "--", "rows.json", "bad.json", "none.csv")
    assert run("predict", *words) == 1
    out, err = capsys.readouterr()
    answers = json.loads(out.splitlines()[0])["predictions"]
    assert [("top" in answer, answer["file"]) for answer in answers] == [
        (True, "rows.json"), (False, "rows.json"), (True, "rows.json"), (False, "bad.json"), (False, "none.csv"),
    ]  # fmt: skip
    assert "row 2: tempo holds 'fast'" in err
    assert "bad.json: cannot be read as JSON" in err
    assert sum(best["probability"] for best in answers[0]["top"]) == pytest.approx(1)


def test_a_table_of_another_dialect_is_read_and_said_everywhere(
    studio: Path, table: pd.DataFrame, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    table.to_csv(tmp_path / "plain.csv", index=False)
    says = "t.csv: read as semicolons between cells, decimal commas\n"
    model = studio / "logs/train/all/model"
    words = ("data.root=t.csv", "model.C=0.1", "task.refits=20", "task.resamples=20", "run.name=a")
    for command in (
        ("train", "task=popularity", *words),
        ("explore", "data=spotify", "data.root=t.csv"),
        ("predict", f"model={model}", "--", "t.csv"),
    ):
        assert run(*command) == 0
        assert capsys.readouterr().out.count(says) == 1, command
    predictor = TrackPredictor(model, max_bytes=1 << 30)
    found = [predictor.predict(tmp_path / name, 1) for name in ("t.csv", "plain.csv")]
    assert [answer["margins"] for answer in found[0]] == [answer["margins"] for answer in found[1]]
    posted = parse_rows((tmp_path / "t.csv").read_bytes(), is_csv=True, max_rows=1000)
    assert [answer["margins"] for answer in predictor.predict_rows(posted, 1)] == [
        answer["margins"] for answer in found[1]
    ]
