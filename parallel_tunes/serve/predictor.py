"""A model folder that answers: a file in, labels with probabilities out, by the same path as in training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.data.batches import fit_length, window_starts
from parallel_tunes.train import model_folder
from parallel_tunes.train.gradient import Frozen

MAX_WINDOWS = 64  # in one forward pass


class Predictor:
    """Labels files with a trained model.

    Args:
        folder: a model folder.
        device: where the model runs.
        max_bytes: larger files are refused.

    Raises:
        UserError: the folder holds no model that can be used.
    """

    def __init__(self, folder: Path | None, device: torch.device, *, max_bytes: int) -> None:
        loaded = model_folder.load(folder)
        self.facts, self.classes, self.features = loaded.facts, loaded.classes, loaded.features
        self.model = Frozen(loaded.model, device, **loaded.facts["standardise"])
        self.max_bytes = max_bytes

    def predict(self, file: Path, top_k: int) -> dict[str, Any]:
        """The `top_k` most probable labels of a file, or the reason why there are none.

        Returns:
            `file`, `duration_s` and `top`, a list of {label, probability}; or `file` and `reason`.
        """
        name = os.fsencode(file).decode(errors="backslashreplace")  # a name may be no text
        try:
            clip = front_end.extract(file, self.features, max_bytes=self.max_bytes)
        except AudioError as error:
            return {"file": name, "reason": str(error)}
        frames = clip.frames
        window, overlap = self.facts["windows"]["num_frames"], self.facts["windows"]["overlap"]
        starts = window_starts(len(frames), window, overlap)
        total = torch.zeros(len(self.classes), dtype=torch.float64)
        for at in range(0, len(starts), MAX_WINDOWS):
            parts = [fit_length(frames[start : start + window], window) for start in starts[at : at + MAX_WINDOWS]]
            total += self.model.predict(torch.from_numpy(np.stack(parts)).transpose(1, 2)).double().sum(0)
        probabilities = (total / len(starts)).tolist()
        best = sorted(range(len(self.classes)), key=lambda label: -probabilities[label])[:top_k]
        top = [{"label": self.classes[label], "probability": probabilities[label]} for label in best]
        return {"file": name, "duration_s": round(clip.source.duration_s, 3), "top": top}


def format_table(answers: list[dict[str, Any]], top_k: int) -> str:
    """A table for people: a line a file, the labels with their probabilities in per cent."""
    good = [answer for answer in answers if "top" in answer]
    if not good:
        return ""
    rows = [["file", *(f"#{place}" for place in range(1, min(top_k, len(good[0]["top"])) + 1))]]
    rows += [
        [show(answer["file"]), *(f"{show(t['label'])} {100 * t['probability']:.1f} %" for t in answer["top"])]
        for answer in good
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def show(text: str) -> str:
    """`text` without what could command a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
