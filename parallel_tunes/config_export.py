"""The keys of export, except those of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.config_listens import ListensConfig
from parallel_tunes.config_run import RunConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class RuntimesConfig:
    tolerance: float = key(
        "largest difference in probability from torch; where one is larger nothing is written and the exit code is 1",
        low=0, high=1,
    )  # fmt: skip
    rounds: int = key("timings of each runtime, one of each in turn", low=5, high=1000)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(RuntimesConfig):
    split: str = key(
        "where there is data, what float32 and int8 are judged by: a split as the model's training drew it, or all",
        choices=("train", "valid", "test", "all"),
    )
    max_tracks: int = key("of a larger split so many tracks, evenly spread over it, are decoded and judged", low=1)
    num_windows: int = key("without data: windows of noise and tones, or rows, that runtimes are compared on", low=1)
    seed: int = key("seed of noise and tones", low=0)


@dataclass(frozen=True, kw_only=True)
class ExportListensConfig(RuntimesConfig):
    split: str = key(
        "which rows float32 and int8 are judged by: a split as the model's training drew it",
        choices=("train", "valid", "test"),
    )
    resamples: int = key("bootstrap resamples, of users, behind each interval", low=20, high=100000)


@dataclass(frozen=True, kw_only=True)
class ExportListensJob:
    """a model of task=relisten → ONNX, and its embeddings as 8-bit integers, AUC before and after"""

    model_path: Path | None = key("model folder: <train run>/model")
    export: ExportListensConfig
    data: ListensConfig
    run: RunConfig
