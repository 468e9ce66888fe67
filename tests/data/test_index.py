from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from fakes import write_tree

from parallel_tunes import schema
from parallel_tunes.config import DataConfig
from parallel_tunes.data import index
from parallel_tunes.schema import UserError


def config(root: Path, group_regex: str | None = None, kind: str = "folder") -> DataConfig:
    plain = schema.build(DataConfig, schema.defaults("data", "folder"))
    return dataclasses.replace(plain, root=root, group_regex=group_regex, kind=kind)


def test_a_tree_is_listed_in_the_order_of_its_paths(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "high" / "notes.txt").write_text("not audio")
    (tmp_path / "cover.wav").write_bytes(b"in no label's folder")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.wav").write_bytes(b"1")
    (tmp_path / "high" / "album").mkdir()
    (tmp_path / "high" / "album" / "deep.WAV").write_bytes(b"1")
    tracks, folder = index.scan(config(tmp_path))
    assert folder == tmp_path
    assert len(tracks) == 13
    assert list(tracks["path"]) == sorted(tracks["path"])
    assert set(tracks["label"]) == {"high", "low & slow"}
    assert "high/album/deep.WAV" in set(tracks["path"])
    assert (tracks["bytes"] > 0).all()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_lists(ending: str, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"path": ["b, c.wav", "a.wav"], "label": ["x", "y"], "artist": ["é", None], "split": ["train", "test"]}
    )
    file = tmp_path / f"tracks.{ending}"
    table.to_csv(file, index=False) if ending == "csv" else table.to_parquet(file)
    tracks, folder = index.scan(config(file))
    assert folder == tmp_path
    assert tracks[["path", "label", "group", "split"]].astype(object).where(tracks.notna(), None).values.tolist() == [
        ["a.wav", "y", None, "test"],
        ["b, c.wav", "x", "é", "train"],
    ]
    assert list(tracks["bytes"]) == [-1, -1]


