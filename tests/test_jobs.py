from __future__ import annotations

import json
import os
import resource
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
from fakes import (
    PATIENCE_S,
    TINY,
    corpus_of,
    door,
    launch,
    tone,
    wait_until,
    write_audio,
    write_bad,
    write_tree,
)

Door = Callable[..., int]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_synth_writes_the_corpus_it_lists(workshop: Path) -> None:
    corpus = workshop / "logs/synth/corpus"
    listed = pd.read_csv(corpus / "tracks.csv")
    assert len(listed) == 80
    assert listed["artist"].nunique() == 40
    for path in listed["path"][::20]:
        samples, rate_hz = soundfile.read(corpus / path)
        assert (len(samples), rate_hz) == (44100, 22050)
    assert read(corpus / "report.json")["metrics"]["num_tracks"] == 80


def test_synth_makes_the_same_bytes_and_goes_on(run: Door, workshop: Path, tmp_path: Path) -> None:
    words = ("synth", "num_artists=1", "tracks_per_artist=1", "duration_s=2", "run.name=a")
    assert run(*words) == 0
    one = tmp_path / "logs/synth/a/funk/funk-000-00.wav"
    assert one.read_bytes() == (workshop / "logs/synth/corpus/funk/funk-000-00.wav").read_bytes()
    (tmp_path / "logs/synth/a/report.json").unlink()
    kept = one.stat().st_mtime_ns
    (tmp_path / "logs/synth/a/dub/dub-000-00.wav").unlink()
    assert run(*words) == 0
    assert (tmp_path / "logs/synth/a/dub/dub-000-00.wav").exists()
    assert one.stat().st_mtime_ns == kept


def test_bad_files_are_listed_and_the_others_done(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "music")
    write_audio(tmp_path / "music/high/stereo.wav", tone(900, 1.0, 44100, 2), 44100)
    write_audio(tmp_path / "music/high/phone.wav", tone(900, 1.0, 8000), 8000)
    reasons = write_bad(tmp_path / "music")
    assert run("preprocess", f"data.root={tmp_path}/music", "run.name=a") == 0
    manifest = read(tmp_path / "logs/preprocess/a/manifest.json")
    found = {failure["path"]: failure["reason"] for failure in manifest["failed"]}
    assert set(found) == set(reasons)
    assert all(reasons[path] in found[path] for path in found)
    assert manifest["num_tracks"] == 14
    said = capsys.readouterr()
    assert all(path in said.err for path in reasons)
    assert said.out.splitlines()[-1] == "report: logs/preprocess/a/report.json"
    assert read(tmp_path / "logs/preprocess/a/report.json")["metrics"]["num_failed"] == 8


