from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

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


@pytest.mark.parametrize("nums", [(1, 2, 4, 8), (1, 2, 4)], ids=str)
@pytest.mark.parametrize(
    ("law", "truth"),
    [
        ("amdahl", (0.0,)),
        ("amdahl", (0.05,)),
        ("amdahl", (0.4,)),
        ("gustafson", (0.02,)),
        ("gustafson", (0.3,)),
        ("usl", (0.03, 0.002)),
        ("usl", (0.1, 0.02)),
        ("usl", (0.02, 0.05)),
    ],
    ids=str,
)
def test_intervals_hold_the_injected_truth(law: str, truth: tuple[float, ...], nums: tuple[int, ...]) -> None:
    """5 launches with errors of 3 %. 95 % of 500 draws are told to within a point: no fewer, and not all either."""
    rng = np.random.default_rng([*map(ord, law), *nums, int(1e4 * sum(truth))])
    fits = [fitted(law, truth, nums, noise=0.03, seed=int(seed)) for seed in rng.integers(2**60, size=NUM_DRAWS)]
    for place, value in enumerate(truth):
        bounds = [list(each.parameters.values())[place] for each in fits]
        assert 0.92 <= np.mean([bound.low <= value <= bound.high for bound in bounds]) <= 0.98
    assert 0.92 <= np.mean([each.rate_of_one.low <= RATE_OF_ONE <= each.rate_of_one.high for each in fits]) <= 0.98


@pytest.mark.parametrize(
    ("law", "truth"), [("amdahl", (0.25,)), ("amdahl", (-0.05,)), ("gustafson", (0.4,)), ("usl", (0.1, 0.02))], ids=str
)
def test_without_noise_the_law_is_found(law: str, truth: tuple[float, ...]) -> None:
    found = fitted(law, truth, (1, 2, 4, 8))
    assert [each.median for each in found.parameters.values()] == pytest.approx(truth, abs=1e-6)
    for n in (1, 3, 8, 16):
        assert found.rate(n) == pytest.approx(TRUTHS[law](np.array([float(n)]), *truth)[0], rel=1e-5)
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


def test_more_than_proportional_is_a_negative_share() -> None:
    found = fitted("amdahl", (-0.05,), (1, 2, 4, 8), noise=0.005)
    assert found.parameters["serial_share"].high < 0
    assert "a negative share, more than proportional scaling" in found.words()


@pytest.mark.parametrize(("law", "truth"), [("amdahl", (0.1,)), ("gustafson", (0.1,)), ("usl", (0.1, 0.001))], ids=str)
def test_nothing_is_told_beyond_twice_the_largest(law: str, truth: tuple[float, ...]) -> None:
    found = fitted(law, truth, (1, 2, 4), noise=0.02)
    assert found.rate(8) > 0
    for n in (8.01, 1000, math.inf, 0.5, -1, math.nan):
        with pytest.raises(ValueError, match="says nothing"):
            found.rate(n)
    curve = found.curve(num=15)
    assert [n for n, _ in curve] == pytest.approx(np.linspace(1, 8, 15))
    assert curve[0][1] == pytest.approx(found.rate_of_one.median)
    assert all(rate == found.rate(n) for n, rate in curve)


def test_a_curve_ends_where_the_law_has_no_rate() -> None:
    """A super-linear series up to 4 GPUs leads Amdahl's law to infinity before 8."""
    found = fitted("amdahl", (-0.2,), (1, 2, 4))
    with pytest.raises(ValueError, match="no rate at N=8"):
        found.rate(8)
    curve = found.curve()
    assert 5 < curve[-1][0] < 6
    assert all(math.isfinite(rate) and rate > 0 for _, rate in curve)


