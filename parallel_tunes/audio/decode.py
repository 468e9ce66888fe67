"""Files to mono waveforms: soundfile decodes, soxr resamples; everything is bounded and checked."""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]
MAX_S = 4 * 3600.0  # no track is longer; what a header claims beyond this is not believed
MAX_CHANNELS = 32
MAX_RATE_HZ = 768_000
_BLOCK = 1 << 18
_UNKNOWN_LENGTH = 0xFFFFFFFF  # what programs that write into a pipe put for the length


class AudioError(Exception):
    """Why a file gives no waveform, in a few words."""


def decode(
    path: Path, *, sample_rate_hz: int, first_s: float | None = None, max_bytes: int = 2 << 30
) -> tuple[Samples, float]:
    """The waveform of an audio file, mixed to mono and resampled, and the duration that its header states.

    Args:
        path: any file that libsndfile reads: wav, au, flac, ogg, mp3, …
        sample_rate_hz: sampling rate of the result, Hz.
        first_s: decode only this much from the start, seconds.
        max_bytes: a larger file is refused.

    Returns:
        The waveform, shape (num_samples,), float32; and the whole track's duration in seconds.

    Raises:
        AudioError: no regular file, not audio, truncated, silent, not finite, or beyond the bounds.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("not a regular file")
        if status.st_size == 0:
            raise AudioError("empty file (0 bytes)")
        if status.st_size > max_bytes:
            raise AudioError(f"{status.st_size / 2**20:.0f} MiB is over the limit of {max_bytes / 2**20:.0f} MiB")
        # by name, not as a stream: an interrupt inside soundfile's callbacks into Python would be lost
        with soundfile.SoundFile(os.fsencode(path)) as sound:
            mono, duration_s = _read_mono(sound, first_s), sound.frames / sound.samplerate
            source_rate_hz = sound.samplerate
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(". ").lower()
        raise AudioError(f"no audio that can be decoded ({reason})") from error
    num_bad = int(np.count_nonzero(~np.isfinite(mono)))
    if num_bad:
        raise AudioError(f"{num_bad} of {mono.size} samples are NaN or infinite")
    if not np.any(mono):
        raise AudioError("silent: every sample is zero")
    if source_rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, source_rate_hz, sample_rate_hz, quality="HQ")
    if first_s is not None:
        mono = mono[: math.ceil(first_s * sample_rate_hz)]
    return np.ascontiguousarray(mono, np.float32), duration_s


def _read_mono(sound: soundfile.SoundFile, first_s: float | None) -> Samples:
    """Read and mix down block by block, so that memory follows what is there and not what a header claims."""
    if not 1000 <= sound.samplerate <= MAX_RATE_HZ or not 1 <= sound.channels <= MAX_CHANNELS:
        raise AudioError(f"{sound.channels} channels at {sound.samplerate} Hz are beyond what is read")
    # libsndfile quietly shortens a WAV or AU whose header promises more than the file holds; its log says so
    promised = re.search(
        r"^ *data *: *(\d+) \(should be (\d+)\)|^ *Data Size *: *(\d+) \(should be (\d+)\)", sound.extra_info, re.M
    )
    if promised:
        claims, holds = (int(number) for number in promised.groups() if number)
        if holds < claims < _UNKNOWN_LENGTH:
            raise AudioError(f"truncated: its header promises {claims} bytes of audio, {holds} are there")
    seconds = sound.frames / sound.samplerate if first_s is None else first_s
    if seconds > MAX_S:
        raise AudioError(f"{seconds / 3600:.1f} h is over the limit of {MAX_S / 3600:.0f} h")
    wanted = min(sound.frames, math.ceil(seconds * sound.samplerate))
    blocks, have = [], 0
    while have < wanted:
        block = sound.read(min(_BLOCK, wanted - have), dtype="float32", always_2d=True)
        if not len(block):
            raise AudioError(f"truncated: its header promises {wanted} samples, {have} are there")
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32))
        have += len(block)
    if not have:
        raise AudioError("no samples")
    return np.concatenate(blocks)
