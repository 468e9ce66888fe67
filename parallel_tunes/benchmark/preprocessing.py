"""The suite `preprocess`: from audio files to log-mel spectrograms, beside librosa and torchaudio."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from parallel_tunes import files
from parallel_tunes.benchmark import gpu, one_core, pipeline
from parallel_tunes.benchmark.clips import ENCODINGS, write_clips
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.config import BenchmarkJob, FeaturesConfig
from parallel_tunes.config_benchmark import BenchmarkConfig
from parallel_tunes.run import Run
from parallel_tunes.schema import build, defaults

FOLDER = "clips-"  # of the files, within the run's; removed at the end
METHOD = (
    "Every repetition times each row once, in a new random order, after a first round that is not kept.",
    "A figure is the median over the repetitions, a ratio the median of the ratios within each repetition;"
    " intervals are order statistics, which assume no distribution.",
    "Rows on one core run with one thread in torch, BLAS and OpenMP, the others with what they take by themselves;"
    " engines have one each.",
    "All files lie in the page cache.",
    "librosa: load, melspectrogram, power_to_db; its pipeline writes a float16 .npy for each clip, which is not flushed."
    " Ours writes what `ptunes preprocess` does: hashes, checks, shards with checksums flushed to disk, an index.",
    "“Start counted” is from nothing until the engines are gone; librosa's is measured on its fewer clips, and the rest"
    " added at the speed without the start.",
)


@contextlib.contextmanager
def open_suite(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """The suite, on files that are there and engines that stay up until the block ends.

    Args:
        machine: names where this runs.
    """
    settings, notes = cfg.benchmark, list[str]()
    values = defaults("features", "logmel") | {"clip_s": settings.clip_s}
    features: FeaturesConfig = build(FeaturesConfig, values, "features.")
    for left in run.folder.glob(FOLDER + "*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=FOLDER, dir=run.folder) as folder, contextlib.ExitStack() as ending:
        clips = write_clips(settings, cfg.data, Path(folder), run.progress)
        on_core = one_core.OneCore(clips, features)
        cells = list[Cell](on_core.list_cells())
        if "wav22" in settings.formats and "torchaudio_wav22" not in {cell.name for cell in cells}:
            notes.append("torchaudio is not installed: its row is left out.")
        cells += pipeline.Pipeline(settings, clips, features, Path(folder), ending).list_cells()
        if not torch.cuda.is_available():
            notes.append("No GPU here: its row is left out.")
        elif "wav22" in settings.formats:
            cells += gpu.list_cells(clips.encoded["wav22"], features)
        names = {cell.name for cell in cells}
        yield Suite(
            unit="clip",
            groups=one_core.GROUPS | pipeline.GROUPS | gpu.GROUPS,
            cells=tuple(cells),
            comparisons=tuple(each for each in list_comparisons(settings) if {each.slow, each.fast} <= names),
            method=(*METHOD, f"The clips, {settings.clip_s:g} s each, are made of {clips.source}."),
            notes=tuple(notes),
            key=files.digest_json({**machine, "sounds": clips.digest, "cells": sorted(names)})[:16],
            examine=lambda _: {"agreement_db": on_core.find_differences()},
        )


def list_comparisons(cfg: BenchmarkConfig) -> Iterator[Comparison]:
    """List the comparisons; those of which a cell is missing are left out later."""
    yield Comparison("logmel_vs_librosa_1core", "one core: ours against librosa", "librosa_wav22", "ours_wav22")
    yield Comparison(
        "logmel_vs_torchaudio_1core", "one core: ours against torchaudio", "torchaudio_wav22", "ours_wav22"
    )
    what = "one core: our spectrogram alone against librosa's"
    yield Comparison("kernel_vs_librosa_1core", what, "librosa_kernel_wav22", "kernel_wav22")
    for form in ("wav44", "mp3", "flac"):
        what = f"one core: ours against librosa, {ENCODINGS[form].form.upper()} in stereo at 44 100 Hz"
        name = f"stereo_{ENCODINGS[form].form}_vs_librosa_1core"
        yield Comparison(name, what, f"librosa_{form}", f"ours_{form}")
    for num in dict.fromkeys(cfg.engines):
        if num != 1:
            what = f"our pipeline, start not counted: {num} engines against 1"
            yield Comparison(f"engines_{num}_vs_1", what, "ours_engines_1", f"ours_engines_{num}")
    most = max(cfg.engines)
    on, ours = f"our pipeline on {most} engine{'s' if most > 1 else ''}", f"ours_engines_{most}"
    serial = "librosa in one process"
    what = f"{on}, start not counted, against {serial}"
    yield Comparison("pipeline_vs_librosa_serial", what, "librosa_serial", ours)
    what = f"{on}, start counted, against {serial}"
    yield Comparison("pipeline_vs_librosa_serial_with_start", what, "librosa_serial", f"{ours}_start")
    what = f"{on} against librosa on as many, start not counted"
    yield Comparison("pipeline_vs_librosa_engines", what, f"librosa_engines_{most}", ours)
    what = f"our pipeline in one process against {serial}"
    yield Comparison("serial_vs_librosa_serial", what, "librosa_serial", "ours_serial")
    what = f"our pipeline with parallel.engines=auto against {serial}"
    yield Comparison("auto_vs_librosa_serial", what, "librosa_serial", "ours_auto")
    what = "our pipeline: parallel.engines=auto against one process"
    yield Comparison("auto_vs_serial", what, "ours_serial", "ours_auto")
    what = "our spectrogram alone: on the GPU against one core"
    yield Comparison("gpu_vs_1core", what, "kernel_wav22", "ours_gpu")