@pytest.mark.parametrize(
    ("law", "nums", "rates", "why"),
    [
        ("amdahl", [2, 2, 2], [1.0, 1.1, 1.2], "Amdahl needs 2 numbers of GPUs, not 1"),
        ("gustafson", [4, 4, 4], [1.0, 1.1, 1.2], "Gustafson needs 2 numbers of GPUs, not 1"),
        ("usl", [1, 1, 2, 2], [1.0, 1.1, 2.0, 2.1], "USL needs 3 numbers of GPUs, not 2"),
        ("amdahl", [1, 2], [1.0, 1.9], "Amdahl needs more than 2 launches, not 2"),
        ("usl", [1, 2, 4], [1.0, 1.9, 3.0], "USL needs more than 3 launches, not 3"),
        ("amdahl", [1, 2, 4], [1.0, 0.0, 3.0], "not positive"),
        ("amdahl", [1, 2, 4], [1.0, math.nan, 3.0], "not positive"),
        ("amdahl", [1, 1, 2, 2], [1.0, 500.0, 1e-3, 700.0], "differ too much"),
    ],
)
def test_what_cannot_be_told_is_refused(law: str, nums: list[int], rates: list[float], why: str) -> None:
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
            assert found.words()
    assert 0 < refused < 450


def test_a_law_that_does_not_fit_says_so() -> None:
    """Retrograde rates are nothing Amdahl's law can follow; what it was made from, it can."""
    words = "farther from this law than launches differ"
    assert words in fit("amdahl", *measured("usl", (0.1, 0.1), (1, 2, 4, 8), noise=0.02)).words()
    off = [fitted("amdahl", (0.1,), (1, 2, 4, 8), noise=0.02, seed=seed).is_off for seed in range(NUM_DRAWS)]
    assert np.mean(off) < 0.04  # 1 % but for chance


def test_words_of_amdahl() -> None:
    few = fitted("amdahl", (0.1,), (1, 2, 4), noise=0.01)
    share = few.parameters["serial_share"]
    assert few.is_descriptive
    assert few.words() == (
        f"Amdahl: {100 * share.median:.1f} % (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %) of one GPU's step"
        " is serial; descriptive only, as N is at most 4"
    )
    many = fitted("amdahl", (0.1,), (1, 2, 4, 8))
    assert not many.is_descriptive
    # 1 / (0.1 + 0.9 / 16), and not the limit of 10 that lies beyond
    assert many.words(unit="rank").endswith(
        " of one rank's step is serial: up to 16 ranks, as far as it may be asked, at most 6.40 times the rate of one"
    )


def test_a_share_that_may_be_none_is_called_so() -> None:
    assert "which cannot be told from none" in fitted("gustafson", (0.0,), (1, 2, 4, 8), noise=0.02, seed=1).words()
    assert "which cannot be told from none" not in fitted("gustafson", (0.3,), (1, 2, 4, 8), noise=0.02).words()


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ((0.1, 0.02), "the rate is highest at about 6.71 GPUs"),  # √(0.9 / 0.02)
        ((0.2, 1.2), "the rate is highest at 1 GPU"),
        ((0.1, 0.001), "no peak lies within reach, up to 16 GPUs"),  # it lies at 30
        ((0.1, 0.0), "no peak lies within reach, up to 16 GPUs"),
        ((0.1, -0.001), "no peak lies within reach, up to 16 GPUs"),
    ],
    ids=str,
)
def test_a_peak_is_told_only_within_reach(truth: tuple[float, float], says: str) -> None:
    words = fitted("usl", truth, (1, 2, 4, 8)).words()
    assert says in words
    assert ("highest" in words) != ("no peak" in words)


def test_another_level() -> None:
    nums, rates = measured("amdahl", (0.2,), (1, 2, 4), noise=0.02)
    usual, wide = fit("amdahl", nums, rates), fit("amdahl", nums, rates, level=0.99)
    assert wide.parameters["serial_share"].low < usual.parameters["serial_share"].low
    assert "(99 % interval" in wide.words()
    assert "(95 % interval" in usual.words()
