"""A scaling study: each launch of each cell is an ordinary run in a folder of its own; only those that are missing are run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parallel_tunes import files
from parallel_tunes.config import PreprocessJob, ScalingJob, TrainJob
from parallel_tunes.data import index
from parallel_tunes.parallel import launch as launching
from parallel_tunes.parallel.launch import Command
from parallel_tunes.parallel.slurm import Allocation
from parallel_tunes.run import Run
from parallel_tunes.scaling.grid import Cell, Launch, PreprocessCell, TrainCell, list_cells, list_launches
from parallel_tunes.schema import UserError, to_plain, to_words

RESULTS = ("ok", "oom")  # what a launch may come to that is not to be done again
START_S = 25.0  # about what a launch takes besides its windows, where none has told yet
WARM_WINDOWS = 2.0  # and to warm up, in windows


@dataclass(frozen=True)
class Study:
    """The launches of a study, where they run and how each ended.

    Args:
        folder: of the study; its launches lie in cells/.
        shards: what trainings read; None where none is studied.
        allocation: that it runs in; None on a machine without Slurm.
        on_gpus: whether ranks have GPUs.
    """

    cfg: ScalingJob
    folder: Path
    shards: Path | None
    allocation: Allocation | None
    on_gpus: bool

    @cached_property
    def launches(self) -> list[Launch]:
        """All of them, in the order that they are run in."""
        return list_launches(list_cells(self.cfg), self.cfg.scaling.launches, self.cfg.scaling.seed)

    @property
    def threads(self) -> int:
        """Of a rank on this machine's cores: the same in all cells."""
        return self.cfg.scaling.threads or max(len(os.sched_getaffinity(0)) // max(self.cfg.scaling.gpus, default=1), 1)

    def check(self) -> None:
        """Refuse what this machine, or allocation, has not.

        Raises:
            UserError: more ranks than GPUs or cores.
        """
        most, num_cores = max(self.cfg.scaling.gpus, default=0), len(os.sched_getaffinity(0))
        if self.allocation:
            if most > self.allocation.num_ranks:
                there = f"this allocation has {self.allocation.num_ranks} ranks"
                raise UserError(f"scaling.gpus={most}: {there}; ask for more, or let scaling.launcher=slurm do it")
        elif self.on_gpus:
            num_gpus = count_gpus()
            if most > num_gpus:
                raise UserError(f"scaling.gpus={most}: {num_gpus} GPUs are here; take as many at most")
        elif most * self.threads > num_cores:
            raise UserError(
                f"scaling.gpus={most}: without GPUs ranks stand for them, and {most} of {self.threads} threads would share"
                f" this machine's {num_cores} cores; take fewer"
            )

    def place(self, launch: Launch) -> Path:
        """The run folder of a launch."""
        return self.folder / "cells" / launch.cell.name / f"launch-{launch.number}"

    def outcome(self, launch: Launch) -> dict[str, Any]:
        """How a launch ended: status ok, oom, failed or missing, its reason, seconds and machine."""
        try:
            found: dict[str, Any] = json.loads(self.place(launch).with_suffix(".json").read_text())
        except (OSError, ValueError):
            return {"status": "missing", "reason": "not run yet"}
        return found

    def missing(self) -> list[Launch]:
        """Those that have come to no result: not run, interrupted, or failed."""
        return [launch for launch in self.launches if self.outcome(launch)["status"] not in RESULTS]

    def words(self, launch: Launch) -> list[str]:
        """Job and overrides of the ordinary run that a launch is."""
        cfg, settings, cell = self.cfg, self.cfg.scaling, launch.cell
        run = replace(cfg.run, dir=self.place(launch), name=None, page=False)
        if isinstance(cell, PreprocessCell):
            how = replace(cfg.parallel, engines=cell.engines or 0)
            sizes = replace(cfg.preprocess, shard_mib=cell.shard_mib, pictures=False)
            data = replace(cfg.data, shards=None)
            made = PreprocessJob(data=data, features=cfg.features, preprocess=sizes, parallel=how, run=run)
            return ["preprocess", *to_words(made, "preprocess")]
        is_target = settings.mode == "target"
        train = replace(
            cfg.train, batch=cell.global_batch, precision=cell.precision, timing=settings.windows, timing_s=settings.window_s,
            max_steps=cfg.train.max_steps if is_target else 1, target=settings.target if is_target else None,
            seeds=(launch.number,) if is_target else cfg.train.seeds[:1], track=(), profile=False,
        )  # fmt: skip
        kept = {name: getattr(cfg, name) for name in TrainJob.__dataclass_fields__}
        parallel = replace(cfg.parallel, ddp="always" if cell.ddp else "auto")
        job = TrainJob(
            **kept
            | {"run": run, "train": train, "parallel": parallel}
            | {"data": replace(cfg.data, shards=self.shards)}
        )
        return ["train", *to_words(job, "train")]

    def command(self, launch: Launch) -> Command:
        """What starts a launch."""
        cell = launch.cell
        if isinstance(cell, TrainCell):
            allocation = self.allocation and self.allocation.part(cell.gpus)
            command = launching.ranks_command(
                self.words(launch), num_ranks=cell.gpus, allocation=allocation, always_torchrun=True
            )
            threads = {} if self.on_gpus or allocation else {"OMP_NUM_THREADS": str(self.threads)}
            return replace(command, environment=command.environment | threads)
        if cell.engines is None:
            task = str(self.place(launch) / "librosa.json")
            return Command((sys.executable, "-m", "parallel_tunes.benchmark.serial", task), {})
        # a task of a job array would otherwise take itself for a share of the preprocessing
        return Command((sys.executable, "-m", "parallel_tunes", *self.words(launch)), {"SLURM_ARRAY_TASK_ID": ""})

    def carry_out(self, launch: Launch) -> dict[str, Any]:
        """Run a launch to its end, from nothing; its outcome, which is also kept beside its folder."""
        place, cell = self.place(launch), launch.cell
        shutil.rmtree(place, ignore_errors=True)
        log, kept = place.with_suffix(".log"), place.with_suffix(".json")
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in (log, kept):
            old.unlink(missing_ok=True)
        if isinstance(cell, PreprocessCell) and cell.engines is None:
            self._prepare_librosa(place)
        pinned = isinstance(cell, TrainCell) and not self.on_gpus and not self.allocation
        cores = cell.gpus * self.threads if pinned and isinstance(cell, TrainCell) else None
        began = time.time()
        code = launching.run(self.command(launch), log, timeout_s=self.cfg.scaling.timeout_s, num_cores=cores)
        outcome = {
            **judge(place, log, code, self.cfg.scaling.timeout_s),
            "seconds": round(time.time() - began, 3),
            "began": began,
        }
        for spent in place.glob("shard-*.npy") if isinstance(cell, PreprocessCell) else ():
            spent.unlink()  # dozens of copies of a data set are more than a disk is for
        files.write_json(kept, outcome)
        return outcome

    def _prepare_librosa(self, place: Path) -> None:
        tracks, root = index.scan(self.cfg.data)
        chosen = np.random.default_rng(self.cfg.scaling.seed).permutation(len(tracks))[: self.cfg.scaling.peer_tracks]
        paths = [str((root / path).resolve()) for path in tracks["path"].iloc[np.sort(chosen)]]
        place.mkdir(parents=True)
        files.write_json(place / "librosa.json", {"tracks": paths, "features": to_plain(self.cfg.features)})

    def carry_out_missing(self, run: Run) -> None:
        """Run what is missing, one launch at a time."""
        missing = self.missing()
        done = len(self.launches) - len(missing)
        run.log(
            f"{len(self.launches)} launches of {len({launch.cell for launch in self.launches})} cells, {done} done before"
        )
        with run.progress("scaling", len(self.launches), " launches", done) as bar:
            for launch in missing:
                outcome = self.carry_out(launch)
                if outcome["status"] != "ok":
                    run.warn(f"{launch.name}: {outcome['status']}: {outcome['reason']}")
                bar.update()

    def estimate_s(self, cell: Cell, took_s: Mapping[Cell, list[float]]) -> float | None:
        """About how long a launch takes, seconds: as others of its cell, of other cells, or by the windows; None if nothing tells.

        Args:
            took_s: launches that have come to a result.
        """
        alike = took_s.get(cell) or [seconds for each in took_s.values() for seconds in each]
        if alike:
            return float(np.median(alike))
        if self.cfg.scaling.mode == "target" or isinstance(cell, PreprocessCell):
            return None
        num = self.cfg.scaling.windows * (2 if cell.ddp else 1) + WARM_WINDOWS
        return START_S + num * self.cfg.scaling.window_s

    def describe(self) -> list[str]:
        """The cells, the command of each, and what the launches that are missing may cost."""
        missing, took_s = self.missing(), dict[Cell, list[float]]()
        for launch in self.launches:
            if (outcome := self.outcome(launch))["status"] == "ok":
                took_s.setdefault(launch.cell, []).append(outcome["seconds"])
        lines, total, unknown = list[str](), 0.0, 0
        for cell in dict.fromkeys(launch.cell for launch in self.launches):
            todo = [launch for launch in missing if launch.cell == cell]
            num = cell.gpus if isinstance(cell, TrainCell) else 0
            seconds = self.estimate_s(cell, took_s)
            total += num * len(todo) * (seconds or 0.0) / 3600
            unknown += len(todo) if seconds is None else 0
            first = next(launch for launch in self.launches if launch.cell == cell)
            lines += [f"{cell.name}: {len(todo)} of {self.cfg.scaling.launches} launches to do"]
            lines += [f"  {shlex.join(self.command(first).words)}"]
        unit = "GPU-hours" if self.on_gpus or self.cfg.resources.gpus_per_node else "rank-hours"
        more = f", and {unknown} launches of which nothing tells yet how long they take" if unknown else ""
        return [*lines, f"{len(missing)} launches to do, about {total:.2g} {unit}{more}"]


def judge(place: Path, log: Path, code: int | None, timeout_s: float) -> dict[str, Any]:
    """How a launch ended: status ok, oom or failed, and the reason."""
    words = log.read_text(errors="replace") if log.exists() else ""
    report = read_json(place / "report.json")
    if code == 0 and (report.get("status") == "complete" or "seconds" in read_json(place / "librosa.json")):
        return {"status": "ok", "reason": None}
    if code is None:
        return {"status": "failed", "reason": f"no end within scaling.timeout_s={timeout_s:g}; see {log}"}
    reason = str(report.get("reason") or launching.last_words(log))
    is_oom = "OutOfMemory" in reason or "out of memory" in reason or "oom_kill" in words or "oom-kill" in words
    return {
        "status": "oom" if is_oom else "failed",
        "reason": reason.removeprefix("OutOfMemory: ").removeprefix("UserError: "),
        "peak_memory_mib": report.get("peak_memory_mib"),
    }


def read_json(path: Path) -> dict[str, Any]:
    """A file's dictionary; empty where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def count_gpus() -> int:
    """That torch sees here."""
    import torch

    return torch.cuda.device_count()
