"""The seed projects' preprocessing, as a process of its own: librosa, one file after the other, one .npy a clip.

`python -m parallel_tunes.benchmark.serial FILE`: FILE names the tracks and the features, and takes what was measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from parallel_tunes import files
from parallel_tunes.benchmark.peers import PeerTask, find_levels, save_levels
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.schema import build


def main(path: Path) -> None:
    """Transform the tracks that a file names; how many and how long is written into it, beside them."""
    task = json.loads(path.read_text())
    features: FeaturesConfig = build(FeaturesConfig, task["features"], "features.")
    tracks = [Path(track) for track in task["tracks"]]
    find_levels(tracks[0], features)  # imports and compiles
    began = time.perf_counter()
    failed = []
    for track in tracks:
        try:
            save_levels(PeerTask(track, path.parent, features), lambda _: None)
        except Exception as error:  # whatever librosa raises of a bad file
            failed.append({"path": str(track), "reason": f"{type(error).__name__}: {error}"})
    found = {"num_tracks": len(tracks) - len(failed), "failed": failed, "seconds": time.perf_counter() - began}
    files.write_json(path, {**task, **found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
