"""Learning from listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Worlds, assert_same_on_threads
from torch import Tensor

from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed
from parallel_tunes.models.star import Sizes
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.parallel.sparse import sum_rows
from parallel_tunes.train.learner import Batch, Rows, Sums
from parallel_tunes.train.relisten_learner import RelistenLearner

SIZES = Sizes(
    num_users=60,
    num_songs=150,
    row=(5, 4),
    user=(60, 6),
    song=(150, 30, 8),
    row_numbers=5,
    user_numbers=2,
    song_numbers=3,
)
NUM = 4096


def listens(precision: torch.dtype = torch.float32) -> tuple[Rows, Tensor]:
    """Rows whose targets users, artists and numbers decide, in part."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, (60, 150, 5, 4), (NUM, 4))
    numbers = rng.standard_normal((NUM, 5)).astype(np.float32)
    logits = rng.standard_normal(60)[codes[:, 0]] + 2 * rng.standard_normal(150)[codes[:, 1]] + numbers[:, 0]
    targets = rng.random(NUM) < 1 / (1 + np.exp(-logits))
    return Rows(torch.from_numpy(codes.astype(np.int32)), torch.from_numpy(numbers)), torch.from_numpy(targets).long()


def batch_of(ids: Tensor, num_global: int, weight: float = 1.0) -> Batch:
    rows, targets = listens()
    weights = torch.full((len(ids),), weight)
    return Batch(Rows(rows.codes[ids], rows.numbers[ids]), targets[ids], weights, ids * 7919, num_global, ids)


def learner(mesh: Mesh, kind: type[RelistenNet | RelistenSeed] = RelistenNet, **words: Any) -> RelistenLearner:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = kind(SIZES, width=8, hidden=(6, 4))
    for kinds, num, num_numbers in (("user", 60, 2), ("song", 150, 3)):
        sizes = getattr(SIZES, kinds)
        codes = np.concatenate([np.arange(num)[:, None], rng.integers(0, sizes[1:], (num, len(sizes) - 1))], 1)
        model.describe(kinds, codes, rng.standard_normal((num, num_numbers)).astype(np.float32))
    given: dict[str, Any] = {"learning_rate": lambda step: 0.02 / (1 + step), "precision": "fp32"} | words
    return RelistenLearner(model, mesh, **given)


def alone() -> Mesh:
    mesh = Mesh()
    mesh.start("cpu", 10)
    return mesh


def train(one: RelistenLearner, first: int, last: int, size: int = 512) -> list[Sums]:
    """Steps on this rank's part of batches; the last rank has fewer samples, in the second step only a stand-in."""
    found, mesh = [], one.mesh
    for step in range(first, last):
        ids = torch.arange(step * size, (step + 1) * size) % NUM
        parts = [ids] if mesh.world_size == 1 else [ids[: size - 100], ids[size - 100 :]]
        weight = 1.0
        if mesh.world_size > 1 and step == 1:
            parts, weight = [ids, ids[:1]], float(mesh.is_first)
        found.append(one.step(batch_of(parts[mesh.rank], size, weight), step))
    return found


@pytest.mark.parametrize("kind", [RelistenNet, RelistenSeed])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learning_reduces_the_loss(kind: type[RelistenNet | RelistenSeed], precision: str) -> None:
    one = learner(alone(), kind, precision=precision, learning_rate=lambda _: 0.02)
    losses = [sums.means()["loss"] for sums in train(one, 0, 24)]
    assert np.mean(losses[-8:]) < 0.93 * np.mean(losses[:8])
    rows, targets = listens()
    answers = one.predict(rows)
    assert answers.shape == (NUM, 2)
    torch.testing.assert_close(answers.sum(1), torch.ones(NUM))
    assert (answers.argmax(1) == targets).float().mean() > 0.65
    assert one.is_finite()


