"""The keys that jobs of several kinds share: conf/run/, conf/parallel/, conf/resources/, conf/split/ and conf/evaluate/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    dir: Path | None = key("run folder; default logs/<job>/<run.name>")
    name: str | None = key("name of the run; default the Slurm job id, else the start time", verbatim=True)
    page: bool = key("false: no report.html, figures and lists beside report.json, which take a second or two")
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
class SplitConfig:
    kind: str = key(
        "auto: grouped where groups are known, else stratified; tables of tracks also random and time, the newest to judge by; "
        "gtzan_fault_filtered: the published lists of GTZAN, by the names of its tracks",
        choices=("auto", "stratified", "grouped", "lists", "random", "time", "gtzan_fault_filtered"),
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
class DoctorConfig:
    ranks: int | None = key("ranks to try; default those of the allocation, else 2", low=1)
    payload_mib: float = key("size of the all-reduce whose bandwidth is measured, MiB", low=0.001, high=4096)
    timeout_s: float = key("how long the ranks may take, seconds", low=5)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    files_from: Path | None = key(
        "a list of more files: text, one a line, or CSV or parquet with a column path; relative to where it lies"
    )
    top_k: int = key("labels told of each file, or songs of a user", low=1)
    output: str = key("what predictions.* is written as, a row a file", choices=("csv", "jsonl", "parquet"))
    format: str = key(
        "what is printed: a table, or json: one line of JSON before the report line", choices=("table", "json")
    )
    max_mib: int = key("larger files are refused, MiB", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    split: str = key(
        "which tracks: a split as the model's training drew it, or all", choices=("train", "valid", "test", "all")
    )
    batch: int = key("evaluation windows at a time", low=1)
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))
