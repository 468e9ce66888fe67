"""Uploads to frames, in processes of their own: one that dies, or hangs, fails the upload that it died of and no other."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.parallel.workers import Ended, NoAnswer, Worker, plain_command
from parallel_tunes.schema import UserError, to_plain
from parallel_tunes.serve.decoder import LEVEL
from parallel_tunes.serve.refusals import Refusal, no_room, refuse_file, too_late

START_S = 600.0  # the first start on a machine compiles kernels


@dataclass(frozen=True)
class Frames:
    """What a model sees of an upload: levels, shape (num_frames, num_mels), dB; the file's duration, seconds; what was left out."""

    levels: NDArray[np.float16]
    duration_s: float
    note: str


class Decoder:
    """A process that decodes, and one after it when it has died.

    Args:
        limits: what the process is told, see `decoder`.
        log: for what it says before it is ready.
        count: told, in a word, of each death.
    """

    def __init__(self, limits: dict[str, Any], cpu_s: int, log: Path, count: Callable[[str], None]) -> None:
        self._limits, self._cpu_s, self._log, self._count = limits, cpu_s, log, count
        self._result: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 no block: it lives until `close`
        self._worker: Worker | None = None

    @property
    def is_down(self) -> bool:
        """Whether it has no process now."""
        return self._worker is None

    def ensure(self) -> Worker:
        """The process, ready.

        Raises:
            UserError: it does not come up.
        """
        if self._worker is not None and self._worker.exit_code is not None:  # between two uploads
            self._count("ended")
            self.end()
        if self._worker is None:
            command = plain_command(
                "parallel_tunes.serve.decoder", [json.dumps(self._limits)], {"OMP_NUM_THREADS": "1"}
            )
            self._worker = Worker("decoder", command, self._log)
            try:
                self._worker.ask("{}", START_S)
            except UserError:
                self.end()
                raise
        return self._worker

    def decode(self, upload: IO[bytes], deadline: float, timeout_s: float) -> Frames:
        """The frames of an upload.

        Raises:
            Refusal: it gives none, or takes too much, or its process has died.
        """
        worker = self.ensure()
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise too_late(timeout_s)
        here = f"/proc/{os.getpid()}/fd"
        try:
            order = {"source": f"{here}/{upload.fileno()}", "target": f"{here}/{self._result.fileno()}"}
        except OSError as error:  # a small one is in memory until now
            raise no_room() from error
        try:
            answer = worker.ask(json.dumps(order), left_s)
        except (NoAnswer, Ended) as error:
            self.end()
            raise self._explain(error, worker, timeout_s) from error
        if "reason" in answer:
            raise refuse_file(answer["kind"], answer["reason"])
        self._result.seek(0)
        levels = np.frombuffer(self._result.read(), LEVEL).reshape(answer["num_frames"], -1)
        self._result.truncate(0)
        return Frames(levels, answer["duration_s"], answer["note"])

    def end(self) -> None:
        """End the process; the next upload has another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def close(self) -> None:
        """End for good."""
        self.end()
        self._result.close()

    def _explain(self, error: UserError, worker: Worker, timeout_s: float) -> Refusal:
        if isinstance(error, NoAnswer):
            self._count("hang")
            return Refusal(503, f"decoding it has not ended within {timeout_s:g} s; it was given up", retry_s=1)
        if worker.exit_code == -signal.SIGXCPU:
            self._count("cpu")
            return Refusal(422, f"decoding it takes more than {self._cpu_s} s of CPU time, which no file is allowed")
        self._count("death")
        return Refusal(503, "the process that decoded it has died; try once more", retry_s=1)


class Decoders:
    """Several such processes, and a queue of uploads before them.

    Args:
        features: of the model that will see the frames.
        log: for what they say before they are ready.
        count: told, in a word, of each death.

    Raises:
        UserError: they do not come up.
    """

    def __init__(self, cfg: ServeConfig, features: FeaturesConfig, log: Path, count: Callable[[str], None]) -> None:
        self.num = cfg.workers or min(len(os.sched_getaffinity(0)), 4)
        self._timeout_s = cfg.timeout_s
        limits = {
            "features": to_plain(features),
            "max_bytes": cfg.max_mib << 20,
            "max_s": cfg.max_seconds,
            "memory_bytes": cfg.decode_mib << 20,
            "cpu_s": cfg.decode_cpu_s,
        }
        self._idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        self._all = [Decoder(limits, cfg.decode_cpu_s, log, count) for _ in range(self.num)]
        self._threads = ThreadPoolExecutor(self.num, "decode")
        try:
            list(self._threads.map(Decoder.ensure, self._all))
        except BaseException:
            self.close()
            raise
        for decoder in self._all:
            self._idle.put(decoder)

    def submit(self, upload: IO[bytes], deadline: float) -> Future[Frames]:
        """The frames of an upload, some time soon, or a Refusal; `deadline` is of time.monotonic()."""
        return self._threads.submit(self._decode, upload, deadline)

    def close(self) -> None:
        """End the processes, once what was asked is done."""
        self._threads.shutdown()
        for decoder in self._all:
            decoder.close()

    def _decode(self, upload: IO[bytes], deadline: float) -> Frames:
        decoder = self._idle.get()
        try:
            return decoder.decode(upload, deadline, self._timeout_s)
        except UserError as error:
            raise Refusal(503, "no process to decode it can be started; try later", retry_s=5) from error
        finally:
            self._idle.put(decoder)
            if decoder.is_down:  # who comes next need not wait for the new process to come up
                with contextlib.suppress(RuntimeError):  # no more work is taken
                    self._threads.submit(self._revive)

    def _revive(self) -> None:
        for _ in range(self.num):
            decoder = self._idle.get()
            try:
                with contextlib.suppress(UserError):  # the next upload tries again, and says so
                    decoder.ensure()
            finally:
                self._idle.put(decoder)
