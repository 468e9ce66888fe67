"""The keys of synth: a corpus of audio."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.config_run import RunConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class SynthJob:
    """writes a synthetic corpus: ten procedural genres, each artist with a sound of its own"""

    kind: str = key("what to write", choices=("audio",))
    num_artists: int = key("artists in each genre", low=1, high=10000)
    tracks_per_artist: int = key("tracks by each artist", low=1, high=10000)
    duration_s: float = key("length of a track, seconds", low=0.1, high=3600)
    sample_rate_hz: int = key(
        "sampling rate, Hz; opus has 8000, 12000, 16000, 24000 and 48000 only, mp3 nothing above 48000",
        low=4000,
        high=192000,
    )
    format: str = key(
        "what files: wav, au and flac of 16 bits, or ogg (Vorbis), mp3, opus",
        choices=("wav", "au", "flac", "ogg", "mp3", "opus"),
    )
    channels: int = key("1: mono; 2: stereo, whose mix is the mono track", low=1, high=2)
    labels_per_track: int = key("genres that are mixed into each track, with a label such as dub|funk", low=1, high=3)
    blend: float = key(
        "probability that an artist, and a track, takes an element of its music from any genre", low=0, high=1
    )
    artist_strength: float = key("factor on the decibels by which artists differ", low=0, high=10)
    track_strength: float = key("the same of the tracks of one artist; 0: recorded alike", low=0, high=10)
    seed: int = key("seed of the corpus", low=0)
    run: RunConfig
