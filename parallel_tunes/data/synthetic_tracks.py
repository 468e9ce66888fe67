"""Tables of tracks in Spotify's schema whose truth is known: what makes a track popular is planted, and told.

Popularity is linear in the ten audio features, standardised, plus what the artist is worth whatever the music, plus the
year, plus noise. An artist's tracks are alike, so that a model that meets the artist again in its test gains from
knowing them; one that meets only new artists cannot. That gap is what splits by artist are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.schema import UserError

Array = NDArray[np.float64]


class Feature(NamedTuple):
    """How an audio feature is drawn: its share of intensity and of mood (the rest is its own), and its worth."""

    intensity: float
    mood: float
    weight: float


# loadings after the correlations of real tables: loudness and energy +0.7, acousticness and energy -0.6, …
PLAN = {
    "acousticness": Feature(-0.75, 0.0, -0.3),
    "danceability": Feature(0.1, 0.7, 0.5),
    "duration_ms": Feature(0.0, -0.2, 0.0),
    "energy": Feature(0.85, 0.2, 0.2),
    "instrumentalness": Feature(-0.25, -0.25, -0.5),
    "liveness": Feature(0.2, -0.1, -0.2),
    "loudness": Feature(0.8, 0.1, 0.6),
    "speechiness": Feature(0.1, 0.2, 0.0),
    "tempo": Feature(0.2, -0.1, 0.1),
    "valence": Feature(0.25, 0.7, -0.3),
}
FAMILIES = ("rock", "pop", "hip hop", "jazz", "folk", "metal", "house", "country")
KINDS = ("modern", "classic", "alternative", "dutch", "southern")
LETTERS = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
COLUMNS = (
    "id", "name", "popularity", "duration_ms", "explicit", "artists", "id_artists", "release_date", "danceability", "energy",
    "key", "loudness", "mode", "speechiness", "acousticness", "instrumentalness", "liveness", "valence", "tempo", "time_signature",
)  # fmt: skip
# a row that is no good, and what it holds: the first three are refused unless data.drop_bad, the others are left out
DIRT = (
    ("tempo", "abc"), ("energy", ""), ("loudness", "nan"), ("tempo", "0"), ("popularity", "130"),
    ("release_date", "unknown"), ("danceability", "1.7"),
)  # fmt: skip


@dataclass(frozen=True)
class SynthTracks:
    """tracks, artists: tables in Spotify's schema. truth: as JSON, what was planted; see `make`."""

    tracks: pd.DataFrame
    artists: pd.DataFrame
    truth: dict[str, Any]


def make(
    *,
    num_tracks: int = 5000,
    num_artists: int = 25,
    seed: int = 0,
    num_genres: int = 5,
    artist_effect: float = 1.0,
    year_effect: float = 0.3,
    noise: float = 0.5,
    label_noise: float = 0.0,
    artist_share: float = 0.5,
    genre_share: float = 0.2,
    dirty: float = 0.0,
) -> SynthTracks:
    """Draw tables of tracks and artists.

    popularity = 50 + 10 (w·x + artist_effect a + year_effect (year - 2000) / 15 + noise e), where x are the features of the
    table, standardised, and a (of the artist) and e (of the track) standard normal; cut to 0…100 and rounded.

    Args:
        num_artists: who are the first of a track; each hundredth has a guest too. Ten features tell a few tens apart.
        artist_share, genre_share: of the variance of what features are drawn from: how alike an artist's, a genre's are.
        label_noise: share of tracks whose popularity is mirrored at 50.
        dirty: share of rows that hold what no table should.

    Returns:
        Tables, and truth: weights, center and scale by feature, the effects, threshold, families by artist's name, linked
        (the two artists who have recorded together), rms of each part of popularity, dirty (rows by what they hold).

    Raises:
        UserError: sizes or shares that cannot be.
    """
    _check(num_tracks, num_artists, num_genres, (artist_share, genre_share), dirty)
    rng = np.random.Generator(np.random.Philox(key=seed))
    artist = rng.permutation(np.arange(num_tracks) % num_artists)
    genre = np.arange(num_artists) % num_genres
    of_genre, of_artist, own = np.sqrt([genre_share, artist_share, 1 - genre_share - artist_share])
    z = of_genre * _draw(rng, num_genres)[genre][artist] + of_artist * _draw(rng, num_artists)[artist]
    table = _to_features(z + own * _draw(rng, num_tracks))
    x = np.column_stack([table[name] for name in PLAN])
    center, scale = x.mean(0), x.std(0)
    year = rng.integers(1970, 2021, num_tracks)
    parts = {
        "features": (x - center) / scale @ np.array([feature.weight for feature in PLAN.values()]),
        "artist": artist_effect * rng.standard_normal(num_artists)[artist],
        "year": year_effect * (year - 2000) / 15,
        "noise": noise * rng.standard_normal(num_tracks),
    }
    table["popularity"] = _to_popularity(rng, sum(parts.values()), label_noise)
    table["release_date"] = _to_dates(rng, year)
    names, linked = _name_artists(rng, table, artist, num_artists)
    table |= _draw_rest(rng, num_tracks)
    tracks = pd.DataFrame({name: table[name] for name in COLUMNS})
    families = {name: FAMILIES[genre[number]] for number, name in enumerate(names)}
    artists = _tabulate_artists(rng, tracks, artist, families)
    effects = {"artist_effect": artist_effect, "year_effect": year_effect, "noise": noise, "label_noise": label_noise}
    tracks, dirt = _soil(rng, tracks, dirty) if dirty else (tracks, {})
    truth = effects | {"threshold": 50.0, "families": families, "linked": linked, "dirty": dirt}
    truth |= {"rms": {name: float(np.sqrt(np.mean(part**2))) for name, part in parts.items()}}
    return SynthTracks(tracks, artists, truth | _describe(center, scale))


