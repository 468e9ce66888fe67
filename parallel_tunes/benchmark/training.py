"""The suites `train` and `threads`: one and the same training beside its peers, and on other ranks and threads."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from parallel_tunes import files
from parallel_tunes.benchmark import roofline, rows, tracks
from parallel_tunes.benchmark.rows import Row
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.config import BenchmarkJob, FeaturesConfig
from parallel_tunes.config_train import ModelConfig
from parallel_tunes.parallel.workers import Worker
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build, defaults, suggest
from parallel_tunes.train.gradient import choose_precision
from parallel_tunes.train.model_folder import build_model

FOLDER = "training-"  # of tracks and runs, within the run's; removed at the end
GROUPS = {
    "training": "Training on all cores",
    "ranks": "Ranks of one thread each",
    "threads": "Ranks and threads",
    "training_gpu": "Training on the GPU",
}
METHOD = (
    "Every row is a process of its own, for allocators and threads are a process's; it stays up and idle while others are"
    " timed. Every repetition times each row once, in a new random order, after steps that are not kept.",
    "A figure is the median over the repetitions, a ratio the median of the ratios within each repetition;"
    " intervals are order statistics, which assume no distribution.",
    "All train GenreCNN at its default widths, with 10 labels, on random crops: 128 frames of 128 mel bands.",
    "Ours is `ptunes train` itself under torchrun, as hpc/torchrun.sh starts it, with run folder, checkpoints and"
    " evaluations. Steps are timed, with all that happens meanwhile; what any of them does between epochs is not.",
)
PEERS_METHOD = (
    "The seed projects' loop: float32, Adam, a Dataset of single crops, each step's loss read, the allocator as it comes."
    " Its DataLoader works in the training's process, and so do the peers': workers would take cores from the model.",
    "The bare loop: model, optimizer and precision as our learner prepares them, the allocator as for ours, batches cut"
    " from memory; no harness.",
    "Lightning and Accelerate: their defaults with bf16 in mixed precision, in plain python.",
    "The floor: the convolutions' operations, forward and backward, at the speed of a matrix product on as many threads.",
)


@contextlib.contextmanager
def open_train(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Ours beside its peers, and on ranks; the workers stay up until the block ends.

    Args:
        machine: names where this runs.
    """
    num_cores, batch = len(os.sched_getaffinity(0)), cfg.benchmark.batch
    every, flops = list(rows.list_train_rows(batch, num_cores)), count_flops()
    chosen = choose(every, cfg)
    missing = [name for name in rows.PEERS if name not in {row.name for row in every}]
    notes = [f"{name} is not installed: its row is left out." for name in missing]
    if not torch.cuda.is_available():
        notes.append("No GPU here: its row is left out.")
    with start_workers(chosen, cfg, run) as cells:
        floors = list(list_floors(flops, batch, num_cores, {row.group for row in chosen}))
        examine = partial(find_shares, [*cells, *floors], flops)
        comparisons = list(rows.list_train_comparisons(num_cores))
        yield make_suite([*cells, *floors], comparisons, (*METHOD, *PEERS_METHOD), notes, examine, cfg, machine)


