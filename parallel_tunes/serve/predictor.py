"""A model folder that answers: a file in, labels with probabilities out, by the same path as in training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.data.batches import Level, cut_frames, window_starts
from parallel_tunes.files import escape
from parallel_tunes.serve.labels import Answer, rank_labels
from parallel_tunes.train import model_folder
from parallel_tunes.train.frozen import Frozen

MAX_WINDOWS = 64  # in one forward pass


@dataclass
class _Asked:
    """A file that is being answered."""

    answer: Answer
    num_left: int = 0  # windows that are not judged yet
    num: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # of their probabilities

    def add(self, chances: NDArray[np.float64]) -> None:
        """Count windows, shape (num, num_classes), that were judged."""
        self.total = self.total + chances.sum(axis=0)
        self.num, self.num_left = self.num + len(chances), self.num_left - len(chances)


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
        self.thresholds = loaded.thresholds
        self.model = Frozen(loaded.model, device, multi_label=loaded.multi_label, **loaded.facts["standardise"])
        self.max_bytes = max_bytes

    def predict(self, file: Path, top_k: int) -> Answer:
        """The `top_k` most probable labels of a file, or the reason why there are none.

        Returns:
            `file`, `duration_s` and `top`, a list of {label, probability}; or `file` and `reason`. A `note` says what of the
            file could not be decoded. Of a model by which a
            track may have several labels also `labels`, those that reach their threshold: {label, probability, threshold}.
        """
        (answer,) = self.predict_all([file], top_k)
        return answer

    def predict_all(self, files: Iterable[Path], top_k: int) -> Iterator[Answer]:
        """`predict` for files in turn, whose windows share forward passes; the next is read only when it is asked for."""
        asked: deque[_Asked] = deque()
        held: list[tuple[_Asked, NDArray[Any]]] = []  # windows that wait for more
        for file in files:
            one, frames = self._ask(file)
            asked.append(one)
            at, starts = 0, self.place(len(frames)) if len(frames) else []
            one.num_left = len(starts)
            while at < len(starts):
                some = starts[at : at + MAX_WINDOWS - sum(len(windows) for _, windows in held)]
                held.append((one, self.cut(frames, some)))
                at += len(some)
                if sum(len(windows) for _, windows in held) == MAX_WINDOWS:
                    self._judge(held)
            while asked and not asked[0].num_left:
                yield self._finish(asked.popleft(), top_k)
        if held:
            self._judge(held)
        yield from (self._finish(one, top_k) for one in asked)

    def _ask(self, file: Path) -> tuple[_Asked, NDArray[Any]]:
        """A file, and the frames of it, none where it gives none."""
        name = escape(file)  # a name may be no text
        try:
            clip = front_end.extract(file, self.features, max_bytes=self.max_bytes)
        except AudioError as error:
            return _Asked({"file": name, "reason": str(error)}), np.empty(0)
        note = {"note": clip.source.note} if clip.source.note else {}
        return _Asked({"file": name, "duration_s": round(clip.source.duration_s, 3), **note}), clip.frames

    def _judge(self, held: list[tuple[_Asked, NDArray[Any]]]) -> None:
        """Give the windows that are held to the model, and their probabilities to whom they are of."""
        chances = self.classify(np.concatenate([windows for _, windows in held]))
        for one, windows in held:
            mine, chances = np.split(chances, [len(windows)])
            one.add(mine)
        held.clear()

    def _finish(self, one: _Asked, top_k: int) -> Answer:
        return {**one.answer, **self.answer(one.total[None] / one.num, top_k)} if one.num else one.answer

    @property
    def window(self) -> int:
        """Frames of a window, the model's input."""
        return int(self.facts["windows"]["num_frames"])

    def place(self, num_frames: int) -> list[int]:
        """First frames of the windows that cover a clip."""
        return window_starts(num_frames, self.window, self.facts["windows"]["overlap"])

    def cut(self, frames: NDArray[Level], starts: Sequence[int]) -> NDArray[Level]:
        """A clip's windows that begin at these frames, shape (num, window, num_mels); frames is (num_frames, num_mels)."""
        return cut_frames(frames, starts, self.window)

    def classify(self, windows: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of windows in one forward pass, shape (num, num_classes)."""
        return self.model.predict(torch.from_numpy(windows).transpose(1, 2)).double().numpy()

    def answer(self, chances: NDArray[np.float64], top_k: int) -> dict[str, Any]:
        """`top` and, of a model that gives several, `labels` of a clip, from the probabilities of its windows."""
        return rank_labels(chances.mean(axis=0).tolist(), self.classes, self.thresholds, top_k)

    def timeline(self, starts: Sequence[int], chances: NDArray[np.float64], clip_s: float) -> list[dict[str, Any]]:
        """When each window is, within a clip of so many seconds, and its probabilities in the order of `classes`."""
        rate = front_end.frames_per_s(self.features)
        return [
            {
                "start_s": round(start / rate, 3),
                "end_s": round(min((start + self.window) / rate, clip_s), 3),
                "probabilities": row,
            }
            for start, row in zip(starts, chances.tolist(), strict=True)
        ]
