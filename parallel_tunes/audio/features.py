"""What is made from a mel spectrogram: cepstral coefficients, and per-channel energy normalisation."""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import ArrayLike, NDArray


def mfcc(log_mel_db: ArrayLike, num_coefficients: int = 20) -> NDArray[np.float32]:
    """Mel-frequency cepstral coefficients (Davis & Mermelstein 1980, doi:10.1109/TASSP.1980.1163420).

    The type-II discrete cosine transform over the mel bands, orthonormal, without liftering: librosa.feature.mfcc(S=…).

    Args:
        log_mel_db: what `log_mel` gives, shape (…, num_mels, num_frames), dB.
        num_coefficients: how many to keep, from the 0th (the level) up.

    Returns:
        Shape (…, num_coefficients, num_frames), float32, dB.

    Raises:
        ValueError: fewer than one coefficient, or more than there are mel bands.

    Example:
        >>> import numpy as np
        >>> mfcc(np.full((128, 44), -100.0), num_coefficients=13).shape
        (13, 44)
    """
    decibels = np.asarray(log_mel_db, np.float32)
    num_mels = decibels.shape[-2]
    if not 1 <= num_coefficients <= num_mels:
        raise ValueError(f"num_coefficients={num_coefficients}: {num_mels} mel bands give 1 to {num_mels}")
    cepstrum = scipy.fft.dct(decibels, type=2, norm="ortho", axis=-2)
    return np.ascontiguousarray(cepstrum[..., :num_coefficients, :], np.float32)


def db_to_power(log_mel_db: ArrayLike) -> NDArray[np.float32]:
    """The mel power that a log-mel spectrogram was made from.

    What `log_mel` has raised stays raised: make it with `top_db=None`, and only powers below 1e-10 are lost.

    Args:
        log_mel_db: any shape, dB relative to full scale.

    Returns:
        The same shape, float32; full scale is 1.
    """
    return np.asarray(10.0 ** (np.asarray(log_mel_db, np.float32) / 10), np.float32)


def pcen(
    mel_power: ArrayLike,
    *,
    sample_rate_hz: float,
    hop_length: int,
    gain: float = 0.98,
    bias: float = 2.0,
    power: float = 0.5,
    time_constant_s: float = 0.4,
    eps: float = 1e-6,
) -> NDArray[np.float32]:
    """Per-channel energy normalisation (Wang et al. 2017, doi:10.1109/ICASSP.2017.7953242).

    (mel_power / (eps + smooth)**gain + bias)**power - bias**power, where `smooth` is each band's own past through a
    first-order low-pass filter, which starts as if a level of 1 had always been there: librosa.pcen.

    The defaults are meant for samples on the scale of 32-bit integers. Ours lie within ±1, so their power has to be
    scaled first: pcen(db_to_power(decibels) * 2.0**62, …).

    Args:
        mel_power: not negative, shape (…, num_mels, num_frames).
        sample_rate_hz: sampling rate, Hz.
        hop_length: samples between frames.
        gain: how much of the level is taken out; 1 is all of it.
        bias: what is added before the compression.
        power: exponent of the compression; 0 is the logarithm, ln(1 + x).
        time_constant_s: of the low-pass filter, seconds.
        eps: keeps silence from being divided by zero.

    Returns:
        The same shape, float32, not negative, without a unit.

    Raises:
        ValueError: a negative mel_power, gain, bias or power; a time constant or eps that is not positive.

    Example:
        >>> import numpy as np
        >>> pcen(np.ones((128, 44)), sample_rate_hz=22050, hop_length=512).shape
        (128, 44)
    """
    for name, value in {"gain": gain, "bias": bias, "power": power}.items():
        if not value >= 0:
            raise ValueError(f"{name}={value}: must not be negative")
    for name, value in {"time_constant_s": time_constant_s, "eps": eps}.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: must be positive")
    level = np.asarray(mel_power, np.float32)
    if level.size and level.min() < 0:
        raise ValueError(
            f"mel_power holds {level.min():g}: a power is not negative; of decibels, take db_to_power first"
        )
    smooth = _smooth(level, num_frames=time_constant_s * sample_rate_hz / hop_length)
    return np.asarray(_compress(level / (eps + smooth) ** gain, bias, power), np.float32)


def _smooth(level: NDArray[np.float32], num_frames: float) -> NDArray[np.float64]:
    """Each band's past, through a first-order low-pass filter with this time constant."""
    # share of the new frame: the squared response is a half at 1 / num_frames radians a frame (Lostanlen et al. 2019,
    # doi:10.1109/LSP.2018.2878620)
    share = (np.sqrt(1 + 4 * num_frames**2) - 1) / (2 * num_frames**2)
    numerator, denominator = [share], [1, share - 1]
    state = scipy.signal.lfilter_zi(numerator, denominator).reshape([1] * level.ndim)
    smooth, _ = scipy.signal.lfilter(numerator, denominator, level, axis=-1, zi=state)
    return np.asarray(smooth, np.float64)


def _compress(ratio: NDArray[np.float64], bias: float, power: float) -> NDArray[np.float64]:
    """(ratio + bias)**power - bias**power, without the difference of two nearly equal numbers."""
    if power == 0:
        return np.asarray(np.log1p(ratio))
    if bias == 0:
        return np.asarray(ratio**power)
    return np.asarray(bias**power * np.expm1(power * np.log1p(ratio / bias)))