@contextlib.contextmanager
def open_threads(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Ours on one rank with more and more threads, and on ranks that fill the cores.

    Args:
        machine: names where this runs.
    """
    every = list(rows.list_threads_rows(cfg.benchmark.batch, len(os.sched_getaffinity(0))))
    with start_workers(choose(every, cfg), cfg, run) as cells:
        yield make_suite(cells, list(rows.list_threads_comparisons(every)), METHOD, [], lambda _: {}, cfg, machine)


def make_suite(
    cells: Sequence[Cell], comparisons: Sequence[Comparison], method: tuple[str, ...], notes: list[str],
    examine: Callable[[Mapping[str, float]], dict[str, Any]], cfg: BenchmarkJob, machine: Mapping[str, Any],
) -> Suite:  # fmt: skip
    """The suite of some cells, with what can be compared of them."""
    names, batch = {cell.name for cell in cells}, cfg.benchmark.batch
    return Suite(
        unit="sample",
        groups={cell.group: f"{GROUPS[cell.group]}, a batch of {batch}" for cell in cells},
        cells=tuple(cells),
        comparisons=tuple(each for each in comparisons if {each.slow, each.fast} <= names),
        method=method,
        notes=tuple(notes),
        key=files.digest_json({**machine, "tracks": tracks.digest(), "batch": batch, "cells": sorted(names)})[:16],
        examine=examine,
    )


def choose(every: list[Row], cfg: BenchmarkJob) -> list[Row]:
    """Those that benchmark.rows names; by default all.

    Raises:
        UserError: there is no such row, or tracks are given.
    """
    if cfg.data.root is not None:
        raise UserError(f"data.root={cfg.data.root}: suite={cfg.suite} makes its own tracks; leave data.root out")
    names = [row.name for row in every]
    for name in cfg.benchmark.rows:
        if name not in names:
            raise UserError(f"benchmark.rows={name}: expected some of {', '.join(names)}{suggest(name, names)}")
    return [row for row in every if not cfg.benchmark.rows or row.name in cfg.benchmark.rows]


@contextlib.contextmanager
def start_workers(chosen: Sequence[Row], cfg: BenchmarkJob, run: Run) -> Iterator[list[Cell]]:
    """A cell for each row, whose worker is up and has made its first steps."""
    for left in run.folder.glob(FOLDER + "*"):  # by a process that was killed
        shutil.rmtree(left)
    settings = cfg.benchmark
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=run.folder) as name, contextlib.ExitStack() as ending:
        folder, workers = Path(name).resolve(), list[Worker]()
        tracks.write_tracks(folder / "tracks", settings.batch, settings.seed)
        for row in chosen:
            workers.append(Worker(row.name, row.command(folder), folder / f"{row.name}.log"))
            ending.callback(workers[-1].close)
        with run.progress("start", len(chosen), " rows") as bar:
            for worker in workers:
                worker.ask("go 2")  # imports, compiles, fills the allocator's pools
                bar.update()
        yield [make_cell(row, worker, settings.seconds) for row, worker in zip(chosen, workers, strict=True)]


def make_cell(row: Row, worker: Worker, wanted_s: float) -> Cell:
    """The cell of a row whose worker is up, its measurements about so long."""
    quickest = min(worker.ask("go 2")["seconds"] for _ in range(2))
    num_steps = max(round(2 * wanted_s / quickest), 2)

    def measure() -> float:
        return float(worker.ask(f"go {num_steps}")["seconds"])

    return Cell(row.name, row.what, row.group, row.kind, num_steps * row.batch, measure, cpu_s=worker.cpu_s)


def count_flops() -> float:
    """Of a sample of the default model."""
    features: FeaturesConfig = build(FeaturesConfig, defaults("features", "logmel"), "features.")
    size = (features.num_mels, tracks.WINDOW)
    model = build_model(build(ModelConfig, defaults("model", "genre_cnn"), "model."), tracks.NUM_LABELS, 0, size)
    return roofline.count_flops(model, *size)


def list_floors(flops: float, n: int, num_cores: int, groups: set[str]) -> Iterator[Cell]:
    """The operations of n samples at the speed of matrix products, in each group that wants such rows.

    Args:
        flops: of a sample.
    """
    for group, device in (("training", "cpu"), ("training_gpu", "cuda")):
        for dtype in (torch.float32, torch.bfloat16) if group in groups else ():
            # where there is no hardware for it, bfloat16 is slower than float32
            if dtype == torch.float32 or choose_precision("auto", torch.device(device)) == "bf16":
                name = str(dtype).removeprefix("torch.")
                what = f"floor: the convolutions' operations, {name}"
                measure = partial(roofline.time_products, n * flops, dtype, device, num_cores)
                yield Cell(f"floor_{name}_{device}", what, group, "floor", n, measure)


def find_shares(cells: Sequence[Cell], flops: float, medians_ms: Mapping[str, float]) -> dict[str, Any]:
    """How near each row comes to the quickest matrix product of its group."""
    found = dict[str, Any]()
    for group in dict.fromkeys(cell.group for cell in cells if cell.kind == "floor"):
        times = {cell.name: medians_ms[cell.name] for cell in cells if cell.group == group}
        floors = {name: ms for name, ms in times.items() if name.startswith("floor_")}
        least = min(floors.values())
        found[group] = {
            "gflop_per_s": {name.split("_")[1]: round(flops / ms / 1e6, 1) for name, ms in floors.items()},
            "share_reached": {name: round(least / ms, 4) for name, ms in times.items() if name not in floors},
        }
    return {"roofline": {"gflop_a_sample": round(flops / 1e9, 4), "groups": found}} if found else {}
