from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_tunes.scaling.intervals import Interval, median_interval, ratio_interval

NUM_DRAWS = 200
NO_DRIFT = (0.0,) * 5
LAUNCHES = st.dictionaries(
    st.integers(1, 6), st.lists(st.floats(0.01, 1e4), min_size=1, max_size=4), min_size=1, max_size=6
)


def launches(rng: np.random.Generator, median: float, drift: Sequence[float] = NO_DRIFT) -> dict[int, list[float]]:
    """5 launches of 3 windows, as measured: launches differ by 3 %, windows within them by 1 %, rounds by `drift`."""
    return {
        number: list(median * np.exp(shift + rng.normal(0, 0.03) + rng.normal(0, 0.01, 3)))
        for number, shift in enumerate(drift)
    }


def test_by_hand() -> None:
    """The median over launches, not over all windows; a launch of more windows weighs no more."""
    found = median_interval({1: [1.0], 2: [2.0], 3: [10.0, 30.0, 20.0, 20.0]})
    assert (found.median, found.low, found.high) == (2.0, 1.0, 20.0)
    assert median_interval({7: [3.0, 5.0]}).median == 4.0
    assert ratio_interval({1: [6.0]}, {1: [2.0]}, paired=True) == Interval(3.0, 3.0, 3.0)


def test_of_one_launch_the_windows_tell() -> None:
    assert median_interval({4: [1.0, 2.0, 3.0]}) == Interval(2.0, 1.0, 3.0)
    assert median_interval({4: [2.0]}) == Interval(2.0, 2.0, 2.0)


def test_windows_are_no_launches() -> None:
    """Many windows that agree within a launch make the interval no narrower: launches differ all the same."""
    few = median_interval({number: [100.0 + number] * 2 for number in range(5)})
    many = median_interval({number: [100.0 + number] * 50 for number in range(5)})
    assert (few.low, few.high) == (many.low, many.high) == (100.0, 104.0)


def test_the_interval_covers_as_often_as_it_can() -> None:
    """A median of 5 reaches 94 %; 200 draws tell that to within 2 points."""
    rng = np.random.default_rng(0)
    found = [median_interval(launches(rng, 100.0), seed=seed) for seed in range(NUM_DRAWS)]
    assert 0.88 <= np.mean([each.low <= 100 <= each.high for each in found]) < 1
    # and where windows alone are drawn, as if they were launches, it does not
    alone = [median_interval({0: launches(rng, 100.0)[0]}, seed=seed) for seed in range(NUM_DRAWS)]
    assert np.mean([each.low <= 100 <= each.high for each in alone]) < 0.5


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_a_ratio_covers_as_often(paired: bool) -> None:
    rng = np.random.default_rng(1)
    found = [
        ratio_interval(launches(rng, 190.0), launches(rng, 100.0), paired=paired, seed=seed)
        for seed in range(NUM_DRAWS)
    ]
    assert 0.88 <= np.mean([each.low <= 1.9 <= each.high for each in found]) < 1


def test_what_drifts_for_both_leaves_a_paired_ratio() -> None:
    """Rounds that differ by 10 %: the paired interval is much the narrower, and holds the truth no less."""
    rng, widths, held = np.random.default_rng(2), [], []
    for seed in range(NUM_DRAWS):
        drift = rng.normal(0, 0.1, 5).tolist()
        above, below = launches(rng, 190.0, drift), launches(rng, 100.0, drift)
        paired = ratio_interval(above, below, paired=True, seed=seed)
        apart = ratio_interval(above, below, paired=False, seed=seed)
        widths.append((paired.high - paired.low) / (apart.high - apart.low))
        held.append(paired.low <= 1.9 <= paired.high)
    assert np.median(widths) < 0.5
    assert np.mean(held) >= 0.88


def test_the_error_of_the_baseline_is_in_the_ratio() -> None:
    rng = np.random.default_rng(3)
    exact = {number: [190.0] for number in range(5)}
    found = ratio_interval(exact, launches(rng, 100.0), paired=True)
    assert found.high - found.low > 0.02


def test_only_rounds_that_both_have_are_paired() -> None:
    above = {1: [2.0], 2: [4.0], 3: [1000.0]}
    below = {1: [1.0], 2: [2.0], 9: [0.001]}
    assert ratio_interval(above, below, paired=True) == Interval(2.0, 2.0, 2.0)
    # with no round in common, as if they were never paired
    elsewhere = {number + 10: windows for number, windows in below.items()}
    assert ratio_interval(above, elsewhere, paired=True) == ratio_interval(above, below, paired=False)


@given(LAUNCHES)
def test_the_same_seed_gives_the_same_interval(windows: dict[int, list[float]]) -> None:
    found = median_interval(windows)
    assert found == median_interval(dict(reversed(windows.items())))
    assert found.low <= found.median <= found.high
    values = [value for launch in windows.values() for value in launch]
    assert min(values) <= found.low
    assert found.high <= max(values)


def test_nothing_measured_is_refused() -> None:
    nothing: tuple[dict[int, list[float]], ...] = ({}, {1: []}, {1: [2.0], 2: []})
    for windows in nothing:
        with pytest.raises(ValueError, match="at least one"):
            median_interval(windows)


def test_plain() -> None:
    plain = Interval(1.23456789, 0.000123456789, 123456789.0).to_plain()
    assert plain == {"median": 1.23457, "low": 0.000123457, "high": 123457000.0}
    assert json.loads(json.dumps(Interval(*np.arange(1.0, 4.0)).to_plain())) == {"median": 1, "low": 2, "high": 3}