def test_state_resumes_to_the_same_bits() -> None:
    whole, half, other = (learner(alone()) for _ in range(3))
    whole.lr_factor = half.lr_factor = 0.5
    train(whole, 0, 6)
    train(half, 0, 3)
    other.settle(batch_of(torch.arange(9), 9))
    other.load(half.state())
    assert other.lr_factor == 0.5
    train(other, 3, 6)
    wanted, found = whole.weights(), other.weights()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    fresh = learner(alone())
    fresh.load_weights(wanted)
    assert torch.equal(fresh.predict(listens()[0]), whole.predict(listens()[0]))


def test_bits_do_not_depend_on_threads() -> None:
    def learn() -> dict[str, Tensor]:
        one = learner(alone())
        train(one, 0, 4)
        return one.weights()

    assert_same_on_threads(learn)


def test_accumulated_parts_are_one_batch() -> None:
    found = []
    for parts in (1, 3):
        one = learner(alone(), accumulate=parts)
        sums = train(one, 0, 3)
        found.append((one.weights(), [each.values.tolist()[1:] for each in sums]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    assert found[0][1] == found[1][1]


def test_lr_factor_scales_both_rates() -> None:
    one, still = learner(alone()), learner(alone())
    still.lr_factor = 0.0
    train(one, 0, 1)
    train(still, 0, 1)
    before = learner(alone()).weights()
    assert all(torch.equal(tensor, before[name]) for name, tensor in still.weights().items())
    assert not torch.equal(one.weights()["table"], before["table"])
    assert not torch.equal(one.weights()["second.weight"], before["second.weight"])


def test_a_batch_of_rows_is_split_and_cut() -> None:
    batch = batch_of(torch.arange(10), 10)
    parts = batch.split(3, 1)
    assert [len(part.targets) for part in parts] == [4, 3, 3]
    whole = [part.inputs for part in parts]
    assert all(isinstance(each, Rows) for each in whole)
    assert torch.equal(torch.cat([each.codes for each in whole if isinstance(each, Rows)]), listens()[0].codes[:10])
    repeated = batch.repeat(25).inputs
    assert isinstance(repeated, Rows)
    assert torch.equal(repeated.numbers[20:], listens()[0].numbers[:5])


def learn_here(world: Mesh, folder: Path) -> dict[str, Any]:
    """A training of a world, and what came of it."""
    ours = learner(world)
    ours.settle(batch_of(torch.arange(9), 9))
    seen = [sums.values for sums in train(ours, 0, 4)]
    some = (torch.tensor([4, 5]), torch.ones(2, 3))
    if not world.is_first:
        some = (torch.tensor([0, 4, 9]), torch.tensor([[1.0], [2.0], [2.0]]).expand(3, 3).contiguous())
    rows, values = sum_rows(*some, world)
    return {"weights": ours.weights(), "sums": seen, "rows": rows, "values": values}


def test_two_ranks_learn_as_one(worlds: Worlds) -> None:
    """Though their parts are unequal and they touch different rows of the table."""
    one = learner(alone())
    sums = train(one, 0, 4)
    ranks = worlds(2, "learn_here")
    for rank in ranks:
        torch.testing.assert_close(rank["weights"], one.weights(), rtol=2e-4, atol=2e-6)
        assert all(torch.equal(tensor, ranks[0]["weights"][name]) for name, tensor in rank["weights"].items())
    together = [first + second for first, second in zip(*(rank["sums"] for rank in ranks), strict=True)]
    assert [each[1:].tolist() for each in together] == [each.values[1:].tolist() for each in sums]
    rows, values = sum_rows(torch.tensor([1, 4]), torch.ones(2, 3), one.mesh)
    assert rows.tolist() == [1, 4]
    assert values.sum() == 6
    assert ranks[0]["rows"].tolist() == ranks[1]["rows"].tolist() == [0, 4, 5, 9]
    assert ranks[0]["values"][:, 0].tolist() == [1.0, 3.0, 1.0, 2.0]
