"""What a figure depends on besides the code: the machine, its software, and who else is at work there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
from collections.abc import Iterator
from typing import Any

import psutil
import soundfile

from parallel_tunes.parallel.processor import cpu_model
from parallel_tunes.run import git_revision, versions

PEERS = ("torchaudio", "scikit-learn", "threadpoolctl", "lightning", "accelerate")
BUSY = 0.03  # share of a core with others, from which on figures are not to be trusted


def describe() -> dict[str, Any]:
    """The machine and its software; the same whenever the same figures may be expected."""
    found = versions() | {"libsndfile": soundfile.__libsndfile_version__}
    for package in PEERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "versions": found,
        "git": git_revision(),
    }


def warn_if_busy(taken: float) -> str | None:
    """A line about others at work, if there are.

    Args:
        taken: share of the measurements' time that the cores were with others.
    """
    if taken <= BUSY:
        return None
    return (
        f"others were at work here, and took {100 * taken:.0f} % of the cores: measure again when the machine is idle"
    )


def busy_s() -> float:
    """CPU time that all processes of this machine, and other guests of its host, have taken until now, seconds."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for whatever computes in here: torch, BLAS and OpenMP."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # scikit-learn brings it; it knows BLAS and OpenMP, whatever library they come from
        limits = importlib.import_module("threadpoolctl").threadpool_limits(1)
    except ImportError:
        limits = contextlib.nullcontext()
    try:
        with limits:
            yield
    finally:
        torch.set_num_threads(before)
