"""What can be known of listens at best: the AUC of the true probabilities, and which rows are warm or cold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_WARM = 20  # earlier rows of both user and song that make a row warm


def expected_auc(probability: NDArray[Any]) -> float:
    """AUC to be expected of a ranking by the true probabilities, shape (num_rows,): no ranking has a higher one. NaN if none."""
    p = np.sort(probability.astype(np.float64))
    below = np.cumsum(1 - p) - (1 - p)  # of rows below, expected zeros
    ties, at = np.unique(p, return_inverse=True)
    first = np.searchsorted(p, ties)
    zeros = np.add.reduceat(1 - p, first) if len(p) else p
    wins = float((p * (below[first][at] + 0.5 * (zeros[at] - (1 - p)))).sum())
    pairs = float(p.sum() * (1 - p).sum() - (p * (1 - p)).sum())
    return wins / pairs if pairs > 0 else float("nan")


def count_earlier(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Of each row, how many rows before it have its code."""
    order = np.argsort(codes, kind="stable")
    of_code = codes[order]
    earlier = np.empty(len(codes), np.int64)
    earlier[order] = np.arange(len(codes)) - np.searchsorted(of_code, of_code)
    return earlier


def tell(
    user: NDArray[Any], song: NDArray[Any], probability: NDArray[Any], target: NDArray[Any], num_rows: int
) -> dict[str, Any]:
    """The figures of rows whose probabilities are known, of which train.csv has the first `num_rows`: see `make`."""
    late = slice(num_rows - num_rows // 5, num_rows)
    earlier = [count_earlier(codes[:num_rows])[late] for codes in (user, song)]
    is_warm = np.minimum(*earlier) >= NUM_WARM
    new = [~np.isin(codes[late], codes[: late.start]) for codes in (user, song)]
    return {
        "num_rows": num_rows,
        "num_test": len(user) - num_rows,
        "target_mean": float(target[:num_rows].mean()),
        "bayes_auc": expected_auc(probability[:num_rows]),
        "bayes_auc_late": expected_auc(probability[late]),
        "bayes_auc_warm": expected_auc(probability[late][is_warm]) if is_warm.any() else None,
        "num_late": num_rows // 5,
        "num_warm": int(is_warm.sum()),
        "cold_users": float(new[0].mean()),
        "cold_songs": float(new[1].mean()),
    }
