"""Summaries of log-mel spectrograms: levels are those of the samples, tempi those of the clicks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import librosa
import numpy as np
import pytest

from parallel_tunes import schema
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_explore import ExploreConfig
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.schema import UserError
from parallel_tunes.shard_work import read_levels
from parallel_tunes.tasks import track_summaries
from parallel_tunes.tasks.track_summaries import measure_level, measure_tempo, name_summaries, summarise_levels

FEATURES = schema.build(FeaturesConfig, schema.defaults("features", "logmel"))
EXPLORE = schema.build(ExploreConfig, schema.defaults("explore", "default"))
FRAMES_PER_S = 22050 / 512


class Silence:
    """A progress bar that shows nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self) -> None: ...


@pytest.mark.parametrize(("scale", "volume"), [("slaney", 1.0), ("htk", 0.01)])
def test_levels_are_those_of_the_samples(scale: str, volume: float) -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(4 * 22050) / 22050
    noise = volume * 0.2 * rng.standard_normal(len(seconds))
    tones = volume * 0.2 * np.sin(2 * np.pi * np.outer([220, 1000, 5000], seconds)).sum(0)
    features = dataclasses.replace(FEATURES, mel_scale=scale)
    for wave in (noise, tones):
        levels = log_mel(wave.astype(np.float32), sample_rate_hz=22050, mel_scale=scale, top_db=None)
        true_db = 10 * np.log10(np.mean(np.square(wave)))
        assert measure_level(levels, features) == pytest.approx(true_db, abs=0.2)


@pytest.mark.parametrize("tempo", [80, 150])
def test_tempi_are_those_of_the_clicks(tempo: int) -> None:
    wave = np.zeros(12 * 22050, np.float32)
    for start in np.arange(0, 12, 60 / tempo):
        wave[int(start * 22050) :][:400] = np.random.default_rng(0).standard_normal(400)[
            : len(wave) - int(start * 22050)
        ]
    found = measure_tempo(log_mel(0.1 * wave, sample_rate_hz=22050), FRAMES_PER_S)
    assert found == pytest.approx(tempo, rel=0.025)


def test_no_tempo_where_there_is_none_to_tell() -> None:
    flat = np.full((128, 400), -30, np.float32)
    assert np.isnan(measure_tempo(flat, FRAMES_PER_S))
    assert np.isnan(measure_tempo(flat[:, :2], FRAMES_PER_S))
    clicks = np.full((128, 400), -80, np.float32)
    clicks[:, ::4] = 0
    assert np.isfinite(measure_tempo(clicks, FRAMES_PER_S))
    assert np.isnan(measure_tempo(clicks, 7.4))  # steps of 32 beats a minute


def test_summaries_are_named_in_their_order() -> None:
    levels = np.random.default_rng(0).standard_normal((128, 50)).astype(np.float32)
    levels[31] += 100
    found = dict(zip(name_summaries(FEATURES), summarise_levels(levels), strict=True))
    loudest = max(found, key=found.__getitem__)
    assert loudest == "825 Hz, mean"
    assert found["825 Hz, spread"] == pytest.approx(levels[31].std(), abs=1e-4)
    cepstrum = librosa.feature.mfcc(S=levels)
    assert [found[f"MFCC {at}, mean"] for at in range(20)] == pytest.approx(cepstrum.mean(1), abs=1e-4)
    assert len(name_summaries(dataclasses.replace(FEATURES, num_mels=12))) == 4 * 12


def test_a_corpus_and_a_sample_of_it(furnished: Path) -> None:
    shards = ShardSet(furnished / "logs/preprocess/corpus")
    found = track_summaries.summarise(shards, EXPLORE, lambda title, num: Silence())
    assert found.features.values.shape == (80, 296)
    assert np.isfinite(found.features.values).all()
    assert found.features.values[7] == pytest.approx(summarise_levels(read_levels(shards, 7)))
    assert found.frame["level_db"].between(-40, -1).all()
    assert found.frame["group"].nunique() == 40
    assert found.unknown == {}
    assert found.spectra is not None
    label = str(found.frame["label"].iloc[0])
    mine = np.flatnonzero(found.frame["label"] == label)
    assert found.spectra.num_tracks[label] == 8
    assert found.spectra.levels[label] == pytest.approx(
        np.mean([read_levels(shards, row) for row in mine.tolist()], axis=0), abs=1e-3
    )
    few = dataclasses.replace(EXPLORE, max_tracks=10, label="none")
    part = track_summaries.summarise(shards, few, lambda title, num: Silence())
    assert part.features.values == pytest.approx(found.features.values[part.rows])
    assert np.isfinite(part.frame["level_db"]).sum() == 10
    assert part.frame["label"].isna().all()
    assert list(part.spectra.levels if part.spectra else []) == ["all tracks"]
    with pytest.raises(UserError, match=r"explore\.label=artist: .* auto or none"):
        track_summaries.summarise(shards, dataclasses.replace(EXPLORE, label="artist"), lambda title, num: Silence())
