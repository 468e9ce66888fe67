"""A procedural music corpus: ten genres, seeded, each artist with a production fingerprint of its own.

Genre is what is played: tempo, metre, rhythm pattern, harmony, instrumentation and mix. The artist is how it was
recorded: an equaliser curve, a noise floor, a room, a drum tuning and habits of tempo and brightness, shared by
all of that artist's tracks. A model may learn either; a split that puts one artist on both sides rewards the wrong one.
`Traits` make genres harder to tell, and artists and recordings easier, until such a split rewards little else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.data.synthetic_artists import (
    PLAIN,
    Artist,
    Recording,
    Samples,
    draw_artist,
    draw_recording,
    produce,
)

LIST = "tracks.csv"  # a corpus's list: path, label, artist


class Genre(NamedTuple):
    """What is played. A pattern has one letter a step: `x` always, `o` in half of the bars, `.` never."""

    name: str
    tempo_bpm: tuple[float, float]
    steps_per_beat: int
    kick: str
    snare: str
    hat: str
    comp: str  # when chords are struck
    comp_steps: float  # how long they ring, in steps
    bass: str  # `1` root, `5` fifth, `8` octave, `w` a walking scale tone
    chords: tuple[tuple[int, ...], ...]  # progressions, in scale degrees
    minor: bool
    comp_with: tuple[str, ...]
    lead_with: tuple[str, ...]
    lead_density: float  # share of the lead's grid that sounds
    lead_grid: int  # steps between possible lead notes
    drums_gain: float
    has_arpeggios: bool = False  # one voice at a time instead of chords


GENRES = (
    Genre("ambient", (60, 84), 4, "................", "................", "....o.......o...", "x...............", 16,
          "1...............", ((0, 3, 5, 4), (0, 5, 3, 3)), False, ("pad", "organ", "bell"), ("bell", "flute"), 0.25, 4, 0.3),
    Genre("bossa", (116, 148), 4, "x..xx..xx..xx..x", "x..x..x...x..x..", "xxxxxxxxxxxxxxxx", "x..x..x...o.x...", 2.5,
          "1..51..51..51..5", ((0, 1, 4, 0), (0, 5, 1, 4)), False, ("pluck", "bell"), ("flute", "pluck"), 0.4, 2, 0.6),
    Genre("chiptune", (116, 164), 4, "x...x...x...x...", "....x.......x.o.", "x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx", 0.8,
          "1.8.1.8.1.8.1.8.", ((0, 4, 5, 3), (5, 3, 0, 4)), False, ("square", "pluck"), ("square", "bell"), 0.6, 2, 0.7, True),
    Genre("dub", (66, 84), 4, "........x.......", "........x......o", "o.x.o.x.o.x.o.x.", "..x...x...x...x.", 1.2,
          "1..1..5...8.1...", ((0, 0, 3, 3), (0, 4, 0, 4)), True, ("organ", "pluck"), ("brass", "flute"), 0.2, 2, 1.0),
    Genre("folk", (88, 128), 4, "................", "................", "o...o...o...o...", "x...x.x.o.x.x.x.", 3,
          "1.......5.......", ((0, 3, 4, 0), (0, 4, 3, 0)), False, ("pluck", "pad"), ("flute", "pluck"), 0.5, 2, 0.3),
    Genre("funk", (92, 118), 4, "x..x..x...x..x..", "....x..o.o..x..o", "xxxxxxxxxxxxxxxx", "..x..x....x.x..o", 0.6,
          "1..8..1...5.8..1", ((0, 0, 3, 3), (0, 3, 0, 4)), True, ("pluck", "organ", "brass"), ("brass", "square"), 0.35, 1, 1.0),
    Genre("house", (116, 130), 4, "x...x...x...x...", "....x.......x...", "..x...x...x...x.", "..x..x...xx..x..", 1.5,
          "..1...1...1...5.", ((0, 0, 5, 3), (5, 4, 0, 3)), True, ("organ", "pad", "square"), ("bell", "square"), 0.25, 2, 1.1),
    Genre("march", (100, 128), 4, "x.......x.......", "..x.x.x...x.xxxx", "................", "....x.......x...", 1.5,
          "1.......5.......", ((0, 4, 0, 4), (0, 3, 4, 0)), False, ("brass", "organ"), ("brass", "flute"), 0.6, 2, 0.9),
    Genre("swing", (116, 172), 3, "x.....x.....", "...o.....o..", "x..x.xx..x.x", "..x...o.x...", 1.0,
          "1..w..5..w..", ((0, 5, 1, 4), (0, 0, 3, 4)), False, ("pluck", "brass", "organ"), ("brass", "flute"), 0.45, 1, 0.6),
    Genre("waltz", (84, 116), 4, "x...........", "....o...o...", "....x...x...", "....x...x...", 2.5,
          "1...........", ((0, 3, 4, 0), (0, 4, 4, 0)), False, ("pluck", "brass", "pad", "organ"), ("flute", "bell"), 0.5, 2, 0.4),
)  # fmt: skip

# harmonic amplitudes, attack and decay (seconds); decay 0 sustains
INSTRUMENTS: dict[str, tuple[tuple[float, ...], float, float]] = {
    "pad": ((1.0, 0.5, 0.33, 0.25, 0.2, 0.16), 0.25, 0.0),
    "organ": ((1.0, 0.8, 0.5, 0.0, 0.3, 0.0, 0.0, 0.25), 0.01, 0.0),
    "pluck": ((1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1), 0.003, 0.25),
    "square": ((1.0, 0.0, 0.33, 0.0, 0.2, 0.0, 0.14, 0.0, 0.11), 0.003, 0.0),
    "brass": ((1.0, 0.9, 0.8, 0.6, 0.45, 0.3, 0.2, 0.12), 0.04, 0.0),
    "flute": ((1.0, 0.25, 0.1, 0.03), 0.06, 0.0),
    "bell": ((1.0, 0.0, 0.6, 0.0, 0.0, 0.4, 0.0, 0.0, 0.3), 0.002, 0.5),
    "bass": ((1.0, 0.45, 0.2, 0.1), 0.005, 0.6),
}
SCALES = {False: (0, 2, 4, 5, 7, 9, 11), True: (0, 2, 3, 5, 7, 8, 10)}
# what can be taken from another genre, and only as a whole
ELEMENTS = (
    ("kick", "snare", "hat", "steps_per_beat", "drums_gain"),
    ("tempo_bpm",),
    ("comp", "comp_steps", "has_arpeggios"),
    ("bass",),
    ("chords", "minor"),
    ("comp_with",),
    ("lead_with", "lead_density", "lead_grid"),
)


class Traits(NamedTuple):
    """What a corpus can be told by.

    Args:
        blend: probability that an artist takes an element of its music from any genre, and that a track does.
        artist_strength: factor on the decibels by which artists differ.
        track_strength: the same of the tracks of one artist; 0: they are recorded alike.
    """

    blend: float = 0.0
    artist_strength: float = 1.0
    track_strength: float = 0.0


USUAL = Traits()


def take_elements(style: Genre, share: float, rng: np.random.Generator) -> Genre:
    """A style some of whose elements are those of genres drawn at random, cut or repeated to the length of its bar."""
    for fields in ELEMENTS:
        other = GENRES[rng.integers(len(GENRES))]
        if rng.random() < share:
            style = style._replace(**{field: getattr(other, field) for field in fields})
    num_steps = len(style.kick)
    return style._replace(comp=(2 * style.comp)[:num_steps], bass=(2 * style.bass)[:num_steps])


def render_note(
    frequency_hz: float, duration_s: float, instrument: str, brightness: float, sample_rate_hz: int
) -> Samples:
    """One note, shape (num_samples,), float32: additive synthesis, the harmonics by Chebyshev's recurrence."""
    harmonics, attack_s, decay_s = INSTRUMENTS[instrument]
    num_samples = max(int(duration_s * sample_rate_hz), 64)
    seconds = np.arange(num_samples, dtype=np.float32) / np.float32(sample_rate_hz)
    phase = np.float32(2 * np.pi * frequency_hz) * seconds
    twice_cosine, below, current = 2 * np.cos(phase), np.zeros(num_samples, np.float32), np.sin(phase)
    tone = np.zeros(num_samples, np.float32)
    for harmonic, amplitude in enumerate(harmonics, start=1):
        if harmonic * frequency_hz > 0.45 * sample_rate_hz:
            break
        if amplitude:
            tone += np.float32(amplitude * harmonic ** (0.6 * (1 - brightness))) * current
        below, current = current, twice_cosine * current - below
    envelope = np.minimum(seconds / np.float32(attack_s), 1) * np.minimum(seconds[::-1] / np.float32(0.01), 1)
    if decay_s:
        envelope *= np.exp(-seconds / np.float32(decay_s))
    return np.asarray(tone * envelope, np.float32)


