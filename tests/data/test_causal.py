from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parallel_tunes.data.causal import (
    NAMES,
    TRANSDUCTIVE_NAMES,
    CausalState,
    causal_features,
    transductive_counts,
)
from parallel_tunes.data.causal_kernels import ALL_PRIOR, DECAY, FLOOR, KEYS, PRIORS, RUN_ROWS
from parallel_tunes.schema import UserError

Row = tuple[int, int, int, int, int]  # user, song, artist, source, target
Array = NDArray[Any]

ROW = st.tuples(*(st.integers(0, high) for high in (3, 4, 2, 2)), st.sampled_from((0, 1, 1, -1)))
ROWS = st.lists(ROW, min_size=1, max_size=40)


Columns = tuple[Array, Array, Array, Array, Array]  # of rows


def columns(rows: list[Row]) -> Columns:
    user, song, artist, source, target = np.array(rows, np.int32).reshape(-1, 5).T
    return user, song, artist, source, target.astype(np.int8)


def features(rows: list[Row], delay: int = 0, smoothing: float = 3.0) -> Array:
    return causal_features(*columns(rows), smoothing=smoothing, delay=delay)


def name_keys(row: Row) -> list[object]:
    """Of each of KEYS, what the row is of; None for nobody."""
    user, song, artist, source, _ = row
    pairs = [(user, artist) if user and artist else None, (user, source) if user else None]
    return [user or None, song or None, artist or None, source, *pairs]


def believe(told: list[Row]) -> dict[tuple[str, object], list[float]]:
    """Mean and variance of each weight after these labels."""
    beliefs: dict[tuple[str, object], list[float]] = {}
    for row in told:
        own = [beliefs.setdefault(("all", 0), [0.0, ALL_PRIOR])]
        for key, of, prior in zip(KEYS, name_keys(row), PRIORS, strict=True):
            if of is not None:
                own.append(beliefs.setdefault((key, of), [0.0, prior]))
        chance = 1 / (1 + math.exp(-sum(mean for mean, _ in own)))
        slope, total = chance * (1 - chance), sum(variance for _, variance in own)
        for belief in own:
            mean, variance = belief
            belief[0] = mean + variance * (row[4] - chance) / (1 + slope * total)
            belief[1] = max(variance - variance**2 * slope / (1 + slope * total), float(FLOOR))
    return beliefs


def describe(rows: list[Row], at: int, delay: int, smoothing: float) -> dict[str, float]:
    """The definition of each feature, from the rows before `at`, without any state."""
    keys, before = name_keys(rows[at]), rows[:at]
    told = [row for row in rows[: max(at - delay, 0)] if row[4] >= 0]
    out: dict[str, float] = {}
    labels = {}
    for place, (key, of) in enumerate(zip(KEYS, keys, strict=True)):
        mine = [] if of is None else [row for row in before if name_keys(row)[place] == of]
        labels[key] = [] if of is None else [row[4] for row in told if name_keys(row)[place] == of]
        out[f"{key}_count"] = math.log1p(len(mine))
    rate = (sum(row[4] for row in told) + 0.5 * smoothing) / (len(told) + smoothing)
    for key in KEYS:
        parent = rate
        if "_" in key:
            parent = min(max(out["user_rate"] + out[f"{key.split('_')[1]}_rate"] - rate, 0), 1)
        out[f"{key}_rate"] = (sum(labels[key]) + smoothing * parent) / (len(labels[key]) + smoothing)
    beliefs = believe(told)
    for key, of in zip(KEYS, keys, strict=True):
        out[f"{key}_weight"] = beliefs.get((key, of), [0.0])[0]
    out["score"] = beliefs.get(("all", 0), [0.0])[0] + sum(out[f"{key}_weight"] for key in KEYS)
    for key in ("user", "song"):
        shares = [float(DECAY) ** age for age in range(len(labels[key]))][::-1]
        ones = sum(share * label for share, label in zip(shares, labels[key], strict=True))
        out[f"{key}_recent_rate"] = (ones + out[f"{key}_rate"]) / (sum(shares) + 1)
    alike = 0
    for label in labels["user"]:
        side = 1 if label else -1
        alike = alike + side if alike * side > 0 else side
    out["user_last_labels"] = math.copysign(math.log1p(abs(alike)), alike) if alike else 0.0
    lasts = {}
    for place, key in ((0, "user"), (1, "song"), (4, "user_artist")):
        mine_at = [
            n for n, row in enumerate(before) if keys[place] is not None and name_keys(row)[place] == keys[place]
        ]
        lasts[key] = mine_at
        out[f"{key}_gap"] = math.log1p(at - (mine_at[-1] if mine_at else -1))
    heard = lasts["user"]
    out["is_artist_again"] = float(bool(heard) and rows[at][2] > 0 and rows[at][2] == before[heard[-1]][2])
    out["is_source_again"] = float(bool(heard) and rows[at][3] == before[heard[-1]][3])
    run: list[int] = []
    for row in heard:
        run = [*run, row] if run and row - run[-1] <= RUN_ROWS else [row]
    goes_on = bool(run) and at - run[-1] <= RUN_ROWS
    out["run_listens"] = math.log1p(len(run)) if goes_on else 0.0
    out["run_rows"] = math.log1p(at - run[0]) if goes_on else 0.0
    return out


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, delay=st.integers(0, 5))
def test_features_are_what_they_are_said_to_be(rows: list[Row], delay: int) -> None:
    told = [describe(rows, at, delay, 3.0) for at in range(len(rows))]
    assert {*told[0]} == {*NAMES}
    expected = np.array([[row[name] for name in NAMES] for row in told])
    np.testing.assert_allclose(features(rows, delay), expected, rtol=1e-4, atol=1e-5)