def _check(num_tracks: int, num_artists: int, num_genres: int, shares: tuple[float, float], dirty: float) -> None:
    if not 2 <= num_genres <= len(FAMILIES) or num_artists < num_genres or num_tracks < 2 * num_artists:
        raise UserError(
            f"num_genres must be 2 to {len(FAMILIES)}, num_artists at least num_genres, num_tracks at least 2 an artist"
        )
    if min(shares) < 0 or sum(shares) > 1 or not 0 <= dirty <= 0.5:
        raise UserError("artist_share and genre_share must add up to at most 1, dirty must be 0 to 0.5")


def _draw(rng: np.random.Generator, num: int) -> Array:
    """Standard normal, shape (num, 10), correlated as PLAN says."""
    loads = np.array([(feature.intensity, feature.mood) for feature in PLAN.values()])
    own = np.sqrt(1 - (loads**2).sum(1))
    return np.asarray(rng.standard_normal((num, 2)) @ loads.T + own * rng.standard_normal((num, len(PLAN))))


def _to_features(z: Array) -> dict[str, Any]:
    """Standard normal values into Spotify's ranges, each by a map that only rises, rounded as Spotify rounds."""
    by_name = dict(zip(PLAN, z.T, strict=True))

    def share(name: str, slope: float, start: float) -> Array:
        return np.asarray(np.round(1 / (1 + np.exp(-slope * by_name[name] - start)), 4))

    return {
        "acousticness": share("acousticness", 1.7, -1.0),
        "danceability": share("danceability", 0.7, 0.4),
        "duration_ms": np.rint(225e3 * np.exp(0.3 * by_name["duration_ms"])).astype(np.int64),
        "energy": share("energy", 1.1, 0.6),
        "instrumentalness": share("instrumentalness", 1.7, -2.5),
        "liveness": share("liveness", 0.8, -1.6),
        "loudness": np.round(1 - 9 * np.exp(-0.4 * by_name["loudness"]), 3),
        "speechiness": share("speechiness", 0.7, -2.7),
        "tempo": np.round(118 * np.exp(0.23 * by_name["tempo"]), 3),
        "valence": share("valence", 1.1, 0.2),
    }


def _to_popularity(rng: np.random.Generator, score: Any, label_noise: float) -> NDArray[np.int64]:
    popularity: Array = np.clip(50 + 10 * score, 0, 100)
    popularity = np.where(rng.random(len(popularity)) < label_noise, 100 - popularity, popularity)
    return np.asarray(np.rint(popularity), np.int64)


