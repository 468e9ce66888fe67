"""Training on a GPU, where there is one: pytest -m gpu. What a GPU shares with a CPU is tested on CPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TINY, corpus_of, door, needs_gpu, ptunes

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build, defaults
from parallel_tunes.tasks import crops, genre
from parallel_tunes.tasks.resident import Resident
from parallel_tunes.train.gradient import GradientLearner
from parallel_tunes.train.learner import Batch

pytestmark = [pytest.mark.gpu, needs_gpu]


def words(workshop: Path, name: str, *more: str) -> list[str]:
    common = ["train", *corpus_of(workshop), *TINY, "train.num_epochs=3", "train.device=cuda"]
    return [*common, f"run.name={name}", *more]


def train(workshop: Path, name: str, *more: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Report and rows of a training."""
    assert door(*words(workshop, name, *more), cwd=workshop) == 0
    folder = workshop / "logs/train" / name
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return json.loads((folder / "report.json").read_text()), rows


@pytest.fixture(scope="module")
def on_cpu(workshop: Path) -> list[dict[str, Any]]:
    return train(workshop, "on-cpu", "train.device=cpu", "train.precision=fp32")[1]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-2), ("bf16", 0.1), ("fp16", 0.1)])
def test_it_learns_the_same_as_on_a_cpu(
    precision: str, tolerance: float, workshop: Path, on_cpu: list[dict[str, Any]]
) -> None:
    report, rows = train(workshop, f"gpu-{precision}", f"train.precision={precision}")
    assert report["device"] == torch.cuda.get_device_name()
    assert report["precision"] == precision
    for row, wanted in zip(rows, on_cpu, strict=True):
        assert row["samples"] == wanted["samples"]
        assert row["train"]["loss"] == pytest.approx(wanted["train"]["loss"], rel=tolerance)


def test_resident_tracks_and_memory_mapped_ones_give_the_same_losses(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, near = train(workshop, "near", "train.precision=fp32")
    monkeypatch.setattr(Resident, "where_it_fits", lambda *_: None)
    _, far = train(workshop, "far", "train.precision=fp32")
    for one, other in zip(near, far, strict=True):
        assert one["samples"] == other["samples"]
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-3)


def test_nccl_with_one_rank(workshop: Path) -> None:
    ptunes(*words(workshop, "nccl"), cwd=workshop, ranks=1)
    report = json.loads((workshop / "logs/train/nccl/report.json").read_text())
    assert report["device"] == torch.cuda.get_device_name()
    assert report["status"] == "complete"


def test_compiled_with_graphs(workshop: Path, on_cpu: list[dict[str, Any]]) -> None:
    report, rows = train(workshop, "compiled", "train.precision=fp32", "train.compile=true")
    assert report["time_s"]["compile"] > 0
    assert rows[-1]["train"]["loss"] == pytest.approx(on_cpu[-1]["train"]["loss"], rel=1e-2)


def test_a_batch_that_does_not_fit_is_refused_and_auto_takes_what_does(
    workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (genre, crops):  # else an evaluation would need more than a training step
        monkeypatch.setattr(module, "MAX_WINDOWS", 4)
    wide = ("model.widths=[512,512]", "train.precision=fp32", "train.num_epochs=1")
    mib = torch.cuda.get_device_properties(0).total_memory / 2**20
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1000 / mib, 1.0))
    try:
        assert door(*words(workshop, "large", *wide, "train.batch=40"), cwd=workshop) == 2
        assert "train.batch=40: does not fit into the memory of 1 x " in capsys.readouterr().err
        report, _ = train(workshop, "fitting", *wide, "train.batch=auto")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= report["global_batch"] < 40


def test_a_killed_training_goes_on_to_the_same(workshop: Path) -> None:
    verify = ["verify", *words(workshop, "resumed")[1:], "train.checkpoint_every=2", "verify.kill_at=[step:5]"]
    ptunes(*verify, cwd=workshop)
    report = json.loads((workshop / "logs/verify/resumed/report.json").read_text())
    assert report["status"] == "complete"


def test_a_profile_knows_the_time_of_kernels(workshop: Path) -> None:
    report, _ = train(workshop, "profiled", "train.profile=true", "train.batch=4")
    phases = report["profile"]["ranks"][0]["phases"]
    assert phases["forward"]["median_ms"] > 0
    assert phases["backward"]["median_ms"] > 0
    assert phases["all_reduce_exposed"]["median_ms"] == 0


def test_windows_of_steps_on_a_gpu(workshop: Path) -> None:
    report, _ = train(workshop, "windows", "train.timing=3", "train.timing_s=0.2")
    timing = report["timing"]
    (machine,) = timing["machines"]
    assert machine["gpus"][0]["name"] == report["device"]
    assert machine["gpus"][0]["memory_gib"] > 1
    assert all(rate > 0 for rate in timing["shared"]["samples_per_s"])
    assert all(joules is None or joules > 0 for joules in timing["shared"]["joules"])
    assert timing["peak_memory_mib"][0] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_waits_for_the_gpu_within_a_step(precision: str) -> None:
    """fp16 looks for infinities after each backward pass: it has to."""
    mesh = Mesh()
    mesh.start("cuda", timeout_s=60)
    values = defaults("train", "default") | {"precision": precision}
    learner = GradientLearner(
        GenreCNN(10, [16, 32]), build(TrainConfig, values, "train."), mesh,
        mean_db=-40.0, deviation_db=12.0, total_steps=10, lr=1e-3,
    )  # fmt: skip
    numbers = torch.arange(8)
    batch = Batch(torch.randn(8, 64, 64).half(), numbers, torch.ones(8), numbers, 8, numbers).pinned()
    for step in range(2):
        learner.step(batch, step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums = learner.step(batch, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sums.means()["n"] == 8
