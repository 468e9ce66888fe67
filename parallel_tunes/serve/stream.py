"""Sound as it comes: pieces of PCM in, every second the samples of the last window."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from parallel_tunes.audio.ffmpeg import RATES_HZ
from parallel_tunes.serve.refusals import Refusal

FORMATS: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "s16": np.dtype("<i2")}
EVERY_S = 1.0  # there is an answer
END = "end"  # what a client says, as text, to have the answer to the rest


@dataclass(frozen=True)
class Heard:
    """What a stream has said at a moment: seconds since its beginning, and the samples of its last window."""

    at_s: float
    samples: NDArray[np.float32]


class Stream:
    """A stream of mono PCM, resampled; of what was heard no more is kept than a window and a second.

    Args:
        greeting: the client's first words, JSON {"sample_rate_hz": 48000, "format": "f32"}; f32 is within ±1, little-endian.
        sample_rate_hz: of the samples given.
        window: samples of a window.

    Raises:
        Refusal: they are other words.
    """

    def __init__(self, greeting: str, *, sample_rate_hz: int, window: int) -> None:
        try:
            said = json.loads(greeting)
            rate_hz, self._format = said["sample_rate_hz"], FORMATS[said["format"]]
            if not isinstance(rate_hz, int) or rate_hz not in RATES_HZ:
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            rates = f"{RATES_HZ[0]} to {RATES_HZ[-1]}"
            raise Refusal(
                422, f'begin with {{"sample_rate_hz": RATE, "format": "f32"}}, or "s16"; RATE is {rates}'
            ) from error
        self._rate_hz, self._window = sample_rate_hz, window
        self._resampler = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
        self._every = round(EVERY_S * sample_rate_hz)
        self._kept: NDArray[np.float32] = np.empty(0, np.float32)
        self._num_heard = 0

    def feed(self, data: bytes, *, is_last: bool = False) -> Iterator[Heard]:
        """What is to be answered after this piece: at each full second, and where it is the last, at the end.

        Raises:
            Refusal: it ends within a sample.
        """
        if len(data) % self._format.itemsize:
            raise Refusal(422, f"a message of {len(data)} bytes ends within a sample of {self._format.itemsize}")
        samples = np.frombuffer(data, self._format).astype(np.float32)
        if self._format.kind == "i":
            samples /= 32768
        fresh = self._resampler.resample_chunk(samples, last=is_last)
        while fresh.size:
            room = self._every - self._num_heard % self._every
            part, fresh = fresh[:room], fresh[room:]
            self._kept = np.concatenate([self._kept, part])[-self._window :]
            self._num_heard += part.size
            if self._num_heard % self._every == 0:
                yield self._now()
        if is_last and self._num_heard % self._every:
            yield self._now()

    def _now(self) -> Heard:
        return Heard(self._num_heard / self._rate_hz, self._kept)
