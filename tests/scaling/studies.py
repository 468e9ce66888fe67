"""Metrics of scaling studies, made by hand."""

from __future__ import annotations

from typing import Any

from parallel_tunes.scaling.advice import advise

Plain = dict[str, Any]


def around(median: float, spread: float = 0.01) -> dict[str, float]:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def cell(
    gpus: int,
    rate: float,
    *,
    batch: int = 64,
    precision: str = "bf16",
    one: float | None = 100.0,
    spread: float = 0.01,
    **other: Any,
) -> Plain:
    """A cell of `rate` samples/s whose training is of 360,000 samples; `one` is the rate of its baseline."""
    gain = rate / one if one else 0.0
    seconds = 360_000 / rate
    return {
        "name": f"gpus{gpus}-batch{batch}-{precision}",
        "gpus": gpus,
        "batch": batch,
        "global_batch": batch,
        "precision": precision,
        "ddp": gpus > 1,
        "status": "ok",
        "reason": None,
        "n": 5,
        "is_stable": True,
        "samples_per_s": around(rate, spread),
        "baseline": f"gpus1-batch{batch}-{precision}" if one and gpus > 1 else None,
        "speedup": around(gain, spread) if one and gpus > 1 else None,
        "efficiency": around(gain / gpus, spread) if one and gpus > 1 else None,
        "split": {
            "data": 2.0,
            "compute": 80.0,
            "communication": 10.0 * (gpus > 1),
            "evaluation": 8.0,
            "checkpoint": 0.0,
        },
        "epoch_s": around(seconds / 40, spread),
        "train_s": around(seconds, spread),
        "gpu_hours": around(seconds * gpus / 3600, spread),
        "peak_memory_mib": [512.0],
        **other,
    }


def broken(gpus: int, status: str, **other: Any) -> Plain:
    nothing = dict.fromkeys(
        ["samples_per_s", "speedup", "efficiency", "epoch_s", "train_s", "gpu_hours", "split", "baseline"]
    )
    return cell(gpus, 1.0) | nothing | {"status": status, "n": 0, "peak_memory_mib": []} | other


def study(*cells: Plain, **other: Any) -> Plain:
    return {
        "mode": "strong", "unit": "GPU", "quick": False, "num_launches": 5, "num_epochs": 40, "target": None,
        "missing": [], "cells": list(cells), "noise_scale": [],
    } | other  # fmt: skip


def said(metrics: Plain, *starts: str) -> str:
    """The one sentence that starts like this, in any case but that of its first letter."""
    (found,) = [sentence for sentence in advise(metrics) if sentence.startswith(starts)]
    return found