def test_runs_end() -> None:
    """A gap of more than RUN_ROWS starts another run; one of RUN_ROWS does not."""
    rows: list[Row] = [(1, 1, 1, 0, 1), (1, 1, 1, 0, 1), *[(2, 2, 0, 1, 0)] * (RUN_ROWS - 1), (1, 3, 1, 0, 1)]
    rows += [*[(2, 2, 0, 1, 0)] * RUN_ROWS, (1, 1, 1, 0, 1), (1, 1, 1, 0, 0)]
    at = [row for row, (user, *_) in enumerate(rows) if user == 1]
    listens, since = (np.expm1(features(rows)[at, NAMES.index(name)]) for name in ("run_listens", "run_rows"))
    np.testing.assert_allclose(listens, [0, 1, 2, 0, 1], atol=1e-4)
    np.testing.assert_allclose(since, [0, 1, RUN_ROWS + 1, 0, 1], atol=1e-4)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, later=ROWS, delay=st.integers(0, 5), data=st.data())
def test_no_later_row_changes_an_earlier_ones_features(
    rows: list[Row], later: list[Row], delay: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(rows) - 1))
    before = features(rows, delay)
    np.testing.assert_array_equal(before[:cut], features(rows[:cut] + later, delay)[:cut])
    relabelled = [(*row[:4], 1 - max(row[4], 0)) for row in rows[cut:]]
    np.testing.assert_array_equal(before[: cut + 1], features(rows[:cut] + relabelled, delay)[: cut + 1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, delay=st.integers(0, 8), data=st.data())
def test_labels_not_yet_known_change_nothing(rows: list[Row], delay: int, data: st.DataObject) -> None:
    """A row's own label and those of the `delay` rows before it."""
    at = data.draw(st.integers(0, len(rows) - 1))
    labels = data.draw(st.lists(st.sampled_from((0, 1, -1)), min_size=delay + 1, max_size=delay + 1))
    first = max(at - delay, 0)
    changed = list(rows)
    for place, label in zip(range(first, at + 1), labels, strict=False):
        changed[place] = (*rows[place][:4], label)
    np.testing.assert_array_equal(features(rows, delay)[at], features(changed, delay)[at])


def test_the_label_before_that_does_change_something() -> None:
    rows: list[Row] = [(1, 1, 1, 1, 1)] * 6
    changed = [(1, 1, 1, 1, 0), *rows[1:]]
    for delay in range(4):
        one, other = features(rows, delay), features(changed, delay)
        np.testing.assert_array_equal(one[: delay + 1], other[: delay + 1])
        assert (one[delay + 1] != other[delay + 1]).any()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, row=st.tuples(*(st.integers(0, high) for high in (5, 6, 4, 4))), delay=st.integers(0, 5))
def test_state_tells_of_a_row_at_the_end(rows: list[Row], row: tuple[int, int, int, int], delay: int) -> None:
    """Those of codes that no row had, too; and what is kept as arrays tells the same."""
    state = CausalState.after(*columns(rows), smoothing=3.0, delay=delay)
    expected = features([*rows, (*row, 1)], delay)[-1:]
    served = [np.array([code, code]) for code in row]
    np.testing.assert_array_equal(state.features(*served), np.repeat(expected, 2, 0))  # the first is not counted
    again = CausalState.from_arrays(
        {name: array.copy() for name, array in state.to_arrays().items()} | {"more": served[0]}
    )
    np.testing.assert_array_equal(again.features(*served)[:1], expected)


def test_state_before_the_first_row() -> None:
    state = CausalState.after(*columns([]), smoothing=2.0)
    served = state.features(*columns([(1, 1, 1, 1, 1)])[:4])
    np.testing.assert_array_equal(served, features([(1, 1, 1, 1, 1)], smoothing=2.0))
    assert features([]).shape == (0, len(NAMES))


