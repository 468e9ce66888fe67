from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from parallel_tunes.config import DataConfig
from parallel_tunes.data import index, synthetic, synthetic_mixes
from parallel_tunes.schema import build, defaults

render = partial(synthetic.render_track, seed=0, duration_s=1.0, sample_rate_hz=22050)


def read(folder: Path) -> list[dict[str, str]]:
    """A corpus's list."""
    return list(csv.DictReader((folder / synthetic.LIST).read_text().splitlines()))


def make_data(root: Path) -> DataConfig:
    return build(DataConfig, defaults("data", "synthetic") | {"root": root}, "data.")


def test_one_label_a_track_is_the_corpus_as_it_always_was() -> None:
    plain, mixes = synthetic.list_corpus(3, 2), synthetic_mixes.list_corpus(3, 2, "wav", 1)
    assert [(piece.path, piece.label, piece.artist, (piece.numbers,)) for piece in plain] == mixes
    samples = render(2, 1, 1)
    assert synthetic_mixes.mix([samples]) is samples


@pytest.mark.parametrize("num", [2, 3])
def test_every_track_has_so_many_labels(num: int) -> None:
    mixes = synthetic_mixes.list_corpus(9, 2, "wav", num)
    assert len({mix.path for mix in mixes}) == len(mixes) == 180
    for mix in mixes:
        names = mix.label.split("|")
        assert names == sorted(set(names))
        assert len(names) == num
        assert mix.path.startswith("+".join(names) + "/")
        assert not set(mix.path) & set('<>:"|?*\\')  # which some systems allow in no name
        assert {synthetic.GENRES[genre].name for genre, _, _ in mix.parts} == set(names)
    counts = Counter(name for mix in mixes for name in mix.label.split("|"))
    assert set(counts.values()) == {18 * num}


def test_artists_share_no_sound_and_no_rendering_is_used_twice() -> None:
    """So that a split by artists leaks none."""
    mixes = synthetic_mixes.list_corpus(4, 3, "wav", 3)
    hands = {(genre, artist, mix.artist) for mix in mixes for genre, artist, _ in mix.parts}
    assert len({hand[:2] for hand in hands}) == len(hands)
    assert max(Counter(part for mix in mixes for part in mix.parts).values()) == 1


def test_a_mix_holds_all_of_its_parts() -> None:
    first, second = render(2, 0, 0), render(9, 0, 0)
    both = synthetic_mixes.mix([first, second])
    assert both.dtype == np.float32
    assert np.abs(both).max() == pytest.approx(0.9, abs=1e-6)
    scale = float(both @ (first + second) / (both @ both))
    np.testing.assert_allclose(scale * both, first + second, atol=1e-5)


def test_synth_writes_them(run: Callable[..., int], tmp_path: Path) -> None:
    words = ["synth", "num_artists=1", "tracks_per_artist=1", "duration_s=0.3"]
    assert run(*words, "run.name=plain") == run(*words, "labels_per_track=2", "run.name=mixes") == 0
    plain, mixes = ({row["path"]: row for row in read(tmp_path / "logs/synth" / name)} for name in ("plain", "mixes"))
    assert plain["funk/funk-000-00.wav"]["label"] == "funk"
    assert mixes["funk+house/funk-000-00.wav"]["label"] == "funk|house"
    assert len(plain) == len(mixes) == 10
    samples, _ = soundfile.read(tmp_path / "logs/synth/plain/funk/funk-000-00.wav", dtype="int16")
    wanted = synthetic.render_track(5, 0, 0, seed=0, duration_s=0.3, sample_rate_hz=22050)
    assert np.abs(samples - 32768 * wanted).max() < 1
    assert all((tmp_path / "logs/synth/mixes" / path).is_file() for path in mixes)
    tracks, _ = index.scan(make_data(tmp_path / "logs/synth/mixes"))
    assert set(tracks["label"]) == {row["label"] for row in mixes.values()}
