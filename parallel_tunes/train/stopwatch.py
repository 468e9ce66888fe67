"""Where the time goes: a clock that is always on."""

from __future__ import annotations

import time
from typing import Any

from parallel_tunes.parallel.mesh import Mesh


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


def describe_cost(watch: Stopwatch, mesh: Mesh) -> dict[str, Any]:
    """For reports: what the rank that took most of each took; all ranks call it."""
    return {
        "time_s": {name: round(mesh.largest(seconds), 3) for name, seconds in watch.seconds.items()},
        "peak_memory_mib": round(mesh.largest(mesh.peak_memory_mib), 1),
    }
