from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pandas as pd
import pytest
from fakes import REAL, needs_real

from parallel_tunes import schema
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import gtzan, splits
from parallel_tunes.schema import UserError

CONFIG = schema.build(SplitConfig, schema.defaults("split", "gtzan_fault_filtered"))


def test_the_lists_have_their_sizes_and_share_no_track() -> None:
    lists = gtzan.read_lists()
    assert {name: len(tracks) for name, tracks in lists.items()} == {"train": 443, "valid": 197, "test": 290}
    assert len({track for tracks in lists.values() for track in tracks}) == 930


@needs_real
def test_they_are_the_published_ones() -> None:
    for name in ("train", "valid"):
        lines = (REAL / "gtzan_tables" / f"fault_filtered_{name}.txt").read_text().split()
        assert sorted(gtzan.read_lists()[name]) == sorted(Path(line).stem for line in lines)


def test_tracks_are_known_by_name() -> None:
    for path, track in [
        ("blues/blues.00012.au", "blues.00012"),
        ("anywhere/else/Hiphop.00003.JPG", "hiphop.00003"),
        ("jazz.00054.3.wav", "jazz.00054"),
        ("images_original/pop/pop00099.png", "pop.00099"),
        ("rock.00000", "rock.00000"),
        ("rock/rock.000001.wav", ""),
        ("rock/some rock.00001.wav", ""),
        ("rock.00001/other.wav", ""),
    ]:
        assert gtzan.name_track(path) == track


def test_a_split_by_the_lists_counts_what_is_in_none() -> None:
    lists = gtzan.read_lists()
    paths = [f"x/{tracks[0]}.jpg" for tracks in lists.values()] + ["x/blues.00099.jpg", "x/song.jpg"]
    assert gtzan.draw(["x/blues.00099.jpg", paths[0]])[1] == "train"
    tracks = pd.DataFrame({"path": paths, "label": "x", "group": None, "split": None, "hash": list("abcde")})
    listed = {track for each in lists.values() for track in each}
    num_left = sum(gtzan.name_track(path) not in listed for path in paths)
    split = splits.draw(tracks, CONFIG)
    assert {name: rows.tolist()[:1] for name, rows in split.rows.items()} == {"train": [0], "valid": [1], "test": [2]}
    assert split.num_excluded == num_left >= 1
    assert any("in no list" in warning for warning in split.warnings)
    with pytest.raises(UserError, match=r"no track is called as in GTZAN, blues\.00000 say"):
        splits.draw(tracks.iloc[-1:], CONFIG)


def test_where_torchaudio_is_missing_or_has_no_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(found: ModuleSpec | None) -> None:
        gtzan.read_lists.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)

    try:
        answer(None)
        with pytest.raises(UserError, match=r"missing; `pip install torchaudio==2\.11\.0 --no-deps`"):
            gtzan.read_lists()
        other = ModuleSpec("torchaudio", None, is_package=True)
        other.submodule_search_locations = [str(tmp_path)]
        (tmp_path / "datasets").mkdir()
        (tmp_path / "datasets/gtzan.py").write_text("filtered_train = ['blues.00000']\n")
        answer(other)
        with pytest.raises(UserError, match="has no such lists any more"):
            gtzan.read_lists()
    finally:
        gtzan.read_lists.cache_clear()
