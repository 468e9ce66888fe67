from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from parallel_tunes.data.batches import Batches, draw_uniform, fit_length, make_ahead, share, window_starts


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 5), st.integers(1, 7))
def test_an_epoch_holds_every_sample_once_on_any_world_size(num: int, batch: int, epoch: int, world_size: int) -> None:
    samples = np.arange(num, dtype=np.int64) * 3
    batches = Batches(samples, batch=batch, seed=1)
    steps = batches.epoch(epoch)
    assert len(steps) == batches.num_steps
    sizes = [len(ids) for ids in steps]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate(steps).tolist()) == samples.tolist()
    for ids in steps:
        shares = [share(ids, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert np.concatenate(shares).tolist() == ids.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_epochs_and_seeds_differ_and_repeat() -> None:
    samples = np.arange(50)
    orders = [
        np.concatenate(Batches(samples, batch=8, seed=seed).epoch(epoch)).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert np.concatenate(Batches(samples, batch=8, seed=0).epoch(1)).tolist() == orders[1]


def test_draws_are_keyed_by_everything_and_by_nothing_else() -> None:
    ids = np.arange(1000)
    drawn = draw_uniform(0, 0, ids, "crop")
    np.testing.assert_array_equal(drawn[::-1], draw_uniform(0, 0, ids[::-1], "crop"))
    assert draw_uniform(0, 0, ids[7:8], "crop")[0] == drawn[7]
    for other in (draw_uniform(1, 0, ids, "crop"), draw_uniform(0, 1, ids, "crop"), draw_uniform(0, 0, ids, "gain")):
        assert abs(float(np.corrcoef(drawn, other)[0, 1])) < 0.15


def test_draws_are_uniform() -> None:
    drawn = np.concatenate([draw_uniform(0, epoch, np.arange(5000), "crop") for epoch in range(4)])
    assert 0 <= drawn.min() < drawn.max() < 1
    assert kstest(drawn, "uniform").pvalue > 1e-3
    same_sample = np.array([draw_uniform(0, epoch, np.array([3]), "crop")[0] for epoch in range(2000)])
    assert kstest(same_sample, "uniform").pvalue > 1e-3


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 3000), st.integers(1, 400), st.floats(0, 0.95))
def test_windows_cover_the_track(num_frames: int, window: int, overlap: float) -> None:
    starts = window_starts(num_frames, window, overlap)
    assert starts[0] == 0
    if num_frames <= window:
        assert starts == [0]
        return
    assert starts[-1] == num_frames - window
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert steps.max() <= max(int(window * (1 - overlap)), 1)


def test_short_tracks_are_filled_with_their_lowest_level() -> None:
    frames = np.array([[-3, -5], [-4, -1]], np.float16)
    assert fit_length(frames, 3).tolist() == [[-3, -5], [-4, -1], [-5, -5]]
    assert fit_length(frames, 1) is frames


def test_items_made_ahead_are_the_same_and_what_goes_wrong_is_told() -> None:
    def count(last: int) -> Iterator[int]:
        for number in range(last):
            made.append(number)
            yield number
        raise ValueError("no more")

    made: list[int] = []
    items, taken = make_ahead(count(50)), list[int]()
    for number in itertools.islice(items, 50):
        assert len(made) <= len(taken) + 5
        taken.append(number)
    assert taken == list(range(50))
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_whoever_stops_early_waits_for_nothing() -> None:
    before = set(threading.enumerate())
    endless = make_ahead(itertools.count())
    assert [next(endless) for _ in range(3)] == [0, 1, 2]
    endless.close()
    assert set(threading.enumerate()) <= before