def render_drums(artist: Artist, rng: np.random.Generator, sample_rate_hz: int) -> tuple[Samples, Samples, Samples]:
    """The track's kick, snare and hat, each shape (num_samples,), float32."""
    kick_s = np.arange(int(0.22 * sample_rate_hz), dtype=np.float32) / sample_rate_hz
    sweep_hz = 50 * artist.drum_tuning * (1 + 2.5 * np.exp(-kick_s / 0.025))
    kick = np.sin(2 * np.pi * np.cumsum(sweep_hz) / sample_rate_hz) * np.exp(-kick_s / 0.08)
    snare_s = np.arange(int(0.15 * sample_rate_hz), dtype=np.float32) / sample_rate_hz
    body = np.sin(2 * np.pi * 190 * artist.drum_tuning * snare_s) * np.exp(-snare_s / 0.04)
    snare = 0.5 * body + 0.5 * rng.standard_normal(snare_s.size) * np.exp(-snare_s / 0.05)
    hat_s = np.arange(int(0.06 * sample_rate_hz), dtype=np.float32) / sample_rate_hz
    hat = np.diff(rng.standard_normal(hat_s.size + 2), n=2) * np.exp(-hat_s / 0.015) * 0.25
    return kick.astype(np.float32), snare.astype(np.float32), hat.astype(np.float32)


