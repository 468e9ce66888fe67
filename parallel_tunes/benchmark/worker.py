"""python -m parallel_tunes.benchmark.worker ROW WORD …: the process of a row, which trains in steps as it is told.

The row `ours` is the door itself with the words that follow, `train key=value …` say: a whole training with its run folder,
checkpoints, evaluations and reports, held at each epoch's progress bar. The others are loops of their own.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from parallel_tunes.benchmark import loops
from parallel_tunes.benchmark.hold import HeldBar, Hold, take_pipes
from parallel_tunes.benchmark.tracks import read_tracks
from parallel_tunes.run import Run


def hold_door(hold: Hold, words: Sequence[str]) -> None:
    """Run the door in this process, its bars that count steps held."""
    show = Run.progress

    def show_held(self: Run, title: str, total: int, unit: str = " tracks", done: int = 0) -> tqdm[Any]:
        bar = show(self, title, total, unit, done)
        return cast("tqdm[Any]", HeldBar(bar, hold)) if unit == " steps" else bar

    # the method is replaced on purpose, for this process alone, so that the training itself knows of no benchmark
    Run.progress = show_held  # type: ignore[method-assign]
    sys.argv = ["ptunes", *words]
    runpy.run_module("parallel_tunes", run_name="__main__", alter_sys=True)


def main(argv: Sequence[str]) -> None:
    """Train until the lines end."""
    row, *words = argv
    hold = take_pipes()
    if row == "ours":
        hold_door(hold, words)
    else:
        folder, batch = words
        tracks, labels = read_tracks(Path(folder))
        loops.LOOPS[row](loops.Work(tracks, labels, int(batch)), hold)


if __name__ == "__main__":
    main(sys.argv[1:])
