"""An exported model that answers as `Predictor` does, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.serve import onnx_folder
from parallel_tunes.serve.labels import rank_labels
from parallel_tunes.train.windows import cut_windows


class OnnxPredictor:
    """Labels files with an exported model.

    A clip's gain and floor are found by the front end of training; its windows go into the graph as samples.

    Args:
        folder: of an export run.
        max_bytes: larger files are refused.
        precision: float32 or int8.

    Raises:
        UserError: the folder holds no model that can be used, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int, precision: str = "float32") -> None:
        self.model, self.max_bytes = onnx_folder.load(folder, precision), max_bytes
        self.facts, self.classes, self.features = self.model.facts, self.model.classes, self.model.features
        self.thresholds = self.model.thresholds
        self.windows = {"window": int(self.facts["windows"]["num_frames"]), "overlap": self.facts["windows"]["overlap"]}

    def predict(self, file: Path, top_k: int) -> dict[str, Any]:
        """The `top_k` most probable labels of a file, or the reason why there are none, as `Predictor.predict` gives them."""
        name = os.fsencode(file).decode(errors="backslashreplace")
        try:
            clip = front_end.extract(file, self.features, max_bytes=self.max_bytes)
            total, num = np.zeros(len(self.classes)), 0
            for feed in cut_windows(clip, self.features, **self.windows):
                found = self.model.session.run(None, feed)[0]
                total, num = total + found.sum(0, np.float64), num + len(found)
        except AudioError as error:
            return {"file": name, "reason": str(error)}
        ranked = rank_labels((total / num).tolist(), self.classes, self.thresholds, top_k)
        return {"file": name, "duration_s": round(clip.source.duration_s, 3), **ranked}

    def predict_all(self, files: Iterable[Path], top_k: int) -> Iterator[dict[str, Any]]:
        """`predict` for files in turn; the next is read only when it is asked for."""
        for file in files:
            yield self.predict(file, top_k)
