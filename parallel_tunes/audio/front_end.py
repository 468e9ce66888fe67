"""From a file to the numbers a model sees: the same path, with the same fingerprint, in training and in serving."""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio import descriptors, pictures
from parallel_tunes.audio.decode import (
    MAX_S,
    AudioError,
    BadSamplesError,
    BeyondBoundsError,
    Samples,
    Sound,
    measure_peak,
    to_float,
)
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel import Spectrogram
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.files import digest_json
from parallel_tunes.schema import UserError, build, to_plain

VERSION = 4  # raised whenever the same settings would give other numbers
QUIETEST, LOUDEST = 1e-9, 1e6  # peaks, of full scale 1: squares of what lies beyond leave float32
CANCELLED = 1e-3  # a mix that is quieter than its channels by this factor, 60 dB, is what rounding left of them
WHOLE = 1 << 24  # longer clips, 12 minutes at 22 050 Hz, are decoded twice instead of held in memory


@dataclass(frozen=True)
class Source:
    """A file that is decoded, or, where it is long, was looked through.

    Attributes:
        hash: of the file's bytes.
        duration_s: of the whole file.
        num_samples: of the clip, at the features' sampling rate.
        peak: largest absolute sample of the clip, of full scale 1.
        samples: the clip, shape (num_samples,), int16 or float32; None where it is long.
        note: what of the file was left out, for people; "" where nothing was.
    """

    path: Path
    hash: str
    duration_s: float
    num_samples: int
    peak: float
    samples: Samples | None
    note: str = ""


@dataclass(frozen=True)
class Clip:
    """The features of one file.

    Attributes:
        source: what they were made of.
        frames: log-mel spectrogram, shape (num_frames, num_mels), float16, dB; or descriptors, shape (1, 57), float64.
        gain: factor from int16 samples over 32768, as `waveform` gives them, to those that were transformed.
        highest_db: highest level, to which features.top_db refers.
        db_sum, db_square_sum: over all values of a spectrogram.
    """

    source: Source
    frames: NDArray[np.floating[Any]]
    gain: float
    highest_db: float
    db_sum: float
    db_square_sum: float


@functools.lru_cache(maxsize=8)
def definition(features: FeaturesConfig) -> LogMel:
    """The log-mel spectrogram of these features."""
    return LogMel(
        sample_rate_hz=features.sample_rate_hz, n_fft=features.n_fft, hop_length=features.hop_length,
        num_mels=features.num_mels, fmin_hz=features.fmin_hz, fmax_hz=features.fmax_hz, mel_scale=features.mel_scale,
        top_db=features.top_db,
    )  # fmt: skip


def fingerprint(features: FeaturesConfig) -> str:
    """Names the front end: equal fingerprints mean equal features, wherever they are computed."""
    if features.kind == "picture":
        return pictures.fingerprint(features)
    settings = {
        name: value for name, value in to_plain(features).items() if name != "kind" and not name.startswith("picture_")
    }
    if features.kind == "descriptors":
        settings["descriptors"] = descriptors.VERSION
    return digest_json({"version": VERSION, "log_mel": definition(features).fingerprint, **settings})[:16]


def restore(values: Mapping[str, Any]) -> FeaturesConfig:
    """The features that shards or a model were made with, from what they keep of them."""
    return build(FeaturesConfig, dict(values), "features.")


