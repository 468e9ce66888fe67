"""What a rank runs on: its machine's processors, memory nodes and GPUs, how fast they are clocked and how they are linked."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from parallel_tunes.parallel.processor import cpu_model

if TYPE_CHECKING:
    import torch

SYSTEM = Path("/sys/devices/system")
PATIENCE_S = 30


def describe(num_threads: int) -> dict[str, Any]:
    """This machine as this process sees it; None for what cannot be told.

    Args:
        num_threads: that a rank computes with.
    """
    cores = sorted(os.sched_getaffinity(0))
    frequency = psutil.cpu_freq()
    return {
        "host": os.environ.get("SLURMD_NODENAME") or platform.node(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cores_a_rank": len(cores),
        "threads": num_threads,
        "mhz": round(frequency.current) if frequency else None,
        "sockets": _count("cpu/cpu*/topology/physical_package_id"),
        "threads_a_core": _threads_a_core(cores[0]),
        "numa_nodes": len(list(SYSTEM.glob("node/node[0-9]*"))) or None,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": list_gpus(),
        "links": _links(),
    }


def _count(pattern: str) -> int | None:
    """How many different values some files of the system hold."""
    values = set()
    for path in SYSTEM.glob(pattern):
        with contextlib.suppress(OSError):
            values.add(path.read_text().strip())
    return len(values) or None


def _threads_a_core(core: int) -> int | None:
    with contextlib.suppress(OSError):
        siblings = (SYSTEM / f"cpu/cpu{core}/topology/thread_siblings_list").read_text()
        spans = [re.findall(r"\d+", part) for part in siblings.split(",")]
        return sum(int(span[-1]) - int(span[0]) + 1 for span in spans if span)
    return None


def list_gpus() -> list[dict[str, Any]]:
    """The GPUs that torch sees: name, memory and, where NVML tells them, clocks."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        gpu: dict[str, Any] = {"name": facts.name, "memory_gib": round(facts.total_memory / 2**30, 1), "mhz": None}
        with contextlib.suppress(Exception):  # NVML is not there, or may not be asked: whatever it raises
            gpu["mhz"] = torch.cuda.clock_rate(number)
        found.append(gpu)
    return found


def _links() -> str | None:
    """How GPUs and network cards are linked, as nvidia-smi draws it."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ["nvidia-smi", "topo", "-m"]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    return None


def read_joules(device: torch.device) -> float | None:
    """Energy that a GPU has taken since its driver was loaded, joules, where NVML counts it (Volta and later)."""
    if device.type != "cuda":
        return None
    import pynvml
    import torch

    with contextlib.suppress(pynvml.NVMLError, ValueError, RuntimeError):
        pynvml.nvmlInit()
        # CUDA may number GPUs otherwise, and sees only those of this job
        number = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{number}".encode())
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None
