"""Rows of studies whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from parallel_tunes.scaling.results import Row

MACHINE = {"host": "n1", "cpu": "a processor", "cores": 8, "cores_a_rank": 1, "threads": 1, "gpus": []}


def make_row(gpus: int, step_s: float, launch: int, **more: Any) -> Row:
    """A launch of three windows, each of `step_s`, which shares gradients for a tenth of it."""
    batch = more.get("batch", 64)
    whole = more.get("global_batch", batch)
    ddp = more.get("ddp", gpus > 1)
    name = f"gpus{gpus}-batch{batch}" + ("-ddp" if ddp and gpus == 1 else "")
    usual = {
        "cell": name, "kind": "train", "launch": launch, "status": "ok", "reason": None, "seconds": 20.0,
        "gpus": gpus, "batch": batch, "global_batch": whole, "precision": "auto", "precision_used": "fp32", "ddp": ddp,
        "step_s": [step_s] * 3, "samples_per_s": [whole / step_s] * 3, "bare_step_s": [0.9 * step_s] * 3 if ddp else [],
        "data_s": [0.01 * step_s] * 3, "norm_s": [0.02 * step_s] * 3, "agree_s": [0.01 * step_s] * 3,
        "is_stable": True, "num_steps": 100, "first_steps_s": 1.5, "compile_s": None, "setup_s": 5.0, "eval_s": 2.0,
        "checkpoint_s": 0.1, "peak_memory_mib": [500.0 + rank for rank in range(gpus)], "joules_a_sample": None,
        "target_s": None, "target_epochs": None, "num_epochs": 1, "machines": json.dumps([MACHINE]),
        "versions": json.dumps({"torch": "2.13.0"}), "git": "abc", "device": "cpu (1 thread a rank)",
    }  # fmt: skip
    return usual | more


def make_study(serial_share: float = 0.1, launches: int = 5, noise: float = 0.01, **more: Any) -> list[Row]:
    """1, 2 and 4 GPUs by Amdahl's law, of which one takes 0.4 s a step; a round is slower than another by the same factor."""
    rng = np.random.default_rng(0)
    rows = []
    for launch in range(launches):
        drift = np.exp(0.1 * rng.standard_normal())
        for gpus in (1, 2, 4):
            truth = 0.4 * (serial_share + (1 - serial_share) / gpus)
            rows.append(make_row(gpus, float(truth * drift * np.exp(noise * rng.standard_normal())), launch, **more))
    return rows


def make_failure(row: Row, status: str, reason: str, **more: Any) -> Row:
    """The same launch, come to nothing."""
    kept = ("cell", "kind", "launch", "gpus", "batch", "global_batch", "precision", "ddp")
    return {name: row[name] for name in kept} | {"status": status, "reason": reason, "peak_memory_mib": []} | more
