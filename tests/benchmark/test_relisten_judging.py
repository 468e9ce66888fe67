from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from parallel_tunes.benchmark.relisten_judging import area
from parallel_tunes.train.judging import Resamples, judge_ranking


def test_areas_are_those_of_the_rows_that_were_drawn() -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, 50, 600)
    scores = rng.integers(0, 20, 600).astype(np.float64)  # with ties
    targets = rng.random(600) < 0.3 + 0.02 * scores
    resamples = Resamples(600, users, 40, units="users")
    found = area(scores, targets, resamples)
    for counts, value in zip(resamples.draw(), found, strict=True):
        drawn = np.repeat(np.arange(600), counts[resamples.members])
        assert value == pytest.approx(roc_auc_score(targets[drawn], scores[drawn]), abs=1e-12)
    judged = judge_ranking(scores, targets, resamples)
    assert judged["auc_ci95"] == pytest.approx(list(np.quantile(found, [0.025, 0.975])))
