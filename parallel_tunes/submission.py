"""Submitting a job: what could go wrong is looked at first, then slurm/*.sbatch is filled in and handed to sbatch."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_tunes import history
from parallel_tunes.config import ScalingJob, SubmitJob, TrainJob
from parallel_tunes.config_run import ResourcesConfig
from parallel_tunes.data.shards import read_manifest
from parallel_tunes.files import explain
from parallel_tunes.names import run_folder
from parallel_tunes.parallel import partitions, slurm
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, shipped

POLL_S = 1.0
OUTPUT = Path("logs/slurm")


def render(cfg: SubmitJob) -> str:
    """The sbatch text of a job: slurm/<job>.sbatch with its resources, this checkout and its words filled in.

    Raises:
        UserError: a word holds a line break.
    """
    for word in cfg.words:
        if "\n" in word or "\r" in word:
            raise UserError(f"{word!r}: a value holds a line break; take it out")
    home = shipped("hpc").parent.resolve()
    array = "%A_%a" if cfg.resources.array else "%j"
    options = to_options(cfg.resources) | {"output": str(OUTPUT.resolve() / f"%x-{array}.out")}
    lines: list[str] = []
    at = 0
    for line in (shipped("slurm") / f"{cfg.job}.sbatch").read_text().splitlines():
        name = re.match(r"#SBATCH --([a-z-]+)", line)
        if name:
            value = options.pop(name[1], None)
            line = line if value is None else _directive(name[1], value)
            at = len(lines) + 1
        elif line.startswith("PT_HOME="):
            line = f"PT_HOME={shlex.quote(str(home))}"
            if not (home / "pyproject.toml").exists():  # installed from a wheel: its own Python is the environment
                line += f"; export PT_VENV=none PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
        elif line.startswith(("# ", "if [ /dev/stdout")):
            continue  # how the template itself is used, and where its output goes
        lines.append(line.replace('"$@"', shlex.join(cfg.words)))
    lines[at:at] = [_directive(name, value) for name, value in options.items() if value is not None]
    return "\n".join(lines).rstrip() + "\n"


def _directive(name: str, value: str) -> str:
    return f"#SBATCH --{name}" + (f"={value}" if value else "")


def to_options(wanted: ResourcesConfig) -> dict[str, str | None]:
    """Resources as options of sbatch; None where the template's own is to stand.

    Raises:
        UserError: an extra option is none.
    """
    extra = {}
    for word in wanted.options.split():
        name, _, value = word.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z-]+", name) or not re.fullmatch(r"[^\s\"'\\]*", value):
            raise UserError(f"resources.options: {word!r} is no option of sbatch such as --exclusive or --mem=16G")
        extra[name] = value
    return {
        "nodes": str(wanted.nodes),
        "gpus-per-node": str(wanted.gpus_per_node) if wanted.gpus_per_node else None,
        "ntasks-per-node": str(wanted.tasks_per_node),
        "cpus-per-task": str(wanted.cpus_per_task),
        "time": partitions.say_time(partitions.parse_time(wanted.time)),
        "partition": wanted.partition,
        "account": wanted.account,
        "qos": wanted.qos,
        "array": wanted.array,
        **extra,
    }


def check(cfg: SubmitJob, warn: Callable[[str], None]) -> None:
    """Look at all that would make the job fail hours later.

    Raises:
        UserError: the cluster, the data or the run folder will not do.
    """
    if not slurm.is_here():
        raise UserError(
            "sbatch is not on PATH: submit from a machine of the cluster, or try hpc/cluster/up on this one"
        )
    for line in partitions.check(cfg.resources):
        warn(line)
    check_data(cfg.target)
    _check_folder(cfg)


def check_data(target: Any) -> None:
    """Refuse data that is not there, or that this user cannot read."""
    data = getattr(target, "data", None)
    for name in ("root", "shards"):
        path = getattr(data, name, None)
        if path is None:
            continue
        try:
            path.stat()
            readable = os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
        except PermissionError:  # a folder above it
            readable = False
        except OSError as error:
            raise UserError(f"data.{name}={path}: {explain(error)}") from error
        if not readable:
            raise UserError(f"data.{name}={path}: cannot be read by you; ask its owner, or chmod")


def _check_folder(cfg: SubmitJob) -> None:
    run = cfg.target.run
    if run.dir is None and run.name is None:
        return  # named after the job: it will be new
    folder = run_folder(cfg.job, run.dir, run.name, started=time.time(), part=None)
    target = Run(cfg.job, cfg.target, folder, is_writer=False, started=time.time())
    report = target.inspect()
    if (
        report and report["status"] == "complete" and cfg.job not in ("preprocess", "scaling")
    ):  # these may find more to do
        raise UserError(f"{folder}: this run is complete already; choose another run.name, or remove it")
    for start in history.read_starts(folder)[-1:]:
        if start.get("ended") is None and start.get("job") and slurm.is_queued(start["job"]):
            raise UserError(f"{folder}: job {start['job']} is at work in it; choose another run.name, or wait")


def estimate(cfg: SubmitJob) -> str | None:
    """GPU-hours (CPU-hours without GPUs) that a training may take, from the last complete one of the same model."""
    wanted = cfg.resources
    if not isinstance(cfg.target, TrainJob) or isinstance(cfg.target, ScalingJob):
        return None
    reports = sorted(Path("logs/train").glob("*/report.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in reports:
        try:
            report = json.loads(path.read_text())
            same = report["status"] == "complete" and report["task"] == cfg.target.task.name
            rate, ranks = report["samples_per_s"], report["world_size"]
            tracks = _num_tracks(cfg.target) or report["metrics"]["train"]["n"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and rate:
            num_ranks = wanted.nodes * (wanted.gpus_per_node or wanted.tasks_per_node)
            crops = tracks * cfg.target.train.num_epochs * len(cfg.target.train.seeds)
            hours = crops / (rate * num_ranks / ranks) / 3600
            unit = "GPU-hours" if wanted.gpus_per_node else "CPU-hours"
            cost = hours * (
                num_ranks if wanted.gpus_per_node else wanted.nodes * wanted.tasks_per_node * wanted.cpus_per_task
            )
            slices = hours * 3600 / partitions.parse_time(wanted.time)
            more = f"; about {slices:.0f} time limits long, it will queue itself again" if slices > 1 else ""
            how = f"as {path.parent} did {rate:.0f} crops/s on {ranks} ranks, if speed grows with the ranks"
            return f"at most {cost:.2g} {unit} for {cfg.target.train.num_epochs} epochs of {tracks} tracks, {how}{more}"
    return None


def _num_tracks(target: TrainJob) -> int | None:
    """About how many tracks a training learns from, where its shards are named."""
    manifest = read_manifest(target.data.shards) if target.data.shards else None
    return round(manifest["num_tracks"] * target.split.train) if manifest else None


def submit(text: str, *, test: bool = False) -> str:
    """Hand a text to sbatch; the job's number, or with `test` when it would start.

    Raises:
        UserError: Slurm refuses it, with Slurm's reason.
    """
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if test:
        return slurm.ask("sbatch", "--test-only", text=text, say_errors=True).strip().removeprefix("sbatch: ")
    return slurm.ask("sbatch", "--parsable", text=text).strip().partition(";")[0]


def follow(job: str, output: Path, write: Callable[[str], object]) -> str:
    """Pass a job's output on until it has left the queue; its last state."""
    place, state = 0, "PENDING"
    while True:
        latest = slurm.job_state(job)
        state = latest or state
        if output.exists():
            with output.open("rb") as stream:
                stream.seek(place)
                text = stream.read()
                place += len(text)
                write(text.decode(errors="replace"))
        if latest is None or latest in slurm.FINAL:
            return state
        time.sleep(POLL_S)
