"""How long a step takes, before a training begins: windows of its own steps, what they learn thrown away."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.data.batches import make_ahead
from parallel_tunes.parallel import topology
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.train.learner import Batch, Learner, Source
from parallel_tunes.train.stopwatch import Stopwatch

FILE = "timing.json"
BLOCK = 0.15  # of a window: steps of the warm-up that are looked at together
LAST = 3  # blocks that are compared with as many before them
SETTLED = 0.05  # largest relative difference of their medians
MOST_BLOCKS = 40
FEWEST_STEPS = 3  # of a window


@dataclass
class Windows:
    """What windows of steps took, each as its slowest rank saw it."""

    step_s: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    data_s: list[float] = field(default_factory=list)  # a step: waiting for batches, the mean of the ranks
    norm_s: list[float] = field(default_factory=list)  # for other ranks' parts of batch norms, likewise
    agree_s: list[float] = field(default_factory=list)  # for the other ranks' word at the end of a step, likewise
    joules: list[float | None] = field(
        default_factory=list
    )  # a sample, of all ranks' GPUs; None where one is not counted


class Rehearsal:
    """Steps of a learner on the batches of its training, timed; the caller loads the learner's state afterwards.

    Everything is timed from a moment at which all ranks have come together and their devices idle, to the next such.
    """

    def __init__(self, learner: Learner, source: Source, cfg: TrainConfig, mesh: Mesh) -> None:
        self.learner, self.source, self.cfg, self.mesh = learner, source, cfg, mesh
        self.at = 0  # steps done

    def carry_out(self, run: Run, first_steps_s: float) -> None:
        """Warm up, time the windows, and let rank 0 write what was found to timing.json.

        Args:
            first_steps_s: what the process's first two passes took, with all that they compile.
        """
        endless = (batch for epoch in itertools.count() for batch in self.source.train(epoch, 0))
        with contextlib.closing(make_ahead(endless)) as batches:
            step_s, num_warm, is_stable = self._warm_up(batches)
            num = max(round(self.cfg.timing_s / step_s), FEWEST_STEPS)
            shared, bare = self._time_windows(batches, num)
        found = {
            "first_steps_s": self.mesh.largest(first_steps_s),
            "num_warm": num_warm,
            "is_stable": is_stable,
            "steps_a_window": num,
            "num_steps": self.source.num_steps,
            "shared": asdict(shared),
            "bare": asdict(bare) if bare else None,
            "peak_memory_mib": [round(peak, 1) for peak in self.mesh.gather(self.mesh.peak_memory_mib)],
            "machines": list_machines(self.mesh),
        }
        self.mesh.on_first(partial(run.write_bytes, FILE, (json.dumps(found, indent=1) + "\n").encode()))

    def _warm_up(self, batches: Iterator[Batch]) -> tuple[float, int, bool]:
        """Steps until their time has settled: seconds a step by then, how many they were, and whether it has."""
        times = [self._time(batches, 1, is_shared=True).step_s[0]]
        while len(times) < MOST_BLOCKS:
            num = max(round(BLOCK * self.cfg.timing_s / times[-1]), 1)
            times.append(self._time(batches, num, is_shared=True).step_s[0])
            late, early = times[-LAST:], times[-2 * LAST : -LAST]
            if len(early) == LAST:
                now, then = statistics.median(late), statistics.median(early)
                if abs(now - then) <= SETTLED * then:
                    return now, self.at, True
        return statistics.median(times[-LAST:]), self.at, False

    def _time_windows(self, batches: Iterator[Batch], num: int) -> tuple[Windows, Windows | None]:
        """Windows of `num` steps; between them, where gradients are shared at all, windows without that."""
        shared, bare = Windows(), Windows() if self.mesh.in_company else None
        if bare:  # a first one of the kind, which may compile, and one to be back
            self._time(batches, 1, is_shared=False)
            self._time(batches, 1, is_shared=True)
        for window in range(self.cfg.timing):
            kinds = [(shared, True)] + ([(bare, False)] if bare else [])
            for into, is_shared in kinds if window % 2 == 0 else reversed(kinds):  # a drift meets both alike
                found = self._time(batches, num, is_shared=is_shared)
                for name, values in asdict(found).items():
                    getattr(into, name).extend(values)
        return shared, bare

    def _time(self, batches: Iterator[Batch], num: int, *, is_shared: bool) -> Windows:
        """One window of `num` steps, as the trainer does them."""
        num_samples, waited_before = 0, self.learner.waited_s()
        joules_before = topology.read_joules(self.mesh.device)
        self._finish()
        self.mesh.wait()
        began, watch = time.perf_counter(), Stopwatch("data", "step", "agree")
        for batch in itertools.islice(batches, num):
            watch.lap("data")
            self.learner.step(batch, self.at, is_shared=is_shared)
            watch.lap("step")
            self.mesh.agree(False, False, False)
            watch.lap("agree")
            num_samples += batch.num_global
            self.at += 1
        self._finish()
        step_s = self.mesh.largest(time.perf_counter() - began) / num
        own = torch.tensor(
            [watch.seconds["data"], self.learner.waited_s() - waited_before, watch.seconds["agree"]],
            dtype=torch.float64,
        )
        data_s, norm_s, agree_s = (self.mesh.sum(own) / self.mesh.world_size / num).tolist()
        joules = self._joules_since(joules_before)
        a_sample = None if joules is None else joules / num_samples
        return Windows([step_s], [num_samples / num / step_s], [data_s], [norm_s], [agree_s], [a_sample])

    def _finish(self) -> None:
        if self.mesh.device.type == "cuda":
            torch.cuda.synchronize(self.mesh.device)

    def _joules_since(self, before: float | None) -> float | None:
        now = topology.read_joules(self.mesh.device)
        parts = self.mesh.gather(None if now is None or before is None else now - before)
        return None if None in parts else sum(part for part in parts if part is not None)


def list_machines(mesh: Mesh) -> list[dict[str, Any]]:
    """The machines of all ranks, each once."""
    every = mesh.gather(topology.describe(torch.get_num_threads()))
    return list({machine["host"]: machine for machine in every}.values())


def read_timing(run: Run) -> dict[str, Any]:
    """`timing`, for the report, where a process of this run has written it."""
    path = run.folder / FILE
    return {"timing": json.loads(path.read_text())} if path.exists() else {}
