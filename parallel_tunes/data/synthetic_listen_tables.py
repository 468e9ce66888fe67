"""Synthetic listens as KKBOX's tables: train, test, songs, members and song_extra_info, written in chunks, bytes set by the seed.

Words are like the real ones: 44 letters of base64 for ids, names with commas, quotes, line ends and Chinese letters, artists
'A| B' or 'A feat. B', genres '465|958', ages that are none, and much that is not there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.data.synthetic_listens import SOURCES, SynthListens

Writer = Callable[[IO[bytes]], object]
Ints = NDArray[np.int64]

CHUNK = 1 << 19  # rows
HEADERS = {
    "train.csv": "msno,song_id,source_system_tab,source_screen_name,source_type,target",
    "test.csv": "id,msno,song_id,source_system_tab,source_screen_name,source_type",
    "songs.csv": "song_id,song_length,genre_ids,artist_name,composer,lyricist,language",
    "members.csv": "msno,city,bd,gender,registered_via,registration_init_time,expiration_date",
    "song_extra_info.csv": "song_id,name,isrc",
}
NOTHING = {"null_handling": "replace", "null_replacement": ""}  # is what stands for null
TRUTH, PROBABILITY = "truth.json", "probability.npy"
GENRES = ("465", "1609", "2022", "958", "921", "2122", "1259", "458", "786", "359", "444", "139|125|109", "465|958",
          "786|947", "1572|275", "864|857|850|843", "921|465", "388", None)  # fmt: skip
LANGUAGES = ("52", "3", "17", "31", "24", "10", "-1")
COUNTRIES = ("US", "TW", "GB", "JP", "HK", "DE", "FR", "KR", "TC", "QM", "CN")
FAMILIES = ("陳", "林", "黃", "張", "李", "王", "Smith", "Tsai", "Wong", "García", "O'Hare", "Lee")
GIVEN = ("信哲", "小康", "惠妹", "Jeff", "Teddy", "Sandy", "Ayumi", "Jolin", "Björk", "Max")
BANDS = (*("{}",) * 12, "{} (Band)", "{} & China Blue", "Earth, Wind & {}", '{} "The Kid"', "五月天 {}", "S.H.{}")
TITLES = ("Let Me Love You", "我們", "愛投羅網", "Our Time", "Classic", "月亮惹的禍", "ONLY TIME (唯有時光)", "Guilty (feat. Rakim)",
          "Song, with a comma", '"Heroes"', "Two\nlines", "癢")  # fmt: skip
AGES = ("-43", "-38", "2", "3", "101", "105", "112", "931", "1051")


def write(listens: SynthListens, folder: Path) -> None:
    """Write the tables and the truth into a folder, each file whole or not at all."""
    for name, writer in list_writers(listens).items():
        files.write_file(folder / name, writer)


def list_writers(listens: SynthListens) -> dict[str, Writer]:
    """What writes each file to a stream: the five tables, the truth as JSON, and the probability of each row, train.csv's first."""
    users, songs = (
        _draw_ids(_rng(listens, table), num) for table, num in ((0, listens.num_users), (1, len(listens.artist)))
    )
    rows = {
        "train.csv": partial(_list_listens, listens, users, songs, 0, listens.num_rows),
        "test.csv": partial(_list_listens, listens, users, songs, listens.num_rows, len(listens.user)),
        "songs.csv": partial(_list_songs, listens, songs),
        "members.csv": partial(_list_members, listens, users),
        "song_extra_info.csv": partial(_list_extra, listens, songs),
    }
    writers: dict[str, Writer] = {name: partial(_write_table, HEADERS[name], lines) for name, lines in rows.items()}
    told = json.dumps(listens.truth, indent=1, allow_nan=False) + "\n"
    writers[TRUTH] = lambda stream: stream.write(told.encode())
    writers[PROBABILITY] = lambda stream: np.save(stream, listens.probability)
    return writers


def _rng(listens: SynthListens, table: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([listens.seed, 1 + table], np.uint64)))


