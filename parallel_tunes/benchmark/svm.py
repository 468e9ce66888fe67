"""The suite `svm`: every back end and its peers on the same problems, each to the same certified gap."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parallel_tunes import files
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.benchmark.svm_worker import TOLERANCE, C
from parallel_tunes.config import BenchmarkJob
from parallel_tunes.models.hinge_cuda import find_gpu
from parallel_tunes.parallel.workers import NoAnswer, Worker, launcher_settings, plain_command
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, suggest

MODULE = "parallel_tunes.benchmark.svm_worker"
FOLDER = "solving-"  # of the workers' logs, within the run's; removed at the end
LEAST_S = 0.5  # that a row is timed for in a repetition
MOST_FITS = 20  # that it solves for that
START_S = 300.0  # to import, compile and draw a problem, besides the first solution
# name, in words, kind; the plain start first
ROWS = {
    "numpy_gd": ("NumPy, accelerated gradient descent", "ours"),
    "numpy": ("NumPy, Newton", "ours"),
    "numba": ("numba, Newton", "ours"),
    "cuda": ("CUDA, Newton, data on the GPU", "ours"),
    "linearsvc": ("scikit-learn, LinearSVC", "peer"),
    "sgd": ("scikit-learn, SGDClassifier, averaged and tuned", "peer"),
}
RATIOS = {
    "svm_numba_vs_numpy_gd": ("numpy_gd", "numba"),
    "svm_numba_vs_linearsvc": ("linearsvc", "numba"),
    "svm_numba_vs_sgd_tuned": ("sgd", "numba"),
    "svm_numba_vs_numpy": ("numpy", "numba"),
    "svm_cuda_vs_numpy": ("numpy", "cuda"),
    "svm_cuda_vs_numba": ("numba", "cuda"),
}
MAIN = {"svm_cuda_vs_numpy": "1000000x57", "svm_cuda_vs_numba": "1000000x57"}  # which size a ratio's plain name means
MAIN_SIZE = "160000x57"
METHOD = (
    f"The problem is the hinge's in the primal, C = {C:g}, on correlated, standardised features with some 20 % of errors left, their"
    " rows in the order of artists. A row is a process of its own, with the data in its memory before the time begins, float32"
    " for ours, float64 for scikit-learn's; the allocator as hpc/torchrun.sh sets it.",
    f"All go to a relative duality gap of {TOLERANCE:g}. Ours begin from nothing, choose all by themselves and prove the gap within their"
    " time. Peers prove none: their objective is held against our own lower bound, out of their time, and of their settings"
    " (LinearSVC's tol; SGDClassifier's epochs and first step) the first that reaches it, from loose to tight, is timed.",
    f"Short fits are repeated for about {LEAST_S:g} s in each repetition. A figure is the median over the repetitions, in a new random"
    " order each; a ratio the median of the ratios within each.",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A problem's."""

    num_rows: int
    num_features: int

    @property
    def name(self) -> str:
        """`160000x57`."""
        return f"{self.num_rows}x{self.num_features}"

    @property
    def words(self) -> str:
        """For a heading."""
        return f"{self.num_rows:,} rows × {self.num_features} features".replace(",", "\u202f")


@dataclass
class Solver:
    """A worker that is up, and the setting that reaches the gap."""

    row: str
    size: Size
    worker: Worker
    setting: int = 0
    first: Mapping[str, Any] | None = None  # the answer to the setting that reaches the gap
    reason: str | None = None  # why there is none


@contextlib.contextmanager
def open_svm(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Every back end on every size; the workers stay up until the block ends.

    Args:
        machine: names where this runs.
    """
    if cfg.data.root is not None:
        raise UserError(f"data.root={cfg.data.root}: suite=svm draws its own problems; leave data.root out")
    sizes, no_gpu = [parse_size(text) for text in cfg.benchmark.sizes], find_gpu()
    names = choose(cfg, no_gpu)
    notes = [] if no_gpu is None else [f"No GPU here ({no_gpu}): its rows are left out."]
    with start_solvers(names, sizes, cfg, run) as solvers:
        cut = [
            {"row": ROWS[solver.row][0], "size": solver.size.name, "reason": solver.reason}
            for solver in solvers
            if solver.reason
        ]
        notes += [f"{found['row']} at {found['size']}: {found['reason']}." for found in cut]
        ready = [solver for solver in solvers if not solver.reason]
        cells = [make_cell(solver) for solver in ready]
        known = {cell.name for cell in cells}
        yield Suite(
            unit="fit",
            groups={f"svm_{size.name}": f"{size.words}, to a gap of {TOLERANCE:g}" for size in sizes},
            cells=tuple(cells),
            comparisons=tuple(each for each in list_comparisons(sizes) if {each.slow, each.fast} <= known),
            method=METHOD,
            notes=tuple(notes),
            key=files.digest_json(
                {**machine, "cells": sorted(known), "seed": cfg.benchmark.seed, "tolerance": TOLERANCE}
            )[:16],
            examine=partial(examine, ready, cut),
        )


def parse_size(text: str) -> Size:
    """`160000x57` as a size.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d{1,9})x(\d{1,4})", text)
    if not match or int(match[1]) < 100 or not 1 <= int(match[2]) <= 2048:
        raise UserError(
            f"benchmark.sizes={text}: expected rows and features, 160000x57 say, at least 100x1, at most 2048 features"
        )
    return Size(int(match[1]), int(match[2]))