@pytest.mark.parametrize(
    "data",
    [
        "path;label;artist\r\na.wav;x;Bj\xf6rk\r\nb.wav;y;\r\n".encode("cp1252"),
        "path\tlabel\tartist\na.wav\tx\tBj\xf6rk\nb.wav\ty\t\n".encode("utf-16"),
    ],
)
def test_lists_as_spreadsheets_write_them(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(data)
    tracks, _ = index.scan(config(tmp_path / "l.csv"))
    assert tracks[["path", "label"]].to_numpy().tolist() == [["a.wav", "x"], ["b.wav", "y"]]
    assert tracks["group"].iloc[0] == "Bj\xf6rk"


def test_labels_that_look_like_numbers_or_nothing_stay_text(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label,artist\na.wav,007,None\nb.wav,NA,nan\n")
    tracks, _ = index.scan(config(tmp_path / "l.csv"))
    assert list(tracks["label"]) == ["007", "NA"]
    assert list(tracks["group"]) == ["None", "nan"]


def test_blanks_around_names_and_labels_are_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "\ufeffpath, label ,artist, split\na.wav, jazz, Ann ,train\n b.wav,jazz ,Ann, test \n odd.wav,pop,,\n"
    )
    (tmp_path / " odd.wav").write_bytes(b"1")
    (tmp_path / "jazz ").mkdir()
    (tmp_path / "jazz /c.wav").write_bytes(b"1")
    tracks, _ = index.scan(config(tmp_path / "l.csv"))
    assert tracks["path"].tolist() == [" odd.wav", "a.wav", "b.wav"]
    assert tracks["label"].tolist() == ["pop", "jazz", "jazz"]
    assert tracks["group"].tolist() == [None, "Ann", "Ann"]
    assert tracks["split"].tolist() == [None, "train", "test"]
    assert index.scan(config(tmp_path))[0]["label"].tolist() == ["jazz"]


def test_labels_are_merged_when_asked(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,label\na.wav,Jazz\nb.wav,jazz\nc.wav,jazz \n")
    assert index.scan(config(tmp_path / "l.csv"))[0]["label"].tolist() == ["Jazz", "jazz", "jazz"]
    merging = dataclasses.replace(config(tmp_path / "l.csv"), merge_labels=True)
    assert index.scan(merging)[0]["label"].tolist() == ["jazz"] * 3


def test_bad_lists(tmp_path: Path) -> None:
    for text, says in [
        ("path,genre\na.wav,x\n", "no column 'label'; it has path, genre"),
        ("path,label\na.wav,\n", "no label in line 2"),
        ("path,label\na.wav,x\na.wav,y\n", "a.wav is listed twice"),
        ("path,label\n", "no tracks"),
        ("", "not a table"),
        ('path,label\n"a.wav,x\n', "not a table"),
    ]:
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(UserError, match=re.escape(says)):
            index.scan(config(tmp_path / "l.csv"))


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tracks; expected audio files as <label>/<file>"):
        index.scan(config(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        index.scan(config(tmp_path / "nowhere"))


def test_groups_by_regular_expression(tmp_path: Path) -> None:
    for name in ("Ann - one.wav", "Ann - two.wav", "Bob - one.wav"):
        (tmp_path / "pop").mkdir(exist_ok=True)
        (tmp_path / "pop" / name).write_bytes(b"1")
    tracks, _ = index.scan(config(tmp_path, r"/(.+?) - "))
    assert list(tracks["group"]) == ["Ann", "Ann", "Bob"]
    for regex, says in ((r"/.+ - ", "in parentheses"), (r"(", "unterminated"), (r"/(x)", "finds no group")):
        with pytest.raises(UserError, match=re.escape(says)):
            index.scan(config(tmp_path, regex))


def test_names_that_are_no_text_are_taken(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"ro\xe9k")
    place.mkdir()
    for name in (b"caf\xe9_seg1.wav", b"caf\xe9_seg2.wav", "é.wav".encode(), b"\\xe9.wav"):
        (place / os.fsdecode(name)).write_bytes(b"1")
    tracks, folder = index.scan(config(tmp_path))
    assert all((folder / path).is_file() for path in tracks["path"])
    assert set(tracks["label"]) == {"ro\\xe9k"}
    assert tracks["group"].dropna().tolist() == ["ro\\xe9k/caf\\xe9"] * 2


def test_what_is_no_track_is_told(tmp_path: Path) -> None:
    (tmp_path / "pop").mkdir()
    for name in (".DS_Store", "._a.wav", "x.m3u", "cover.jpg", "notes", "b.WMA", "c.wav"):
        (tmp_path / "pop" / name).write_bytes(b"1")
    for name in ("top.wav", "README"):
        (tmp_path / name).write_bytes(b"1")
    lines = list[str]()
    tracks, _ = index.scan(config(tmp_path), lines.append)
    assert tracks["path"].tolist() == ["pop/b.WMA", "pop/c.wav"]
    assert lines[0].startswith("audio files above the folders that give labels are left out: 1 (top.wav)")
    assert lines[1] == "other files, left alone: 6 (2 without ending, 2 hidden, 1 .jpg, 1 .m3u)"
    told = list[str]()
    found = index.list_tracks(tmp_path, pictures=False, say=told.append)
    assert [path.name for path in found] == ["b.WMA", "c.wav", "top.wav"]
    assert told == ["other files, left alone: 6 (2 without ending, 2 hidden, 1 .jpg, 1 .m3u)"]


def test_the_listing_digest_sees_changes(tmp_path: Path) -> None:
    write_tree(tmp_path, num_tracks=2)
    before = index.listing_digest(index.scan(config(tmp_path))[0])
    assert before == index.listing_digest(index.scan(config(tmp_path))[0])
    os.utime(tmp_path / "high" / "plain.wav", (1, 1))
    assert before != index.listing_digest(index.scan(config(tmp_path))[0])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["blues.00000.0.wav", "blues.00000.11.wav", "blues.00001.0.wav"], ["blues.00000", "blues.00000", None]),
        (["a_seg1.wav", "a_seg2.wav", "b_seg1.mp3", "c.wav"], ["a", "a", None, None]),
        (["x/a-part2.flac", "x/a-part10.flac", "y/a-part2.flac"], ["x/a", "x/a", None]),
        (["Song (chunk 1).ogg", "Song (chunk 2).ogg", "Song.ogg", "a.ogg"], [*["Song"] * 3, None]),
        (["a.001.wav", "a.002.wav", "b - 01.wav", "b - 02.wav", "funk-000-00.wav", "funk-000-01.wav"], [None] * 6),
        (["jazz_clip_1.wav", "jazz_clip_2.wav", "jazz_clip_3.wav"], [None] * 3),  # the label's tracks, numbered
        (["id 1", "id 2", "3.5", "3.6"], [None] * 4),  # of tables
    ],
)
def test_segments_are_grouped_by_the_names_of_their_tracks(names: list[str], wanted: list[str | None]) -> None:
    found = index.find_recordings(pd.Series(names), pd.Series(["label"] * len(names)))
    assert found.where(found.notna(), None).tolist() == wanted
    folders = index.find_recordings(pd.Series([f"label/{name}" for name in names]), pd.Series([None] * len(names)))
    assert folders.notna().tolist() == found.notna().tolist()


def test_a_split_keeps_the_segments_of_a_track_together(tmp_path: Path) -> None:
    for label in ("high", "low"):
        for number in range(6):
            for segment in range(4):
                path = tmp_path / label / f"song {number}_seg{segment}.wav"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"%d" % segment)
    tracks, _ = index.scan(config(tmp_path))
    assert sorted(set(tracks["group"])) == [f"{label}/song {n}" for label in ("high", "low") for n in range(6)]