def _write_table(header: str, list_chunks: Callable[[], Iterator[Sequence[Any]]], stream: IO[bytes]) -> None:
    stream.write(header.encode() + b"\n")
    for columns in list_chunks():
        lines = pc.binary_join_element_wise(
            *columns[:-1], pc.binary_join_element_wise(columns[-1], "\n", "", **NOTHING), ",", **NOTHING
        )
        if len(lines):
            first, last = lines.offset, lines.offset + len(lines)
            ends = np.frombuffer(lines.buffers()[1], np.int32 if pa.types.is_string(lines.type) else np.int64)
            stream.write(lines.buffers()[2][int(ends[first]) : int(ends[last])])


def _join(*parts: Any) -> Any:
    return pc.binary_join_element_wise(*parts, "")


def _spell(numbers: Any) -> Any:
    return pa.array(numbers).cast(pa.string())


def _pick(words: Sequence[str | None] | Any, codes: Any) -> Any:
    return pc.take(words if isinstance(words, pa.Array) else pa.array(words, pa.string()), pa.array(codes))


def _quote(cells: Any) -> Any:
    """Cells with what a CSV's grammar reads in quotes, quotes doubled."""
    quoted = _join('"', pc.replace_substring(cells, '"', '""'), '"')
    return pc.if_else(pc.match_substring_regex(cells, '[",\n]'), quoted, cells)


def _draw_ids(rng: np.random.Generator, num: int) -> Any:
    """Base64 of 32 bytes each."""
    digests = rng.integers(0, 256, (num, 33), np.uint8)
    digests[:, 32] = 0  # 33 bytes are 44 letters; the last, of what is not there, is written =
    letters = np.frombuffer(base64.b64encode(digests.tobytes()), np.uint8).reshape(num, 44).copy()
    letters[:, 43] = ord("=")
    ends = np.arange(num + 1, dtype=np.int64) * 44
    words = pa.LargeStringArray.from_buffers(num, pa.py_buffer(ends), pa.py_buffer(letters))
    return words.cast(pa.string()) if num < 1 << 25 else words


def _spans(first: int, last: int) -> Iterator[slice]:
    for start in range(first, last, CHUNK):
        yield slice(start, min(start + CHUNK, last))


def _list_listens(listens: SynthListens, users: Any, songs: Any, first: int, last: int) -> Iterator[Sequence[Any]]:
    sources = [[source[place] or None for source in SOURCES] for place in range(3)]
    for span in _spans(first, last):
        who, what = _pick(users, listens.user[span]), _pick(songs, listens.song[span])
        whence = [_pick(words, listens.source[span]) for words in sources]
        if first:  # test.csv
            yield _spell(np.arange(span.start - first, span.stop - first)), who, what, *whence
        else:
            yield who, what, *whence, _pick(("0", "1"), listens.target[span])


def _name_people(num: int) -> list[str]:
    return [f"{GIVEN[at % len(GIVEN)]} {FAMILIES[at // 7 % len(FAMILIES)]} {at}" for at in range(num)]


