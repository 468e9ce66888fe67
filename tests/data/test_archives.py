from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_tunes.data.archives import find_table, open_table
from parallel_tunes.schema import UserError

TEXT = b"song_id,name\n" + b"".join(b"s%d,%d\n" % (k, k * k % 977) for k in range(3000))


def write_7z(path: Path, members: dict[str, bytes], password: str | None = None) -> Path:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(path, "w", password=password) as archive:
        for name, data in members.items():
            archive.writestr(data, name)
    return path


def read(path: Path, max_mib: int = 1, step: int = 1000) -> bytes:
    with open_table(path, max_mib=max_mib, scratch=path.parent) as stream:
        found, buffer = b"", bytearray(step)
        while num := stream.fill(memoryview(buffer)):
            found += buffer[:num]
        stream.rewind()
        assert stream.fill(memoryview(buffer)) == min(step, len(found))
        assert found.startswith(bytes(buffer[: len(found)]))
        return found


def test_a_table_is_the_same_however_it_is_packed(tmp_path: Path) -> None:
    assert find_table(tmp_path, "songs") is None
    write_7z(tmp_path / "songs.csv.7z", {"songs.csv": TEXT})
    assert find_table(tmp_path, "songs") == tmp_path / "songs.csv.7z"
    (tmp_path / "songs.csv.gz").write_bytes(gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:]))
    assert find_table(tmp_path, "songs") == tmp_path / "songs.csv.gz"
    (tmp_path / "songs.csv").write_bytes(TEXT)
    assert find_table(tmp_path, "songs") == tmp_path / "songs.csv"
    assert {read(path) for path in tmp_path.iterdir()} == {TEXT}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["songs.csv", "songs.csv.7z", "songs.csv.gz"]


@pytest.mark.parametrize(
    "name", ["kkbox/data/songs.csv", "/tmp/songs.csv", "C:\\data\\songs.csv", "../../../songs.csv"]
)
def test_no_path_of_an_archive_is_followed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    path = write_astray(deep / "songs.csv.7z", name)
    assert read(path) == TEXT
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


def write_astray(path: Path, name: str) -> Path:
    """An archive whose member claims this name, which py7zr would not write."""
    archiveinfo = pytest.importorskip("py7zr.archiveinfo")
    original = archiveinfo.FilesInfo.write

    def write(self: Any, file: object) -> None:
        self.files[0]["filename"] = name
        original(self, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archiveinfo.FilesInfo, "write", write)
        write_7z(path, {"harmless": TEXT, "songs.csv.txt": b"no table"})
    with pytest.importorskip("py7zr").SevenZipFile(path) as archive:
        assert name.replace("\\", "/") in [member.filename.replace("\\", "/") for member in archive.files]
    return path


def test_what_is_inside_is_one_table(tmp_path: Path) -> None:
    path = write_7z(tmp_path / "songs.csv.7z", {"a/songs.csv": TEXT, "b/songs.csv": TEXT})
    with pytest.raises(
        UserError, match=r"songs\.csv\.7z: 2 files songs\.csv inside; it holds 'a/songs\.csv', 'b/songs"
    ):
        read(path)
    write_7z(path, {"Songs.csv": TEXT})
    with pytest.raises(UserError, match=r"no files songs\.csv inside; it holds 'Songs\.csv'"):
        read(path)
    write_7z(path, {"songs.csv": TEXT}, password="secret")
    with pytest.raises(UserError, match=r"needs a password; unpack it yourself: 7z x songs\.csv\.7z"):
        read(path)
    (tmp_path / "link").mkdir()
    (tmp_path / "link/songs.csv").symlink_to("/etc/passwd")
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.write(tmp_path / "link/songs.csv", "songs.csv")
    with pytest.raises(UserError, match=r"songs\.csv inside is a link"):
        read(path)


def test_without_the_library_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "songs.csv.7z").write_bytes(b"7z")
    monkeypatch.setitem(sys.modules, "py7zr", None)
    with pytest.raises(UserError, match=r"songs\.csv\.7z: to unpack it, pip install 'parallel-tunes\[kkbox\]'"):
        read(tmp_path / "songs.csv.7z")


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".csv.7z"])
def test_what_unpacks_to_more_is_refused(ending: str, tmp_path: Path) -> None:
    path, data = tmp_path / f"songs{ending}", bytes(2**20 + 1)
    if ending == ".csv.7z":
        write_7z(path, {"songs.csv": data})
    else:
        path.write_bytes(gzip.compress(data) if ending == ".csv.gz" else data)
    with pytest.raises(UserError, match=rf"songs{ending}: more than data\.max_mib=1 MiB"):
        read(path, max_mib=1)
    assert read(path, max_mib=2) == data


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.7z"])
def test_torn_and_damaged_archives_are_one_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"songs{ending}"
    if ending == ".csv.7z":
        write_7z(path, {"songs.csv": TEXT})
    else:
        path.write_bytes(gzip.compress(TEXT))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    spoilt = [whole[:stop] for stop in (0, 1, 5, 20, len(whole) // 2, len(whole) - 9, len(whole) - 1)]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
        spoilt.append(bytes(flipped))
    says = list[str]()
    for data in spoilt:
        path.write_bytes(data)
        try:
            assert read(path) in (TEXT, b"")  # a flag or a name may differ, never what comes out; an empty file is one
        except UserError as error:
            says.append(str(error))
    assert len(says) >= 50
    assert all(line.startswith(str(path)) and "\n" not in line for line in says)
    assert list(tmp_path.iterdir()) == [path]
