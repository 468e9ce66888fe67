"""Files to mono waveforms: libsndfile or FFmpeg decodes, soxr resamples; everything is bounded and checked."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from parallel_tunes.audio.ffmpeg import RATES_HZ, Stream

Samples = NDArray[np.float32] | NDArray[np.int16]
MAX_S = 4 * 3600.0  # no track is longer; what a header claims beyond this is not believed
MAX_CHANNELS = 32
BLOCK = 1 << 16  # frames mixed and resampled at a time: they stay in the cache
READ = 1 << 21  # … and decoded
MARGIN_S = 0.1  # beyond a clip's end, for the resampler; and what a header may promise too much
UNHEARD_S = 0.03  # what is left out without a word: a frame of an MP3 that refers to one before a cut
PLAIN = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"dns.", b"fLaC", b"caff")  # samples, or FLAC
MPEG = (b"ID3", *(bytes((0xFF, second)) for second in range(0xE0, 0x100)))
UNKNOWN_FRAMES = 1 << 62  # libsndfile's for a FLAC that does not say
_MALFORMED = 3  # what libsndfile calls a file that it knows, but that breaks its format's rules
# libsndfile quietly shortens what promises more samples than the file holds; its log says so
PROMISE = re.compile(
    r"^ *(?:data|Data Size|SSND|riff) *: *(?P<bytes>\d+) \(should be (?P<held>\d+)\)"
    r"|frame count (?P<found>\d+) does not match value from 'ds64' chunk of (?P<frames>\d+)",
    re.MULTILINE,
)
UNKNOWN_BYTES = 0x7FFF0000  # programs that write into a pipe put for the length what no file can hold, or almost


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


class Reader(Protocol):
    """A file from its start to its end, as one of the libraries decodes it.

    Attributes:
        rate_hz, num_channels: of its samples.
        stated_s: the length that the header states, seconds; None where it states none, or no more than an estimate.
        lost_s: what could not be decoded so far, seconds.
    """

    rate_hz: int
    num_channels: int
    stated_s: float | None
    lost_s: float

    def blocks(self, num_samples: int | None) -> Iterator[Samples]:
        """The mean of the channels, all of it or so many samples, in blocks of which each is overwritten by the next."""

    def finish(self) -> float:
        """Pass over what follows; the length of the whole, seconds."""

    def close(self) -> None:
        """Free what the library holds."""


class Plain:
    """A `Reader` by libsndfile, of a file whose header states its length.

    Args:
        handle: a descriptor of the file, which stays open.
        sample_rate_hz: samples of 16 bits, one channel and this rate are given as they are, int16.
        channel: give this one instead of the mean.
        is_strict: refuse what is more than samples one after the other: the length may be an estimate.

    Raises:
        AudioError: libsndfile does not know it, or does not know its length, or finds less than its header promises.
    """

    lost_s = 0.0

    def __init__(self, handle: int, sample_rate_hz: int, channel: int | None, *, is_strict: bool = True) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        try:
            self._file = soundfile.SoundFile(handle, closefd=False)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _explain(error) from error
        try:
            self._check(handle, is_strict)
        except BaseException:
            self.close()
            raise
        self.rate_hz, self.num_channels = self._file.samplerate, self._file.channels
        self._chosen = slice(None) if channel is None else slice(channel, channel + 1)
        self.stated_s: float | None = self._file.frames / self.rate_hz
        self._is_exact = self._file.subtype == "PCM_16" and (self.num_channels, self.rate_hz) == (1, sample_rate_hz)

    def _check(self, handle: int, is_strict: bool) -> None:
        file = self._file
        if not file.frames:
            raise DamagedError("no samples")
        if file.frames >= UNKNOWN_FRAMES or (file.format == "FLAC" and _is_joined(handle)):
            raise DamagedError("how long it is cannot be told")
        promised = PROMISE.search(file.extra_info)
        if promised:
            said = {name: int(number) for name, number in promised.groupdict().items() if number}
            claims, unit = said.get("bytes", said.get("frames", 0)), "bytes" if "bytes" in said else "samples"
            holds = said.get("held", said.get("found", 0))
            if holds < claims < UNKNOWN_BYTES:
                raise TruncatedError(f"truncated: its header promises {claims} {unit} of audio, {holds} are there")
        if is_strict and not file.subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")):
            raise DamagedError("not decoded by libsndfile where FFmpeg knows it, too")

    def blocks(self, num_samples: int | None) -> Iterator[Samples]:
        """See `Reader`."""
        file = self._file
        last = file.frames if num_samples is None else min(file.frames, num_samples)
        is_plain = file.subtype.startswith("PCM") and file.format != "FLAC"
        kind = np.int16 if file.subtype == "PCM_16" and (is_plain or self._is_exact) else np.float32
        # a decoder is best called seldom, plain samples are best read into the cache
        buffer: NDArray[Any] = np.empty((min(BLOCK if is_plain else READ, last), file.channels), kind)
        at = 0
        while at < last:
            try:
                read = file.read(out=buffer[: last - at])
            except (soundfile.LibsndfileError, RuntimeError) as error:
                raise DamagedError(
                    f"truncated or damaged: its header promises {file.frames} samples, which cannot all be decoded"
                ) from error
            if not len(read):
                raise TruncatedError(f"truncated: its header promises {file.frames} samples, {at} are there")
            at += len(read)
            for first in range(0, len(read), BLOCK):
                part = read[first : first + BLOCK]
                yield part[:, 0] if self._is_exact else _mix(part[:, self._chosen])

    def finish(self) -> float:
        """See `Reader`."""
        return float(self._file.frames / self.rate_hz)

    def close(self) -> None:
        """See `Reader`."""
        self._file.close()


class Sound:
    """An audio file or its beginning, mixed to mono and resampled; open until the `with` block ends.

    What a file is its content says, never its name. libsndfile decodes plain samples and FLAC, whose headers state how long
    they are, FFmpeg all else, whose length is known when it was read to its end.

    Args:
        path: any file that one of them reads: wav, aiff, au, flac, mp3, ogg, opus, m4a, aac, webm, wma, …
        sample_rate_hz: sampling rate of the samples given, Hz.
        length_s: decode only this much from the start, seconds; by default all.
        channel: give this one instead of the mean of all.
        max_bytes: a larger file is refused.
        max_s: so is a longer clip, seconds.

    Attributes:
        duration_s: of the whole file; known when its blocks have been read.
        note: what was left out, for people; "" where nothing was.

    Raises:
        AudioError: here and while it is read: no regular file, not audio, truncated, or beyond the bounds.
    """

    def __init__(
        self, path: Path, *, sample_rate_hz: int, length_s: float | None = None, max_bytes: int, max_s: float = MAX_S,
        channel: int | None = None,
    ) -> None:  # fmt: skip
        check_file(path, max_bytes=max_bytes)
        self.duration_s, self.note = 0.0, ""
        self._rate_hz, self._length_s, self._max_s = sample_rate_hz, length_s, max_s
        try:
            # by its number: a name would be taken for a hint, and an interrupt inside callbacks into Python would be lost
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror or error}") from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._handle)
            self._reader: Reader = _open_reader(self._handle, sample_rate_hz, channel)
            undo.callback(self._reader.close)
            self._bound()
            self._close = undo.pop_all().close

    @property
    def num_channels(self) -> int:
        """Of the file."""
        return self._reader.num_channels

    def _bound(self) -> None:
        reader = self._reader
        if reader.rate_hz not in RATES_HZ or not 1 <= reader.num_channels <= MAX_CHANNELS:
            raise BeyondBoundsError(f"{reader.num_channels} channels at {reader.rate_hz} Hz are beyond what is read")
        if reader.stated_s is not None:
            self._bound_length(reader.stated_s if self._length_s is None else min(reader.stated_s, self._length_s))

    def _bound_length(self, seconds: float) -> None:
        if seconds > self._max_s:
            raise BeyondBoundsError(f"{_say(seconds)} is over the limit of {_say(self._max_s)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def read(self) -> Samples:
        """All samples, shape (num_samples,): int16 where the file's own need no conversion, else float32."""
        samples, _, _ = self.collect(sys.maxsize)
        assert samples is not None
        return samples

    def collect(self, most: int) -> tuple[Samples | None, int, float]:
        """All samples, or None where they are more than `most`; their number and their peak, of full scale 1.

        Raises:
            BadSamplesError: some are NaN or infinite.
        """
        lengths = [seconds for seconds in (self._length_s, self._reader.stated_s) if seconds is not None]
        expected = int(min(lengths, default=60.0) * self._rate_hz) + 16  # the length after resampling is an estimate
        kept: NDArray[Any] | None = None
        num, peak = 0, 0.0
        for block in self.blocks():
            if not num:
                kept = np.empty(min(expected, most), block.dtype)
            if kept is not None and num + block.size > most:
                peak = measure_peak(kept[:num])
                kept = None
            if kept is None:
                peak = max(peak, measure_peak(block))
            else:
                if num + block.size > kept.size:
                    kept = np.concatenate((kept[:num], np.empty(max(num, block.size), kept.dtype)))
                kept[num : num + block.size] = block
            num += block.size
        return (None, num, peak) if kept is None else (kept[:num], num, measure_peak(kept[:num]))

    def blocks(self) -> Iterator[Samples]:
        """The samples in blocks, of which each is overwritten by the next; they can be had once."""
        reader, length_s = self._reader, self._length_s
        resampler = None
        if reader.rate_hz != self._rate_hz:
            resampler = soxr.ResampleStream(reader.rate_hz, self._rate_hz, 1, dtype="float32", quality="HQ")
        wanted = left = None
        if length_s is not None:
            wanted = math.ceil((length_s + (MARGIN_S if resampler else 0.0)) * reader.rate_hz)
            left = math.ceil(length_s * self._rate_hz)
        num_read = 0
        for read in reader.blocks(wanted):
            num_read += read.size
            self._bound_length((num_read if wanted is None else min(num_read, wanted)) / reader.rate_hz - MARGIN_S)
            block = (resampler.resample_chunk(read) if resampler else read)[:left]
            left = None if left is None else left - block.size
            if block.size:
                yield block
        if resampler and left != 0:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)[:left]
        if not num_read:
            raise TruncatedError("no samples")
        self.duration_s = reader.finish()
        if reader.stated_s is not None and self.duration_s < reader.stated_s - MARGIN_S:
            raise TruncatedError(
                f"truncated: its header promises {reader.stated_s:.2f} s, {self.duration_s:.2f} s can be decoded"
            )
        if reader.lost_s > UNHEARD_S:
            self.note = f"{reader.lost_s:.2f} s could not be decoded and were left out"


def _open_reader(handle: int, sample_rate_hz: int, channel: int | None) -> Reader:
    """What decodes a file, by whichever library."""
    head = os.pread(handle, 12, 0)
    refused: AudioError | None = None
    if head.startswith(PLAIN):
        try:
            return Plain(handle, sample_rate_hz, channel)
        except TruncatedError:
            raise
        except AudioError as error:
            refused = error
    try:
        return Stream(handle, BLOCK, channel)
    except (ValueError, RuntimeError) as error:
        if not head.startswith(MPEG):  # at what begins like an MP3 libsndfile would only print its doubts
            with contextlib.suppress(NotAudioError, DamagedError):
                return Plain(handle, sample_rate_hz, channel, is_strict=False)
        kind = NotAudioError if isinstance(error, ValueError) else DamagedError
        raise (refused or kind(f"no audio that can be decoded ({error})")) from error


def _is_joined(handle: int) -> bool:
    """Whether a FLAC file goes on after the samples that its header promises: others were put behind it."""
    with mmap.mmap(handle, 0, prot=mmap.PROT_READ) as data:
        return data.find(b"fLaC", 42) > 0  # after the header, in which it may stand


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
