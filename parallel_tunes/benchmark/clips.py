"""The files that a benchmark works on: the same sounds in several encodings, and many slightly different clips of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio.decode import AudioError, decode
from parallel_tunes.config import DataConfig
from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.data import encoding, index, synthetic
from parallel_tunes.schema import UserError

NUM_SOUNDS = 10
MAX_BYTES = 2 << 30
RATE_HZ, HALF_RATE_HZ = 44100, 22050
LOUDEST = 0.9  # leaves room for the side signal of stereo


class Encoding(NamedTuple):
    """How a sound is written: one of `encoding.FORMATS`, its sampling rate and its channels."""

    form: str
    sample_rate_hz: int
    channels: int


ENCODINGS = {
    "wav22": Encoding("wav", HALF_RATE_HZ, 1),
    "wav44": Encoding("wav", RATE_HZ, 2),
    "mp3": Encoding("mp3", RATE_HZ, 2),
    "flac": Encoding("flac", RATE_HZ, 2),
}


@dataclass(frozen=True)
class Clips:
    """Where the files are.

    Args:
        encoded: for each encoding the same sounds, each in a file.
        tree: <label>/<clip>.wav, 22 050 Hz, mono: what the whole pipeline works on.
        paths: the files in `tree`.
        digest: names the sounds.
        source: what they are, in words.
    """

    encoded: dict[str, tuple[Path, ...]]
    tree: Path
    paths: tuple[Path, ...]
    digest: str
    source: str


def write_clips(
    cfg: BenchmarkConfig, data: DataConfig, folder: Path, progress: Callable[[str, int], Any]
) -> Clips:  # fmt: skip
    """Write all files below `folder`; the same each time for the same config.

    Args:
        progress: called with a title and a number of files; gives a context manager with `update(n)`.

    Raises:
        UserError: `data.root` has no track that can be read.
    """
    sounds, source = _read_sounds(data, cfg.clip_s) if data.root else _render_sounds(cfg)
    halves = [soxr.resample(sound, RATE_HZ, HALF_RATE_HZ) for sound in sounds]
    wanted = {name: ENCODINGS[name] for name in cfg.formats}
    with progress("clips", len(wanted) * len(sounds) + cfg.num_clips) as bar:
        encoded = {}
        for name, how in wanted.items():
            (folder / name).mkdir(parents=True)
            at_rate = sounds if how.sample_rate_hz == RATE_HZ else halves
            write = partial(_write_sound, how, folder / name, lambda: bar.update(1))
            with ThreadPoolExecutor(2, thread_name_prefix="encoder") as workers:  # MP3 takes a second a sound
                encoded[name] = tuple(workers.map(write, range(len(sounds)), at_rate))
        paths = []
        for number in range(cfg.num_clips):
            path = folder / "tree" / f"label-{number % 10}" / f"clip-{number:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            clip = _vary(halves[number % len(halves)], [cfg.seed, number])
            path.write_bytes(encoding.encode(clip, "wav", HALF_RATE_HZ))
            paths.append(path)
            bar.update(1)
    digest = files.digest_json([files.digest_bytes(sound.tobytes()) for sound in sounds])
    return Clips(encoded, folder / "tree", tuple(sorted(paths)), digest, source)


def _render_sounds(cfg: BenchmarkConfig) -> tuple[list[NDArray[np.float32]], str]:
    """A synthetic track of each genre, as many as there are clips for."""
    num = min(NUM_SOUNDS, cfg.num_clips)
    render = partial(synthetic.render_track, seed=cfg.seed, duration_s=cfg.clip_s, sample_rate_hz=RATE_HZ)
    return [render(genre, 0, 0) for genre in range(num)], f"{num} synthetic tracks of different genres"


def _read_sounds(data: DataConfig, clip_s: float) -> tuple[list[NDArray[np.float32]], str]:
    """The beginnings of some tracks of a data set, evenly spread over it; shorter ones are repeated."""
    tracks, root = index.scan(data)
    sounds = []
    for row in dict.fromkeys(np.linspace(0, len(tracks) - 1, 2 * NUM_SOUNDS).astype(int).tolist()):
        try:
            path = root / tracks["path"].iloc[row]
            sound, _ = decode(path, sample_rate_hz=RATE_HZ, first_s=clip_s, max_bytes=data.max_mib << 20)
        except AudioError:
            continue
        whole = np.resize(sound, int(clip_s * RATE_HZ))
        sounds.append(np.asarray(whole * (LOUDEST / max(float(np.abs(whole).max()), LOUDEST)), np.float32))
    if not sounds:
        raise UserError(f"data.root={data.root}: none of the tracks tried can be read; `ptunes preprocess` says why")
    spread = sounds[:: max(len(sounds) // NUM_SOUNDS, 1)][:NUM_SOUNDS]
    return spread, f"the beginnings of {len(spread)} tracks of data.root={data.root}"


def _write_sound(
    how: Encoding, folder: Path, advance: Callable[[], object], number: int, mono: NDArray[np.float32]
) -> Path:  # fmt: skip
    samples = mono if how.channels == 1 else encoding.widen(mono, (0, number), how.sample_rate_hz)
    path = folder / f"{number:02d}.{how.form}"
    path.write_bytes(encoding.encode(np.clip(samples, -1, 1), how.form, how.sample_rate_hz))
    advance()
    return path


def _vary(sound: NDArray[np.float32], numbers: list[int]) -> NDArray[np.float32]:
    """The same sound from another point on and at another level: other bytes, the same work."""
    rng = np.random.default_rng(numbers)
    shifted = np.roll(sound, int(rng.integers(sound.size)))
    return np.asarray(np.clip(shifted * np.float32(rng.uniform(0.5, 1.0)), -1, 1), np.float32)
