from __future__ import annotations

import importlib.util
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from parallel_tunes.benchmark import hold, loops, tracks
from parallel_tunes.benchmark.hold import HeldBar, Hold
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.models.genre_cnn import GenreCNN


class Told(Hold):
    """A hold that is told to go so many steps, again and again, and then to end."""

    def __init__(self, *nums: int) -> None:
        self.said = io.StringIO()
        super().__init__(io.StringIO("".join(f"go {num}\n" for num in nums)), self.said)

    def read(self) -> list[tuple[int, float]]:
        rows = [json.loads(line) for line in self.said.getvalue().splitlines()]
        return [(row["steps"], row["seconds"]) for row in rows]


def test_only_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(hold, "_now", lambda: clock[0])
    told = Told(3, 2)

    def train() -> None:
        while True:
            with told:
                for _ in range(2):
                    clock[0] += 1
                    told.step()
            clock[0] += 100  # what lies between epochs

    with pytest.raises(SystemExit):
        train()
    assert told.read() == [(3, 3.0), (2, 2.0)]


def test_a_bar_that_holds() -> None:
    class Bar(io.StringIO):
        count = 0.0

        def update(self, units: float | None) -> None:
            self.count += units or 0

    bar, told = Bar(), Told(2)

    def train() -> None:
        with HeldBar(bar, told) as held:
            for _ in range(5):
                held.update()

    with pytest.raises(SystemExit):
        train()
    assert bar.count == 2
    assert bar.closed
    assert [num for num, _ in told.read()] == [2]


def test_tracks_are_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "count_tracks", lambda batch: 8 * batch)
    tracks.write_tracks(tmp_path / "tracks", 2, seed=3)
    shards = ShardSet(tmp_path / "tracks")
    shards.verify(lambda num: None)
    learnt, labels = tracks.read_tracks(tmp_path / "tracks")
    is_train = shards.index["split"] == "train"
    assert learnt.shape == (int(is_train.sum()), tracks.NUM_FRAMES, 128)
    assert np.array_equal(shards.read(5), learnt[5].numpy())
    assert shards.index["label"][is_train].tolist() == [f"label-{label}" for label in labels.tolist()]
    mean = shards.index["db_sum"][is_train].sum() / learnt.numel()
    assert mean == pytest.approx(tracks.MEAN_DB, abs=0.1)
    assert float(learnt.float().std()) == pytest.approx(tracks.DEVIATION_DB, rel=0.05)


def test_all_batches_are_full() -> None:
    for batch in (2, 7, 64, 100, 1024):
        assert all(tracks.count_tracks(batch) % (batch * num_ranks) == 0 for num_ranks in (1, 2, 4))


@pytest.fixture(scope="module")
def work() -> loops.Work:
    frames = torch.randn(10, tracks.NUM_FRAMES, 128, generator=torch.Generator().manual_seed(0))
    return loops.Work((frames * 12 - 40).half(), torch.arange(10), batch=5)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.extras if name in ("lightning", "accelerate") else ())
        for name in loops.LOOPS
    ],
)
def test_loops_go_as_they_are_told(
    name: str, work: loops.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CI installs the extra: there its tests may not be missing
    if name in ("lightning", "accelerate") and importlib.util.find_spec(name) is None and "CI" not in os.environ:
        pytest.skip(f"{name} is not installed: pip install -e '.[bench]'")
    model = GenreCNN(10, [4, 8])
    before = model.classify.weight.clone()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loops.Work, "make_model", lambda self: model)
    told = Told(3, 2)
    with pytest.raises(SystemExit):
        loops.LOOPS[name](work, told)
    assert [num for num, _ in told.read()] == [3, 2]
    assert model.blocks[1].num_batches_tracked == 5
    assert not torch.equal(model.classify.weight, before)
    assert not list(tmp_path.iterdir())


def test_batches_of_the_bare_loop(work: loops.Work) -> None:
    batches = list(loops.cut_batches(work))
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(10))
    inputs, labels = batches[0]
    assert inputs.shape == (5, 1, 128, tracks.WINDOW)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    windows = (work.tracks[labels[0]].float() + 40) / 12
    crops = windows.unfold(0, tracks.WINDOW, 1)  # (num_starts, num_mels, WINDOW)
    assert bool((crops == inputs[0]).flatten(1).all(1).any())


def test_crops_one_by_one(work: loops.Work) -> None:
    crop, label = loops.Crops(work)[4]
    assert crop.shape == (1, 128, tracks.WINDOW)
    assert crop.dtype == torch.float32
    assert int(label) == 4
