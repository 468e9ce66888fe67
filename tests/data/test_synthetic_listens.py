from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from parallel_tunes.data.causal import NAMES, causal_features
from parallel_tunes.data.listen_truth import NUM_WARM, count_earlier, expected_auc
from parallel_tunes.data.synthetic_listens import SOURCES, Effects, SynthListens, make
from parallel_tunes.schema import UserError

Array = NDArray[Any]


@pytest.fixture(scope="module")
def listens() -> SynthListens:
    return make(num_rows=50_000, seed=1)


def test_a_seed_makes_one_world() -> None:
    one, same, other = (make(num_rows=2000, seed=seed) for seed in (4, 4, 5))
    for name in ("user", "song", "source", "probability", "target", "artist", "is_bare"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert json.dumps(one.truth, allow_nan=False) == json.dumps(same.truth)


def test_sizes_and_shares(listens: SynthListens) -> None:
    truth = listens.truth
    assert (listens.num_rows, len(listens.user), truth["num_test"]) == (50_000, 55_000, 5000)
    assert (truth["num_users"], truth["num_songs"]) == (250, 2500) == (listens.num_users, len(listens.artist))
    assert listens.is_bare.mean() == pytest.approx(0.86, abs=1e-3)
    assert listens.is_bare[listens.song[:50_000]].mean() == truth["bare_rows"] < 0.6  # who is popular is known
    assert truth["target_mean"] == pytest.approx(0.6, abs=0.01)
    shares = np.bincount(listens.source, minlength=len(SOURCES)) / len(listens.source)
    np.testing.assert_allclose(shares, [source.share for source in SOURCES], atol=0.06)  # but for users' habits
    assert (make(num_rows=2000, target_mean=0.75).probability[:2000]).mean() == pytest.approx(0.75, abs=0.005)
    assert not make(num_rows=500, missing=0).is_bare.any()
    assert make(num_rows=500, missing=1).is_bare.all()


def test_targets_are_drawn_of_their_probabilities(listens: SynthListens) -> None:
    bins = np.minimum((listens.probability * 10).astype(int), 9)
    for place in range(10):
        mine, p = listens.target[bins == place], listens.probability[bins == place]
        assert abs(mine.mean() - p.mean()) < 4 * np.sqrt(0.25 / len(mine))


def test_no_ranking_beats_the_bayes_auc(listens: SynthListens) -> None:
    p, num = listens.probability[: listens.num_rows], listens.num_rows
    rng = np.random.default_rng(0)
    drawn = [roc_auc_score(rng.random(num) < p, p) for _ in range(20)]
    assert listens.truth["bayes_auc"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(20))
    late = slice(num - num // 5, num)
    warm = np.minimum(count_earlier(listens.user), count_earlier(listens.song))[late] >= NUM_WARM
    assert listens.truth["bayes_auc_warm"] == expected_auc(p[late][warm])
    assert listens.truth["num_warm"] == warm.sum() > 4000


def test_users_and_songs_come_late(listens: SynthListens) -> None:
    assert 0.02 < listens.truth["cold_users"] < 0.2
    assert 0.05 < listens.truth["cold_songs"] < 0.3
    at_once = make(num_rows=50_000, late=0, seed=1)
    assert at_once.truth["cold_users"] == 0
    assert at_once.truth["cold_songs"] < 0.03


def test_the_times_change(listens: SynthListens) -> None:
    """The mean falls, and what is popular early is not what is popular late, even without newcomers."""
    first, last = slice(0, 10_000), slice(40_000, 50_000)
    assert listens.probability[first].mean() - listens.probability[last].mean() > 0.03

    def agree(one: SynthListens) -> float:
        early, late = (np.bincount(one.song[part], minlength=len(one.artist)) for part in (first, last))
        heard = early + late >= 20
        agreement: Array = np.corrcoef(np.log1p(early[heard]), np.log1p(late[heard]))
        return float(agreement[0, 1])

    assert agree(make(num_rows=50_000, seed=1, late=0)) < 0.9
    parts = {"user": 0.0, "song": 0.0, "artist": 0.0, "source": 0.0, "user_source": 0.0, "taste": 0.0}
    for trend in (-2.0, 0.0, 1.0):
        made = make(num_rows=1000, effects=Effects(**parts, trend=trend, song_trend=0.0))
        logit = np.log(made.probability / (1 - made.probability))
        assert logit[-1] - logit[0] == pytest.approx(trend, abs=1e-3)


def test_taste_moves_who_hears_whom() -> None:
    """Loyal users hear few artists most of the time."""

    def count_artists(loyalty: float) -> float:
        made = make(num_rows=20_000, seed=2, loyalty=loyalty)
        pairs = np.unique(np.stack([made.user, made.artist[made.song]]), axis=1)
        return float(pairs.shape[1] / made.num_users)

    assert count_artists(0.9) < 0.5 * count_artists(0.0)


def test_effects_are_planted() -> None:
    """Without any effect there is nothing to learn; a source's is what was asked for."""
    none = dict.fromkeys(vars(Effects()), 0.0)
    assert make(num_rows=1000, effects=Effects(**none)).truth["bayes_auc"] == pytest.approx(0.5, abs=1e-3)
    made = make(num_rows=1000, effects=Effects(**{**none, "source": 1.0}))
    logit = np.log(made.probability / (1 - made.probability))
    found = [logit[made.source == number].mean() for number in range(len(SOURCES)) if (made.source == number).any()]
    planted = [source.logit for number, source in enumerate(SOURCES) if (made.source == number).any()]
    np.testing.assert_allclose(np.diff(found), np.diff(planted), atol=1e-3)


def columns(listens: SynthListens) -> tuple[Array, Array, Array, Array]:
    artist = np.where(listens.is_bare[listens.song], 0, 1 + listens.artist[listens.song])
    return listens.user + 1, listens.song + 1, artist, listens.source


def test_a_good_model_comes_near_bayes(listens: SynthListens) -> None:
    """On late rows of known users and songs: 90 % of the way from the song's earlier rate to what can be had at all."""
    num, p = listens.num_rows, listens.probability
    found = causal_features(*columns(listens), listens.target, smoothing=10.0)
    cut, late = num - num // 5, slice(num - num // 5, num)
    model = LogisticRegression(max_iter=1000).fit(found[:cut], listens.target[:cut])
    warm = late.start + np.flatnonzero(np.minimum(*map(count_earlier, columns(listens)[:2]))[late] >= NUM_WARM)
    target = listens.target[warm]
    base = roc_auc_score(target, found[warm, NAMES.index("song_rate")])
    best = roc_auc_score(target, p[warm])
    reached = roc_auc_score(target, model.predict_proba(found[warm])[:, 1])
    assert best - base > 0.15
    assert (reached - base) / (best - base) > 0.9
    expected = listens.truth["bayes_auc_warm"]
    assert best == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(len(warm)))


def test_bad_numbers() -> None:
    cases: list[dict[str, Any]] = [
        {"num_rows": 99},
        {"num_test": -1},
        {"num_users": 3},
        {"num_songs": 3},
        {"missing": 1.1},
        {"late": 0.95},
        {"loyalty": -0.1},
        {"target_mean": 0.0},
        {"num_rows": 2**31},
        {"seed": -1},
    ]
    for bad in cases:
        with pytest.raises(UserError, match=next(iter(bad))):
            make(**bad)


def test_the_smallest_world() -> None:
    made = make(num_rows=100, num_test=0, num_users=4, num_songs=4, late=0.9)
    assert len(made.user) == 100
    assert made.truth["bayes_auc_warm"] is None or made.truth["num_warm"] > 0
    json.dumps(made.truth, allow_nan=False)
