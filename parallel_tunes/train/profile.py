"""Where the time of a step goes, as torch.profiler sees it: a trace of each rank, and a table of the phases over all of them."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import tempfile
import time
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch._C._autograd import _profiler_enabled
from torch.profiler import ProfilerActivity, record_function

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.train.phases import ROWS, measure
from parallel_tunes.train.stopwatch import Stopwatch

SKIPPED = 3  # steps of this process before the first that is recorded: they allocate and warm up
MOST_STEPS = 12
MOST_PASSES = 48  # forward and backward; of accumulated batches fewer steps are recorded, so that a trace stays small

Item = TypeVar("Item")
_NOTHING = contextlib.nullcontext()


def mark(name: str) -> contextlib.AbstractContextManager[Any]:
    """A range of the trace; without a profiler nothing, since record_function would cost its microseconds all the same."""
    return record_function(name) if _profiler_enabled() else _NOTHING


class MarkedRanks:
    """A mesh for synchronised batch norms, whose sums are ranges of the trace: there a rank waits within its passes.

    Attributes:
        waited_s: seconds spent in them so far; of a GPU, which works them off later, only what they took to order.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.rank, self.world_size, self._mesh = mesh.rank, mesh.world_size, mesh
        self.waited_s = 0.0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all ranks, on every rank; in place."""
        began = time.perf_counter()
        with mark("all_reduce"):
            summed = self._mesh.sum(tensor)
        self.waited_s += time.perf_counter() - began
        return summed


class Profile:
    """Records a few steps of the first epoch that this process trains, if train.profile is set, and writes what they cost.

    Args:
        watch: counts what the profiling itself takes under `profile`.
    """

    def __init__(self, cfg: TrainConfig, mesh: Mesh, run: Run, watch: Stopwatch) -> None:
        self.mesh, self.run, self.watch = mesh, run, watch
        self.is_due = cfg.profile
        self.most = min(MOST_STEPS, max(MOST_PASSES // cfg.accumulate, 1))

    def follow(self, batches: Generator[Item, None, None], num: int) -> Generator[Item, None, None]:
        """The `num` batches as they are; while profiling, each turn of the loop over them is a step of the trace."""
        if not self.is_due or not num:
            return batches
        self.is_due = False
        return self._record(batches, num)

    def _record(self, batches: Generator[Item, None, None], num: int) -> Generator[Item, None, None]:
        num_skipped = min(SKIPPED, num // 2)
        activities = [ProfilerActivity.CPU]
        if self.mesh.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells standard error of its starts and stops
        with contextlib.closing(batches):
            yield from itertools.islice(batches, num_skipped)
            with torch.profiler.profile(activities=activities) as profiler:  # of no use if the run is stopped within
                self.watch.lap("profile")
                for _ in range(min(self.most, num - num_skipped)):
                    with mark("step"):
                        with mark("data"):
                            batch = next(batches)
                        yield batch
            self._write(profiler)
            self.watch.lap("profile")
            yield from batches

    def _write(self, profiler: torch.profiler.profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            trace = path.read_bytes()
        table = tabulate(measure(json.loads(trace)["traceEvents"]))
        ranks = self.mesh.gather((table, gzip.compress(trace, mtime=0)))  # rank 0 alone writes to the run's folder
        self.mesh.on_first(partial(self._keep, [table for table, _ in ranks], [packed for _, packed in ranks]))

    def _keep(self, tables: list[dict[str, Any]], traces: list[bytes]) -> None:
        for rank, packed in enumerate(traces):
            self.run.write_bytes(f"profile/trace-rank{rank}.json.gz", packed)
        lines = ["rank,phase,median_ms,p10_ms,p90_ms,share"]
        for rank, table in enumerate(tables):
            for name, row in table["phases"].items():
                lines.append(f"{rank},{name},{row['median_ms']},{row['p10_ms']},{row['p90_ms']},{row['share']}")
        self.run.write_bytes("profile/profile.csv", "".join(line + "\n" for line in lines).encode())
        found = {"slowest_rank": find_slowest(tables), "ranks": tables}
        self.run.write_bytes("profile/profile.json", (json.dumps(found, indent=1) + "\n").encode())
        for line in say(found):
            self.run.log(line)


def read_profile(run: Run) -> dict[str, Any]:
    """`profile`, for the report: the tables of all ranks, where a process of this run has written them."""
    path = run.folder / "profile" / "profile.json"
    return {"profile": json.loads(path.read_text())} if path.exists() else {}


def tabulate(steps: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each row over the steps, ms, its 10th and 90th percentiles, and its share of the median step."""
    phases = {}
    whole = float(np.median([step["step"] for step in steps]))
    for name in ROWS:
        low, median, high = np.percentile([step[name] for step in steps], [10, 50, 90]).tolist()
        rounded = {"median_ms": median, "p10_ms": low, "p90_ms": high, "share": median / whole}
        phases[name] = {figure: round(value, 4) for figure, value in rounded.items()}
    return {"num_steps": len(steps), "phases": phases}


def find_slowest(tables: list[dict[str, Any]]) -> int:
    """The rank that the others wait for: the one with most to do besides waiting for others itself."""

    def busy_ms(rank: int) -> float:
        phases = tables[rank]["phases"]
        return float(phases["step"]["median_ms"] - phases["all_reduce_exposed"]["median_ms"])

    return max(range(len(tables)), key=busy_ms)


def say(found: Mapping[str, Any]) -> list[str]:
    """The table for the log: rank 0, and the slowest rank where that is another."""
    shown = sorted({0, found["slowest_rank"]})
    tables = [found["ranks"][rank]["phases"] for rank in shown]
    lines = [
        f"profile, medians of {found['ranks'][0]['num_steps']} steps".ljust(34)
        + "".join(f"{f'rank {rank}':>22}" for rank in shown)
    ]
    for name in ROWS:
        cells = (f"{table[name]['median_ms']:12.3f} ms {table[name]['share']:6.1%}" for table in tables)
        lines.append(f"  {name.replace('_', ' '):<32}" + "".join(cells))
    return lines
