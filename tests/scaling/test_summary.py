from __future__ import annotations

from typing import Any

import pytest
from made import make_failure, make_row, make_study
from test_grid import config

from parallel_tunes.scaling.results import Row
from parallel_tunes.scaling.summary import choose, summarise

WORDS = (
    "scaling.gpus=[1,2,4]",
    "scaling.batch=[64]",
    "scaling.launches=5",
    "scaling.ddp_baseline=false",
    "train.num_epochs=10",
)


def summary(rows: list[Row], *words: str, unit: str = "rank") -> Any:
    return summarise(config(*WORDS, *words), rows, unit=unit, threads=1)


def cell(metrics: Any, name: str) -> Any:
    return next(each for each in metrics["cells"] if each["name"] == name)


def holds(interval: Any, truth: float) -> bool:
    return bool(interval["low"] <= truth <= interval["high"])


def test_speed_up_and_efficiency_hold_the_truth_whatever_the_drift() -> None:
    metrics = summary(make_study(serial_share=0.1))
    assert metrics["missing"] == []
    assert not metrics["quick"]
    assert cell(metrics, "gpus1-batch64")["speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    for gpus in (2, 4):
        found, truth = cell(metrics, f"gpus{gpus}-batch64"), 1 / (0.1 + 0.9 / gpus)
        assert holds(found["speedup"], truth)
        assert holds(found["efficiency"], truth / gpus)
        # rounds differ by 10 %, their ratios by 1 %
        assert found["speedup"]["high"] / found["speedup"]["low"] < 1.05
        assert found["samples_per_s"]["high"] / found["samples_per_s"]["low"] > 1.1
        assert found["baseline"] == "gpus1-batch64"
    amdahl = next(fit for fit in metrics["fits"] if fit["law"] == "amdahl")
    assert holds(amdahl["parameters"]["serial_share"], 0.1)
    assert amdahl["is_descriptive"]
    assert max(num for num, _ in amdahl["curve"]) == 8
    assert not amdahl["is_off"]


def test_job_arrays_have_no_rounds() -> None:
    metrics = summary(make_study(), "scaling.launcher=slurm")
    found = cell(metrics, "gpus4-batch64")["speedup"]
    assert found["high"] / found["low"] > 1.1


def test_an_epoch_is_split_and_costs_what_its_parts_do() -> None:
    metrics = summary([make_row(2, 0.2, launch) for launch in range(5)])
    found = cell(metrics, "gpus2-batch64")
    assert found["comm_ms"]["median"] == pytest.approx(20)
    # of a step a tenth is sharing gradients, 3 % waits, 1 % data
    assert found["split"] == pytest.approx(
        {"data": 0.2, "compute": 0.86 * 20, "communication": 0.13 * 20, "evaluation": 2.0, "checkpoint": 0.1}
    )
    assert sum(found["split"].values()) == pytest.approx(found["epoch_s"]["median"]) == pytest.approx(22.1)
    assert found["train_s"]["median"] == pytest.approx(221)
    assert found["gpu_hours"]["median"] == pytest.approx(2 * 221 / 3600, rel=1e-5)
    assert found["peak_memory_mib"] == [500.0, 501.0]


def test_ddp_with_one_rank_is_a_baseline_of_its_own() -> None:
    rows = [*make_study(), *(make_row(1, 0.44, launch, ddp=True) for launch in range(5))]
    metrics = summary(rows)
    assert len(metrics["cells"]) == 4
    assert cell(metrics, "gpus1-batch64-ddp")["baseline"] == "gpus1-batch64"
    ratio = (
        cell(metrics, "gpus2-batch64")["speedup_over_ddp"]["median"]
        / cell(metrics, "gpus2-batch64")["speedup"]["median"]
    )
    assert ratio == pytest.approx(1.1, rel=0.1)
    # laws are fitted to the line that starts without it
    assert {(fit["law"], fit["batch"]) for fit in metrics["fits"]} == {("amdahl", 64), ("usl", 64)}


def test_weak_scaling_is_fitted_with_gustafson() -> None:
    rows = [make_row(gpus, 0.4, launch, global_batch=64 * gpus) for launch in range(5) for gpus in (1, 2, 4)]
    metrics = summary(rows, "scaling.mode=weak")
    assert cell(metrics, "gpus4-batch64")["speedup"]["median"] == pytest.approx(4)
    assert {fit["law"] for fit in metrics["fits"]} == {"gustafson", "usl"}


def test_what_failed_is_told_and_the_rest_still_counts() -> None:
    rows = make_study()
    oom = [make_failure(row, "oom", "does not fit", peak_memory_mib=[9000.0]) for row in rows if row["gpus"] == 1]
    some = [make_failure(row, "failed", "no disk") if row["launch"] == 3 else row for row in rows if row["gpus"] == 2]
    gone = [make_failure(row, "missing", "not run yet") for row in rows if row["gpus"] == 4]
    metrics = summary([*oom, *some, *gone])
    first, second, third = metrics["cells"]
    assert (first["status"], first["reason"], first["peak_memory_mib"]) == ("oom", "does not fit", [9000.0])
    assert first["samples_per_s"] is None
    assert (second["status"], second["n"], second["num_failed"]) == ("ok", 4, 1)
    assert second["baseline"] == "gpus2-batch64"
    assert second["speedup"] == {"median": 2.0, "low": 2.0, "high": 2.0}  # for want of one
    assert second["efficiency"]["median"] == 1
    assert third["status"] == "missing"
    assert metrics["missing"] == [f"gpus4-batch64: launch {launch}" for launch in range(5)]
    assert second["reason"] == "no disk"
    assert all("refused" in fit for fit in metrics["fits"])
    assert metrics["recommended"] == "gpus2-batch64"  # the only one with a cost


def test_nothing_at_all_is_no_error() -> None:
    metrics = summary([make_failure(row, "missing", "not run yet") for row in make_study()])
    assert [each["status"] for each in metrics["cells"]] == ["missing"] * 3
    assert metrics["recommended"] is None


def costed(gpus: int, cost: float, time: float, *, spread: float = 0.01, **more: Any) -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"median": value, "low": value * (1 - spread), "high": value * (1 + spread)}

    usual = {"name": f"gpus{gpus}", "gpus": gpus, "ddp": gpus > 1, "gpu_hours": around(cost), "train_s": around(time)}
    return usual | {"gpu_hours_to_target": around(cost), "time_to_target_s": around(time)} | more


