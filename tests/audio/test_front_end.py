from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import tone, write_audio

from parallel_tunes import schema
from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.schema import UserError

DEFAULT = schema.build(FeaturesConfig, schema.defaults("features", "logmel"))
LIMIT = 1 << 30


def changed(**values: Any) -> FeaturesConfig:
    return dataclasses.replace(DEFAULT, **values)


def test_the_fingerprint_tells_every_setting_apart() -> None:
    others = [
        changed(**{name: value})
        for name, value in (("num_mels", 64), ("normalise", "none"), ("clip_s", None), ("min_s", 1.0))
    ]
    assert len({front_end.fingerprint(features) for features in [DEFAULT, *others]}) == 5
    assert front_end.fingerprint(changed()) == front_end.fingerprint(DEFAULT)


def test_pad_and_trim(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440, 3.0))
    frames = {
        name: front_end.extract(path, features, max_bytes=LIMIT).frames.shape[0]
        for name, features in (
            ("whole", DEFAULT),
            ("trimmed", changed(clip_s=2.0)),
            ("padded", changed(clip_s=4.0, pad=True)),
        )
    }
    assert frames == {"whole": 1 + 66150 // 512, "trimmed": 1 + 44100 // 512, "padded": 1 + 88200 // 512}
    with pytest.raises(AudioError, match="too long"):
        front_end.extract(path, changed(clip_s=2.0, trim=False), max_bytes=LIMIT)
    with pytest.raises(AudioError, match=r"too short: 3\.00 s"):
        front_end.extract(path, changed(min_s=3.5), max_bytes=LIMIT)


def test_peak_normalisation_makes_levels_equal(tmp_path: Path) -> None:
    paths = [
        write_audio(tmp_path / f"{gain}.wav", tone(440) * np.float32(gain), subtype="FLOAT") for gain in (0.01, 1.0)
    ]
    same = [front_end.extract(path, DEFAULT, max_bytes=LIMIT).frames for path in paths]
    np.testing.assert_allclose(same[0].astype(float), same[1].astype(float), atol=0.1)
    apart = [front_end.extract(path, changed(normalise="none"), max_bytes=LIMIT).frames for path in paths]
    assert abs(float(apart[1].max()) - float(apart[0].max()) - 40) < 0.1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fmin_hz": 12000.0}, "features.fmin_hz=12000"),
        ({"fmax_hz": 20000.0}, "features.fmax_hz=20000"),
        ({"pad": True, "clip_s": None}, "features.pad=true"),
        ({"clip_s": 0.2}, "features.clip_s=0.2"),
        ({"n_fft": 256}, "bands fall between"),
    ],
)
def test_contradictions_are_found_before_any_work(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        front_end.check(changed(**values))


def test_channels_that_cancel_each_other_are_silence(tmp_path: Path) -> None:
    left = 0.5 * tone(440, 2.0, 44100)
    for name, other in (("exact", -left), ("nearly", -left * np.float32(0.9995)), ("doubled", -left[::-1])):
        path = write_audio(tmp_path / f"{name}.wav", np.stack([left, other], 1), 44100)
        if name == "doubled":
            front_end.extract(path, DEFAULT, max_bytes=LIMIT)
            continue
        with pytest.raises(AudioError, match="silent: "):
            front_end.extract(path, DEFAULT, max_bytes=LIMIT)
    quiet = write_audio(tmp_path / "quiet.wav", np.stack([left, left], 1) * np.float32(1e-3), 44100, subtype="FLOAT")
    front_end.extract(quiet, DEFAULT, max_bytes=LIMIT)
