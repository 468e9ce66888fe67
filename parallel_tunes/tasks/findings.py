"""The coefficients of a linear model and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from parallel_tunes.config_tracks import PopularityConfig
from parallel_tunes.models.hinge import Floats
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks.margin_fit import Fitted, Goal, Ground, Ids, fit_once
from parallel_tunes.train.judging import Resamples
from parallel_tunes.train.margin_model import MarginModel


def to_coefficients(model: MarginModel) -> Floats:
    """What a standard deviation of each feature adds, (num_columns, num_features).

    Of a number: in its own unit. Of classes: shares of the weights' norm, since margins have no unit.
    """
    if model.target == "regression":
        return np.asarray(model.unit[1] * model.weights)
    norms = np.linalg.norm(model.weights, axis=1, keepdims=True)
    return np.asarray(model.weights / np.where(norms > 0, norms, 1))


def find_coefficients(
    ground: Ground, goal: Goal, made: Fitted, train: Ids, groups: Ids | None, task: PopularityConfig, run: Run
) -> dict[str, Any]:
    """Coefficients with 95 % intervals: the machine fitted again on training tracks drawn with replacement, by whole groups.

    Percentile bootstrap (Efron & Tibshirani 1993). Where an interval holds zero the sign cannot be said. It tells what other
    tracks would change, not what other features would: those that go together share what they have in common.
    """
    draws = Resamples(len(train), None if groups is None else groups[train], task.refits, ground.learner.seed)
    found = []
    with run.progress("coefficients", task.refits, " fits") as bar:
        for counts in draws.draw():
            weights = counts[draws.members].astype(np.float64)
            try:
                model, _ = fit_once(ground, goal, train, made.C, counts=weights, start=made.model)
            except UserError:  # a rare class was not drawn
                continue
            finally:
                bar.update()
            found.append(to_coefficients(model))
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    names = ["popularity"] if goal.target == "regression" else goal.classes[-len(made.model.weights) :]
    values = to_coefficients(made.model)
    columns = [
        {
            "name": name,
            "coefficients": [
                {
                    "feature": feature,
                    "value": float(values[at, column]),
                    "ci95": [float(low[at, column]), float(high[at, column])],
                }
                for column, feature in enumerate(ground.names)
            ],
        }
        for at, name in enumerate(names)
    ]
    unit = "popularity a standard deviation" if goal.target == "regression" else "share of the weights' norm"
    return {
        "unit": unit,
        "method": f"percentile bootstrap over {draws.num_units} {draws.unit}, {len(found)} fits",
        "columns": columns,
    }
