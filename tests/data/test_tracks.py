from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tracks import read, spoilt, table
from fakes import REAL, needs_real

from parallel_tunes import schema
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import splits, synthetic_tracks
from parallel_tunes.data.track_features import AUDIO
from parallel_tunes.data.tracks import index_digest
from parallel_tunes.schema import UserError


def test_a_table(tmp_path: Path) -> None:
    made = table()
    made.loc[0, "artists"] = "[\"Anita O'Day\", 'Artist 3']"
    made.loc[0, "id_artists"] = "['id0', 'id3']"
    made["release_date"] = ["1990", "1991-05", "1992-02-29", *made["release_date"][3:]]
    made.to_csv(tmp_path / "t.csv", index=False)
    tracks = read(tmp_path / "t.csv")
    assert tracks.names == list(AUDIO)
    assert tracks.features.dtype == np.float64
    assert (tracks.features == made[list(AUDIO)].astype(float).to_numpy()).all()
    frame = tracks.frame
    assert list(frame["artist"])[:2] == ["Anita O'Day", "Artist 1"]
    assert list(frame["group"]) == ["id0", "id1", "id2", "id0"] * 2
    assert list(read(tmp_path / "t.csv", group="main").frame["group"]) == ["id0", "id1", "id2", "id3"] * 2
    assert list(frame["path"]) == list(frame["id"]) == list(made["id"])
    assert list(frame["where"])[:2] == ["t.csv line 2", "t.csv line 3"]
    assert list(frame["year"]) == list(range(1990, 1998))
    assert frame["year"].dtype == np.int64
    assert frame["popularity"].to_numpy().tolist() == made["popularity"].astype(float).tolist()
    assert frame["label"].tolist() == [None] * 8
    report = {**tracks.report, "dropped": {}}
    assert report == {
        "num_read": 8, "num_kept": 8, "files": ["t.csv"], "skipped": [], "remarks": [], "dropped": {}, "num_groups": 3,
        "largest_group_share": 0.5, "num_duplicates": 0, "columns_not_learnt_from": [],
    }  # fmt: skip
    assert not tracks.report["dropped"]


def test_what_is_no_number(tmp_path: Path) -> None:
    values = ("abc", "", "nan", "-inf", "1e999", "1_0", "٣", "0x1", "1,5")
    for column, value in [*(("tempo", value) for value in values), ("popularity", "abc"), ("popularity", "")]:
        path = spoilt(tmp_path, 5, column, value)
        holds = f"holds {value!r}, which is no number" if value else "is empty"
        says = f"{path} line 7: column {column} {holds}; mend it, or leave such rows out with data.drop_bad=true"
        with pytest.raises(UserError, match=f"^{re.escape(says)}$"):
            read(path)
        tracks = read(path, drop_bad=True)
        assert tracks.report["num_kept"] == 7
        assert tracks.report["dropped"] == {
            f"{column} is no number": {"num": 1, "examples": [f"t.csv line 7: {column}={value}"]}
        }
        assert "track5" not in set(tracks.frame["id"])
    # what is not learnt from may hold anything
    assert len(read(spoilt(tmp_path, 5, "tempo", "abc"), features=("energy",)).features) == 8


def test_the_first_bad_cell_of_all_files_is_named(tmp_path: Path) -> None:
    made = table()
    made.loc[6, "acousticness"] = "x"
    made.loc[3, "valence"] = "y"
    made.iloc[:4].to_csv(tmp_path / "b.csv", index=False)
    made.iloc[4:].to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=r"a\.csv line 4: column acousticness holds 'x'"):
        read(tmp_path)
    assert list(read(tmp_path, drop_bad=True).report["dropped"]) == [
        "acousticness is no number",
        "valence is no number",
    ]


def test_bad_names(tmp_path: Path) -> None:
    for column, value, says in (
        ("id", " ", "line 4: column id is empty"),
        ("artists", "['Ann', ", "line 4: column artists holds \"['Ann',\", which is no list of names"),
        ("id_artists", "[]", "line 4: column id_artists holds '[]', which is no list of names"),
        ("artists", "", "line 4: column artists is empty"),
    ):
        path = spoilt(tmp_path, 2, column, value)
        with pytest.raises(UserError, match=re.escape(f"{path} {says}")):
            read(path)
        assert len(read(path, drop_bad=True).frame) == 7


