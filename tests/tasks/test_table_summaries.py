"""What is read from a table: numbers, faults, labels, duplicates; and tables that cannot be explored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import REAL, needs_real

from parallel_tunes import schema
from parallel_tunes.config_explore import ExploreTableJob
from parallel_tunes.data import synthetic_tracks
from parallel_tunes.data.material import Material
from parallel_tunes.schema import UserError
from parallel_tunes.tasks.table_summaries import summarise


def read(root: Path | None, explore: dict[str, Any] | None = None, **data: Any) -> Material:
    tree = {name: schema.defaults(*place) for name, place in {
        "explore": ("explore", "default"), "data": ("data", "spotify"), "run": ("run", "default"),
    }.items()}  # fmt: skip
    tree["explore"] |= explore or {}
    tree["data"] |= {"root": root, **data}
    return summarise(schema.build(ExploreTableJob, tree))


def spotify(num: int = 60) -> pd.DataFrame:
    return synthetic_tracks.make(num_tracks=num, num_artists=6, num_genres=2).tracks.astype(str)


def column(found: Material, name: str) -> dict[str, Any]:
    return next(row for row in found.facts["columns"] if row["name"] == name)


def test_any_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = pd.DataFrame({"a": rng.standard_normal(40), "b": rng.standard_normal(40), "same": 3, "words": "x"}).astype(
        str
    )
    cells["label"] = ["even", "odd"] * 20
    cells.loc[4, "a"], cells.loc[5, "a"], cells.loc[6, "label"] = "", "abc", ""
    cells.to_csv(tmp_path / "t.csv", index=False)
    found = read(tmp_path / "t.csv")
    assert found.features.names == ["a", "b"]
    assert np.isfinite(found.features.values).all()
    usual = np.delete(found.features.values[:, 0], [4, 5])
    assert found.features.values[[4, 5], 0] == pytest.approx(np.median(usual))
    facts = column(found, "a")
    assert (facts["num_missing"], facts["num_bad"], facts["num_distinct"]) == (1, 1, 38)
    assert column(found, "words") == {"name": "words", "num_missing": 0, "kind": "text", "num_distinct": 1}
    assert found.facts["left_out"] == {"same": "constant: 3 throughout"}
    assert found.frame["path"].iloc[0] == "t.csv line 2"
    assert found.frame["label"].tolist()[5:8] == ["odd", None, "odd"]
    assert found.frame["tempo_bpm"].isna().all()
    clean = read(tmp_path / "t.csv", drop_bad=True)
    assert (len(clean.frame), clean.facts["num_dropped"], clean.facts["num_read"]) == (38, 2, 40)
    assert read(tmp_path / "t.csv", {"label": "words"}).frame["label"].unique().tolist() == ["x"]
    assert read(tmp_path / "t.csv", {"label": "none"}).frame["label"].isna().all()
    cells.to_parquet(tmp_path / "t.parquet", index=False)
    assert read(tmp_path / "t.parquet").features.values == pytest.approx(found.features.values)


def test_spotify_s_schema(tmp_path: Path) -> None:
    made = synthetic_tracks.make(num_tracks=60, num_artists=6, num_genres=2)
    cells = made.tracks.astype(str)
    cells.loc[3, "tempo"], cells.loc[4, "energy"], cells.loc[5, "artists"] = "0", "1.5", "[]"
    cells.loc[5, "id_artists"] = "[]"
    cells.loc[7] = cells.loc[8]
    cells.loc[9, ["name", "artists", "id_artists"]] = cells.loc[10, ["name", "artists", "id_artists"]]
    cells.to_csv(tmp_path / "tracks.csv", index=False)
    made.artists.to_csv(tmp_path / "artists_with_genres.csv", index=False)
    found = read(tmp_path)
    assert "key" not in found.features.names
    assert {"popularity", "year"} <= found.facts["left_out"].keys() - set(found.features.names)
    assert {row["reason"]: row["num"] for row in found.facts["impossible"]} == {
        "tempo 0: none was found": 1,
        "energy outside 0 to 1": 1,
    }
    assert np.isnan(found.frame["tempo_bpm"].iloc[3])
    assert found.frame["duration_s"].iloc[0] == pytest.approx(float(cells["duration_ms"][0]) / 1000)
    assert found.facts["label"] == "families of the artists' genres, artists_with_genres.csv"
    assert found.frame["label"].nunique() == 2
    assert found.frame["label"].iloc[5] is None
    assert {how: len(keys) - len(set(keys)) for how, keys in found.duplicates.items()} == {
        "rows of the same id": 1, "rows alike in every number": 1, "the same title by the same artists": 2,
    }  # fmt: skip
    part = read(tmp_path, {"max_tracks": 20})
    assert part.features.values == pytest.approx(found.features.values[part.rows])
    assert len(part.frame) == 60


@pytest.mark.parametrize(
    ("spoil", "explore", "says"),
    [
        (lambda t: t[["name", "artists"]], {}, r"t\.csv: no column of numbers; it has name, artists"),
        (lambda t: t, {"label": "labl"}, r"explore\.label=labl: no such column"),
        (lambda t: t, {"label": "genres"}, r"explore\.label=genres: give a table of tracks"),
        (lambda t: t.head(0), {}, "no rows"),
        (lambda t: pd.concat([t] * 20).assign(mark=range(1200)), {"label": "mark"}, r"1200 labels in column 'mark', over 1000"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_explored(tmp_path: Path, spoil: Any, explore: dict[str, Any], says: str) -> None:
    spoil(spotify()).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=says):
        read(tmp_path / "t.csv", explore)


def test_no_row_is_left(tmp_path: Path) -> None:
    pd.DataFrame({"a": ["", "1"], "b": ["2", ""]}).to_csv(tmp_path / "t.csv", index=False)
    assert len(read(tmp_path / "t.csv").frame) == 2
    with pytest.raises(UserError, match=r"data\.drop_bad=true leaves none of 2 rows"):
        read(tmp_path / "t.csv", drop_bad=True)


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: say where the table is"):
        read(None)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.csv")


@needs_real
def test_gtzan_s_table() -> None:
    found = read(REAL / "gtzan_tables/features_30_sec.csv")
    assert (len(found.frame), len(found.features.names), found.frame["label"].nunique()) == (710, 58, 10)
    alike = found.duplicates["rows alike in every number"]
    assert len(alike) - len(set(alike)) == 10
    assert found.facts["level_unit"] == "mean RMS, dB below full scale"
    assert found.frame["level_db"].between(-50, 0).all()
    assert column(found, "filename")["num_distinct"] == 710
