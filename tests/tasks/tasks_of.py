"""Small pieces of task=popularity that its tests share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.__main__ import compose, to_overrides
from parallel_tunes.config_tracks import HingeConfig, MarginConfig, PopularityJob
from parallel_tunes.data.synthetic_tracks import SynthTracks
from parallel_tunes.data.tracks import Tracks, read_tracks
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build, defaults
from parallel_tunes.tasks.margin_fit import Ground


def make_job(*words: str) -> PopularityJob:
    """The config of `train task=popularity` with these words."""
    job = compose("popularity", to_overrides("popularity", [word for word in words if "=" in word]))
    assert isinstance(job, PopularityJob)
    return job


def make_ground(features: NDArray[np.float64], tolerance: float = 1e-3, **more: Any) -> Ground:
    """What fits want besides a goal, in a world of one."""
    model: HingeConfig = build(HingeConfig, defaults("model", "hinge"))
    learner: MarginConfig = build(MarginConfig, defaults("learner", "numba"))
    names = [f"f{number}" for number in range(features.shape[1])]
    return Ground(features, names, model, replace(learner, tolerance=tolerance), Mesh(), lambda: False, **more)


def read_planted(made: SynthTracks, folder: Path, *words: str) -> Tracks:
    """A synthetic table as it is read back from a file."""
    folder.mkdir(parents=True)
    made.tracks.to_csv(folder / "tracks.csv", index=False)
    job = make_job(f"data.root={folder / 'tracks.csv'}", *words)
    return read_tracks(job.data, job.task)
