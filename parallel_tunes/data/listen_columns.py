"""What the cells of KKBOX's tables mean: names out of lists, country, registrant and year out of an ISRC, ages and dates.

Everything is done once for each different cell and then gathered. Codes are those of `Vocabulary`: 0 is missing, and words
count from 1 in the order in which they first appear; a flag is 1 for no and 2 for yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from parallel_tunes.data.cells import Codes, compiled

FLAGS = ("", "no", "yes")
FEATURED = r"(?i)(?:^|[\s(\[（【|])(?:feat|ft|featuring)(?:\.|\s)"
ARTISTS = r"(?i)\s*[|&＆]\s*|[\s(\[（【]+(?:feat\.?|ft\.?|featuring)\s+|[\s(\[（【]+(?:feat|ft)\."
WRITERS = (
    r"\s*[|&＆/,;、，／]\s*"  # an artist's name may hold a slash or comma, AC/DC; a list of writers is split at them
)
GENRES = r"\s*\|\s*"
ISRC = r"^[A-Z]{2}[A-Z0-9]{3}\d{7}$"  # ISO 3901: country, registrant, year of two digits, number
LAST_YEAR = 2017  # of the tables' listens: two digits above are of the century before
AGES = (5, 100)  # years; what lies outside is no age
EPOCH = date(2000, 1, 1)
SONG_COLUMNS = (
    "artist", "artist2", "artist_more", "genre1", "genre2", "genre_more", "composer", "lyricist", "language",
    "country", "registrant", "is_artist_composer", "is_artist_lyricist", "has_featured",
)  # fmt: skip
SONG_NUMBERS = ("length_ms", "year", "num_artists", "num_genres", "num_composers", "num_lyricists")
USER_COLUMNS = ("city", "gender", "registered_via")
USER_NUMBERS = ("age", "registered_days", "expires_days", "member_days")
WORDS_OF = {  # whose words a column's codes stand for, where not its own
    "artist": "person", "artist2": "person", "artist_more": "person", "composer": "person", "lyricist": "person",
    "genre1": "genre", "genre2": "genre", "genre_more": "genre",
    "is_artist_composer": "flag", "is_artist_lyricist": "flag", "has_featured": "flag",
}  # fmt: skip

Floats = NDArray[np.float32]
Words = dict[str, pa.StringArray]


@dataclass(frozen=True)
class Transformed:
    """Columns of songs or users, a row for each code from 0 on, the words of new vocabularies, and counts of what is odd."""

    codes: dict[str, Codes]
    numbers: dict[str, Floats]
    words: Words
    odd: dict[str, int]


@dataclass(frozen=True)
class Lists:
    """Lists of codes, one for each different cell: list c is codes[starts[c] : starts[c + 1]]."""

    starts: NDArray[np.int64]
    codes: Codes

    def pick(self, place: int) -> Codes:
        """Of each list, the code in this place; 0 where it is shorter."""
        at = self.starts[:-1] + place
        return np.where(at < self.starts[1:], np.append(self.codes, 0)[np.minimum(at, len(self.codes))], 0).astype(
            np.int32
        )

    def count(self) -> Floats:
        """Of each list, how long it is; NaN for none."""
        num = np.diff(self.starts).astype(np.float32)
        return np.where(num > 0, num, np.float32(np.nan))


def transform_songs(cells: Mapping[str, Codes], words: Mapping[str, pa.StringArray]) -> Transformed:
    """Columns `SONG_COLUMNS` and `SONG_NUMBERS`.

    Args:
        cells: of each column of songs and song_extra_info a word for each song, (num_songs + 1,).
        words: of each of those columns.
    """
    people = [split(words[name], pattern) for name, pattern in PATTERNS.items()]
    (artists, composers, lyricists), known_people = number(people)
    (genres,), known_genres = number([split(words["genre_ids"], GENRES)])
    origin, known_origins = read_isrc(words["isrc"])
    length_ms = read_numbers(words["song_length"], 1, 2**31)
    featured = [pc.match_substring_regex(words[name], FEATURED) for name in ("artist_name", "name")]
    by_artist, by_title = (each.to_numpy(zero_copy_only=False) for each in featured)
    artist, name, genre, isrc = (cells[column] for column in ("artist_name", "name", "genre_ids", "isrc"))
    plain = simplify(known_people)
    columns = {
        **{column: artists.pick(place)[artist] for place, column in enumerate(SONG_COLUMNS[:3])},
        **{column: genres.pick(place)[genre] for place, column in enumerate(SONG_COLUMNS[3:6])},
        "composer": composers.pick(0)[cells["composer"]],
        "lyricist": lyricists.pick(0)[cells["lyricist"]],
        "language": cells["language"],
        "country": origin["country"][isrc],
        "registrant": origin["registrant"][isrc],
        "is_artist_composer": compare(artists, artist, composers, cells["composer"], plain),
        "is_artist_lyricist": compare(artists, artist, lyricists, cells["lyricist"], plain),
        "has_featured": np.where((artist > 0) | (name > 0), 1 + (by_artist[artist] | by_title[name]), 0).astype(np.int32),
    }  # fmt: skip
    numbers = {
        "length_ms": length_ms[cells["song_length"]],
        "year": origin["year"][isrc].astype(np.float32),
        "num_artists": artists.count()[artist],
        "num_genres": genres.count()[genre],
        "num_composers": composers.count()[cells["composer"]],
        "num_lyricists": lyricists.count()[cells["lyricist"]],
    }
    numbers["year"][numbers["year"] == 0] = np.nan
    new = {"person": known_people, "genre": known_genres, "flag": pa.array(FLAGS), **known_origins}
    odd = {
        "isrc": int(np.count_nonzero(np.isnan(numbers["year"]) & (isrc > 0))),
        "song_length": int(np.count_nonzero(np.isnan(numbers["length_ms"]) & (cells["song_length"] > 0))),
    }
    return Transformed(columns, numbers, new, odd)


PATTERNS = {"artist_name": ARTISTS, "composer": WRITERS, "lyricist": WRITERS}


def transform_users(cells: Mapping[str, Codes], words: Mapping[str, pa.StringArray]) -> Transformed:
    """Columns `USER_COLUMNS` and `USER_NUMBERS`; `cells` and `words` of the columns of members, as for songs."""
    columns = {"bd": "age", "registration_init_time": "registered_days", "expiration_date": "expires_days"}
    read = {"bd": read_numbers(words["bd"], *AGES)} | {name: read_dates(words[name]) for name in list(columns)[1:]}
    numbers = {columns[name]: values[cells[name]] for name, values in read.items()}
    is_said = np.array([word not in ("", "0") for word in words["bd"].to_pylist()])  # more than half say 0
    said = {name: is_said[cells[name]] if name == "bd" else cells[name] > 0 for name in columns}
    odd = {name: int(np.count_nonzero(np.isnan(numbers[columns[name]]) & said[name])) for name in columns}
    numbers["member_days"] = numbers["expires_days"] - numbers["registered_days"]
    return Transformed({name: cells[name] for name in USER_COLUMNS}, numbers, {}, odd)


def split(words: pa.StringArray, pattern: str) -> tuple[NDArray[np.int64], pa.StringArray]:
    """The names in each word: where each list of them starts, with the end behind, and all names.

    >>> split(pa.array(["", "A feat. B| C"]), ARTISTS)[1].to_pylist()
    ['A', 'B', 'C']
    """
    lists = pc.split_pattern_regex(words, pattern)
    parents = pc.list_parent_indices(lists).to_numpy()
    names = pc.utf8_trim_whitespace(lists.flatten())
    # "A (feat. B)" leaves a bracket that nothing opens
    names = pc.utf8_rtrim_whitespace(pc.replace_substring_regex(names, r"^([^(（\[【]*)[)）\]】]$", r"\1"))
    is_name = pc.not_equal(names, "")
    kept = parents[is_name.to_numpy(zero_copy_only=False)]
    return np.searchsorted(kept, np.arange(len(words) + 1)), names.filter(is_name)


def number(lists: list[tuple[NDArray[np.int64], pa.StringArray]]) -> tuple[list[Lists], pa.StringArray]:
    """Codes for the names of all these lists together, in their order, and the word of each code."""
    encoded = pa.concat_arrays([names for _, names in lists]).dictionary_encode()
    codes = encoded.indices.to_numpy() + np.int32(1)
    ends = np.cumsum([len(names) for _, names in lists])[:-1]
    made = [Lists(starts, part) for (starts, _), part in zip(lists, np.split(codes, ends), strict=True)]
    return made, pa.concat_arrays([pa.array([""], pa.string()), encoded.dictionary])


def simplify(names: pa.StringArray) -> Codes:
    """A number for each name, the same for those that differ in case or in what stands in brackets: 張信哲 (Jeff Chang)."""
    short = pc.utf8_trim_whitespace(pc.replace_substring_regex(names, r"[(（\[【].*$", ""))
    plain = pc.utf8_lower(pc.if_else(pc.equal(short, ""), names, short))
    indices: Codes = plain.dictionary_encode().indices.to_numpy()
    return indices


def compare(artists: Lists, artist: Codes, writers: Lists, writer: Codes, plain: Codes) -> Codes:
    """Whether one of a song's artists is one of its writers: 1 for no, 2 for yes, 0 where either is missing."""
    flags = np.zeros(len(artist), np.int32)
    find_common(artists.starts, plain[artists.codes], artist, writers.starts, plain[writers.codes], writer, flags)
    return flags


