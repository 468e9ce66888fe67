"""What is explored, whatever it came from: tracks as rows, what is known of each, and features as numbers."""

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
    """What is explored.

    Args:
        frame: a row a track: path, label and group (None where unknown), and as numbers, NaN where unknown, duration_s,
            level_db and tempo_bpm.
        rows: of `frame`, those that are looked at where it takes long.
        features: of these rows, none missing: what PCA, outliers and the doubt about labels are made of.
        related: of these rows, whose correlations are shown; NaN where a number is missing.
        twins: by how they are alike, what tracks of `frame` that are alike have in common, shape (num_tracks,).
        facts: for the report.
        spectra: where there is sound.
    """

    frame: pd.DataFrame
    rows: Ids
    features: Matrix
    related: Matrix
    twins: Mapping[str, Sequence[str]]
    facts: dict[str, Any]
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
        standardised: shape (num_rows, num_features).
    """

    scores: Floats
    explained: Floats
    loadings: Floats
    names: list[str]
    standardised: Floats


@dataclass(frozen=True)
class Findings:
    """What was found in a material; what there was too little for is None.

    Args:
        facts: for the report's metrics.
        left_out: by part of the page, why it is missing.
        correlations: of `related_names`, shape (num, num).
        embedding: t-SNE's map of the tracks `embedded`, places in `Material.rows`, shape (num, 2).
        outliers, doubts: every track, the most doubtful first.
        twins: sets of tracks that are alike, a row a set: how, set, paths, labels_differ.
    """

    facts: dict[str, Any]
    left_out: dict[str, str]
    components: Components | None
    correlations: Floats | None
    related_names: list[str]
    embedding: Floats | None
    embedded: Ids
    outliers: pd.DataFrame | None
    doubts: pd.DataFrame | None
    twins: pd.DataFrame


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    plain = table.astype(object).where(table.notna(), None)
    return [
        {str(key): value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
        for row in plain.to_dict("records")
    ]
