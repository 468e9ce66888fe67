"""The suite `serve`: servers that differ in how many windows go through the model together, under the same load."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from parallel_tunes import files
from parallel_tunes.audio.front_end import fingerprint
from parallel_tunes.benchmark import tracks
from parallel_tunes.benchmark.clients import make_post, post_all
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.config import BenchmarkJob, FeaturesConfig
from parallel_tunes.config_train import ModelConfig
from parallel_tunes.parallel.launch import Command, last_words, started
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build, defaults, to_plain
from parallel_tunes.train import model_folder

FOLDER = "serving-"  # of servers' runs, within the run's; removed at the end
CLIP_S = 5.0
START_S = 600.0
METHOD = (
    "Each row is a server of its own, `ptunes serve` as it comes but for serve.max_batch; all stay up, idle while others"
    " are timed. Clients and servers share the cores of this machine.",
    "Each client posts a WAV of 5 s, 22 050 Hz, mono, 16 bits, and again as soon as it has the answer. The model is the"
    " default network, untrained: it takes as long as a trained one.",
    "A figure is the median over the repetitions, a ratio the median of the ratios within each repetition;"
    " intervals are order statistics. Latencies are of all requests that were answered, over all repetitions.",
)


@dataclass
class Row:
    """A server that is up, and what its clients have seen."""

    name: str
    port: int
    process: psutil.Process
    statuses: list[int] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)

    def measure(self, post: bytes, num_clients: int, num_posts: int) -> float:
        """The load once; its seconds."""
        found = post_all(self.port, post, num_clients=num_clients, num_posts=num_posts)
        self.statuses += found.statuses
        self.latencies_s += [s for s, status in zip(found.latencies_s, found.statuses, strict=True) if status == 200]
        self.memory_mib.append(sum(one.memory_info().rss for one in self._processes()) / 2**20)
        return found.seconds

    def cpu_s(self) -> float:
        """CPU time of the server's processes and of its clients, seconds."""
        times = [one.cpu_times() for one in self._processes()]
        return time.process_time() + sum(each.user + each.system for each in times)

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def summarise(self) -> dict[str, Any]:
        """Answers by status, latencies in ms, and the memory after the first and the last measurement."""
        shares = (50, 95, 99)
        found = np.percentile(self.latencies_s, shares) if self.latencies_s else [None] * len(shares)
        return {
            "statuses": {str(status): self.statuses.count(status) for status in sorted(set(self.statuses))},
            **{f"p{share}_ms": s and round(1000 * float(s), 1) for share, s in zip(shares, found, strict=True)},
            "memory_mib": [round(self.memory_mib[0]), round(self.memory_mib[-1])],
        }


@contextlib.contextmanager
def open_serve(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Servers with different batches; they stay up until the block ends.

    Args:
        machine: names where this runs.
    """
    settings = cfg.benchmark
    if cfg.data.root is not None:
        raise UserError(f"data.root={cfg.data.root}: suite=serve makes its own clips; leave data.root out")
    post = make_post("/v1/genre", make_clip(settings.seed))
    for left in run.folder.glob(FOLDER + "*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=run.folder) as name, contextlib.ExitStack() as ending:
        save_model(run)
        ending.callback(shutil.rmtree, run.folder / "model")
        rows = [ending.enter_context(start(run, Path(name), batch, settings.clients)) for batch in settings.batches]
        cells = tuple(
            Cell(
                row.name, f"serve.max_batch={batch}", "serving", "ours", settings.posts,
                partial(row.measure, post, settings.clients, settings.posts), cpu_s=row.cpu_s,
            )
            for row, batch in zip(rows, settings.batches, strict=True)
        )  # fmt: skip
        yield Suite(
            unit="clip",
            groups={"serving": f"{settings.clients} clients at a time"},
            cells=cells,
            comparisons=tuple(compare(cells)),
            method=METHOD,
            notes=(),
            key=files.digest_json({**machine, "serve": to_plain(settings)})[:16],
            examine=lambda _: {"serving": {row.name: row.summarise() for row in rows}},
        )


def compare(cells: tuple[Cell, ...]) -> Iterator[Comparison]:
    """Each batch against the first."""
    for cell in cells[1:]:
        yield Comparison(
            f"{cell.name}_vs_{cells[0].name}", f"{cell.what} over {cells[0].what}", cells[0].name, cell.name
        )


def make_clip(seed: int) -> bytes:
    """A WAV of noise, 5 s."""
    stream, rng = io.BytesIO(), np.random.default_rng(seed)
    soundfile.write(stream, 0.1 * rng.standard_normal(round(CLIP_S * 22050)), 22050, format="WAV")
    return stream.getvalue()


def save_model(run: Run) -> None:
    """The default network, untrained, as <run>/model/."""
    features = build(FeaturesConfig, defaults("features", "logmel"), "features.")
    architecture = build(ModelConfig, defaults("model", "residual_cnn"), "model.")
    size = features.num_mels, tracks.WINDOW
    model = model_folder.build_model(architecture, tracks.NUM_LABELS, 0, size)
    facts = {
        "task": "genre",
        "classes": [f"label {number}" for number in range(tracks.NUM_LABELS)],
        "multi_label": False,
        "architecture": to_plain(architecture),
        "features": to_plain(features),
        "fingerprint": fingerprint(features),
        "standardise": {"mean_db": -40.0, "deviation_db": 20.0},
        "windows": {"num_frames": tracks.WINDOW, "piece": tracks.WINDOW, "overlap": 0.5},
    }
    model_folder.save(run, model.state_dict(), facts)


@contextlib.contextmanager
def start(run: Run, folder: Path, batch: int, num_clients: int) -> Iterator[Row]:
    """A server, which ends with the block.

    Raises:
        UserError: it does not come up.
    """
    name = f"batch_{batch}"
    words = [f"model={run.folder / 'model'}", f"serve.max_batch={batch}", f"serve.queue={num_clients}", "serve.port=0"]
    command = Command((sys.executable, "-m", "parallel_tunes", "serve", *words, f"run.dir={folder / name}"), {})
    output = folder / f"{name}.out"
    with started(command, output) as process:
        until = time.monotonic() + START_S
        while not (said := _find_port(output)):
            if process.poll() is not None or time.monotonic() > until:
                raise UserError(f"serve.max_batch={batch}: the server has not started: {last_words(output)}")
            time.sleep(0.1)
        yield Row(name, said, psutil.Process(process.pid))


def _find_port(output: Path) -> int | None:
    lines = output.read_text(errors="replace").splitlines()
    return next((int(line.rpartition(":")[2]) for line in lines if line.startswith("serving on ")), None)
