from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the same bits here as in the processes that tests start

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fakes import PATIENCE_S, ROOT, TINY, Cluster, door


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first, so that none is left to a single worker at the end."""
    ranks: dict[Path, int] = {}
    for item in items:
        rank = 0 if item.get_closest_marker("slurm") else 1 if item.get_closest_marker("slow") else 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Runs the door in this process, in a folder of its own; the exit code."""
    return partial(door, cwd=tmp_path)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with a small corpus, its shards and a model, made once through the door."""
    if worker_id == "master":
        return _furnish(tmp_path_factory.mktemp("furnished"))
    shared = tmp_path_factory.getbasetemp().parent / "furnished"
    made = shared.with_suffix(".made")
    with shared.with_suffix(".lock").open(
        "w"
    ) as lock:  # the first worker makes it, where it stays: models name its path
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shared.mkdir(exist_ok=True)
            _furnish(shared)
            made.touch()
    return shared


@pytest.fixture(scope="module")
def workshop(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `furnished` for one file of tests: its runs meet no other file's of the same name."""
    folder = tmp_path_factory.mktemp("workshop")
    return shutil.copytree(furnished, folder, dirs_exist_ok=True)


def _furnish(folder: Path) -> Path:
    data = ["data=synthetic", "data.root=logs/synth/corpus"]
    assert door("synth", "num_artists=4", "tracks_per_artist=2", "duration_s=2", "run.name=corpus", cwd=folder) == 0
    assert door("preprocess", *data, "run.name=corpus", cwd=folder) == 0
    assert door("train", *data, "train.num_epochs=2", "run.name=tiny", *TINY, cwd=folder) == 0
    return folder


@pytest.fixture(scope="session")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small tables of listens, logs/synth/l, and their columns, logs/preprocess/l; tests only read them."""
    folder = tmp_path_factory.mktemp("heard")
    assert door("synth", "kind=listens", "num_rows=6000", "run.name=l", cwd=folder) == 0
    assert door("preprocess", "data=kkbox", "data.root=logs/synth/l", "run.name=l", cwd=folder) == 0
    return folder


@pytest.fixture(scope="session")
def relisten_model(heard: Path) -> Path:
    """The model folder of a small network trained on the tables of `heard`; tests only read it."""
    words = ["data=kkbox", "data.root=logs/synth/l", "train.batch=500", "train.num_epochs=1", "task.resamples=20"]
    assert door("train", "task=relisten", *words, "run.name=l", cwd=heard) == 0
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
