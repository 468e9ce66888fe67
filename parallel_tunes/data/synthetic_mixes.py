"""Tracks of the procedural corpus that are of several genres at once: renderings, one over the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from parallel_tunes.data import synthetic
from parallel_tunes.data.label_sets import SEPARATOR
from parallel_tunes.data.synthetic_artists import Samples


class Mix(NamedTuple):
    """One track of a corpus, before it is rendered."""

    path: str
    label: str  # one genre, or several: dub|funk
    artist: str
    parts: tuple[tuple[int, int, int], ...]  # genre, artist, track of each rendering


def list_corpus(num_artists: int, tracks_per_artist: int, ending: str, labels_per_track: int) -> list[Mix]:
    """All tracks of a corpus: <label>/<artist>-<track>.<ending>, folders of several labels being called dub+funk.

    Whoever plays beside an artist plays with that one alone, so that no two groups of tracks have a sound in common. All
    tracks of an artist are of the same genres; nine artists of a genre play with each of the others.
    """
    genres, mixes = synthetic.GENRES, []
    for piece in synthetic.list_corpus(num_artists, tracks_per_artist, ending):
        genre, artist, track = piece.numbers
        turns = (artist + number for number in range(labels_per_track - 1))
        others = [(genre + 1 + turn % (len(genres) - 1)) % len(genres) for turn in turns]
        names = sorted(genres[each].name for each in (genre, *others))
        guest = num_artists * (1 + genre) + artist
        path = "+".join(names) + piece.path[len(piece.label) :]
        parts = (piece.numbers, *((other, guest, track) for other in others))
        mixes.append(Mix(path, SEPARATOR.join(names), piece.artist, parts))
    return mixes


def mix(renderings: list[Samples]) -> Samples:
    """Renderings of equal length, one over the other, shape (num_samples,), within ±0.9; a single one as it is."""
    if len(renderings) == 1:
        return renderings[0]
    total = np.sum(renderings, axis=0)
    return np.asarray(0.9 * total / np.abs(total).max(), np.float32)
