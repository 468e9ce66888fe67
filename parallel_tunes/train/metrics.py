"""What a set of predictions is worth: counts, per-class scores and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
Z = 1.959964  # the normal distribution's quantile of 0.975


@dataclass(frozen=True)
class Judged:
    """A model's answers on a split."""

    rows: NDArray[np.int64]  # of the index
    probabilities: NDArray[np.float64]  # (num_tracks, num_classes)
    targets: NDArray[np.integer]  # (num_tracks,); or of several labels a track (num_tracks, num_classes), 0 or 1


def average(judged: list[Judged]) -> Judged:
    """The answers of an ensemble: the mean of its models' probabilities."""
    return Judged(judged[0].rows, np.mean([each.probabilities for each in judged], axis=0), judged[0].targets)


def score(probabilities: NDArray[np.float64], targets: NDArray[np.integer]) -> dict[str, Any]:
    """Mean negative log-likelihood, accuracy and n; of two classes that both occur also the area under the ROC curve.

    Of several labels a track the loss is a mean over labels too, and right is a track whose labels are all right at 0.5.
    """
    if targets.ndim == 2:
        likelihood = np.maximum(np.where(targets > 0, probabilities, 1 - probabilities), 1e-12)
        right = int(((probabilities > 0.5) == (targets > 0)).all(1).sum())
        return {"loss": float(-np.log(likelihood).mean()), "accuracy": right / len(targets), "n": len(targets)}
    likelihood = np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)
    right = int((probabilities.argmax(1) == targets).sum())
    found = {"loss": float(-np.log(likelihood).mean()), "accuracy": right / len(targets), "n": len(targets)}
    if probabilities.shape[1] == 2 and 0 < targets.sum() < len(targets):
        found["auc"] = roc_auc(probabilities[:, 1], targets)
    return found


def roc_auc(scores: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """How often a sample of class 1 scores above one of class 0, ties counted half (Mann & Whitney 1947)."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sizes = np.diff(np.append(starts, len(ranked)))
    ranks = np.repeat(starts + (sizes + 1) / 2, sizes)
    num = int((targets == 1).sum())
    return float((ranks[targets[order] == 1].sum() - num * (num + 1) / 2) / (num * (len(targets) - num)))


def classification(
    probabilities: NDArray[np.float64],
    targets: NDArray[np.integer],
    classes: list[str],
    groups: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Accuracy with n and a 95 % interval, loss, macro F1, per-class scores and the confusion matrix.

    Args:
        probabilities: shape (num_tracks, num_classes).
        targets: shape (num_tracks,).
        classes: names, in the order of the columns.
        groups: shape (num_tracks,): tracks of one group (artist) are resampled together; None resamples tracks.
    """
    predicted = probabilities.argmax(1)
    right = predicted == targets
    # not by scikit-learn, whose import takes longer than a small training
    num = len(classes)
    counts = np.bincount(targets.astype(np.int64) * num + predicted, minlength=num**2).reshape(num, num)
    hits, support, answered = np.diag(counts), counts.sum(1), counts.sum(0)
    precision, recall = hits / np.maximum(answered, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + answered, 1)
    interval, method = interval_of_mean(right.astype(np.float64), groups)
    present = support > 0
    return {
        **score(probabilities, targets),
        "accuracy_ci95": interval,
        "ci95_method": method,
        "num_groups": None if groups is None else len(np.unique(groups)),
        "macro_f1": float(f1[present].mean()),
        "majority_share": float(support.max() / len(targets)),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        },
        "confusion": {"labels": classes, "counts": counts.tolist()},
    }


def interval_of_mean(values: NDArray[np.float64], groups: NDArray[np.int64] | None) -> tuple[list[float], str]:
    """95 % interval of a mean of zeros and ones, and its method in words.

    Percentile bootstrap (Efron & Tibshirani 1993), by whole groups where there are groups. Where all values are alike a
    bootstrap knows no doubt; then Wilson's score interval (1927), which counts a group as one.
    """
    unit = "tracks" if groups is None else "groups"
    _, members = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    sums, sizes = np.bincount(members, weights=values), np.bincount(members)
    if values.min() == values.max():
        doubt = Z**2 / (len(sums) + Z**2)  # what Wilson's formula becomes where all or none are right
        return ([1 - doubt, 1.0] if values[0] else [0.0, doubt]), f"Wilson score over {len(sums)} {unit}"
    rng = np.random.default_rng(0)
    means = np.empty(NUM_RESAMPLES)
    for at in range(NUM_RESAMPLES):
        chosen = rng.integers(0, len(sums), len(sums))
        means[at] = sums[chosen].sum() / sizes[chosen].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(low), float(high)], f"percentile bootstrap over {len(sums)} {unit}, {NUM_RESAMPLES} resamples"


def over_seeds(single: list[dict[str, Any]], seeds: tuple[int, ...]) -> dict[str, Any]:
    """The mean of single models trained from several seeds, with their spread; tables and counts are the first model's.

    The interval of a mean figure is the mean of the models' intervals: it tells what other tracks would change. The
    standard deviation, of the accuracy, tells what other seeds would.
    """
    accuracies = [figures["accuracy"] for figures in single]
    means: dict[str, Any] = {
        name: float(np.mean([figures[name] for figures in single]))
        for name, value in single[0].items()
        if isinstance(value, float)
    }
    for name in single[0]:
        ends = [figures[name] for figures in single]
        if name.endswith("_ci95"):
            means[name] = None if None in ends else [float(end) for end in np.mean(ends, axis=0)]
    return {
        **single[0],
        **means,
        "seeds": {str(seed): accuracy for seed, accuracy in zip(seeds, accuracies, strict=True)},
        "seeds_deviation": float(np.std(accuracies, ddof=1)),
    }
