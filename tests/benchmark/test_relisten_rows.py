from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parallel_tunes.__main__ import compose
from parallel_tunes.benchmark.relisten_rows import ARRAYS, Listens
from parallel_tunes.config_listens import RelistenJob
from parallel_tunes.data import listens
from parallel_tunes.models.relisten_net import RelistenNet
from parallel_tunes.tasks.relisten import make_plan


@pytest.fixture(scope="module")
def star(heard: Path) -> listens.Listens:
    return listens.Listens(heard / "logs/preprocess/l")


@pytest.fixture(scope="module")
def made(star: listens.Listens) -> Listens:
    return Listens.of(star)


def test_rows_are_those_that_a_training_makes(star: listens.Listens, made: Listens) -> None:
    job = compose("relisten", ["split.train=0.8", "split.valid=0.1", "split.test=0.1"])
    assert isinstance(job, RelistenJob)
    plan = make_plan(job, star)
    assert made.num_train == len(plan.rows["train"])
    assert np.array_equal(made.codes, plan.codes)
    np.testing.assert_allclose(made.numbers, plan.numbers, rtol=1e-4, atol=1e-4)
    assert np.array_equal(made.targets, plan.targets)
    for codes, numbers, planned in (
        (made.user_codes, made.user_numbers, plan.users),
        (made.song_codes, made.song_numbers, plan.songs),
    ):
        assert np.array_equal(codes, planned.codes[:-1])  # the last is the stranger, whom no row names
        np.testing.assert_allclose(numbers, planned.numbers[:-1], rtol=1e-4, atol=1e-4)


def test_what_is_kept_is_what_was_made(made: Listens, tmp_path: Path) -> None:
    made.keep(tmp_path / "rows")
    again = Listens.open(tmp_path / "rows")
    assert (again.sizes, again.num_train) == (made.sizes, made.num_train)
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(made, name))
    again.describe(RelistenNet(again.sizes, width=8))
    assert again.without_numbers().rows(again.ids(1, 64)).numbers.shape == (64, 0)


def test_learnt_rows_are_earlier_than_judged_ones(made: Listens) -> None:
    assert max(made.ids(step, 500).max() for step in range(20)) < made.num_train
    late = made.late_ids(100)
    assert len(late) == 100
    assert late[0] == made.num_train
    assert late[-1] > len(made.codes) - 20
    assert np.array_equal(made.late_ids(10**9), np.arange(made.num_train, len(made.codes)))
