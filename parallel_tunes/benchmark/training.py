"""The suite `train`: one and the same training beside its peers, and on other ranks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from parallel_tunes import files
from parallel_tunes.benchmark import tracks
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.config import BenchmarkJob
from parallel_tunes.parallel.launch import Command
from parallel_tunes.parallel.workers import Worker, launcher_settings, plain_command, ranks_command
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, suggest

FOLDER = "training-"  # of tracks and runs, within the run's; removed at the end
MODULE = "parallel_tunes.benchmark.worker"
COUNTS = (1, 2, 4)  # of ranks of one thread each, as far as there are cores
PEERS = ("lightning", "accelerate")
# a training that is never done, keeps its learning rate, and waits for as long as others are timed
ENDLESS = ("train.num_epochs=1000000", "train.patience=1000000", "train.warmup=0", "parallel.timeout_s=1000000")
GROUPS = {
    "training": "Training on all cores",
    "ranks": "Ranks of one thread each",
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
    "The seed projects' loop: float32, Adam, a Dataset of single crops, each step's loss read, the allocator as it comes."
    " Its DataLoader works in the training's process, and so do the peers': workers would take cores from the model.",
    "The bare loop: model, optimizer and precision as our learner prepares them, the allocator as for ours, batches cut"
    " from memory; no harness.",
    "Lightning and Accelerate: their defaults with bf16 in mixed precision, in plain python.",
)


@dataclass(frozen=True)
class Row:
    """A process that trains, or torchrun and its ranks.

    Args:
        name: of its cell, and of its folder.
        what: the same in words.
        group, kind: of its cell.
        loop: what the worker runs.
        batch: the global one.
        num_ranks, num_threads: under torchrun, threads a rank; 0: plain python, with the threads it takes by itself.
        is_tuned: with the launcher's settings of the allocator.
    """

    name: str
    what: str
    group: str
    kind: str
    loop: str
    batch: int
    num_ranks: int = 0
    num_threads: int = 0
    is_tuned: bool = False
    device: str = "cpu"

    def command(self, folder: Path) -> Command:
        """How to start it; tracks lie, and runs are made, in `folder`."""
        shards = folder / "tracks"
        if not self.num_ranks:
            settings = launcher_settings() if self.is_tuned else {}
            return plain_command(MODULE, [self.loop, str(shards), str(self.batch)], settings)
        words = (
            self.loop, "train", f"data.shards={shards}", "split=lists", f"task.crop_s={tracks.CROP_S}", f"train.batch={self.batch}",
            f"train.device={self.device}", f"run.dir={folder / self.name}", *ENDLESS,
        )  # fmt: skip
        tuned = ranks_command(MODULE, words, num_ranks=self.num_ranks, num_threads=self.num_threads)
        kept = {name: value for name, value in tuned.environment.items() if self.is_tuned or "MALLOC" not in name}
        return Command(tuned.words, kept)


def list_rows(batch: int, num_cores: int) -> Iterator[Row]:
    """Peers and ours on all cores; ranks of ours; ours on a GPU if there is one."""
    yield Row("seed_loop", "the seed projects' loop", "training", "peer", "seed_loop", batch)
    for name in PEERS:
        if importlib.util.find_spec(name):
            yield Row(name, name.capitalize(), "training", "peer", name, batch)
    yield Row("bare_loop", "a bare loop, all else as ours", "training", "peer", "bare_loop", batch, is_tuned=True)
    ours = "ours, ptunes train"
    yield Row("ours", ours, "training", "ours", "ours", batch, 1, num_cores, is_tuned=True)
    plain = f"{ours}, the allocator as it comes"
    yield Row("ours_plain_malloc", plain, "training", "ours", "ours", batch, 1, num_cores)
    for num in (num for num in COUNTS if num <= num_cores):
        name, on = f"ours_ddp_{num}", count(num, "rank")
        yield Row(name, f"{on}, a batch of {batch} over all", "ranks", "ours", "ours", batch, num, 1, is_tuned=True)
        if num > 1:
            what, whole = f"{on}, a batch of {batch} each", num * batch
            yield Row(f"{name}_weak", what, "ranks", "ours", "ours", whole, num, 1, is_tuned=True)
    if torch.cuda.is_available():
        yield Row("ours_gpu", ours, "training_gpu", "ours", "ours", batch, 1, num_cores, is_tuned=True, device="cuda")


def list_comparisons(num_cores: int) -> Iterator[Comparison]:
    """Ours against peers, ranks against one rank; what is there of them."""
    others = {"seed_loop": "the seed projects' loop", "bare_loop": "a bare loop with the same settings"}
    for name in ("seed_loop", "bare_loop", *PEERS):
        what = f"training: ours against {others.get(name, name.capitalize())}"
        yield Comparison(f"train_vs_{name}", what, name, "ours")
    what = "training: ours with hpc/torchrun.sh's settings of the allocator against without"
    yield Comparison("malloc_tuned_vs_plain", what, "ours_plain_malloc", "ours")
    for num in (num for num in COUNTS if 1 < num <= num_cores):
        what = f"{num} ranks of one thread against 1, the same batch"
        yield Comparison(f"ddp_{num}_vs_1_strong", f"{what} over all", "ours_ddp_1", f"ours_ddp_{num}")
        yield Comparison(f"ddp_{num}_vs_1_weak", f"{what} a rank", "ours_ddp_1", f"ours_ddp_{num}_weak")
    yield Comparison("train_gpu_vs_cpu", "training: ours on the GPU against all cores", "ours", "ours_gpu")


def count(num: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{num} {noun}{'' if num == 1 else 's'}"


@contextlib.contextmanager
def open_train(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Ours beside its peers, and on ranks; the workers stay up until the block ends.

    Args:
        machine: names where this runs.
    """
    num_cores, batch = len(os.sched_getaffinity(0)), cfg.benchmark.batch
    every = list(list_rows(batch, num_cores))
    chosen = choose(every, cfg)
    notes = [
        f"{name} is not installed: its row is left out." for name in PEERS if name not in {row.name for row in every}
    ]
    if not torch.cuda.is_available():
        notes.append("No GPU here: its row is left out.")
    with start_workers(chosen, cfg, run) as cells:
        names = {cell.name for cell in cells}
        yield Suite(
            unit="sample",
            groups={cell.group: f"{GROUPS[cell.group]}, a batch of {batch}" for cell in cells},
            cells=tuple(cells),
            comparisons=tuple(each for each in list_comparisons(num_cores) if {each.slow, each.fast} <= names),
            method=METHOD,
            notes=tuple(notes),
            key=files.digest_json({**machine, "tracks": tracks.digest(), "batch": batch, "cells": sorted(names)})[:16],
            examine=lambda _: {},
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
