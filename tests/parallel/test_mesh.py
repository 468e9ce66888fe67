from __future__ import annotations

import time

import pytest
import torch

from parallel_tunes.parallel.mesh import Mesh, Stopwatch
from parallel_tunes.schema import UserError


def test_a_world_of_one_answers_for_itself() -> None:
    mesh = Mesh()
    mesh.start("cpu", 10)
    assert (mesh.rank, mesh.world_size, mesh.is_first) == (0, 1, True)
    assert mesh.device == torch.device("cpu")
    assert mesh.sum(torch.tensor([1, 2])).tolist() == [1, 2]
    assert mesh.agree(True)
    assert not mesh.agree(False)
    assert mesh.largest(2.5) == 2.5
    assert mesh.on_first(lambda: 3) == 3
    assert abs(mesh.started - time.time()) < 3600
    assert mesh.peak_memory_mib > 50
    model = torch.nn.Linear(1, 1)
    assert mesh.data_parallel(model) is model
    mesh.stop()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="no GPU is seen here"):
        Mesh().start("cuda", 10)


def test_the_stopwatch_counts_each_name() -> None:
    watch = Stopwatch("a", "b")
    time.sleep(0.02)
    watch.lap("a")
    watch.lap("b")
    assert watch.seconds["a"] >= 0.02 > watch.seconds["b"]