def compare(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In what features differ, whether their shards hold spectrograms or waveforms; what pictures leave open agrees."""
    kinds = there["kind"], here["kind"]
    if "descriptors" in kinds and kinds[0] != kinds[1]:
        return [f"features.kind is {kinds[0]} there, {kinds[1]} here"]
    is_picture = there["kind"] == "picture"
    names = ["num_mels", "top_db"] * is_picture
    names += [name for name in here if name.startswith("picture_") == is_picture and name != "kind"]
    return [
        f"features.{name} is {there.get(name)} there, {here[name]} here"
        for name in names
        if there.get(name) != here[name] and not (is_picture and here[name] in (None, "auto"))
    ]


def check(features: FeaturesConfig) -> None:
    """Raise a UserError where settings contradict each other."""
    if features.kind == "picture":  # of which no transform is made
        return
    top_hz = features.sample_rate_hz / 2
    if features.fmin_hz >= (features.fmax_hz or top_hz):
        raise UserError(
            f"features.fmin_hz={features.fmin_hz:g}: must lie below features.fmax_hz={features.fmax_hz or top_hz:g}"
        )
    if features.fmax_hz is not None and features.fmax_hz > top_hz:
        raise UserError(
            f"features.fmax_hz={features.fmax_hz:g}: half the sampling rate, {top_hz:g} Hz, is the highest there is"
        )
    if features.pad and features.clip_s is None:
        raise UserError("features.pad=true: give features.clip_s, the length to pad to")
    if features.clip_s is not None and features.clip_s < features.min_s:
        raise UserError(
            f"features.clip_s={features.clip_s:g}: is below features.min_s={features.min_s:g}, so that no track would do"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bank = definition(features).filters
    num_empty = int(np.count_nonzero(~bank.any(axis=1)))
    if num_empty:
        raise UserError(
            f"features.num_mels={features.num_mels}: {num_empty} bands fall between the FFT's bins; lower it or raise features.n_fft"
        )


def demand_frames(features: FeaturesConfig) -> None:
    """Raise a UserError where there are no frames, of which networks learn."""
    if features.kind == "descriptors":
        raise UserError(
            "features=descriptors: 57 numbers a track, which learner=svm learns from; the network wants logmel"
        )


def frames_per_s(features: FeaturesConfig) -> float:
    """Frames of a second of a track.

    Raises:
        UserError: pictures whose width was left open.
    """
    if features.kind != "picture":
        return features.sample_rate_hz / features.hop_length
    if features.picture_frames is None:
        raise UserError("features.picture_frames: none of the pictures could be read, so that their width is not known")
    return features.picture_frames / features.picture_s


def load(path: Path, features: FeaturesConfig, *, max_bytes: int, max_s: float = MAX_S) -> Source:
    """Read and check a file; most of its time goes without the interpreter's lock.

    Raises:
        AudioError: the file gives no features; the message says why.
    """
    with _open(path, features, max_bytes, max_s) as sound:
        samples, num_samples, peak = sound.collect(WHOLE)
        duration_s, clip_s = sound.duration_s, features.clip_s
        is_suspect = sound.num_channels > 1 and peak < CANCELLED
    _check_length(duration_s, features)
    if clip_s is not None and duration_s > clip_s and not features.trim:
        raise AudioError(f"too long: {duration_s:.2f} s, above features.clip_s={clip_s:g} with features.trim=false")
    _check_peak(peak)
    if is_suspect:
        with _open(path, features, max_bytes, max_s, channel=0) as sound:
            alone = max(map(measure_peak, sound.blocks()))
        if peak < CANCELLED * alone:
            raise BadSamplesError("silent: its channels are each other's opposites, and cancel when they are mixed")
    try:
        digest = files.digest_file(path)
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error
    return Source(path, digest, duration_s, num_samples, peak, samples, sound.note)


def hear(samples: Samples, features: FeaturesConfig) -> Clip:
    """`extract` for what is in no file: mono samples at features.sample_rate_hz, shape (num_samples,).

    Raises:
        AudioError: they give no features; the message says why.
    """
    duration_s = samples.size / features.sample_rate_hz
    _check_length(duration_s, features)
    peak = measure_peak(samples)
    _check_peak(peak)
    return transform(Source(Path(), "", duration_s, samples.size, peak, samples), features)


def _check_length(duration_s: float, features: FeaturesConfig) -> None:
    if duration_s < features.min_s:
        raise AudioError(f"too short: {duration_s:.2f} s, below features.min_s={features.min_s:g}")


def _check_peak(peak: float) -> None:
    if peak < QUIETEST:
        raise BadSamplesError(
            "silent: " + ("every sample is zero" if not peak else f"no sample above {peak:.0e} of full scale")
        )
    if peak > LOUDEST:
        raise BadSamplesError(f"samples of {peak:.0e} times full scale are no audio")


def transform(source: Source, features: FeaturesConfig) -> Clip:
    """Compute the log-mel spectrogram of a file that was read."""
    normalised = 1 / source.peak if features.normalise == "peak" else 1.0
    padded = int(features.clip_s * features.sample_rate_hz) if features.pad and features.clip_s else 0
    spectrogram = Spectrogram(definition(features), max(source.num_samples, padded), gain=normalised)
    exact = True
    for samples, is_last in _pieces(source, features):
        exact = samples.dtype == np.int16
        spectrogram.feed(samples, is_last=is_last)
    sums = spectrogram.finish()
    gain = normalised if exact else normalised * source.peak * 32768 / 32767
    return Clip(source, spectrogram.frames, gain, spectrogram.highest, *sums)


def waveform(source: Source, features: FeaturesConfig) -> Iterator[NDArray[np.int16]]:
    """The clip's samples as int16, in pieces: the file's own where they are exact, else scaled to use the whole range."""
    for samples, _ in _pieces(source, features):
        if samples.dtype != np.int16:
            samples = np.rint(samples * np.float32(32767 / source.peak)).astype(np.int16)
        yield np.asarray(samples, np.int16)


def extract(path: Path, features: FeaturesConfig, *, max_bytes: int, max_s: float = MAX_S) -> Clip:
    """Decode a file and compute its log-mel spectrogram or its descriptors, or read the spectrogram off a picture.

    Raises:
        AudioError: the file gives no features; the message says why.
    """
    if features.kind == "picture":
        digest, frames = pictures.extract(path, features, max_bytes=max_bytes)
        levels = frames.astype(np.float64)
        source = Source(path, digest, features.picture_s, 0, 0.0, None)
        return Clip(source, frames, 1.0, float(levels.max()), float(levels.sum()), float(np.square(levels).sum()))
    source = load(path, features, max_bytes=max_bytes, max_s=max_s)
    return _describe(source, features) if features.kind == "descriptors" else transform(source, features)


def _describe(source: Source, features: FeaturesConfig) -> Clip:
    if source.samples is None or source.num_samples > descriptors.MOST_SAMPLES:
        raise BeyondBoundsError(
            f"too long for descriptors: {source.num_samples} samples, over the limit of {descriptors.MOST_SAMPLES}; give features.clip_s"
        )
    gain = 1 / source.peak if features.normalise == "peak" else 1.0
    samples = to_float(source.samples) * np.float32(gain)
    if features.pad and features.clip_s:
        samples = np.pad(samples, (0, max(int(features.clip_s * features.sample_rate_hz) - samples.size, 0)))
    found = descriptors.describe(samples, definition(features))
    if not np.isfinite(found).all():
        raise BadSamplesError("its descriptors are not finite")
    return Clip(source, found[None, :], gain, 0.0, 0.0, 0.0)


def _open(path: Path, features: FeaturesConfig, max_bytes: int, max_s: float, channel: int | None = None) -> Sound:
    rate_hz, clip_s = features.sample_rate_hz, features.clip_s
    return Sound(path, sample_rate_hz=rate_hz, length_s=clip_s, max_bytes=max_bytes, max_s=max_s, channel=channel)


def _pieces(source: Source, features: FeaturesConfig) -> Iterator[tuple[Samples, bool]]:
    """The samples of a clip, and whether they are the last."""
    if source.samples is not None:
        yield source.samples, True
        return
    with _open(source.path, features, sys.maxsize, math.inf) as sound:  # its size was looked at the first time
        done = 0
        for block in sound.blocks():
            done += block.size
            yield block, done >= source.num_samples
