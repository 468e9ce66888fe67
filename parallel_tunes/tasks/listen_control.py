"""What gradient-boosted trees make of the same rows: a control for the network, by LightGBM (Ke et al. 2017)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np

from parallel_tunes.data.batches import Ids
from parallel_tunes.tasks.listen_judging import judge
from parallel_tunes.tasks.listen_plan import OWN, ListenPlan

MOST_CODES = 255  # of a column that trees can tell apart
MOST_ROWS = 2_000_000  # to learn from, the latest: more add nothing but time
ROUNDS, STOP_AFTER = 400, 20


def judge_control(made: ListenPlan, num_resamples: int, seed: int) -> dict[str, Any] | None:
    """Scores on the test rows of trees that stop by validation; None where LightGBM is not installed, or no test rows are.

    They take the rows' numbers, the numbers of users and songs, and those columns that have few codes.
    """
    train, valid, test = (made.rows[name] for name in ("train", "valid", "test"))
    if importlib.util.find_spec("lightgbm") is None or not len(test):
        return None
    lightgbm: Any = importlib.import_module("lightgbm")  # it has no types
    few, columns = tabulate(made, train[-MOST_ROWS:])
    options = {
        "objective": "binary",
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
        "num_leaves": 63,
        "learning_rate": 0.1,
    }
    data = lightgbm.Dataset(columns, made.targets[train[-MOST_ROWS:]], categorical_feature=list(range(few)))
    held = [data.create_valid(tabulate(made, valid)[1], made.targets[valid])] if len(valid) else []
    stop = [lightgbm.early_stopping(STOP_AFTER, verbose=False)] if held else []
    trees = lightgbm.train(options, data, ROUNDS if held else 100, valid_sets=held, callbacks=stop)
    found = judge(made, test, np.asarray(trees.predict(tabulate(made, test)[1])), num_resamples)
    return found | {"num_trees": trees.num_trees()}


def tabulate(made: ListenPlan, rows: Ids) -> tuple[int, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """How many columns hold codes, which come first, and all columns, (num_rows, num_columns)."""
    parts = []
    for entities, kind in ((made.users, 0), (made.songs, 1)):
        few = [at for at, num in enumerate(entities.num_codes) if num <= MOST_CODES]
        parts.append(entities.codes[made.codes[rows, kind]][:, few])
    codes = np.column_stack([made.codes[rows, 2 : 2 + len(OWN)], *parts]).astype(np.float32)
    numbers = [entities.numbers[made.codes[rows, kind]] for entities, kind in ((made.users, 0), (made.songs, 1))]
    return codes.shape[1], np.column_stack([codes, made.numbers[rows], *numbers])
