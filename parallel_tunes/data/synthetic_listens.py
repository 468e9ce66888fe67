"""Listens whose truth is known: who hears what, whence, when, and how likely it is that they hear it again within a month.

The logit of a row is a sum: a trend of all rows, the user, the song (with a trend of its own), its artist, the source, the user's
bent for that source, and taste, a product of the user's and the artist's latent factors. Users have favourite artists, taken
among those to their taste, and favourite sources; popular songs are better; songs come, rise and fall; some users and songs
appear late. Rows are in order of time, a user's in runs. `synthetic_listen_tables` writes them as KKBOX's tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.data.listen_truth import tell
from parallel_tunes.schema import UserError

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]


class Source(NamedTuple):
    """Where a listen was begun: the three columns' words, its share of listens, its logit."""

    tab: str
    screen: str
    kind: str
    share: float
    logit: float


# after the real tables; not all of a row's three words are always there
SOURCES = (
    Source("my library", "Local playlist more", "local-library", 0.29, 0.9),
    Source("my library", "Local playlist more", "local-playlist", 0.2, 1.1),
    Source("my library", "My library", "local-library", 0.05, 1.6),
    Source("discover", "Online playlist more", "online-playlist", 0.16, -0.3),
    Source("discover", "Discover Chart", "online-playlist", 0.05, 0.5),
    Source("discover", "Discover Feature", "song-based-playlist", 0.04, -0.8),
    Source("search", "Search", "song", 0.06, 0.0),
    Source("search", "Artist more", "top-hits-for-artist", 0.04, -0.7),
    Source("search", "Album more", "album", 0.03, -0.8),
    Source("radio", "Radio", "radio", 0.03, -1.9),
    Source("listen with", "Others profile more", "listen-with", 0.02, -1.4),
    Source("explore", "Explore", "online-playlist", 0.01, -0.4),
    Source("notification", "", "topic-article-playlist", 0.005, 0.4),
    Source("", "Unknown", "", 0.005, -0.9),
    Source("", "", "", 0.01, 0.2),
)
NUM_FACTORS = 4  # of taste
NUM_FAVOURITES = 4  # artists of a user
QUALITY_OF_POPULARITY = 0.4  # share of the variance of songs' quality that goes with their popularity
NUM_BLOCKS = 64  # spans of time within which popularity stands still


@dataclass(frozen=True)
class Effects:
    """Standard deviations of the parts of a row's logit, but for the trends, which are what is added from first row to last."""

    user: float = 1.3
    song: float = 0.5
    artist: float = 0.4
    source: float = 1.4  # times the logits of SOURCES
    user_source: float = 0.25
    taste: float = 0.25
    trend: float = -0.8  # of all rows
    song_trend: float = 0.3  # standard deviation; a song that rises is heard more, too


@dataclass(frozen=True)
class SynthListens:
    """Rows, those of train.csv first, and what they were drawn from.

    Attributes:
        user, song, source: of each row, numbers from 0, source into SOURCES.
        probability: of each row, that its target is 1.
        target: 0 or 1, those of test.csv's rows too.
        num_rows: of train.csv; the rest are test.csv's.
        artist: of each song, numbers from 0.
        is_bare: of each song, whether songs.csv and song_extra_info.csv lack it.
        truth: as JSON, what was planted; see `make`.
    """

    user: Codes
    song: Codes
    source: NDArray[np.int8]
    probability: Floats
    target: NDArray[np.int8]
    num_rows: int
    num_users: int
    artist: Codes
    is_bare: NDArray[np.bool_]
    seed: int
    truth: dict[str, Any]


@dataclass(frozen=True)
class _World:
    """What is there before anyone listens."""

    artist: Codes  # of songs, which are in the order of their artists
    starts: NDArray[np.int64]  # (num_artists + 1,): where an artist's songs start
    pull: Floats  # of songs: log popularity
    rise: Floats  # of songs, standard normal: of popularity and of quality
    quality: Floats  # of songs, standard normal
    born: Floats  # of songs: 0, or when they appear
    joined: Floats  # of users
    activity: Floats  # of users
    favourites: Codes  # (num_users, NUM_FAVOURITES): artists
    user_factors: Floats
    artist_factors: Floats
    habits: NDArray[np.int8]  # (num_users, 2): favourite sources


