"""Audio that libsndfile does not read, or whose length it only estimates: FFmpeg decodes it, by way of PyAV."""

from __future__ import annotations

import collections
import itertools
import os
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

# containers that say by their content what they are, and of which none names other files or addresses, as playlists do
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,latm,loas,matroska,mlp,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,nistsphere,nut,ogg,oma,qoa,rm,rso,shn,tak,truehd,tta,voc,w64,wav,wv"
)
STATING = ("mov", "flac", "wv", "tta", "ape", "tak", "caf", "aiff")  # whose lengths are counts of samples, no estimates
KINDS: dict[str, tuple[Any, float]] = {
    "u8": (np.uint8, 1 / 128), "s16": (np.int16, 1 / 32768), "s32": (np.int32, 2.0**-31), "s64": (np.int64, 2.0**-63),
    "flt": (np.float32, 1.0), "dbl": (np.float64, 1.0),
}  # fmt: skip
XING = re.compile(
    rb"(?P<head>\xff[\xe2-\xff]..).{9,32}(?:Xing|Info)(?P<counts>.{12})", re.DOTALL
)  # of an MP3's first frame
RATES_HZ = range(1000, 768_001)
ROUGH = ("flac", "asf")  # whose packets do not tell how long they are, or not well
LONGEST_S = 60.0  # a packet of more is the gap between files that were joined
CUT_S = 1.0  # taken for the loss where the rest of a file cannot be read, and nobody knows how much that is


class Stream:
    """The first audio stream of a file, decoded from its start to its end.

    Args:
        handle: a descriptor of the file, which stays open; its content alone tells what it is.
        block: samples that are given at a time.
        channel: give this one instead of the mean.

    Attributes:
        rate_hz, num_channels: of the first frame; later ones of another rate are resampled to it.
        stated_s: the length that the container states, seconds; None where it states none, or no more than an estimate.
        lost_s: what could not be decoded so far, seconds.

    Raises:
        ValueError: FFmpeg finds no audio in it.
        RuntimeError: it finds some, and cannot decode it.
    """

    def __init__(self, handle: int, block: int, channel: int | None) -> None:
        import av  # it takes a fifth of a second, and most files do without

        self._error = av.FFmpegError
        os.lseek(handle, 0, os.SEEK_SET)
        options = {"fd": str(handle), "format_whitelist": FORMATS, "protocol_whitelist": "fd"}
        try:
            self._container: Any = av.open("fd:", options=options)
        except self._error as error:
            raise ValueError("format not recognised") from error
        try:
            stream = self._container.streams.best("audio")
            if stream is None:
                raise ValueError("it holds no audio")
            if stream.codec_context is None:
                raise RuntimeError("FFmpeg has no decoder for it")
            stream.codec_context.thread_count = 1  # other files are decoded beside it
            self._tick_s, self._block, self._channel = float(stream.time_base or 0), block, channel
            self.lost_s, self._decoded = 0.0, collections.Counter[int]()  # samples of each rate
            self._packets = self._read(stream)
            frames = self._decode()
            first = next(frames, None)
            if first is None:
                raise RuntimeError("none of it can be decoded: it is damaged, or protected against copying")
        except self._error as error:
            self.close()
            raise RuntimeError(str(error.strerror).lower()) from error
        except BaseException:
            self.close()
            raise
        self._frames = itertools.chain([first], frames)
        self.rate_hz, self.num_channels = int(first.sample_rate), int(first.layout.nb_channels)
        self._format = self._container.format.name.partition(",")[0]
        self.stated_s: float | None = None
        if self._format in STATING and stream.duration:
            self.stated_s = stream.duration * self._tick_s * (_overstate_caf(handle) if self._format == "caf" else 1)
        elif self._format == "mp3":
            self.stated_s = _state_mp3(handle)

    def blocks(self, num_samples: int | None) -> Iterator[NDArray[np.float32]]:
        """The mean of the channels, all of it or so many samples, in blocks."""
        left = num_samples
        for part in self._parts():
            part = part[:left]
            left = None if left is None else left - part.size
            if part.size:
                yield part
            if left == 0:
                break

    def finish(self) -> float:
        """Pass over what is not decoded yet, without decoding it; the length of the whole, seconds."""
        num_ticks, num_cut = 0, 0
        if self._format in ROUGH:
            collections.deque(self._frames, 0)
        is_cut = self._format == "ogg"  # … at the end: durations of its packets leave that out already
        for packet in self._packets:
            if 0 < (packet.duration or 0) * self._tick_s < LONGEST_S:
                num_ticks += packet.duration
            if packet.has_sidedata("skip_samples"):  # how much of its start and of its end is none of the music
                start, end = np.frombuffer(bytes(packet.get_sidedata("skip_samples"))[:8], "<u4")
                num_cut += int(start) + (0 if is_cut else int(end))
        decoded_s = sum(num / rate_hz for rate_hz, num in self._decoded.items())
        return float(decoded_s + max(num_ticks * self._tick_s - num_cut / self.rate_hz, 0.0))

    def close(self) -> None:
        """Free what FFmpeg holds."""
        self._container.close()

    def _parts(self) -> Iterator[NDArray[np.float32]]:
        rate_hz, resampler = self.rate_hz, None
        for frame in self._gather():
            if frame.sample_rate != rate_hz:  # files of several rates were joined
                if resampler:
                    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
                rate_hz, resampler = frame.sample_rate, None
                if rate_hz != self.rate_hz and rate_hz in RATES_HZ:
                    resampler = soxr.ResampleStream(rate_hz, self.rate_hz, 1, dtype="float32", quality="HQ")
            mixed = _mix(frame, self._channel)
            yield resampler.resample_chunk(mixed) if resampler else mixed
        if resampler:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _gather(self) -> Iterator[Any]:
        """Frames of as many samples as a block, where decoders give some hundred; each is worth a call into numpy."""
        from av import AudioFifo

        fifo, size = AudioFifo(), 0
        for frame in self._frames:
            frame.pts = None  # what is missing between two is not made up for
            try:
                fifo.write(frame)
            except ValueError:  # of another rate, layout or format than those before
                if size:
                    yield fifo.read(0)
                fifo, size = AudioFifo(), 0
                fifo.write(frame)
            size += frame.samples
            if size >= self._block:
                yield fifo.read(0)
                size = 0
        if size:
            yield fifo.read(0)

    def _decode(self) -> Iterator[Any]:
        for packet in self._packets:
            try:
                frames = packet.decode()
            except self._error:
                self.lost_s += (packet.duration or 0) * self._tick_s
            else:
                for frame in frames:
                    self._decoded[frame.sample_rate] += frame.samples
                yield from frames

    def _read(self, stream: Any) -> Iterator[Any]:
        try:
            yield from self._container.demux(stream)
        except self._error:
            self.lost_s += CUT_S


