from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the same bits here as in the processes that tests start

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fakes import ROOT, TINY, Cluster, door


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Runs the door in this process, in a folder of its own; the exit code."""
    return partial(door, cwd=tmp_path)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus, its shards and a model, made once through the door; tests only read them."""
    folder = tmp_path_factory.mktemp("workshop")
    data = ["data=synthetic", "data.root=logs/synth/corpus"]
    assert door("synth", "num_artists=4", "tracks_per_artist=2", "duration_s=2", "run.name=corpus", cwd=folder) == 0
    assert door("preprocess", *data, "run.name=corpus", cwd=folder) == 0
    assert door("train", *data, "train.num_epochs=2", "run.name=tiny", *TINY, cwd=folder) == 0
    return folder


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
        [scripts / "up", folder], env=environment | {"KILL_WAIT": "20"}, capture_output=True, text=True, timeout=120
    )
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield Cluster(folder)
    finally:
        subprocess.run([scripts / "down", folder], env=environment, check=True, capture_output=True, timeout=120)
