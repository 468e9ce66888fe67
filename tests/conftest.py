from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "2"

from parallel_tunes import __main__ as door


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the door in this process, in a folder of its own; the exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ptunes", *words])
        with pytest.raises(SystemExit) as ended:
            door.main(list(words))
        return int(ended.value.code or 0)

    return call


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus, its shards and a model, made once through the door; tests only read it."""
    from fakes import TINY, ptunes

    folder = tmp_path_factory.mktemp("workshop")
    ptunes("synth", "num_artists=4", "tracks_per_artist=2", "duration_s=2", "run.name=corpus", cwd=folder)
    ptunes("preprocess", "data=synthetic", "data.root=logs/synth/corpus", "run.name=corpus", cwd=folder)
    ptunes(
        "train",
        "data=synthetic",
        "data.root=logs/synth/corpus",
        "train.num_epochs=2",
        "run.name=tiny",
        *TINY,
        cwd=folder,
    )
    return folder
