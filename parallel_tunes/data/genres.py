"""Genres of artists, and the families they belong to: Spotify knows thousands of genres, and gives them to artists, not tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.config_tracks import TracksConfig
from parallel_tunes.data import artists, tables
from parallel_tunes.schema import UserError

TABLE = "artists_with_genres.csv"
PHRASES = ("hip hop",)  # families of two words


def find_table(cfg: TracksConfig) -> Path:
    """The table of artists: `data.artists`, else the one beside the tracks.

    Raises:
        UserError: there is none.
    """
    if cfg.artists is not None or cfg.root is None:
        if cfg.artists is None:
            raise UserError("data.artists: say where the table of artists and their genres is")
        return cfg.artists
    beside = place_beside(cfg.root)
    if not beside.is_file():
        raise UserError(
            f"{beside}: no such file; task.target=genre learns the genres of artists: give their table as data.artists"
        )
    return beside


def place_beside(root: Path) -> Path:
    """Where the table of artists lies, if it lies beside these tracks."""
    return (root if root.is_dir() else root.parent) / TABLE


def read_genres(path: Path, *, max_mib: int = 4096, max_rows: int = 20_000_000) -> dict[str, list[str]]:
    """Each artist's genres, in the order of the table; none for some. An artist listed twice has all of them.

    Raises:
        UserError: not such a table, or a cell that holds no list of genres; see `tables.read` too.
    """
    table = tables.read(path, ["artists", "genres"], max_mib=max_mib, max_rows=max_rows)
    found: dict[str, list[str]] = {}
    names = table.frame["artists"].to_list()  # as they stand: some differ by a blank at the end alone
    for row, (artist, cell) in enumerate(zip(names, table.frame["genres"].to_list(), strict=True)):
        listed = artists.parse_names(cell)
        has_name = isinstance(artist, str) and artist.strip()
        if listed is None or not has_name:
            name, kind = ("genres", "no list of genres") if has_name else ("artists", "no name")
            place = table.places([row], is_full=True)[0]
            raise UserError(
                f"{place}: column {name} holds {str(cell if has_name else artist)[:80]!r}, which is {kind}; mend it"
            )
        # plain text may name several
        split = [part.strip() for name in listed for part in name.split(",")] if isinstance(cell, str) else list(listed)
        found.setdefault(artist, []).extend(genre for genre in split if genre)
    return found


def family(genre: str) -> str:
    """The last word of a genre says what kind it is, the others which.

    >>> [family(genre) for genre in ("album rock", "east coast hip hop", "r&b")]
    ['rock', 'hip hop', 'r&b']
    """
    words = " ".join(genre.casefold().split())
    phrase = next((phrase for phrase in PHRASES if words == phrase or words.endswith(f" {phrase}")), None)
    return phrase or words.rpartition(" ")[2]


def label_by_family(artist_names: Iterable[str | None], genres: Mapping[str, list[str]]) -> NDArray[np.object_]:
    """The family of each artist: the most frequent among its genres, of equals the one named first; None where none is known."""
    known: dict[str | None, str | None] = {None: None}
    labels = []
    for name in artist_names:
        if name not in known:
            # most_common keeps the order of first sight among equals
            common = Counter(map(family, genres.get(name or "", ()))).most_common(1)
            known[name] = common[0][0] if common else None
        labels.append(known[name])
    return np.array(labels, object)