def choose(cfg: BenchmarkJob, no_gpu: str | None) -> list[str]:
    """The rows that benchmark.rows names; by default all that can run here."""
    wanted = list(cfg.benchmark.rows) or [name for name in ROWS if name != "cuda" or no_gpu is None]
    for name in wanted:
        if name not in ROWS:
            raise UserError(f"benchmark.rows={name}: expected some of {', '.join(ROWS)}{suggest(name, list(ROWS))}")
        if name == "cuda" and no_gpu is not None:
            raise UserError(f"benchmark.rows=cuda: no GPU can be used here ({no_gpu})")
    return wanted


@contextlib.contextmanager
def start_solvers(names: Sequence[str], sizes: Sequence[Size], cfg: BenchmarkJob, run: Run) -> Iterator[list[Solver]]:
    """A worker for each row and size, which has found the setting that reaches the gap, or why there is none."""
    for left in run.folder.glob(FOLDER + "*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=run.folder) as folder, contextlib.ExitStack() as ending:
        solvers = list[Solver]()
        with run.progress("start", len(names) * len(sizes), " rows") as bar:
            for size in sizes:
                for row in names:
                    words = (row, str(size.num_rows), str(size.num_features), str(cfg.benchmark.seed))
                    command = plain_command(MODULE, words, launcher_settings())
                    worker = Worker(f"{row} at {size.name}", command, Path(folder) / f"{row}-{size.name}.log")
                    ending.callback(worker.close)
                    solver = Solver(row, size, worker)
                    settle(solver, cfg.benchmark.cut_s)
                    if solver.reason:
                        worker.close()
                    solvers.append(solver)
                    bar.update()
        yield solvers


def settle(solver: Solver, cut_s: float) -> None:
    """Find the first setting that reaches the gap; a solution that takes longer than `cut_s` is cut."""
    try:
        solver.worker.ask("start", START_S)
        for setting in range(1_000):
            found = solver.worker.ask(f"try {setting}", cut_s + 60)  # the first one waits for the lower bound too
            if found["seconds"] > cut_s:
                solver.reason = f"cut: {found['seconds']:.0f} s where {cut_s:g} are allowed"
                return
            if found["gap"] <= TOLERANCE:
                solver.setting, solver.first = setting, found
                return
            if found["is_last"]:
                solver.reason = f"its tightest setting leaves a gap of {found['gap']:.2g}"
                return
    except NoAnswer:
        solver.reason = f"cut: no solution within {cut_s:g} s"


def make_cell(solver: Solver) -> Cell:
    """The cell of a worker that knows its setting; short fits are repeated, since a core that was idle is slow at first."""
    what, kind = ROWS[solver.row]
    assert solver.first is not None
    num = min(max(round(LEAST_S / solver.first["seconds"]), 1), MOST_FITS)

    def measure() -> float:
        return sum(float(solver.worker.ask(f"try {solver.setting}")["seconds"]) for _ in range(num))

    name = f"{solver.row}_{solver.size.name}"
    return Cell(name, what, f"svm_{solver.size.name}", kind, num, measure, cpu_s=solver.worker.cpu_s)


def list_comparisons(sizes: Sequence[Size]) -> Iterator[Comparison]:
    """Each ratio at the size that its name stands for, the largest where that is not measured; the others with the size behind."""
    names = [size.name for size in sizes]
    largest = max(sizes, key=lambda size: size.num_rows * size.num_features).name
    for ratio, (slow, fast) in RATIOS.items():
        main = MAIN.get(ratio, MAIN_SIZE)
        main = main if main in names else largest
        for size in sorted(sizes, key=lambda size: size.name != main):
            name = ratio if size.name == main else f"{ratio}_{size.name}"
            what = f"SVM, {size.words}: {ROWS[fast][0]} against {ROWS[slow][0]}"
            yield Comparison(name, what, f"{slow}_{size.name}", f"{fast}_{size.name}")


def examine(solvers: Sequence[Solver], cut: list[dict[str, Any]], medians_ms: Mapping[str, float]) -> dict[str, Any]:
    """The gap each row was certified to, and what was cut."""
    solved = [
        {"row": solver.row, "what": ROWS[solver.row][0], "num_rows": solver.size.num_rows, "num_features": solver.size.num_features,
         "gap": solver.first["gap"], "objective": solver.first["objective"], "passes": solver.first["passes"],
         "setting": solver.setting, "transfer_s": solver.first["transfer_s"], "ms": medians_ms[f"{solver.row}_{solver.size.name}"]}
        for solver in solvers
        if solver.first
    ]  # fmt: skip
    return {"svm": {"tolerance": TOLERANCE, "solved": solved, "cut": cut, "cores": os.cpu_count()}}
