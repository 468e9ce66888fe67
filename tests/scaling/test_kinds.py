from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from parallel_tunes.scaling.kinds import describe


def series(
    speedups: Sequence[float], nums: Sequence[int] = (1, 2, 4, 8), noise: float = 0.02, seed: int = 0
) -> tuple[list[int], list[float]]:
    """N and samples/s of 5 launches each, with log-normal noise."""
    rng = np.random.default_rng(seed)
    points = [
        (n, 100 * speedup * float(np.exp(rng.normal(0, noise))))
        for n, speedup in zip(nums, speedups, strict=True)
        for _ in range(5)
    ]
    return [n for n, _ in points], [rate for _, rate in points]


@pytest.mark.parametrize(
    ("kind", "speedups"),
    [
        ("super-linear", (1, 2.2, 4.8, 10)),
        ("linear", (1, 2, 4, 8)),
        ("sub-linear", (1, 1.8, 3, 4.5)),
        ("flat", (1, 1, 1, 1)),
        ("retrograde", (1, 1.8, 2.5, 2.0)),  # faster than one GPU, slower than four
        ("retrograde", (1, 0.9, 0.8, 0.7)),
    ],
)
def test_kinds(kind: str, speedups: tuple[float, ...]) -> None:
    """As made, in at least 95 % of 100 draws."""
    told = Counter(describe(*series(speedups, seed=seed))[0] for seed in range(100))
    assert told[kind] >= 95, told


def test_what_is_said() -> None:
    kind, words = describe([1, 1, 2, 2, 4, 4], [100.0, 100.0, 180.0, 180.0, 300.0, 300.0])
    assert kind == "sub-linear"
    assert words == "sub-linear: 4 GPUs give 3.00 times the rate of 1 GPU; an efficiency of 75.0 %"
    _, words = describe(*series((1, 2)[:2], nums=(2, 4)), unit="rank")
    assert words.startswith("linear: 4 ranks give 2.0")
    assert "times the rate of 2 ranks" in words
    assert "95 % interval" in words


def test_a_loss_on_the_way_is_told() -> None:
    """2 GPUs slower than 1, 4 faster: not retrograde as a whole, and yet said."""
    kind, words = describe(*series((1, 0.8, 1.5), nums=(1, 2, 4)))
    assert kind == "sub-linear"
    assert "2 are slower than 1, at 0.8" in words
    assert "4 are slower" not in words
    assert "slower" not in describe(*series((1, 1.8, 3), nums=(1, 2, 4)))[1]


@pytest.mark.parametrize(
    ("nums", "rates", "why"),
    [
        ([2, 2, 2], [1.0, 1.1, 1.2], "it takes two numbers of GPUs"),
        ([], [], "it takes two numbers of GPUs"),
        ([1, 1, 2], [1.0, 1.1, 2.0], "a single launch of 2 GPUs does not tell"),
        ([1, 2], [1.0, 2.0], "a single launch of 1 GPU and 2 GPUs does not tell"),
    ],
)
def test_without_spread_nothing_is_told(nums: list[int], rates: list[float], why: str) -> None:
    kind, words = describe(nums, rates)
    assert kind == "unknown"
    assert why in words


def test_rates_that_scatter_too_much_are_unknown() -> None:
    assert describe([1, 1, 2, 2], [100.0, 60.0, 200.0, 70.0])[0] == "unknown"
    assert describe([1, 1, 2, 2], [1e-200, 1e200, 1e200, 1e-200])[0] == "unknown"
