from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import door

from parallel_tunes.benchmark import rows, training
from parallel_tunes.benchmark.suite import Cell

# two ranks hold together, if there is a core for each
RANKS = f"ours_ddp_{min(len(os.sched_getaffinity(0)), 2)}"
QUICK = ("benchmark.batch=4", "benchmark.seconds=0.05", "benchmark.repetitions=1")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = ("suite=train", f"benchmark.rows=[bare_loop,ours,{RANKS}]", "run.name=tiny")
    assert door("benchmark", *words, *QUICK, cwd=folder) == 0
    return folder / "logs/benchmark/tiny"


@pytest.mark.slow
def test_real_trainings_side_by_side(quick: Path) -> None:
    metrics = json.loads((quick / "report.json").read_text())["metrics"]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    assert [name for name in cells if not name.startswith("floor_")] == ["bare_loop", "ours", RANKS]
    for cell in cells.values():
        assert cell["unit"] == "ms a sample"
        assert cell["n"] % 4 == 0
        assert cell["per_s"] == pytest.approx(1000 / cell["median"], rel=0.01)
    assert list(metrics["ratios"]) == ["train_vs_bare_loop"]
    found = metrics["roofline"]["groups"]["training"]
    assert found["gflop_per_s"]["float32"] > 0
    assert set(found["share_reached"]) == {"bare_loop", "ours"}
    assert 0 <= metrics["taken_by_others"] < 1


@pytest.mark.slow
def test_nothing_is_left_but_the_report(quick: Path) -> None:
    assert not [path.name for path in quick.iterdir() if path.is_dir()]
    assert {"report.html", "training.png", "ranks.png"} <= {path.name for path in quick.iterdir()}
    assert "samples/s" in (quick / "log.txt").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["suite=train", "benchmark.batch=1"], "benchmark.batch=1: expected a whole number from 2 to 1024"),
        (["suite=train", "benchmark.seconds=0"], "benchmark.seconds=0: expected a number from 0.01"),
        (["suite=train", "benchmark.rows=[our]"], "benchmark.rows=our: expected some of seed_loop, "),
        (["suite=threads", "benchmark.rows=[ours]"], "benchmark.rows=ours: expected some of ranks_1_threads_1"),
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
    found = {row.name: row for row in rows.list_train_rows(64, 2)}
    assert list(found) == [
        "seed_loop", "lightning", "bare_loop", "ours", "ours_plain_malloc", "ours_ddp_1", "ours_ddp_2", "ours_ddp_2_weak",
        "ours_gpu",
    ]  # fmt: skip
    tuned = {name for name, row in found.items() if "MALLOC_TOP_PAD_" in row.command(Path("folder")).environment}
    assert tuned == set(found) - {"seed_loop", "lightning", "ours_plain_malloc"}
    assert (found["ours_ddp_2"].batch, found["ours_ddp_2_weak"].batch) == (64, 128)
    assert not [row for row in rows.list_train_rows(64, 1) if row.num_ranks > 1]
    compared = {each.name for each in rows.list_train_comparisons(2) if {each.slow, each.fast} <= set(found)}
    assert compared == {
        "train_vs_seed_loop", "train_vs_bare_loop", "train_vs_lightning", "ddp_2_vs_1_strong", "ddp_2_vs_1_weak",
        "train_gpu_vs_cpu", "malloc_tuned_vs_plain",
    }  # fmt: skip


def test_rows_of_threads() -> None:
    def combine(num_cores: int) -> list[tuple[int, int]]:
        return [(row.num_ranks, row.num_threads) for row in rows.list_threads_rows(64, num_cores)]

    assert combine(1) == [(1, 1)]
    assert combine(2) == [(1, 1), (1, 2), (2, 1)]
    assert combine(6) == [(1, 1), (1, 2), (1, 4), (1, 6), (2, 3)]
    assert combine(8) == [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2), (8, 1)]
    names = [each.name for each in rows.list_threads_comparisons(list(rows.list_threads_rows(64, 2)))]
    assert names == ["ranks_1_threads_2_vs_one", "ranks_2_threads_1_vs_one"]


def test_how_rows_are_started(tmp_path: Path) -> None:
    found = {row.name: row.command(tmp_path) for row in rows.list_train_rows(32, 2)}
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


def test_shares_of_the_quickest_product() -> None:
    def cell(name: str, group: str, kind: str) -> Cell:
        return Cell(name, name, group, kind, 1, lambda: 0.0)

    cells = [
        cell("ours", "training", "ours"), cell("floor_float32_cpu", "training", "floor"),
        cell("floor_bfloat16_cpu", "training", "floor"), cell("ours_ddp_1", "ranks", "ours"),
    ]  # fmt: skip
    medians = {"ours": 8.0, "floor_float32_cpu": 4.0, "floor_bfloat16_cpu": 2.0, "ours_ddp_1": 16.0}
    found = training.find_shares(cells, 1e9, medians)["roofline"]
    assert found == {
        "gflop_a_sample": 1.0,
        "groups": {
            "training": {"gflop_per_s": {"float32": 250.0, "bfloat16": 500.0}, "share_reached": {"ours": 0.25}},
        },
    }
    assert training.find_shares(cells[3:], 1e9, medians) == {}


def test_floors_of_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "choose_precision", lambda wanted, device: "fp32" if device.type == "cpu" else "bf16")
    cells = list(training.list_floors(1e6, 64, 2, {"training", "ranks", "training_gpu"}))
    assert [cell.name for cell in cells] == ["floor_float32_cpu", "floor_float32_cuda", "floor_bfloat16_cuda"]
    assert {cell.n for cell in cells} == {64}
    assert cells[0].measure() > 0
