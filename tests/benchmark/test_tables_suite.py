from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE_S, door, start, wait_until

from parallel_tunes.benchmark.tables_place import Place
from parallel_tunes.benchmark.tables_suite import Readings
from parallel_tunes.schema import UserError

READERS, TRAINERS = ["tables_seed", "tables_ours", "tables_reload"], ["relisten_seed", "relisten_ours"]
WORDS = (
    "suite=tables", "benchmark.listens=20000", "benchmark.seconds=0.05", "benchmark.repetitions=1",
    f"benchmark.rows=[{','.join(READERS + TRAINERS)}]", "run.name=tiny",
)  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_a_whole_report(tmp_path: Path) -> None:
    run = tmp_path / "logs/benchmark/tiny"
    process = start("benchmark", *WORDS, cwd=tmp_path)
    wait_until(lambda: (run / "listens/rows/sizes.json").exists(), what="tables, columns and rows are made")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert (run / "listens/csv/train.csv").is_file()
    assert door("benchmark", *WORDS, cwd=tmp_path) == 0
    assert (run / "log.txt").read_text().count("20000 listens, 0.00 GB") == 1  # the tables were not made again
    assert not [path for path in run.iterdir() if path.is_dir()]
    check_metrics(json.loads((run / "report.json").read_text())["metrics"])
    page = (run / "report.html").read_text()
    assert "both ways gave the same codes" in page
    assert "n = 4000 rows of the last fifth" in page
    assert "AUC on 4000 later rows" in (run / "log.txt").read_text()


def check_metrics(metrics: dict[str, Any]) -> None:
    assert list(metrics["ratios"]) == [
        "tables_vs_pandas_time",
        "relisten_vs_seed_rows_per_s",
        "tables_vs_pandas_memory",
    ]
    for name, ratio in metrics["ratios"].items():
        low, high = metrics["intervals"][name]
        assert 0 < low <= ratio <= high
        assert metrics["compared"][name]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    assert [*cells] == [*READERS, *TRAINERS]
    tables = metrics["tables"]
    assert tables["has_equal_codes"] is True
    assert (tables["num_listens"], tables["num_columns"]) == (20_000, 20)
    # 20 thousands in 20 readings' worth of time
    assert tables["seconds"]["tables_ours"] == pytest.approx(cells["tables_ours"]["median"] * 20 / 1000, rel=1e-3)
    assert 0 < tables["star_s"] < tables["seconds"]["tables_ours"]
    assert 0 < metrics["reload_s"] < tables["star_s"]
    assert set(metrics["peak_mib"]) == {*READERS, *TRAINERS}
    assert min(metrics["peak_mib"].values()) > 50
    ratio = metrics["peak_mib"]["tables_ours"] / metrics["peak_mib"]["tables_seed"]
    assert metrics["ratios"]["tables_vs_pandas_memory"] == pytest.approx(ratio, rel=0.05)
    auc = metrics["auc"]
    assert auc["num_learnt"] == 32 * 2000
    assert set(auc["rows"]) == set(TRAINERS)
    for found in auc["rows"].values():
        low, high = found["auc_ci95"]
        assert 0.6 < low < found["auc"] < high < 1
        assert found["auc"] < auc["bayes"] + 0.03  # of few rows it may be above what is to be expected
    ours = auc["rows"]["relisten_ours"]
    assert ours["gain_on"] == "relisten_seed"
    assert ours["gain_ci95"][0] <= ours["gain"] <= ours["gain_ci95"][1]
    assert ours["gain_ci95"][1] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["benchmark.rows=[tables_our]"], "benchmark.rows=tables_our: expected some of tables_seed, tables_ours"),
        (["benchmark.listens=10"], "benchmark.listens=10: expected a whole number from 2000"),
        (["data.root=music"], "suite=tables makes its own tables"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], says: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("benchmark", "suite=tables", *words) == 2
    assert says in capsys.readouterr().err


def test_two_ways_that_differ_are_an_error(tmp_path: Path) -> None:
    readings = Readings(tmp_path / "readings.jsonl", "here")
    readings.add("tables_ours", {"peak_mib": 1.0, "digests": {"city": "a", "bd": "b"}})
    Readings(tmp_path / "readings.jsonl", "there").add("tables_seed", {"digests": {"city": "x"}})
    with pytest.raises(UserError, match="different columns of bd:"):
        readings.add("tables_seed", {"peak_mib": 2.0, "digests": {"city": "a", "bd": "c"}})


def test_readings_outlive_an_interruption(tmp_path: Path) -> None:
    readings = Readings(tmp_path / "readings.jsonl", "here")
    for peak in (10.0, 20.0, 40.0):
        readings.add("tables_seed", {"peak_mib": peak})
        readings.add("tables_ours", {"peak_mib": peak / 5})
    with readings.file.open("a") as stream:
        stream.write('\n{"key": "here", "row": "tables_se')
    again = Readings(readings.file, "here")
    found = again.summarise({"relisten_ours": 7.0})
    assert found["peak_mib"] == {"tables_seed": 20.0, "tables_ours": 4.0, "relisten_ours": 7.0}
    assert found["other_ratios"]["tables_vs_pandas_memory"]["median"] == pytest.approx(0.2)
    assert "other_ratios" not in Readings(readings.file, "there").summarise({})
    again.add("tables_seed", {"peak_mib": 5.0})
    assert len(again.of("tables_seed")) == 4


def test_sizes_follow_the_number_of_listens(tmp_path: Path) -> None:
    small, large = Place(tmp_path, 20_000, 0), Place(tmp_path, 7_400_000, 0)
    assert (small.batch, small.thousands, large.batch, large.thousands) == (2000, 20, 65_536, 7400)
    assert large.words["tables"] == "Tables of 7\u202f400\u202f000 listens to columns, by thousands of listens"
    seed, ours = small.command("tables_seed"), small.command("tables_ours")
    assert "MALLOC_TOP_PAD_" in ours.environment
    assert seed.environment == {}
