"""A support vector machine on a table's columns: scaled, its C chosen and its margins calibrated, all on training tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import r2_score, roc_auc_score

from parallel_tunes.config_tracks import HingeConfig, MarginConfig
from parallel_tunes.models.hinge import Floats, Rows, binary_rows, regression_rows
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.back_ends import number_type, solve
from parallel_tunes.train.calibration import fit_sigmoid
from parallel_tunes.train.components import find_components
from parallel_tunes.train.margin import Solution
from parallel_tunes.train.margin_kernel import solve_radial
from parallel_tunes.train.margin_model import KernelModel, MarginModel

Ids = NDArray[np.int64]
NONE: Floats = np.empty((0, 2))  # not calibrated yet
EQUAL = 1e-3  # scores that differ by less are taken as equal


@dataclass(frozen=True)
class Goal:
    """What is to be told from the features.

    Args:
        target: binary, regression or genre.
        values: (num_tracks,): classes' numbers, or popularity.
        classes: none for numbers.
        threshold: binary: what popularity is above.
    """

    target: str
    values: Floats
    classes: list[str] = field(default_factory=list)
    threshold: float | None = None

    @property
    def columns(self) -> list[NDArray[np.bool_]]:
        """Each machine's question: of several classes one against the rest."""
        if len(self.classes) == 2:
            return [self.values == 1]
        return [self.values == number for number in range(len(self.classes))]


@dataclass(frozen=True)
class Ground:
    """What a machine is fitted on, and how.

    Args:
        features: (num_tracks, num_features), raw.
        names: of the features.
        groups: (num_tracks,), numbers of the groups that no fold divides; None lets folds divide all.
        years: (num_tracks,): folds go forward in time, where given.
        pca: learn from principal components: from 1 on so many, below 1 as many as hold this share of the variance.
        gamma: of a radial kernel, in units of scikit-learn's `scale`; None is the linear machine.
    """

    features: Floats
    names: list[str]
    model: HingeConfig
    learner: MarginConfig
    mesh: Mesh
    should_stop: Callable[[], bool]
    groups: Ids | None = None
    years: Ids | None = None
    pca: float | None = None
    gamma: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A model, and how it came about."""

    model: MarginModel
    C: float
    solutions: list[Solution]  # one a column
    candidates: list[dict[str, Any]]  # of C: cross-validated scores


def fit(ground: Ground, goal: Goal, train: Ids, valid: Ids, *, C: float | None = None) -> Fitted:
    """Fit on the training tracks, calibrate on the validation tracks.

    Args:
        C: instead of the config's.

    Raises:
        UserError: nothing to tell apart.
        Stopped: a rank was told to stop.
    """
    wanted, candidates = C if C is not None else ground.model.C, list[dict[str, Any]]()
    if goal.classes:
        list_sides(goal, train)
    if isinstance(wanted, str):
        candidates = cross_validate(ground, goal, train)
        wanted = choose_candidate(candidates)
    model, solutions = fit_once(ground, goal, train, wanted)
    if goal.classes:
        model = calibrate(model, ground.features, goal, valid if len(valid) else train)
    return Fitted(model, wanted, solutions, candidates)


def fit_once(
    ground: Ground, goal: Goal, rows: Ids, C: float, *, counts: Floats | None = None, start: MarginModel | None = None
) -> tuple[MarginModel, list[Solution]]:
    """Scale and solve on some tracks; not calibrated.

    Args:
        counts: (num_rows,): how often each counts; once by default.
        start: a model to begin with; its scale is kept.

    Returns:
        The model, and the solution of each column; none of a radial kernel, which scikit-learn solves.
    """
    features, values = ground.features[rows], goal.values[rows]
    center, scale = (start.center, start.scale) if start else (features.mean(0), features.std(0))
    for name, deviation in zip(ground.names, scale, strict=True):
        if deviation == 0:
            raise UserError(
                f"column {name} is the same in all {len(rows)} training tracks: leave it out of task.features"
            )
    standard = (features - center) / scale
    components = None if ground.pca is None else find_components(standard, ground.pca).directions
    learnt = (standard if components is None else standard @ components.T).astype(number_type(ground.learner))
    weights = C * (np.ones(len(rows)) if counts is None else counts)
    unit, solutions = np.array([0.0, 1.0]), list[Solution]()
    if goal.target == "regression":
        unit = np.array([values.mean(), values.std()]) if start is None else start.unit
        if unit[1] == 0:
            raise UserError(f"the popularity of all {len(rows)} training tracks is {unit[0]:g}: nothing to learn")
        target = (values - unit[0]) / unit[1]
        problems = [regression_rows(learnt, target, weights, ground.model.loss, ground.model.epsilon)]
    else:
        sides = list_sides(goal, rows)
        costs = [weights * _balance(ground.model, side) for side in sides]
        if ground.gamma is not None:
            solved = solve_radial(learnt, sides, costs, ground.gamma)
            directions = np.eye(len(scale)) if components is None else components
            facts: dict[str, Any] = {"classes": goal.classes, "sigmoids": NONE, "unit": unit, "components": directions}
            return KernelModel(goal.target, ground.names, center, scale, **(facts | solved)), []
        problems = [binary_rows(learnt, side, cost, ground.model.loss) for side, cost in zip(sides, costs, strict=True)]
    for number, problem in enumerate(problems):
        first = None if start is None else np.append(start.weights[number], start.bias[number])
        solutions.append(_solve(ground, problem, first))
    w = np.array([solution.w for solution in solutions])
    slopes = (
        w[:, :-1] if components is None else w[:, :-1] @ components
    )  # of components as of the columns they are made of
    return MarginModel(goal.target, ground.names, center, scale, slopes, w[:, -1], goal.classes, NONE, unit), solutions


def list_sides(goal: Goal, rows: Ids) -> list[NDArray[np.bool_]]:
    """Each machine's question, answered for some training tracks.

    Raises:
        UserError: one has the same answer for all of them.
    """
    sides = [column[rows] for column in goal.columns]
    for name, side in zip(goal.classes[-len(sides) :], sides, strict=True):
        if side.all() or not side.any():
            how = "all" if side.all() else "none"
            raise UserError(f"{how} of {len(rows)} training tracks are {name!r}: nothing to learn")
    return sides


def _balance(model: HingeConfig, side: NDArray[np.bool_]) -> Floats | float:
    if model.class_weight == "none":
        return 1.0
    return np.asarray(np.where(side, len(side) / (2 * side.sum()), len(side) / (2 * (~side).sum())))


def _solve(ground: Ground, problem: Rows, start: Floats | None) -> Solution:
    return solve(problem, ground.learner, ground.mesh, ground.should_stop, start)


def calibrate(model: MarginModel, features: Floats, goal: Goal, rows: Ids) -> MarginModel:
    """Platt's sigmoid for each column, from tracks that the weights were not fitted on."""
    margins = model.margins(features[rows])
    sigmoids = [fit_sigmoid(margins[:, number], column[rows]) for number, column in enumerate(goal.columns)]
    return replace(model, sigmoids=np.array(sigmoids))


