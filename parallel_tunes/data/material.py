"""A data set to explore, of audio or of tables: tracks as rows, their labels, and features as numbers; and the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
ALL = "all tracks"  # what stands for a label where there are none


@dataclass(frozen=True)
class Matrix:
    """Numbers of some tracks, shape (num_rows, num_columns), and what the columns are called."""

    values: Floats
    names: list[str]


@dataclass(frozen=True)
class Spectra:
    """Mean log-mel spectrograms by label.

    Args:
        levels: shape (num_mels, num_frames), dB; NaN where no track is that long.
        centres_hz: of the bands, shape (num_mels,); None where a picture does not say.
        frames_per_s: of the spectrograms.
        profile: the mean of each label's tracks over their whole time, shape (num_mels,), dB.
        num_tracks: behind each label's means.
    """

    levels: dict[str, Floats]
    profile: dict[str, Floats]
    num_tracks: dict[str, int]
    centres_hz: Floats | None
    frames_per_s: float


@dataclass(frozen=True)
class Material:
    """A data set to explore.

    Args:
        frame: a row per track: path, label and group (None where unknown), and as numbers, NaN where unknown, duration_s,
            level_db and tempo_bpm.
        rows: the sample of `frame` that features are computed from.
        features: the input of PCA, a row for each of `rows`; no value is missing.
        duplicates: by kind of duplicate, a key per track of `frame`; tracks of the same key are duplicates.
        facts: for the report.
        unknown: by column of `frame`, why it has no value.
        spectra: of audio and pictures.
    """

    frame: pd.DataFrame
    rows: Ids
    features: Matrix
    duplicates: Mapping[str, Sequence[str]]
    facts: dict[str, Any]
    unknown: dict[str, str]
    spectra: Spectra | None = None


def draw_sample(num_tracks: int, most: int, seed: int) -> Ids:
    """So many rows at random, in order; all where there are no more."""
    if num_tracks <= most:
        return np.arange(num_tracks)
    return np.sort(np.random.Generator(np.random.Philox(key=seed)).choice(num_tracks, most, replace=False))


def list_labels(labels: pd.Series[Any], most: int) -> list[str]:
    """The labels that most tracks have, the most frequent first, of equals in order; none where none is known."""
    counts = labels.value_counts()  # without what is missing
    return [str(label) for label in sorted(counts.index, key=lambda label: (-counts[label], label))[:most]]


@dataclass(frozen=True)
class Components:
    """Principal components of standardised features.

    Args:
        scores: of each track, shape (num_rows, num_components).
        explained: shares of the variance, shape (num_components,).
        loadings: unit vectors, shape (num_components, num_features).
        names: of the features: those that vary.
    """

    scores: Floats
    explained: Floats
    loadings: Floats
    names: list[str]


@dataclass(frozen=True)
class Findings:
    """The results of exploring a material.

    Args:
        metrics: for the report.
        left_out: by part of the page, why it is missing.
        components: None where too few features vary.
        duplicates: a row per duplicate track: kind, set, path, labels_differ.
    """

    metrics: dict[str, Any]
    left_out: dict[str, str]
    components: Components | None
    duplicates: pd.DataFrame
