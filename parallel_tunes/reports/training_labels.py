"""What a training or an evaluation says where a track may have several labels: a figure, every answer, the worst."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from parallel_tunes.data.label_sets import SEPARATOR
from parallel_tunes.reports.page import BLUE, ORANGE, shorten
from parallel_tunes.train.metrics import Judged


def draw_average_precision(per_class: dict[str, Any], num_tracks: int) -> Figure:
    """Average precision of each label with its interval, and what answers at random would read."""
    names = [name for name, row in per_class.items() if row["ap"] is not None]
    drawing, axes = plt.subplots(figsize=(6, min(1.2 + 0.34 * len(names), 20)), layout="constrained")
    at = np.arange(len(names))
    values = np.array([per_class[name]["ap"] for name in names])
    ends = np.array([per_class[name]["ap_ci95"] or 2 * [per_class[name]["ap"]] for name in names])
    # an interval need not hold the figure it is of: a bootstrap's is lower or higher for few tracks
    reach = np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)
    whiskers = {"elinewidth": 1.2, "capsize": 2.5}
    axes.barh(at, values, 0.62, color=BLUE, xerr=reach, error_kw=whiskers, label="average precision")
    chance = [per_class[name]["support"] / num_tracks for name in names]
    axes.plot(chance, at, "|", color=ORANGE, markersize=12, markeredgewidth=2.5, label="at random")
    axes.set_yticks(at, [f"{shorten(name)} (n = {per_class[name]['support']})" for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return drawing


def tabulate_sets(
    judged: Judged, classes: list[str], thresholds: NDArray[np.float64], paths: pd.Series[str]
) -> pd.DataFrame:
    """A row a track: path, labels, those found, and the probability of each."""
    found = judged.probabilities >= thresholds
    columns: dict[str, Any] = {"path": paths.iloc[judged.rows].to_numpy()}
    for name, table in (("label", judged.targets > 0), ("predicted", found)):
        columns[name] = [SEPARATOR.join(np.array(classes, object)[row]) for row in table]
    chances = {f"probability of {name}": column.round(6) for name, column in zip(classes, judged.probabilities.T, strict=True)}  # fmt: skip
    return pd.DataFrame(columns | chances)


def list_mistakes(
    judged: Judged, classes: list[str], thresholds: NDArray[np.float64], paths: pd.Series[str], most: int = 12
) -> list[dict[str, Any]]:
    """The surest of them: labels that were missed with the lowest and found with the highest probabilities."""
    is_true, is_found = judged.targets > 0, judged.probabilities >= thresholds
    sureness = np.where(is_true != is_found, np.abs(judged.probabilities - is_true), -1)
    order = np.argsort(-sureness, axis=None, kind="stable")[:most]
    return [
        {
            "path": paths.iloc[judged.rows[track]],
            "labels": SEPARATOR.join(np.array(classes, object)[is_true[track]]),
            "mistake": ("missed: " if is_true[track, column] else "found: ") + classes[column],
            "probability": float(judged.probabilities[track, column]),
            "threshold": float(thresholds[column]),
        }
        for track, column in zip(*np.unravel_index(order, sureness.shape), strict=True)
        if sureness[track, column] >= 0
    ]
