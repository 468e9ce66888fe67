"""What a set of predictions is worth: counts, per-class scores and intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Judged:
    """A model's answers on a split."""

    rows: NDArray[np.int64]  # of the index
    probabilities: NDArray[np.float64]  # (num_tracks, num_classes)
    targets: NDArray[np.int64]


def score(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> dict[str, Any]:
    """Mean negative log-likelihood, accuracy and n."""
    likelihood = np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)
    right = int((probabilities.argmax(1) == targets).sum())
    return {"loss": float(-np.log(likelihood).mean()), "accuracy": right / len(targets), "n": len(targets)}


def classification(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], classes: list[str], groups: NDArray[np.int64] | None
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
    labels = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=0)
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
        "confusion": {"labels": classes, "counts": confusion_matrix(targets, predicted, labels=labels).tolist()},
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
        interval = binomtest(round(float(values[0])) * len(sums), len(sums)).proportion_ci(method="wilson")
        return [float(interval.low), float(interval.high)], f"Wilson score over {len(sums)} {unit}"
    rng = np.random.default_rng(0)
    means = np.empty(NUM_RESAMPLES)
    for at in range(NUM_RESAMPLES):
        chosen = rng.integers(0, len(sums), len(sums))
        means[at] = sums[chosen].sum() / sizes[chosen].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(low), float(high)], f"percentile bootstrap over {len(sums)} {unit}, {NUM_RESAMPLES} resamples"


def over_seeds(single: list[dict[str, Any]], seeds: tuple[int, ...]) -> dict[str, Any]:
    """The mean of single models trained from several seeds, with their spread; the rest is the first model's.

    The interval of the mean accuracy is the mean of the models' intervals: it tells what other tracks would change. The
    standard deviation tells what other seeds would.
    """
    accuracies = [figures["accuracy"] for figures in single]
    ends = np.mean([figures["accuracy_ci95"] for figures in single], axis=0)
    return {
        **single[0],
        "accuracy": float(np.mean(accuracies)),
        "accuracy_ci95": [float(end) for end in ends],
        "loss": float(np.mean([figures["loss"] for figures in single])),
        "macro_f1": float(np.mean([figures["macro_f1"] for figures in single])),
        "seeds": {str(seed): accuracy for seed, accuracy in zip(seeds, accuracies, strict=True)},
        "seeds_deviation": float(np.std(accuracies, ddof=1)),
    }
