"""Files to mono waveforms: soundfile decodes, soxr resamples; everything is bounded and checked."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from parallel_tunes.audio import m4a

Samples = NDArray[np.float32] | NDArray[np.int16]
MAX_S = 4 * 3600.0  # no track is longer; what a header claims beyond this is not believed
MAX_CHANNELS = 32
MAX_RATE_HZ = 768_000
BLOCK = 1 << 16  # frames mixed and resampled at a time: they stay in the cache
READ = 1 << 21  # … and decoded
MARGIN_S = 0.1  # beyond a clip's end, for the resampler
_MALFORMED = 3  # what libsndfile calls a file that it knows, but that breaks its format's rules
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what programs that write into a pipe put for the length


class AudioError(Exception):
    """Why a file gives no waveform, in a few words."""


class UnreadableError(AudioError):
    """No regular file, or one that the system does not let read."""


class BeyondBoundsError(AudioError):
    """Larger, longer or stranger than what is read."""


class NotAudioError(AudioError):
    """No decoder knows it."""


class DamagedError(AudioError):
    """A decoder knows it, but cannot read it."""


class TruncatedError(AudioError):
    """Less is there than its header promises."""


class BadSamplesError(AudioError):
    """Silent, or not finite."""


class Sound:
    """An audio file or its beginning, mixed to mono and resampled; open until the `with` block ends.

    Args:
        path: any file that libsndfile reads: wav, au, flac, ogg, opus, mp3, …; m4a where torchcodec is installed.
        sample_rate_hz: sampling rate of the samples given, Hz.
        length_s: decode only this much from the start, seconds; by default all.
        max_bytes: a larger file is refused.
        max_s: so is a longer clip, seconds.

    Attributes:
        duration_s: of the whole file, as its header states.
        num_samples: about how many samples the clip has, at `sample_rate_hz`.

    Raises:
        AudioError: here and while it is read: no regular file, not audio, truncated, or beyond the bounds.
    """

    def __init__(
        self, path: Path, *, sample_rate_hz: int, length_s: float | None = None, max_bytes: int, max_s: float = MAX_S
    ) -> None:
        try:
            check_file(path, max_bytes=max_bytes)
            # by name, not as a stream: an interrupt inside soundfile's callbacks into Python would be lost
            is_m4a = path.suffix.lower() in m4a.ENDINGS
            self._file: Any = m4a.M4aFile(path) if is_m4a else soundfile.SoundFile(os.fsencode(path))
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror or error}") from error
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _explain(error) from error
        try:
            self._at = 0
            self._bound(sample_rate_hz, length_s, max_s)
        except BaseException:
            self._file.close()
            raise

    def _bound(self, sample_rate_hz: int, length_s: float | None, max_s: float) -> None:
        file = self._file
        rate_hz = file.samplerate
        if not 1000 <= rate_hz <= MAX_RATE_HZ or not 1 <= file.channels <= MAX_CHANNELS:
            raise BeyondBoundsError(f"{file.channels} channels at {rate_hz} Hz are beyond what is read")
        # libsndfile quietly shortens a WAV or AU whose header promises more than the file holds; its log says so
        promised = re.search(
            r"^ *data *: *(\d+) \(should be (\d+)\)|^ *Data Size *: *(\d+) \(should be (\d+)\)", file.extra_info, re.M
        )
        if promised:
            claims, holds = (int(number) for number in promised.groups() if number)
            if holds < claims < _UNKNOWN_LENGTH:
                raise TruncatedError(f"truncated: its header promises {claims} bytes of audio, {holds} are there")
        self.duration_s = file.frames / rate_hz
        seconds = self.duration_s if length_s is None else length_s
        if min(seconds, self.duration_s) > max_s:
            raise BeyondBoundsError(f"{_say(seconds)} is over the limit of {_say(max_s)}")
        self._rates = rate_hz, sample_rate_hz
        after_s = 0.0 if length_s is None or rate_hz == sample_rate_hz else MARGIN_S
        self._last = min(file.frames, math.ceil((seconds + after_s) * rate_hz))
        self._limit = None if length_s is None else math.ceil(length_s * sample_rate_hz)
        expected = math.ceil(self._last * sample_rate_hz / rate_hz)
        self.num_samples = expected if self._limit is None else min(expected, self._limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    @property
    def is_exact(self) -> bool:
        """True if the samples need no conversion: 16 bits, one channel, the wanted rate. They are then read as int16."""
        return bool(self._file.subtype == "PCM_16" and self._file.channels == 1 and self._rates[0] == self._rates[1])

    def read(self) -> Samples:
        """All samples, shape (num_samples,): int16 where that is exact, else float32."""
        if self.is_exact:
            samples = self._fill(np.empty(self.num_samples, np.int16), 0)
        else:
            samples = np.empty(self.num_samples + 16, np.float32)  # the length after resampling is an estimate
            size = 0
            for block in self.blocks():
                room = min(block.size, samples.size - size)
                samples[size : size + room] = block[:room]
                size += room
            samples = samples[:size]
        if not samples.size:
            raise TruncatedError("no samples")
        return samples

    def blocks(self) -> Iterator[Samples]:
        """The samples in blocks, of which each is overwritten by the next."""
        is_plain = self._file.subtype.startswith("PCM") and self._file.format != "FLAC"
        kind = np.int16 if self._file.subtype == "PCM_16" and (is_plain or self.is_exact) else np.float32
        # a decoder is best called seldom, plain samples are best read into the cache
        size = BLOCK if is_plain else READ
        buffer: NDArray[Any] = np.empty((min(size, max(self._last, 1)), self._file.channels), kind)
        resampler = None
        if self._rates[0] != self._rates[1]:
            resampler = soxr.ResampleStream(*self._rates, 1, dtype="float32", quality="HQ")
        at, left = 0, self._limit
        while at < self._last and left != 0:
            read = self._fill(buffer[: self._last - at], at)
            at += len(read)
            for first in range(0, len(read), BLOCK):
                part = read[first : first + BLOCK]
                block = part[:, 0] if self.is_exact else _mix(part)
                if resampler:
                    is_last = at >= self._last and first + BLOCK >= len(read)
                    block = resampler.resample_chunk(block, last=is_last)
                block = block[:left]
                left = None if left is None else left - block.size
                yield block

    def _fill(self, buffer: NDArray[Any], at: int) -> NDArray[Any]:
        """Decode as many frames as the buffer holds, from frame `at` on; fewer at the end."""
        try:
            if self._at != at:
                self._file.seek(at)
            read = self._file.read(out=buffer)
            self._at = at + len(read)  # asking libsndfile where it is makes its MP3 decoder begin anew
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise DamagedError(str(_explain(error))) from error
        if not len(read) and len(buffer):
            raise TruncatedError(f"truncated: its header promises {self._last} samples, {at} are there")
        return np.asarray(read)


def check_file(path: Path, *, max_bytes: int) -> None:
    """Raise an AudioError where a file is no regular one, empty, larger than `max_bytes`, or may not be read."""
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("not a regular file")
    if status.st_size == 0:
        raise NotAudioError("empty file (0 bytes)")
    if status.st_size > max_bytes:
        raise BeyondBoundsError(f"{status.st_size / 2**20:.0f} MiB is over the limit of {max_bytes / 2**20:.0f} MiB")
    if not os.access(path, os.R_OK):
        raise UnreadableError("cannot be read: Permission denied")


def measure_peak(samples: Samples) -> float:
    """The largest absolute sample, of full scale 1; 0 for none.

    Raises:
        BadSamplesError: some are NaN or infinite.
    """
    if not samples.size:
        return 0.0
    high, low = float(samples.max()), float(samples.min())
    if not (math.isfinite(high) and math.isfinite(low)):
        num_bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise BadSamplesError(f"{num_bad} of {samples.size} samples are NaN or infinite")
    return max(high, -low) / (32768 if samples.dtype == np.int16 else 1)


def to_float(samples: Samples) -> NDArray[np.float32]:
    """Samples as float32 within ±1, shape as they are."""
    return np.asarray(samples * np.float32(1 / 32768) if samples.dtype == np.int16 else samples, np.float32)


def decode(
    path: Path, *, sample_rate_hz: int, first_s: float | None = None, max_bytes: int = 2 << 30
) -> tuple[NDArray[np.float32], float]:
    """The waveform of an audio file, mixed to mono and resampled, and the duration that its header states.

    Args:
        path, sample_rate_hz, max_bytes: as for `Sound`.
        first_s: decode only this much, seconds.

    Returns:
        The waveform, shape (num_samples,), float32; and the whole track's duration in seconds.

    Raises:
        AudioError: no regular file, not audio, truncated, silent, not finite, or beyond the bounds.
    """
    with Sound(path, sample_rate_hz=sample_rate_hz, length_s=first_s, max_bytes=max_bytes) as sound:
        samples = sound.read()
        if not measure_peak(samples):
            raise BadSamplesError("silent: every sample is zero")
        return to_float(samples), sound.duration_s


def _mix(frames: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of the channels, shape (num_frames,), float32: they are added in order, not by slow reductions of rows."""
    num_channels = frames.shape[1]
    scale = np.float32(1 / (num_channels * (32768 if frames.dtype == np.int16 else 1)))
    frames = frames.astype(np.float32, copy=False)  # a strided sum of int16 takes four times as long
    if num_channels == 1:
        return np.asarray(frames[:, 0] * scale, np.float32)
    total: NDArray[np.float32] = frames[:, 0] + frames[:, 1]
    for channel in range(2, num_channels):
        total += frames[:, channel]
    total *= scale
    return total


def _explain(error: Exception) -> AudioError:
    reason = str(getattr(error, "error_string", error)).rstrip(". ").lower()
    if "does not exist" in reason:  # what libsndfile says of an MP3 that is none
        reason = "format not recognised"
    kind = DamagedError if getattr(error, "code", None) == _MALFORMED else NotAudioError
    return kind(f"no audio that can be decoded ({reason})")


def _say(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:g} s" if seconds < 1 else f"{seconds:.0f} s"
