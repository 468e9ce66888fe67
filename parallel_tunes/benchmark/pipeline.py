"""Rows of the whole pipeline: a folder of files becomes a folder of spectrograms, in one process and on engines."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from parallel_tunes import preprocess
from parallel_tunes.benchmark import peers
from parallel_tunes.benchmark.clips import Clips
from parallel_tunes.benchmark.suite import Cell
from parallel_tunes.config import DataConfig, FeaturesConfig, PreprocessConfig
from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.config_run import ParallelConfig
from parallel_tunes.parallel.dispatch import Cluster
from parallel_tunes.parallel.engines import Engines, map_tasks, start_cluster
from parallel_tunes.schema import UserError, build, defaults

GROUP = "pipeline"
GROUPS = {GROUP: "The whole pipeline, from a folder of WAV at 22 050 Hz, mono"}


class Silent(contextlib.AbstractContextManager["Silent"]):
    """A progress bar that shows nothing."""

    def __init__(self, title: str, total: int) -> None:
        pass

    def __exit__(self, *reason: object) -> None:
        pass

    def update(self, units: float | None = 1) -> None:
        """Nothing is shown."""


@dataclass(frozen=True)
class Pipeline:
    """These rows.

    Args:
        folder: results are written into new folders in it, which go at once.
        ending: stops the engines that stay up between rows.
    """

    cfg: BenchmarkConfig
    clips: Clips
    features: FeaturesConfig
    folder: Path
    ending: contextlib.ExitStack
    clusters: dict[int, Cluster] = field(default_factory=dict)

    def list_cells(self) -> Iterator[Cell]:
        """librosa and ours, in one process, on each number of engines, with and without their start, and as it comes."""
        all_n, peer_n = len(self.clips.paths), len(self._peer_paths)
        counts = list(dict.fromkeys(self.cfg.engines))
        yield Cell("librosa_serial", "librosa, one process", GROUP, "peer", peer_n, self.time_peer)
        for num in counts:
            on = f"{num} engine{'s' if num > 1 else ''}"
            on_warm, on_cold = partial(self.time_peer, num), partial(self.time_peer_with_start, num)
            yield Cell(f"librosa_engines_{num}", f"librosa, {on}", GROUP, "peer", peer_n, on_warm)
            yield Cell(
                f"librosa_engines_{num}_start",
                f"librosa, {on}, start counted",
                GROUP,
                "peer",
                all_n,
                on_cold,
                cold=True,
            )
        yield Cell("ours_serial", "ours, one process", GROUP, "ours", all_n, partial(self.time_ours, 0))
        for num in counts:
            on = f"{num} engine{'s' if num > 1 else ''}"
            on_warm, on_cold = partial(self.time_ours, num, warm=True), partial(self.time_ours, num)
            yield Cell(f"ours_engines_{num}", f"ours, {on}", GROUP, "ours", all_n, on_warm)
            yield Cell(
                f"ours_engines_{num}_start", f"ours, {on}, start counted", GROUP, "ours", all_n, on_cold, cold=True
            )
        yield Cell("ours_auto", "ours, engines=auto", GROUP, "ours", all_n, partial(self.time_ours, "auto"))

    @property
    def _peer_paths(self) -> tuple[Path, ...]:
        return self.clips.paths[: self.cfg.peer_clips]

    def time_ours(self, engines: int | str, *, warm: bool = False) -> float:
        """Seconds that `preprocess` takes, from the folder of clips to the manifest.

        Args:
            warm: whether the engines run already.
        """
        cluster = self._warm(int(engines)) if warm else None
        data = build(DataConfig, defaults("data", "folder") | {"root": self.clips.tree}, "data.")
        parallel = build(ParallelConfig, defaults("parallel", "default") | {"engines": engines}, "parallel.")
        how = build(PreprocessConfig, defaults("preprocess", "default"), "preprocess.")
        with self._new_folder() as folder:
            began = time.perf_counter()
            made = preprocess.make_shards(
                data, self.features, how, parallel,
                folder=folder, progress=Silent, say=_ignore, cluster=cluster,
            )  # fmt: skip
            seconds = time.perf_counter() - began
        if made["failed"]:
            raise UserError(f"benchmark: {made['failed'][0]['path']}: {made['failed'][0]['reason']}")
        return seconds

    def time_peer(self, num_engines: int = 0) -> float:
        """Seconds that librosa takes for its clips, on engines that run already or, for 0, in this process."""
        return self._run_peer(self._warm(num_engines) if num_engines else None, num_engines)

    def time_peer_with_start(self, num_engines: int) -> float:
        """Seconds that librosa would take for all clips, with the start of the engines.

        Measured: its own clips on engines just started, and again on the same. The second time, scaled to the clips that
        are left, is added: librosa's work grows with the clips, the start does not.
        """
        began = time.perf_counter()
        with start_cluster(Engines(num_engines)) as cluster:
            self._run_peer(cluster, num_engines)
            again = self._run_peer(cluster, num_engines)
        seconds = time.perf_counter() - began - again
        return seconds + again * (len(self.clips.paths) / len(self._peer_paths) - 1)

    def _run_peer(self, cluster: Cluster | None, num_engines: int) -> float:
        with self._new_folder() as folder:
            tasks = [peers.PeerTask(path, folder, self.features) for path in self._peer_paths]
            began = time.perf_counter()
            engines = Engines(num_engines)
            for _ in map_tasks(peers.save_levels, tasks, engines=engines, advance=_ignore, cluster=cluster):
                pass
            return time.perf_counter() - began

    def _warm(self, num: int) -> Cluster:
        """Engines that stay up until the end; idle, two clusters take 2 % of a core."""
        if num not in self.clusters:
            cluster = self.ending.enter_context(start_cluster(Engines(num)))
            cluster.client.wait_for_engines(num, timeout=120)
            self.clusters[num] = cluster
        return self.clusters[num]

    @contextlib.contextmanager
    def _new_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="made-", dir=self.folder) as folder:
            yield Path(folder)


def _ignore(told: object) -> None:
    """Progress that nobody watches, lines that nobody reads."""
