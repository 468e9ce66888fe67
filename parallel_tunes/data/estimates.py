"""About how long files will take and how large their features will be, from their sizes and endings alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.config import FeaturesConfig

# what a second of music usually takes: 16-bit mono at 22 050 Hz, or compressed
PLAIN = frozenset((".wav", ".wave", ".rf64", ".w64", ".au", ".snd", ".aif", ".aiff", ".aifc", ".caf"))
PLAIN_BYTES, FLAC_BYTES, PACKED_BYTES = 44100, 50000, 16000
PLAIN_S, PACKED_S = 7e-5, 1e-3  # of one core, for a second of music: of 16-bit samples, or of what must be decoded
DESCRIPTORS_S = 1.5e-2  # … and for its descriptors
PICTURE_S = 3e-7  # … for a byte of a picture


def find_seconds(tracks: pd.DataFrame, features: FeaturesConfig) -> NDArray[np.float64]:
    """About how many seconds of each file will be used, shape (num_tracks,)."""
    endings = _endings_of(tracks)
    bytes_per_s = np.where([ending in PLAIN for ending in endings], PLAIN_BYTES, PACKED_BYTES)
    bytes_per_s[[ending == ".flac" for ending in endings]] = FLAC_BYTES
    sizes = tracks["bytes"].to_numpy(np.float64)
    return np.asarray(np.clip(sizes / bytes_per_s, features.min_s, features.clip_s or np.inf), np.float64)


def find_costs(tracks: pd.DataFrame, features: FeaturesConfig) -> NDArray[np.float64]:
    """About how many seconds of one core each file will take, shape (num_tracks,)."""
    if features.kind == "picture":
        return PICTURE_S * tracks["bytes"].to_numpy(np.float64).clip(0)
    is_plain = [ending in PLAIN for ending in _endings_of(tracks)]
    per_s = np.where(is_plain, PLAIN_S, PACKED_S) + (DESCRIPTORS_S if features.kind == "descriptors" else 0)
    return np.asarray(per_s * find_seconds(tracks, features), np.float64)


def find_bytes(tracks: pd.DataFrame, features: FeaturesConfig) -> NDArray[np.float64]:
    """About how many bytes of features each file will give, shape (num_tracks,).

    Of descriptors, which take no room to speak of, the samples that they are made of: what is cut by it is shared out.
    """
    if features.picture_frames and features.kind == "picture":
        return np.full(len(tracks), 2.0 * features.num_mels * features.picture_frames)
    seconds = find_seconds(tracks, features)
    per_s = features.sample_rate_hz * (
        1 if features.kind in ("waveform", "descriptors") else features.num_mels / features.hop_length
    )
    return np.asarray(seconds * per_s * 2, np.float64)


def _endings_of(tracks: pd.DataFrame) -> list[str]:
    """The files' endings, in lower case; a Path for each of a million takes seconds."""
    return ["." + path.rpartition(".")[2].lower() for path in tracks["path"]]
