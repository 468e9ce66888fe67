from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from parallel_tunes import files, schema
from parallel_tunes.audio import front_end
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.schema import UserError


@pytest.fixture
def shards(workshop: Path, tmp_path: Path) -> Path:
    """A copy of the corpus's shards, to be spoilt."""
    return Path(shutil.copytree(workshop / "logs/preprocess/corpus", tmp_path / "shards"))


def test_every_row_reads_back_what_the_front_end_computes(workshop: Path) -> None:
    made = ShardSet(workshop / "logs/preprocess/corpus")
    features = schema.build(FeaturesConfig, made.manifest["features"])
    assert made.manifest["fingerprint"] == front_end.fingerprint(features)
    for row in (0, 17, len(made.index) - 1):
        path = workshop / "logs/synth/corpus" / made.index["path"].iloc[row]
        clip = front_end.extract(path, features, max_bytes=1 << 30)
        np.testing.assert_array_equal(made.read(row), clip.frames)
        np.testing.assert_array_equal(made.read(row, 5, 7), clip.frames[5:12])
        assert made.index["hash"].iloc[row] == files.digest_file(path)
        assert made.index["db_sum"].iloc[row] == pytest.approx(float(clip.frames.astype(np.float64).sum()))


def test_checksums_are_those_of_the_files(workshop: Path) -> None:
    folder = workshop / "logs/preprocess/corpus"
    for shard in json.loads((folder / "manifest.json").read_text())["shards"]:
        assert files.digest_file(folder / shard["file"]) == shard["checksum"]


def spoil_shard(folder: Path) -> None:
    path = next(folder.glob("shard-*.npy"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: (folder / "index.parquet").unlink(), "no index.parquet"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": 99}'), "another format"),
        (lambda folder: (folder / "index.parquet").write_bytes(b"x"), "not the one its manifest names"),
        (lambda folder: next(folder.glob("shard-*.npy")).unlink(), "missing or damaged"),
        (spoil_shard, "damaged"),
    ],
)
def test_damage_is_one_clear_line(spoil: object, says: str, shards: Path) -> None:
    assert callable(spoil)
    spoil(shards)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        ShardSet(shards)
    assert "run the preprocess job again" in str(caught.value)


def test_an_index_of_other_data_is_refused(shards: Path) -> None:
    index = ShardSet(shards).index
    index.loc[0, "label"] = "other"
    index.to_parquet(shards / "index.parquet")
    with pytest.raises(UserError, match="not the one its manifest names"):
        ShardSet(shards)
