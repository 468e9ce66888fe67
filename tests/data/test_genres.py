from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from fakes import REAL, needs_real

from parallel_tunes import schema
from parallel_tunes.config_tracks import TracksConfig
from parallel_tunes.data import genres
from parallel_tunes.schema import UserError


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / genres.TABLE).write_text(text)
    return tmp_path / genres.TABLE


def test_genres_are_text_or_lists(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "genres,artists,count\n"
        '"album rock, art rock,rock",Ann,3\n'
        "[],Bob,1\n"
        "\"['children\\'s music', 'pop']\",\"Cy, Jr.\",2\n"
        ",Di,2\n"
        "jazz,Bob,2\n",
    )
    assert genres.read_genres(path) == {
        "Ann": ["album rock", "art rock", "rock"],
        "Bob": ["jazz"],
        "Cy, Jr.": ["children's music", "pop"],
        "Di": [],
    }


def test_families() -> None:
    for genre, family in [
        ("album rock", "rock"),
        ("Hip Hop", "hip hop"),
        ("east coast  hip hop", "hip hop"),
        ("trip hop", "hop"),
        ("r&b", "r&b"),
        ("k-pop", "k-pop"),
    ]:
        assert genres.family(genre) == family


def test_an_artist_is_of_the_family_it_has_most_of() -> None:
    known = {"Ann": ["jazz", "art rock", "rock"], "Bob": ["dutch pop", "folk"], "Cy": []}
    labels = genres.label_by_family(["Bob", "Ann", "Cy", "Di", None, "Ann"], known)
    assert labels.tolist() == ["pop", "rock", None, None, None, "rock"]


def test_bad_tables(tmp_path: Path) -> None:
    for text, says in [
        ("genres,name\nrock,Ann\n", "artists_with_genres.csv: no column 'artists'; it has genres, name"),
        (
            "genres,artists\nrock,Ann\n\"['rock'\",Bob\n",
            "line 3: column genres holds \"['rock'\", which is no list of genres",
        ),
        ("genres,artists\nrock,Ann\nrock, \n", "line 3: column artists holds ' ', which is no name"),
    ]:
        with pytest.raises(UserError, match=re.escape(says)):
            genres.read_genres(write(tmp_path, text))


def test_the_table_lies_beside_the_tracks(tmp_path: Path) -> None:
    plain = schema.build(TracksConfig, schema.defaults("data", "spotify"))
    with pytest.raises(UserError, match=r"data\.artists: say where"):
        genres.find_table(plain)
    with pytest.raises(UserError, match=r"artists_with_genres\.csv: no such file; task\.target=genre"):
        genres.find_table(dataclasses.replace(plain, root=tmp_path))
    path = write(tmp_path, "genres,artists\n")
    (tmp_path / "t.csv").write_text("id\n")
    assert genres.find_table(dataclasses.replace(plain, root=tmp_path)) == path
    assert genres.find_table(dataclasses.replace(plain, root=tmp_path / "t.csv")) == path
    assert genres.find_table(dataclasses.replace(plain, artists=tmp_path / "x.csv")) == tmp_path / "x.csv"


@needs_real
def test_real_genres() -> None:
    known = genres.read_genres(REAL / "spotify" / genres.TABLE)
    assert len(known) == 28680
    assert sum(not listed for listed in known.values()) == 9857
    assert genres.label_by_family(["The Beatles", "Miles Davis", "2Pac"], known).tolist() == ["rock", "jazz", "rap"]
