"""The keys of learning from tables of listens: task=relisten, data=kkbox, model=relisten and synth kind=listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.config_run import ParallelConfig, RunConfig, SplitConfig
from parallel_tunes.config_train import TrainConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class ListensConfig:
    kind: str = key("where the tables come from", choices=("kkbox",))
    root: Path | None = key("folder of train, songs, members, song_extra_info and perhaps test, each .csv or .csv.gz")
    columns: Path | None = key("a preprocess run's folder; default: looked for under logs/preprocess")
    threads: int = key(
        "threads that read; 0: one for each core. The columns are the same for any number", low=0, high=1024
    )
    max_mib: int = key("tables that are larger when unpacked are refused, MiB", low=1)
    max_rows: int = key("longer tables are refused, rows", low=1)


@dataclass(frozen=True, kw_only=True)
class ListenFeaturesConfig:
    """What a listen is told by besides its columns."""

    kind: str = key(
        "static: nothing more; causal: what went before it, counts and rates of its user, song, artist …; "
        "transductive: also counts of all rows, later ones too, which no service has",
        choices=("static", "causal", "transductive"),
    )
    smoothing: float = key("causal: rows' worth of the rate above it that each rate is drawn to", low=0.01, high=10000)
    delay: int = key("causal: rows that pass before it is known whether a user listened again", low=0)


@dataclass(frozen=True, kw_only=True)
class RelistenConfig:
    name: str = key("what is learnt: whether a user listens to a song again", choices=("relisten",))
    resamples: int = key("bootstrap resamples, of users, behind each interval", low=20, high=100000)
    warm: int = key("a user or a song counts as well known from so many earlier rows on", low=1)


@dataclass(frozen=True, kw_only=True)
class RelistenModelConfig:
    name: str = key(
        "relisten: a bag of embeddings, or relisten_seed: embeddings side by side, in the columns alone",
        choices=("relisten", "relisten_seed"),
    )
    width: int = key("of each column's embedding", low=4, high=1024)
    hidden: tuple[int, int] = key("outputs of the first two of three linear layers", low=2, high=4096)
    factors: int = key("relisten: numbers whose products of user and song are added", low=0, high=256)
    min_count: int = key("words in fewer training rows share embeddings, by chance, with others", low=1)
    buckets: int = key("embeddings of a column that such words share", low=1, high=1_000_000)


@dataclass(frozen=True, kw_only=True)
class PreprocessListensJob:
    """tables of listens → typed, memory-mapped columns"""

    data: ListensConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class RelistenJob:
    """learns from tables of listens whether a user listens to a song again"""

    task: RelistenConfig
    model: RelistenModelConfig
    data: ListensConfig
    split: SplitConfig
    features: ListenFeaturesConfig
    train: TrainConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class ListenLadderJob(RelistenJob):
    """the same network under leaky and clean protocols: random, time, causal and transductive → table"""

    suite: str = key("what is measured", choices=("splits",))
    benchmark: BenchmarkConfig


@dataclass(frozen=True, kw_only=True)
class JudgeListensConfig:
    split: str = key("which rows: a split as the model's training drew it", choices=("train", "valid", "test"))
    resamples: int = key("bootstrap resamples, of users, behind each interval", low=20, high=100000)
    warm: int = key("a user or a song counts as well known from so many earlier rows on", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class EvaluateListensJob:
    """a model folder of task=relisten on a split → report"""

    model_path: Path | None = key("model folder: <train run>/model")
    evaluate: JudgeListensConfig
    data: ListensConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class SynthListensJob:
    """writes KKBOX's five tables, in which what makes users listen again is planted"""

    kind: str = key("what to write: audio, tracks, or listens, tables of them", choices=("listens",))
    num_rows: int = key("listens", low=100, high=100_000_000)
    num_users: int | None = key("members; null: one for 200 listens", low=4, high=10_000_000)
    num_songs: int | None = key("songs; null: one for 20 listens", low=4, high=100_000_000)
    missing: float = key("share of songs that songs.csv and song_extra_info.csv lack", low=0, high=1)
    seed: int = key("seed of the tables", low=0)
    run: RunConfig