def test_duplicates(tmp_path: Path) -> None:
    made = table()
    made.loc[6, "id"] = "track1"  # the same id, later
    again = [name for name in made.columns if name not in ("id", "name", "popularity", "release_date")]
    made.loc[7, again] = made.loc[2, again]  # the same recording, listed anew, and earlier
    made.loc[7, "release_date"] = "1985"
    made.loc[5, [*AUDIO]] = made.loc[3, [*AUDIO]]  # alike, but by another artist
    made.to_csv(tmp_path / "t.csv", index=False)
    tracks = read(tmp_path / "t.csv")
    assert list(tracks.frame["id"]) == [f"track{row}" for row in (0, 1, 3, 4, 5, 7)]
    assert list(tracks.frame["where"])[1] == "t.csv line 3"
    assert tracks.report["num_duplicates"] == 2
    assert {reason: drop["examples"] for reason, drop in tracks.report["dropped"].items()} == {
        "an id that is listed twice": ["t.csv line 8: id=track1"],
        "a recording that is listed twice: artists and features alike": ["t.csv line 4: id=track2"],
    }
    # a feature that is not learnt from tells recordings apart too
    made.loc[7, "tempo"] = "99"
    made.to_csv(tmp_path / "t.csv", index=False)
    assert read(tmp_path / "t.csv", features=("energy",)).report["num_duplicates"] == 1


def test_counts_add_up(tmp_path: Path) -> None:
    made = synthetic_tracks.make(num_tracks=3000, dirty=0.03)
    made.tracks.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t\.csv line \d+: column \w+ (is empty|holds '(abc|nan)')"):
        read(tmp_path / "t.csv")
    report = read(tmp_path / "t.csv", drop_bad=True).report
    found = {reason: drop["num"] for reason, drop in report["dropped"].items()}
    assert sorted(found.values()) == sorted(made.truth["dirty"].values())
    assert report["num_read"] == 3000 == report["num_kept"] + sum(found.values())
    assert all(len(drop["examples"]) == 3 for drop in report["dropped"].values())
    json.dumps(report, allow_nan=False)
    # the first two artists have recorded together
    assert report["num_groups"] == 24


def test_what_cannot_be_learnt_from(tmp_path: Path) -> None:
    table().assign(energy="0.5").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t\.csv: column energy is 0\.5 in all 8 rows that are left"):
        read(tmp_path / "t.csv")
    table().assign(tempo="0").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t\.csv: none of 8 rows is left \(8: tempo 0: none was found\)"):
        read(tmp_path / "t.csv")
    table().drop(columns="release_date").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"task\.year=true: .*t\.csv has no column release_date or year"):
        read(tmp_path / "t.csv", year=True)
    table()[["id", "name", "popularity"]].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"no column of .*t\.csv is numbers throughout; it has id, name, popularity"):
        read(tmp_path / "t.csv", features=("all",))
    table().drop(columns="popularity").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t\.csv: no column 'popularity'"):
        read(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"data\.root: say where"):
        read(None)


def test_genre_needs_no_popularity(tmp_path: Path) -> None:
    table().drop(columns="popularity").to_csv(tmp_path / "t.csv", index=False)
    assert read(tmp_path / "t.csv", target="genre").frame["popularity"].isna().all()
    tracks = read(spoilt(tmp_path, 2, "popularity", "?"), target="genre")
    assert tracks.frame["popularity"].isna().tolist() == [row == 2 for row in range(8)]


