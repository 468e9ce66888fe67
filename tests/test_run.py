from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parallel_tunes import names, schema
from parallel_tunes import run as runs
from parallel_tunes.config_synth import SynthJob
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, read_defaults


def config(**changed: Any) -> SynthJob:
    values, _ = read_defaults("synth")
    tree = {name: value for name, value in values.items() if "." not in name} | {
        "run": schema.defaults("run", "default")
    }
    return schema.build(SynthJob, tree | changed)


def make(folder: Path, job: str = "synth", **changed: Any) -> Run:
    return Run(job, config(**changed), folder, is_writer=True, started=0.0)


def test_a_run_is_taken_up_again_and_a_complete_one_is_told(tmp_path: Path) -> None:
    assert make(tmp_path / "a").open() is None
    again = make(tmp_path / "a")
    assert again.open() is None
    again.write_report(again.make_report("complete", {"metrics": {"x": 1}}))
    report = make(tmp_path / "a").open()
    assert report is not None
    assert report["metrics"] == {"x": 1}
    assert {"job", "status", "seconds", "world_size", "device", "versions", "git", "metrics"} <= set(report)


def test_a_preempted_run_is_not_complete(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.open()
    run.write_report(run.make_report("preempted", {}))
    assert make(tmp_path).open() is None


def test_foreign_folders_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not empty and holds no run of synth"):
        make(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_jobs_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path, job="train").open()
    with pytest.raises(UserError, match="holds no run of synth"):
        make(tmp_path).open()


def test_another_config_is_refused_naming_the_keys(tmp_path: Path) -> None:
    make(tmp_path).open()
    with pytest.raises(UserError, match="seed was 0, is 1"):
        make(tmp_path, seed=1).open()


def test_a_broken_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("job: [synth")
    with pytest.raises(UserError, match=r"config\.yaml"):
        make(tmp_path).open()


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"choose another run\.dir"):
        make(tmp_path / "file" / "run").open()


def test_a_second_writer_fences_off_the_first(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    first.open()
    second.open()
    second.write_bytes("kept.txt", b"second")
    with pytest.raises(UserError, match="taken this run over"):
        first.write_bytes("kept.txt", b"first")
    with pytest.raises(UserError, match="taken this run over"):
        first.record({"epoch": 0})
    assert (tmp_path / "kept.txt").read_bytes() == b"second"


def test_only_the_writer_writes(tmp_path: Path) -> None:
    make(tmp_path).open()
    before = sorted(tmp_path.iterdir())
    other = Run("synth", config(), tmp_path, is_writer=False, started=0.0)
    other.write_bytes("x", b"1")
    other.record({"epoch": 0})
    other.log("hello")
    other.warn("hello")
    other.write_report({})
    other.cut_rows(0)
    assert sorted(tmp_path.iterdir()) == before


def test_metrics_are_cut_back_with_a_torn_last_line(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.open()
    for epoch in range(3):
        run.record({"epoch": epoch})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "tr')
    run.cut_rows(2)
    assert run.rows() == [{"epoch": 0}, {"epoch": 1}]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert names.run_folder("train", None, "é (1)", started=0.0, part=None) == Path("logs/train/é (1)")
    assert names.run_folder("train", tmp_path, None, started=0.0, part=2) == tmp_path / "2"
    assert names.run_folder("train", None, None, started=1.5, part=None).name.endswith("-500")
    for name in ("../x", ".hidden", "a/b", "", "a\nb"):
        with pytest.raises(UserError, match=r"run\.name"):
            names.run_folder("train", None, name, started=0.0, part=None)
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert names.default_name("train", 0.0, None) == "71"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert names.default_name("train", 0.0, None) == "70_3"
    assert names.default_name("preprocess", 0.0, None) == "70"  # which all tasks share


def test_the_revision_is_gits(monkeypatch: pytest.MonkeyPatch) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    revision = runs.git_revision()
    assert revision is not None
    assert head.stdout.startswith(revision.removesuffix("+"))
    monkeypatch.setenv("PATH", "")
    assert runs.git_revision() is None


def test_config_yaml_can_be_read_back(tmp_path: Path) -> None:
    make(tmp_path).open()
    assert "seed: 0" in (tmp_path / "config.yaml").read_text()
    assert json.loads((tmp_path / "owner.json").read_text())["pid"] > 0