def list_folds(ground: Ground, rows: Ids) -> list[tuple[Ids, Ids]]:
    """Parts of the training tracks to learn from and to choose by: whole groups apart, or later years after earlier ones."""
    num, rng = ground.learner.folds, np.random.Generator(np.random.Philox(key=ground.learner.seed))
    if ground.years is not None:
        # a fold more, which is only learnt from
        edges = np.quantile(ground.years[rows], np.arange(1, num + 1) / (num + 1))
        place = np.searchsorted(edges, ground.years[rows], side="left")
        pairs = [(rows[place < fold], rows[place == fold]) for fold in range(1, num + 1)]
    else:
        _, members = np.unique(rows if ground.groups is None else ground.groups[rows], return_inverse=True)
        fold_of = rng.permutation(int(members.max()) + 1) % num
        pairs = [(rows[fold_of[members] != fold], rows[fold_of[members] == fold]) for fold in range(num)]
    return [pair for pair in pairs if len(pair[0]) and len(pair[1])]


def cross_validate(ground: Ground, goal: Goal, rows: Ids) -> list[dict[str, Any]]:
    """For each candidate C the mean score over the folds, its standard error, and the scores: AUC, R² or accuracy."""
    folds, found = list_folds(ground, rows), []
    for C in sorted(ground.learner.candidates):
        scores = []
        for learnt, judged in folds:
            try:
                model, _ = fit_once(ground, goal, learnt, C)
            except UserError:  # a fold without one of the classes
                continue
            scores.append(score(model, ground.features[judged], goal, judged))
        known = [value for value in scores if value is not None]
        if known:
            error = float(np.std(known, ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
            found.append({"C": C, "score": float(np.mean(known)), "standard_error": error, "scores": known})
    if not found:
        raise UserError(f"C=auto: no fold of {len(rows)} training tracks has all classes; give C a number")
    return found


def choose_candidate(candidates: list[dict[str, Any]]) -> float:
    """The smallest C, that is the widest margin, whose score is as good as the best one's but for the third digit."""
    best = max(found["score"] for found in candidates)
    return float(min(found["C"] for found in candidates if found["score"] >= best - EQUAL))


def score(model: MarginModel, features: Floats, goal: Goal, rows: Ids) -> float | None:
    """The score of a fold: AUC, R² or accuracy; None where undefined."""
    values = goal.values[rows]
    if goal.target == "regression":
        return float(r2_score(values, model.numbers(features))) if len(rows) > 1 else None
    if len(goal.classes) == 2:
        return (
            float(roc_auc_score(values == 1, model.margins(features)[:, 0])) if 0 < values.sum() < len(values) else None
        )
    return float((model.labels(features) == values).mean())


SCORES = {"binary": "AUC", "regression": "R²", "genre": "accuracy"}


def number_groups(frame: pd.DataFrame) -> Ids | None:
    """Numbers of the groups, shape (num_tracks,); None where they are not known."""
    if not frame["group"].notna().any():
        return None
    return np.unique(frame["group"].fillna("").astype(str).to_numpy(str), return_inverse=True)[1].astype(np.int64)
