"""Promise 1: the world size changes nothing but time. And what else a batch may be cut into."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import PATIENCE_S, TINY, Worlds, corpus_of
from torch import Tensor

from parallel_tunes import session
from parallel_tunes.__main__ import compose
from parallel_tunes.jobs import JOBS
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Batch, Mixed

Row = dict[str, Any]
ALL_DRAWS = [
    "augment=default",
    "augment.time_shift=0.3",
    "augment.gain_db=3",
    "augment.eq_db=6",
    "augment.noise=0.3",
    "model=residual_cnn",
    "train.ema=0.9",
    "train.precision=fp64",
    "model.widths=[16,8]",
]


def train_here(mesh: Mesh, folder: Path, *more: str, name: str = "curve") -> list[Row]:
    """The epochs of a training in float64 with all draws, 24 steps in all, on the ranks of a mesh."""
    words = [*corpus_of(Path.cwd()), *TINY, *ALL_DRAWS, "train.batch=7", "train.num_epochs=4", *more]
    cfg = compose("train", [*words, f"run.dir={folder / name}"])
    assert session.run_job("train", JOBS["train"], cfg, mesh=mesh) == 0
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def accumulate_here(mesh: Mesh, folder: Path) -> list[Row]:
    return train_here(mesh, folder, "model.norm=group", "train.accumulate=2", name="accumulated")


@pytest.fixture(scope="module")
def alone(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Row]]:
    """The same training in this process, a world of one; each variant is trained once."""
    folder = tmp_path_factory.mktemp("alone")

    @cache
    def train(*more: str) -> list[Row]:
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # in float64, threads that share their cores with other tests spin for long
        try:
            with contextlib.chdir(furnished):
                mesh = Mesh()
                mesh.start("cpu", PATIENCE_S)
                return train_here(mesh, folder, *more, name=f"curve-{len(more)}")
        finally:
            torch.set_num_threads(num_threads)

    return train


def assert_alike(found: list[Row], wanted: list[Row]) -> None:
    """The same samples with the same draws, and losses that agree to 1e-9; what is counted is equal."""
    assert wanted[-1]["step"] == 24
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours["samples"] == theirs["samples"]
        for split in ("train", "valid"):
            assert ours[split]["n"] == theirs[split]["n"]
            assert ours[split]["accuracy"] == theirs[split]["accuracy"]
            assert ours[split]["loss"] == pytest.approx(theirs[split]["loss"], abs=1e-9)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_curves_are_the_same_on_every_world_size(ranks: int, worlds: Worlds, alone: Callable[..., list[Row]]) -> None:
    """With synchronised batch norm, dropout, mixup and masks; at 3 ranks some batches leave a rank without a pair of samples."""
    wanted = alone()
    assert wanted[-1]["train"]["loss"] < wanted[0]["train"]["loss"]
    assert_alike(worlds(ranks, "train_here")[0], wanted)


@pytest.mark.slow
def test_curves_are_the_same_however_a_batch_is_accumulated(worlds: Worlds, alone: Callable[..., list[Row]]) -> None:
    """With a normalisation that knows a sample alone: batch norms see the parts."""
    wanted = alone("model.norm=group")
    assert wanted != alone()
    assert_alike(alone("model.norm=group", "train.accumulate=4"), wanted)
    assert_alike(worlds(3, "accumulate_here")[0], wanted)


def make_batch(num: int, num_global: int) -> Batch:
    """This rank's `num` samples, numbered."""
    ids = torch.arange(num)
    mixed = Mixed(ids.flip(0), ids.flip(0), ids.float(), ids.flip(0))
    return Batch(ids, ids, torch.ones(num), ids, num_global, ids, mixed)


@pytest.mark.parametrize(("world_size", "num_global", "num"), [(1, 5, 2), (2, 7, 4), (3, 5, 9), (3, 12, 2), (5, 7, 4)])
def test_parts_hold_every_sample_once_and_are_as_many_on_every_rank(world_size: int, num_global: int, num: int) -> None:
    counts, seen = set[int](), 0
    for rank in range(world_size):
        size = num_global // world_size + (rank < num_global % world_size)
        parts = make_batch(size, num_global).split(num, world_size)
        counts.add(len(parts))
        kept: list[Tensor] = []
        for part in parts:
            assert part.mixed is not None
            assert len(part.targets) == len(part.weights) == len(part.keys) == len(part.mixed.shares) > 0
            assert part.num_global == num_global
            kept.append(part.targets[part.weights > 0])
        assert torch.equal(torch.cat(kept), torch.arange(size))
        seen += sum(len(part) for part in kept)
    assert seen == num_global
    assert len(counts) == 1
    assert counts.pop() <= num
