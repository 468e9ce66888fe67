"""predict on folders and lists: part by part, in any order, stopped and gone on with; the same answers, in one table."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from fakes import PATIENCE_S, ROOT, launch, tone, wait_until, write_audio

from parallel_tunes import predicting

KILLS = int(os.environ.get("PT_SOAK", "1"))  # 20 were tried when this was written


@pytest.fixture
def model(workshop: Path) -> str:
    return f"model={workshop}/logs/train/tiny/model"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few files each."""
    monkeypatch.setattr(predicting, "PART_S", 0.12)


def read(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def as_json(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


PAUSE = """
import pathlib, signal, sys
from parallel_tunes import __main__, predicting

predicting.PART_S = 0.5
num_left, keep = int(sys.argv[1]), predicting.Journal.keep

def keep_and_pause(journal, answered):
    global num_left
    keep(journal, answered)
    num_left -= 1
    if not num_left:
        pathlib.Path("paused").touch()
        signal.pause()

predicting.Journal.keep = keep_and_pause
__main__.main(sys.argv[2:])
"""


def interrupt(number: signal.Signals, num_parts: int, *words: str, cwd: Path) -> tuple[int, str]:
    """Answer the files of many/ in parts of about fifty, and send a signal once so many are kept, for which the process pauses.

    Returns:
        The exit code, and what was written to standard error.
    """
    command = [sys.executable, "-c", PAUSE, str(num_parts), "predict", "parallel.engines=0", *words, "--", "many"]
    process = subprocess.Popen(
        command, cwd=cwd, env=launch()[1], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: (cwd / "paused").exists() or process.poll() is not None, what="parts")
        (cwd / "paused").unlink()
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


@pytest.mark.usefixtures("small_parts")
def test_folders_and_lists_give_one_table_in_three_formats(
    run: Callable[..., int], model: str, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = workshop / "logs/synth/corpus"
    tracks = sorted(corpus.rglob("*.wav"))
    some = [os.path.relpath(path, tmp_path) for path in tracks[:3]]
    (tmp_path / "some.m3u").write_text("#EXTM3U\n" + "\n".join(some) + "\n\n")
    pd.DataFrame({"path": some}).to_csv(tmp_path / "some.csv")
    pd.DataFrame({"path": some}).to_parquet(tmp_path / "some.parquet")
    missing = str(tmp_path / "missing.wav")
    for output, listed in (("jsonl", "some.m3u"), ("csv", "some.csv"), ("parquet", "some.parquet")):
        words = [model, f"predict.output={output}", f"predict.files_from={listed}", f"run.name={output}"]
        assert run("predict", *words, "--", str(corpus), missing) == 1
        assert "missing.wav: cannot be read: No such file" in capsys.readouterr().err
    folder = tmp_path / "logs/predict"
    report = read(folder / "jsonl")
    answers = as_json(folder / "jsonl/predictions.jsonl")
    assert answers == report["predictions"]
    assert [answer["file"] for answer in answers] == [*map(str, tracks), missing, *some]
    assert len(list((folder / "jsonl/answers").iterdir())) > 3
    metrics = report["metrics"]
    assert (metrics["num_files"], metrics["num_failed"], metrics["num_computed"]) == (84, 1, 84)
    assert metrics["audio_s"] == pytest.approx(83 * 2.0)
    assert sum(metrics["labels"].values()) == 83
    rows = pd.read_csv(folder / "csv/predictions.csv")
    assert list(rows) == [
        "file",
        "duration_s",
        *(f"{n}_{k}" for k in (1, 2, 3) for n in ("label", "probability")),
        "note",
        "reason",
    ]
    pd.testing.assert_frame_equal(rows, pd.read_parquet(folder / "parquet/predictions.parquet"), check_dtype=False)
    assert rows["reason"].notna().tolist() == [file == missing for file in rows["file"]]
    for answer, (_, row) in zip(answers[:80], rows.iterrows(), strict=False):
        assert [answer["top"][2]["label"], answer["top"][2]["probability"]] == [row["label_3"], row["probability_3"]]


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_engines_and_threads_say_the_same_and_a_poisoned_file_is_left_out(
    run: Callable[..., int], model: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = ROOT / "tests/parallel"
    monkeypatch.syspath_prepend(beside)
    import deadly

    from parallel_tunes.serve import answering

    corpus = shutil.copytree(workshop / "logs/synth/corpus", tmp_path / "c")
    assert run("predict", model, "parallel.engines=0", "run.name=serial", "--", "c") == 0
    serial = read(tmp_path / "logs/predict/serial")
    write_audio(next(corpus.rglob("*.wav")).with_name("poison.wav"), tone(500, 1.2))
    monkeypatch.setenv("PYTHONPATH", str(beside))
    monkeypatch.setattr(answering, "answer", deadly.answer)
    assert run("predict", model, "parallel.engines=2", "run.name=engines", "--", "c") == 1
    report = read(tmp_path / "logs/predict/engines")
    assert report["engines"] == 2
    (left_out,) = (answer for answer in report["predictions"] if "reason" in answer)
    assert left_out["file"].endswith("poison.wav")
    assert "kills the engine" in left_out["reason"]
    # windows of other files may share a forward pass: the same to rounding
    others = [answer for answer in report["predictions"] if answer is not left_out]
    assert len(others) == len(serial["predictions"]) == 80
    for mine, theirs in zip(others, serial["predictions"], strict=True):
        assert mine["file"] == theirs["file"]
        for here, there in zip(mine["top"], theirs["top"], strict=True):
            assert here["probability"] == pytest.approx(there["probability"], abs=1e-6)


def test_json_of_more_than_is_told_names_the_table(
    run: Callable[..., int],
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predicting, "MOST_TOLD", 1)
    files = [str(write_audio(tmp_path / f"{name}.wav", tone(440))) for name in "ab"]
    assert run("predict", model, "predict.format=json", "run.name=p", "--", *files) == 0
    said, last = capsys.readouterr().out.splitlines()
    assert json.loads(said) == {"predictions": None, "table": "logs/predict/p/predictions.csv"}
    assert last.startswith("report: ")
    assert len(pd.read_csv(tmp_path / "logs/predict/p/predictions.csv")) == 2


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_is_added_or_changed_is_answered_alone(
    run: Callable[..., int], model: str, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = shutil.copytree(workshop / "logs/synth/corpus", tmp_path / "c")
    words = ("predict", model, "run.name=p", "--", "c")
    assert run(*words) == 0
    first = read(tmp_path / "logs/predict/p")
    assert run(*words) == 0
    again = read(tmp_path / "logs/predict/p")
    assert again["metrics"]["num_computed"] == 0
    assert again["predictions"] == first["predictions"]
    tracks = sorted(corpus.rglob("*.wav"))
    shutil.copy(tracks[0], tracks[0].with_name("new.wav"))
    os.utime(tracks[40], (1, 1))
    num_parts = len(list((tmp_path / "logs/predict/p/answers").iterdir()))
    assert run(*words) == 0
    third = read(tmp_path / "logs/predict/p")
    assert third["metrics"]["num_files"] == 81
    assert 2 <= third["metrics"]["num_computed"] < 60
    assert abs(len(list((tmp_path / "logs/predict/p/answers").iterdir())) - num_parts) < 5
    assert capsys.readouterr().out.count("files, ") >= 2


def test_a_model_that_changes_is_asked_anew(run: Callable[..., int], workshop: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(workshop / "logs/train/tiny/model", tmp_path / "model")
    shown = write_audio(tmp_path / "a.wav", tone(440))
    words = ("predict", f"model={folder}", "run.name=p", "--", str(shown))
    assert run(*words) == 0
    assert run(*words) == 0
    assert read(tmp_path / "logs/predict/p")["metrics"]["num_computed"] == 0
    described = folder / "model.json"
    described.write_text(described.read_text().replace("\n", "\n "))  # as another one would be
    assert run(*words) == 0
    assert read(tmp_path / "logs/predict/p")["metrics"]["num_computed"] == 1


def test_killed_and_run_again_it_goes_on(
    run: Callable[..., int], model: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, then SIGINT, after some parts: nothing is half-written, nothing is done twice, all is answered."""
    monkeypatch.setattr(predicting, "PART_S", 0.5)
    corpus, many = sorted((workshop / "logs/synth/corpus").rglob("*.wav")), tmp_path / "many"
    many.mkdir()
    for number in range(400):
        os.link(corpus[number % 80], many / f"{number:04}.wav")
    words = ("predict", model, "parallel.engines=0", "run.name={}", "--", "many")
    assert run(*(word.format("whole") for word in words)) == 0
    whole = (tmp_path / "logs/predict/whole/predictions.csv").read_text()
    assert len(whole.splitlines()) == 401
    chance = random.Random(KILLS)
    for kill in range(KILLS):
        folder = tmp_path / f"logs/predict/p{kill}"
        code, _ = interrupt(signal.SIGKILL, chance.randint(1, 2), model, f"run.name={folder.name}", cwd=tmp_path)
        assert code == -signal.SIGKILL
        assert not (folder / "predictions.csv").exists()
        code, errors = interrupt(signal.SIGINT, chance.randint(1, 2), model, f"run.name={folder.name}", cwd=tmp_path)
        assert code == 130
        assert "the same command goes on from here" in errors
        here = (folder / "predictions.csv").read_text().splitlines()
        assert 1 < len(here) < 401
        assert set(here) < set(whole.splitlines())
        assert run(*(word.format(folder.name) for word in words)) == 0
        assert (folder / "predictions.csv").read_text() == whole
        assert read(folder)["metrics"]["num_computed"] == 401 - len(here)
        shutil.rmtree(folder)


def test_an_interrupt_says_how_to_go_on(model: str, workshop: Path, tmp_path: Path) -> None:
    """Of a run that was given no name."""
    shutil.copytree(workshop / "logs/synth/corpus", tmp_path / "many", copy_function=os.link)
    code, errors = interrupt(signal.SIGINT, 1, model, cwd=tmp_path)
    (folder,) = (tmp_path / "logs/predict").iterdir()
    assert code == 130
    assert f"the same command with run.name={folder.name} goes on from here" in errors


@pytest.mark.slow
def test_two_hours_take_less_than_half_a_gigabyte(model: str, tmp_path: Path) -> None:
    """Above what the model itself takes."""
    rng = np.random.default_rng(0)
    second = (0.2 * rng.standard_normal(22050) * 32767).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 22050, 1, "PCM_16") as file:
        for _ in range(7200):
            file.write(second)
    write_audio(tmp_path / "short.wav", tone(440))
    peak = (
        "import sys, resource\nfrom parallel_tunes import __main__\n"
        "try: __main__.main(sys.argv[1:])\n"
        "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    took = {}
    for name in ("short", "long"):
        command = [sys.executable, "-c", peak, "predict", model, f"run.name={name}", "--", f"{name}.wav"]
        done = subprocess.run(
            command, cwd=tmp_path, env=launch()[1], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        took[name] = int(done.stdout.split()[-1]) / 1024
    assert read(tmp_path / "logs/predict/long")["predictions"][0]["duration_s"] == 7200
    assert took["long"] - took["short"] < 500


def test_what_cannot_be_listed_is_one_line(
    run: Callable[..., int], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.txt").write_text("# nothing\n")
    (tmp_path / "other.csv").write_text("file\na.wav\n")
    said = {
        ("--", "empty"): "empty holds no file that this model takes (wav, ",
        (): "which files?",
        ("predict.files_from=no.txt",): "predict.files_from=no.txt: names no file",
        ("predict.files_from=other.csv",): "no column path",
        ("predict.files_from=gone.txt",): "No such file",
    }
    for words, reason in said.items():
        assert run("predict", model, *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line
