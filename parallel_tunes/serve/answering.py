"""The unit of work of predict: some files → their answers, on an engine or in a thread of this process."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_tunes import files
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_run import PredictConfig
from parallel_tunes.parallel.dispatch import LEFT_OUT, Advance, FileTask
from parallel_tunes.serve.labels import Answer
from parallel_tunes.shard_work import get_ready

if TYPE_CHECKING:
    from parallel_tunes.serve.predictor import Predictor


@dataclass(frozen=True)
class Answerer:
    """A model that answers, before it is loaded.

    Args:
        digest: of model.json, which holds that of the weights: another model in this folder has another digest.
    """

    folder: Path | None
    digest: str
    max_bytes: int
    top_k: int
    device: str

    def load(self) -> Predictor:
        """The model itself; a process loads it once.

        Raises:
            UserError: the folder holds no model that can be used.
        """
        return _load(self)

    @property
    def features(self) -> FeaturesConfig:
        """What it is fed."""
        return self.load().features


def describe(folder: Path | None, asked: PredictConfig, *, device: str) -> Answerer:
    """Describe the model that these keys of predict ask for."""
    about = (folder or Path()) / "model.json"
    digest = files.digest_file(about) if about.is_file() else ""  # loading it reports what is wrong
    return Answerer(folder, digest, asked.max_mib << 20, asked.top_k, device)


@lru_cache(maxsize=1)
def _load(answerer: Answerer) -> Predictor:
    import torch

    from parallel_tunes.serve.predictor import Predictor

    return Predictor(answerer.folder, torch.device(answerer.device), max_bytes=answerer.max_bytes)


@dataclass(frozen=True, kw_only=True)
class AnswerTask(FileTask):
    """Files that are answered together.

    Args:
        key: names them, the model and what is asked of it.
    """

    key: str
    answerer: Answerer


@dataclass(frozen=True)
class Answered:
    """What has come of a task: an answer for each of its files, in their order."""

    key: str
    answers: list[Answer]


def get_torch_ready() -> None:
    """What an engine loads while it waits for its first task."""
    importlib.import_module("torch")  # which takes a second or two
    get_ready()


def answer(task: AnswerTask, advance: Advance) -> Answered:
    """Answer the files of a task; one that gives no features has its reason."""
    predictor = task.answerer.load()

    def good() -> Iterator[Path]:
        for path in task.paths:  # when the next is asked for, the one before was read: it is the next that may kill
            if path not in task.quarantined:
                yield Path(path)
            advance(1)

    found: Iterable[Answer] = predictor.predict_all(good(), task.answerer.top_k)
    given = iter(list(found))
    answers = [_refuse(path) if path in task.quarantined else next(given) for path in task.paths]
    return Answered(task.key, answers)


def _refuse(path: str) -> Answer:
    return {"file": files.escape(path), "reason": LEFT_OUT}
