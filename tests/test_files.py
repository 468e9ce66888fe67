from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from parallel_tunes import files


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_text(path, "old")

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_file(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_before_the_rename_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def refuse() -> None:
        raise RuntimeError("taken over")

    with pytest.raises(RuntimeError):
        files.write_file(path, lambda stream: stream.write(b"new"), before_rename=refuse)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_partials_are_swept(tmp_path: Path) -> None:
    (tmp_path / f"{files.TEMPORARY}0123abcd-x.npy").write_bytes(b"torn")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"{files.TEMPORARY}89abcdef-step-7.pt").write_bytes(b"torn")
    (tmp_path / "x.npy").write_bytes(b"whole")
    files.remove_partials(tmp_path, {"x.npy"})
    assert [path.name[-9:] for path in tmp_path.rglob(f"{files.TEMPORARY}*")] == ["step-7.pt"]
    files.remove_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x.npy"]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_digests_tell_contents_apart(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (files.digest_file(tmp_path / name) for name in "abc")
    assert a == b == files.digest_bytes(b"1")
    assert a != c
    assert files.digest_json({"x": 1, "y": [2]}) == files.digest_json({"y": [2], "x": 1})
