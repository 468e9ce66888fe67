"""A model of task=relisten that answers rows of user and song: from CSV, parquet or JSON files, or as they were posted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from parallel_tunes.data.index import Say
from parallel_tunes.files import escape
from parallel_tunes.schema import UserError
from parallel_tunes.serve.labels import Answer
from parallel_tunes.serve.rows import read_rows, tabulate_rows
from parallel_tunes.train import relisten_model
from parallel_tunes.train.learner import Rows
from parallel_tunes.train.relisten_learner import FrozenListens

IDS = {"msno": "user", "song_id": "song"}
OWN = ("source_system_tab", "source_screen_name", "source_type")
CHUNK = 1 << 16  # rows at a time


class ListenPredictor:
    """Answers rows with a trained network.

    Args:
        folder: a model folder.
        max_bytes: larger tables are refused.
        say: told in a line how a table is written, where that is no plain CSV.

    Raises:
        UserError: the folder holds no model that can be used.
    """

    def __init__(self, folder: Path | None, device: torch.device, *, max_bytes: int, say: Say = lambda _: None) -> None:
        found = relisten_model.load(folder)
        if found.features.kind == "transductive":
            raise UserError(
                f"model={folder}: learnt from counts of later rows (features=transductive), which nobody has who predicts"
            )
        self.facts, self.features, self.dictionary = found.facts, found.features, found.dictionary
        self.frozen, self.max_bytes, self._say = FrozenListens(found.model, device), max_bytes, say

    @property
    def fingerprint(self) -> str:
        """Of the tables that the model was trained on."""
        return str(self.facts["data"]["index_digest"])

    def predict(self, file: Path, top_k: int) -> list[Answer]:
        """The answer to each row of a table, with `file`, `row` (from 1) and, where there is one, `id`.

        A row that cannot be answered has a `reason` instead; a table that cannot be read is one answer with a reason.
        """
        del top_k  # there is one answer to a row
        name = escape(file)
        try:
            answers = self.answer(read_rows(file, [*IDS, *OWN, "id"], self.max_bytes, self._say))
        except UserError as error:
            return [{"file": name, "reason": str(error)}]
        return [{"file": name, **answer} for answer in answers]

    def predict_rows(self, rows: Sequence[Mapping[str, Any]], top_k: int) -> list[Answer]:
        """The answer to each row, a mapping of column names to values, as JSON has them.

        Raises:
            UserError: there are too many, or columns are missing.
        """
        del top_k
        return self.answer(tabulate_rows(rows, [*IDS, *OWN, "id"]))

    def answer(self, frame: pd.DataFrame) -> list[Answer]:
        """The answers to the rows of a frame; a missing source is a category of its own.

        Raises:
            UserError: columns are missing.
        """
        lacking = [name for name in IDS if name not in frame]
        if lacking:
            raise UserError(f"no column {', '.join(lacking)}; the model takes {', '.join([*IDS, *OWN])}")
        words = {name: to_words(frame[name]) if name in frame else pa.array([""] * len(frame)) for name in (*IDS, *OWN)}
        user, song = (self.dictionary.find(kind, words[name]) for name, kind in IDS.items())
        chances = self._score(user, song, {name: self.dictionary.find(name, words[name]) for name in OWN})
        ids = frame["id"].astype(str).tolist() if "id" in frame else None
        answers: list[Answer] = []
        for row, chance in enumerate(chances.tolist()):
            about = {"row": row + 1, **({"id": ids[row]} if ids else {})}
            lacks = [name for name, codes in (("msno", user), ("song_id", song)) if codes[row] == 0]
            if lacks:
                answers.append(about | {"reason": f"row {row + 1}: no {' and no '.join(lacks)}"})
                continue
            strange = [kind for kind, codes in (("user", user), ("song", song)) if codes[row] < 0]
            answers.append(about | {"probability": chance, **({"unseen": strange} if strange else {})})
        return answers

    def recommend(self, user: str, top_k: int) -> list[Answer]:
        """The songs that a user is most likely to listen to again, from where they listen most.

        Raises:
            UserError: the user is not known.
        """
        (code,) = self.dictionary.find("user", pa.array([user]))
        if code <= 0:
            raise UserError(f"user={user}: the tables that the model was trained on know no such user")
        num = len(self.dictionary.words["song"])
        songs = np.arange(1, num, dtype=np.int32)
        own = {name: np.full(num - 1, raw, np.int32) for name, raw in self._usual_sources(int(code)).items()}
        chances = self._score(np.full(num - 1, code, np.int32), songs, own)
        best = np.argsort(-chances, kind="stable")[:top_k]
        words = self.dictionary.words["song"]
        return [
            {"rank": at + 1, "song_id": words[int(songs[k])].as_py(), "probability": float(chances[k])}
            for at, k in enumerate(best)
        ]

    def _usual_sources(self, user: int) -> dict[str, int]:
        """Where this user listens most, by the source that was counted; the other two are left open."""
        state = self.dictionary.state
        sources = dict.fromkeys(OWN, 0)
        if state is not None:
            sources["source_type"] = state.usual_source(user)
        return sources

    def _score(
        self, user: NDArray[np.int32], song: NDArray[np.int32], own: dict[str, NDArray[np.int32]]
    ) -> NDArray[np.float64]:
        """Probabilities of rows of raw codes, -1 where a word is not known."""
        dictionary = self.dictionary
        codes = np.column_stack([
            np.where(user < 0, dictionary.stranger("user"), user), np.where(song < 0, dictionary.stranger("song"), song),
            *(dictionary.encode(name, own[name]) for name in OWN),
        ]).astype(np.int32)  # fmt: skip
        numbers = np.empty((len(codes), 0), np.float32)
        if dictionary.state is not None:
            artist = np.where(song > 0, dictionary.song_artist[np.maximum(song, 0)], 0)
            numbers = dictionary.state.features(user, song, artist, own["source_type"])
            numbers = (numbers - dictionary.center) / dictionary.scale
        parts = []
        for at in range(0, len(codes), CHUNK):
            span = slice(at, at + CHUNK)
            rows = Rows(
                torch.from_numpy(codes[span]), torch.from_numpy(np.ascontiguousarray(numbers[span], np.float32))
            )
            parts.append(self.frozen.predict(rows)[:, 1].numpy())
        return np.concatenate(parts).astype(np.float64)


def to_words(column: pd.Series[Any]) -> pa.StringArray:
    """Cells as words; what is missing is none."""
    return pa.array(["" if cell is None or cell != cell else str(cell) for cell in column], pa.string())
