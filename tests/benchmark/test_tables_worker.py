from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parallel_tunes.benchmark import tables_worker
from parallel_tunes.benchmark.tables_worker import TINY, digest
from parallel_tunes.schema import UserError

SOURCES = ("a", "b", "")


def write_tables(root: Path, num_rows: int) -> Path:
    """Tables with songs and members that are missing, cells that are, and a language that the seed takes for missing."""
    rng = np.random.default_rng(0)
    headers = {name: text.partition("\n")[0] for name, text in TINY.items()}
    rows = {
        "train": [
            f"u{u},s{s},{SOURCES[u % 3]},b,{SOURCES[s % 3]},{s % 2}" for u, s in rng.integers(0, 40, (num_rows, 2))
        ],
        "songs": [
            f's{k},{k % 7},{k % 3}|{k % 2},"A ""{k % 5}""",{"x" * (k % 2)},,{"" if k % 4 else -1}' for k in range(30)
        ],
        "members": [f"u{k},{k % 4},{k % 9},{'male' * (k % 2)},7,2017010{k % 9},20170920" for k in range(35)],
        "song_extra_info": [f"s{k},n{k % 11},TWUM7120004{k % 10}" for k in range(5, 50)],
    }
    root.mkdir()
    for name, lines in rows.items():
        (root / f"{name}.csv").write_text("\n".join([headers[name], *lines, ""]))
    return root


def test_both_ways_give_the_same_columns(tmp_path: Path) -> None:
    root, found = write_tables(tmp_path / "in", 500), {}
    for row in ("seed", "ours"):
        command = [
            sys.executable,
            "-m",
            "parallel_tunes.benchmark.tables_worker",
            row,
            str(root),
            str(tmp_path / "out"),
        ]
        done = subprocess.run(command, input="go\ndigest\n", capture_output=True, text=True, check=True)
        timing, found[row] = map(json.loads, done.stdout.splitlines())
        assert timing["columns"] == 20
        assert timing["seconds"] >= timing.get("star_s", 0) > -1
        assert timing["peak_mib"] > 50
    assert len(found["ours"]["digests"]) == 20
    assert found["ours"] == found["seed"]


def test_a_reload_reads_what_was_made(tmp_path: Path) -> None:
    root = write_tables(tmp_path / "in", 500)
    with pytest.raises(UserError, match="no finished columns"):
        tables_worker.touch(tmp_path / "out")
    tables_worker.make_star(root, tmp_path / "out", 1)
    found = tables_worker.touch(tmp_path / "out")
    assert {"user", "song", "target", "song.artist", "song.length_ms", "user.city", "user.age"} <= set(found)
    assert len(found["user"]) == 500


def test_a_digest_knows_columns_up_to_the_names_of_codes() -> None:
    codes = np.array([5, 5, 2, 0, 2])
    assert digest({"x": codes}) == digest({"x": codes * 7 - 3})
    assert digest({"x": codes}) != digest({"x": np.array([5, 5, 2, 0, 0])})


def test_what_is_warmed_up_with_is_read(tmp_path: Path) -> None:
    for name, text in TINY.items():
        (tmp_path / f"{name}.csv").write_text(text)
    ours, star_s = tables_worker.encode_ours(tmp_path, tmp_path / "out", 1)
    assert {name: len(codes) for name, codes in ours.items()} == dict.fromkeys(ours, 1)
    assert star_s > 0
    assert set(tables_worker.encode_seed(tmp_path)) == {tables_worker.NAMES.get(name, name) for name in ours}
