"""The 57 numbers that stand for a clip in GTZAN's table of features, as librosa gives them, of one Fourier transform."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.descriptor_names import NUM_MFCC

VERSION = 1  # raised whenever the same settings would give other numbers
MOST_SAMPLES = 1 << 23  # 6 minutes at 22 050 Hz, whose spectrum, phases and two parts take 1 GB
MEDIAN_FRAMES = 31  # of librosa.effects.hpss, in time and in frequency alike
Floats = NDArray[np.float32]


def describe(samples: Floats, definition: LogMel) -> NDArray[np.float64]:
    """Mean and variance over time of chroma, level, spectral shape, harmonic and percussive part and MFCCs; the tempo.

    What librosa.feature.chroma_stft, rms, spectral_centroid, spectral_bandwidth, spectral_rolloff, zero_crossing_rate and
    mfcc, librosa.effects.hpss and librosa.beat.beat_track give, each of which would transform the clip anew.

    Args:
        samples: a clip within ±1, shape (num_samples,).
        definition: sampling rate, window, hop and mel bands of all of them.

    Returns:
        Shape (57,), in the order of `descriptor_names.NAMES`; the tempo is 0 where nothing begins.

    Example:
        >>> import numpy as np
        >>> describe(np.sin(np.arange(22050, dtype=np.float32)), LogMel()).shape
        (57,)
    """
    import librosa  # takes seconds and 60 MB

    import parallel_tunes.compiled  # noqa: F401  engines that compile librosa's functions at the same time do not meet

    frames: dict[str, Any] = {"n_fft": definition.n_fft, "hop_length": definition.hop_length}
    rate: dict[str, Any] = {"sr": definition.sample_rate_hz}
    feature = librosa.feature
    # a clip without a pitch has no tuning, and a short one few samples; narrow, since filters are shared among threads
    warnings.filterwarnings("ignore", "Trying to estimate tuning from empty frequency set|n_fft=", UserWarning)
    spectrum = librosa.stft(samples, **frames)
    magnitude, phase = librosa.magphase(spectrum)
    power = magnitude**2
    centroid = feature.spectral_centroid(S=magnitude, **rate, **frames)
    levels = librosa.power_to_db(_to_mel(power, definition), top_db=definition.top_db)
    harmonic, percussive = _separate(magnitude, phase, len(samples), frames)
    series = [
        feature.chroma_stft(S=power, **rate, **frames),
        feature.rms(y=samples, frame_length=definition.n_fft, hop_length=definition.hop_length),
        centroid,
        feature.spectral_bandwidth(S=magnitude, centroid=centroid, **rate, **frames),
        feature.spectral_rolloff(S=magnitude, **rate, **frames),
        feature.zero_crossing_rate(samples, frame_length=definition.n_fft, hop_length=definition.hop_length),
        harmonic,
        percussive,
    ]
    cepstrum = feature.mfcc(S=levels, n_mfcc=NUM_MFCC)
    tempo = _find_tempo(levels, definition)
    return np.array([*_moments(series), tempo, *_moments(cepstrum)], np.float64)


def _moments(series: Any) -> list[float]:
    return [float(moment(values)) for values in series for moment in (np.mean, np.var)]


def _to_mel(power: Floats, definition: LogMel) -> Floats:
    import librosa

    return np.asarray(
        librosa.feature.melspectrogram(
            S=power, sr=definition.sample_rate_hz, n_mels=definition.num_mels, fmin=definition.fmin_hz,
            fmax=definition.fmax_hz, htk=definition.mel_scale == "htk",
        )
    )  # fmt: skip


def _find_tempo(levels: Floats, definition: LogMel) -> float:
    """Beats a minute as librosa.beat.beat_track estimates them, before it looks for the beats, which are not wanted."""
    import librosa

    place: dict[str, Any] = {"sr": definition.sample_rate_hz, "hop_length": definition.hop_length}
    onsets = librosa.onset.onset_strength(S=levels, n_fft=definition.n_fft, aggregate=np.median, **place)
    return float(librosa.feature.tempo(onset_envelope=onsets, **place)[0]) if onsets.any() else 0.0


def _separate(
    magnitude: Floats, phase: NDArray[Any], num_samples: int, frames: dict[str, Any]
) -> tuple[Floats, Floats]:
    """The harmonic and the percussive part of a clip, shape (num_samples,): librosa.effects.hpss.

    Median filtering in time and in frequency (Fitzgerald 2010, Harmonic/percussive separation using median filtering).
    """
    import librosa

    harmonic, percussive = _filter_rows(magnitude), _filter_rows(magnitude.T).T
    parts = []
    for mine, other in ((harmonic, percussive), (percussive, harmonic)):
        mask = librosa.util.softmask(mine, other, power=2.0, split_zeros=True)
        parts.append(librosa.istft(magnitude * mask * phase, dtype=np.float32, length=num_samples, **frames))
    return parts[0], parts[1]


def _filter_rows(values: Floats) -> Floats:
    """The running median of each row, mirrored at its ends: scipy's own filter of one long row takes a tenth of the time."""
    from scipy.ndimage import median_filter

    half = MEDIAN_FRAMES // 2
    mirrored = np.pad(values, ((0, 0), (half, half)), mode="symmetric")
    filtered = median_filter(mirrored.ravel(), size=MEDIAN_FRAMES).reshape(mirrored.shape)
    return np.asarray(filtered[:, half:-half], np.float32)
