"""Every key of every job: one frozen dataclass for each group of conf/, with its meaning and its bounds.

The values live in conf/*.yaml; this page holds types, meanings and checks. `build` turns a plain tree of values into
a job's dataclass or says in one line which key is wrong and how to mend it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

Config = TypeVar("Config")


class UserError(Exception):
    """What the user can mend, in one line. The door prints it and exits with code 2."""


def key(
    meaning: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = (), verbatim: bool = False
) -> Any:
    """A config key: its meaning, its inclusive bounds or choices; `verbatim` keeps its text away from Hydra's grammar."""
    return field(metadata={"meaning": meaning, "low": low, "high": high, "choices": choices, "verbatim": verbatim})


@dataclass(frozen=True)
class RunConfig:
    dir: Path | None = key("run folder; default logs/<job>/<run.name>")
    name: str | None = key("name of the run; default the Slurm job id, else the start time", verbatim=True)


@dataclass(frozen=True)
class ParallelConfig:
    engines: int = key("ipyparallel engines that share the preprocessing; 0 maps serially in this process", low=0, high=4096)
    timeout_s: float = key("how long a rank waits for the others in a collective, seconds", low=1)


@dataclass(frozen=True)
class DataConfig:
    kind: str = key("where tracks come from", choices=("synthetic", "folder"))
    root: Path | None = key("folder <label>/<file>, or a CSV or parquet list with columns path, label[, group][, split]")
    shards: Path | None = key("a preprocess run's folder; default: looked for under logs/preprocess")
    group_regex: str | None = key("regular expression on the path; its first group is the track's group, the artist say", verbatim=True)
    max_mib: int = key("larger audio files are listed as failed, MiB", low=1)


@dataclass(frozen=True)
class SplitConfig:
    kind: str = key("auto: grouped where groups are known, else stratified", choices=("auto", "stratified", "grouped", "lists"))
    train: float = key("share of the tracks to learn from", low=0, high=1)
    valid: float = key("share of the tracks to choose by", low=0, high=1)
    test: float = key("share of the tracks to judge by", low=0, high=1)
    seed: int = key("seed of the draw", low=0)
    drop_duplicates: bool = key("keep one of each set of byte-identical files")
    train_list: Path | None = key("split=lists: text file of track names or paths, one a line; default the list's column `split`")
    valid_list: Path | None = key("split=lists: likewise")
    test_list: Path | None = key("split=lists: likewise")


@dataclass(frozen=True)
class FeaturesConfig:
    """The front end: all that lies between a file and the numbers a model sees."""

    kind: str = key("which features", choices=("logmel",))
    sample_rate_hz: int = key("audio is mixed to mono and resampled to this, Hz", low=1000, high=384000)
    n_fft: int = key("window and FFT length, samples", low=16, high=65536)
    hop_length: int = key("samples between frames", low=1, high=65536)
    num_mels: int = key("mel bands (Slaney's scale)", low=1, high=1024)
    fmin_hz: float = key("lowest frequency, Hz", low=0)
    fmax_hz: float | None = key("highest frequency, Hz; default half the sampling rate", low=1)
    top_db: float = key("levels are floored this far below the clip's maximum, dB", low=1)
    normalise: str = key("peak: scale the clip to a peak of 1", choices=("peak", "none"))
    clip_s: float | None = key("seconds of a track that are used; null uses all of it", low=0.1)
    trim: bool = key("cut longer tracks to their first clip_s seconds; false lists them as failed")
    pad: bool = key("pad shorter tracks with silence to clip_s")
    min_s: float = key("shorter tracks are listed as failed, seconds", low=0)


@dataclass(frozen=True)
class PreprocessConfig:
    shard_mib: float = key("about how many MiB of features one shard file holds", low=0.1)
    pictures: bool = key("also write spectrograms/<label>/<track>.png")


@dataclass(frozen=True)
class TaskConfig:
    name: str = key("what is learnt", choices=("genre",))
    crop_s: float = key("length of a training crop and of an evaluation window, seconds", low=0.05)
    overlap: float = key("overlap of neighbouring evaluation windows, as a share of the window", low=0, high=0.95)


@dataclass(frozen=True)
class ModelConfig:
    name: str = key("architecture", choices=("genre_cnn",))
    widths: tuple[int, ...] = key("channels of the convolution blocks", low=1, high=4096)


@dataclass(frozen=True)
class TrainConfig:
    num_epochs: int = key("most passes over the training tracks", low=1)
    batch: int = key("global batch: tracks a step over all ranks", low=1)
    lr: float = key("AdamW's highest learning rate", low=0)
    weight_decay: float = key("AdamW's decoupled weight decay", low=0)
    warmup: float = key("share of all steps over which the learning rate rises; then a cosine to zero", low=0, high=1)
    patience: int = key("stop after this many epochs without a lower validation loss", low=1)
    seeds: tuple[int, ...] = key("one training for each; the report gives their mean", low=0)
    precision: str = key("auto: bf16 where the hardware has it, else fp32", choices=("auto", "bf16", "fp32"))
    checkpoint_every: int = key("steps between checkpoints within an epoch; 0: at the ends of epochs only", low=0)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class SynthJob:
    """writes a synthetic corpus: ten procedural genres, each artist with a sound of its own"""

    kind: str = key("what to write", choices=("audio",))
    num_artists: int = key("artists in each genre", low=1, high=10000)
    tracks_per_artist: int = key("tracks by each artist", low=1, high=10000)
    duration_s: float = key("length of a track, seconds", low=0.1, high=3600)
    sample_rate_hz: int = key("sampling rate of the WAV files, Hz", low=4000, high=192000)
    seed: int = key("seed of the corpus", low=0)
    run: RunConfig


