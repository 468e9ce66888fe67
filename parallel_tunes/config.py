"""Every key of every job: one frozen dataclass for each group of conf/. The values live in conf/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.config_scaling import ScalingConfig
from parallel_tunes.config_train import AugmentConfig, ModelConfig, TaskConfig, TrainConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    dir: Path | None = key("run folder; default logs/<job>/<run.name>")
    name: str | None = key("name of the run; default the Slurm job id, else the start time", verbatim=True)
    max_restarts: int = key("a job that Slurm has started again more often than this gives up", low=0)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    engines: int | str = key(
        "ipyparallel engines that share the preprocessing; 0: serially in this process; auto: whatever ends first",
        low=0, high=4096, choices=("auto",),
    )  # fmt: skip
    launcher: str = key(
        "where engines run: on this machine, or on Slurm's nodes, as a step of this job or as a job of their own",
        choices=("local", "slurm"),
    )
    ddp: str = key(
        "auto: gradients go through DistributedDataParallel where there are several ranks; always: with one too, to see what it costs",
        choices=("auto", "always"),
    )
    timeout_s: float = key("how long a rank waits for the others in a collective, seconds", low=1)


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
    max_mib: int = key("larger audio files are listed as failed, MiB", low=1)
    strict: bool = key("exit with code 1 if any file failed")
    part: str | None = key(
        "make only this share of the shards, 3/64 say, counted from 0; whoever makes the last one merges them",
        verbatim=True,
    )
    verify: bool = key("read all shards and compare their checksums before they are used")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    kind: str = key(
        "auto: grouped where groups are known, else stratified", choices=("auto", "stratified", "grouped", "lists")
    )
    train: float = key("share of the tracks to learn from", low=0, high=1)
    valid: float = key("share of the tracks to choose by", low=0, high=1)
    test: float = key("share of the tracks to judge by", low=0, high=1)
    seed: int = key("seed of the draw", low=0)
    drop_duplicates: bool = key("keep one of each set of byte-identical files")
    train_list: Path | None = key(
        "split=lists: text file of track names or paths, one a line; default the list's column `split`"
    )
    valid_list: Path | None = key("split=lists: likewise")
    test_list: Path | None = key("split=lists: likewise")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The front end: all that lies between a file and the numbers a model sees."""

    kind: str = key(
        "what shards hold: logmel, float16 spectrograms; waveform, int16 samples, transformed on the training's device",
        choices=("logmel", "waveform"),
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


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    shard_mib: float | None = key(
        "about how many MiB of features a shard holds; default a 64th of all, 16 to 256, and then as it was begun",
        low=0.1,
    )
    pictures: bool = key("also write spectrograms/<label>/<track>.png")


@dataclass(frozen=True, kw_only=True)
class SynthJob:
    """writes a synthetic corpus: ten procedural genres, each artist with a sound of its own"""

    kind: str = key("what to write", choices=("audio",))
    num_artists: int = key("artists in each genre", low=1, high=10000)
    tracks_per_artist: int = key("tracks by each artist", low=1, high=10000)
    duration_s: float = key("length of a track, seconds", low=0.1, high=3600)
    sample_rate_hz: int = key(
        "sampling rate, Hz; opus has 8000, 12000, 16000, 24000 and 48000 only, mp3 nothing above 48000",
        low=4000,
        high=192000,
    )
    format: str = key(
        "what files: wav, au and flac of 16 bits, or ogg (Vorbis), mp3, opus",
        choices=("wav", "au", "flac", "ogg", "mp3", "opus"),
    )
    channels: int = key("1: mono; 2: stereo, whose mix is the mono track", low=1, high=2)
    seed: int = key("seed of the corpus", low=0)
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class PreprocessJob:
    """audio → index + shards of log-mel spectrograms, on ipyparallel engines"""

    data: DataConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


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
class VerifyConfig:
    kill_at: tuple[str, ...] = key("disturbances, one a start: step:N, during:checkpoint, signal:USR1|TERM|INT")
    ranks: int | None = key("world size; default that of the allocation, else 1", low=1)
    resume_ranks: int | None = key("world size from the first restart on; default as before", low=1)
    tolerance: float = key(
        "largest relative difference where bits cannot be equal: on GPUs, or with verify.resume_ranks", low=0
    )


@dataclass(frozen=True, kw_only=True)
class VerifyJob(TrainJob):
    """disturbs a training, lets it go on, and proves it equal to an undisturbed one"""

    verify: VerifyConfig


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    split: str = key(
        "which tracks: a split as the model's training drew it, or all", choices=("train", "valid", "test", "all")
    )
    batch: int = key("evaluation windows at a time", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


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
class BenchmarkJob:
    """the project and its peers side by side on the same work → table; of your own music with data.root=PATH"""

    suite: str = key("what is measured", choices=("preprocess", "train", "threads"))
    benchmark: BenchmarkConfig
    data: DataConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    top_k: int = key("labels shown for each file", low=1)
    format: str = key("table, or json: one line of JSON before the report line", choices=("table", "json"))
    max_mib: int = key("larger files are refused, MiB", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class PredictJob:
    """files → top-k labels with probabilities: ptunes predict model=PATH -- a.mp3 "b (live).wav\""""

    model_path: Path | None = key("model folder: <train run>/model")
    files: tuple[Path, ...] = key("the files, given after --")
    predict: PredictConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class ResourcesConfig:
    nodes: int = key("number of nodes", low=1)
    gpus_per_node: int = key("GPUs a node, a rank each; 0 for none", low=0)
    tasks_per_node: int = key("without GPUs: ranks a node", low=1)
    cpus_per_task: int = key("CPUs a task", low=1)
    time: str = key("time limit: 2h, 90m, 1d12h, or as Slurm writes it", verbatim=True)
    partition: str | None = key("partition; default the cluster's", verbatim=True)
    account: str | None = key("account that pays", verbatim=True)
    qos: str | None = key("quality of service", verbatim=True)
    array: str | None = key("job array, 0-63 say: each task makes its share (preprocess)", verbatim=True)
    options: str = key("more options of sbatch, '--exclusive --mem=16G' say", verbatim=True)


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

    job: str = key("which job, one of slurm/*.sbatch", choices=("train", "preprocess", "scaling", "verify", "doctor"))
    resources: ResourcesConfig
    print: bool = key("only print the sbatch text")
    test: bool = key("only ask Slurm when it would start")
    follow: bool = key("then show its output until it ends")
    run: RunConfig
    words: tuple[str, ...] = ()  # the job's own, as they were given
    target: Any = None  # the job's own config


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    ranks: int | None = key("ranks to try; default those of the allocation, else 2", low=1)
    payload_mib: float = key("size of the all-reduce whose bandwidth is measured, MiB", low=0.001, high=4096)
    timeout_s: float = key("how long the ranks may take, seconds", low=5)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


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
    "benchmark": BenchmarkJob,
    "submit": SubmitJob,
    "doctor": DoctorJob,
}
