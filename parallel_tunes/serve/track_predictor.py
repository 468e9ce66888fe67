"""A model of task=popularity or learner=svm that answers rows of a table: from CSV, parquet or JSON files, or as they were posted.

One that has learnt from descriptors of a preprocess run answers audio files too, described by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.data.index import Say, is_audio
from parallel_tunes.data.track_features import KEYS, find_impossible, to_numbers, to_years
from parallel_tunes.data.tracks import IDS
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.files import escape
from parallel_tunes.schema import UserError
from parallel_tunes.serve.labels import Answer
from parallel_tunes.serve.rows import read_rows, tabulate_rows
from parallel_tunes.train import margin_model


class TrackPredictor:
    """Answers rows with a trained model.

    Args:
        folder: a model folder.
        max_bytes: larger tables are refused.
        say: told in a line how a table is written, where that is no plain CSV.

    Raises:
        UserError: the folder holds no model that can be used.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int, say: Say = lambda _: None) -> None:
        self.model, self.facts = margin_model.load(folder)
        self.max_bytes, self._say = max_bytes, say
        self.audio = margin_model.restore_audio(self.facts, folder)

    @property
    def columns(self) -> list[str]:
        """What a table must have."""
        return list(
            dict.fromkeys("key" if name.startswith("key_") else name for name in self.model.names if name != "year")
        )

    @property
    def fingerprint(self) -> str:
        """Of the columns that the model takes."""
        return self.model.fingerprint

    @property
    def _wanted(self) -> list[str]:
        return [*self.columns, *IDS, "release_date", "year"]

    def predict(self, file: Path, top_k: int) -> list[Answer]:
        """The answer to each row of a table, or to an audio file, with `file`, `row` (from 1) and, where there is one, `id`.

        A row that cannot be answered has a `reason` instead; a file that cannot be read is one answer with a reason.
        """
        name = escape(file)
        try:
            is_table = not is_audio(file)
            rows = read_rows(file, self._wanted, self.max_bytes, self._say) if is_table else self._describe(file)
            answers = self.answer(rows, top_k)
        except (UserError, AudioError) as error:
            return [{"file": name, "reason": str(error)}]
        return [{"file": name, **answer} for answer in answers]

    def _describe(self, file: Path) -> pd.DataFrame:
        """The descriptors of an audio file."""
        if self.audio is None:
            raise UserError(
                "this model has learnt from a table, and takes rows of one: which front end made it, is not known"
            )
        clip = front_end.extract(file, self.audio, max_bytes=self.max_bytes)
        return pd.DataFrame(clip.frames, columns=list(NAMES))

    def predict_rows(self, rows: Sequence[Mapping[str, Any]], top_k: int) -> list[Answer]:
        """The answer to each row, a mapping of column names to values, as JSON has them.

        Raises:
            UserError: there are too many, or columns are missing.
        """
        return self.answer(tabulate_rows(rows, self._wanted), top_k)

    def answer(self, frame: pd.DataFrame, top_k: int) -> list[Answer]:
        """The answers to the rows of a frame.

        Raises:
            UserError: columns are missing.
        """
        features, bad = self._features(frame)
        named = next((name for name in IDS if name in frame), None)
        ids = [str(value) for value in frame[named]] if named else None
        answers: list[Answer] = []
        sound = np.asarray(np.isfinite(features).all(axis=1))
        found = iter(self._answer_sound(features[sound], top_k))
        for row in range(len(frame)):
            about = {"row": row + 1, **({"id": ids[row]} if ids else {})}
            answers.append(about | (next(found) if sound[row] else {"reason": bad(row)}))
        return answers

    def _answer_sound(self, features: NDArray[np.float64], top_k: int) -> list[Answer]:
        if not len(features):
            return []
        if self.model.target == "regression":
            return [{"popularity": float(number)} for number in self.model.numbers(features)]
        chances, margins = self.model.probabilities(features), self.model.margins(features)
        answers = []
        for row in range(len(features)):
            best = np.argsort(-chances[row], kind="stable")[:top_k]
            top = [{"label": self.model.classes[at], "probability": float(chances[row, at])} for at in best]
            answers.append({"top": top, "margins": margins[row].tolist()})
        return answers

    def _features(self, frame: pd.DataFrame) -> tuple[NDArray[np.float64], Any]:
        """The model's features, NaN where a cell is no number, and what says why a row cannot be answered."""
        missing = [name for name in self.columns if name not in frame]
        years = to_years(frame) if "year" in self.model.names else None
        if "year" in self.model.names and years is None:
            missing.append("release_date (or year)")
        if missing:
            raise UserError(f"no column {', '.join(missing)}; the model takes {', '.join(self.model.names)}")
        numbers = {name: to_numbers(frame[name]) for name in self.columns}
        impossible = {
            reason: rows & np.isfinite(values)
            for name, values in numbers.items()
            for reason, rows in find_impossible(name, values).items()
        }
        pitches = {f"key_{note}": pitch for pitch, note in enumerate(KEYS)}
        parts = []
        for name in self.model.names:
            if name == "year" and years is not None:
                parts.append(years)
            elif name in pitches:
                parts.append(np.where(np.isfinite(numbers["key"]), numbers["key"] == pitches[name], np.nan))
            else:
                parts.append(numbers[name])

        def explain(row: int) -> str:
            false = [reason for reason, rows in impossible.items() if rows[row]]
            if false:  # training leaves such rows out
                return f"row {row + 1}: {'; '.join(false)}"
            names = [name for name in self.columns if not np.isfinite(numbers[name][row])]
            cells = {name: frame[name].iloc[row] for name in names}
            missing = [name for name, cell in cells.items() if cell in (None, "") or cell != cell]
            said = [f"{name} holds {str(cell)[:40]!r}" for name, cell in cells.items() if name not in missing][:3]
            said += [f"no {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"] if missing else []
            return f"row {row + 1}: {'; '.join(said) or 'its year is not known'}"

        features = np.column_stack(parts).astype(np.float64)
        for rows in impossible.values():
            features[rows] = np.nan
        return features, explain
