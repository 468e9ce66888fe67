"""Every key of every job: one frozen dataclass for each group of conf/. The values live in conf/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_tunes import config_export, config_listens
from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.config_explore import ExploreConfig, ExploreTableJob
from parallel_tunes.config_run import (
    DoctorConfig,
    JudgeConfig,
    ParallelConfig,
    PredictConfig,
    ResourcesConfig,
    RunConfig,
    SplitConfig,
)
from parallel_tunes.config_scaling import ScalingConfig
from parallel_tunes.config_serve import ServeJob
from parallel_tunes.config_svm import GenreTableConfig, SvmConfig
from parallel_tunes.config_synth import SynthJob
from parallel_tunes.config_tracks import EvaluateTracksJob, PopularityJob, SynthTracksJob
from parallel_tunes.config_train import AugmentConfig, ModelConfig, TaskConfig, TrainConfig, VerifyConfig
from parallel_tunes.schema import key

PICTURE_MAPS = ("auto", "magma", "inferno", "plasma", "viridis", "cividis", "grey")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    kind: str = key("where tracks come from", choices=("synthetic", "folder"))
    root: Path | None = key(
        "folder <label>/<file>, or a CSV or parquet list with columns path, label[, group][, split]"
    )
    shards: Path | None = key("a preprocess run's folder; default: looked for under logs/preprocess")
    group_regex: str | None = key(
        "regular expression on the path; its first group is the track's group, the artist say", verbatim=True
    )
    media: str = key(
        "what is taken of a folder: auto, whichever of audio and spectrogram pictures is there",
        choices=("auto", "audio", "pictures"),
    )
    merge_labels: bool = key("labels that differ in case, blanks or Unicode form alone are one")
    max_mib: int = key("larger files are listed as failed, MiB", low=1)
    strict: bool = key("exit with code 1 if any file failed")
    verify: bool = key("read all shards and compare their checksums before they are used")
    leaks: str = key(
        "recordings or artists that train and a split it is judged by share: drop leaves them out of the former",
        choices=("fail", "warn", "drop"),
    )


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The front end: all that lies between a file and the numbers a model sees."""

    kind: str = key(
        "what shards hold: logmel or picture, float16 spectrograms; waveform, int16 samples, transformed where the model is trained; "
        "descriptors, 57 numbers a track, for learner=svm",
        choices=("logmel", "waveform", "picture", "descriptors"),
    )
    sample_rate_hz: int = key("audio is mixed to mono and resampled to this, Hz", low=1000, high=384000)
    n_fft: int = key("window and FFT length, samples", low=16, high=65536)
    hop_length: int = key("samples between frames", low=1, high=65536)
    num_mels: int = key("mel bands", low=1, high=1024)
    mel_scale: str = key("scale of the mel bands", choices=("slaney", "htk"))
    fmin_hz: float = key("lowest frequency, Hz", low=0)
    fmax_hz: float | None = key("highest frequency, Hz; default half the sampling rate", low=1)
    top_db: float = key("levels are floored this far below the clip's maximum, dB", low=1)
    normalise: str = key("peak: scale the clip to a peak of 1", choices=("peak", "none"))
    clip_s: float | None = key("seconds of a track that are used; null uses all of it", low=0.1)
    trim: bool = key("cut longer tracks to their first clip_s seconds; false lists them as failed")
    pad: bool = key("pad shorter tracks with silence to clip_s")
    min_s: float = key("shorter tracks are listed as failed, seconds", low=0)
    picture_s: float = key("pictures: seconds that the width of one stands for", low=0.1)
    picture_frames: int | None = key("pictures: frames that a width becomes; default most's pixels", low=8, high=16384)
    picture_map: str = key(
        "pictures: the colour map, reversed with _r; auto looks",
        choices=tuple(name + end for end in ("", "_r") for name in PICTURE_MAPS),
    )
    picture_origin: str = key("pictures: low frequencies are at the bottom (lower) or top", choices=("lower", "upper"))


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    shard_mib: float | None = key(
        "about how many MiB of features (of samples, for descriptors) a shard holds; default a 64th of all, 16 to 256, and then "
        "as it was begun",
        low=0.1,
    )
    pictures: bool = key("also write spectrograms/<label>/<track>.png")


