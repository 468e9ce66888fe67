from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import ROOT, TINY, ptunes
from safetensors.torch import load_file

WORDS = ["train", "data=synthetic", *TINY, "train.num_epochs=4", "train.checkpoint_every=2", "train.seeds=[3,4]"]


def words(workshop: Path, name: str, *more: str) -> list[str]:
    return [
        *WORDS,
        f"data.root={workshop}/logs/synth/corpus",
        f"data.shards={workshop}/logs/preprocess/corpus",
        f"run.name={name}",
        *more,
    ]


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], Any, list[Any]]:
    """Model, last checkpoint and curves of a run."""
    newest = max((folder / "checkpoints").glob("step-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    import json

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("samples_per_s")
    return load_file(folder / "model/model.safetensors"), torch.load(newest, weights_only=True), rows


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.fixture(scope="module")
def undisturbed(workshop: Path) -> Path:
    ptunes(*words(workshop, "undisturbed"), cwd=workshop)
    return workshop / "logs/train/undisturbed"


def start(workshop: Path, name: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "parallel_tunes", *words(workshop, name)]
    return subprocess.Popen(
        command, cwd=workshop, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(folder: Path, step: int) -> None:
    for _ in range(3000):
        if any(int(path.stem.split("-")[1]) >= step for path in (folder / "checkpoints").glob("step-*.pt")):
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} in {folder}")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "step"), [(signal.SIGKILL, 3), (signal.SIGTERM, 7), (signal.SIGKILL, 24)])
def test_a_killed_run_goes_on_to_the_same_bits(
    number: signal.Signals, step: int, workshop: Path, undisturbed: Path
) -> None:
    """Killed in either seed, with or without notice; the same command then ends as if nothing had been."""
    name = f"killed-{number.name}-{step}"
    process = start(workshop, name)
    wait_for_step(workshop / "logs/train" / name, step)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    if number == signal.SIGTERM:
        assert process.returncode == 0, said
        assert '"status": "preempted"' in (workshop / "logs/train" / name / "report.json").read_text()
    else:
        assert process.returncode == -number
    done = ptunes(*words(workshop, name), cwd=workshop)
    assert "goes on from step" in done.stdout
    assert same(outcome(workshop / "logs/train" / name), outcome(undisturbed))
    assert not list((workshop / "logs/train" / name).rglob(".partial-*"))


def test_a_torn_newest_checkpoint_is_passed_over(workshop: Path, undisturbed: Path) -> None:
    name = "torn"
    process = start(workshop, name)
    wait_for_step(workshop / "logs/train" / name, 6)
    process.kill()
    process.communicate(timeout=60)
    folder = workshop / "logs/train" / name / "checkpoints"
    newest = max(folder.glob("step-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = ptunes(*words(workshop, name), cwd=workshop)
    assert f"{newest.name}: damaged, passed over" in done.stderr
    assert same(outcome(workshop / "logs/train" / name), outcome(undisturbed))


def test_a_complete_run_is_told_again(workshop: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")}
    done = ptunes(*words(workshop, "undisturbed"), cwd=workshop)
    assert "complete already" in done.stdout
    assert done.stdout.splitlines()[-1] == "report: logs/train/undisturbed/report.json"
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")}


def test_another_config_or_index_is_refused(workshop: Path, undisturbed: Path) -> None:
    assert undisturbed.exists()
    done = ptunes(*words(workshop, "undisturbed", "train.lr=0.1"), cwd=workshop, check=False)
    assert done.returncode == 2
    assert "train.lr was 0.002, is 0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