def _name_artists(num: int) -> Any:
    """Names, of which no two are alike."""
    return pa.array(
        [BANDS[at // 3 % len(BANDS)].format(name) for at, name in enumerate(_name_people(num))], pa.string()
    )


def _list_songs(listens: SynthListens, ids: Any) -> Iterator[Sequence[Any]]:
    rng = _rng(listens, 2)
    kept = rng.permutation(np.flatnonzero(~listens.is_bare))
    num_artists = int(listens.artist.max(initial=0)) + 1
    artists, people = _name_artists(num_artists), pa.array(_name_people(max(num_artists // 2, 20)), pa.string())
    tongues = rng.choice(len(LANGUAGES), num_artists, p=(0.42, 0.25, 0.09, 0.08, 0.04, 0.03, 0.09))
    for span in _spans(0, len(kept)):
        song, num = kept[span], span.stop - span.start
        artist, lots = listens.artist[song], rng.random((4, num))
        first, guest = _pick(artists, artist), _pick(artists, rng.integers(0, num_artists, num))
        with_guest = pc.if_else(pa.array(lots[0] < 0.04), _join(first, "|", guest), _join(first, " feat. ", guest))
        credit = pc.if_else(pa.array(lots[0] < 0.07), with_guest, first)
        one, two = (_pick(people, rng.integers(0, len(people), num)) for _ in range(2))
        written = pc.if_else(pa.array(lots[1] < 0.1), first, one)
        written = pc.if_else(pa.array(lots[1] > 0.9), _join(one, "| ", two), written)
        composer = pc.if_else(pa.array(lots[2] < 0.42), None, written)
        lyricist = pc.if_else(pa.array(lots[3] < 0.72), None, pc.if_else(pa.array(lots[3] < 0.8), written, two))
        length = np.clip(240e3 * np.exp(0.35 * rng.standard_normal(num)), 5000, 4.7e6).astype(np.int64)
        genre = rng.integers(0, len(GENRES), num) * (rng.random(num) < 0.6)  # 465 is that of four songs in ten
        tongue = _pick(LANGUAGES, tongues[artist])
        words = (_quote(cells) for cells in (credit, composer, lyricist))
        yield _pick(ids, song), _spell(length), _pick(GENRES, genre), *words, tongue


def _list_members(listens: SynthListens, ids: Any) -> Iterator[Sequence[Any]]:
    rng = _rng(listens, 3)
    order, num = rng.permutation(listens.num_users), listens.num_users
    lots, is_blank = rng.random((2, num)), rng.random(num) < 0.57
    city = np.where(is_blank, 1, rng.choice((13, 5, 4, 15, 22, 6, 14, 12), num))
    age = np.where(is_blank, 0, np.clip(29 + 9 * rng.standard_normal(num), 10, 80).astype(np.int64))
    odd = _pick(AGES, rng.integers(0, len(AGES), num))
    age = pc.if_else(pa.array(lots[0] < 0.01), odd, _spell(age))
    gender = np.where(is_blank & (lots[1] > 0.02), 2, rng.integers(0, 2, num))
    via = rng.choice(("4", "7", "9", "3", "13"), num, p=(0.33, 0.27, 0.25, 0.145, 0.005))
    began = np.datetime64("2017-02-28") - np.minimum(rng.exponential(1100, num), 4700).astype(np.int64)
    ended = np.where(rng.random(num) < 0.001, np.datetime64("1970-01-01"), np.datetime64("2017-09-15"))
    ended = ended + rng.integers(0, 30, num) * (rng.random(num) < 0.5)
    dates = [_spell(_write_days(days)) for days in (began, ended)]
    who = _pick(ids, order)
    yield who, _spell(city), age, _pick(("male", "female", None), gender), pa.array(via.tolist()), *dates


def _write_days(days: NDArray[np.datetime64]) -> Ints:
    """20170930 and so on."""
    years, months = days.astype("datetime64[Y]"), days.astype("datetime64[M]")
    year, month = years.astype(np.int64) + 1970, (months - years).astype(np.int64) + 1
    return np.asarray(year * 10000 + month * 100 + (days - months).astype(np.int64) + 1, np.int64)


def _list_extra(listens: SynthListens, ids: Any) -> Iterator[Sequence[Any]]:
    rng = _rng(listens, 4)
    kept = rng.permutation(np.flatnonzero(~listens.is_bare))
    kept = kept[: len(kept) - len(kept) // 20]  # not all of songs.csv's
    years = [f"{year % 100:02d}" for year in range(1960, 2018)]
    for span in _spans(0, len(kept)):
        num = span.stop - span.start
        title = _join(_pick(TITLES, rng.integers(0, len(TITLES), num)), " ", _spell(rng.integers(0, 10000, num)))
        country = _pick(COUNTRIES, np.minimum(rng.geometric(0.3, num) - 1, len(COUNTRIES) - 1))
        registrant = _pick(("UM7", "A53", "SM1", "F71", "0Z9"), rng.integers(0, 5, num))
        year = _pick(years, len(years) - 1 - np.minimum(rng.geometric(0.12, num) - 1, len(years) - 1))
        code = pc.utf8_lpad(_spell(rng.integers(0, 100_000, num)), 5, "0")
        isrc = pc.if_else(pa.array(rng.random(num) < 0.13), None, _join(country, registrant, year, code))
        yield _pick(ids, kept[span]), _quote(title), isrc
