"""Small tables of tracks, good and bad, and how tests read them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from parallel_tunes import schema
from parallel_tunes.config_tracks import PopularityConfig, TracksConfig
from parallel_tunes.data import synthetic_tracks
from parallel_tunes.data.tracks import Tracks, read_tracks


def read(root: Path | None, **changes: Any) -> Tracks:
    """Keys of data and of the task, over their defaults."""
    data = schema.build(TracksConfig, schema.defaults("data", "spotify"))
    task = schema.build(PopularityConfig, schema.defaults("task", "popularity"))
    of_data = {field.name for field in dataclasses.fields(data)}
    return read_tracks(
        dataclasses.replace(data, root=root, **{name: value for name, value in changes.items() if name in of_data}),
        dataclasses.replace(task, **{name: value for name, value in changes.items() if name not in of_data}),
    )


def table(num: int = 8) -> pd.DataFrame:
    """Tracks of four artists as text, with nothing wrong."""
    made = synthetic_tracks.make(num_tracks=num, num_artists=4, num_genres=2, seed=1).tracks.astype(str).astype(object)
    made["artists"] = [f"['Artist {row % 4}']" for row in range(num)]
    made["id_artists"] = [f"['id{row % 4}']" for row in range(num)]
    made["release_date"] = [str(1990 + row) for row in range(num)]
    for name, values in (("explicit", "01"), ("mode", "10"), ("time_signature", "34")):
        made[name] = [values[row % 2] for row in range(num)]
    made["id"] = [f"track{row}" for row in range(num)]
    return made


def spoilt(tmp_path: Path, row: int, column: str, value: str) -> Path:
    """A table with one cell changed."""
    made = table()
    made.loc[row, column] = value
    made.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"