def make(
    *,
    num_rows: int = 50_000,
    num_test: int | None = None,
    num_users: int | None = None,
    num_songs: int | None = None,
    seed: int = 0,
    missing: float = 0.86,
    late: float = 0.4,
    loyalty: float = 0.5,
    target_mean: float = 0.6,
    effects: Effects | None = None,
) -> SynthListens:
    """Draw listens.

    Args:
        num_rows: of train.csv.
        num_test: of test.csv, which go on where the others end; default a tenth of num_rows.
        num_users: default one for 200 rows.
        num_songs: that songs.csv would hold if none were missing, heard or not; default one for 20 rows.
        missing: share of songs that are bare, without name, artist or any metadata: the least popular, give or take.
        late: share of users and of songs that appear at some time after three tenths of the rows.
        loyalty: share of rows that are of one of the user's favourite artists.
        target_mean: of the probability.

    Returns:
        Arrays, and truth: sizes; target_mean; bayes_auc (of the rows of train.csv), bayes_auc_late (of their last fifth),
        bayes_auc_warm (of those of them whose user and song both had NUM_WARM rows before), num_late, num_warm; of the last
        fifth cold_users and cold_songs, the share of rows whose user, or song, was not there before it; bare_rows, the share of
        rows whose song is bare, bare_songs_heard, that of songs in any row; effects and the parameters.

    Raises:
        UserError: sizes or shares that cannot be.
    """
    num_test = num_rows // 10 if num_test is None else num_test
    num_users = max(num_rows // 200, 20) if num_users is None else num_users
    num_songs = max(num_rows // 20, 50) if num_songs is None else num_songs
    effects = effects or Effects()
    _check((num_rows, num_test, num_users, num_songs), (missing, late, loyalty), target_mean, seed)
    rng = np.random.Generator(np.random.Philox(key=seed))
    world = _draw_world(rng, num_users, num_songs, late)
    user, song, source = _draw_rows(rng, world, num_rows + num_test, loyalty)
    logit = _score(rng, world, effects, user, song, source)
    probability = (1 / (1 + np.exp(-logit - _centre(logit[:num_rows], target_mean)))).astype(np.float32)
    target = (rng.random(len(user), np.float32) < probability).astype(np.int8)
    score = world.pull + rng.standard_normal(num_songs, np.float32)
    is_bare = np.zeros(num_songs, np.bool_)
    is_bare[np.argsort(score, kind="stable")[: round(missing * num_songs)]] = True
    given = {"missing": missing, "late": late, "loyalty": loyalty, "seed": seed, "effects": vars(effects)}
    bare = {"bare_rows": is_bare[song[:num_rows]].mean(), "bare_songs_heard": is_bare[np.unique(song)].mean()}
    truth = given | tell(user, song, probability, target, num_rows) | {"num_users": num_users, "num_songs": num_songs}
    truth |= {name: float(share) for name, share in bare.items()}
    rows = (user, song, source, probability, target)
    return SynthListens(*rows, num_rows, num_users, world.artist, is_bare, seed, truth)


def _check(sizes: tuple[int, int, int, int], shares: tuple[float, float, float], target_mean: float, seed: int) -> None:
    num_rows, num_test, num_users, num_songs = sizes
    if num_rows < 100 or num_test < 0 or num_users < 4 or num_songs < 4 or not 0 <= seed < 2**64:
        raise UserError("num_rows must be at least 100, num_test and seed 0, num_users and num_songs 4")
    if max(num_rows + num_test, num_users, num_songs) > 2**31 - 2:
        raise UserError("num_rows + num_test, num_users and num_songs must be below two thousand million")
    if not all(0 <= share <= 1 for share in shares) or shares[1] > 0.9 or not 0.05 <= target_mean <= 0.95:
        raise UserError("missing and loyalty must be 0 to 1, late 0 to 0.9, target_mean 0.05 to 0.95")


def _draw_world(rng: np.random.Generator, num_users: int, num_songs: int, late: float) -> _World:
    def normal(*shape: int) -> Floats:
        return rng.standard_normal(shape, np.float32)

    def draw_arrivals(num: int) -> Floats:
        when = 0.3 + 0.7 * rng.random(num, np.float32)
        return np.where(rng.random(num, np.float32) < late, when, 0).astype(np.float32)

    num_artists = max(num_songs // 12, 5)
    fame = np.cumsum((1 + np.arange(num_artists)) ** -0.8)
    artist = np.sort(np.searchsorted(fame, rng.random(num_songs) * fame[-1]).astype(np.int32))
    rank = rng.permutation(num_songs)
    fitting = -np.sort(-normal(num_songs))[rank]  # a standard normal that falls with the rank
    quality = np.sqrt(QUALITY_OF_POPULARITY) * fitting + np.sqrt(1 - QUALITY_OF_POPULARITY) * normal(num_songs)
    taken = np.bincount(artist, minlength=num_artists)
    user_factors, artist_factors = normal(num_users, NUM_FACTORS), normal(num_artists, NUM_FACTORS)
    return _World(
        artist=artist,
        starts=np.r_[0, np.cumsum(taken)],
        pull=(-0.9 * np.log(1 + rank)).astype(np.float32),
        rise=normal(num_songs),
        quality=quality.astype(np.float32),
        born=draw_arrivals(num_songs),
        joined=draw_arrivals(num_users),
        activity=np.exp(0.8 * normal(num_users)).astype(np.float32),
        favourites=_choose_favourites(rng, user_factors, artist_factors, taken),
        user_factors=user_factors,
        artist_factors=artist_factors,
        habits=_draw_sources(rng, 2 * num_users).reshape(num_users, 2),
    )


def _choose_favourites(
    rng: np.random.Generator, user_factors: Floats, artist_factors: Floats, num_songs: NDArray[np.int64]
) -> Codes:
    """Of some artists with songs that a user comes across, those most to their taste."""
    met = np.cumsum(num_songs)
    seen = np.searchsorted(met, rng.random((len(user_factors), 4 * NUM_FAVOURITES)) * met[-1], "right").astype(np.int32)
    liking = np.einsum("uf,uaf->ua", user_factors, artist_factors[seen])
    return np.take_along_axis(seen, np.argsort(-liking, 1, kind="stable")[:, :NUM_FAVOURITES], 1)


def _draw_sources(rng: np.random.Generator, num: int) -> NDArray[np.int8]:
    shares = np.cumsum([source.share for source in SOURCES])
    return np.asarray(np.searchsorted(shares, rng.random(num) * shares[-1]), np.int8)


def _draw_rows(
    rng: np.random.Generator, world: _World, num_rows: int, loyalty: float
) -> tuple[Codes, Codes, NDArray[np.int8]]:
    """Users, songs and sources of rows, one span of time after the other."""
    user, song, source = np.empty(num_rows, np.int32), np.empty(num_rows, np.int32), np.empty(num_rows, np.int8)
    ends = np.linspace(0, num_rows, NUM_BLOCKS + 1).astype(np.int64)
    for first, last in pairwise(ends):
        now, span = last / num_rows, slice(first, last)
        user[span], source[span] = _draw_runs(rng, world, now, last - first)
        song[span] = _draw_songs(rng, world, now, user[span], loyalty)
    return user, song, source


def _draw_runs(rng: np.random.Generator, world: _World, now: float, num: int) -> tuple[Codes, NDArray[np.int8]]:
    """Users in runs of five rows on average, most of a run from one source, most runs from a favourite source."""
    activity = np.cumsum(np.where(world.joined <= now, world.activity, 0), dtype=np.float64)
    who = np.searchsorted(activity, rng.random(num) * activity[-1], "right").astype(np.int32)
    run = np.cumsum(rng.random(num, np.float32) < 0.2)
    user, lot = who[run % max(num, 1)], rng.random(num, np.float32)
    habit = world.habits[who, np.where(lot < 0.7, 0, 1)]
    of_run = np.where(lot < 0.9, habit, _draw_sources(rng, num))[run % max(num, 1)]
    return user, np.where(rng.random(num, np.float32) < 0.8, of_run, _draw_sources(rng, num)).astype(np.int8)


def _draw_songs(rng: np.random.Generator, world: _World, now: float, user: Codes, loyalty: float) -> Codes:
    """Songs by their popularity at this time, within a favourite artist's or among all; new ones are in vogue."""
    age = np.float32(now) - world.born
    vogue = np.where(world.born > 0, 1 + 4 * np.exp(-np.maximum(age, 0) / np.float32(0.05)), np.float32(1))
    weights = np.where(age >= 0, vogue * np.exp(world.pull + world.rise * np.float32(now - 0.5)), 0)
    sums = np.r_[0, np.cumsum(weights, dtype=np.float64)]
    choice = rng.integers(0, NUM_FAVOURITES, len(user)) * (rng.random(len(user)) < 0.5)  # the first of them most of all
    artist = world.favourites[user, choice]
    low, high = sums[world.starts[artist]], sums[world.starts[artist + 1]]
    is_loyal = (rng.random(len(user), np.float32) < loyalty) & (high > low)
    low, high = np.where(is_loyal, low, 0), np.where(is_loyal, high, sums[-1])
    at = np.searchsorted(sums, low + rng.random(len(user)) * (high - low), "right") - 1
    return np.asarray(np.minimum(at, len(weights) - 1), np.int32)


def _score(
    rng: np.random.Generator, world: _World, effects: Effects, user: Codes, song: Codes, source: NDArray[np.int8]
) -> Floats:
    """The logit of each row, but for a constant."""
    users, num_artists = len(world.joined), len(world.starts) - 1
    of_song = effects.song * world.quality + effects.artist * rng.standard_normal(num_artists, np.float32)[world.artist]
    of_source = effects.source * np.array([source.logit for source in SOURCES], np.float32)
    of_use = of_source + effects.user_source * rng.standard_normal((users, len(SOURCES)), np.float32)
    of_use += effects.user * rng.standard_normal((users, 1), np.float32)
    now = np.linspace(-0.5, 0.5, len(user), dtype=np.float32)
    logit = of_song[song] + of_use[user, source] + now * (effects.trend + effects.song_trend * world.rise[song])
    artist = world.artist[song]
    for factor in range(NUM_FACTORS):
        share = np.float32(effects.taste / np.sqrt(NUM_FACTORS))
        logit += share * world.user_factors[user, factor] * world.artist_factors[artist, factor]
    return np.asarray(logit, np.float32)


def _centre(logit: Floats, target_mean: float) -> np.float32:
    """What must be added for probabilities to have this mean."""
    sample, low, high = logit[:: max(len(logit) // 100_000, 1)], -50.0, 50.0
    for _ in range(40):
        middle = (low + high) / 2
        is_low = (1 / (1 + np.exp(-sample - np.float32(middle)))).mean() < target_mean
        low, high = (middle, high) if is_low else (low, middle)
    return np.float32(low)