class Tape:
    """A track while it is being played: sounds are added at a time, what runs over the end is lost."""

    def __init__(self, num_samples: int, sample_rate_hz: int) -> None:
        self.samples = np.zeros(num_samples, np.float32)
        self.sample_rate_hz = sample_rate_hz

    def add(self, sound: Samples, at_s: float, gain: float) -> None:
        start = int(at_s * self.sample_rate_hz)
        if start < 0:
            sound, start = sound[-start:], 0
        room = max(min(sound.size, self.samples.size - start), 0)
        self.samples[start : start + room] += np.float32(gain) * sound[:room]


def degree_hz(degree: int, minor: bool, key: int, octave: int) -> float:
    """Frequency of a scale degree (0 is the tonic), equal temperament, A4 = 440 Hz."""
    scale = SCALES[minor]
    semitones = scale[degree % 7] + 12 * (degree // 7) + key
    return float(440.0 * 2 ** ((semitones - 9) / 12 + octave - 4))


def play_bar(
    tape: Tape, genre: Genre, artist: Artist, recording: Recording, rng: np.random.Generator, *,
    at_s: float, step_s: float, root: int, comp: str, lead: str, gains: dict[str, float],
    drums: tuple[Samples, Samples, Samples], melody: NDArray[np.int64],
) -> None:  # fmt: skip
    """One bar: drums, bass, chords and lead on the genre's grid."""

    def strikes(letter: str) -> bool:
        return letter == "x" or (letter == "o" and rng.random() < 0.5)

    def hz(degree: int, octave: int) -> float:
        return degree_hz(degree, genre.minor, artist.key + recording.semitones, octave)

    rate, bright = tape.sample_rate_hz, artist.brightness
    for pattern, drum, level in zip((genre.kick, genre.snare, genre.hat), drums, (1.0, 0.7, 0.4), strict=True):
        for step, letter in enumerate(pattern):
            if strikes(letter):
                tape.add(drum, at_s + step * step_s, gains["drums"] * level * rng.uniform(0.8, 1.1))
    for step, letter in enumerate(genre.bass):
        if letter != ".":
            degree = {"1": 0, "5": 4, "8": 7, "w": int(rng.choice([2, 3, 5]))}[letter]
            note = render_note(hz(root + degree, 2), 3 * step_s, "bass", bright, rate)
            tape.add(note, at_s + step * step_s, gains["bass"])
    chord: Samples | None = None
    for step, letter in enumerate(genre.comp):
        if strikes(letter):
            if genre.has_arpeggios:
                chord = render_note(hz(root + 2 * (step % 3), 5), genre.comp_steps * step_s, comp, bright, rate)
            elif chord is None:
                voices = [
                    render_note(hz(root + d, 4), genre.comp_steps * step_s, comp, bright, rate) for d in (0, 2, 4)
                ]
                chord = np.asarray(sum(voices), np.float32)
            tape.add(chord, at_s + step * step_s, gains["comp"])
    for step in range(0, len(genre.comp), genre.lead_grid):
        if rng.random() < genre.lead_density:
            degree = root + int(melody[step % melody.size])
            note = render_note(hz(degree, 5), genre.lead_grid * step_s * 1.2, lead, bright, rate)
            tape.add(note, at_s + step * step_s, gains["lead"])


def render_track(
    genre: int, artist: int, track: int, *, seed: int, duration_s: float, sample_rate_hz: int, traits: Traits = USUAL
) -> Samples:
    """One track of the corpus, shape (num_samples,), float32 within ±0.9; the same for the same numbers.

    Args:
        genre: row of `GENRES`.
        artist: number of the artist within the genre.
        track: number of the track within the artist.
        seed: seed of the corpus.
        duration_s: length, seconds.
        sample_rate_hz: sampling rate, Hz.
        traits: what the corpus can be told by.
    """
    style, recording = GENRES[genre], PLAIN
    hand = draw_artist(np.random.default_rng([seed, genre, artist]), traits.artist_strength)
    rng = np.random.default_rng([seed, genre, artist, track])
    # draws of their own, so that the others are those of a corpus without
    if traits.blend:
        style = take_elements(style, traits.blend, np.random.default_rng([seed, genre, artist, 0, 1]))
        style = take_elements(style, traits.blend, np.random.default_rng([seed, genre, artist, track, 2]))
    if traits.track_strength:
        recording = draw_recording(np.random.default_rng([seed, genre, artist, track, 3]), traits.track_strength)
    low_bpm, high_bpm = style.tempo_bpm
    tempo_bpm = low_bpm + (high_bpm - low_bpm) * float(np.clip(hand.tempo_at + rng.normal(0, 0.15), 0, 1))
    step_s = 60 / tempo_bpm / style.steps_per_beat
    progression = style.chords[int(rng.integers(len(style.chords)))]
    gains = {
        "drums": style.drums_gain * 10 ** ((hand.drums_db + rng.normal(0, 2)) / 20) * (rng.random() > 0.06),
        "bass": 0.6 * 10 ** ((hand.mix_db[0] + rng.normal(0, 1)) / 20),
        "comp": 0.22 * 10 ** ((hand.mix_db[1] + rng.normal(0, 1)) / 20),
        "lead": 0.3 * 10 ** ((hand.mix_db[2] + rng.normal(0, 1)) / 20) * (rng.random() > 0.2),
    }
    tape = Tape(int(duration_s * sample_rate_hz), sample_rate_hz)
    bar_s = step_s * len(style.comp)
    at_s = -float(rng.uniform(0, bar_s))  # excerpts start anywhere in a bar
    comp, lead = (
        str(rng.choice(names)) if rng.random() < 0.15 else names[int(at * len(names))]
        for names, at in ((style.comp_with, hand.comp_at), (style.lead_with, hand.lead_at))
    )
    drums = render_drums(hand, rng, sample_rate_hz)
    melody = rng.integers(0, 8, 16)
    bar = int(rng.integers(len(progression)))
    while at_s < duration_s:
        play_bar(
            tape, style, hand, recording, rng, at_s=at_s, step_s=step_s, root=progression[bar % len(progression)],
            comp=comp, lead=lead, gains=gains, drums=drums, melody=melody,
        )  # fmt: skip
        at_s, bar = at_s + bar_s, bar + 1
    return produce(tape.samples, hand, recording, rng, sample_rate_hz)


class Piece(NamedTuple):
    """One track of a corpus, before it is rendered."""

    path: str
    label: str
    artist: str
    numbers: tuple[int, int, int]  # genre, artist, track


def list_corpus(num_artists: int, tracks_per_artist: int, ending: str = "wav") -> list[Piece]:
    """All tracks of a corpus: <label>/<artist>-<track>.<ending>."""
    return [
        Piece(
            f"{genre.name}/{genre.name}-{artist:03d}-{track:02d}.{ending}",
            genre.name,
            f"{genre.name}-{artist:03d}",
            (number, artist, track),
        )
        for number, genre in enumerate(GENRES)
        for artist in range(num_artists)
        for track in range(tracks_per_artist)
    ]
