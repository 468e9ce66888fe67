from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fakes import ROOT, TINY, Cluster, door, write_tree

WORDS = ["task=genre", "data=synthetic", "data.root=logs/synth/corpus", "data.shards=logs/preprocess/corpus", *TINY]


def test_the_text_is_the_template_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resources = ["resources.nodes=2", "resources.gpus_per_node=4", "resources.time=2h", "resources.partition=long"]
    words = ["data.root=my music", "run.name=it's $HOME", "train.lr=0.01"]
    assert (
        door("submit", "print=true", *resources, "resources.options=--exclusive --mem=16G", *words, cwd=tmp_path) == 0
    )
    text = capsys.readouterr().out.rpartition("report: ")[0]
    for line in ("nodes=2", "gpus-per-node=4", "time=02:00:00", "partition=long", "exclusive", "mem=16G", "requeue"):
        assert f"#SBATCH --{line}\n" in text
    assert text.startswith("#!/bin/bash\n#SBATCH")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    command = next(line for line in text.splitlines() if line.startswith("exec "))
    assert shlex.split(command)[-3:] == words  # as they were given, whatever the shell makes of them
    assert str(ROOT) in text
    report = json.loads(next((tmp_path / "logs/submit").glob("*/report.json")).read_text())
    assert report["sbatch"] == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.rot=x"], "unknown key data.rot (did you mean data.root?)"),
        (["job=trian"], "did you mean train?"),
        (["train.lr=-1"], "train.lr=-1: expected a number of at least 0"),
        (["print=true", "run.name=a\nb"], "line break"),
        (["print=true", "resources.time=soon"], "expected a time such as 2h"),
        (["print=true", "resources.options=a_b"], "is no option of sbatch"),
    ],
)
def test_what_cannot_be_submitted_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door("submit", *words, cwd=tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_slurm_it_says_how_to_try_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert door("submit", "data.root=x", cwd=tmp_path) == 2
    assert "hpc/cluster/up" in capsys.readouterr().err


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resources.partition=debgu"], "resources.partition=debgu: unknown (did you mean debug?)"),
        (["resources.time=2h"], "partition debug allows at most 00:30:00"),
        (["resources.gpus_per_node=5"], "resources.gpus_per_node=5: the nodes of partition debug have at most 4 each"),
        (["resources.cpus_per_task=9"], "have at most 4 each"),
        (["resources.nodes=5"], "partition debug gives a job at most 4"),
        (["data.root=nowhere"], "data.root=nowhere: No such file or directory"),
        (["run.name=tiny", "train.num_epochs=2"], "complete already"),
        (["run.name=tiny", "train.lr=0.5"], "another config"),
        (["resources.options=--constraint=nothing"], "sbatch: Batch job submission failed: Invalid feature specification"),
    ],
)  # fmt: skip
def test_submit_refuses(
    words: list[str], said: str, cluster: Cluster, workshop: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    same = WORDS if "another" in said or "complete" in said else [*WORDS, "train.num_epochs=3"]
    if "run.name=tiny" in words:
        same = [word for word in WORDS if word not in ("task=genre", "data.shards")]
    before = set(cluster.ask("squeue", "--noheader", "--format=%F").split())  # what other tests have left to end
    capsys.readouterr()
    assert door("submit", *same, *words, cwd=workshop) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert said in line
    assert set(cluster.ask("squeue", "--noheader", "--format=%F").split()) <= before


def test_a_folder_that_cannot_be_read_is_refused() -> None:
    """As an ordinary user where the tests are run by root, who may read everything."""
    folder = Path(tempfile.mkdtemp())  # tmp_path lies in a folder of this user alone
    folder.chmod(0o755)
    write_tree(folder / "music", num_tracks=1)
    (folder / "music").chmod(0o000)
    code = (
        "import os, sys\n"
        "from parallel_tunes.config import DataConfig\n"
        "from parallel_tunes import schema, submission\n"
        "from types import SimpleNamespace\n"
        "data = schema.build(DataConfig, {**schema.defaults('data', 'folder'), 'root': sys.argv[1]})\n"
        "os.geteuid() or (os.setgid(65534), os.setuid(65534))\n"
        "submission.check_data(SimpleNamespace(data=data))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "music")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    (folder / "music").chmod(0o755)
    shutil.rmtree(folder)
    assert "cannot be read by you" in done.stderr, done.stderr


@pytest.mark.slurm
@pytest.mark.slow
def test_submit_warns_estimates_asks_submits_and_follows(
    cluster: Cluster, workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    words = [
        *WORDS,
        "train.num_epochs=2",
        "run.name=followed",
        "resources.tasks_per_node=2",
        "resources.cpus_per_task=1",
    ]
    assert door("submit", *words, "resources.partition=cancels", "test=true", cwd=workshop) == 0
    said = capsys.readouterr()
    assert "partition cancels cancels the jobs it preempts: requeueing will not help there" in said.err
    assert "CPU-hours for 2 epochs of 40 tracks" in said.out
    assert "to start at" in said.out
    assert not (workshop / "logs/train/followed").exists()
    assert door("submit", *words, "follow=true", cwd=workshop) == 0
    said = capsys.readouterr()
    assert "seed 0 epoch   2/2" in said.out
    assert "COMPLETED" in said.out
    report = json.loads((workshop / "logs/train/followed/report.json").read_text())
    assert (report["status"], report["world_size"]) == ("complete", 2)


@pytest.mark.slurm
@pytest.mark.slow
def test_the_doctor_looks_into_an_allocation(
    cluster: Cluster, workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    words = ["job=doctor", "resources.nodes=2", "resources.tasks_per_node=2", "resources.cpus_per_task=1"]
    assert door("submit", *words, "run.name=looked", "follow=true", cwd=workshop) == 0, capsys.readouterr().out
    checks = {
        check["name"]: check
        for check in json.loads((workshop / "logs/doctor/looked/report.json").read_text())["checks"]
    }
    assert all(check["ok"] for check in checks.values())
    assert "4 ranks on n" in checks["rendezvous"]["text"]
    assert checks["USR1"]["text"] == "reached 4 of 4 ranks"
    assert "GB/s" in checks["all-reduce"]["text"]
    assert {"disk", "requeue", "binding", "gpus", "allocation", "slurm"} <= set(checks)


def test_the_doctor_on_a_bare_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "nproc", "env"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{tmp_path}/bin")
    assert door("doctor", "run.name=a", cwd=tmp_path) == 0, capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "report: logs/doctor/a/report.json"
    assert all(line.startswith("ok    ") for line in lines[:-1])
    report = json.loads((tmp_path / "logs/doctor/a/report.json").read_text())
    assert report["metrics"] == {"ok": True, "num_checks": len(lines) - 1}
