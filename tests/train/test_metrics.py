from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from parallel_tunes.train import metrics


def answers(
    num: int = 200, seed: int = 0
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(3), num), rng.integers(0, 3, num)


def test_figures_are_those_of_scikit_learn() -> None:
    probabilities, targets = answers()
    found = metrics.classification(probabilities, targets, ["a", "b", "c"], None)
    predicted = probabilities.argmax(1)
    assert found["n"] == 200
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert found["confusion"]["counts"] == confusion_matrix(targets, predicted).tolist()
    per_class = [[*row.values()] for row in found["per_class"].values()]
    np.testing.assert_allclose(per_class, np.transpose(precision_recall_fscore_support(targets, predicted)))
    assert found["accuracy_ci95"][0] < found["accuracy"] < found["accuracy_ci95"][1]


def test_counts_do_not_overflow_where_labels_are_small_integers() -> None:
    targets = np.arange(40).astype(np.int8)
    found = metrics.classification(np.eye(40), targets, [str(label) for label in range(40)], None)
    assert found["confusion"]["counts"] == np.eye(40, dtype=int).tolist()


def test_a_label_without_tracks_does_not_count_in_the_mean() -> None:
    found = metrics.classification(
        np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 1]), ["a", "b", "c"], None
    )
    assert found["macro_f1"] == 1.0
    assert found["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        (low, high), _ = metrics.interval_of_mean((rng.random(150) < 0.8).astype(float), None)
        held += low <= 0.8 <= high
    assert held >= 180


def test_groups_widen_the_interval_when_their_tracks_agree() -> None:
    right = np.repeat((np.random.default_rng(0).random(40) < 0.7).astype(float), 10)
    alone, _ = metrics.interval_of_mean(right, None)
    together, _ = metrics.interval_of_mean(right, np.repeat(np.arange(40), 10))
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_seeds_are_averaged_with_their_spread() -> None:
    single = [metrics.classification(*answers(seed=seed), ["a", "b", "c"], None) for seed in range(3)]
    found = metrics.over_seeds(single, (4, 5, 6))
    assert found["accuracy"] == pytest.approx(np.mean([figures["accuracy"] for figures in single]))
    assert set(found["seeds"]) == {"4", "5", "6"}
    assert found["seeds_deviation"] > 0


def test_all_right_is_no_certainty() -> None:
    (low, high), method = metrics.interval_of_mean(np.ones(20), None)
    assert high == 1.0
    assert 0.8 < low < 0.9
    assert "Wilson" in method
    wilson = binomtest(20, 20).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wilson.low, wilson.high), rel=1e-6)
    assert metrics.interval_of_mean(np.ones(20), np.repeat(np.arange(4), 5))[0][0] < low
    assert metrics.interval_of_mean(np.zeros(20), None)[0][1] == pytest.approx(1 - low)


@pytest.mark.parametrize("num_levels", [2, 7, 10**6])
def test_the_area_under_the_curve_is_that_of_scikit_learn(num_levels: int) -> None:
    rng = np.random.default_rng(num_levels)
    scores, targets = rng.integers(0, num_levels, 500) / num_levels, rng.integers(0, 2, 500)
    assert metrics.roc_auc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)
    found = metrics.score(np.column_stack([1 - scores, scores]), targets)
    assert found["auc"] == metrics.roc_auc(scores, targets)
    assert "auc" not in metrics.score(np.column_stack([1 - scores, scores]), np.ones(500, np.int64))
