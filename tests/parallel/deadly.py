"""Work that kills the engine which does it, at files named `poison`: what a decoder's crash looks like from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from parallel_tunes import shard_work
from parallel_tunes.audio import front_end
from parallel_tunes.data.shards import Shard
from parallel_tunes.parallel.dispatch import Advance
from parallel_tunes.serve import answering

load = front_end.load


def load_or_die(path: Path, *words: Any, **settings: Any) -> front_end.Source:
    if path.stem == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return load(path, *words, **settings)


def make_shard(task: shard_work.ShardTask, advance: Advance) -> Shard:
    front_end.load = load_or_die
    return shard_work.make_shard(task, advance)


def answer(task: answering.AnswerTask, advance: Advance) -> answering.Answered:
    front_end.load = load_or_die
    return answering.answer(task, advance)
