"""What answers are worth where a track may have several labels: thresholds, and figures with their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.train import metrics
from parallel_tunes.train.judging import Floats, Ids, Resamples, judge_sums, with_interval

Table = NDArray[np.integer]  # (num_tracks, num_classes), 0 or 1
UNTOLD = 0.5  # the threshold of a label of which nothing can be learnt
MOST_CELLS = 500_000_000  # probabilities × resamples; of more probabilities there are fewer resamples
FEWEST = 200
AT_ONCE = 1 << 22
HEADLINES = {
    "map": "mean average precision",
    "macro_auc": "ROC-AUC, mean over labels",
    "micro_auc": "ROC-AUC, all labels in one",
    "macro_f1": "F1, mean over labels",
    "micro_f1": "F1, all labels in one",
    "hamming_loss": "Hamming loss",
    "accuracy": "accuracy: all labels of a track right",
}


def choose_thresholds(probabilities: Floats, targets: Table) -> Floats:
    """The threshold of each label, shape (num_classes,), from which on a track is taken to have it: that of the highest F1.

    It lies half-way between the probabilities of two tracks (or of one and 0). Of several as good the one nearest to 0.5
    is taken, of two as near the higher; 0.5 without a track that has the label.

    Args:
        probabilities: shape (num_tracks, num_classes), of tracks that are not judged by it.
    """
    return np.array([_choose(*columns) for columns in zip(probabilities.T, targets.T, strict=True)], np.float64)


def _choose(scores: Floats, targets: NDArray[np.integer]) -> float:
    num = int(targets.sum())
    if not num:
        return UNTOLD
    order, lasts = rank(scores)
    f1 = 2 * np.cumsum(targets[order], dtype=np.int64)[lasts] / (lasts + 1 + num)
    levels = np.append(scores[order][lasts], 0.0)
    best = ((levels[:-1] + levels[1:]) / 2)[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def rank(scores: Floats) -> tuple[Ids, Ids]:
    """The order of falling scores, and in it the last places of equal ones."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))


