"""Medians of repeated measurements, with intervals that assume no distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A median, and between which bounds it lies with probability `level`."""

    median: float
    low: float
    high: float
    level: float


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The median and the narrowest interval of order statistics that covers it with at least this probability.

    Of n values that are drawn alike, the (k+1)-th from below and from above enclose the median with probability
    1 - 2 P(Binomial(n, ½) ≤ k). Below 6 values not even the whole range reaches 95 %: it is given, with what it reaches.

    Args:
        values: at least one.
        level: wanted probability.
    """
    ordered, num = sorted(values), len(values)
    at, reached = 0, 1 - 2 * 0.5**num
    tail = 0.5**num
    for place in range(1, (num + 1) // 2):
        tail += math.comb(num, place) * 0.5**num
        if 1 - 2 * tail < level:
            break
        at, reached = place, 1 - 2 * tail
    return Estimate(statistics.median(ordered), ordered[at], ordered[num - 1 - at], reached)


def estimate_ratio(slow: Sequence[float], fast: Sequence[float], level: float = 0.95) -> Estimate:
    """How many times longer `slow` took than `fast`: the median of the ratios within each repetition.

    What both suffer in the same repetition, a busy or hot machine, leaves the ratio as it is.

    Args:
        slow, fast: a time for each repetition, in the same order.
    """
    return estimate([one / other for one, other in zip(slow, fast, strict=True)], level)
