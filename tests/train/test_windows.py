from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import tone, write_audio
from hypothesis import given
from hypothesis import strategies as st

from parallel_tunes.audio import front_end
from parallel_tunes.audio.front_end import Clip
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.windows import AT_ONCE, Feed, cut_crops, cut_windows

FEATURES = build(FeaturesConfig, {**defaults("features", "logmel"), "clip_s": None})


@given(
    sizes=st.lists(st.integers(0, 40), max_size=8),
    firsts=st.lists(st.integers(-30, 200), min_size=1, max_size=8),
    size=st.integers(1, 50),
)
def test_crops_are_those_of_the_whole(sizes: list[int], firsts: list[int], size: int) -> None:
    whole = 1 + np.arange(sum(sizes), dtype=np.float32)
    padded = np.pad(whole, (30, 300))
    pieces = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    crops = cut_crops(pieces, sorted(firsts), size)
    for first, crop in zip(sorted(firsts), crops, strict=True):
        assert np.array_equal(crop, padded[first + 30 :][:size])


def feeds(clip: Clip) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    parts: list[Feed] = list(cut_windows(clip, FEATURES, window=43, overlap=0.5))
    assert all(len(part["samples"]) <= AT_ONCE for part in parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_long_clip_has_the_windows_of_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_audio(tmp_path / "a.flac", tone(440, 20.0))
    short = feeds(front_end.extract(path, FEATURES, max_bytes=1 << 30))
    monkeypatch.setattr(front_end, "WHOLE", 1000)
    clip = front_end.extract(path, FEATURES, max_bytes=1 << 30)
    assert clip.source.samples is None
    for name, array in feeds(clip).items():
        assert np.array_equal(array, short[name])
    assert len(short["samples"]) > AT_ONCE


def test_a_short_clip_is_one_window_and_says_how_much_of_it_is_there(tmp_path: Path) -> None:
    clip = front_end.extract(write_audio(tmp_path / "a.wav", tone(440, 0.6)), FEATURES, max_bytes=1 << 30)
    found = feeds(clip)
    assert found["samples"].shape == (1, 42 * 512 + 2048)
    assert found["num_frames"].tolist() == [1 + int(0.6 * 22050) // 512]
    assert np.abs(found["samples"]).max() * found["gain"][0] == pytest.approx(1)
    assert not found["samples"][0, :1024].any()  # before the clip
