from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fakes import REAL, needs_real

from parallel_tunes import files
from parallel_tunes.data import listen_stages, listen_tables
from parallel_tunes.data.listens import LISTEN_COLUMNS, Listens, make_listens
from parallel_tunes.schema import UserError

TRAIN = (
    "msno,song_id,source_system_tab,source_screen_name,source_type,target\n"
    "u1,s1,my library,Local playlist more,local-library,1\n"
    "u2,s2,search,,song,0\n"
    "u1,s2,my library,Search,song,1\n"
    "u3,s9,,,,0\n"
)
TEST = (
    "id,msno,song_id,source_system_tab,source_screen_name,source_type\n"
    "0,u4,s1,radio,Radio,radio\n1,u1,s7,radio,Radio,radio\n"
)
SONGS = (
    "song_id,song_length,genre_ids,artist_name,composer,lyricist,language\n"
    "s5,1000,465,Nobody,x,y,3\n"
    's2,2000,465|458,"A, B & C",A| Z,,52\n'
    's1,3000,,"張信哲 ""Jeff""",,,\n'
    "s2,9999,1,again,,,3\n"
    "s7,x,458,A,A,Q,-1\n"
)
MEMBERS = (
    "msno,city,bd,gender,registered_via,registration_init_time,expiration_date\n"
    "u2,13,43,female,9,20120703,20171006\nu1,1,0,,7,20110820,20170920\nu9,1,20,male,7,20110820,20170920\nu2,5,1,,,,\n"
)
EXTRA = 'song_id,name,isrc\ns1,"two\nlines",TWUM71200043\ns5,x,TWUM71200044\ns2,n,bad\n'
SOAK = int(os.environ.get("PT_SOAK", "1"))
TABLES = {"train": TRAIN, "test": TEST, "songs": SONGS, "members": MEMBERS, "song_extra_info": EXTRA}


class Bar:
    num = 0

    def update(self, num: int) -> None:
        self.num += num


