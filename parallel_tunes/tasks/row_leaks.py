"""What a training on a table would know of the rows it is judged by: recordings listed twice, under other names or rounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from parallel_tunes.data import splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.run import Run
from parallel_tunes.tasks.leaks import ORDER, LeakError

NEAR = 0.01  # standard deviations that two rows of one recording may differ by in each column, as of rounding
FEWEST = 4  # columns of many values: rows that agree in fewer may be of different recordings
MANY = 50  # values
MOST_SHOWN = 200

Pairs = list[tuple[int, int, float]]


def guard(
    split: splits.Split,
    features: NDArray[np.float64],
    frame: pd.DataFrame,
    action: str,
    run: Run,
    *,
    is_told: bool = False,
) -> tuple[splits.Split, dict[str, Any]]:
    """Look for rows of the same or nearly the same numbers on both sides; the split that is trained on, and the report's `leaks`.

    Args:
        features: shape (num_rows, num_features).
        frame: has the `path` that names each row.
        action: fail; warn; or drop, which leaves out what training and validation have of a later split.
        is_told: the split itself has warned of rows with the same numbers.

    Raises:
        LeakError: there are some, and `action` is fail.
    """
    sides = np.full(len(features), -1, np.int64)
    for side, name in enumerate(ORDER):
        sides[split.rows[name]] = side
    pairs = find_pairs(features, sides)
    found: dict[str, Any] = {
        "action": action,
        "pairs": [_tell(frame, sides, pair) for pair in (pairs or [])[:MOST_SHOWN]],
        "num_exact": sum(not apart for _, _, apart in pairs or ()),
        "num_near": sum(apart > 0 for _, _, apart in pairs or ()),
        "threshold": None if pairs is None else NEAR,  # null: too few columns tell recordings apart
        "num_dropped": dict.fromkeys(ORDER, 0),
    }
    if not pairs:
        return split, found
    first = found["pairs"][0]["paths"]
    words = (
        f"{found['num_exact']} pairs of rows with the same numbers and {found['num_near']} with nearly the same lie on "
    )
    words += f"both sides of the split ({first[0]} = {first[1]}, say)"
    advice = "data.leaks=drop leaves them out of training and validation"
    if action == "fail":
        raise LeakError(f"data.leaks=fail: {words}; {advice}", found)
    if action == "warn":
        split.warnings.extend([f"{words}; {advice}"] if found["num_near"] or not is_told else [])
        return split, found
    lost = np.array([row for row, _, _ in pairs], np.int64)
    rows = {name: part[~np.isin(part, lost)] for name, part in split.rows.items()}
    found["num_dropped"] = {name: len(part) - len(rows[name]) for name, part in split.rows.items()}
    told = ", ".join(f"{number} {name}" for name, number in found["num_dropped"].items() if number)
    run.log(f"data.leaks=drop: {words}; left out: {told} rows")
    return replace(split, rows=rows, num_dropped=split.num_dropped + sum(found["num_dropped"].values())), found


def find_pairs(features: NDArray[np.float64], sides: Ids) -> Pairs | None:
    """Each row that a later split has too: its place, that of the nearest there, and how far they are apart; None: not looked for.

    Args:
        features: shape (num_rows, num_features).
        sides: of each row, 0 to 2; -1 for one that is in no split.
    """
    used = np.flatnonzero(sides >= 0)
    values = features[used]
    telling = [len(np.unique(column)) > min(MANY, len(values) // 2) for column in values.T]
    if sum(telling) < FEWEST:
        return None
    spread = values.std(axis=0)
    scaled = (features - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    pairs: Pairs = []
    for side in (0, 1):
        earlier, later = np.flatnonzero(sides == side), np.flatnonzero(sides > side)
        if len(earlier) and len(later):
            apart, nearest = cKDTree(scaled[later]).query(scaled[earlier], p=np.inf, distance_upper_bound=NEAR)
            for at in np.flatnonzero(np.isfinite(apart)):
                pairs.append((int(earlier[at]), int(later[nearest[at]]), float(apart[at])))
    return sorted(pairs, key=lambda pair: pair[2])


def _tell(frame: pd.DataFrame, sides: Ids, pair: tuple[int, int, float]) -> dict[str, Any]:
    """A pair for the report, the row of the earlier split first."""
    row, other, apart = pair
    return {
        "kind": "near" if apart else "exact",
        "paths": [str(frame["path"].iloc[each]) for each in (row, other)],
        "splits": [ORDER[int(sides[each])] for each in (row, other)],
        "apart": round(apart, 6),
    }
