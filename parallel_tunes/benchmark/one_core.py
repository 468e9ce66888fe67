"""Rows on one core: one clip after the other in this process, one thread, in several encodings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import to_float
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.benchmark import peers
from parallel_tunes.benchmark.clips import ENCODINGS, MAX_BYTES, Clips
from parallel_tunes.benchmark.suite import Cell
from parallel_tunes.config import FeaturesConfig

FULL = "wav22"  # the encoding that is taken apart
MONO, STEREO = "one_core_mono", "one_core_stereo"
GROUPS = {MONO: "One core, WAV at 22 050 Hz, mono", STEREO: "One core, stereo at 44 100 Hz"}
PASSES = {"peer": (2, 1), "ours": (8, 2), "part": (8, 2)}  # over the sounds: of FULL, of the others


@dataclass(frozen=True)
class OneCore:
    """These rows, of these files."""

    clips: Clips
    features: FeaturesConfig

    def list_cells(self) -> Iterator[Cell]:
        """For each encoding librosa, ours and our decoding; for one of them torchaudio and the kernels too."""
        extract = partial(front_end.extract, features=self.features, max_bytes=MAX_BYTES)
        load = partial(front_end.load, features=self.features, max_bytes=MAX_BYTES)
        find_levels = partial(peers.find_levels, features=self.features)
        for name, paths in self.clips.encoded.items():
            of = "" if name == FULL else f", {ENCODINGS[name].form.upper()}"
            yield _cell(f"librosa_{name}", f"librosa{of}", "peer", find_levels, paths)
            if name == FULL and (compute := peers.make_torchaudio(self.features)):
                yield _cell(f"torchaudio_{name}", "torchaudio", "peer", compute, paths)
            yield _cell(f"ours_{name}", f"ours{of}", "ours", extract, paths)
            yield _cell(f"decode_{name}", f"of that decoding, checks, hash{of}", "part", load, paths)
            if name == FULL:
                yield from self._take_apart([load(path) for path in paths])

    def _take_apart(self, sources: list[front_end.Source]) -> Iterator[Cell]:
        """Spectrograms of samples in memory."""
        transform = partial(front_end.transform, features=self.features)
        yield _cell(f"kernel_{FULL}", "of that the spectrogram", "part", transform, sources)
        samples = [to_float(source.samples) for source in sources if source.samples is not None]
        compute = partial(peers.transform, features=self.features)
        yield _cell(f"librosa_kernel_{FULL}", "librosa, the spectrogram alone", "peer", compute, samples)

    def find_differences(self) -> dict[str, float]:
        """The largest differences from librosa over all clips: of the float16 that shards hold, and of the kernel's float32."""
        found = dict[str, float]()

        def note(name: str, ours: Any, theirs: Any) -> None:
            found[name] = round(max(found.get(name, 0.0), float(np.abs(ours - theirs).max())), 6)

        for name, paths in self.clips.encoded.items():
            for path in paths:
                clip = front_end.extract(path, self.features, max_bytes=MAX_BYTES)
                theirs = peers.find_levels(path, features=self.features, gain=1 / clip.source.peak)
                note(name, clip.frames.T.astype(np.float32), theirs)
                if name == FULL and clip.source.samples is not None:
                    samples = to_float(clip.source.samples) * np.float32(1 / clip.source.peak)
                    note(f"{name}_float32", log_mel(samples, **_settings(self.features)), theirs)
        return found


def _settings(features: FeaturesConfig) -> dict[str, Any]:
    names = ("sample_rate_hz", "n_fft", "hop_length", "num_mels", "fmin_hz", "fmax_hz", "mel_scale", "top_db")
    return {name: getattr(features, name) for name in names}


def _cell(name: str, what: str, kind: str, work: Callable[[Any], object], inputs: Sequence[Any]) -> Cell:
    """Work on each input, over and over, for long enough to be timed."""
    group = MONO if name.endswith(FULL) else STEREO
    passes = PASSES[kind][0 if group == MONO else 1]

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(passes):
            for each in inputs:
                work(each)
        return time.perf_counter() - began

    return Cell(name, what, group, kind, passes * len(inputs), measure, one_thread=True)
