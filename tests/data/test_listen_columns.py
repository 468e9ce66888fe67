from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_tunes.data import listen_columns
from parallel_tunes.data.cells import Vocabulary
from parallel_tunes.data.listen_columns import (
    ARTISTS,
    GENRES,
    WRITERS,
    Transformed,
    split,
    transform_songs,
    transform_users,
)
from parallel_tunes.data.listen_tables import COLUMNS

SONG_NAMES = COLUMNS["songs"][1:] + COLUMNS["song_extra_info"][1:]
USER_NAMES = COLUMNS["members"][1:]


def encode(words: Sequence[str], vocabulary: Vocabulary | None = None) -> tuple[np.ndarray, Vocabulary]:
    """Codes of words, and the vocabulary that gave them."""
    data = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, data)])
    cells = np.stack([ends[:-1], ends[1:]], -1)[:, None].astype(np.int32)
    vocabulary = vocabulary or Vocabulary()
    return vocabulary.encode(np.frombuffer(b"".join(data) + bytes(8), np.uint8), cells, 0), vocabulary


def songs(*rows: dict[str, str]) -> Transformed:
    """Songs of code 1, 2 …, with cells that are empty where not given."""
    cells, words = {}, {}
    for name in SONG_NAMES:
        codes, vocabulary = encode([row.get(name, "") for row in rows])
        cells[name], words[name] = np.concatenate([[np.int32(0)], codes]), vocabulary.words()
    return transform_songs(cells, words)


def said(made: Transformed, column: str) -> list[str]:
    """The words of a column, without that of code 0."""
    words = made.words[listen_columns.WORDS_OF.get(column, column)].to_pylist()
    assert made.codes[column][0] == 0
    return [words[code] for code in made.codes[column][1:]]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.text("abé\0", max_size=20), max_size=60), st.lists(st.text("abé\0", max_size=20), max_size=9))
def test_codes_count_from_one_by_first_appearance(words: list[str], others: list[str]) -> None:
    codes, vocabulary = encode(words)
    expected = {word: code for code, word in enumerate(dict.fromkeys(["", *words]))}
    assert codes.tolist() == [expected[word] for word in words]
    assert vocabulary.words().to_pylist() == list(expected)
    again = Vocabulary.of(vocabulary.words())
    assert again.words() == vocabulary.words()
    assert again.encode(np.zeros(8, np.uint8), np.zeros((0, 1, 2), np.int32), 0).tolist() == []
    data = b"".join(word.encode() for word in others) + bytes(8)
    ends = np.cumsum([0] + [len(word.encode()) for word in others])
    cells = np.stack([ends[:-1], ends[1:]], -1)[:, None].astype(np.int32)
    found = again.encode(np.frombuffer(data, np.uint8), cells, 0, is_open=False)
    assert found.tolist() == [expected.get(word, 0) for word in others]
    assert again.num == vocabulary.num


def test_words_of_one_letter_more_or_less_are_told_apart() -> None:
    words = [f"{'x' * (k % 40)}{k}" for k in range(200_000)] + ["a" * k for k in range(1, 100)]
    codes, vocabulary = encode(words)
    assert codes.tolist() == list(range(1, len(words) + 1))
    assert encode(words[::-1], vocabulary)[0].tolist() == list(range(len(words), 0, -1))


def test_lists_are_split() -> None:
    cases: list[tuple[str, str, list[str]]] = [
        ("張信哲 (Jeff Chang)", ARTISTS, ["張信哲 (Jeff Chang)"]),
        ("A| B|  C", ARTISTS, ["A", "B", "C"]),
        ("Simon & Garfunkel", ARTISTS, ["Simon", "Garfunkel"]),
        ("A feat. B", ARTISTS, ["A", "B"]),
        ("A (Feat. B & C)", ARTISTS, ["A", "B", "C"]),
        ("A ft B", ARTISTS, ["A", "B"]),
        ("A featuring B", ARTISTS, ["A", "B"]),
        ("AC/DC", ARTISTS, ["AC/DC"]),
        ("Daft Punk", ARTISTS, ["Daft Punk"]),
        ("Feather", ARTISTS, ["Feather"]),
        ("| |&", ARTISTS, []),
        ("", ARTISTS, []),
        ("TEDDY|  FUTURE BOUNCE|  Bekuh BOOM", WRITERS, ["TEDDY", "FUTURE BOUNCE", "Bekuh BOOM"]),
        ("A/B, C、D", WRITERS, ["A", "B", "C", "D"]),
        ("864|857|850", GENRES, ["864", "857", "850"]),
    ]
    for cell, pattern, names in cases:
        starts, found = split(pa.array(["", cell, "Z"]), pattern)
        assert found.to_pylist() == [*names, "Z"]
        assert starts.tolist() == [0, 0, len(names), len(names) + 1]


