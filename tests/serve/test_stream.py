from __future__ import annotations

import json

import numpy as np
import pytest
import soxr
from fakes import tone

from parallel_tunes.serve.refusals import Refusal
from parallel_tunes.serve.stream import Stream

RATE_HZ, WINDOW = 8000, 20000


def greet(rate_hz: int = RATE_HZ, kind: str = "f32") -> Stream:
    greeting = json.dumps({"sample_rate_hz": rate_hz, "format": kind})
    return Stream(greeting, sample_rate_hz=RATE_HZ, window=WINDOW)


def test_every_second_the_last_window_is_told_however_it_comes() -> None:
    wave = tone(440, 4.3, RATE_HZ)
    data = wave.tobytes()
    for piece in (40, 4096, 1 << 20):
        stream = greet()
        moments = [moment for at in range(0, len(data), piece) for moment in stream.feed(data[at : at + piece])]
        moments += stream.feed(b"", is_last=True)
        assert [moment.at_s for moment in moments] == [1, 2, 3, 4, 4.3], piece
        for moment in moments:
            until = round(moment.at_s * RATE_HZ)
            np.testing.assert_allclose(moment.samples, wave[max(until - WINDOW, 0) : until], atol=1e-6)


def test_sixteen_bits_are_of_full_scale_one() -> None:
    wave = (tone(440, 1.0, RATE_HZ) * 32768).astype("<i2")
    (moment,) = greet(kind="s16").feed(wave.tobytes(), is_last=True)
    np.testing.assert_allclose(moment.samples, wave / 32768, atol=1e-6)


def test_other_rates_are_resampled_as_files_are() -> None:
    wave = tone(440, 3.0, 44100)
    stream = greet(44100)
    data = wave.tobytes()
    moments = [m for at in range(0, len(data), 5000) for m in stream.feed(data[at : at + 5000])]
    moments += stream.feed(b"", is_last=True)
    expected = soxr.resample(wave, 44100, RATE_HZ, quality="HQ")[-WINDOW:]
    np.testing.assert_allclose(moments[-1].samples, expected, atol=1e-5)
    assert moments[-1].at_s == pytest.approx(3.0, abs=0.01)


def test_no_more_is_kept_than_a_window() -> None:
    stream = greet()
    for _ in range(50):
        assert all(moment.samples.size <= WINDOW for moment in stream.feed(tone(440, 1.0, RATE_HZ).tobytes()))
    assert stream._kept.size == WINDOW


def test_samples_that_are_none_pass_by() -> None:
    wave = tone(440, 8.0, RATE_HZ)
    wave[100] = np.nan
    moments = list(greet(16000).feed(wave.tobytes()))
    assert not np.isfinite(moments[0].samples).all()
    assert np.isfinite(moments[-1].samples).all()


def test_other_first_words_are_refused() -> None:
    greetings = (
        "", "x", "[]", "null", "1", "{}", '{"sample_rate_hz": 8000}', '{"sample_rate_hz": "8000", "format": "f32"}',
        '{"sample_rate_hz": 8000, "format": "u8"}', '{"sample_rate_hz": 999, "format": "f32"}',
        '{"sample_rate_hz": 1e999, "format": "f32"}', '{"sample_rate_hz": 8000, "format": ["f32"]}', "[" * 100000,
    )  # fmt: skip
    for greeting in greetings:
        with pytest.raises(Refusal, match="begin with"):
            Stream(greeting, sample_rate_hz=RATE_HZ, window=WINDOW)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(Refusal, match="7 bytes ends within a sample of 4"):
        list(greet().feed(b"1234567"))
