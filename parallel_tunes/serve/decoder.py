"""python -m parallel_tunes.serve.decoder LIMITS: the process that decodes uploads, and that may die of one.

LIMITS is JSON: `features`, and `max_bytes`, `max_s`, `memory_bytes`, `cpu_s` of a file. A line of JSON names the files to
read and to write, by the server's descriptors of them, for they have no names; the answer says how many frames were
written, or why there are none.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.config import FeaturesConfig

MARGIN = 1 << 20  # bytes of a result beyond its frames
LEVEL = np.dtype(np.float16)  # of a result


def most_bytes(features: FeaturesConfig, max_s: float) -> int:
    """How large the result of a file can be."""
    num_frames = max(max_s * front_end.frames_per_s(features), features.picture_frames or 0)
    return int(num_frames * features.num_mels * LEVEL.itemsize) + MARGIN


def warm_up(features: FeaturesConfig) -> None:
    """Load what decoding needs, before memory is counted."""
    if features.kind == "picture":
        return
    rate_hz = features.sample_rate_hz
    # samples that are taken as they are, and such as are decoded, mixed and resampled
    for container, factor in (("WAV", 1), ("WAV", 2), ("OGG", 2)):
        noise = 0.1 * np.random.default_rng(0).standard_normal((int(factor * rate_hz * max(features.min_s, 1)), factor))
        with tempfile.NamedTemporaryFile() as stream:
            soundfile.write(stream, noise, factor * rate_hz, format=container)
            stream.flush()
            front_end.extract(Path(stream.name), features, max_bytes=sys.maxsize)


def limit(features: FeaturesConfig, limits: Mapping[str, Any]) -> None:
    """Bound what this process can take from the machine; decoders' chatter about bad files goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bounds = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + limits["memory_bytes"],
        resource.RLIMIT_FSIZE: most_bytes(features, limits["max_s"]),
        resource.RLIMIT_CORE: 0,
    }
    for which, bound in bounds.items():
        resource.setrlimit(which, (bound, bound))


def allow_cpu(seconds: int) -> None:
    """End this process, by SIGXCPU, when it has worked for so long from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + 1 + seconds, hard))


def decode(order: Mapping[str, str], features: FeaturesConfig, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Write the frames of a file, shape (num_frames, num_mels); their number and the file's duration, or why there are none."""
    try:
        clip = front_end.extract(Path(order["source"]), features, max_bytes=limits["max_bytes"], max_s=limits["max_s"])
        with Path(order["target"]).open("wb") as stream:
            stream.write(np.ascontiguousarray(clip.frames, LEVEL).data)
    except AudioError as error:
        return {"kind": type(error).__name__, "reason": str(error)}
    except MemoryError:
        return {"kind": "MemoryError", "reason": "decoding it takes more memory than a file is allowed"}
    return {"num_frames": len(clip.frames), "duration_s": clip.source.duration_s, "note": clip.source.note}


def main(argv: Sequence[str]) -> None:
    """Decode until the lines end."""
    limits = json.loads(argv[0])
    features = front_end.restore(limits["features"])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    warm_up(features)
    limit(features, limits)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {"ready": True}
        if order:
            allow_cpu(limits["cpu_s"])
            answer = decode(order, features, limits)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
