"""Scaling studies through the door: each launch a training of its own, in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import PATIENCE_S, UNSIZED, corpus_of, door, launch, start, wait_until

from parallel_tunes.scaling.results import load

SMALL = [
    *UNSIZED,
    "scaling.launches=1",
    "scaling.windows=2",
    "scaling.window_s=0.05",
    "scaling.ddp_baseline=false",
    "scaling.threads=1",
]


def words(workshop: Path, name: str, *more: str) -> list[str]:
    return ["scaling", *corpus_of(workshop), *SMALL, f"run.name={name}", *more]


def read(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def outcomes(folder: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("cells/*/launch-0.json")}


GRID = ["scaling.gpus=[1]", "scaling.batch=[8,16]", "scaling.axes.engines=[0]", "scaling.peer_tracks=3"]


@pytest.mark.slow
def test_an_interrupted_study_goes_on_to_a_whole_report_and_is_drawn_again(tmp_path: Path, workshop: Path) -> None:
    """In one: tests that share a study may be split over workers, which would each make it."""
    study = interrupt_and_go_on(workshop)
    check_report(study)
    check_drawn_again(study, tmp_path / "again", workshop)
    check_missing(study, tmp_path / "missing", workshop)
    check_beside(study, workshop)


def interrupt_and_go_on(workshop: Path) -> Path:
    """Two trainings and a preprocessing beside librosa; interrupted within the second of them."""
    folder = workshop / "logs/scaling/study"
    process = start(*words(workshop, "study", *GRID), cwd=workshop)
    wait_until(lambda: outcomes(folder), what="the first launch ends")
    wait_until(lambda: len(list(folder.glob("cells/*/launch-0.log"))) > 1, what="the next one begins")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    done = outcomes(folder)
    assert len(done) == 1
    assert read(folder)["status"] == "preempted"
    assert door(*words(workshop, "study", *GRID), cwd=workshop) == 0
    assert {name: outcomes(folder)[name] for name in done} == done  # not run again
    return folder


def check_report(study: Path) -> None:
    report = read(study)
    assert report["status"] == "complete"
    metrics = report["metrics"]
    assert metrics["missing"] == []
    assert [(cell["name"], cell["status"]) for cell in metrics["cells"]] == [
        ("gpus1-batch8", "ok"),
        ("gpus1-batch16", "ok"),
    ]
    assert metrics["quick"]
    assert metrics["unit"] == "rank"
    for cell in metrics["cells"]:
        train = read(study / "cells" / cell["name"] / "launch-0")
        assert train["job"] == "train"
        assert train["steps"] == 1
        assert train["global_batch"] == cell["global_batch"]
        assert train["timing"]["shared"]["samples_per_s"][0] > 0
        assert cell["gpu_hours"]["median"] > 0
    (engines,) = metrics["preprocess"]["cells"]
    assert engines["name"] == "engines0"
    assert engines["speedup"]["median"] > 0
    assert metrics["preprocess"]["serial"]["num_tracks"] == 3
    assert not list(study.glob("cells/engines0/launch-0/shard-*.npy"))
    assert [(machine["threads"], machine["cores_a_rank"]) for machine in report["machines"]] == [(1, 1)]
    assert metrics["recommended"] in {cell["name"] for cell in metrics["cells"]}
    for name in ("report.html", "results.parquet", "results.csv", "cells.tex", "cells.csv"):
        assert (study / name).stat().st_size


def check_drawn_again(study: Path, copy: Path, workshop: Path) -> None:
    """From results alone."""
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("cells", "*.html", "*.png"))
    assert door("scaling", f"report={copy}", cwd=workshop) == 0
    again, before = read(copy)["metrics"], read(study)["metrics"]
    assert again == before
    assert (copy / "report.html").exists()
    assert not (copy / "cells").exists()


def check_missing(study: Path, copy: Path, workshop: Path) -> None:
    """A report says what is missing."""
    shutil.copytree(study, copy)
    (copy / "cells/gpus1-batch8/launch-0.json").unlink()
    assert door("scaling", f"report={copy}", cwd=workshop) == 0
    metrics = read(copy)["metrics"]
    assert metrics["missing"] == ["gpus1-batch8: launch 0"]
    assert [cell["status"] for cell in metrics["cells"]] == ["missing", "ok"]
    assert "gpus1-batch8: launch 0" in (copy / "report.html").read_text()
    assert not (copy / "cells/gpus1-batch8/launch-0.json").exists()  # nothing was run


def check_beside(study: Path, workshop: Path) -> None:
    """Two studies beside each other."""
    assert door("scaling", f"compare=[{study},{study}]", "run.name=beside", cwd=workshop) == 0
    report = read(workshop / "logs/scaling/beside")
    assert {cell["ratio"]["median"] for cell in report["metrics"]["cells"]} == {1.0}
    assert (workshop / "logs/scaling/beside/report.html").exists()


@pytest.mark.slow
def test_a_launch_that_fails_is_told_and_is_to_be_done_again(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, grid = workshop / "logs/scaling/late", ["scaling.gpus=[1]", "scaling.batch=[8]"]
    assert door(*words(workshop, "late", *grid, "scaling.timeout_s=1"), cwd=workshop) == 0
    assert "gpus1-batch8, launch 0: failed: no end within scaling.timeout_s=1" in capsys.readouterr().err
    (cell,) = read(folder)["metrics"]["cells"]
    assert (cell["status"], cell["n"]) == ("failed", 0)
    assert "no end within" in (folder / "report.html").read_text()
    assert door(*words(workshop, "late", *grid, "scaling.print=true"), cwd=workshop) == 0
    assert "1 of 1 launches to do" in capsys.readouterr().out


@pytest.mark.slow
def test_out_of_memory_is_a_result(workshop: Path) -> None:
    """Found out before the first step, with the need; the study goes on, and does not try it again."""
    folder = workshop / "logs/scaling/wide"
    wide = [
        "scaling.gpus=[1]",
        "scaling.batch=[8]",
        "model.widths=[8,4096,8]",
        "task.crop_s=2",
        "scaling.axes.engines=[0]",
    ]
    command, environment = launch(*words(workshop, "wide", *wide))
    limited = ["bash", "-c", f'ulimit -v {3 * 2**20}; exec "$@"', "-", *command]
    done = subprocess.run(limited, cwd=workshop, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = read(folder)["metrics"]
    (cell,) = metrics["cells"]
    assert cell["status"] == "oom"
    assert re.search(r"an evaluation of \d+ windows does not fit into the memory", cell["reason"])
    assert cell["peak_memory_mib"][0] > 800
    assert metrics["preprocess"]["cells"][0]["status"] == "ok"
    kept = outcomes(folder)
    assert door(*words(workshop, "wide", *wide), cwd=workshop) == 0
    assert outcomes(folder) == kept


def test_print_runs_nothing(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["scaling.gpus=[1]", "scaling.batch=[8,16]", "scaling.launches=3", "scaling.print=true"]
    assert door(*words(workshop, "printed", *more), cwd=workshop) == 0
    said = capsys.readouterr().out
    assert "gpus1-batch16: 3 of 3 launches to do" in said
    assert "hpc/torchrun.sh 1 train" in said
    assert "train.batch=16" in said
    assert "6 launches to do, about 0.0" in said
    assert "rank-hours" in said
    assert not (workshop / "logs/scaling/printed/cells").exists()


def test_sbatch_texts_of_a_study_are_printed(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        "scaling.gpus=[1,8]",
        "scaling.launches=2",
        "scaling.print=true",
        "scaling.launcher=slurm",
        "resources.gpus_per_node=4",
    ]
    assert door(*words(workshop, "texts", *more, "scaling.exclusive=true"), cwd=workshop) == 0
    said = capsys.readouterr().out
    assert said.count("#SBATCH --array=0,1") == 2
    assert "#SBATCH --nodes=2" in said
    assert "#SBATCH --gpus-per-node=4" in said
    assert "#SBATCH --exclusive" in said
    assert "scaling.share=gpus8" in said
    assert "GPU-hours" in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["scaling.gpus=[999]", "scaling.batch=[1000]"], "999 of 1 threads would share this machine's"),
        (["scaling.share=gpus7"], "scaling.share=gpus7: this study has the shapes gpus1, gpus2"),
        (["report=nowhere"], "report=nowhere: no scaling study"),
        (["report=logs/train/tiny"], "report=logs/train/tiny: no scaling study"),
        (["compare=[logs/train/tiny]"], "expected the folders of two studies"),
        (["compare=[logs/train/tiny,logs/train/tiny]"], "no results of a scaling study"),
    ],
)
def test_bad_input_is_one_line(more: list[str], says: str, workshop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert door(*words(workshop, f"bad-{abs(hash(says))}", *more), cwd=workshop) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_the_folder_of_another_study_is_refused(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = ["scaling.gpus=[1]", "scaling.print=true"]
    assert door(*words(workshop, "other", *printed), cwd=workshop) == 0
    capsys.readouterr()
    assert door(*words(workshop, "other", *printed, "scaling.batch=[4]"), cwd=workshop) == 2
    assert "another config (scaling.batch was [64], is [4])" in capsys.readouterr().err


def test_paths_of_studies_are_taken_verbatim(
    tmp_path: Path, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "a (b) & 'c'=é"
    odd.mkdir()
    assert door("scaling", f"compare=[{odd}, {odd}]", "run.name=odd", cwd=workshop) == 2
    assert f"{odd}/results.parquet: no results" in capsys.readouterr().err
    assert not list(odd.iterdir())
    with pytest.raises(Exception, match="no results"):
        load(odd)