@compiled
def find_common(
    starts: Any, codes: Any, cells: Any, other_starts: Any, other_codes: Any, other_cells: Any, flags: Any
) -> None:
    """Write `compare`'s flags for lists of simplified names."""
    for row in range(len(flags)):
        one, other = cells[row], other_cells[row]
        for a in range(starts[one], starts[one + 1]):
            for b in range(other_starts[other], other_starts[other + 1]):
                flags[row] = max(flags[row], 2 if codes[a] == other_codes[b] else 1)


def read_isrc(words: pa.StringArray) -> tuple[dict[str, Codes], Words]:
    """Codes of country and registrant, and the year, of each word, 0 where it is no ISRC; the words of both."""
    plain = pc.utf8_upper(pc.replace_substring_regex(words, r"[\s-]", ""))
    is_code = pc.match_substring_regex(plain, ISRC)
    good = plain.filter(is_code)
    rows = np.flatnonzero(is_code.to_numpy(zero_copy_only=False))
    found, known = dict[str, Codes](), Words()
    for name, stop in (("country", 2), ("registrant", 5)):  # registrants are a country's own
        (lists,), known[name] = number([(np.arange(1), pc.utf8_slice_codeunits(good, 0, stop))])
        found[name] = np.zeros(len(words), np.int32)
        found[name][rows] = lists.codes
    years = pc.utf8_slice_codeunits(good, 5, 7).cast(pa.int32()).to_numpy()
    found["year"] = np.zeros(len(words), np.int32)
    found["year"][rows] = years + np.where(years <= LAST_YEAR % 100, 2000, 1900)
    return found, known


def read_numbers(words: pa.StringArray, low: int, high: int) -> Floats:
    """The number in each word; NaN where there is none from `low` to `high`."""
    is_number = pc.match_substring_regex(words, r"^\s*\d{1,12}(?:\.\d*)?\s*$")
    values = pc.if_else(is_number, pc.utf8_trim_whitespace(words), "nan").cast(pa.float64())
    numbers = values.to_numpy()
    return np.where((numbers >= low) & (numbers <= high), numbers, np.nan).astype(np.float32)


def read_dates(words: pa.StringArray) -> Floats:
    """Days since 2000-01-01 of dates such as 20170131; NaN where it is none."""
    days = np.full(len(words), np.nan, np.float32)
    for code, word in enumerate(words.to_pylist()):
        try:
            if len(word) == 8:
                days[code] = (date(int(word[:4]), int(word[4:6]), int(word[6:])) - EPOCH).days
        except ValueError:
            continue
    return days
