"""Probabilities from margins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.float64]


def fit_sigmoid(margins: Floats, targets: NDArray[np.bool_]) -> tuple[float, float]:
    """a and b of P = 1 / (1 + exp(−(a margin + b))), by maximum likelihood (Platt 1999), with his targets, which keep a off ±1.

    Args:
        margins, targets: shape (num_rows,), of rows that the margins were not fitted on.
    """
    num_yes = int(targets.sum())
    num_no = len(targets) - num_yes
    wanted = np.where(targets, (num_yes + 1) / (num_yes + 2), 1 / (num_no + 2))
    scale = float(np.std(margins))
    if scale <= 1e-9 * float(np.abs(margins).max()):  # all the same but for rounding: they tell nothing
        scale = float(np.abs(margins).max()) or 1.0

    def cost(words: Floats) -> tuple[float, Floats]:
        z = words[0] * margins / scale + words[1]
        error = expit(z) - wanted
        return float(np.sum(np.logaddexp(0, z) - wanted * z)), np.array([error @ margins / scale, error.sum()])

    start = np.array([1.0, np.log((num_yes + 1) / (num_no + 1))])
    found = minimize(cost, start, jac=True, method="BFGS", options={"gtol": 1e-6 * len(targets)})
    return float(found.x[0]) / scale, float(found.x[1])


def to_probabilities(margins: Floats, sigmoids: Floats) -> Floats:
    """Probabilities, shape (num_rows, num_classes), from margins of this shape, or (num_rows, 1) for two classes.

    Args:
        sigmoids: shape (num_columns, 2): a and b of each column. Several columns are one-against-rest, and made to add up to 1.
    """
    found = expit(margins * sigmoids[:, 0] + sigmoids[:, 1])
    if found.shape[1] == 1:
        return np.column_stack([1 - found[:, 0], found[:, 0]])
    found = np.maximum(found, 1e-12)
    return np.asarray(found / found.sum(1, keepdims=True))