def _overstate_caf(handle: int) -> float:
    """By how much the samples that a CAF file states are more than those that are there, 1 where they are not."""
    at, size = 8, os.fstat(handle).st_size
    while len(head := os.pread(handle, 12, at)) == 12:
        at, claimed = at + 12, int.from_bytes(head[4:], "big", signed=True)
        if head.startswith(b"data"):
            return max(claimed / max(size - at, 1), 1.0)
        at += max(claimed, 0)
    return 1.0


def _state_mp3(handle: int) -> float | None:
    """The length that a Xing frame states, seconds, where it also states more bytes than are there; else it is no fact."""
    at = 0
    while (tag := os.pread(handle, 10, at)).startswith(b"ID3") and len(tag) == 10:
        at += 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    found = XING.search(os.pread(handle, 4096, at))
    if not found:
        return None
    layout, flags, num_frames, num_bytes = found["head"], *struct.unpack(">III", found["counts"])
    version, rate = (layout[1] >> 3) & 3, (layout[2] >> 2) & 3
    if flags & 3 != 3 or version == 1 or rate == 3 or num_bytes <= os.fstat(handle).st_size - at - found.start():
        return None
    rate_hz = (44100, 48000, 32000)[rate] // (4, 1, 2, 1)[version]
    return float(num_frames * (1152 if version == 3 else 576) / rate_hz)


def _mix(frame: Any, channel: int | None) -> NDArray[np.float32]:
    """The mean of a frame's channels, or one of them, of full scale 1, shape (num_samples,)."""
    name, num, planes = frame.format.name, frame.samples, frame.planes
    kind, scale = KINDS[name.removesuffix("p")]
    num_channels = int(frame.layout.nb_channels)
    if len(planes) == num_channels:
        rows = [np.frombuffer(plane, kind, num) for plane in planes]
    else:
        rows = list(np.frombuffer(planes[0], kind, num * num_channels).reshape(num, num_channels).T)
    if kind is np.uint8:
        rows = [row.astype(np.float32) - 128 for row in rows]
    rows = rows if channel is None else rows[min(channel, len(rows) - 1) :][:1]
    factor = scale / len(rows)
    if len(rows) == 1:
        return np.multiply(rows[0], factor, dtype=np.float32)
    total = np.add(rows[0], rows[1], dtype=np.float32)
    for row in rows[2:]:
        total += row
    total *= np.float32(factor)
    return total
