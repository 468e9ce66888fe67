"""Scores are scikit-learn's, and intervals those of a plain bootstrap that hold what they should."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn import metrics

from parallel_tunes.train import judging
from parallel_tunes.train.judging import CHUNK, Resamples, judge_classes, judge_numbers, judge_ranking

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
COUNT = CHUNK + 33


def draw_classes(num: int, num_classes: int, seed: int = 0) -> tuple[Ids, Ids]:
    """Predictions that are right more often than not, and targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, num_classes, num)
    return np.where(rng.random(num) < 0.6, targets, rng.integers(0, num_classes, num)), targets


def draw_scores(num: int, seed: int = 0, digits: int = 1) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores with many ties, and targets that they tell something of."""
    rng = np.random.default_rng(seed)
    targets = rng.random(num) < 0.4
    return np.round(rng.standard_normal(num) + targets, digits), targets


def draw_numbers(num: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Predictions, and targets from 1 to 100 with ties."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 101, num).astype(np.float64)
    return np.round(0.5 * targets + 25 + 10 * rng.standard_normal(num)), targets


def names(num: int) -> list[str]:
    return [f"class {number}" for number in range(num)]


def bootstrap(score: Callable[[Ids], float], resamples: Resamples) -> list[float]:
    """Percentiles of a score over rows repeated as often as their unit was drawn."""
    drawn = [
        score(np.repeat(np.arange(len(resamples.members)), counts[resamples.members])) for counts in resamples.draw()
    ]
    return [float(end) for end in np.quantile(drawn, [0.025, 0.975])]


@pytest.mark.parametrize("groups", [None, np.random.default_rng(1).integers(0, 40, 300) * 7])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_scores_of_classes(num_classes: int, groups: Ids | None) -> None:
    predicted, targets = draw_classes(300, num_classes)
    resamples = Resamples(300, groups, COUNT)
    found = judge_classes(predicted, targets, names(num_classes), resamples)
    average = "binary" if num_classes == 2 else "macro"
    wanted: dict[str, Callable[[Ids], float]] = {
        "accuracy": lambda rows: metrics.accuracy_score(targets[rows], predicted[rows]),
        "balanced_accuracy": lambda rows: metrics.balanced_accuracy_score(targets[rows], predicted[rows]),
        "f1": lambda rows: metrics.f1_score(targets[rows], predicted[rows], average=average),
        "majority_share": lambda rows: np.bincount(targets[rows]).max() / len(rows),
    }
    for name, score in wanted.items():
        assert found[name] == pytest.approx(score(np.arange(300)), rel=1e-12), name
        assert_allclose(found[f"{name}_ci95"], bootstrap(score, resamples), rtol=1e-12, err_msg=name)
    assert found["confusion"]["counts"] == metrics.confusion_matrix(targets, predicted).tolist()
    assert found["n"] == 300
    assert found["num_groups"] == (None if groups is None else len(np.unique(groups)))
    unit = "300 tracks" if groups is None else f"{len(np.unique(groups))} groups"
    assert found["ci95_method"] == f"percentile bootstrap over {unit}, {COUNT} resamples"


@pytest.mark.parametrize("groups", [None, np.random.default_rng(1).integers(0, 40, 300)])
@pytest.mark.parametrize("digits", [0, 1, 12])
def test_area_under_the_curve(digits: int, groups: Ids | None) -> None:
    """With many ties, some, and none."""
    scores, targets = draw_scores(300, digits=digits)
    resamples = Resamples(300, groups, COUNT)
    found = judge_ranking(scores, targets, resamples)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(targets, scores), rel=1e-12)
    wanted = bootstrap(lambda rows: metrics.roc_auc_score(targets[rows], scores[rows]), resamples)
    assert_allclose(found["auc_ci95"], wanted, rtol=1e-12)


@pytest.mark.parametrize("groups", [None, np.random.default_rng(1).integers(0, 40, 300)])
def test_scores_of_numbers(groups: Ids | None) -> None:
    predicted, targets = draw_numbers(300)
    resamples = Resamples(300, groups, COUNT)
    found = judge_numbers(predicted, targets, resamples)

    def smape(rows: Ids) -> float:
        ours, theirs = predicted[rows], targets[rows]
        return float(np.mean(2 * np.abs(ours - theirs) / (np.abs(ours) + np.abs(theirs))))

    wanted: dict[str, Callable[[Ids], float]] = {
        "r2": lambda rows: metrics.r2_score(targets[rows], predicted[rows]),
        "rmse": lambda rows: metrics.root_mean_squared_error(targets[rows], predicted[rows]),
        "mae": lambda rows: metrics.mean_absolute_error(targets[rows], predicted[rows]),
        "mape": lambda rows: metrics.mean_absolute_percentage_error(targets[rows], predicted[rows]),
        "smape": smape,
    }
    for name, score in wanted.items():
        assert found[name] == pytest.approx(score(np.arange(300)), rel=1e-10), name
        assert_allclose(found[f"{name}_ci95"], bootstrap(score, resamples), rtol=1e-10, err_msg=name)
    assert "mape_undefined" not in found
    assert found["num_groups"] == (None if groups is None else 40)


def test_shares_of_zero_are_undefined() -> None:
    predicted, targets = draw_numbers(50)
    targets[[3, 7]] = predicted[7] = 0
    found = judge_numbers(predicted, targets, Resamples(50, None, 50))
    assert found["mape"] is found["mape_ci95"] is None
    assert found["mape_undefined"] == "2 of 50 targets are zero"
    size = np.abs(predicted) + np.abs(targets)
    wanted = [
        0 if total == 0 else 2 * abs(one - other) / total
        for one, other, total in zip(predicted, targets, size, strict=True)
    ]
    assert found["smape"] == pytest.approx(np.mean(wanted))  # nothing said of nothing is no error


@pytest.mark.parametrize("level", [0.1, 37.0, 1e6 + 0.3])
def test_numbers_that_are_all_the_same_have_no_r2(level: float) -> None:
    found = judge_numbers(np.linspace(0, 1, 30), np.full(30, level), Resamples(30, None, 50))
    assert found["r2"] is found["r2_ci95"] is None
    assert found["rmse"] > 0
    assert found["rmse_ci95"] is not None


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_r2_far_from_zero(offset: float) -> None:
    predicted, targets = draw_numbers(200)
    found = judge_numbers(predicted + offset, targets + offset, Resamples(200, None, 50))
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, predicted), rel=1e-9)


@pytest.mark.parametrize("is_yes", [True, False])
def test_one_class_alone_has_no_ranking(is_yes: bool) -> None:
    scores, _ = draw_scores(30)
    found = judge_ranking(scores, np.full(30, is_yes), Resamples(30, None, 50))
    assert found == {"auc": None, "auc_ci95": None}


def test_one_class_alone_has_an_accuracy() -> None:
    targets = np.zeros(30, np.int64)
    found = judge_classes(targets, targets, names(2), Resamples(30, None, 50))
    assert found["accuracy"] == found["balanced_accuracy"] == found["majority_share"] == 1.0
    assert found["f1"] is found["f1_ci95"] is None  # of a class that is neither there nor predicted


def test_no_interval_where_most_resamples_are_undefined() -> None:
    """Of two units, each all of one class, half of the resamples on average have both."""
    scores, targets, groups = np.arange(4.0), np.array([False, False, False, True]), np.array([0, 0, 0, 1])
    seen = set()
    for seed in range(10):
        resamples = Resamples(4, groups, 51, seed)
        has_both = np.mean([(counts > 0).all() for counts in resamples.draw()]) >= 0.5
        found = judge_ranking(scores, targets, resamples)
        assert found["auc"] == 1.0
        assert found["auc_ci95"] == ([1.0, 1.0] if has_both else None)
        seen.add(bool(has_both))
    assert len(seen) == 2


@pytest.mark.parametrize(
    "judge",
    [
        lambda resamples: judge_classes(np.zeros(400, np.int64), np.arange(400) // 8 % 2, names(2), resamples)["accuracy_ci95"],
        lambda resamples: judge_ranking((np.arange(400) // 4 % 11).astype(np.float64), np.arange(400) // 8 % 2 == 1, resamples)["auc_ci95"],
        lambda resamples: judge_numbers(np.zeros(400), (1 + np.arange(400) // 8 % 7).astype(np.float64), resamples)["mae_ci95"],
    ],
    ids=["accuracy", "auc", "mae"],
)  # fmt: skip
def test_rows_that_are_alike_inside_groups_tell_less(judge: Callable[[Resamples], Any]) -> None:
    whole, single = (judge(Resamples(400, groups, 400)) for groups in (np.arange(400) // 8, None))
    assert whole[1] - whole[0] > 1.2 * (single[1] - single[0])


def test_groups_of_one_row_are_rows() -> None:
    predicted, targets = draw_classes(80, 2)
    one, other = (
        judge_classes(predicted, targets, names(2), Resamples(80, groups, 60)) for groups in (None, np.arange(80) + 5)
    )
    assert one["accuracy_ci95"] == other["accuracy_ci95"]
    assert (one["num_groups"], other["num_groups"]) == (None, 80)


def test_intervals_hold_what_they_should() -> None:
    """That of accuracy 0.7 and that of the area between normals one deviation apart, in 200 draws of 150 rows."""
    num, area = 150, 0.5 * (1 + math.erf(1 / 2))  # of two normals: Φ(1/√2)
    held = np.zeros((200, 2), bool)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        targets, resamples = rng.integers(0, 2, num), Resamples(num, None, 150, seed)
        predicted = np.where(rng.random(num) < 0.7, targets, 1 - targets)
        found = judge_classes(predicted, targets, names(2), resamples)
        found |= judge_ranking(rng.standard_normal(num) + targets, targets == 1, resamples)
        for place, (name, truth) in enumerate((("accuracy", 0.7), ("auc", area))):
            low, high = found[f"{name}_ci95"]
            held[seed, place] = low <= truth <= high
    coverage = held.mean(0)
    assert ((coverage >= 0.90) & (coverage <= 0.99)).all(), coverage


def test_draws_are_the_same_for_every_score_whether_kept_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    resamples = Resamples(50, None, 20, seed=3)
    kept = [counts.tolist() for counts in resamples.draw()]
    assert kept == [counts.tolist() for counts in resamples.draw()]
    assert all(sum(counts) == 50 for counts in kept)
    monkeypatch.setattr(judging, "MOST_KEPT", 0)
    again = Resamples(50, None, 20, seed=3)
    assert [counts.tolist() for counts in again.draw()] == kept
    assert "_drawn" not in vars(again)
    assert [counts.tolist() for counts in Resamples(50, None, 20, seed=4).draw()] != kept
