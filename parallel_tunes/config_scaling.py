"""The keys of conf/scaling/: what a scaling study measures, and where."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class AxesConfig:
    precision: tuple[str, ...] = key(
        "train.precision, each; [] for the one that is set", choices=("auto", "bf16", "fp16", "fp32", "fp64")
    )
    engines: tuple[int, ...] = key(
        "preprocessing too: parallel.engines, each, beside librosa in one process; [] for none",
        low=0,
        high=4096,
        may_be_empty=True,
    )
    shard_mib: tuple[float, ...] = key(
        "preprocess.shard_mib, each, with the engines; [] for the one that is set", low=0.1, may_be_empty=True
    )


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    mode: str = key(
        "strong: the batch is that of all GPUs; weak: that of each; target: time to scaling.target, a seed a launch",
        choices=("strong", "weak", "target"),
    )
    gpus: tuple[int, ...] = key(
        "numbers of GPUs; on a CPU ranks stand for them; [] to study preprocessing only", low=1, may_be_empty=True
    )
    batch: tuple[int, ...] = key("batches", low=1)
    axes: AxesConfig
    target: float | None = key("mode=target: the validation accuracy to reach", low=0, high=1)
    launches: int = key("independent starts of each cell; below 5 the study is called a quick look", low=1)
    windows: int = key("timed windows in a launch", low=1)
    window_s: float = key("length of a window, seconds", low=0.01, high=3600)
    ddp_baseline: bool = key("also measure one GPU with DistributedDataParallel, to see what that alone costs")
    peer_tracks: int = key("tracks that librosa transforms, at most", low=1)
    threads: int | None = key("on a CPU, threads a rank; default the cores shared by the most ranks", low=1)
    launcher: str = key(
        "local: one cell at a time, here or in this allocation; slurm: job arrays, and a job for the report",
        choices=("local", "slurm"),
    )
    exclusive: bool = key("on Slurm, ask for whole nodes")
    timeout_s: float = key("a launch that takes longer has failed, seconds", low=1)
    seed: int = key("seed of the order of the launches and of the intervals", low=0)
    print: bool = key("only list the cells, their commands and what they may cost")
    share: str | None = key("only the launches of this shape: what a task of a job array does", verbatim=True)
