from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from parallel_tunes.data.listen_truth import NUM_WARM, count_earlier, expected_auc, tell


def test_expected_auc_is_the_mean_over_labels() -> None:
    rng = np.random.default_rng(0)
    probability = np.round(rng.random(60), 1)  # with ties
    pairs, wins = 0.0, 0.0
    for one, p in enumerate(probability):
        for other, q in enumerate(probability):
            if one != other:
                pairs += p * (1 - q)
                wins += p * (1 - q) * (1.0 if p > q else 0.5 if p == q else 0.0)
    assert expected_auc(probability) == pytest.approx(wins / pairs, abs=1e-12)
    many = np.repeat(probability, 20)
    drawn = [roc_auc_score(rng.random(len(many)) < many, many) for _ in range(200)]
    assert expected_auc(many) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(200))


def test_expected_auc_of_nothing() -> None:
    assert math.isnan(expected_auc(np.zeros(0)))
    assert math.isnan(expected_auc(np.ones(3)))
    assert expected_auc(np.full(5, 0.3)) == pytest.approx(0.5)
    assert expected_auc(np.array([0.0, 1.0])) == 1


def test_earlier_rows_are_counted() -> None:
    assert count_earlier(np.array([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]


def test_warm_and_cold_rows() -> None:
    """User 0 and song 0 from the first row on; user 1 and song 1 only in the last fifth."""
    user, song = np.zeros(100, np.int32), np.zeros(100, np.int32)
    user[85:95], song[90:] = 1, 1
    told = tell(user, song, np.linspace(0.1, 0.9, 100), np.ones(100, np.int8), 100)
    assert (told["num_late"], told["cold_users"], told["cold_songs"]) == (20, 0.5, 0.5)
    assert told["num_warm"] == 5  # rows 80 to 84
    assert NUM_WARM == 20
    assert told["bayes_auc_warm"] == pytest.approx(expected_auc(np.linspace(0.1, 0.9, 100)[80:85]))
