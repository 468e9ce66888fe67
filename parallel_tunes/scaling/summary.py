"""The figures of a study, from its rows: medians with intervals, ratios to a baseline, costs, fits and the recommended cell."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from parallel_tunes.config import ScalingJob
from parallel_tunes.scaling import laws
from parallel_tunes.scaling.intervals import Interval, Launches, median_interval, ratio_interval
from parallel_tunes.scaling.results import Row

QUICK = 5  # launches of a cell, fewer than which are a quick look
FITTED = {"strong": ("amdahl", "usl"), "weak": ("gustafson", "usl"), "target": ("amdahl", "usl")}
Plain = dict[str, float] | None


def summarise(cfg: ScalingJob, rows: list[Row], *, unit: str, threads: int) -> dict[str, Any]:
    """The report's metrics, of the rows alone.

    Args:
        unit: what ranks are: GPU, or rank where they stand for GPUs.
        threads: of a rank.
    """
    training = group(row for row in rows if row["kind"] == "train")
    settings = cfg.scaling
    cells = [summarise_cell(cfg, name, training) for name in training]
    return {
        "mode": settings.mode,
        "unit": unit,
        "threads": threads,
        "quick": settings.launches < QUICK,
        "num_launches": settings.launches,
        "num_windows": settings.windows,
        "num_epochs": cfg.train.num_epochs,
        "target": settings.target,
        "missing": [f"{row['cell']}: launch {row['launch']}" for row in rows if row["status"] == "missing"],
        "cells": cells,
        **choose(cells, settings.mode),
        "fits": [fit_line(law, line, training) for line in group_lines(cells) for law in FITTED[settings.mode]],
        "preprocess": summarise_preprocess(cfg, rows),
    }


def group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their cell, in the order in which the cells first come."""
    found = dict[str, list[Row]]()
    for row in rows:
        found.setdefault(row["cell"], []).append(row)
    return dict(sorted(found.items(), key=lambda item: order(item[1][0])))


def order(row: Row) -> tuple[Any, ...]:
    """Of cells in tables: by precision, batch and GPUs; engines by their number."""
    if row["kind"] == "train":
        return (row["precision"], row["batch"], row["gpus"], row["ddp"])
    return ("", row["shard_mib"] or 0, -1 if row["engines"] is None else row["engines"], False)


def counted(rows: list[Row], value: Callable[[Row], Any]) -> Launches:
    """The values of the windows of each launch that counts; a single number is that of one window."""
    found = {}
    for row in rows:
        values = value(row) if row["status"] == "ok" else []
        found[int(row["launch"])] = values if isinstance(values, list) else [values]
    return {number: values for number, values in found.items() if values}


def median(launches: Launches, seed: int, factor: float = 1.0) -> Plain:
    """The interval of a median as a report has it; None of nothing."""
    if not launches:
        return None
    found = median_interval(launches, seed=seed)
    return Interval(*(factor * value for value in vars(found).values())).to_plain()


def summarise_cell(cfg: ScalingJob, name: str, cells: dict[str, list[Row]]) -> dict[str, Any]:
    """One cell of the table."""
    rows, seed = cells[name], cfg.scaling.seed
    first, good = rows[0], [row for row in rows if row["status"] == "ok"]
    peaks = [row["peak_memory_mib"] for row in rows if row.get("peak_memory_mib")]
    told = median_or_none
    cell = {
        **{axis: first[axis] for axis in ("gpus", "batch", "global_batch", "ddp")},
        "name": name,
        "precision": good[0]["precision_used"] if good else first["precision"],
        **find_outcome(rows),
        "num_windows": sum(len(row["step_s"]) for row in good),
        "is_stable": all(row["is_stable"] for row in good),
        "samples_per_s": median(counted(rows, lambda row: row["samples_per_s"]), seed),
        "step_ms": median(counted(rows, lambda row: row["step_s"]), seed, 1000),
        "comm_ms": median(counted(rows, sharing_s), seed, 1000),
        "peak_memory_mib": [max(rank) for rank in zip(*peaks, strict=False)],
        "split": split_epoch(good) if good else None,
        "joules_per_sample": told(row["joules_a_sample"] for row in good),
        **{kind: told(row[kind] for row in good) for kind in ("first_steps_s", "compile_s", "setup_s")},
    }
    return {**cell, **compare(cfg, name, cells), **find_costs(cfg, rows), **find_target(cfg, rows)}


