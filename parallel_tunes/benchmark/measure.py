"""Repetitions of a suite: every cell once in each, in a new order; those done outlive an interruption."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from parallel_tunes.benchmark import machine
from parallel_tunes.benchmark.medians import estimate, estimate_ratio
from parallel_tunes.benchmark.suite import Cell, Suite
from parallel_tunes.run import Run


@dataclass(frozen=True)
class Repetition:
    """Every cell once.

    Args:
        ms: of each cell, milliseconds a unit.
        taken: share of the time that cores were with others: that of one thread, or all while other processes worked.
    """

    ms: dict[str, float]
    taken: float


def measure(suite: Suite, run: Run, *, repetitions: int, seed: int) -> list[Repetition]:
    """The repetitions; those that metrics.jsonl holds are not done again.

    Args:
        seed: of the order of the cells.
    """
    done = read_done(suite, run)[:repetitions]
    todo = range(len(done), repetitions)
    if not todo:
        return done
    # the first round is not kept: it compiles, imports, starts engines and fills the page cache
    first = [cell for cell in suite.cells if not cell.cold]
    with run.progress("benchmark", len(first) + len(todo) * len(suite.cells), " cells") as bar:
        measure_once(first, np.random.default_rng([seed, 0]), bar.update)
        gc.collect()
        gc.freeze()  # what the imports brought: going through it again takes a quarter of a second
        try:
            for repetition in todo:
                found = measure_once(suite.cells, np.random.default_rng([seed, 1 + repetition]), bar.update)
                run.record({"repetition": repetition, "key": suite.key, **asdict(found)})
                done.append(found)
        finally:
            gc.unfreeze()
    return done


def measure_once(cells: Sequence[Cell], rng: np.random.Generator, advance: Callable[[], object]) -> Repetition:
    """Time each cell once, in an order that `rng` draws."""
    ms, wall_s, taken_s = dict[str, float](), 0.0, 0.0
    for at in rng.permutation(len(cells)):
        cell = cells[at]
        gc.collect()  # no cell pays for what another has left
        with machine.one_thread() if cell.one_thread else contextlib.nullcontext():
            own_s, busy_s, began = (cell.cpu_s or time.thread_time)(), machine.busy_s(), time.perf_counter()
            seconds = cell.measure()
            elapsed_s = time.perf_counter() - began
            own_s, busy_s = (cell.cpu_s or time.thread_time)() - own_s, machine.busy_s() - busy_s
        if cell.cpu_s:
            wall_s, taken_s = wall_s + elapsed_s, taken_s + (busy_s - own_s) / (os.cpu_count() or 1)
        elif cell.one_thread:
            wall_s, taken_s = wall_s + seconds, taken_s + seconds - own_s
        ms[cell.name] = 1000 * seconds / cell.n
        advance()
    return Repetition(ms, max(taken_s / wall_s, 0.0) if wall_s else 0.0)


def read_done(suite: Suite, run: Run) -> list[Repetition]:
    """The repetitions that an earlier start has recorded of this suite, with the same software on the same machine."""
    try:
        rows = run.rows()
    except json.JSONDecodeError:  # the last line was torn
        text = (run.folder / "metrics.jsonl").read_text(errors="replace")
        run.cut_rows(text.count("\n") - text.endswith("\n"))
        rows = run.rows()
    kept = [Repetition(row["ms"], row["taken"]) for row in rows if row["key"] == suite.key]
    if len(kept) < len(rows):
        run.warn(f"{len(rows) - len(kept)} repetitions are of another machine, version or checkout: left out")
    return kept


def summarise(suite: Suite, done: list[Repetition]) -> dict[str, Any]:
    """The report's metrics: cells, ratios and their intervals, and what the suite finds besides."""
    rows = [repetition.ms for repetition in done]
    found = {cell.name: estimate([row[cell.name] for row in rows]) for cell in suite.cells}
    ratios = {
        each.name: estimate_ratio([row[each.slow] for row in rows], [row[each.fast] for row in rows])
        for each in suite.comparisons
    }
    cells = [
        {
            "name": cell.name,
            "what": cell.what,
            "group": cell.group,
            "kind": cell.kind,
            "n": cell.n,
            "unit": f"ms a {suite.unit}",
            "median": round(found[cell.name].median, 4),
            "low": round(found[cell.name].low, 4),
            "high": round(found[cell.name].high, 4),
            "per_s": round(1000 / found[cell.name].median, 3),
            "repetitions": len(rows),
        }
        for cell in suite.cells
    ]
    return {
        "ratios": {name: round(ratio.median, 3) for name, ratio in ratios.items()},
        "intervals": {name: [round(ratio.low, 3), round(ratio.high, 3)] for name, ratio in ratios.items()},
        "interval_level": round(estimate([0.0] * len(rows)).level, 4),
        "groups": suite.groups,
        "compared": {each.name: each.what for each in suite.comparisons},
        "cells": cells,
        "taken_by_others": round(statistics.median(repetition.taken for repetition in done), 4),
        **suite.examine({name: each.median for name, each in found.items()}),
    }
