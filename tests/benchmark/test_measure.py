from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from parallel_tunes.benchmark import machine
from parallel_tunes.benchmark.measure import Repetition, measure, measure_once, summarise
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.config_run import RunConfig
from parallel_tunes.run import Run


class Bench:
    """A suite of made-up times, which counts what is measured."""

    def __init__(self, folder: Path, key: str = "here") -> None:
        self.order: list[str] = []
        cells = (self.cell("slow", 2.0), self.cell("fast", 0.5), self.cell("cold", 9.0, cold=True))
        self.suite = Suite(
            unit="clip", groups={"all": "All"}, cells=cells, comparisons=(Comparison("fast_vs_slow", "", "slow", "fast"),),
            method=(), notes=(), key=key, examine=lambda medians: {"seen": dict(medians)},
        )  # fmt: skip
        self.run = Run(
            "benchmark", RunConfig(dir=None, name=None, page=True, max_restarts=1), folder, is_writer=True, started=0
        )
        self.run.open()

    def cell(self, name: str, seconds: float, *, cold: bool = False) -> Cell:
        def work() -> float:
            self.order.append(name)
            return seconds

        return Cell(name, name, "all", "ours", 10, work, cold=cold)

    def measure(self, repetitions: int) -> list[Repetition]:
        return measure(self.suite, self.run, repetitions=repetitions, seed=3)


def test_each_cell_once_a_repetition_after_a_first_round(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    done = bench.measure(5)
    assert Counter(bench.order) == {"slow": 6, "fast": 6, "cold": 5}  # what starts from nothing is not warmed up
    assert done[0].ms == {"slow": 200.0, "fast": 50.0, "cold": 900.0}
    rounds = [bench.order[2 + 3 * number :][:3] for number in range(5)]
    assert all(sorted(each) == ["cold", "fast", "slow"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    again = Bench(tmp_path / "again")
    again.measure(5)
    assert again.order == bench.order


def test_what_is_recorded_is_not_measured_again(tmp_path: Path) -> None:
    Bench(tmp_path / "run").measure(2)
    bench = Bench(tmp_path / "run")
    assert len(bench.measure(3)) == 3
    assert Counter(bench.order)["cold"] == 1
    assert [row["repetition"] for row in bench.run.rows()] == [0, 1, 2]
    bench = Bench(tmp_path / "run")
    assert len(bench.measure(3)) == 3
    assert not bench.order


def test_a_torn_line_is_measured_again(tmp_path: Path) -> None:
    Bench(tmp_path / "run").measure(3)
    rows = tmp_path / "run/metrics.jsonl"
    rows.write_text(rows.read_text()[:-20])
    bench = Bench(tmp_path / "run")
    assert len(bench.measure(3)) == 3
    assert Counter(bench.order)["cold"] == 1
    assert [json.loads(line)["repetition"] for line in rows.read_text().splitlines()] == [0, 1, 2]


def test_repetitions_from_elsewhere_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bench(tmp_path / "run").measure(2)
    bench = Bench(tmp_path / "run", key="there")
    assert len(bench.measure(2)) == 2
    assert Counter(bench.order)["cold"] == 2
    assert "2 repetitions are of another machine" in capsys.readouterr().err


def test_a_ratio_is_taken_within_each_repetition(tmp_path: Path) -> None:
    """A machine that is slower in some repetitions than in others leaves the ratio as it is."""
    bench = Bench(tmp_path / "run")
    done = [
        Repetition({name: drift * ms for name, ms in found.ms.items()}, 0.0)
        for drift, found in zip((1, 7, 2, 5, 3, 9, 4), bench.measure(7), strict=True)
    ]
    metrics = summarise(bench.suite, done)
    assert metrics["cells"][0]["high"] > 2 * metrics["cells"][0]["low"]
    assert metrics["ratios"] == {"fast_vs_slow": 4.0}
    assert metrics["intervals"] == {"fast_vs_slow": [4.0, 4.0]}


def test_figures_of_a_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "run")
    metrics = summarise(bench.suite, bench.measure(7))
    assert metrics["ratios"] == {"fast_vs_slow": 4.0}
    assert metrics["intervals"] == {"fast_vs_slow": [4.0, 4.0]}
    assert metrics["interval_level"] > 0.95
    assert metrics["seen"]["cold"] == 900.0
    cell = metrics["cells"][1]
    assert (cell["name"], cell["n"], cell["unit"], cell["repetitions"]) == ("fast", 10, "ms a clip", 7)
    assert (cell["low"], cell["median"], cell["high"]) == (50.0, 50.0, 50.0)


def test_one_thread_where_a_cell_wants_it() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: dict[str, int] = {}

    def cell(name: str, *, one_thread: bool) -> Cell:
        def work() -> float:
            seen[name] = torch.get_num_threads()
            return 1.0

        return Cell(name, name, "all", "ours", 1, work, one_thread=one_thread)

    try:
        cells = [cell("pinned", one_thread=True), cell("free", one_thread=False)]
        measure_once(cells, np.random.default_rng(0), lambda: None)
        assert seen == {"pinned": 1, "free": 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_who_had_the_cores_while_processes_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine was busy with, less what the cell's own processes took, over all cores."""
    clock, own, busy = [0.0], [5.0], [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(machine, "busy_s", lambda: busy[0])
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def work() -> float:
        clock[0], own[0], busy[0] = clock[0] + 10, own[0] + 12, busy[0] + 17
        return 8.0  # of the 10 s

    cell = Cell("a", "a", "all", "ours", 4, work, cpu_s=lambda: own[0])
    found = measure_once([cell], np.random.default_rng(0), lambda: None)
    assert found.ms == {"a": 2000.0}
    assert found.taken == pytest.approx((17 - 12) / (2 * 10))
    assert machine.warn_if_busy(found.taken)
    assert machine.warn_if_busy(0.0) is None