def make(root: Path, folder: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The manifest, and what was said."""
    lines, bar = list[str](), Bar()
    settings: dict[str, Any] = {"max_mib": 100, "max_rows": 10**6, "threads": 2} | options
    manifest = make_listens(root, folder, progress=lambda *_: contextlib.nullcontext(bar), say=lines.append, **settings)
    assert bar.num == len(manifest["sources"])
    return manifest, lines


def write(folder: Path, **changed: str | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (TABLES | changed).items():
        if text is not None:
            (folder / f"{name}.csv").write_text(text)
    return folder


def words(made: Listens, column: str, codes: Any) -> list[str]:
    return list(made.words(column).take(pa.array(codes)).to_pylist())


def cells(made: Listens, column: str, codes: Any) -> list[str]:
    return list(made.cell_words(column).take(pa.array(codes)).to_pylist())


def test_a_star(tmp_path: Path) -> None:
    manifest, lines = make(write(tmp_path / "in"), tmp_path / "out")
    made = Listens(tmp_path / "out")
    assert (made.num_rows, made.num_labelled, made.manifest) == (6, 4, manifest)
    assert made.target.tolist() == [1, 0, 1, 0, -1, -1]
    assert made.codes["user"].tolist() == [1, 2, 1, 3, 4, 1]
    assert made.codes["song"].tolist() == [1, 2, 2, 3, 1, 4]
    assert made.codes["source_system_tab"].tolist() == [1, 2, 1, 0, 3, 3]
    assert {made.codes[name].dtype for name in ("user", "song")} == {np.dtype(np.int32)}
    assert made.words("user").to_pylist() == ["", "u1", "u2", "u3", "u4"]
    assert made.words("song").to_pylist() == ["", "s1", "s2", "s9", "s7"]
    assert words(made, "artist", made.songs["artist"]) == ["", '張信哲 "Jeff"', "A, B", "", "A"]
    assert cells(made, "artist_name", made.song_cells["artist_name"]) == ["", '張信哲 "Jeff"', "A, B & C", "", "A"]
    assert cells(made, "name", made.song_cells["name"]) == ["", "two\nlines", "n", "", ""]
    assert words(made, "city", made.users["city"]) == ["", "1", "13", "", ""]
    assert made.song_numbers["length_ms"][1:3].tolist() == [3000, 2000]
    assert made.user_numbers["age"][2] == 43
    assert [len(table["language"]) for table in (made.songs, made.song_cells)] == [5, 5]
    nums = {name.removeprefix("num_"): num for name, num in manifest.items() if name.startswith("num_") and num}
    assert nums == {
        "train_rows": 4, "test_rows": 2, "users": 4, "songs": 4, "users_in_test_alone": 1, "songs_in_test_alone": 1,
        "rows_without_source_system_tab": 1, "rows_without_source_screen_name": 2, "rows_without_source_type": 1,
        "members_nobody_has": 1, "members_twice": 1, "users_not_in_members": 2,
        "songs_nobody_has": 1, "songs_twice": 1, "songs_not_in_songs": 1,
        "song_extra_info_nobody_has": 1, "songs_not_in_song_extra_info": 2, "songs_odd_isrc": 1, "songs_odd_song_length": 1,
    }  # fmt: skip
    assert len(lines) == 1
    assert "songs twice: 1" in lines[0]
    assert "songs odd isrc: 1" in lines[0]
    with pytest.raises(ValueError, match="read-only"):
        made.codes["user"][0] = 0


def test_test_may_be_absent_and_ids_empty(tmp_path: Path) -> None:
    root = write(tmp_path / "in", test=None, train=TRAIN + ",s1,,,,1\nu1,,,,,0\n")
    manifest, _ = make(root, tmp_path / "out")
    made = Listens(tmp_path / "out")
    assert made.codes["user"].tolist() == [1, 2, 1, 3, 0, 1]
    assert made.codes["song"].tolist() == [1, 2, 2, 3, 1, 0]
    assert (manifest["num_rows_without_user"], manifest["num_rows_without_song"]) == (1, 1)
    assert made.num_rows == made.num_labelled == 6


def draw(rng: np.random.Generator, num_rows: int) -> dict[str, pd.DataFrame]:
    """Random tables with quotes, commas and lines in cells."""

    def pick(num: int, *choices: str) -> Any:
        return rng.choice([*choices, ""], num)

    text = ("a", "b,c", 'd "e"', "f\ng", "歌", "h|i & j")
    users, songs = [f"u{k}" for k in range(30)], [f"s{k}" for k in range(80)]
    sources = {name: pick(num_rows, *text) for name in LISTEN_COLUMNS[2:]}
    return {
        "train": pd.DataFrame(
            {"msno": rng.choice(users, num_rows), "song_id": rng.choice(songs[:60], num_rows), **sources}
            | {"target": rng.integers(0, 2, num_rows)}
        ),
        "songs": pd.DataFrame(
            {"song_id": rng.permutation(songs)[:70]}
            | {name: pick(70, *text, "7", "2000") for name in listen_tables.COLUMNS["songs"][1:]}
        ),
        "members": pd.DataFrame(
            {"msno": rng.permutation(users)[:25]}
            | {name: pick(25, *text, "20170101", "30") for name in listen_tables.COLUMNS["members"][1:]}
        ),
        "song_extra_info": pd.DataFrame(
            {"song_id": rng.permutation(songs)[:70], "name": pick(70, *text), "isrc": pick(70, "TWUM71200043", "x")}
        ),
    }


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen_tables, "PIECE_BYTES", 512)
    monkeypatch.setattr(listen_tables, "RECORD_BYTES", 512)


def test_gathered_it_is_what_pandas_merges_whatever_the_threads(small: None, tmp_path: Path) -> None:
    tables = draw(np.random.default_rng(0), 500)
    (tmp_path / "in").mkdir()
    for name, table in tables.items():
        table.to_csv(tmp_path / "in" / f"{name}.csv", index=False)
    digests = set()
    for threads in (1, 2, 3):
        digests.add(make(tmp_path / "in", tmp_path / f"out{threads}", threads=threads)[0]["digest"])
    (tmp_path / "packed").mkdir()
    for path in (tmp_path / "in").iterdir():
        (tmp_path / "packed" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    digests.add(make(tmp_path / "packed", tmp_path / "out")[0]["digest"])
    assert len(digests) == 1
    made = Listens(tmp_path / "out3")
    merged = tables["train"]
    for name, key in (("songs", "song_id"), ("members", "msno"), ("song_extra_info", "song_id")):
        merged = merged.merge(tables[name], on=key, how="left")
    merged = merged.fillna("")
    assert made.target.tolist() == merged["target"].tolist()
    assert words(made, "user", made.codes["user"]) == merged["msno"].tolist()
    for name in LISTEN_COLUMNS[2:]:
        assert words(made, name, made.codes[name]) == merged[name].tolist()
    for ids, star in (("song", made.song_cells), ("user", made.user_cells)):
        for name, codes in star.items():
            assert cells(made, name, codes[made.codes[ids]]) == merged[name].tolist()


def stamp(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    root, folder = write(tmp_path / "in"), tmp_path / "out"
    manifest, _ = make(root, folder)
    before = stamp(folder)
    assert make(root, folder)[0] == manifest
    assert {name for name, at in stamp(folder).items() if before[name] != at} == {"manifest.json"}

    def redone(stage: str) -> None:
        before = stamp(folder)
        assert make(root, folder)[0] == manifest
        changed = {name for name, at in stamp(folder).items() if before.get(name) != at}
        assert {name.split("-")[0].removesuffix(".json") for name in changed} == {stage, "manifest"}
        assert set(stamp(folder)) == set(files_before)

    files_before = before
    (folder / "users-codes.npy").unlink()
    redone("users")
    data = bytearray((folder / "songs-cells.npy").read_bytes())
    data[-1] ^= 1
    (folder / "songs-cells.npy").write_bytes(data)
    redone("songs")
    (folder / "rows.json").write_text("{")
    redone("rows")
    (root / "members.csv").write_text(MEMBERS.replace("u1,1,0", "u1,2,0"))
    before = stamp(folder)
    assert make(root, folder)[0]["digest"] != manifest["digest"]
    assert before["rows.json"] == (folder / "rows.json").stat().st_mtime_ns


@pytest.mark.parametrize("num_files", [0, 9, 20])
def test_a_run_that_was_killed_is_taken_up(num_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = write(tmp_path / "in"), tmp_path / "out"
    whole, _ = make(root, tmp_path / "whole")
    original, left = files.write_file, [num_files]

    def write_file(path: Path, *args: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        original(path, *args, **options)

    monkeypatch.setattr(files, "write_file", write_file)
    with pytest.raises(KeyboardInterrupt):
        make(root, folder)
    with pytest.raises(UserError, match="no finished columns of listens"):
        Listens(folder)
    (folder / ".partial-00-users-codes.npy").write_bytes(b"torn")
    monkeypatch.setattr(files, "write_file", original)
    assert make(root, folder)[0] == whole | {"root": str(root)}
    assert set(stamp(folder)) == set(stamp(tmp_path / "whole"))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    make(write(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "out/rows-user.npy").write_bytes(b"short")
    with pytest.raises(UserError, match=r"rows-user\.npy: damaged, it has another size; make the columns again"):
        Listens(tmp_path / "out")
    manifest = tmp_path / "out/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 0}))
    with pytest.raises(UserError, match="written in another format"):
        Listens(tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written"):
        make(tmp_path / "in", tmp_path / "file")


BAD: dict[str, tuple[dict[str, str | None], dict[str, int], str]] = {
    "no tables": ({"songs": None, "members": None}, {}, r"in: no members\.csv, songs\.csv, nor packed as \.csv\.gz"),
    "no train": ({"train": None}, {}, r"in: no train\.csv, nor"),
    "target": ({"train": TRAIN + "u1,s1,a,b,c,2\n"}, {}, r"train\.csv line 6, column 'target': '2' is neither 0 nor 1"),
    "no target": ({"train": TRAIN + "u1,s1,a,b,c,\n"}, {}, r"train\.csv line 6, column 'target': '' is neither 0 nor 1"),
    "target 1.0": ({"train": TRAIN.replace(",1\n", ",1.0\n")}, {}, r"train\.csv line 2, column 'target': '1\.0' is neither"),
    "no targets": ({"train": TRAIN.replace("target", "label")}, {}, r"train\.csv: no column 'target'"),
    "renamed": ({"songs": SONGS.replace("artist_name", "artist")}, {}, r"songs\.csv: no column 'artist_name' \(did you mean artist\?\)"),
    "semicolons": ({"songs": SONGS.replace(",", ";")}, {}, r"songs\.csv: written as semicolons between cells; save it as CSV UTF-8"),
    "open quote": ({"song_extra_info": EXTRA + 's7,"x,y\n'}, {}, r"song_extra_info\.csv line 6: a double quote is opened"),
    "rows": ({}, {"max_rows": 5}, r"test\.csv: more listens than data\.max_rows=5"),
    "size": ({"songs": SONGS + "x" * 2**20}, {"max_mib": 1}, r"songs\.csv: more than data\.max_mib=1 MiB"),
}  # fmt: skip


def test_bad_tables_are_one_line(tmp_path: Path) -> None:
    for number, (fault, (changed, options, says)) in enumerate(BAD.items()):
        folder = tmp_path / str(number)
        with pytest.raises(UserError) as caught:
            make(write(folder / "in", **changed), folder / "out", **options)
        assert re.search(says, str(caught.value)), fault
        assert "\n" not in str(caught.value)
        assert not (folder / "out/manifest.json").exists()


def test_tables_packed_as_7z_are_one_line_with_the_command(tmp_path: Path) -> None:
    root = write(tmp_path / "in", train=None)
    (root / "train.csv.7z").write_bytes(b"7z")
    (root / "songs.csv.7z").write_bytes(b"not looked at beside songs.csv")
    with pytest.raises(UserError, match=r"in: \.7z is not read; unpack the tables there: 7z x train\.csv\.7z$"):
        make(root, tmp_path / "out")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=.*nowhere: no such folder"):
        make(tmp_path / "nowhere", tmp_path / "out")


def mangle(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes of a table changed, lost, put in, or a stretch of it repeated."""
    new = [b'"', b",", b"\n", b"\r", b"\xff", b"\0", b"\xef\xbb\xbf", b'""', b"s1", b"\xe6\xad\x8c", b""]
    for _ in range(rng.integers(1, 4)):
        at, num = int(rng.integers(len(data) + 1)), int(rng.integers(-20, 30))  # left out, or where negative, repeated
        num = len(data) if rng.random() < 0.05 else max(num, 0) if rng.random() < 0.5 else num
        data = data[:at] + new[rng.integers(len(new))] + data[max(at + num, 0) :]
    return data


def test_mangled_tables_are_read_or_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # these runs need not last
    monkeypatch.setattr(listen_tables, "PIECE_BYTES", 200)
    monkeypatch.setattr(listen_tables, "RECORD_BYTES", 200)
    rng, says, num_read = np.random.default_rng(3), list[str](), 0
    for number in range(40 * SOAK):
        name = str(rng.choice(list(TABLES)))
        root = write(tmp_path / f"in{number % 2}")
        (root / f"{name}.csv").write_bytes(mangle(TABLES[name].encode(), rng))
        try:
            make(root, tmp_path / "out", threads=1 + number % 2)
        except UserError as error:
            says.append(str(error))
            continue
        made, num_read = Listens(tmp_path / "out"), num_read + 1
        assert set(made.target.tolist()) <= {-1, 0, 1}
        for ids, star in (("song", made.songs), ("user", made.users)):
            num = len(made.words(ids))
            assert made.codes[ids].max() < num
            for column, codes in star.items():
                assert (len(codes), codes[0]) == (num, 0)
                assert codes.max() < len(made.words(column))
    assert min(num_read, len(says)) > 5
    assert all(re.search(rf"({'|'.join(TABLES)})\.csv", line) and "\n" not in line for line in says)


@needs_real
def test_the_real_sample(tmp_path: Path) -> None:
    manifest, _ = make(REAL / "kkbox", tmp_path)
    made = Listens(tmp_path)
    train = pd.read_csv(REAL / "kkbox/train.csv", keep_default_na=False)
    songs = pd.read_csv(REAL / "kkbox/songs.csv", keep_default_na=False, dtype=str)
    assert made.num_rows == made.num_labelled == len(train)
    assert words(made, "song", made.codes["song"]) == train["song_id"].tolist()
    np.testing.assert_array_equal(made.target, train["target"])
    heard = songs[songs["song_id"].isin(train["song_id"])].set_index("song_id")
    assert manifest["num_songs_not_in_songs"] == train["song_id"].nunique() - len(heard)
    known = dict(
        zip(made.words("song").to_pylist(), cells(made, "artist_name", made.song_cells["artist_name"]), strict=True)
    )
    assert {song: known[song] for song in heard.index} == heard["artist_name"].to_dict()
    assert 1900 <= np.nanmin(made.song_numbers["year"]) <= np.nanmax(made.song_numbers["year"]) <= 2017


def test_stages_agree_on_names() -> None:
    assert sorted(name for names in listen_stages.TABLES_OF.values() for name in names) == sorted(listen_tables.COLUMNS)
