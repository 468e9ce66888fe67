"""Rows of training: which processes there are, how each is started, and which are compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from parallel_tunes.benchmark.suite import Comparison
from parallel_tunes.benchmark.tracks import CROP_S
from parallel_tunes.parallel.launch import Command
from parallel_tunes.parallel.workers import launcher_settings, plain_command, ranks_command

MODULE = "parallel_tunes.benchmark.worker"
COUNTS = (1, 2, 4)  # of ranks of one thread each, as far as there are cores
PEERS = ("lightning", "accelerate")
# a training that is never done, keeps its learning rate, and waits for as long as others are timed
ENDLESS = ("train.num_epochs=1000000", "train.patience=1000000", "train.warmup=0", "parallel.timeout_s=1000000")


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
            self.loop, "train", f"data.shards={shards}", "split=lists", f"task.crop_s={CROP_S}", f"train.batch={self.batch}",
            f"train.device={self.device}", f"run.dir={folder / self.name}", *ENDLESS,
        )  # fmt: skip
        tuned = ranks_command(MODULE, words, num_ranks=self.num_ranks, num_threads=self.num_threads)
        kept = {name: value for name, value in tuned.environment.items() if self.is_tuned or "MALLOC" not in name}
        return Command(tuned.words, kept)


def list_train_rows(batch: int, num_cores: int) -> Iterator[Row]:
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


def list_train_comparisons(num_cores: int) -> Iterator[Comparison]:
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


def list_threads_rows(batch: int, num_cores: int) -> Iterator[Row]:
    """One rank with 1, 2, 4 … and all threads; and the ranks that fill the cores together."""
    powers = [2**power for power in range(num_cores.bit_length())]
    filling = [(num, num_cores // num) for num in powers if num > 1 and num_cores % num == 0]
    for num_ranks, num_threads in (*((1, num) for num in sorted({*powers, num_cores})), *filling):
        name, what = f"ranks_{num_ranks}_threads_{num_threads}", count(num_ranks, "rank")
        what += f" of {count(num_threads, 'thread')}"
        yield Row(name, what, "threads", "ours", "ours", batch, num_ranks, num_threads, is_tuned=True)


def list_threads_comparisons(rows: Sequence[Row]) -> Iterator[Comparison]:
    """All others against one rank of one thread."""
    first, *others = rows
    for row in others:
        yield Comparison(f"{row.name}_vs_one", f"training: {row.what} against {first.what}", first.name, row.name)


def count(num: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{num} {noun}{'' if num == 1 else 's'}"