def test_songs() -> None:
    made = songs(
        {
            "artist_name": "張信哲 (Jeff Chang)| B| C| D",
            "composer": "x/ 張信哲",
            "lyricist": "y",
            "genre_ids": "5|7|9|11",
            "isrc": "TW-A53-08-87303",
            "song_length": "247640",
            "language": "3",
        },
        {"artist_name": "b", "composer": "B", "isrc": "twum79912345", "name": "Song (feat. Q)", "song_length": "x"},
        {"lyricist": "y", "genre_ids": "7", "isrc": "US123", "name": "plain", "song_length": "0"},
        {},
    )
    assert said(made, "artist") == ["張信哲 (Jeff Chang)", "b", "", ""]
    assert said(made, "artist2") == ["B", "", "", ""]
    assert said(made, "artist_more") == ["C", "", "", ""]
    assert [said(made, f"genre{k}") for k in ("1", "2", "_more")] == [
        ["5", "", "7", ""],
        ["7", "", "", ""],
        ["9", "", "", ""],
    ]
    assert said(made, "composer") == ["x", "B", "", ""]
    assert said(made, "lyricist") == ["y", "", "y", ""]
    assert said(made, "country") == ["TW", "TW", "", ""]
    assert said(made, "registrant") == ["TWA53", "TWUM7", "", ""]
    assert said(made, "is_artist_composer") == ["yes", "yes", "", ""]  # 張信哲, and B whatever its case
    assert said(made, "is_artist_lyricist") == ["no", "", "", ""]
    assert said(made, "has_featured") == ["no", "yes", "no", ""]
    numbers = {name: values[1:].tolist() for name, values in made.numbers.items()}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert numbers["length_ms"] == [247640, nan, nan, nan]
    assert numbers["year"] == [2008, 1999, nan, nan]
    assert numbers["num_artists"] == [4, 1, nan, nan]
    assert numbers["num_genres"] == [4, nan, 1, nan]
    assert numbers["num_composers"] == [2, 1, nan, nan]
    assert made.odd == {"isrc": 1, "song_length": 2}
    assert tuple(made.codes) == listen_columns.SONG_COLUMNS
    assert tuple(made.numbers) == listen_columns.SONG_NUMBERS
    assert all(np.isnan(values[0]) for values in made.numbers.values())


NAME = st.sampled_from(["A", "a", "B (x)", "b", "C", "中", "中 (Z)"])
NAMES = st.lists(NAME, max_size=4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=8))
def test_an_artist_is_found_among_writers(rows: list[tuple[list[str], list[str]]]) -> None:
    made = songs(*({"artist_name": "|".join(artists), "composer": "|".join(composers)} for artists, composers in rows))

    def plain(names: list[str]) -> set[str]:
        return {name.split(" (")[0].lower() for name in names}

    expected = [("yes" if plain(a) & plain(c) else "no") if a and c else "" for a, c in rows]
    assert said(made, "is_artist_composer") == expected
    assert said(made, "artist2") == [a[1] if len(a) > 1 else "" for a, _ in rows]


def test_users() -> None:
    rows = [
        ("1", "27", "female", "9", "20000102", "20010101"),
        ("", "0", "", "", "20170230", "19991231"),
        ("1", "1051", "male", "7", "2017", "x"),
        ("", "-3", "", "", "", ""),
    ]
    cells, words = {}, {}
    for name, column in zip(USER_NAMES, zip(*rows, strict=True), strict=True):
        codes, vocabulary = encode(column)
        cells[name], words[name] = np.concatenate([[np.int32(0)], codes]), vocabulary.words()
    made = transform_users(cells, words)
    nan = pytest.approx(np.nan, nan_ok=True)
    assert made.numbers["age"].tolist() == [nan, 27, nan, nan, nan]
    assert made.numbers["registered_days"].tolist() == [nan, 1, nan, nan, nan]
    assert made.numbers["expires_days"].tolist() == [nan, 366, -1, nan, nan]
    assert made.numbers["member_days"].tolist() == [nan, 365, nan, nan, nan]
    assert made.codes["city"].tolist() == [0, 1, 0, 1, 0]
    assert made.codes["gender"].tolist() == [0, 1, 0, 2, 0]
    assert made.odd == {"bd": 2, "registration_init_time": 2, "expiration_date": 1}
