from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import door

from parallel_tunes.benchmark.training import list_comparisons, list_rows

# one thread a rank: two would wait for each other where other tests have the cores
RANKS = [f"ours_ddp_{num}" for num in (1, 2) if num <= len(os.sched_getaffinity(0))]
QUICK = ("benchmark.batch=4", "benchmark.seconds=0.05", "benchmark.repetitions=1")


@pytest.mark.slow
def test_real_trainings_side_by_side(tmp_path: Path) -> None:
    words = ("suite=train", f"benchmark.rows=[{','.join(['bare_loop', *RANKS])}]", "run.name=tiny")
    assert door("benchmark", *words, *QUICK, cwd=tmp_path) == 0
    folder = tmp_path / "logs/benchmark/tiny"
    metrics = json.loads((folder / "report.json").read_text())["metrics"]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    assert list(cells) == ["bare_loop", *RANKS]
    for cell in cells.values():
        assert cell["unit"] == "ms a sample"
        assert cell["n"] % 4 == 0
        assert cell["per_s"] == pytest.approx(1000 / cell["median"], rel=0.01)
    assert list(metrics["ratios"]) == ["ddp_2_vs_1_strong"][: len(RANKS) - 1]
    assert not [path.name for path in folder.iterdir() if path.is_dir()]
    assert {"report.html", "training.png", "ranks.png"} <= {path.name for path in folder.iterdir()}
    assert "samples/s" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["suite=train", "benchmark.batch=1"], "benchmark.batch=1: expected a whole number from 2 to 1024"),
        (["suite=train", "benchmark.rows=[our]"], "benchmark.rows=our: expected some of seed_loop, "),
        (["suite=train", "data.root=music"], "data.root=music: suite=train makes its own tracks; leave data.root out"),
    ],
)
def test_refusals(words: list[str], says: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", *words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert says in errors[0]


def test_rows_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that are not installed, and ranks without a core, are left out; whatever is compared is there."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "lightning" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = {row.name: row for row in list_rows(64, 2)}
    assert list(found) == [
        "seed_loop", "lightning", "bare_loop", "ours", "ours_plain_malloc", "ours_ddp_1", "ours_ddp_2", "ours_ddp_2_weak",
        "ours_gpu",
    ]  # fmt: skip
    tuned = {name for name, row in found.items() if "MALLOC_TOP_PAD_" in row.command(Path("folder")).environment}
    assert tuned == set(found) - {"seed_loop", "lightning", "ours_plain_malloc"}
    assert (found["ours_ddp_2"].batch, found["ours_ddp_2_weak"].batch) == (64, 128)
    assert not [row for row in list_rows(64, 1) if row.num_ranks > 1]
    compared = {each.name for each in list_comparisons(2) if {each.slow, each.fast} <= set(found)}
    assert compared == {
        "train_vs_seed_loop", "train_vs_bare_loop", "train_vs_lightning", "ddp_2_vs_1_strong", "ddp_2_vs_1_weak",
        "train_gpu_vs_cpu", "malloc_tuned_vs_plain",
    }  # fmt: skip


def test_how_rows_are_started(tmp_path: Path) -> None:
    found = {row.name: row.command(tmp_path) for row in list_rows(32, 2)}
    assert found["seed_loop"].environment == {}
    assert found["seed_loop"].words[-2:] == (str(tmp_path / "tracks"), "32")
    assert "MALLOC_MMAP_THRESHOLD_" in found["bare_loop"].environment
    assert "OMP_NUM_THREADS" not in found["bare_loop"].environment
    ours = found["ours_ddp_2_weak"]
    assert ours.environment["OMP_NUM_THREADS"] == "1"
    assert set(found["bare_loop"].environment) < set(ours.environment)
    assert {
        "--nproc-per-node=2",
        "train.batch=64",
        "train.device=cpu",
        f"run.dir={tmp_path / 'ours_ddp_2_weak'}",
    } <= set(ours.words)
