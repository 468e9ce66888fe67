from __future__ import annotations

import ast
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from parallel_tunes.data import genres
from parallel_tunes.data.synthetic_tracks import DIRT, PLAN, SynthTracks, make
from parallel_tunes.schema import UserError

Array = NDArray[np.float64]


def standardised(made: SynthTracks) -> Array:
    center, scale = ([made.truth[part][name] for name in PLAN] for part in ("center", "scale"))
    return np.asarray((made.tracks[list(PLAN)].to_numpy(np.float64) - center) / scale)


def test_a_seed_makes_one_table() -> None:
    one, same, other = make(num_tracks=200, seed=4), make(num_tracks=200, seed=4), make(num_tracks=200, seed=5)
    pd.testing.assert_frame_equal(one.tracks, same.tracks)
    pd.testing.assert_frame_equal(one.artists, same.artists)
    assert json.dumps(one.truth, allow_nan=False) == json.dumps(same.truth)
    assert not one.tracks["tempo"].equals(other.tracks["tempo"])


def test_weights_are_found_again() -> None:
    made = make(num_tracks=20000, num_artists=4000, artist_effect=0.5)
    year = made.tracks["release_date"].str[:4].astype(float).to_numpy()
    x = np.column_stack([standardised(made), (year - 2000) / 15])
    model = LinearRegression().fit(x, made.tracks["popularity"].to_numpy() / 10)
    planted = [*made.truth["weights"].values(), made.truth["year_effect"]]
    assert model.coef_ == pytest.approx(planted, abs=0.04)
    assert model.intercept_ == pytest.approx(5, abs=0.05)
    unexplained = made.tracks["popularity"].to_numpy() / 10 - model.predict(x)
    assert unexplained.std() == pytest.approx(np.hypot(made.truth["noise"], made.truth["artist_effect"]), rel=0.05)


def gaps(artist_effect: float, num_seeds: int = 8) -> tuple[Array, Array]:
    """By seed: accuracy by random splits less that by splits that divide no artist, and the same of mean squared errors."""
    found = []
    for seed in range(num_seeds):
        made = make(num_tracks=1500, num_artists=25, seed=seed, artist_effect=artist_effect)
        x, y, groups = standardised(made), made.tracks["popularity"].to_numpy(np.float64), made.tracks["id_artists"]
        folds = (KFold(5, shuffle=True, random_state=0).split(x), GroupKFold(5).split(x, groups=groups))
        splits = [list(fold) for fold in folds]
        svm = make_pipeline(StandardScaler(), LinearSVC(C=0.1))
        right = [(cross_val_predict(svm, x, y > 50, cv=split) == (y > 50)).mean() for split in splits]
        lost = [((cross_val_predict(LinearRegression(), x, y, cv=split) - y) ** 2).mean() for split in splits]
        found.append((right[0] - right[1], lost[1] / lost[0] - 1))
    both = np.array(found)
    return both[:, 0], both[:, 1]


def test_random_splits_flatter_where_artists_matter() -> None:
    accuracy, error = gaps(artist_effect=1.0)
    assert accuracy.mean() - 2 * accuracy.std(ddof=1) / np.sqrt(len(accuracy)) > 0.02
    assert accuracy.mean() > 0.04
    assert error.mean() > 0.5


def test_random_splits_are_fair_where_artists_do_not_matter() -> None:
    accuracy, error = gaps(artist_effect=0.0)
    assert abs(accuracy.mean()) < 0.005
    assert abs(error.mean()) < 0.02


def test_mirrored_labels() -> None:
    clean, noisy = make(seed=1), make(seed=1, label_noise=0.1)
    before, after = clean.tracks["popularity"], noisy.tracks["popularity"]
    changed = before != after
    assert changed.mean() == pytest.approx(0.1, abs=0.02)
    # of rounding halves, at most 1 stays
    assert (before + after - 100)[changed].abs().max() <= 1


def test_few_are_cut() -> None:
    popularity = make(num_tracks=20000, num_artists=2000).tracks["popularity"]
    assert popularity.isin([0, 100]).mean() < 0.01


def test_tables_look_like_real_ones() -> None:
    made = make(num_tracks=3000)
    assert set(made.tracks["release_date"].str.len()) == {4, 7, 10}
    credits = made.tracks["artists"].map(ast.literal_eval)
    ids = made.tracks["id_artists"].map(ast.literal_eval)
    assert (credits.map(len) == ids.map(len)).all()
    assert (credits.map(len) == 2).mean() == pytest.approx(0.01, abs=0.007)
    assert made.tracks["id"].is_unique
    assert made.tracks["energy"].corr(made.tracks["loudness"]) > 0.5
    assert made.tracks["energy"].corr(made.tracks["acousticness"]) < -0.4
    for name in set(PLAN) - {"duration_ms", "loudness", "tempo"}:
        assert made.tracks[name].between(0, 1).all()
    assert made.tracks["tempo"].between(30, 400).all()
    assert made.artists["count"].sum() == 3000
    again = pd.read_csv(io.StringIO(made.tracks.to_csv(index=False)))
    assert again["artists"].equals(made.tracks["artists"].astype(again["artists"].dtype))


def test_families_are_told_by_genres() -> None:
    made = make(num_tracks=400, num_artists=40)
    known = dict(zip(made.artists["artists"], made.artists["genres"].str.split(", "), strict=True))
    assert genres.label_by_family(known, known).tolist() == [made.truth["families"][name] for name in known]
    assert len(set(made.truth["families"].values())) == 5


def test_families_can_be_heard() -> None:
    made = make(num_tracks=2000, num_artists=1000, genre_share=0.4)
    family = made.tracks["artists"].map(lambda text: made.truth["families"][ast.literal_eval(text)[0]])
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.1))
    found = cross_val_predict(svm, standardised(made), family, cv=GroupKFold(5), groups=made.tracks["id_artists"])
    assert (found == family).mean() > 0.4  # of five: 0.2 by chance


def test_dirt_is_counted() -> None:
    made = make(num_tracks=2000, dirty=0.05)
    assert sum(made.truth["dirty"].values()) == 100
    for column, value in DIRT:
        assert (made.tracks[column] == value).sum() == made.truth["dirty"][f"{column}={value}"] > 0
    assert make(num_tracks=100).truth["dirty"] == {}


def test_sizes_that_cannot_be() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("num_genres must be 2 to 8", {"num_genres": 1}),
        ("at least num_genres", {"num_artists": 3}),
        ("at least 2 an artist", {"num_tracks": 30}),
        ("at most 1", {"artist_share": 0.9}),
        ("dirty must be 0 to 0.5", {"dirty": 0.9}),
    ]
    for says, change in cases:
        make_any: Callable[..., SynthTracks] = make
        with pytest.raises(UserError, match=says):
            make_any(**change)
