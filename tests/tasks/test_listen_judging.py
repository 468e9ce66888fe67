from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score
from test_listen_plan import planned

from parallel_tunes.data.causal import NAMES
from parallel_tunes.data.listens import Listens
from parallel_tunes.tasks import listen_judging


@pytest.fixture
def columns(heard: Path) -> Listens:
    return Listens(heard / "logs/preprocess/l")


def test_scores_are_those_of_scikit_learn(columns: Listens) -> None:
    made = planned(columns)
    rows = made.rows["test"]
    targets = made.targets[rows]
    chances = np.clip(0.3 * targets + np.random.default_rng(0).random(len(rows)) * 0.7, 0.01, 0.99)
    found = listen_judging.judge(made, rows, chances, 50)
    assert found["n"] == len(rows)
    assert found["num_groups"] == len(np.unique(made.codes[rows, 0]))
    assert "users" in found["ci95_method"]
    assert found["auc"] == pytest.approx(roc_auc_score(targets, chances))
    assert found["loss"] == pytest.approx(log_loss(targets, chances))
    assert found["precision"] == pytest.approx(precision_score(targets, chances > 0.5))
    assert found["recall"] == pytest.approx(recall_score(targets, chances > 0.5))
    for name in ("auc", "loss", "precision", "recall", "accuracy", "brier"):
        low, high = found[f"{name}_ci95"]
        assert low <= found[name] <= high


def test_calibration_of_what_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    chances = rng.random(20000)
    targets = (rng.random(20000) < chances).astype(np.int64)
    assert listen_judging.calibrate(chances, targets)["calibration_error"] < 0.015
    assert listen_judging.calibrate(chances**3, targets)["calibration_error"] > 0.15
    assert sum(row["n"] for row in listen_judging.calibrate(chances, targets)["reliability"]) == 20000


def test_slices_are_the_rows_they_say(columns: Listens) -> None:
    made = planned(columns)
    rows = made.rows["test"]
    found = listen_judging.judge_slices(made, rows, np.full(len(rows), 0.6), 20, 20)
    train = made.codes[made.rows["train"]]
    unseen = ~np.isin(made.codes[rows, 0], train[:, 0]), ~np.isin(made.codes[rows, 1], train[:, 1])
    assert found["unseen user"]["n"] == unseen[0].sum() > 0
    assert found["unseen song"]["n"] == unseen[1].sum() > 0
    assert found["user and song seen"]["n"] == (~unseen[0] & ~unseen[1]).sum()
    warm = sum(
        (made.codes[:row, 0] == made.codes[row, 0]).sum() >= 20
        and (made.codes[:row, 1] == made.codes[row, 1]).sum() >= 20
        for row in rows
    )
    assert (found["user and song in 20 earlier rows or more"] or {"n": 0})["n"] == warm


def test_baselines_know_only_what_came_before(columns: Listens) -> None:
    made = planned(columns)
    found = listen_judging.judge_baselines(made, made.rows["test"], 20, 10.0)
    assert found["share of the training rows"]["auc"] == pytest.approx(0.5)
    assert found["the user's earlier rate"]["auc"] > 0.6
    assert {"song_rate", "user_rate"} <= set(NAMES)
    alone = planned(columns, "features=static")
    for name in ("song_rate", "user_rate"):
        kept, again = (listen_judging.find_rates(plan, name, 10.0) for plan in (made, alone))
        np.testing.assert_allclose(kept, again, atol=1e-6)
