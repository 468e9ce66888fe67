"""The back end `sklearn`: LinearSVC, SVC and SGDClassifier on the same objective, held to the same certificate.

Their own stopping rules bound nothing that compares: each is tightened until the objective it reaches is within the tolerance
of a lower bound, our own solver's dual.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.svm import SVC, LinearSVC, LinearSVR

from parallel_tunes.models.hinge import Floats, NumpyOracle, Rows
from parallel_tunes.models.hinge_numba import NumbaOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.margin import Limits, Solution, Stopped, primal, relative_gap
from parallel_tunes.train.newton import solve_newton

BOUND_SHARE = 0.02  # the lower bound is this much nearer to the least objective than the tolerance
EPOCHS = (1, 2, 3, 5, 10, 20, 50, 100)
STEPS = (0.003, 0.01, 0.03, 0.1, 0.3)


def solve_sklearn(rows: Rows, name: str, limits: Limits, *, svc_rows: int, seed: int) -> Solution:
    """The loosest setting of a solver of scikit-learn that reaches the tolerance; the best of all where none does.

    Args:
        rows: all of them.
        name: linearsvc, svc or sgd.

    Raises:
        Stopped: a rank was told to stop.
        UserError: a solver that has not this loss, or does not regress.
    """
    began = time.perf_counter()
    tight = Limits(max(limits.tolerance * BOUND_SHARE, 1e-9), 10_000, limits.max_s, limits.should_stop)
    exact = rows.astype(np.float64)
    bound = solve_newton(NumbaOracle, exact, Mesh().apart(), tight).bound
    best, num_tried = (np.inf, np.zeros(rows.num_weights)), 0
    for estimator in list_settings(exact, name, svc_rows):
        tried = time.perf_counter()
        w = fit(estimator, exact, svc_rows, seed)
        seconds = time.perf_counter() - tried
        objective = primal(w, NumpyOracle(exact).query(w, 1.0).loss)
        best = min(best, (objective, w), key=lambda found: found[0])
        gap, num_tried = relative_gap(best[0], bound), num_tried + 1
        if gap <= limits.tolerance or time.perf_counter() - began > limits.max_s:
            break
        if limits.should_stop():
            raise Stopped
    objective, w = best
    return Solution(w, objective, bound, gap, num_tried, seconds, bool(gap <= limits.tolerance))


def list_settings(rows: Rows, name: str, svc_rows: int) -> Iterator[Any]:
    """Estimators from loose to tight."""
    is_regression = is_regressing(rows)
    if name == "linearsvc":
        for tol in 10.0 ** np.arange(-1, -9, -1):
            if is_regression:
                loss = "epsilon_insensitive" if rows.loss == "hinge" else "squared_epsilon_insensitive"
                yield LinearSVR(
                    C=1, loss=loss, tol=tol, max_iter=100_000, dual=True, random_state=0, epsilon=epsilon_of(rows)
                )
            else:
                yield LinearSVC(C=1, loss=rows.loss, tol=tol, max_iter=100_000, dual=True, random_state=0)
        return
    if is_regression:
        raise UserError(
            f"learner.solver={name}: it classifies; task.target=regression takes newton, gradient or linearsvc"
        )
    if name == "svc":
        if rows.loss != "hinge":
            raise UserError("learner.solver=svc: its loss is the hinge; leave model.loss out")
        yield SVC(C=max(len(rows) / svc_rows, 1.0), kernel="linear", cache_size=500)
        return
    alpha = 1 / float(rows.weights.sum())
    for epochs in EPOCHS:
        for step in STEPS:
            yield SGDClassifier(
                loss=rows.loss, alpha=alpha, average=True, max_iter=epochs, tol=None, fit_intercept=False,
                learning_rate="invscaling", eta0=step, power_t=0.25, random_state=0,
            )  # fmt: skip


def fit(estimator: Any, rows: Rows, svc_rows: int, seed: int) -> Floats:
    """Weights and bias that an estimator finds."""
    features, weights, targets = rows.features, rows.weights, rows.signs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the certificate says whether it has converged
        if isinstance(estimator, SGDClassifier):
            ones = np.ones((len(rows), 1))
            fitted = estimator.fit(np.hstack([features, ones]), targets, sample_weight=weights / weights.mean())
            return np.asarray(fitted.coef_.ravel(), np.float64)
        if isinstance(estimator, LinearSVR):
            half = len(rows) // 2
            features, weights = features[:half], weights[:half]
            targets = (rows.offsets[:half] - rows.offsets[half:]) / 2
        if isinstance(estimator, SVC) and len(rows) > svc_rows:
            chosen = np.random.default_rng(seed).choice(len(rows), svc_rows, replace=False)
            features, weights, targets = features[chosen], weights[chosen], targets[chosen]
        fitted = estimator.fit(features, targets, sample_weight=weights)
    return np.append(np.ravel(fitted.coef_), np.ravel(fitted.intercept_)).astype(np.float64)


def is_regressing(rows: Rows) -> bool:
    """Whether these are the rows of a regression."""
    return bool((rows.offsets != 1).any())


def epsilon_of(rows: Rows) -> float:
    """What a regression forgives."""
    half = len(rows) // 2
    return float(-(rows.offsets[0] + rows.offsets[half]) / 2)
