"""Where the time goes: a clock that is always on."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds spent under each of a few names, on this rank."""

    def __init__(self, *names: str) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap under `name`."""
        now = time.perf_counter()
        self.seconds[name] += now - self._since
        self._since = now
