"""Support vector machines with a radial kernel, by scikit-learn's SVC, one class against the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from parallel_tunes.models.hinge import Floats
from parallel_tunes.train.margin_model import to_bells


def solve_radial(
    rows: Floats, sides: Sequence[NDArray[np.bool_]], costs: Sequence[Floats], gamma: float
) -> dict[str, Floats]:
    """One machine for each question; all share the kernel's values, and keep those rows that any of them leans on.

    Args:
        rows: the training tracks, standardised, shape (num_rows, num_columns).
        sides: the answers to each question, (num_rows,).
        costs: what an error costs in each row, (num_rows,), of each question.
        gamma: in units of scikit-learn's `scale`, 1 / (num_columns · variance).

    Returns:
        `support`, the rows that are kept; `gamma`, (1,); `weights`, (num_questions, num_support); `bias`, (num_questions,).
    """
    rows = rows.astype(np.float64)
    width = gamma / (rows.shape[1] * rows.var())
    kernel = to_bells(rows, rows, width)
    weights, bias = np.zeros((len(sides), len(rows))), np.zeros(len(sides))
    for number, (side, cost) in enumerate(zip(sides, costs, strict=True)):
        fitted = SVC(C=1.0, kernel="precomputed", cache_size=500).fit(kernel, side, sample_weight=cost)
        weights[number, fitted.support_] = fitted.dual_coef_[0]
        bias[number] = fitted.intercept_[0]
    used = weights.any(axis=0)
    return {"support": rows[used], "gamma": np.array([width]), "weights": weights[:, used], "bias": bias}
