"""The keys of learning from tables of tracks: task=popularity, data=spotify, model=hinge, learner=… and synth kind=tracks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.config_run import ParallelConfig, RunConfig, SplitConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class TracksConfig:
    kind: str = key("where the table comes from", choices=("spotify",))
    root: Path | None = key("table of tracks: a CSV or parquet file, or a folder of them")
    artists: Path | None = key(
        "table of artists and their genres, for task.target=genre; default artists_with_genres.csv beside the tracks"
    )
    group: str = key(
        "what no split divides: linked, artists and all they have recorded with; main, the first artist of each track",
        choices=("linked", "main"),
    )
    leaks: str = key(
        "rows of the same or nearly the same numbers that train and a split it is judged by share: drop leaves them out of the former",
        choices=("fail", "warn", "drop"),
    )
    drop_bad: bool = key(
        "leave out, and count, rows with a value that is missing, no number or infinite; else refuse, or explore all the same"
    )
    max_mib: int = key("larger tables are refused, MiB", low=1)
    max_rows: int = key("longer tables are refused, rows", low=1)


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    name: str = key("what is learnt", choices=("popularity",))
    target: str = key(
        "binary: whether a track is above the threshold; regression: how popular it is; genre: its family, one against the rest",
        choices=("binary", "regression", "genre"),
    )
    threshold: float | str = key(
        "binary: tracks more popular than this are; median: that of the training tracks",
        low=0,
        high=100,
        choices=("median",),
    )
    features: tuple[str, ...] = key(
        "columns learnt from; [audio]: Spotify's ten; [descriptors]: the 57; [all]: all that are numbers"
    )
    year: bool = key("learn from the year of release too, which gives most of the popularity away")
    num_genres: int = key("genre: so many families, the most frequent among the training tracks", low=2, high=1000)
    resamples: int = key("bootstrap resamples behind each interval", low=20, high=100000)
    refits: int = key("bootstrap fits behind the coefficients' intervals", low=20, high=100000)


@dataclass(frozen=True, kw_only=True)
class HingeConfig:
    name: str = key("model: a linear support vector machine", choices=("hinge",))
    loss: str = key("hinge, or its square", choices=("hinge", "squared_hinge"))
    C: float | str = key(
        "what errors cost beside the weights, their sum as in scikit-learn; auto: the best of learner.candidates in cross-validation",
        low=1e-9, high=1e9, choices=("auto",),
    )  # fmt: skip
    class_weight: str = key(
        "balanced: errors cost more in rarer classes, as in scikit-learn", choices=("none", "balanced")
    )
    epsilon: float = key(
        "regression: errors below this are forgiven, standard deviations of the target", low=0, high=10
    )


@dataclass(frozen=True, kw_only=True)
class MarginConfig:
    name: str = key("back end", choices=("numba", "numpy", "cuda", "sklearn"))
    solver: str = key(
        "newton or gradient, by numba, numpy and cuda; linearsvc, svc or sgd, by sklearn",
        choices=("newton", "gradient", "linearsvc", "svc", "sgd"),
    )
    tolerance: float = key("relative duality gap at which every solver stops", low=1e-12, high=1)
    max_iterations: int = key("most passes over the data", low=1)
    max_s: float = key("most seconds a fit", low=0.001)
    precision: str = key("auto: fp32 where the tolerance allows it", choices=("auto", "fp32", "fp64"))
    folds: int = key("folds of the cross-validation inside the training tracks", low=2, high=100)
    candidates: tuple[float, ...] = key("values of model.C that it chooses from", low=1e-9, high=1e9)
    svc_rows: int = key("svc: most training rows, drawn at random, since its time grows with their square", low=10)
    seed: int = key("seed of folds, samples and resamples", low=0)
    device: str = key(
        "where tensors of several ranks are: SVMs use the CPU, learner=cuda its own GPU", choices=("cpu",)
    )


@dataclass(frozen=True, kw_only=True)
class SynthTracksJob:
    """writes tables of tracks and artists in Spotify's schema, in which what makes a track popular is planted"""

    kind: str = key("what to write: audio, or tracks, tables of them", choices=("tracks",))
    num_tracks: int = key("rows of the table", low=4, high=100_000_000)
    num_artists: int = key("artists, each with several tracks", low=2, high=10_000_000)
    num_genres: int = key("families of genres", low=2, high=8)
    artist_effect: float = key(
        "how much an artist adds to the popularity of its tracks, whatever the music; in tens", low=0, high=10
    )
    year_effect: float = key("how much fifteen years add, in tens", low=-10, high=10)
    noise: float = key("standard deviation of what nothing explains, in tens", low=0, high=10)
    label_noise: float = key("share of tracks whose popularity is mirrored at 50", low=0, high=1)
    dirty: float = key("share of rows that hold what no table should", low=0, high=0.5)
    seed: int = key("seed of the tables", low=0)
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class PopularityJob:
    """learns popularity, or genre, from a table of tracks by a support vector machine"""

    task: PopularityConfig
    model: HingeConfig
    learner: MarginConfig
    data: TracksConfig
    split: SplitConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class JudgeTracksConfig:
    split: str = key(
        "which tracks: a split as the model's training drew it, or all", choices=("train", "valid", "test", "all")
    )
    resamples: int = key("bootstrap resamples behind each interval", low=20, high=100000)


@dataclass(frozen=True, kw_only=True)
class EvaluateTracksJob:
    """a model folder of task=popularity on a table → report"""

    model_path: Path | None = key("model folder: <train run>/model")
    evaluate: JudgeTracksConfig
    data: TracksConfig
    run: RunConfig