@dataclass(frozen=True)
class PreprocessJob:
    """audio → index + shards of log-mel spectrograms, on ipyparallel engines"""

    data: DataConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True)
class TrainJob:
    """trains a model; goes on by itself when its run folder holds a checkpoint"""

    task: TaskConfig
    model: ModelConfig
    data: DataConfig
    split: SplitConfig
    features: FeaturesConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True)
class JudgeConfig:
    split: str = key("which tracks: a split as the model's training drew it, or all", choices=("train", "valid", "test", "all"))
    batch: int = key("evaluation windows at a time", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class EvaluateJob:
    """a model folder on a split → report"""

    model_path: Path | None = key("model folder: <train run>/model")
    evaluate: JudgeConfig
    data: DataConfig
    preprocess: PreprocessConfig
    parallel: ParallelConfig
    run: RunConfig


@dataclass(frozen=True)
class PredictConfig:
    top_k: int = key("labels shown for each file", low=1)
    format: str = key("table, or json: one line of JSON before the report line", choices=("table", "json"))
    max_mib: int = key("larger files are refused, MiB", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class PredictJob:
    """files → top-k labels with probabilities: ptunes predict model=PATH -- a.mp3 "b (live).wav\""""

    model_path: Path | None = key("model folder: <train run>/model")
    files: tuple[Path, ...] = key("the files, given after --")
    predict: PredictConfig
    run: RunConfig


JOBS: dict[str, type[Any]] = {
    "synth": SynthJob,
    "preprocess": PreprocessJob,
    "train": TrainJob,
    "evaluate": EvaluateJob,
    "predict": PredictJob,
}


@dataclass(frozen=True)
class Key:
    """A leaf of a job's config: its dotted name, its type, its meaning and bounds."""

    name: str
    kind: Any
    meaning: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    verbatim: bool


def keys_of(config: type[Any], prefix: str = "") -> Iterator[Key]:
    """All leaves of a config dataclass, in order."""
    hints = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        kind, name = hints[entry.name], prefix + entry.name
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from keys_of(kind, name + ".")
        else:
            verbatim = entry.metadata["verbatim"] or Path in (kind, *typing.get_args(kind))
            facts = {fact: entry.metadata[fact] for fact in ("meaning", "low", "high", "choices")}
            yield Key(name, kind, **facts, verbatim=verbatim)


def suggest(word: str, known: list[str]) -> str:
    """` (did you mean …?)` for a word that is nearly one of `known`, else nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def build(config: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """A config dataclass from a plain tree of values.

    Raises:
        UserError: a key is unknown, missing, of the wrong type or out of its bounds.
    """
    known = {entry.name: entry for entry in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UserError(f"unknown key {prefix}{name}{suggest(str(name), list(known))}")
    leaves = {leaf.name: leaf for leaf in keys_of(config)}
    hints = typing.get_type_hints(config)
    built: dict[str, Any] = {}
    for name in known:
        if name not in values:
            raise UserError(f"{prefix}{name} is missing: give it a value")
        if name in leaves:
            built[name] = convert(leaves[name], values[name], prefix + name)
        elif isinstance(values[name], Mapping):
            built[name] = build(hints[name], values[name], prefix + name + ".")
        else:
            raise UserError(f"{prefix}{name}={values[name]}: this is a group of keys, or names a file of conf/{name}/")
    return config(**built)


def convert(leaf: Key, value: Any, name: str) -> Any:
    """`value` as the type of `leaf`, within its bounds."""
    kind, optional = leaf.kind, False
    if isinstance(kind, types.UnionType):
        optional = True
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if value is None:
        if optional:
            return None
        raise UserError(f"{name}=null: {_expected(leaf, kind)}")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or (leaf.low is not None and not value):
            raise UserError(f"{name}={value}: expected a list such as [1,2]")
        return tuple(_scalar(leaf, typing.get_args(kind)[0], entry, name) for entry in value)
    return _scalar(leaf, kind, value, name)


def _scalar(leaf: Key, kind: Any, value: Any, name: str) -> Any:
    wrong = UserError(f"{name}={value}: {_expected(leaf, kind)}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
    elif kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and not float(value).is_integer()):
            raise wrong
        if not math.isfinite(value) or (leaf.low is not None and value < leaf.low) or (leaf.high is not None and value > leaf.high):
            raise wrong
        value = kind(value)
    elif kind is Path:
        if not str(value) or "\0" in str(value):
            raise UserError(f"{name}: a path cannot be empty")
        value = Path(str(value))
    elif leaf.choices and value not in leaf.choices:
        raise UserError(f"{name}={value}: {_expected(leaf, kind)}{suggest(str(value), list(leaf.choices))}")
    elif not isinstance(value, str):
        value = str(value)  # run.name=7 is a name
    return value


def _expected(leaf: Key, kind: Any) -> str:
    if leaf.choices:
        return "expected one of " + ", ".join(leaf.choices)
    noun = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}[kind]
    if leaf.low is not None and leaf.high is not None:
        return f"expected {noun} from {leaf.low:g} to {leaf.high:g}"
    return f"expected {noun}" + (f" of at least {leaf.low:g}" if leaf.low is not None else "")


def to_plain(config: Any) -> Any:
    """A config dataclass as a tree of JSON values."""
    if dataclasses.is_dataclass(config):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def conf_folder() -> Path:
    """conf/ of this checkout, or the copy that ships in the wheel."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def defaults(group: str, option: str) -> dict[str, Any]:
    """The values of conf/<group>/<option>.yaml."""
    values: dict[str, Any] = yaml.safe_load((conf_folder() / group / f"{option}.yaml").read_text())
    return values