def test_a_second_preprocess_does_only_what_is_missing(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music")
    words = ("preprocess", f"data.root={tmp_path}/music", "run.name=a", "preprocess.shard_mib=0.1")
    assert run(*words) == 0
    folder = tmp_path / "logs/preprocess/a"
    manifest = read(folder / "manifest.json")
    assert len(manifest["shards"]) >= 2
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
    assert run(*words) == 0
    assert read(folder / "report.json")["metrics"]["num_computed"] == 0
    gone = manifest["shards"][1]["file"]
    (folder / gone).unlink()
    (folder / "manifest.json").unlink()
    assert run(*words) == 0
    assert read(folder / "report.json")["metrics"]["num_computed"] == manifest["shards"][1]["num_tracks"]
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.npy")}
    assert {name for name in before if before[name] != after[name]} == {gone}
    assert read(folder / "manifest.json")["shards"] == manifest["shards"]


def test_a_shard_that_was_cut_off_is_made_again(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=3)
    words = ("preprocess", f"data.root={tmp_path}/music", "run.name=a")
    assert run(*words) == 0
    (shard,) = (tmp_path / "logs/preprocess/a").glob("shard-*.npy")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert run(*words) == 0
    assert shard.read_bytes() == whole


def test_changed_and_added_files_are_taken_up(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=3)
    words = ("preprocess", f"data.root={tmp_path}/music", "run.name=a")
    assert run(*words) == 0
    write_audio(tmp_path / "music/high/new.wav", tone(3000))
    assert run(*words) == 0
    assert read(tmp_path / "logs/preprocess/a/manifest.json")["num_tracks"] == 7


PAUSE = """
import contextlib, pathlib, sys, time
from parallel_tunes import __main__, preprocess

map_tasks, paused = preprocess.map_tasks, pathlib.Path(sys.argv[1])

def map_and_pause(*words, **more):
    with contextlib.closing(map_tasks(*words, **more)) as shards:
        for made in shards:
            yield made
            paused.touch()
            while True:  # a signal may come to another thread
                time.sleep(0.05)

preprocess.map_tasks = map_and_pause
__main__.main(sys.argv[2:])
"""


@pytest.mark.parametrize(("number", "engines"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_an_interrupted_preprocess_leaves_nothing_half_written_and_goes_on(
    number: signal.Signals, engines: int, workshop: Path
) -> None:
    """Stopped by Ctrl-C or a scheduler; the whole process group gets the signal, as from a terminal, after the first shard."""
    name = f"stopped-{number.name}-{engines}"
    words = [
        "preprocess",
        "data=synthetic",
        "data.root=logs/synth/corpus",
        f"run.name={name}",
        "preprocess.shard_mib=0.3",
        f"parallel.engines={engines}",
    ]
    folder, paused = workshop / "logs/preprocess" / name, workshop / f"{name}-paused"
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSE, str(paused), *words], cwd=workshop, env=launch()[1],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: paused.exists() or process.poll() is not None, what="a shard")
    os.killpg(process.pid, number)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not list(folder.glob(".partial-*"))
    assert not (folder / "manifest.json").exists()
    assert door(*words[:-1], cwd=workshop) == 0
    whole = read(workshop / "logs/preprocess/corpus/manifest.json")
    again = read(folder / "manifest.json")
    assert again["index_digest"] == whole["index_digest"]
    assert 0 < read(folder / "report.json")["metrics"]["num_computed"] < 80


def test_pictures(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=4)
    write_audio(tmp_path / "music/high/plain.flac", tone(2500))
    words = ("preprocess", f"data.root={tmp_path}/music", "preprocess.pictures=true", "run.name=a")
    assert run(*words) == 0
    import matplotlib.image

    pictures = sorted((tmp_path / "logs/preprocess/a/spectrograms").glob("*/*.png"))
    assert len(pictures) == 9
    assert {path.name for path in pictures if "plain" in path.name} == {
        "plain.png",
        "high_plain.wav.png",
        "high_plain.flac.png",
    }
    pictures[0].unlink()
    kept = pictures[1].stat().st_mtime_ns
    assert run(*words) == 0
    assert pictures[0].exists()
    assert pictures[1].stat().st_mtime_ns == kept
    pixels = matplotlib.image.imread(tmp_path / "logs/preprocess/a/spectrograms/low & slow/plain.png")
    assert pixels.shape[:2] == (128, 1 + int(1.2 * 22050) // 512)
    rows = pixels[..., :3].sum(2).mean(1)
    assert rows[64:].max() > rows[:64].max()  # a low tone lies at the bottom


def test_train_makes_the_shards_it_finds_missing_and_finds_them_again(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "music", num_tracks=8)
    words = ("train", f"data.root={tmp_path}/music", *TINY, "train.num_epochs=1", "split=stratified")
    assert run(*words, "run.name=a") == 0
    assert "no shards for this data and front end yet" in capsys.readouterr().out
    assert run(*words, "run.name=b") == 0
    assert "no shards" not in capsys.readouterr().out
    assert len(list((tmp_path / "logs/preprocess").iterdir())) == 1
    assert (
        read(tmp_path / "logs/train/a/report.json")["metrics"] == read(tmp_path / "logs/train/b/report.json")["metrics"]
    )


def test_a_label_with_one_track_and_a_split_without_validation(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "music", num_tracks=5)
    write_audio(tmp_path / "music/solo/only.wav", tone(5000))
    words = [
        "split.train=0.8",
        "split.valid=0",
        "split.test=0.2",
        "model.widths=[4,8]",
        "task.crop_s=1",
        "train.num_epochs=1",
        "train.batch=4",
    ]
    assert run("train", f"data.root={tmp_path}/music", *words, "run.name=a") == 0
    assert "label 'solo' has 1 track: none is left for test" in capsys.readouterr().err
    metrics = read(tmp_path / "logs/train/a/report.json")["metrics"]
    assert metrics["valid"] is None
    assert metrics["test"]["n"] == 2


def test_no_test_split_is_null(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=5)
    words = [
        "split.train=0.8",
        "split.valid=0.2",
        "split.test=0",
        "model.widths=[4,8]",
        "task.crop_s=1",
        "train.num_epochs=1",
        "train.batch=4",
    ]
    assert run("train", f"data.root={tmp_path}/music", *words, "run.name=a") == 0
    assert read(tmp_path / "logs/train/a/report.json")["metrics"]["test"] is None
    assert (tmp_path / "logs/train/a/report.html").exists()


def test_only_one_label_or_only_bad_files(run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audio(tmp_path / "one/pop/a.wav", tone(440))
    write_audio(tmp_path / "one/pop/b.wav", tone(550))
    assert run("train", f"data.root={tmp_path}/one", "run.name=a") == 2
    assert "at least two labels" in capsys.readouterr().err
    write_bad(tmp_path / "none")
    assert run("preprocess", f"data.root={tmp_path}/none", "run.name=b") == 2
    assert "none of the 8 files gives features" in capsys.readouterr().err
    assert read(tmp_path / "logs/preprocess/b/report.json")["status"] == "failed"


def test_other_data_under_the_same_name_is_refused(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name, num_tracks=8)
    write_audio(tmp_path / "two/high/another.wav", tone(4000))
    words = [*TINY, "train.num_epochs=1", "split=stratified", "run.name=a"]
    assert run("train", f"data.root={tmp_path}/one", *words) == 0
    (tmp_path / "logs/train/a/report.json").unlink()
    assert run("train", f"data.root={tmp_path}/two", *words) == 2
    assert "another data index" in capsys.readouterr().err


def test_duplicates_are_reported_and_dropped(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=10)
    for path in sorted((tmp_path / "music/high").glob("*.wav")):
        (tmp_path / "music/high" / f"copy of {path.name}").write_bytes(path.read_bytes())
    words = ("train", f"data.root={tmp_path}/music", *TINY, "train.num_epochs=1")
    assert run(*words, "run.name=a") == 0
    split = read(tmp_path / "logs/train/a/report.json")["split"]
    assert len(split["duplicates"]) == 10
    assert any("on both sides" in warning for warning in split["warnings"])
    assert run(*words, "split.drop_duplicates=true", "run.name=b") == 0
    split = read(tmp_path / "logs/train/b/report.json")["split"]
    assert split["num_dropped"] == 10
    assert sum(split["tracks"].values()) == 20


def test_a_diverging_training_stops_in_one_line(run: Door, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            "train",
            *corpus_of(workshop),
            *TINY,
            "train.lr=1e38",
            "train.warmup=0",
            "train.precision=fp32",
            "run.name=a",
        )
        == 2
    )
    assert "lower train.lr" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_job_goes_on_when_there_is_room(
    run: Door, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's limit on file sizes stands in for a full disk: writing beyond it fails in the same way."""
    words = ("preprocess", "data=synthetic", f"data.root={workshop}/logs/synth/corpus", "run.name=a")
    before, heeded = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        assert run(*words) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heeded)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "the same command goes on from there" in errors[0]
    assert not list((tmp_path / "logs/preprocess/a").glob("*.npy"))
    assert not list((tmp_path / "logs/preprocess/a").glob(".partial-*"))
    assert run(*words) == 0
    assert read(tmp_path / "logs/preprocess/a/manifest.json")["num_tracks"] == 80


def test_curves_fall_on_a_task_that_can_be_learnt(run: Door, tmp_path: Path) -> None:
    write_tree(tmp_path / "music", num_tracks=12)
    words = ("train", f"data.root={tmp_path}/music", *TINY, "train.num_epochs=12", "train.lr=0.02", "run.name=a")
    assert run(*words) == 0
    rows = [json.loads(line) for line in (tmp_path / "logs/train/a/metrics.jsonl").read_text().splitlines()]
    losses = [row["train"]["loss"] for row in rows]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    assert read(tmp_path / "logs/train/a/report.json")["metrics"]["test"]["accuracy"] == 1.0