def _describe(center: Array, scale: Array) -> dict[str, dict[str, float]]:
    """What a regression on standardised features should find."""
    weights = [feature.weight for feature in PLAN.values()]
    planted = {"weights": weights, "center": center.tolist(), "scale": scale.tolist()}
    return {name: dict(zip(PLAN, values, strict=True)) for name, values in planted.items()}


def _to_dates(rng: np.random.Generator, year: NDArray[np.int64]) -> list[str]:
    """Dates of these years, of which some know no day, or no month, as in real tables."""
    months, days, kinds = rng.integers(1, 13, len(year)), rng.integers(1, 29, len(year)), rng.random(len(year))
    rows = zip(year.tolist(), months.tolist(), days.tolist(), kinds.tolist(), strict=True)
    return [
        f"{y}-{m:02d}-{d:02d}" if kind < 0.8 else f"{y}-{m:02d}" if kind < 0.83 else f"{y}" for y, m, d, kind in rows
    ]


def _draw_ids(rng: np.random.Generator, num: int) -> list[str]:
    return [str(word) for word in LETTERS[rng.integers(0, len(LETTERS), (num, 22))].view("U22")[:, 0]]


def _name_artists(
    rng: np.random.Generator, table: dict[str, Any], artist: NDArray[np.int64], num_artists: int
) -> tuple[list[str], list[str]]:
    """Credit each track; guests are each artist's own, so that only the first two artists are linked."""
    names = [
        f"The O'Hare {n}" if n % 7 == 3 else f"Artist {n}, Jr." if n % 7 == 5 else f"Artist {n}"
        for n in range(num_artists)
    ]
    ids, guest_ids = _draw_ids(rng, num_artists), _draw_ids(rng, num_artists)
    guest = [(f"Guest {n}", guest_ids[n]) for n in range(num_artists)]
    has_guest = rng.random(len(artist)) < 0.01
    has_guest[np.flatnonzero(artist == 0)[0]] = True
    guest[0] = (names[1], ids[1])
    table["artists"] = [
        str([names[a], guest[a][0]] if g else [names[a]]) for a, g in zip(artist, has_guest, strict=True)
    ]
    table["id_artists"] = [
        str([ids[a], guest[a][1]] if g else [ids[a]]) for a, g in zip(artist, has_guest, strict=True)
    ]
    return names, names[:2]


def _draw_rest(rng: np.random.Generator, num: int) -> dict[str, Any]:
    """Columns that popularity does not depend on."""
    return {
        "id": _draw_ids(rng, num),
        "name": [f"Song {n}" if n % 50 else f'Song {n}, "live"' for n in range(num)],
        "explicit": (rng.random(num) < 0.08).astype(np.int64),
        "key": rng.integers(0, 12, num),
        "mode": (rng.random(num) < 0.66).astype(np.int64),
        "time_signature": rng.choice([3, 4, 5], num, p=[0.08, 0.9, 0.02]),
    }


def _tabulate_artists(
    rng: np.random.Generator, tracks: pd.DataFrame, artist: NDArray[np.int64], families: dict[str, str]
) -> pd.DataFrame:
    """The table of artists: genres, most of one's own family, and means over tracks."""
    means = tracks[[*PLAN, "popularity", "key", "mode"]].groupby(artist).mean()
    genres = [
        f"{KINDS[rng.integers(len(KINDS))]} {own}, {own}, {FAMILIES[rng.integers(len(FAMILIES))]}"
        for own in families.values()
    ]
    table = pd.DataFrame({"genres": genres, "artists": list(families)})
    return pd.concat([table, means.reset_index(drop=True)], axis=1).assign(count=np.bincount(artist))


def _soil(rng: np.random.Generator, tracks: pd.DataFrame, share: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Text that holds DIRT in so many rows, one piece in each, and how many rows hold each piece."""
    soiled = tracks.astype(str).astype(object)
    rows = rng.permutation(len(tracks))[: max(len(DIRT), round(share * len(tracks)))]
    counts = {}
    for kind, (column, value) in enumerate(DIRT):
        mine = rows[kind :: len(DIRT)]
        soiled.loc[mine, column] = value  # rows are numbered from 0
        counts[f"{column}={value}"] = len(mine)
    return soiled, counts
