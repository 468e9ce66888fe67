"""The keys of conf/explore/, and of exploring a table."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.config_run import RunConfig
from parallel_tunes.config_tracks import TracksConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    label: str = key(
        "auto: the labels that are known; none: do without; of a table: the column that holds them, or genres: families of data.artists",
        verbatim=True,
    )
    max_tracks: int = key(
        "of more tracks so many, drawn at random, are looked at where that takes long", low=10, high=1000000
    )
    num_shown: int = key("rows of each list on the page and in report.json; CSV files hold all", low=1, high=1000)
    folds: int = key("folds of the cross-validation that doubts labels", low=2, high=20)
    embedding: str = key("a second map of the tracks, beside that of PCA", choices=("none", "tsne"))
    seed: int = key("seed of sample, folds and embedding", low=0)


@dataclass(frozen=True, kw_only=True)
class ExploreTableJob:
    """EDA and PCA of a table of tracks, or any with columns of numbers → report"""

    explore: ExploreConfig
    data: TracksConfig
    run: RunConfig
