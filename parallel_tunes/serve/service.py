"""A service: models, the thread they work in, the processes that decode, and who may come in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.schema import UserError
from parallel_tunes.serve.batching import Batcher, Chances
from parallel_tunes.serve.decoding import Decoders
from parallel_tunes.serve.labels import Answer
from parallel_tunes.serve.levels import encode_levels
from parallel_tunes.serve.listen_predictor import ListenPredictor
from parallel_tunes.serve.metering import Meter
from parallel_tunes.serve.predictor import Predictor
from parallel_tunes.serve.refusals import Refusal
from parallel_tunes.serve.rows import parse_rows
from parallel_tunes.serve.stream import Heard, Stream
from parallel_tunes.serve.track_predictor import TrackPredictor

LIMITS = ("max_mib", "max_seconds", "max_files", "max_rows", "queue", "streams", "timeout_s")  # told to clients
HEARD = ("kind", "sample_rate_hz", "clip_s")  # of the features, told to clients
WARM_UP_S = 600.0


@dataclass(frozen=True)
class Models:
    """What is served, at most one of each task."""

    genre: Predictor | None = None
    relisten: ListenPredictor | None = None
    popularity: TrackPredictor | None = None


class Service:
    """Answers, whoever asks; what it raises as a Refusal is for the client.

    Args:
        log: a file for what decoding processes say before they are ready.

    Raises:
        UserError: processes that decode do not come up.
    """

    def __init__(self, cfg: ServeConfig, models: Models, log: Path) -> None:
        self.cfg, self.models, self.meter = cfg, models, Meter()
        self.is_stopping = False
        self._num_requests = self._num_streams = 0
        genre = models.genre
        self._decoders = Decoders(cfg, genre.features, log, self.meter.replaced) if genre else None
        self._batcher = Batcher(
            genre.classify if genre else None, max_batch=cfg.max_batch, max_wait_s=cfg.max_wait_ms / 1000,
            timeout_s=cfg.timeout_s, observe=self.meter.batched,
        )  # fmt: skip
        self.meter.waiting.set_function(lambda: self._batcher.num_waiting)
        self.meter.in_flight.set_function(lambda: self._num_requests)
        self.meter.streams.set_function(lambda: self._num_streams)
        if genre:  # what the first passes compile and allocate
            nothing = np.zeros((cfg.max_batch, genre.window, genre.features.num_mels), np.float16)
            for num in (1, cfg.max_batch):
                work = partial(genre.classify, nothing[:num])
                self._batcher.call(work, time.monotonic() + WARM_UP_S).result()

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered now."""
        return self._batcher.is_alive and not self.is_stopping

    def close(self) -> None:
        """Finish what was asked, and end."""
        if self._decoders:
            self._decoders.close()
        self._batcher.close()

    def describe(self) -> Answer:
        """What is served, and within what limits."""
        models: Answer = {}
        if self.models.genre:
            genre = self.models.genre
            is_picture = genre.features.kind == "picture"
            window_s = round(genre.window / front_end.frames_per_s(genre.features), 3)
            models["genre"] = {
                "classes": genre.classes, "window_s": window_s, "front_end": genre.facts["fingerprint"],
                "thresholds": None if genre.thresholds is None else [float(share) for share in genre.thresholds],
                "features": {name: getattr(genre.features, name) for name in HEARD},
                "edges_hz": None if is_picture else front_end.definition(genre.features).edges_hz.round(1).tolist(),
            }  # fmt: skip
        for task in ("relisten", "popularity"):
            model = getattr(self.models, task)
            if model:
                models[task] = {"front_end": model.fingerprint}
        limits = {name: getattr(self.cfg, name) for name in LIMITS}
        return {"version": importlib.metadata.version("parallel_tunes"), "models": models, "limits": limits}

    def deadline(self) -> float:
        """When a request that is there now must have its answer, of time.monotonic()."""
        return time.monotonic() + self.cfg.timeout_s

    @contextlib.contextmanager
    def admit(self, endpoint: str) -> Iterator[None]:
        """A place for a request.

        Raises:
            Refusal: there is none.
        """
        self._refuse_if(
            self._num_requests >= self.cfg.queue, f"{self.cfg.queue} requests are at work or wait", endpoint
        )
        self._num_requests += 1
        try:
            yield
        finally:
            self._num_requests -= 1

    @contextlib.contextmanager
    def admit_stream(self, endpoint: str) -> Iterator[None]:
        """A place for a stream.

        Raises:
            Refusal: there is none.
        """
        self._refuse_if(self._num_streams >= self.cfg.streams, f"{self.cfg.streams} streams are open", endpoint)
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1

    def _refuse_if(self, is_full: bool, why: str, endpoint: str) -> None:
        if self.is_stopping:
            raise Refusal(503, "the server is stopping", retry_s=5)
        if is_full:
            retry_s = max(math.ceil(self.meter.usual_s(endpoint)), 1)
            raise Refusal(429, f"{why} already, as many as this server takes; come again in {retry_s} s", retry_s)

    def demand(self, task: str) -> Any:
        """The model of a task.

        Raises:
            Refusal: none is served.
        """
        model = getattr(self.models, task)
        if model is None:
            raise Refusal(404, f"no model of task={task} is served here")
        return model

    async def label(self, file: IO[bytes], top_k: int, deadline: float, *, levels: bool) -> Answer:
        """What a file is: its best labels, the probabilities of each of its windows and, if asked for, its levels.

        Raises:
            Refusal: it is no audio, damaged, too long; or it could not be done in time.
        """
        genre: Predictor = self.demand("genre")
        assert self._decoders is not None
        clip = await asyncio.wrap_future(self._decoders.submit(file, deadline))
        starts = genre.place(len(clip.levels))
        chances = await asyncio.wrap_future(
            self._batcher.submit(lambda first, last: genre.cut(clip.levels, starts[first:last]), len(starts), deadline)
        )
        rate = front_end.frames_per_s(genre.features)
        clip_s = min(clip.duration_s, len(clip.levels) / rate)
        answer = {
            "duration_s": round(clip.duration_s, 3),
            **({"note": clip.note} if clip.note else {}),
            **genre.answer(chances, top_k),
        }
        answer["windows"] = genre.timeline(starts, chances, clip_s)
        return answer | ({"levels": encode_levels(clip.levels[: math.ceil(clip_s * rate)])} if levels else {})

    async def answer_rows(self, task: str, body: bytes, *, is_csv: bool, top_k: int, deadline: float) -> list[Answer]:
        """The answer to each posted row.

        Raises:
            Refusal: they cannot be read, or are not what the model takes.
        """
        model: ListenPredictor | TrackPredictor = self.demand(task)
        try:
            rows = await asyncio.to_thread(parse_rows, body, is_csv=is_csv, max_rows=self.cfg.max_rows)
            return await asyncio.wrap_future(self._batcher.call(lambda: model.predict_rows(rows, top_k), deadline))
        except UserError as error:
            raise Refusal(422, str(error)) from error
        except UnicodeError as error:  # "\ud800" is JSON, but no text
            raise Refusal(422, "a cell holds half of a surrogate pair, which is no text") from error

    def listen(self, greeting: str) -> Stream:
        """A stream of sound for the model.

        Raises:
            Refusal: the client begins it with other words than it should.
        """
        features: FeaturesConfig = self.demand("genre").features
        if features.kind == "picture":
            raise Refusal(404, "the model that is served here learnt from pictures, and hears nothing")
        window = (self.demand("genre").window - 1) * features.hop_length
        return Stream(greeting, sample_rate_hz=features.sample_rate_hz, window=window)

    async def judge(self, heard: Heard, top_k: int, *, levels: bool) -> Answer:
        """What a stream sounds like at a moment, or the reason why that cannot be said.

        Raises:
            Refusal: it could not be done in time.
        """
        genre: Predictor = self.demand("genre")
        rate_hz = genre.features.sample_rate_hz
        about: Answer = {"at_s": round(heard.at_s, 3), "heard_s": round(heard.samples.size / rate_hz, 3)}
        # what is asked of a whole track is not asked of a moment
        shortest_s = min(genre.features.min_s, genre.window * genre.features.hop_length / rate_hz)
        features = replace(genre.features, kind="logmel", pad=False, min_s=shortest_s)
        try:
            clip = await asyncio.to_thread(front_end.hear, heard.samples, features)
        except AudioError as error:
            return {**about, "reason": str(error)}
        chances: Chances = await asyncio.wrap_future(
            self._batcher.submit(lambda *_: genre.cut(clip.frames, [0]), 1, self.deadline())
        )
        self.meter.predicted()
        answer = {**about, **genre.answer(chances, top_k), "probabilities": chances[0].tolist()}
        return answer | ({"levels": encode_levels(clip.frames)} if levels else {})
