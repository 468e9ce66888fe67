from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from fakes import PATIENCE_S

from parallel_tunes.serve.batching import Batcher, Chances, Windows
from parallel_tunes.serve.refusals import Refusal


class Model:
    """Tells a window by its first value, once it may; remembers the sizes of batches and its threads."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.may = threading.Event()
        self.began = threading.Event()

    def __call__(self, windows: Windows) -> Chances:
        self.began.set()
        assert self.may.wait(PATIENCE_S)
        self.sizes.append(len(windows))
        self.threads.add(threading.get_ident())
        if (windows[:, 0, 0] < 0).any():
            raise ValueError("below zero")
        return np.stack([windows[:, 0, 0], 1 - windows[:, 0, 0]], axis=1).astype(np.float64)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model) -> Iterator[Batcher]:
    made = Batcher(model, max_batch=8, max_wait_s=0.0, timeout_s=5.0, observe=lambda _: None)
    yield made
    model.may.set()
    made.close()


def ask(batcher: Batcher, num: int, first: float = 0.0, within_s: float = PATIENCE_S) -> Future[Chances]:
    values = (first + np.arange(num, dtype=np.float32))[:, None, None]
    return batcher.submit(lambda a, b: values[a:b], num, time.monotonic() + within_s)


def test_each_clip_has_its_own_windows_in_order(batcher: Batcher, model: Model) -> None:
    """Whatever is batched with what: sizes from one to many batches."""
    model.may.set()
    sizes = [1, 8, 3, 30, 9, 2]
    answers = [ask(batcher, num, 100.0 * place) for place, num in enumerate(sizes)]
    for place, (num, answer) in enumerate(zip(sizes, answers, strict=True)):
        np.testing.assert_array_equal(answer.result(PATIENCE_S)[:, 0], 100.0 * place + np.arange(num))
    assert max(model.sizes) <= 8
    assert len(model.threads) == 1


def test_what_waits_together_goes_through_together(batcher: Batcher, model: Model) -> None:
    first = ask(batcher, 1)
    assert model.began.wait(PATIENCE_S)
    others = [ask(batcher, 1) for _ in range(8)]
    model.may.set()
    for answer in [first, *others]:
        answer.result(PATIENCE_S)
    assert model.sizes == [1, 8]


def test_a_long_clip_does_not_keep_short_ones_waiting(batcher: Batcher, model: Model) -> None:
    done: list[str] = []
    block = ask(batcher, 1)
    assert model.began.wait(PATIENCE_S)
    long, short = ask(batcher, 80), ask(batcher, 1)
    long.add_done_callback(lambda _: done.append("long"))
    short.add_done_callback(lambda _: done.append("short"))
    model.may.set()
    for answer in (block, long, short):
        answer.result(PATIENCE_S)
    assert done == ["short", "long"]


def test_a_batch_waits_a_little_for_more(model: Model) -> None:
    model.may.set()
    batcher = Batcher(model, max_batch=2, max_wait_s=10 * PATIENCE_S, timeout_s=PATIENCE_S, observe=lambda _: None)
    answers = [ask(batcher, 1), ask(batcher, 1)]
    for answer in answers:
        answer.result(PATIENCE_S)  # the batch was full, and waited no longer
    assert model.sizes == [2]
    batcher.close()


def test_who_waited_in_vain_is_told_and_others_are_answered(batcher: Batcher, model: Model) -> None:
    first = ask(batcher, 1)
    assert model.began.wait(PATIENCE_S)
    late, late_work = ask(batcher, 1, within_s=0.0), batcher.call(lambda: 1, time.monotonic())
    soon = ask(batcher, 1)
    model.may.set()
    for answer in (late, late_work):
        with pytest.raises(Refusal, match="no answer within 5 s") as caught:
            answer.result(PATIENCE_S)
        assert caught.value.status == 503
    assert len(first.result(PATIENCE_S)) == len(soon.result(PATIENCE_S)) == 1


def test_a_failure_is_told_to_those_it_befell(batcher: Batcher, model: Model) -> None:
    model.may.set()
    with pytest.raises(ValueError, match="below zero"):
        ask(batcher, 20, first=-1.0).result(PATIENCE_S)
    assert len(ask(batcher, 3).result(PATIENCE_S)) == 3


def test_other_work_is_done_in_the_same_thread(batcher: Batcher, model: Model) -> None:
    model.may.set()
    ask(batcher, 1).result(PATIENCE_S)
    assert batcher.call(threading.get_ident, time.monotonic() + PATIENCE_S).result(PATIENCE_S) in model.threads

    def fail() -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        batcher.call(fail, time.monotonic() + PATIENCE_S).result(PATIENCE_S)


def test_the_end_finishes_what_was_asked_and_takes_no_more(model: Model) -> None:
    batcher = Batcher(model, max_batch=4, max_wait_s=0.0, timeout_s=5.0, observe=lambda _: None)
    answers = [ask(batcher, 9) for _ in range(5)]
    ending = threading.Thread(target=batcher.close)
    ending.start()
    model.may.set()
    ending.join(PATIENCE_S)
    assert all(len(answer.result(0)) == 9 for answer in answers)
    assert not batcher.is_alive
    with pytest.raises(Refusal, match="stopping"):
        ask(batcher, 1)


def test_one_who_goes_away_takes_nobody_along(batcher: Batcher, model: Model) -> None:
    first = ask(batcher, 1)
    assert not first.cancel()
    model.may.set()
    assert len(ask(batcher, 2).result(PATIENCE_S)) == 2