def find_outcome(rows: list[Row]) -> dict[str, Any]:
    """Of a cell's launches: ok if one is, how many count, how many failed, and why the first of those did."""
    failed = [row for row in rows if row["status"] in ("failed", "oom")]
    n = sum(row["status"] == "ok" for row in rows)
    return {
        "status": "ok" if n else failed[0]["status"] if failed else "missing",
        "reason": next((row["reason"] for row in failed if row["reason"]), None),
        "num_failed": len(failed),
        "n": n,
    }


def median_or_none(values: Iterable[float | None]) -> float | None:
    """The median of those that are there."""
    there = [value for value in values if value is not None]
    return float(f"{statistics.median(there):.6g}") if there else None


def sharing_s(row: Row) -> list[float]:
    """Of each window, what a step takes longer than one that keeps its gradients to its rank, seconds."""
    return [whole - bare for whole, bare in zip(row["step_s"], row["bare_step_s"], strict=False)]


def compare(cfg: ScalingJob, name: str, cells: dict[str, list[Row]]) -> dict[str, Any]:
    """Speed-up and efficiency against the fewest GPUs of the same batch and precision, and against DDP with one rank.

    Where one GPU is not among them, the fewest, N, count as N times it.
    """
    mine = cells[name][0]
    alike = [rows for rows in cells.values() if all(rows[0][axis] == mine[axis] for axis in ("batch", "precision"))]
    rates = {rows[0]["cell"]: counted(rows, lambda row: row["samples_per_s"]) for rows in alike}
    usable = [rows[0] for rows in alike if rates[rows[0]["cell"]]]
    base = min(usable, key=order, default=None)
    with_ddp = next((row for row in usable if row["gpus"] == 1 and row["ddp"]), None)
    ratio = partial(ratio_interval, paired=cfg.scaling.launcher == "local", seed=cfg.scaling.seed)

    def against(other: Row | None, factor: float = 1.0) -> Plain:
        if other is None or not rates[name]:
            return None
        found = Interval(1.0, 1.0, 1.0) if other["cell"] == name else ratio(rates[name], rates[other["cell"]])
        return Interval(*(factor * value for value in vars(found).values())).to_plain()

    return {
        "baseline": base["cell"] if base else None,
        "speedup": against(base, base["gpus"]) if base else None,
        "efficiency": against(base, base["gpus"] / mine["gpus"]) if base else None,
        "speedup_over_ddp": against(with_ddp),
    }


def split_epoch(good: list[Row]) -> dict[str, float]:
    """Seconds of an epoch spent waiting for data, computing, waiting for other ranks, judging and writing checkpoints."""
    parts = []
    for row in good:
        step, data = statistics.median(row["step_s"]), statistics.median(row["data_s"])
        waits = statistics.median(row["norm_s"]) + statistics.median(row["agree_s"])
        comm = max(statistics.median(sharing_s(row)) if row["bare_step_s"] else 0.0, 0.0) + waits
        steps = {"data": data, "compute": max(step - data - comm, 0.0), "communication": comm}
        rest = {"evaluation": row["eval_s"], "checkpoint": row["checkpoint_s"]}
        parts.append({name: seconds * row["num_steps"] for name, seconds in steps.items()} | rest)
    return {name: float(f"{statistics.median(part[name] for part in parts):.6g}") for name in parts[0]}


def find_costs(cfg: ScalingJob, rows: list[Row]) -> dict[str, Any]:
    """Time of an epoch and of the whole training, and what it costs in GPU-hours."""

    def epoch_s(row: Row) -> list[float]:
        return [row["num_steps"] * step + row["eval_s"] + row["checkpoint_s"] for step in row["step_s"]]

    launches, seed, num = counted(rows, epoch_s), cfg.scaling.seed, cfg.train.num_epochs
    hours = num * rows[0]["gpus"] / 3600
    return {
        "epoch_s": median(launches, seed),
        "train_s": median(launches, seed, num),
        "gpu_hours": median(launches, seed, hours),
    }


def find_target(cfg: ScalingJob, rows: list[Row]) -> dict[str, Any]:
    """Time and cost to the target, over the seeds that reached it; None unless more than half of them did, for then
    there is no median."""
    good = [row for row in rows if row["status"] == "ok"]
    reached = [row for row in good if row["target_s"] is not None]
    has_median = cfg.scaling.mode == "target" and 2 * len(reached) > len(good)
    launches = counted(reached, lambda row: row["target_s"]) if has_median else {}
    hours = rows[0]["gpus"] / 3600
    return {
        "time_to_target_s": median(launches, cfg.scaling.seed),
        "gpu_hours_to_target": median(launches, cfg.scaling.seed, hours),
        "num_reached": len(reached) if cfg.scaling.mode == "target" else None,
        "epochs_to_target": median_or_none(row["target_epochs"] for row in reached),
    }


