from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_tunes.scaling.laws import Fit, Refusal, fit

NUM_DRAWS, NUM_LAUNCHES, RATE_OF_ONE = 500, 5, 120.0
Array = npt.NDArray[np.float64]


def amdahl(n: Array, s: float) -> Array:
    return RATE_OF_ONE / (s + (1 - s) / n)


def gustafson(n: Array, s: float) -> Array:
    return RATE_OF_ONE * (n - s * (n - 1))


def usl(n: Array, sigma: float, kappa: float) -> Array:
    return RATE_OF_ONE * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


TRUTHS: dict[str, Callable[..., Array]] = {"amdahl": amdahl, "gustafson": gustafson, "usl": usl}


def measured(
    law: str, truth: Sequence[float], nums: Sequence[int], noise: float = 0.0, seed: int = 0
) -> tuple[list[int], list[float]]:
    """N and samples/s of every launch, with log-normal noise."""
    n = np.repeat(nums, NUM_LAUNCHES)
    error = np.random.default_rng(seed).normal(0, noise, len(n))
    return n.tolist(), (TRUTHS[law](n.astype(np.float64), *truth) * np.exp(error)).tolist()


def fitted(law: str, truth: Sequence[float], nums: Sequence[int], noise: float = 0.0, seed: int = 0) -> Fit:
    return fit(law, *measured(law, truth, nums, noise, seed))


@pytest.mark.parametrize(
    ("law", "truth", "nums"),
    [("amdahl", (0.05,), (1, 2, 4)), ("gustafson", (0.3,), (1, 2, 4, 8)), ("usl", (0.1, 0.02), (1, 2, 4, 8))],
    ids=str,
)
def test_intervals_hold_the_injected_truth(law: str, truth: tuple[float, ...], nums: tuple[int, ...]) -> None:
    """5 launches with errors of 3 %. 95 % of 500 draws are told to within a point: no fewer, and not all either."""
    fits = [fitted(law, truth, nums, noise=0.03, seed=seed) for seed in range(NUM_DRAWS)]
    for place, value in enumerate(truth):
        bounds = [list(each.parameters.values())[place] for each in fits]
        assert 0.92 <= np.mean([bound.low <= value <= bound.high for bound in bounds]) <= 0.98
    assert 0.92 <= np.mean([each.rate_of_one.low <= RATE_OF_ONE <= each.rate_of_one.high for each in fits]) <= 0.98


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.one_of(
        st.tuples(st.just("amdahl"), st.tuples(st.floats(-0.05, 0.9))),
        st.tuples(st.just("gustafson"), st.tuples(st.floats(-0.05, 0.9))),
        st.tuples(st.just("usl"), st.tuples(st.floats(0, 0.5), st.floats(0, 0.1))),
    )
)
def test_without_noise_the_law_is_found(planted: tuple[str, tuple[float, ...]]) -> None:
    law, truth = planted
    found = fitted(law, truth, (1, 2, 4, 8))
    assert [each.median for each in found.parameters.values()] == pytest.approx(truth, abs=1e-5)
    for n in (1, 3, 8, 16):
        assert found.rate(n) == pytest.approx(TRUTHS[law](np.array([float(n)]), *truth)[0], rel=1e-4)
    assert not found.is_off


def test_the_error_of_the_baseline_widens_the_interval() -> None:
    """Launches of one GPU alone that scatter make the serial share less certain."""
    nums, rates = measured("amdahl", (0.1,), (1, 2, 4, 8), noise=0.002)
    sharp = fit("amdahl", nums, rates).parameters["serial_share"]
    noisy = [
        rate * (1 + 0.1 * (-1) ** place * (n == 1)) for place, (n, rate) in enumerate(zip(nums, rates, strict=True))
    ]
    blurred = fit("amdahl", nums, noisy).parameters["serial_share"]
    assert blurred.high - blurred.low > 3 * (sharp.high - sharp.low)


def test_nothing_is_told_beyond_twice_the_largest() -> None:
    found = fitted("usl", (0.1, 0.001), (1, 2, 4), noise=0.02)
    assert found.is_descriptive
    for n in (8.01, 1000, math.inf, 0.5, -1, math.nan):
        with pytest.raises(ValueError, match="says nothing"):
            found.rate(n)
    curve = found.curve(num=15)
    assert [n for n, _ in curve] == pytest.approx(np.linspace(1, 8, 15))
    assert all(rate == found.rate(n) for n, rate in curve)


def test_a_curve_ends_where_the_law_has_no_rate() -> None:
    """A super-linear series up to 4 GPUs leads Amdahl's law to infinity before 8."""
    found = fitted("amdahl", (-0.2,), (1, 2, 4))
    with pytest.raises(ValueError, match="no rate at N=8"):
        found.rate(8)
    curve = found.curve()
    assert 5 < curve[-1][0] < 6
    assert all(math.isfinite(rate) and rate > 0 for _, rate in curve)


def test_what_cannot_be_told_is_refused() -> None:
    for law, nums, rates, why in (
        ("amdahl", [2, 2, 2], [1.0, 1.1, 1.2], "Amdahl needs 2 different N, not 1"),
        ("usl", [1, 1, 2, 2], [1.0, 1.1, 2.0, 2.1], "USL needs 3 different N, not 2"),
        ("amdahl", [1, 2], [1.0, 1.9], "Amdahl needs more than 2 launches, not 2"),
        ("amdahl", [1, 2, 4], [1.0, math.nan, 3.0], "not positive"),
        ("amdahl", [1, 1, 2, 2], [1.0, 500.0, 1e-3, 700.0], "differ too much"),
    ):
        with pytest.raises(Refusal, match=why):
            fit(law, nums, rates)


def test_wild_rates_are_fitted_or_refused() -> None:
    """Whatever is measured, a study ends with a report: no other exception, no warning, no infinite number."""
    rng, refused = np.random.default_rng(0), 0
    for draw in range(150):
        n = np.repeat((1, 2, 4, 8), 1 + draw % 3)
        rates = 100 * n ** rng.uniform(-1.5, 2) * np.exp(rng.normal(0, (0.02, 0.5, 3.0)[draw % 3], len(n)))
        for law in TRUTHS:
            try:
                found = fit(law, n.tolist(), rates.tolist())
            except Refusal:
                refused += 1
                continue
            bounds = [
                value for each in (found.rate_of_one, *found.parameters.values()) for value in vars(each).values()
            ]
            assert np.isfinite(bounds).all()
    assert 0 < refused < 450


def test_a_law_that_does_not_fit_says_so() -> None:
    """Retrograde rates are nothing Amdahl's law can follow; what it was made from, it can."""
    assert fit("amdahl", *measured("usl", (0.1, 0.1), (1, 2, 4, 8), noise=0.02)).is_off
    off = [fitted("amdahl", (0.1,), (1, 2, 4, 8), noise=0.02, seed=seed).is_off for seed in range(NUM_DRAWS)]
    assert np.mean(off) < 0.04  # 1 % but for chance
