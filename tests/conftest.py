from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the same bits here as in the processes that tests start

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import PATIENCE_S, ROOT, TINY, Cluster, Worlds, door, launch, needs_real
from xdist.scheduler import LoadFileScheduling

import parallel_tunes.compiled  # noqa: F401  what librosa compiles here is kept under names that cannot meet


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what reads real data."""
    if needs_real.mark in item.iter_markers("skipif"):
        item.add_marker(pytest.mark.real)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that it is not left to a single worker at the end."""
    ranks: dict[Path, int] = {}
    for item in items:
        rank = 0 if item.get_closest_marker("slurm") else 1 if item.get_closest_marker("slow") else 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


def scope_of(test: str) -> str:
    """Tests of one scope run on one worker: those of a file, and those of all files that need Slurm, which share a cluster."""
    file = test.partition("::")[0]
    return "slurm" if "mark.slurm" in (ROOT / file).read_text() else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """What sends tests to the workers."""
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Runs the door in this process, in a folder of its own; the exit code."""
    return partial(door, cwd=tmp_path)


Make = Callable[[Path], object]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Make], Path]:
    """Makes a folder by a function, once a test run: by the first worker that asks for it, while the others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def make_once(name: str, make: Make) -> Path:
        folder, made = base / name, base / f"{name}.made"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def furnished(once: Callable[[str, Make], Path]) -> Path:
    """A folder with a small corpus, its shards and a model, made by the command line; tests only read it."""

    def furnish(folder: Path) -> None:
        data = ["data=synthetic", "data.root=logs/synth/corpus"]
        assert door("synth", "num_artists=4", "tracks_per_artist=2", "duration_s=2", "run.name=corpus", cwd=folder) == 0
        assert door("preprocess", *data, "run.name=corpus", cwd=folder) == 0
        assert door("train", *data, "train.num_epochs=2", "run.name=tiny", *TINY, "run.page=true", cwd=folder) == 0

    return once("furnished", furnish)


@pytest.fixture(scope="module")
def workshop(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to what is in `furnished`, for one file of tests: its runs meet no other file's of the same name."""
    folder = tmp_path_factory.mktemp("workshop")
    return shutil.copytree(furnished, folder, copy_function=os.link, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def worlds(furnished: Path, once: Callable[[str, Make], Path]) -> Worlds:
    """What each rank found in a named check of worlds.py; a world of each size is started once a test run, in `furnished`."""

    def ask(ranks: int, check: str) -> list[Any]:
        def start(folder: Path) -> None:
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            command = [sys.executable, *torchrun, str(ROOT / "tests/worlds.py"), str(folder)]
            with (folder / "output").open("w") as output:
                subprocess.run(
                    command,
                    cwd=furnished,
                    env=launch()[1],
                    stdout=output,
                    stderr=output,
                    timeout=PATIENCE_S,
                    check=False,
                )

        folder = once(f"world-{ranks}", start)
        files = [folder / f"{check}-{rank}.pt" for rank in range(ranks)]
        assert all(file.exists() for file in files), (folder / "output").read_text()
        return [torch.load(file, weights_only=True) for file in files]

    return ask


@pytest.fixture(scope="session")
def listens(once: Callable[[str, Make], Path]) -> Path:
    """A folder with small tables of listens, their columns and a model, all named `l`; tests only read it."""

    def listen(folder: Path) -> None:
        data, small = ["data=kkbox", "data.root=logs/synth/l"], ["train.batch=500", "train.num_epochs=1"]
        assert door("synth", "kind=listens", "num_rows=6000", "run.name=l", cwd=folder) == 0
        assert door("preprocess", *data, "run.name=l", cwd=folder) == 0
        assert door("train", "task=relisten", *data, *small, "task.resamples=20", "run.name=l", cwd=folder) == 0

    return once("listens", listen)


@pytest.fixture(scope="module")
def heard(listens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to what is in `listens`, for one file of tests."""
    folder = tmp_path_factory.mktemp("heard")
    return shutil.copytree(listens, folder, copy_function=os.link, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def relisten_model(heard: Path) -> Path:
    """The model folder of a small network trained on the tables of `heard`."""
    return heard / "logs/train/l/model"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Slurm of 4 nodes with 4 GPUs each, on this machine."""
    # a laptop may do without these packages; CI installs them, and there hpc/cluster/up fails if they are missing
    if "CI" not in os.environ and not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("no Slurm on this machine: sudo apt install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="pt-"))  # short: sockets lie below it
    scripts = ROOT / "hpc" / "cluster"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PT_"))}
    up = subprocess.run(
        [scripts / "up", folder],
        env=environment | {"KILL_WAIT": "20"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield Cluster(folder)
    finally:
        subprocess.run([scripts / "down", folder], env=environment, check=True, capture_output=True, timeout=PATIENCE_S)
