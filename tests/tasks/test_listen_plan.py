from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_tunes.__main__ import compose
from parallel_tunes.config_listens import RelistenJob
from parallel_tunes.data.listens import Listens
from parallel_tunes.data.vocabulary import MISSING, UNSEEN
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.tasks.listen_plan import ListenPlan, Scale, draw_rows
from parallel_tunes.tasks.listen_source import ListenSource
from parallel_tunes.tasks.relisten import make_plan


@pytest.fixture
def columns(heard: Path) -> Listens:
    return Listens(heard / "logs/preprocess/l")


def job(*words: str) -> RelistenJob:
    made: RelistenJob = compose("relisten", list(words))
    return made


def planned(columns: Listens, *words: str) -> ListenPlan:
    return make_plan(job(*words), columns)


def source_of(made: ListenPlan, rank: int = 0, world_size: int = 1, **more: Any) -> ListenSource:
    mesh = Mesh()
    mesh.start("cpu", timeout_s=60)
    mesh.rank, mesh.world_size = rank, world_size
    return ListenSource(made, mesh, batch=1000, seed=3, **more)


def test_time_comes_in_order_and_random_does_not(columns: Listens) -> None:
    rows = planned(columns).rows
    assert {name: len(part) for name, part in rows.items()} == {"train": 4200, "valid": 600, "test": 1200}
    assert rows["train"].max() < rows["valid"].min() <= rows["valid"].max() < rows["test"].min()
    mixed = planned(columns, "split=random").rows
    assert sorted(np.concatenate(list(mixed.values()))) == list(range(6000))
    assert mixed["train"].max() > mixed["test"].min()


def test_splits_that_cannot_be_are_one_line() -> None:
    for words, said in (
        (("split=grouped",), "split=grouped"),
        (("split.train=0.9",), "add up to 1"),
        (("split.train=0", "split.valid=0.5", "split.test=0.5"), "no row to learn from"),
    ):
        with pytest.raises(UserError, match=said):
            draw_rows(1000, job(*words).split)


def test_what_the_training_rows_lack_is_unseen_whatever_the_tables_hold(columns: Listens) -> None:
    made = planned(columns, "model.min_count=1")
    seen = np.unique(made.codes[made.rows["train"], 0])
    lookup = made.users.lookups["user"]
    others = np.setdiff1d(np.arange(1, len(lookup)), seen)
    assert len(others) > 0
    assert (lookup[others] == UNSEEN).all()
    assert (lookup[seen] > UNSEEN).all()
    assert len(np.unique(lookup[seen])) == len(seen)
    assert lookup[0] == MISSING
    assert made.users.codes[-1].tolist() == [UNSEEN] + [MISSING] * (made.users.codes.shape[1] - 1)  # the stranger
    np.testing.assert_array_equal(made.is_known("user"), np.isin(made.codes[:, 0], seen))


def test_later_rows_change_nothing_that_training_rows_see(columns: Listens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalers, lookups and causal features of the training rows are the same if all later labels are turned around."""
    before = planned(columns)
    turned = columns.target.copy()
    last = before.rows["train"][-1]
    turned[last + 1 : columns.num_labelled] = 1 - turned[last + 1 : columns.num_labelled]
    monkeypatch.setattr(columns, "target", turned)
    after = planned(columns)
    train = before.rows["train"]
    np.testing.assert_array_equal(before.numbers[train], after.numbers[train])
    np.testing.assert_array_equal(before.codes, after.codes)
    np.testing.assert_array_equal(before.scale.center, after.scale.center)
    assert not np.array_equal(before.numbers[last + 2 :], after.numbers[last + 2 :])


def test_the_scale_is_that_of_the_training_rows(columns: Listens) -> None:
    made = planned(columns)
    train = made.numbers[made.rows["train"]]
    np.testing.assert_allclose(train.mean(0, dtype=np.float64), 0, atol=1e-4)
    deviation = train.std(0, dtype=np.float64)
    assert ((np.abs(deviation - 1) < 1e-3) | (deviation == 0)).all()


def test_missing_numbers_become_the_mean() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 5.0]], np.float32)
    scale = Scale.fit(values, np.arange(3))
    np.testing.assert_allclose(scale.center, [2, 5])
    applied = scale.apply(values.copy())
    np.testing.assert_allclose(applied, [[-1, 0], [1, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(scale.undo(applied[:, 0], 0), [1, 3, 2], atol=1e-6)
    np.testing.assert_allclose(Scale.fit(values, np.array([0, 1])).center, [2, 5])


def test_kinds_of_features(columns: Listens) -> None:
    static, causal, all_rows = (planned(columns, f"features={kind}") for kind in ("static", "causal", "transductive"))
    assert static.numbers.shape[1] == 0
    assert set(causal.number_names) < set(all_rows.number_names)
    assert len({made.digest for made in (static, causal, all_rows)}) == 3


def test_the_global_batch_is_the_same_on_every_world_size(columns: Listens) -> None:
    made, world_size = planned(columns), 3
    alone = list(source_of(made).train(2, 0))
    shared = [list(source_of(made, rank, world_size).train(2, 0)) for rank in range(world_size)]
    assert len(alone) == 5
    for step, batch in enumerate(alone):
        parts = [ranks[step] for ranks in shared]
        marks = np.sort(np.concatenate([part.marks.numpy() for part in parts]))
        np.testing.assert_array_equal(marks, np.sort(batch.marks.numpy()))
        assert {part.num_global for part in parts} == {batch.num_global}
    again = next(source_of(made).train(2, 3))
    np.testing.assert_array_equal(again.marks, alone[3].marks)