def test_usual_sources() -> None:
    rows: list[Row] = [(1, 1, 1, 2, 1), (2, 1, 1, 0, 1), (1, 2, 1, 3, 0), (1, 1, 0, 3, 1), (0, 1, 1, 1, 1)]
    state = CausalState.after(*columns(rows), smoothing=2.0)
    assert [state.usual_source(user) for user in range(4)] == [0, 3, 0, 0]


def draw(num_rows: int) -> Columns:
    rng = np.random.default_rng(0)
    user, song, artist, source = (rng.integers(0, high, num_rows).astype(np.int32) for high in (500, 3000, 300, 12))
    return user, song, artist, source, rng.integers(-1, 2, num_rows).astype(np.int8)


def test_many_pairs() -> None:
    """More than a first table of pairs holds: counts are those of NumPy."""
    parts = draw(30_000)
    found = causal_features(*parts, smoothing=5.0)
    pair = np.where((parts[0] > 0) & (parts[2] > 0), parts[0].astype(np.int64) * 300 + parts[2], 0)
    order = np.argsort(pair, kind="stable")
    earlier = np.empty(len(pair))
    earlier[order] = np.arange(len(pair)) - np.searchsorted(pair[order], pair[order])
    expected = np.log1p(np.where(pair > 0, earlier, 0))
    np.testing.assert_allclose(found[:, NAMES.index("user_artist_count")], expected, rtol=1e-5)


def test_threads_and_types_do_not_matter() -> None:
    parts = draw(20_000)
    alone = causal_features(*parts, smoothing=5.0)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: causal_features(*parts, smoothing=5.0), range(3)))
    for one in found:
        np.testing.assert_array_equal(one, alone)
    user, song, artist, source, target = parts
    wide, given_out = user.astype(np.int64), np.empty_like(alone)
    same = causal_features(wide, song, artist, source.astype(np.int8), target, smoothing=5.0, out=given_out)
    assert same is given_out
    np.testing.assert_array_equal(same, alone)


def test_beliefs_tell_who_from_what() -> None:
    """A user of a good source and one of a bad one, alike but for that: rates differ, weights much less; the score is calibrated."""
    rng, num = np.random.default_rng(1), 40_000
    user, source = rng.integers(1, 201, num), rng.integers(0, 2, num)
    source = np.where(user <= 100, rng.random(num) < 0.9, rng.random(num) < 0.1).astype(np.int32)
    skill = rng.standard_normal(201)
    chance = 1 / (1 + np.exp(-skill[user] - 2.0 * source + 1))
    target = (rng.random(num) < chance).astype(np.int8)
    nothing = np.zeros(num, np.int32)
    found = causal_features(user.astype(np.int32), nothing, nothing, source, target, smoothing=5.0)
    late, column = slice(num // 2, num), {name: place for place, name in enumerate(NAMES)}
    weight, rate = found[late, column["user_weight"]], found[late, column["user_rate"]]
    assert np.corrcoef(weight, skill[user[late]])[0, 1] > 0.93
    assert np.corrcoef(rate, skill[user[late]])[0, 1] < 0.85
    told = 1 / (1 + np.exp(-found[late, column["score"]]))
    assert np.abs(told - chance[late]).mean() < 0.06
    assert abs(told.mean() - target[late].mean()) < 0.01


def test_counts_of_all_rows_see_the_future() -> None:
    rows: list[Row] = [(1, 1, 0, 0, 1), (1, 2, 1, 0, 1), (2, 2, 1, 1, 0), (1, 2, 1, 2, 1), (0, 0, 1, 1, 0)]
    found = np.rint(np.expm1(transductive_counts(*columns(rows)[:4])))
    assert len(TRANSDUCTIVE_NAMES) == found.shape[1]
    assert found[:, :4].tolist() == [[3, 1, 0, 2], [3, 3, 4, 2], [1, 3, 4, 2], [3, 3, 4, 1], [0, 0, 4, 2]]
    assert found[:, 4:].tolist() == [[0, 2], [2, 2], [1, 1], [2, 1], [0, 0]]


def test_bad_numbers() -> None:
    bad: list[dict[str, Any]] = [{"smoothing": 0.0}, {"smoothing": math.nan}, {"smoothing": 1.0, "delay": -1}]
    for numbers in bad:
        with pytest.raises(UserError, match="smoothing must be above 0"):
            causal_features(*draw(5), **numbers)


def test_bad_arrays() -> None:
    user, song, artist, source, target = draw(5)
    with pytest.raises(UserError, match="one entry a row"):
        causal_features(user, song, artist, source, target[:4], smoothing=1.0)
    with pytest.raises(UserError, match="no code below 0"):
        causal_features(user, song - 9999, artist, source, target, smoothing=1.0)
