from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fakes import ptunes, write_tree

from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train import stopwatch


def test_a_world_of_one_answers_for_itself() -> None:
    mesh = Mesh()
    mesh.start("cpu", 10)
    assert (mesh.rank, mesh.world_size, mesh.is_first) == (0, 1, True)
    assert mesh.device == torch.device("cpu")
    assert mesh.sum(torch.tensor([1, 2])).tolist() == [1, 2]
    assert mesh.agree(True)
    assert mesh.agree(True, False) == [True, False]
    assert mesh.largest(2.5) == 2.5
    assert mesh.on_first(lambda: 3) == 3
    assert abs(mesh.started - time.time()) < 3600
    assert mesh.peak_memory_mib > 50
    model = torch.nn.Linear(1, 1)
    assert mesh.data_parallel(model) is model
    mesh.stop()


def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """On any machine: the process sees no GPU."""
    write_tree(tmp_path / "music", num_tracks=2)
    words = ("train", f"data.root={tmp_path}/music", "train.device=cuda")
    done = ptunes(*words, cwd=tmp_path, check=False, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.count("no GPU is seen here") == 1


def test_the_stopwatch_counts_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 3.5, 4.0, 6.0))
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = stopwatch.Stopwatch("a", "b")
    for name in ("a", "b", "a"):
        watch.lap(name)
    assert watch.seconds == {"a": 4.5, "b": 0.5}
