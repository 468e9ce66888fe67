"""What a linear model says of its features, and how surely: coefficients, learning curve, permutation importance."""

from __future__ import annotations

from typing import Any

import numpy as np

from parallel_tunes.config_tracks import PopularityConfig
from parallel_tunes.models.hinge import Floats
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks.margin_fit import SCORES, Fitted, Goal, Ground, Ids, fit_once, score
from parallel_tunes.train.judging import Resamples
from parallel_tunes.train.margin_model import MarginModel

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the training tracks, or of their groups
NUM_PERMUTATIONS = 10


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


def find_learning_curve(
    ground: Ground, goal: Goal, C: float, rows: dict[str, Ids], groups: Ids | None
) -> list[dict[str, Any]]:
    """Scores on training and validation tracks after learning from a part of the training tracks, of their groups where known."""
    train, valid = rows["train"], rows["valid"]
    rng = np.random.Generator(np.random.Philox(key=ground.learner.seed))
    _, members = np.unique(train if groups is None else groups[train], return_inverse=True)
    order = rng.permutation(int(members.max()) + 1)[members]
    found = []
    for share in SHARES:
        part = train[order < share * (int(members.max()) + 1)]
        try:
            model, _ = fit_once(ground, goal, part, C)
        except UserError:  # so few have but one class
            continue
        judged = {"train": part, "valid": valid}
        scores = {name: score(model, ground.features[on], goal, on) if len(on) else None for name, on in judged.items()}
        found.append({"share": share, "n": len(part), **scores})
    return found


def find_importances(ground: Ground, goal: Goal, model: MarginModel, valid: Ids) -> dict[str, Any] | None:
    """What the score on the validation tracks loses when a feature is shuffled among them (Breiman 2001), over several shuffles."""
    if not len(valid):
        return None
    features, rng = ground.features[valid], np.random.Generator(np.random.Philox(key=ground.learner.seed))
    whole = score(model, features, goal, valid)
    if whole is None:
        return None
    found = []
    for column, name in enumerate(ground.names):
        losses = []
        for _ in range(NUM_PERMUTATIONS):
            shuffled = features.copy()
            shuffled[:, column] = rng.permutation(shuffled[:, column])
            other = score(model, shuffled, goal, valid)
            losses.append(whole - (whole if other is None else other))
        found.append({"feature": name, "loss": float(np.mean(losses)), "deviation": float(np.std(losses, ddof=1))})
    facts = {"score": SCORES[goal.target], "whole": whole, "n": len(valid), "num_shuffles": NUM_PERMUTATIONS}
    return facts | {"features": sorted(found, key=lambda row: -float(str(row["loss"])))}