@dataclass(frozen=True, kw_only=True)
class PreprocessJob:
    """audio → index + shards of log-mel spectrograms, on ipyparallel engines"""

    data: DataConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class ExploreJob(PreprocessJob):
    """EDA and PCA of audio, spectrogram pictures or tables → report"""

    explore: ExploreConfig


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """trains a model; goes on by itself when its run folder holds a checkpoint"""

    task: TaskConfig
    model: ModelConfig
    data: DataConfig
    split: SplitConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    augment: AugmentConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class GenreSvmJob:
    """learns genres from a table of descriptors, or from tracks of which they are made, by support vector machines"""

    task: GenreTableConfig
    learner: SvmConfig
    data: DataConfig
    split: SplitConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class VerifyJob(TrainJob):
    """disturbs a training, lets it go on, and proves it equal to an undisturbed one"""

    verify: VerifyConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """a model folder on a split → report"""

    model_path: Path | None = key("model folder: <train run>/model")
    evaluate: JudgeConfig
    data: DataConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """model folder → ONNX, and the same in 8-bit integers, both compared with torch; judged too where there is data"""

    model_path: Path | None = key("model folder: <train run>/model")
    export: config_export.ExportConfig
    data: DataConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class BenchmarkJob:
    """the project and its peers side by side on the same work → table; of your own music with data.root=PATH"""

    suite: str = key("what is measured", choices=("preprocess", "train", "svm", "tables", "serve"))
    benchmark: BenchmarkConfig
    data: DataConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class GenreLadderJob(TrainJob):
    """the same model under leaky and clean protocols: segments or tracks at random, without duplicates, artists apart → table"""

    suite: str = key("what is measured", choices=("splits",))


@dataclass(frozen=True, kw_only=True)
class PredictJob:
    """files → top-k labels with probabilities: ptunes predict model=PATH -- a.mp3 "b (live).wav\""""

    model_path: Path | None = key("model folder: <train run>/model")
    files: tuple[Path, ...] = key("the files, or folders of them, given after --")
    user: str | None = key("task=relisten: a user, whose top_k songs to play next are told", verbatim=True)
    predict: PredictConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class ScalingJob(TrainJob):
    """sweeps GPUs × batch, of a training or preprocessing, here or on Slurm → speed-up, cost, a recommendation"""

    scaling: ScalingConfig
    resources: ResourcesConfig
    report: Path | None = key("a study's folder: draw its report again from what is there, and run nothing")
    compare: tuple[Path, ...] = key("two studies' folders, [A,B]: how many times faster B is than A, cell by cell")


@dataclass(frozen=True, kw_only=True)
class SubmitJob:
    """checks a job, estimates what it costs and hands it to Slurm; all other keys are the job's own"""

    job: str = key(
        "which job, one of slurm/*.sbatch", choices=("train", "preprocess", "scaling", "verify", "doctor", "serve")
    )
    resources: ResourcesConfig
    print: bool = key("only print the sbatch text")
    test: bool = key("only ask Slurm when it would start")
    follow: bool = key("then show its output until it ends")
    run: RunConfig
    words: tuple[str, ...] = ()  # the job's own, as they were given
    target: Any = None  # the job's own config


@dataclass(frozen=True, kw_only=True)
class DoctorJob:
    """pre-flight check of this machine or this allocation: a line a check, ok or what to do"""

    doctor: DoctorConfig
    run: RunConfig


JOBS: dict[str, type[Any]] = {
    "synth": SynthJob,
    "preprocess": PreprocessJob,
    "train": TrainJob,
    "verify": VerifyJob,
    "scaling": ScalingJob,
    "evaluate": EvaluateJob,
    "predict": PredictJob,
    "serve": ServeJob,
    "export": ExportJob,
    "benchmark": BenchmarkJob,
    "explore": ExploreJob,
    "submit": SubmitJob,
    "doctor": DoctorJob,
}
# what a job is with this word: other keys, and conf/<name>.yaml; the run is one of the job all the same. Of several words
# the one that comes first here counts
VARIANTS: dict[tuple[str, str], str] = {
    ("train", "task=popularity"): "popularity",
    ("train", "data=spotify"): "popularity",
    ("evaluate", "data=spotify"): "evaluate_tracks",
    ("synth", "kind=tracks"): "synth_tracks",
    ("train", "learner=svm"): "genre_svm",
    ("train", "task=relisten"): "relisten",
    ("train", "data=kkbox"): "relisten",
    ("preprocess", "data=kkbox"): "preprocess_listens",
    ("evaluate", "data=kkbox"): "evaluate_listens",
    ("synth", "kind=listens"): "synth_listens",
    ("export", "data=kkbox"): "export_listens",
    ("benchmark", "task=relisten"): "listen_ladder",
    ("benchmark", "suite=splits"): "genre_ladder",
    ("explore", "data=spotify"): "explore_table",
}
CONFIGS: dict[str, type[Any]] = {
    **JOBS,
    "popularity": PopularityJob,
    "evaluate_tracks": EvaluateTracksJob,
    "synth_tracks": SynthTracksJob,
    "genre_svm": GenreSvmJob,
    "relisten": config_listens.RelistenJob,
    "preprocess_listens": config_listens.PreprocessListensJob,
    "evaluate_listens": config_listens.EvaluateListensJob,
    "synth_listens": config_listens.SynthListensJob,
    "export_listens": config_export.ExportListensJob,
    "listen_ladder": config_listens.ListenLadderJob,
    "genre_ladder": GenreLadderJob,
    "explore_table": ExploreTableJob,
}
