"""Every suite of benchmarks by its name, and how one is carried out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from parallel_tunes.benchmark import machine, preprocessing, serving, svm, tables_suite, training
from parallel_tunes.benchmark.measure import measure, summarise
from parallel_tunes.benchmark.suite import Suite
from parallel_tunes.config import BenchmarkJob
from parallel_tunes.run import Run

Open = Callable[[BenchmarkJob, Run, Mapping[str, Any]], AbstractContextManager[Suite]]
SUITES: dict[str, Open] = {
    "preprocess": preprocessing.open_suite,
    "train": training.open_train,
    "svm": svm.open_svm,
    "tables": tables_suite.open_tables,
    "serve": serving.open_serve,
}


def carry_out(cfg: BenchmarkJob, run: Run) -> dict[str, Any]:
    """Measure the suite that the config names; facts for the report."""
    facts, load = machine.describe(), round(os.getloadavg()[0], 2)
    with SUITES[cfg.suite](cfg, run, facts) as suite:
        done = measure(suite, run, repetitions=cfg.benchmark.repetitions, seed=cfg.benchmark.seed)
        metrics = summarise(suite, done)
    for name, ratio in metrics.pop("other_ratios", {}).items():  # of what is no time
        metrics["ratios"][name], metrics["compared"][name] = round(ratio["median"], 3), ratio["what"]
        metrics["intervals"][name] = [round(ratio["low"], 3), round(ratio["high"], 3)]
    warning = machine.warn_if_busy(metrics["taken_by_others"])
    if warning:
        run.warn(warning)
    return {
        "suite": cfg.suite,
        "metrics": metrics,
        "method": list(suite.method),
        "notes": [*suite.notes, *filter(None, [warning])],
        "machine": {**facts, "load_before": load},
    }