class Ranking:
    """How scores rank what has a label above what has not.

    Args:
        scores, targets: shape (num,).
        members: shape (num,): which unit of the resamples each belongs to.
    """

    def __init__(self, scores: Floats, targets: NDArray[np.integer], members: Ids) -> None:
        order, self.lasts = rank(scores)
        self.targets, self.members = targets[order].astype(np.float64), members[order]

    def judge(self, weights: Floats) -> tuple[Floats, Floats]:
        """Average precision and area under the ROC curve, each of shape (num_draws,); NaN where undefined.

        Both have a step at each distinct score, as scikit-learn's have: ties count half in the area.

        Args:
            weights: shape (num_draws, num): how often each counts, in falling order of scores.
        """
        above = np.cumsum(weights * self.targets, 1)[:, self.lasts]
        every = np.cumsum(weights, 1)[:, self.lasts]
        below = every - above
        gained, passed = np.diff(above, prepend=0), np.diff(below, prepend=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(every > 0, above / every, 0)
            average = (gained * precision).sum(1) / above[:, -1]
            pairs = (gained * (below[:, -1:] - below + passed / 2)).sum(1)
            return average, pairs / (above[:, -1] * below[:, -1])

    def judge_drawn(self, resamples: Resamples) -> tuple[Floats, Floats]:
        """The same of each resample."""
        chunks = _in_chunks(resamples.draw(), max(AT_ONCE // len(self.members), 1))
        found = [self.judge(counts[:, self.members].astype(np.float64)) for counts in chunks]
        average, area = zip(*found, strict=True)
        return np.concatenate(average), np.concatenate(area)

    @property
    def figures(self) -> tuple[float, float]:
        """Both, of all as they are."""
        average, area = self.judge(np.ones((1, len(self.members))))
        return float(average[0]), float(area[0])


def _in_chunks(draws: Iterator[NDArray[np.uint16]], size: int) -> Iterator[NDArray[np.uint16]]:
    while chunk := list(islice(draws, size)):
        yield np.array(chunk)


def judge_sets(
    probabilities: Floats, targets: Table, classes: list[str], thresholds: Floats, groups: Ids | None
) -> dict[str, Any]:
    """The figures of `HEADLINES` with n and their 95 % intervals, loss, and each label's.

    Means over labels are over those that occur (ROC-AUC: and that not all tracks have). An interval is None where all
    resamples read the same, which is no certainty; that of the accuracy is then Wilson's.

    Args:
        probabilities: shape (num_tracks, num_classes).
        thresholds: shape (num_classes,).
        groups: shape (num_tracks,): tracks of one group (artist) are resampled together; None resamples tracks.
    """
    num_resamples = int(np.clip(MOST_CELLS // targets.size, FEWEST, metrics.NUM_RESAMPLES))
    resamples = Resamples(len(targets), groups, num_resamples)
    is_true, is_found = targets > 0, probabilities >= thresholds
    interval, method = metrics.interval_of_mean((is_true == is_found).all(1).astype(np.float64), groups)
    each, over_all = _judge_rankings(probabilities, targets, resamples)
    _, counts_of_sets = np.unique(targets, axis=0, return_counts=True)
    return {
        **metrics.score(probabilities, targets),
        **over_all,
        **_judge_found(is_true, is_found, resamples),
        "accuracy": float((is_true == is_found).all(1).mean()),
        "accuracy_ci95": interval,
        "accuracy_ci95_method": method,
        "ci95_method": resamples.method,
        "num_groups": resamples.num_groups,
        "map_of_chance": float(targets.mean(0)[is_true.any(0)].mean()),
        "majority_share": float(counts_of_sets.max() / len(targets)),
        "labels_per_track": float(is_true.sum(1).mean()),
        "per_class": {
            name: {
                **ranked,
                "threshold": float(threshold),
                **_count(is_true[:, column], is_found[:, column]),
            }
            for column, (name, ranked, threshold) in enumerate(zip(classes, each, thresholds, strict=True))
        },
    }


def over_seeds(single: list[dict[str, Any]], seeds: tuple[int, ...]) -> dict[str, Any]:
    """As `metrics.over_seeds`, with the spread of the mean average precision beside that of the accuracy."""
    values = [figures["map"] for figures in single]
    by_seed = {str(seed): value for seed, value in zip(seeds, values, strict=True)}
    spread = None if None in values else float(np.std(values, ddof=1))
    return {**metrics.over_seeds(single, seeds), "map_by_seed": by_seed, "map_deviation": spread}


def _judge_rankings(
    probabilities: Floats, targets: Table, resamples: Resamples
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Average precision and ROC-AUC: of each label, and over all of them."""
    columns = zip(probabilities.T, targets.T, strict=True)
    rankings = [Ranking(scores, held, resamples.members) for scores, held in columns]
    points = np.array([ranking.figures for ranking in rankings])  # (num_classes, 2)
    drawn = np.array([ranking.judge_drawn(resamples) for ranking in rankings])  # (num_classes, 2, num_resamples)
    each = [_tell(("ap", "auc"), *both) for both in zip(points, drawn, strict=True)]
    whole = Ranking(probabilities.ravel(), targets.ravel(), resamples.members.repeat(targets.shape[1]))
    means = _tell(("map", "macro_auc"), _mean_known(points), _mean_known(drawn))
    micro = _tell(("micro_auc",), np.array(whole.figures[1:]), np.array(whole.judge_drawn(resamples)[1:]))
    return each, {**means, **micro}


def _mean_known(figures: Floats) -> Floats:
    """The mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(figures)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, figures, 0).sum(0) / known.sum(0))


def _tell(names: tuple[str, ...], points: Floats, drawn: Floats) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, point, resampled in zip(names, points, drawn, strict=True):
        found[name], found[f"{name}_ci95"] = with_interval(float(point), resampled)
    return _without_points(found)


def _without_points(found: dict[str, Any]) -> dict[str, Any]:
    """Intervals that have no width are none."""
    return {name: None if isinstance(value, list) and value[0] == value[1] else value for name, value in found.items()}


def _judge_found(is_true: NDArray[np.bool_], is_found: NDArray[np.bool_], resamples: Resamples) -> dict[str, Any]:
    """F1 over all labels in one and as their mean, and the share of wrong ones."""
    num = is_true.shape[1]
    wrong = (is_true != is_found).mean(1)
    parts = np.column_stack([np.ones(len(wrong)), wrong, is_true & is_found, is_true, is_found]).astype(np.float64)

    def split(sums: Floats) -> tuple[Floats, Floats, Floats]:
        return sums[:, 2 : 2 + num], sums[:, 2 + num : 2 + 2 * num], sums[:, 2 + 2 * num :]

    def micro_f1(sums: Floats) -> Floats:
        right, held, told = (each.sum(1) for each in split(sums))
        return np.asarray(2 * right / (held + told))

    def macro_f1(sums: Floats) -> Floats:
        right, held, told = split(sums)
        return _mean_known(np.where(held > 0, 2 * right / (held + told), np.nan).T)

    scores = {"macro_f1": macro_f1, "micro_f1": micro_f1, "hamming_loss": lambda sums: sums[:, 1] / sums[:, 0]}
    return _without_points(judge_sums(parts, scores, resamples))


def _count(is_true: NDArray[np.bool_], is_found: NDArray[np.bool_]) -> dict[str, Any]:
    """Precision, recall and F1 of a label, 0 where there is nothing to divide by, and the number of tracks that have it."""
    right, held, told = int((is_true & is_found).sum()), int(is_true.sum()), int(is_found.sum())
    return {
        "precision": right / max(told, 1),
        "recall": right / max(held, 1),
        "f1": 2 * right / max(held + told, 1),
        "support": held,
    }
