from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tone, write_audio, write_bad

from parallel_tunes.data.shards import ShardSet
from parallel_tunes.serve.labels import format_table, show
from parallel_tunes.serve.predictor import Predictor


@pytest.fixture
def predictor(workshop: Path) -> Predictor:
    return Predictor(workshop / "logs/train/tiny/model", torch.device("cpu"), max_bytes=1 << 30)


def test_serving_says_what_the_evaluation_said(workshop: Path, predictor: Predictor) -> None:
    """The same file through the service's path and through the shards: the same label, the same probability."""
    rows = list(csv.DictReader((workshop / "logs/train/tiny/predictions.csv").read_text().splitlines()))
    for row in rows[:6]:
        answer = predictor.predict(workshop / "logs/synth/corpus" / row["path"], 1)
        assert answer["top"][0]["label"] == row["predicted"]
        assert answer["top"][0]["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)
    assert len(ShardSet(workshop / "logs/preprocess/corpus").index) == 80


def test_probabilities_add_up_and_are_sorted(workshop: Path, predictor: Predictor, tmp_path: Path) -> None:
    answer = predictor.predict(write_audio(tmp_path / "a.wav", tone(440, 40.0)), 99)
    values = [entry["probability"] for entry in answer["top"]]
    assert len(values) == 10
    assert sum(values) == pytest.approx(1, abs=1e-6)
    assert values == sorted(values, reverse=True)


def test_bad_files_give_a_reason_and_the_others_answer(
    run: Callable[..., int], workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = write_bad(tmp_path)
    good = [write_audio(tmp_path / name, tone(440)) for name in ("b (live) & é=ü.wav", "it's.flac", "--help.wav")]
    model = workshop / "logs/train/tiny/model"
    assert (
        run(
            "predict",
            f"model={model}",
            "run.name=p",
            "--",
            *map(str, good),
            *(str(tmp_path / path) for path in reasons),
        )
        == 1
    )
    said = capsys.readouterr()
    errors = said.err.splitlines()
    assert len(errors) == len(reasons)
    for (path, reason), line in zip(reasons.items(), errors, strict=True):
        assert path in line
        assert reason in line
    lines = said.out.splitlines()
    assert len(lines) == 5
    assert all(f"{name.name} " in line for name, line in zip(good, lines[1:4], strict=True))
    assert lines[-1] == "report: logs/predict/p/report.json"
    report = json.loads((tmp_path / "logs/predict/p/report.json").read_text())
    assert (report["metrics"]["num_files"], report["metrics"]["num_failed"]) == (11, 8)


def test_a_name_that_is_no_text_is_answered(run: Callable[..., int], workshop: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.wav")
    path.write_bytes(write_audio(tmp_path / "a.wav", tone(440)).read_bytes())
    assert run("predict", f"model={workshop}/logs/train/tiny/model", "run.name=p", "--", str(path)) == 0
    report = json.loads((tmp_path / "logs/predict/p/report.json").read_text())
    assert report["predictions"][0]["file"] == f"{tmp_path}/\\xff.wav"


def test_json_on_request(
    run: Callable[..., int], workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440))
    assert (
        run(
            "predict",
            f"model={workshop}/logs/train/tiny/model",
            "predict.format=json",
            "predict.top_k=2",
            "--",
            str(path),
        )
        == 0
    )
    first, last = capsys.readouterr().out.splitlines()
    predictions = json.loads(first)["predictions"]
    assert predictions[0]["file"] == str(path)
    assert len(predictions[0]["top"]) == 2
    assert last.startswith("report: ")


def test_a_name_cannot_command_the_terminal() -> None:
    assert "\x1b" not in show("\x1b[2J evil\n.wav")
    table = format_table([{"file": "\x1b[2J", "top": [{"label": "a", "probability": 1.0}]}], 3)
    assert "\x1b" not in table
    assert table.count("\n") == 2


def test_the_mean_is_over_windows(predictor: Predictor, tmp_path: Path) -> None:
    """A track of two halves lies between its halves."""
    rng = np.random.default_rng(0)
    noise = (0.3 * rng.standard_normal(5 * 22050)).astype(np.float32)
    halves = [tone(300, 5.0), noise]
    answers = [
        predictor.predict(write_audio(tmp_path / f"{n}.wav", samples), 10)
        for n, samples in enumerate([*halves, np.concatenate(halves)])
    ]
    first, second, both = ({entry["label"]: entry["probability"] for entry in answer["top"]} for answer in answers)
    for label in first:
        assert min(first[label], second[label]) - 0.15 <= both[label] <= max(first[label], second[label]) + 0.15
