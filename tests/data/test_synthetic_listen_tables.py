from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import REAL, needs_real

from parallel_tunes.data import synthetic_listen_tables
from parallel_tunes.data.synthetic_listen_tables import HEADERS, PROBABILITY, TRUTH, list_writers, write
from parallel_tunes.data.synthetic_listens import SOURCES, SynthListens, make

Rows = dict[str, list[dict[str, str]]]


def written(listens: SynthListens) -> dict[str, bytes]:
    found = {}
    for name, writer in list_writers(listens).items():
        stream = io.BytesIO()
        writer(stream)
        found[name] = stream.getvalue()
    return found


def read(tables: dict[str, bytes]) -> Rows:
    """By Python's own reader of CSV, which must find as many cells in each row as the header has."""
    rows: Rows = {}
    for name in HEADERS:
        lines = list(csv.reader(io.StringIO(tables[name].decode(), newline=""), strict=True))
        assert {len(line) for line in lines} == {len(lines[0])}
        rows[name] = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    return rows


@pytest.fixture(scope="module")
def listens() -> SynthListens:
    return make(num_rows=20_000, num_songs=4000, missing=0.4, seed=3)


@pytest.fixture(scope="module")
def rows(listens: SynthListens) -> Rows:
    return read(written(listens))


def test_bytes_are_the_seeds(monkeypatch: pytest.MonkeyPatch, listens: SynthListens) -> None:
    writers, other = list_writers(listens), written(make(num_rows=20_000, num_songs=4000, missing=0.4, seed=4))
    for name, data in written(listens).items():
        stream = io.BytesIO()
        writers[name](stream)
        assert stream.getvalue() == data != other[name]
    before = written(listens)["train.csv"]
    monkeypatch.setattr(synthetic_listen_tables, "CHUNK", 777)
    assert written(listens)["train.csv"] == before


def test_rows_are_the_listens_in_order(listens: SynthListens, rows: Rows) -> None:
    train, test = rows["train.csv"], rows["test.csv"]
    assert (len(train), len(test)) == (20_000, 2000)
    assert [int(row["target"]) for row in train] == listens.target[:20_000].tolist()
    assert [row["id"] for row in test] == [str(number) for number in range(2000)]
    both = [*train, *test]
    for column, codes in (("msno", listens.user), ("song_id", listens.song)):
        words = np.array([row[column] for row in both])
        _, first, at = np.unique(codes, return_index=True, return_inverse=True)
        assert (words == words[first][at]).all()
        assert len(np.unique(words)) == len(first)
    for row, number in zip(both[::97], listens.source[::97], strict=True):
        source = SOURCES[number]
        assert tuple(row[name] for name in HEADERS["train.csv"].split(",")[2:5]) == source[:3]
    assert {row["msno"] for row in test} - {row["msno"] for row in train}  # who is new there
    assert {row["song_id"] for row in test} - {row["song_id"] for row in train}


def test_ids_are_base64_of_32_bytes(rows: Rows) -> None:
    for word in [row["song_id"] for row in rows["songs.csv"][:50]] + [row["msno"] for row in rows["members.csv"]]:
        assert len(word) == 44
        assert len(base64.b64decode(word, validate=True)) == 32
    for name, column in (("songs.csv", "song_id"), ("members.csv", "msno"), ("song_extra_info.csv", "song_id")):
        words = [row[column] for row in rows[name]]
        assert len(words) == len(set(words))


def test_bare_songs_have_no_row(listens: SynthListens, rows: Rows) -> None:
    assert len(rows["songs.csv"]) == (~listens.is_bare).sum() == 2400
    assert len(rows["song_extra_info.csv"]) == 2280
    described = {row["song_id"] for row in rows["songs.csv"]}
    assert {row["song_id"] for row in rows["song_extra_info.csv"]} < described
    first = {int(song): row["song_id"] for song, row in zip(listens.song[::-1], rows["test.csv"][::-1], strict=False)}
    assert all((word in described) != listens.is_bare[song] for song, word in first.items())
    assert {row["msno"] for row in rows["members.csv"]} >= {row["msno"] for row in rows["train.csv"]}
    assert len(rows["members.csv"]) == listens.num_users


def test_songs_of_an_artist_have_one_name(listens: SynthListens, rows: Rows) -> None:
    words = {row["song_id"]: row["artist_name"] for row in rows["songs.csv"]}
    names: dict[int, set[str]] = {}
    for song, row in zip(listens.song, rows["train.csv"], strict=False):
        if row["song_id"] in words:
            first = re.split(r"\|| feat\. ", words[row["song_id"]])[0]
            names.setdefault(int(listens.artist[song]), set()).add(first)
    assert {len(found) for found in names.values()} == {1}
    assert len({name for found in names.values() for name in found}) == len(names)


def test_words_are_as_odd_as_real_ones(rows: Rows) -> None:
    songs, extra, members = rows["songs.csv"], rows["song_extra_info.csv"], rows["members.csv"]
    for what in (",", '"', "|", " feat. ", "李"):
        assert any(what in row["artist_name"] for row in songs)
    for what in (",", '"', "\n", "我們"):
        assert any(what in row["name"] for row in extra)
    assert any("| " in row["composer"] for row in songs)
    assert any(row["composer"] == row["artist_name"] for row in songs)
    assert any(row["genre_ids"] == "465|958" for row in songs)

    def share(table: list[dict[str, str]], column: str, word: str = "") -> float:
        return sum(row[column] == word for row in table) / len(table)

    assert share(songs, "composer") == pytest.approx(0.42, abs=0.04)
    assert share(songs, "lyricist") == pytest.approx(0.72, abs=0.04)
    assert share(extra, "isrc") == pytest.approx(0.13, abs=0.03)
    assert all(re.fullmatch(r"[A-Z]{2}[A-Z0-9]{3}\d{7}", row["isrc"]) for row in extra if row["isrc"])
    assert 0.4 < share(members, "bd", "0") < 0.7
    assert 0.4 < share(members, "gender") < 0.7
    for row in members:
        began, ended = row["registration_init_time"], row["expiration_date"]
        assert re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", began)
        assert began < ended or ended.startswith("1970")


def test_ages_are_nonsense_sometimes() -> None:
    members = read(written(make(num_rows=100, num_users=5000)))["members.csv"]
    odd = [int(row["bd"]) for row in members if row["bd"] != "0" and not 5 <= int(row["bd"]) <= 100]
    assert 10 < len(odd) < 150
    assert min(odd) < 0
    assert max(odd) > 900


@needs_real
def test_headers_are_the_real_ones() -> None:
    assert HEADERS["test.csv"] == "id," + HEADERS["train.csv"].removesuffix(",target")
    for name in set(HEADERS) - {"test.csv"}:
        with (REAL / "kkbox" / name).open(encoding="utf-8") as lines:
            assert lines.readline().rstrip("\n") == HEADERS[name]


def test_a_folder_is_written(tmp_path: Path) -> None:
    made = make(num_rows=300, num_test=0)
    write(made, tmp_path / "listens")
    assert {path.name for path in (tmp_path / "listens").iterdir()} == {*HEADERS, TRUTH, PROBABILITY}
    assert json.loads((tmp_path / "listens" / TRUTH).read_text()) == made.truth
    np.testing.assert_array_equal(np.load(tmp_path / "listens" / PROBABILITY), made.probability)
    assert (tmp_path / "listens/test.csv").read_text() == HEADERS["test.csv"] + "\n"
