"""Medians and ratios of repeated launches, with intervals from a bootstrap of two levels.

A launch is one start of the processes; its windows are timings one after the other within it. Launches differ by more
than windows do (clocks, placement, neighbours), so windows of one launch are no independent measurements: launches are
drawn first, windows within each drawn launch second (Efron & Tibshirani 1993, "An Introduction to the Bootstrap",
percentile intervals, chapter 13; Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8, data of
several levels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Launches = Mapping[int, Sequence[float]]  # launch number -> the values of its windows
Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
LEVEL = 0.95
NUM_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A median, and between which bounds it lies. Without any spread (a single value) all three are equal."""

    median: float
    low: float
    high: float

    def to_plain(self) -> dict[str, float]:
        """For a report, to 6 significant figures."""
        return {name: float(f"{value:.6g}") for name, value in vars(self).items()}


def median_interval(launches: Launches, *, seed: int = 0) -> Interval:
    """The median over launches of the median over their windows.

    The percentile interval of a median cannot leave the range of the launches: of 5 it holds the truth with a
    probability of up to 1 - 2/2⁵ = 94 %, of 3 with 75 %. Of one launch it tells what differs from window to window only.

    Args:
        launches: at least one, of at least one window each; they may differ in their number of windows.
        seed: of the bootstrap: the same seed gives the same interval.
    """
    rng, windows = np.random.default_rng(seed), _Windows(launches, sorted(launches))
    drawn = windows.draw(_places(rng, len(launches)), rng)
    return _interval(windows.median(), drawn)


def ratio_interval(numerator: Launches, denominator: Launches, *, paired: bool, seed: int = 0) -> Interval:
    """The ratio of two medians, the error of both propagated.

    Args:
        numerator, denominator: launches, as in `median_interval`.
        paired: launches of the same number ran in the same round. Only those that both have are used, and they are
            drawn together, so that what both suffer in a round, a drift of the machine, leaves the ratio as it is.
            Without a number in common they are drawn apart.
        seed: as in `median_interval`.
    """
    rng, shared = np.random.default_rng(seed), sorted(set(numerator) & set(denominator))
    together = paired and bool(shared)
    above = _Windows(numerator, shared if together else sorted(numerator))
    below = _Windows(denominator, shared if together else sorted(denominator))
    places = _places(rng, len(above.counts))
    others = places if together else _places(rng, len(below.counts))
    return _interval(above.median() / below.median(), above.draw(places, rng) / below.draw(others, rng))


class _Windows:
    """Launches as one array, so that all draws are made at once.

    Attributes:
        values: shape (num_launches, most windows), short launches filled up with infinity.
        counts: shape (num_launches,), how many of them count.
    """

    def __init__(self, launches: Launches, numbers: Sequence[int]) -> None:
        if not numbers or not all(len(launches[number]) for number in numbers):
            raise ValueError("an interval needs at least one launch, and each launch at least one window")
        self.counts = np.array([len(launches[number]) for number in numbers])
        self.values = np.full((len(numbers), self.counts.max()), np.inf)
        for row, number in zip(self.values, numbers, strict=True):
            row[: len(launches[number])] = launches[number]

    def median(self) -> float:
        """Over launches, of the median over windows."""
        return float(np.median(_medians(self.values, self.counts)))

    def draw(self, places: Places, rng: np.random.Generator) -> Array:
        """The same of launches at `places`, shape (num, num_drawn), and of windows drawn within each; shape (num,)."""
        counts = self.counts[places]
        slots = np.arange(self.values.shape[1])
        windows = (rng.random((*places.shape, len(slots))) * counts[..., None]).astype(np.intp)
        values = np.where(slots < counts[..., None], self.values[places[..., None], windows], np.inf)
        return np.asarray(np.median(_medians(values, counts), axis=-1), dtype=np.float64)


def _places(rng: np.random.Generator, num_launches: int) -> Places:
    """Which launches are drawn, with replacement; shape (NUM_DRAWS, num_launches)."""
    return rng.integers(num_launches, size=(NUM_DRAWS, num_launches))


def _medians(values: Array, counts: Places) -> Array:
    """Medians of the first `counts` values in order along the last axis, which is filled up with infinity."""
    ordered = np.sort(values, axis=-1)
    middle = np.stack([(counts - 1) // 2, counts // 2], axis=-1)
    return np.asarray(np.take_along_axis(ordered, middle, axis=-1).mean(axis=-1), dtype=np.float64)


def _interval(median: float, drawn: Array) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(median, float(min(low, median)), float(max(high, median)))
