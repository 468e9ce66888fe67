"""The keys of conf/explore/, and of exploring a table."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.config_run import RunConfig
from parallel_tunes.config_tracks import TracksConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    label: str = key(
        "auto: the known labels; none: no labels; for a table also a column, or genres: families of the genres in data.artists",
        verbatim=True,
    )
    max_tracks: int = key(
        "size of the random sample that features are computed from, where there are more tracks", low=10, high=1000000
    )
    num_shown: int = key(
        "entries of each list on the page and in report.json; duplicates.csv holds all", low=1, high=1000
    )
    seed: int = key("seed of the sample", low=0)


@dataclass(frozen=True, kw_only=True)
class ExploreTableJob:
    """EDA and PCA of a table of tracks, or any with columns of numbers → report"""

    explore: ExploreConfig
    data: TracksConfig
    run: RunConfig
