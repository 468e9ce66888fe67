from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import door

from parallel_tunes.data.segments import Segments
from parallel_tunes.data.shards import ShardSet

NUM_FRAMES = 25


@pytest.fixture(scope="module")
def tracks(workshop: Path) -> ShardSet:
    return ShardSet(workshop / "logs/preprocess/corpus")


def test_segments_hold_what_their_tracks_hold(tracks: ShardSet) -> None:
    view = Segments(tracks, NUM_FRAMES)
    at = 0
    for row, path in enumerate(tracks.index["path"]):
        frames = tracks.read(row)
        for number in range(len(frames) // NUM_FRAMES):
            segment, mine = frames[number * NUM_FRAMES : (number + 1) * NUM_FRAMES], view.index.iloc[at]
            np.testing.assert_array_equal(view.read(at), segment)
            np.testing.assert_array_equal(view.read(at, 3, 100), segment[3:])  # cut at its end, not the track's
            levels = segment.astype(np.float64)
            assert mine["db_sum"] == pytest.approx(levels.sum())
            assert mine["db_square_sum"] == pytest.approx((levels**2).sum())
            assert mine["path"] == f"{path}#{number}"
            assert (mine["label"], mine["group"]) == (tracks.index["label"].iloc[row], None)
            assert mine["duration_s"] == pytest.approx(NUM_FRAMES * 512 / 22050, rel=0.03)
            at += 1
    assert len(view.index) == at > len(tracks.index)
    assert view.index["hash"].is_unique
    assert view.manifest["index_digest"] != tracks.manifest["index_digest"]


def test_a_track_shorter_than_a_segment_is_one(tracks: ShardSet) -> None:
    view = Segments(tracks, 10_000)
    assert len(view.index) == len(tracks.index)
    assert (view.num_frames == tracks.num_frames).all()
    np.testing.assert_array_equal(view.read(3), tracks.read(3))
    np.testing.assert_allclose(view.index["db_sum"], tracks.index["db_sum"])


def test_segments_of_waveforms_are_the_samples_of_their_frames(workshop: Path, tmp_path: Path) -> None:
    words = ["data=synthetic", f"data.root={workshop}/logs/synth/corpus", "features=waveform", "run.name=w"]
    assert door("preprocess", *words, cwd=tmp_path) == 0
    tracks = ShardSet(tmp_path / "logs/preprocess/w")
    hop_length = tracks.manifest["features"]["hop_length"]
    num_frames = int(tracks.num_frames[0]) // 3
    view = Segments(tracks, num_frames)
    assert len(view.index) == 3 * len(tracks.index)
    samples = tracks.read(1)
    pieces = [view.read(row) for row in (3, 4, 5)]
    np.testing.assert_array_equal(np.concatenate(pieces), samples[: 3 * num_frames * hop_length])
    assert len(pieces[0]) == num_frames * hop_length
    # all segments together have the statistics of their tracks
    shares = view.num_frames.sum() / tracks.num_frames.sum()
    assert view.index["db_sum"].sum() == pytest.approx(tracks.index["db_sum"].sum() * shares)
