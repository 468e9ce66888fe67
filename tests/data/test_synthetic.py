from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from parallel_tunes.data import synthetic
from parallel_tunes.data.synthetic_artists import Samples


def render(genre: int, artist: int, track: int, seed: int = 0, duration_s: float = 1.0) -> Samples:
    return synthetic.render_track(genre, artist, track, seed=seed, duration_s=duration_s, sample_rate_hz=22050)


def test_tracks_are_the_same_for_the_same_numbers_and_differ_otherwise() -> None:
    first = render(3, 1, 0)
    np.testing.assert_array_equal(first, render(3, 1, 0))
    for other in (render(4, 1, 0), render(3, 2, 0), render(3, 1, 1), render(3, 1, 0, seed=1)):
        assert np.abs(first - other).max() > 0.01


def test_every_genre_sounds() -> None:
    for number, genre in enumerate(synthetic.GENRES):
        samples = render(number, 0, 0, duration_s=2.0)
        assert samples.dtype == np.float32
        assert samples.shape == (44100,)
        assert 0.3 < np.abs(samples).max() <= 0.9001, genre.name
        assert np.isfinite(samples).all()


def test_patterns_fill_a_bar() -> None:
    for genre in synthetic.GENRES:
        patterns = (genre.kick, genre.snare, genre.hat, genre.comp, genre.bass)
        assert len({len(pattern) for pattern in patterns}) == 1, genre.name
        assert all(set(pattern) <= set("xo.") for pattern in patterns[:4])
        assert set(genre.bass) <= set("158w.")


def test_the_corpus_lists_every_track_once() -> None:
    pieces = synthetic.list_corpus(3, 2)
    assert len({piece.path for piece in pieces}) == len(pieces) == 60
    assert {piece.path.split("/")[0] for piece in pieces} == {genre.name for genre in synthetic.GENRES}
    assert len({piece.artist for piece in pieces}) == 30


def test_a_corpus_without_traits_is_known_by_its_mean() -> None:
    plain = synthetic.Traits(blend=0, artist_strength=1, track_strength=0)
    told = synthetic.render_track(2, 1, 0, seed=0, duration_s=1.0, sample_rate_hz=22050, traits=plain)
    np.testing.assert_array_equal(told, render(2, 1, 0))
    # platforms round alike to this
    assert float(np.abs(told).mean()) == pytest.approx(0.13414, rel=1e-3)


def levels(artist: int, track: int, traits: synthetic.Traits) -> NDArray[np.float64]:
    """A track's spectrum, dB, in 40 bands."""
    samples = synthetic.render_track(6, artist, track, seed=0, duration_s=3.0, sample_rate_hz=22050, traits=traits)
    power = np.abs(np.fft.rfft(samples)) ** 2
    edges = np.geomspace(20, len(power) - 1, 41).astype(int)
    return np.array([10 * np.log10(power[low:high].mean()) for low, high in pairwise(edges)])


def test_traits_make_artists_and_recordings_differ() -> None:
    usual, artists, recordings = (
        synthetic.Traits(artist_strength=a, track_strength=t) for a, t in ((1, 0), (5, 0), (1, 5))
    )
    between = {traits: np.abs(levels(0, 0, traits) - levels(1, 0, traits)).mean() for traits in (usual, artists)}
    assert between[artists] > 1.5 * between[usual]
    within = {traits: np.abs(levels(0, 0, traits) - levels(0, 1, traits)).mean() for traits in (usual, recordings)}
    assert within[recordings] > 1.5 * within[usual]


def test_blended_styles_fill_their_bars_and_come_from_everywhere() -> None:
    rng, taken = np.random.default_rng(0), []
    for genre in synthetic.GENRES:
        for share in (0.0, 0.5, 1.0):
            style = synthetic.take_elements(genre, share, rng)
            assert len({len(pattern) for pattern in (style.kick, style.snare, style.hat, style.comp, style.bass)}) == 1
            assert style.name == genre.name
            assert share > 0 or style == genre
            taken.append(style.chords != genre.chords)
    assert any(taken[1::3])
    assert sum(taken[2::3]) > 6
    sounds = synthetic.render_track(8, 0, 0, seed=1, duration_s=1.0, sample_rate_hz=22050, traits=synthetic.Traits(1.0))
    assert np.isfinite(sounds).all()
    assert np.abs(sounds - render(8, 0, 0, seed=1)).max() > 0.01


@pytest.mark.slow
def test_artists_leak_and_mean_timbre_is_not_enough() -> None:
    """A linear SVM on track-mean MFCCs: 50 to 85 % when artists are kept together, visibly more when they are not."""
    import librosa

    features, genres, artists = [], [], []
    for piece in synthetic.list_corpus(16, 5):
        samples = render(*piece.numbers, duration_s=3.0)
        features.append(librosa.feature.mfcc(y=samples, sr=22050, n_mfcc=20).mean(1))
        genres.append(piece.label)
        artists.append(piece.artist)
    model = make_pipeline(StandardScaler(), SVC(kernel="linear"))
    folds = {
        "random": StratifiedKFold(5, shuffle=True, random_state=0),
        "grouped": StratifiedGroupKFold(5, shuffle=True, random_state=0),
    }
    scores = {
        name: cross_val_score(
            model, np.array(features), genres, groups=None if name == "random" else artists, cv=fold
        ).mean()
        for name, fold in folds.items()
    }
    assert 0.5 < scores["grouped"] < 0.85
    assert scores["random"] > scores["grouped"] + 0.04
