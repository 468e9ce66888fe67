"""What predictions from a table are worth: scores of classes and of numbers, every one with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Score = Callable[[Floats], Floats]  # sums, shape (num_draws, num_sums) → shape (num_draws,)
CHUNK = 128  # resamples at a time
MOST_KEPT = 100_000_000  # counts, which are otherwise drawn again for each score


class Resamples:
    """Draws with replacement of rows, or of whole groups (Efron & Tibshirani 1993); the same for every score of a split.

    Args:
        groups: shape (num_rows,): rows of one group (artist) are drawn together; None draws rows.
        units: what groups are, in the plural.
    """

    def __init__(
        self, num_rows: int, groups: Ids | None, num_resamples: int, seed: int = 0, units: str = "groups"
    ) -> None:
        self.members = np.arange(num_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
        self.num_units = int(self.members.max()) + 1 if num_rows else 0
        self.num_resamples, self.seed = num_resamples, seed
        self.unit = "tracks" if groups is None else units
        self.num_groups = None if groups is None else self.num_units

    @property
    def method(self) -> str:
        """In words."""
        return f"percentile bootstrap over {self.num_units} {self.unit}, {self.num_resamples} resamples"

    def draw(self) -> Iterator[NDArray[np.uint16]]:
        """How often each unit was drawn, shape (num_units,), resample after resample."""
        if self.num_resamples * self.num_units <= MOST_KEPT:
            yield from self._drawn
        else:
            yield from self._draw()

    @cached_property
    def _drawn(self) -> NDArray[np.uint16]:
        return np.array(list(self._draw()))

    def _draw(self) -> Iterator[NDArray[np.uint16]]:
        rng = np.random.Generator(np.random.Philox(key=self.seed))
        for _ in range(self.num_resamples):
            drawn = rng.integers(0, self.num_units, self.num_units)
            yield np.bincount(drawn, minlength=self.num_units).astype(np.uint16)

    def sum(self, parts: Floats) -> Floats:
        """Sums over the rows of each resample.

        Args:
            parts: shape (num_rows, num_sums): what each row adds.

        Returns:
            Shape (num_resamples, num_sums).
        """
        by_unit = np.column_stack([np.bincount(self.members, column, self.num_units) for column in parts.T])
        draws, sums = self.draw(), []
        for at in range(0, self.num_resamples, CHUNK):
            counts = np.array([next(draws) for _ in range(min(CHUNK, self.num_resamples - at))], np.float64)
            sums.append(counts @ by_unit)
        return np.concatenate(sums)


def judge_sums(parts: Floats, scores: dict[str, Score], resamples: Resamples) -> dict[str, Any]:
    """Scores that are functions of sums over rows, each with its 95 % interval, `<name>_ci95`; None where undefined."""
    point, drawn = parts.sum(0)[None, :], resamples.sum(parts)
    found: dict[str, Any] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, score in scores.items():
            found[name], found[f"{name}_ci95"] = with_interval(float(score(point)[0]), score(drawn))
    return found


def with_interval(value: float, drawn: Floats) -> tuple[float | None, list[float] | None]:
    """A figure, and the 95 % interval of what resamples give; None where it is undefined, or is so in most of them."""
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(known) < len(drawn) / 2:
        return (value if np.isfinite(value) else None), None
    return value, [float(end) for end in np.quantile(known, [0.025, 0.975])]


def judge_classes(predicted: Ids, targets: Ids, classes: list[str], resamples: Resamples) -> dict[str, Any]:
    """Accuracy beside the majority's share, balanced accuracy, F1 (two classes: the second's; else macro), and the confusion.

    Args:
        predicted, targets: shape (num_rows,), numbers of classes.
    """
    num = len(classes)
    cells = np.zeros((len(targets), num * num))
    cells[np.arange(len(targets)), targets * num + predicted] = 1

    def counts(sums: Floats) -> Floats:
        return sums.reshape(-1, num, num)

    def recall(sums: Floats) -> Floats:
        return np.asarray(_mean_of_known(np.diagonal(counts(sums), axis1=1, axis2=2), counts(sums).sum(2)))

    def f1(sums: Floats) -> Floats:
        right = np.diagonal(counts(sums), axis1=1, axis2=2)
        whole = counts(sums).sum(1) + counts(sums).sum(2)
        if num == 2:
            return np.asarray(2 * right[:, 1] / whole[:, 1])
        return _mean_of_known(2 * right, np.where(counts(sums).sum(2) > 0, whole, 0))

    scores: dict[str, Score] = {
        "accuracy": lambda sums: np.trace(counts(sums), axis1=1, axis2=2) / sums.sum(1),
        "majority_share": lambda sums: counts(sums).sum(2).max(1) / sums.sum(1),
        "balanced_accuracy": recall,
        "f1": f1,
    }
    table = cells.sum(0).reshape(num, num).astype(int)
    return {
        "n": len(targets),
        **judge_sums(cells, scores, resamples),
        "confusion": {"labels": classes, "counts": table.tolist()},
        "ci95_method": resamples.method,
        "num_groups": resamples.num_groups,
    }


def _mean_of_known(above: Floats, below: Floats) -> Floats:
    """Mean of the ratios of each row, without those of nothing."""
    known = below > 0
    return np.asarray(np.where(known, above / np.where(known, below, 1), 0).sum(1) / known.sum(1))


def judge_ranking(scores: Floats, targets: NDArray[np.bool_], resamples: Resamples) -> dict[str, Any]:
    """Area under the ROC curve, ties counting half (Mann & Whitney), with its interval."""
    order = np.argsort(scores, kind="stable")
    is_above = targets[order]
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of stretches of equal scores
    has_ties = len(starts) < len(scores)

    def area(weights: Floats) -> float:
        above = np.where(is_above, weights, 0)
        below = weights - above
        if has_ties:
            above, below = np.add.reduceat(above, starts), np.add.reduceat(below, starts)
        pairs = above.sum() * below.sum()
        return float(above @ (np.cumsum(below) - below / 2) / pairs) if pairs else np.nan

    members = resamples.members[order]
    drawn = np.array([area(counts[members].astype(np.float64)) for counts in resamples.draw()])
    found, interval = with_interval(area(np.ones(len(scores))), drawn)
    return {"auc": found, "auc_ci95": interval}


def judge_numbers(predicted: Floats, targets: Floats, resamples: Resamples) -> dict[str, Any]:
    """R² (against the mean of these rows), RMSE, MAE, sMAPE; MAPE where no target is zero.

    Args:
        predicted, targets: shape (num_rows,).
    """
    error = targets - predicted
    size = (np.abs(targets) + np.abs(predicted)) / 2
    shares = np.divide(np.abs(error), size, out=np.zeros_like(error), where=size > 0)
    has_zero = bool((targets == 0).any())
    relative = np.zeros_like(error) if has_zero else np.abs(error / targets)
    level = targets - targets[:1]  # equal targets are exactly 0: R² is undefined, not a ratio of what rounding leaves
    parts = np.column_stack([np.ones_like(error), error**2, np.abs(error), level, level**2, shares, relative])
    scores: dict[str, Score] = {
        "r2": lambda s: 1 - s[:, 1] / (s[:, 4] - s[:, 3] ** 2 / s[:, 0]),
        "rmse": lambda s: np.sqrt(s[:, 1] / s[:, 0]),
        "mae": lambda s: s[:, 2] / s[:, 0],
        "smape": lambda s: s[:, 5] / s[:, 0],
    }
    if not has_zero:
        scores["mape"] = lambda s: s[:, 6] / s[:, 0]
    found = judge_sums(parts, scores, resamples)
    if has_zero:
        num = int((targets == 0).sum())
        found |= {"mape": None, "mape_ci95": None, "mape_undefined": f"{num} of {len(targets)} targets are zero"}
    return {"n": len(targets), **found, "ci95_method": resamples.method, "num_groups": resamples.num_groups}
