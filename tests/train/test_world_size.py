"""Promise 1: the world size changes nothing but time. And what else a batch may be cut into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TINY, corpus_of, door, ptunes
from torch import Tensor

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


@pytest.fixture(scope="module")
def curve(workshop: Path) -> Callable[..., list[Row]]:
    """Epochs of a training in float64 with all draws, 54 steps in all; each training is done once."""
    done: dict[tuple[str, ...], list[Row]] = {}

    def train(ranks: int, *more: str) -> list[Row]:
        key = (str(ranks), *more)
        if key not in done:
            name = f"world-{len(done)}"
            words = ["train", *corpus_of(workshop), *TINY, *ALL_DRAWS, "train.batch=7", "train.num_epochs=9"]
            if ranks > 1:
                ptunes(*words, *more, f"run.name={name}", cwd=workshop, ranks=ranks)
            else:
                num_threads = torch.get_num_threads()
                torch.set_num_threads(1)  # in float64, threads that share their cores with other tests spin for long
                try:
                    assert door(*words, *more, f"run.name={name}", cwd=workshop) == 0
                finally:
                    torch.set_num_threads(num_threads)
            lines = (workshop / "logs/train" / name / "metrics.jsonl").read_text().splitlines()
            done[key] = [json.loads(line) for line in lines]
        return done[key]

    return train


def assert_alike(found: list[Row], wanted: list[Row]) -> None:
    """The same samples with the same draws, and losses that agree to 1e-9; what is counted is equal."""
    assert wanted[-1]["step"] == 54
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours["samples"] == theirs["samples"]
        for split in ("train", "valid"):
            assert ours[split]["n"] == theirs[split]["n"]
            assert ours[split]["accuracy"] == theirs[split]["accuracy"]
            assert ours[split]["loss"] == pytest.approx(theirs[split]["loss"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_curves_are_the_same_on_every_world_size(ranks: int, curve: Callable[..., list[Row]]) -> None:
    """With synchronised batch norm, dropout, mixup and masks; at 4 ranks some batches leave a rank without a pair of samples."""
    wanted = curve(1)
    assert wanted[-1]["train"]["loss"] < wanted[0]["train"]["loss"]
    assert_alike(curve(ranks), wanted)


@pytest.mark.slow
def test_curves_are_the_same_however_a_batch_is_accumulated(curve: Callable[..., list[Row]]) -> None:
    """With a normalisation that knows a sample alone: batch norms see the parts."""
    wanted = curve(1, "model.norm=group")
    assert wanted != curve(1)
    assert_alike(curve(1, "model.norm=group", "train.accumulate=4"), wanted)
    assert_alike(curve(3, "model.norm=group", "train.accumulate=2"), wanted)


def make_batch(num: int, num_global: int) -> Batch:
    """This rank's `num` samples, numbered."""
    ids = torch.arange(num)
    mixed = Mixed(ids.flip(0), ids.flip(0), ids.float(), ids.flip(0))
    return Batch(ids, ids, torch.ones(num), ids, num_global, ids, mixed)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_global", [5, 7, 12])
@pytest.mark.parametrize("num", [1, 2, 4, 9])
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