def group_lines(cells: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The cells that differ in their number of GPUs only, in its order; one with DDP is none where GPUs are one."""
    found = dict[tuple[Any, ...], list[dict[str, Any]]]()
    for cell in cells:
        if cell["gpus"] > 1 or not cell["ddp"]:
            found.setdefault((cell["batch"], cell["precision"]), []).append(cell)
    return list(found.values())


def points(line: list[dict[str, Any]], cells: dict[str, list[Row]]) -> tuple[list[int], list[float]]:
    """Numbers of GPUs and samples/s, a point for each launch."""
    found = [
        (cell["gpus"], statistics.median(row["samples_per_s"]))
        for cell in line
        for row in cells[cell["name"]]
        if row["status"] == "ok"
    ]
    return [num for num, _ in found], [rate for _, rate in found]


def fit_line(law: str, line: list[dict[str, Any]], cells: dict[str, list[Row]]) -> dict[str, Any]:
    """A law fitted to a line, or why it is not."""
    common = {"law": law, **{axis: line[0][axis] for axis in ("batch", "precision")}}
    try:
        fitted = laws.fit(law, *points(line, cells))
    except laws.Refusal as refusal:
        return {**common, "refused": str(refusal)}
    return {
        **common,
        "parameters": {name: interval.to_plain() for name, interval in fitted.parameters.items()},
        "rate_of_one": fitted.rate_of_one.to_plain(),
        "is_descriptive": fitted.is_descriptive,
        "is_off": fitted.is_off,
        "curve": [[float(f"{num:.6g}"), float(f"{rate:.6g}")] for num, rate in fitted.curve()],
    }


def choose(cells: list[dict[str, Any]], mode: str) -> dict[str, str | None]:
    """Names of the cheapest cell, the fastest, and the recommended one: the fastest of those whose cost may be the cheapest's.

    Costs may be equal where their intervals overlap. In a study of a target only cells that reached it in every launch
    are candidates, if there are any; one GPU with DDP never is.
    """
    cost, time = ("gpu_hours_to_target", "time_to_target_s") if mode == "target" else ("gpu_hours", "train_s")
    known = [cell for cell in cells if cell[cost] and cell[time] and (cell["gpus"] > 1 or not cell["ddp"])]
    if mode == "target":
        known = [cell for cell in known if cell["num_reached"] == cell["n"]] or known
    if not known:
        return {"recommended": None, "cheapest": None, "fastest": None}
    cheapest = min(known, key=lambda cell: cell[cost]["median"])
    alike = [cell for cell in known if cell[cost]["low"] <= cheapest[cost]["high"]]
    fastest, recommended = (min(each, key=lambda cell: cell[time]["median"]) for each in (known, alike))
    return {"recommended": recommended["name"], "cheapest": cheapest["name"], "fastest": fastest["name"]}


def summarise_preprocess(cfg: ScalingJob, rows: list[Row]) -> dict[str, Any] | None:
    """Preprocessing on engines, beside librosa in one process and ours on the fewest engines."""
    cells = group(row for row in rows if row["kind"] == "preprocess")
    if not cells:
        return None
    seed, ratio = (
        cfg.scaling.seed,
        partial(ratio_interval, paired=cfg.scaling.launcher == "local", seed=cfg.scaling.seed),
    )
    rates = {name: counted(each, lambda row: row["tracks_per_s"]) for name, each in cells.items()}
    found, serial = [], None
    for name, each in cells.items():
        first, good = each[0], [row for row in each if row["status"] == "ok"]
        figures = {
            "name": name, **find_outcome(each), "tracks_per_s": median(rates[name], seed),
            "seconds": median(counted(each, lambda row: row["seconds"]), seed),
            "num_tracks": int(good[0]["num_tracks"]) if good else None,
        }  # fmt: skip
        if first["engines"] is None:
            serial = figures
            continue
        alike = [other for other in cells if cells[other][0]["shard_mib"] == first["shard_mib"] and rates[other]]
        ours = [other for other in alike if cells[other][0]["engines"] is not None]
        figures |= {
            "engines": int(first["engines"]), "shard_mib": first["shard_mib"],
            "num_shards": int(good[0]["num_shards"]) if good else None,
            "speedup": ratio(rates[name], rates["librosa"]).to_plain() if rates.get("librosa") and good else None,
            "speedup_over_one": ratio(rates[name], rates[ours[0]]).to_plain() if ours and good else None,
        }  # fmt: skip
        found.append(figures)
    num = next((cell["num_tracks"] for cell in found if cell["num_tracks"]), None)
    return {"n_tracks": num, "peer_tracks": serial and serial["num_tracks"], "cells": found, "serial": serial}
