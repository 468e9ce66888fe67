"""The keys of conf/benchmark/: what every suite of benchmarks takes."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    repetitions: int = key("how often each row is timed; from 6 on, intervals reach 95 %", low=1)
    num_clips: int = key("clips for the whole pipeline; 20 for a quick look", low=1)
    peer_clips: int = key("clips for librosa's pipeline, which is slower; figures are per clip", low=1)
    clip_s: float = key("length of a clip, seconds", low=1, high=600)
    engines: tuple[int, ...] = key("numbers of ipyparallel engines", low=1, high=4096)
    formats: tuple[str, ...] = key(
        "encodings on one core; wav22 is mono at 22 050 Hz, the others stereo at 44 100 Hz",
        low=1, choices=("wav22", "wav44", "mp3", "flac"),
    )  # fmt: skip
    batch: int = key("training: samples a step, over all ranks", low=2, high=1024)
    seconds: float = key(
        "training, also of tables: about how long each row is timed in a repetition, seconds", low=0.01, high=3600
    )
    rows: tuple[str, ...] = key("training, svm and tables: only these rows; [] for all")
    sizes: tuple[str, ...] = key("svm: problems, rows x features", low=1)
    cut_s: float = key("svm: a row that takes longer is cut, seconds", low=1)
    listens: int = key("tables: rows of train.csv", low=2000, high=500_000_000)
    clients: int = key("serve: clients at a time", low=1, high=1024)
    posts: int = key("serve: clips that they post, together, in each measurement", low=1)
    batches: tuple[int, ...] = key(
        "serve: values of serve.max_batch; the others are compared with the first", low=1, high=4096
    )
    seed: int = key("seed of what is worked on and of the order of the rows", low=0)
