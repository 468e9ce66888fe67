"""What predictions of a re-listen network are worth: scores with intervals over users, calibration, and slices of cold rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.data import causal
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.listen_truth import count_earlier
from parallel_tunes.tasks.listen_plan import ListenPlan, keys_of
from parallel_tunes.train.judging import Resamples, judge_classes, judge_ranking, judge_sums

CLASSES = ["not again", "again"]
Floats = NDArray[np.float64]


def judge(made: ListenPlan, rows: Ids, probabilities: Floats, num_resamples: int) -> dict[str, Any]:
    """Scores of some labelled rows.

    Args:
        probabilities: (num_rows,), of listening again.
    """
    targets = made.targets[rows].astype(np.int64)
    resamples = Resamples(len(rows), made.codes[rows, 0].astype(np.int64), num_resamples, units="users")
    found = judge_classes((probabilities > 0.5).astype(np.int64), targets, CLASSES, resamples)
    if 0 < targets.sum() < len(targets):
        found |= judge_ranking(probabilities, targets == 1, resamples)
    else:
        found |= {"auc": None, "auc_ci95": None}
    right = np.where(targets == 1, probabilities, 1 - probabilities)
    above = probabilities > 0.5
    parts = np.column_stack(
        [
            np.ones_like(right),
            -np.log(np.maximum(right, 1e-12)),
            (1 - right) ** 2,
            above,
            above & (targets == 1),
            targets,
        ]
    ).astype(np.float64)
    scores = {
        "loss": lambda sums: sums[:, 1] / sums[:, 0],
        "brier": lambda sums: sums[:, 2] / sums[:, 0],
        "precision": lambda sums: sums[:, 4] / sums[:, 3],
        "recall": lambda sums: sums[:, 4] / sums[:, 5],
    }
    return found | judge_sums(parts, scores, resamples) | calibrate(probabilities, targets)


def calibrate(probabilities: Floats, targets: Ids) -> dict[str, Any]:
    """A reliability curve in ten bins, and the expected calibration error (Naeini, Cooper, Hauskrecht 2015)."""
    bins = np.minimum((probabilities * 10).astype(np.int64), 9)
    curve = [
        {"n": int(mine.sum()), "predicted": float(probabilities[mine].mean()), "observed": float(targets[mine].mean())}
        for mine in (bins == number for number in range(10))
        if mine.any()
    ]
    error = sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in curve) / len(targets)
    return {"reliability": curve, "calibration_error": error}


def judge_slices(made: ListenPlan, rows: Ids, probabilities: Floats, num_resamples: int, warm: int) -> dict[str, Any]:
    """The same of rows whose user or song the training rows lack, and of those both of which are well known.

    Args:
        warm: earlier rows, of whatever split, from which on a user or a song is well known.
    """
    knows_user, knows_song = made.is_known("user")[rows], made.is_known("song")[rows]
    earlier = [count_earlier(made.codes[:, column])[rows] for column in (0, 1)]
    slices = {
        "unseen user": ~knows_user,
        "unseen song": ~knows_song,
        "user and song seen": knows_user & knows_song,
        f"user and song in {warm} earlier rows or more": (np.minimum(*earlier) >= warm),
    }
    return {
        name: judge(made, rows[mine], probabilities[mine], num_resamples) if mine.any() else None
        for name, mine in slices.items()
    }


def judge_baselines(made: ListenPlan, rows: Ids, num_resamples: int, smoothing: float) -> dict[str, Any]:
    """What needs no network: always the training rows' share, and the earlier rates of the song and of the user."""
    share = float(made.targets[made.rows["train"]].mean())
    found = {"share of the training rows": judge(made, rows, np.full(len(rows), share), num_resamples)}
    for name, column in (("the song's earlier rate", "song_rate"), ("the user's earlier rate", "user_rate")):
        rates = find_rates(made, column, smoothing)[rows].astype(np.float64)
        found[name] = judge(made, rows, np.clip(rates, 0, 1), num_resamples)
    return found


def find_rates(made: ListenPlan, column: str, smoothing: float) -> NDArray[np.float32]:
    """A causal rate of each labelled row, from the plan's numbers where it has them."""
    if column in made.number_names:
        at = made.number_names.index(column)
        return made.scale.undo(made.numbers[:, at], at)
    num = made.listens.num_labelled
    numbers = causal.causal_features(*keys_of(made.listens, slice(0, num)), made.targets, smoothing=smoothing)
    return numbers[:, causal.NAMES.index(column)].copy()
