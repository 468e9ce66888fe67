from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_tunes.benchmark.medians import estimate, estimate_ratio


def test_by_hand() -> None:
    assert estimate([3.0]) == (3.0, 3.0, 3.0, 0.0)
    assert estimate([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 1.0, 5.0, 1 - 2 / 32)
    # of 9, the second and the eighth: 1 - 2 (1 + 9) / 512
    nine = estimate([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 100.0])
    assert nine[:3] == (6.0, 3.0, 9.0)
    assert math.isclose(nine.level, 1 - 20 / 512)


def test_six_values_reach_95_percent() -> None:
    assert [num for num in range(1, 12) if estimate(list(map(float, range(num)))).level >= 0.95] == list(range(6, 12))


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of skewed draws, whose median is known."""
    rng = np.random.default_rng(0)
    found = [estimate(rng.exponential(size=9).tolist()) for _ in range(4000)]
    covered = np.mean([each.low <= math.log(2) <= each.high for each in found])
    assert abs(covered - found[0].level) < 0.015
    assert found[0].level >= 0.95


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60))
def test_the_median_lies_within(values: list[float]) -> None:
    found = estimate(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_a_ratio_is_taken_within_each_repetition() -> None:
    """A machine that is ten times slower in one repetition changes nothing."""
    assert estimate_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0])[:3] == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        estimate_ratio([1.0, 2.0], [1.0])