def test_the_fastest_of_the_cells_as_cheap_as_the_cheapest_is_recommended() -> None:
    cells = [costed(1, 1.0, 100), costed(2, 1.015, 51), costed(4, 1.5, 38)]
    assert choose(cells, "strong") == {"recommended": "gpus2", "cheapest": "gpus1", "fastest": "gpus4"}
    assert choose(cells[::2], "strong")["recommended"] == "gpus1"
    # what DDP costs on one GPU is measured, and is no choice
    alone = [cells[0], costed(1, 0.5, 50, ddp=True, name="gpus1-ddp")]
    assert choose(alone, "strong") == {"recommended": "gpus1", "cheapest": "gpus1", "fastest": "gpus1"}


def test_of_a_target_cells_that_reached_it_in_every_launch_are_recommended() -> None:
    always, often = costed(2, 2.0, 60, n=5, num_reached=5), costed(4, 0.5, 10, n=5, num_reached=3)
    assert choose([always, often], "target")["recommended"] == "gpus2"
    assert choose([often], "target")["recommended"] == "gpus4"


def target_rows(reached: list[float | None], gpus: int = 2) -> list[Row]:
    return [
        make_row(gpus, 0.2, launch, target_s=seconds, target_epochs=None if seconds is None else 4)
        for launch, seconds in enumerate(reached)
    ]


def test_time_to_a_target() -> None:
    words = ("scaling.mode=target", "scaling.target=0.8")
    found = summary(target_rows([100.0, 110.0, 120.0]), *words)["cells"][0]
    assert found["time_to_target_s"]["median"] == 110
    assert found["gpu_hours_to_target"]["median"] == pytest.approx(2 * 110 / 3600)
    assert (found["num_reached"], found["epochs_to_target"]) == (3, 4)
    # a median of those alone that made it would say too little
    found = summary(target_rows([100.0, None, None]), *words)["cells"][0]
    assert found["time_to_target_s"] is None
    assert found["num_reached"] == 1


def preprocess_row(engines: int | None, rate: float, launch: int) -> Row:
    cell = "librosa" if engines is None else f"engines{engines}"
    return {
        "cell": cell, "kind": "preprocess", "launch": launch, "status": "ok", "reason": None, "seconds": 9.0, "engines": engines,
        "shard_mib": None, "num_tracks": 60 if engines is None else 500, "num_shards": 8, "tracks_per_s": rate,
    }  # fmt: skip


def test_preprocessing_against_librosa_and_one_engine() -> None:
    rates = {None: 40.0, 1: 300.0, 2: 540.0}
    rows = [preprocess_row(engines, rate, launch) for launch in range(3) for engines, rate in rates.items()]
    found = summary(rows)["preprocess"]
    assert found["serial"]["tracks_per_s"]["median"] == 40
    assert (found["n_tracks"], found["peer_tracks"]) == (500, 60)
    one, two = found["cells"]
    assert (one["engines"], two["engines"]) == (1, 2)
    assert two["speedup"]["median"] == 13.5
    assert two["speedup_over_one"]["median"] == 1.8
    assert one["speedup_over_one"]["median"] == 1
