"""What is said of a file: its labels, best first, and a table of them for people. It knows no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.data.label_sets import SEPARATOR

Answer = dict[str, Any]  # of a file or a row: what is said of it, or the reason why nothing is


def rank_labels(
    probabilities: Sequence[float], classes: Sequence[str], thresholds: NDArray[np.float64] | None, top_k: int
) -> dict[str, Any]:
    """`top`, a list of {label, probability}; of a model by which a track may have several labels also `labels`, those that
    reach their threshold: {label, probability, threshold}.
    """
    order = sorted(range(len(classes)), key=lambda label: -probabilities[label])
    found: list[dict[str, Any]] = [{"label": classes[label], "probability": probabilities[label]} for label in order]
    if thresholds is None:
        return {"top": found[:top_k]}
    told = [{**entry, "threshold": float(thresholds[label])} for entry, label in zip(found, order, strict=True)]
    return {"top": found[:top_k], "labels": [entry for entry in told if entry["probability"] >= entry["threshold"]]}


def format_table(answers: list[dict[str, Any]], top_k: int) -> str:
    """A table for people: a line a file, the labels with their probabilities in per cent; those that reach their
    thresholds come first, where a track may have several.
    """
    good = [answer for answer in answers if "top" in answer]
    if not good:
        return ""
    many = ["labels"] if "labels" in good[0] else []
    rows = [["file", *many, *(f"#{place}" for place in range(1, min(top_k, len(good[0]["top"])) + 1))]]
    for answer in good:
        labels = [SEPARATOR.join(show(entry["label"]) for entry in answer["labels"]) or "none"] if many else []
        top = [f"{show(entry['label'])} {100 * entry['probability']:.1f} %" for entry in answer["top"]]
        rows.append([show(answer["file"]), *labels, *top])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def show(text: str) -> str:
    """`text` without what could command a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
