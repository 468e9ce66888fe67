from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import yaml
from fakes import TINY, Worlds, corpus_of, door
from safetensors.torch import load_file
from torch import Tensor

from parallel_tunes import session
from parallel_tunes.config import TrainJob
from parallel_tunes.jobs import JOBS
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build
from parallel_tunes.train import stopwatch, timing


def read(folder: Path, name: str = "report.json") -> Any:
    return json.loads((folder / name).read_text())


def rows(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model/model.safetensors")


class Clock:
    """In place of the module `time`: a millisecond passes with each look, and what all-reduces are made to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.001
        return self.now


DELAY_S = 0.3


def train_timed(mesh: Mesh, folder: Path) -> str:
    """The workshop's training: plain, timed, and timed by a clock on which gradients take DELAY_S to come together."""
    tree = yaml.safe_load(Path("logs/train/tiny/config.yaml").read_text())
    del tree["job"]
    clock, data_parallel = Clock(), mesh.data_parallel

    def delay(model: torch.nn.Module, **words: Any) -> torch.nn.Module:
        parallel: Any = data_parallel(model, **words)
        parallel.register_comm_hook(None, lambda state, bucket: reduce(bucket))
        return parallel  # type: ignore[no-any-return]

    def reduce(bucket: Any) -> torch.futures.Future[Tensor]:
        clock.now += DELAY_S * bucket.is_last()
        work: Any = torch.distributed.all_reduce(bucket.buffer().div_(mesh.world_size), async_op=True)
        reduced: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
        return reduced

    with pytest.MonkeyPatch.context() as patch:
        for name in ("plain", "timed", "slow"):
            if name == "slow":
                patch.setattr(mesh, "data_parallel", delay)
                for module in (timing, stopwatch):
                    patch.setattr(module, "time", clock)
            tree["train"] |= {"timing": 0 if name == "plain" else 3, "timing_s": 0.2}
            tree["run"]["dir"] = str(folder / name)
            assert session.run_job("train", JOBS["train"], build(TrainJob, tree), mesh=mesh) == 0
    return str(folder)


@pytest.fixture(scope="module")
def timed(worlds: Worlds) -> Path:
    """Trainings of two ranks, by `train_timed`."""
    return Path(worlds(2, "train_timed")[0])


def test_communication_is_what_the_all_reduce_takes(timed: Path) -> None:
    """What gradients take to come together is the difference between steps with and without that."""
    found = read(timed / "slow", "timing.json")
    for shared, bare in zip(found["shared"]["step_s"], found["bare"]["step_s"], strict=True):
        assert shared - bare == pytest.approx(DELAY_S, rel=1e-3)


def test_what_is_timed_changes_nothing(timed: Path) -> None:
    """Two ranks: the same bits, with the time of the rehearsal told apart."""
    plain, folder = timed / "plain", timed / "timed"
    assert all(torch.equal(tensor, weights(folder)[name]) for name, tensor in weights(plain).items())
    assert [row["valid"] for row in rows(plain)] == [row["valid"] for row in rows(folder)]
    assert "timing" not in read(plain)
    report = read(folder)
    assert report["timing"] == read(folder, "timing.json")
    assert report["time_s"]["timing"] > 0
    assert len(report["timing"]["peak_memory_mib"]) == 2
    (machine,) = report["timing"]["machines"]
    assert machine["threads"] == 1
    assert 1 <= machine["cores_a_rank"] <= machine["cores"]


def test_windows_of_a_world_of_one(workshop: Path) -> None:
    folder = workshop / "logs/train/alone"
    words = ["train", *corpus_of(workshop), *TINY, "train.num_epochs=2", "train.timing=4", "train.timing_s=0.05"]
    assert door(*words, "run.name=alone", cwd=workshop) == 0
    tiny = weights(workshop / "logs/train/tiny")
    assert all(torch.equal(tensor, tiny[name]) for name, tensor in weights(folder).items())
    timing = read(folder)["timing"]
    shared = timing["shared"]
    assert timing["bare"] is None
    assert timing["num_steps"] == 5
    assert len(shared["step_s"]) == 4
    # an epoch of 40 tracks in batches of 8
    assert all(
        rate * step == pytest.approx(8) for rate, step in zip(shared["samples_per_s"], shared["step_s"], strict=True)
    )
    assert all(data < step for data, step in zip(shared["data_s"], shared["step_s"], strict=True))
    assert timing["num_warm"] >= 6


@pytest.mark.slow
def test_one_rank_with_ddp_learns_the_same(workshop: Path) -> None:
    words = [
        "train",
        *corpus_of(workshop),
        *TINY,
        "train.num_epochs=2",
        "parallel.ddp=always",
        "train.timing=1",
        "train.timing_s=0.05",
    ]
    try:
        assert door(*words, "run.name=ddp", cwd=workshop) == 0
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    tiny, other = weights(workshop / "logs/train/tiny"), weights(workshop / "logs/train/ddp")
    assert all(torch.allclose(tensor, other[name], rtol=1e-4, atol=1e-6) for name, tensor in tiny.items())
    assert read(workshop / "logs/train/ddp")["timing"]["bare"] is not None
    assert not torch.distributed.is_initialized()


def test_most_steps(workshop: Path) -> None:
    """The second epoch is cut after 2 of its 5 steps, judged and reported like any other; each seed has as many."""
    words = ["train", *corpus_of(workshop), *TINY, "train.num_epochs=9", "train.max_steps=7", "train.seeds=[0,1]"]
    assert door(*words, "run.name=most", cwd=workshop) == 0
    report, epochs = read(workshop / "logs/train/most"), rows(workshop / "logs/train/most")
    assert report["steps"] == 14
    assert [(row["seed"], row["epoch"], row["step"], row["train"]["n"]) for row in epochs] == [
        (0, 0, 5, 40), (0, 1, 7, 16), (1, 0, 12, 40), (1, 1, 14, 16),
    ]  # fmt: skip
    whole = rows(workshop / "logs/train/tiny")[0]
    # the learning rate follows num_epochs: the first epoch's steps see a lower one than those of a training of two epochs
    assert epochs[0]["samples"] == whole["samples"]
    assert epochs[0]["train"]["loss"] != whole["train"]["loss"]


def test_a_target_ends_a_seed(workshop: Path) -> None:
    """Any accuracy reaches 0: after one epoch. One that is never reached is told as such."""
    words = ["train", *corpus_of(workshop), *TINY, "train.num_epochs=2", "train.seeds=[0,1]"]
    assert door(*words, "train.target=0", "run.name=reached", cwd=workshop) == 0
    found = read(workshop / "logs/train/reached")["target"]
    assert found["epochs"] == [1, 1]
    assert found["seconds"] == [row["seconds"] for row in rows(workshop / "logs/train/reached")]
    assert all(seconds > 0 for seconds in found["seconds"])
    assert door(*words, "train.target=1", "run.name=never", cwd=workshop) == 0
    assert read(workshop / "logs/train/never")["target"] == {
        "accuracy": 1.0,
        "epochs": [None, None],
        "seconds": [None, None],
    }
