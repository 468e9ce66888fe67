"""Which loop has learnt more from the same rows: the area under the ROC curve on later ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.benchmark.relisten_rows import Listens
from parallel_tunes.parallel.workers import Worker
from parallel_tunes.run import Run
from parallel_tunes.train.judging import Resamples, judge_ranking

STEPS = 32
RATES = (1e-3, 1e-2, 1e-1)  # each row is judged by its best: the same choice for all, from the sweep of the seed
MOST_JUDGED = 200_000  # rows
NUM_RESAMPLES = 200


def judge_rows(rows: Listens, workers: Mapping[str, Worker], folder: Path, batch: int, run: Run) -> dict[str, Any]:
    """Let each worker learn anew from the same batches, and judge it by the same later rows.

    Args:
        folder: that the workers' answers are put into.

    Returns:
        Of each worker the AUC with its 95 % interval over users, and the learning rate that it was best at; of all but the first
        also what they gain on the first, with the interval of that, both being judged on the same resamples.
    """
    ids = rows.late_ids(MOST_JUDGED)
    targets = rows.targets[ids] == 1
    resamples = Resamples(len(ids), rows.codes[ids, 0].astype(np.int64), NUM_RESAMPLES, units="users")
    found, answers = dict[str, Any](), dict[str, NDArray[np.float64]]()
    with run.progress("learn", len(workers) * len(RATES), " networks") as bar:
        for name, worker in workers.items():
            for rate in RATES:
                file = folder / f"answers-{name}.npy"
                told = worker.ask(f"learn {STEPS} {rate} {MOST_JUDGED} {file}")
                scores = np.load(file).astype(np.float64)
                judged = judge_ranking(scores, targets, resamples)
                if name not in found or judged["auc"] > found[name]["auc"]:
                    found[name], answers[name] = judged | {"lr": rate, "seconds": told["seconds"]}, scores
                bar.update()
    first, *others = answers
    for name in others:
        gains = area(answers[name], targets, resamples) - area(answers[first], targets, resamples)
        found[name] |= {
            "gain": found[name]["auc"] - found[first]["auc"],
            "gain_ci95": [float(end) for end in np.quantile(gains, [0.025, 0.975])],
            "gain_on": first,
        }
    learnt = {
        "num_learnt": STEPS * batch,
        "batch": batch,
        "n": len(ids),
        "rates": list(RATES),
        "method": resamples.method,
    }
    return {**learnt, "rows": found}


def area(scores: NDArray[np.float64], targets: NDArray[np.bool_], resamples: Resamples) -> NDArray[np.float64]:
    """Under the ROC curve of each resample, ties counting half: as `judge_ranking` has it, which gives no single ones."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of stretches of equal scores
    is_above, members = targets[order], resamples.members[order]
    found = []
    for counts in resamples.draw():
        weights = counts[members].astype(np.float64)
        above = np.add.reduceat(np.where(is_above, weights, 0), starts)
        below = np.add.reduceat(np.where(is_above, 0, weights), starts)
        found.append(above @ (np.cumsum(below) - below / 2) / (above.sum() * below.sum()))
    return np.array(found)
