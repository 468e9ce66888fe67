"""AAC in MPEG-4 files, which libsndfile does not read: by torchcodec, where that and its FFmpeg are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENDINGS = frozenset((".m4a", ".mp4", ".m4b", ".aac"))


class M4aFile:
    """M4A reader with the part of the interface of soundfile.SoundFile that decoding uses.

    Raises:
        RuntimeError: torchcodec is missing, or cannot read the file.
    """

    format = subtype = "AAC"
    extra_info = ""

    def __init__(self, path: Path) -> None:
        try:
            from torchcodec.decoders import AudioDecoder
        except (ImportError, OSError, RuntimeError) as error:
            raise RuntimeError(f"{path.suffix} needs torchcodec and FFmpeg: pip install torchcodec") from error
        self._decoder: Any = AudioDecoder(path)
        facts = self._decoder.metadata
        self.samplerate, self.channels = int(facts.sample_rate), int(facts.num_channels)
        self.frames = round(float(facts.duration_seconds) * self.samplerate)
        self._at = 0

    def seek(self, at: int) -> None:
        """Make `at` the next frame."""
        self._at = at

    def read(self, *, out: NDArray[Any]) -> NDArray[Any]:
        """Fill `out`, shape (num, channels), or as much of it as there is left."""
        # between two samples, so that rounding of seconds moves neither end
        start_s, stop_s = ((at - 0.5) / self.samplerate for at in (self._at, self._at + len(out)))
        data = self._decoder.get_samples_played_in_range(max(start_s, 0.0), stop_s).data.numpy().T
        num = min(len(data), len(out))
        out[:num] = data[:num].astype(np.float32)
        self._at += num
        return out[:num]

    def close(self) -> None:
        """The decoder closes the file when nobody holds it."""
        del self._decoder