def test_columns_that_may_be_absent(tmp_path: Path) -> None:
    few = table().drop(columns=["artists", "id_artists", "release_date", "name"])
    few.to_csv(tmp_path / "t.csv", index=False)
    tracks = read(tmp_path / "t.csv")
    assert "year" not in tracks.frame
    assert tracks.frame["group"].tolist() == [None] * 8
    assert tracks.report["num_groups"] == 0
    assert tracks.report["largest_group_share"] is None
    assert tracks.frame["hash"].is_unique
    few.assign(artist="Ann", year=["2001", "x", *["2003"] * 6]).to_csv(tmp_path / "t.csv", index=False)
    tracks = read(tmp_path / "t.csv")
    assert set(tracks.frame["group"]) == set(tracks.frame["artist"]) == {"Ann"}
    assert tracks.report["num_groups"] == 1
    assert tracks.report["largest_group_share"] == 1
    assert tracks.frame["year"].tolist() == [2001, *[2003] * 6]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    made = synthetic_tracks.make(num_tracks=300).tracks
    for folder in ("csv", "parquet"):
        (tmp_path / folder).mkdir()
    made.to_csv(tmp_path / "csv" / "t.csv", index=False)
    made.to_parquet(tmp_path / "parquet" / "t.parquet")
    one, other = (read(tmp_path / folder, features=("all",)) for folder in ("csv", "parquet"))
    assert index_digest(one) == index_digest(other)
    assert other.frame["where"].iloc[4] == "t.parquet row 5"
    made["tempo"] = made["tempo"].where(made.index != 3)
    made.to_parquet(tmp_path / "parquet" / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet row 4: column tempo is empty"):
        read(tmp_path / "parquet")


def test_the_same_song_told_by_title_and_artists(tmp_path: Path) -> None:
    titles = ["Song", "other", "STRASSE", "", "sonG", "", "straße", ""]
    table().assign(name=titles, artists="['Ann']", id_artists="['a']").to_csv(tmp_path / "t.csv", index=False)
    frame = read(tmp_path / "t.csv").frame
    words: dict[str, Any] = {**schema.defaults("split", "stratified"), "train": 0.5, "valid": 0.25, "test": 0.25}
    split = splits.draw(frame.assign(label="x"), schema.build(SplitConfig, words))
    assert [pair["paths"] for pair in split.duplicates] == [["track0", "track4"], ["track2", "track6"]]


def test_the_digest_is_of_what_is_learnt(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "else").mkdir()
    shutil.copy(tmp_path / "t.csv", tmp_path / "else" / "u.csv")
    digests = [index_digest(read(tmp_path / path)) for path in ("t.csv", "else/u.csv", "else")]
    assert len(set(digests)) == 1
    others = {index_digest(read(tmp_path / "t.csv", features=("tempo",)))}
    for column, value in (("tempo", "99"), ("popularity", "3"), ("release_date", "1950"), ("id_artists", "['q']")):
        others.add(index_digest(read(spoilt(tmp_path, 3, column, value))))
    assert len(others - set(digests)) == 5


@needs_real
def test_real_tracks() -> None:
    tracks = read(REAL / "spotify")
    report = tracks.report
    assert (report["num_read"], report["num_kept"], report["num_duplicates"]) == (80322, 77657, 2600)
    assert report["files"] == [f"tracks_{letter}.csv" for letter in "bcdefghi"]
    assert report["skipped"] == ["artists_with_genres.csv"]
    assert report["dropped"]["tempo 0: none was found"]["num"] == 65
    assert report["num_groups"] == 18556
    # a third of all tracks hang together by who has recorded with whom
    assert report["largest_group_share"] == pytest.approx(0.297, abs=0.001)
    assert tracks.features.shape == (77657, 10)
    assert np.isfinite(tracks.features).all()
    assert tracks.frame["popularity"].between(31, 99).all()
    assert tracks.frame["year"].between(1920, 2021).all()
    assert read(REAL / "spotify", group="main").report["num_groups"] > 23000


@pytest.mark.parametrize(
    ("column", "write"),
    [("artists", repr), ("artists", json.dumps), ("artists", ";".join), ("artist_name", " / ".join), ("performer", ", ".join),
     ("track_artist", " feat. ".join)],
)  # fmt: skip
def test_artists_are_found_in_whatever_way_they_are_written(
    column: str, write: Callable[[list[str]], str], tmp_path: Path
) -> None:
    made = table().drop(columns=["artists", "id_artists"])
    made[column] = [write(["Ann", "Bob"]), write(["Bob"]), write(["Cy"])] + [
        write([f"D{row}"]) for row in range(len(made) - 3)
    ]
    made.to_csv(tmp_path / "t.csv", index=False)
    groups = list(read(tmp_path / "t.csv").frame["group"])
    assert groups[:3] == ["Ann", "Ann", "Cy"]
    assert len(set(groups)) == len(made) - 1


def test_segments_have_the_group_that_their_names_or_a_column_tell(tmp_path: Path) -> None:
    made = table().drop(columns=["artists", "id_artists"])
    made["id"] = [f"blues.{row // 3:05d}.{row % 3}.wav" for row in range(len(made))]
    made.to_csv(tmp_path / "t.csv", index=False)
    by_name = read(tmp_path / "t.csv").frame
    assert by_name["group"].tolist()[:4] == ["blues.00000"] * 3 + ["blues.00001"]
    made = made.rename(columns={"id": "filename"})
    made["track_id"], made["filename"] = (
        [f"t{row // 2}" for row in range(len(made))],
        [f"f{row}" for row in range(len(made))],
    )
    made.to_csv(tmp_path / "t.csv", index=False)
    by_column = read(tmp_path / "t.csv").frame
    assert by_column["id"].tolist()[:3] == ["f0", "f1", "f2"]
    assert by_column["group"].tolist()[:3] == ["t0", "t0", "t1"]
