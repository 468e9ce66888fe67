"""Names of runs and the folders they mean: the same after every requeue of a Slurm job."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from parallel_tunes.schema import UserError


def job_id(env: Mapping[str, str] = os.environ) -> str | None:
    """What Slurm's commands call this job; None outside of one.

    A task of an array has a number of its own in SLURM_JOB_ID, but one of them that of the array: by it, all tasks would be
    queued again or cancelled.
    """
    if env.get("SLURM_ARRAY_JOB_ID") and env.get("SLURM_ARRAY_TASK_ID"):
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID")


def default_name(job: str, started: float, part: int | None) -> str:
    """The name of a run: its Slurm job, else when it started; `part` numbers the runs of a sweep.

    The tasks of a job array are runs of their own, but for preprocessing, which they share.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID") if job == "preprocess" else None
    name = array or job_id() or name_by_time(started)
    return name if part is None else f"{name}-{part}"


def name_by_time(moment: float) -> str:
    """A name that says when, to the millisecond."""
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(moment)) + f"-{int(moment * 1000) % 1000:03d}"


def run_folder(job: str, folder: Path | None, name: str | None, *, started: float, part: int | None) -> Path:
    """The run folder that `run.dir` and `run.name` mean.

    Raises:
        UserError: run.name is no plain file name.
    """
    if folder is not None:
        return folder if part is None else folder / str(part)
    if name is None:
        return Path("logs") / job / default_name(job, started, part)
    if not re.fullmatch(r"[^/\0-\x1f]{1,200}", name) or name.startswith("."):
        raise UserError(f"run.name={name!r}: a name has no slash and does not begin with a dot; run.dir takes a path")
    return Path("logs") / job / (name if part is None else f"{name}-{part}")
