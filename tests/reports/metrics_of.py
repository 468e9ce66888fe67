"""Scaling studies as they are found, for the tests of their reports."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.text import Text

from parallel_tunes.reports.scaling.look import Picture

Facts = dict[str, Any]
NASTY = '<b>&"{{ 7*7 }} 100%_$\\x{#~^|`'


def texts(picture: Picture | None) -> list[str]:
    """Every text of a figure, of its legends too."""
    assert picture is not None
    found = picture.drawing.findobj(Text)
    plt.close(picture.drawing)
    return [text.get_text() for text in found if isinstance(text, Text) and text.get_text()]


def interval(median: float, share: float = 0.03) -> Facts:
    """A median whose interval reaches this share to either side."""
    return {"median": median, "low": median * (1 - share), "high": median * (1 + share)}


def blank_cell(
    gpus: int, batch: int, mode: str, status: str, ddp: bool | None = None, precision: str = "bf16"
) -> Facts:
    """A cell before anything is known of it."""
    wrapped = "-ddp" if ddp and gpus == 1 else ""
    numbers = (
        "samples_per_s", "step_ms", "baseline", "speedup", "efficiency", "speedup_over_ddp", "comm_ms", "split",
        "epoch_s", "train_s", "gpu_hours", "joules_per_sample", "first_steps_s", "compile_s", "setup_s",
        "time_to_target_s", "gpu_hours_to_target", "num_reached", "epochs_to_target", "reason",
    )  # fmt: skip
    return dict.fromkeys(numbers) | {
        "name": f"gpus{gpus}-batch{batch}-{precision}{wrapped}", "gpus": gpus, "batch": batch,
        "global_batch": batch * (gpus if mode == "weak" else 1), "precision": precision,
        "ddp": gpus > 1 if ddp is None else ddp, "status": status, "n": 0, "num_windows": 0, "is_stable": True,
        "peak_memory_mib": [],
    }  # fmt: skip


def measured_cell(gpus: int, batch: int, mode: str, num_samples: int = 20_000, **given: Any) -> Facts:
    """A cell that was measured: overheads that grow with the GPUs and shrink with the batch."""
    cell = blank_cell(gpus, batch, mode, "ok", **given)
    step_ms = 9.0 + 1.35 * cell["global_batch"] / gpus + 2.1 * (gpus - 1) ** 0.8
    one_ms = 9.0 + 1.35 * cell["global_batch"] / (gpus if mode == "weak" else 1)
    speedup = one_ms / step_ms * (gpus if mode == "weak" else 1)
    steps = num_samples / cell["global_batch"]
    epoch_s = steps * step_ms / 1000 * 1.12 + 1.9
    cell |= {
        "n": 5, "num_windows": 15, "samples_per_s": interval(1000 * cell["global_batch"] / step_ms),
        "step_ms": interval(step_ms), "baseline": f"gpus1-batch{batch}-{cell['precision']}",
        "speedup": interval(speedup, 0.05), "efficiency": interval(speedup / gpus, 0.05),
        "speedup_over_ddp": interval(1.04 * speedup), "comm_ms": interval(2.1 * (gpus - 1) ** 0.8 or 0.4, 0.2),
        "peak_memory_mib": [310.0 + 11.5 * cell["global_batch"] / gpus + rank for rank in range(gpus)],
        "split": {
            "data": 0.03 * epoch_s, "compute": steps * (step_ms - 2.1 * (gpus - 1) ** 0.8) / 1000,
            "communication": steps * 2.1 * (gpus - 1) ** 0.8 / 1000, "evaluation": 1.6, "checkpoint": 0.3,
        },
        "epoch_s": interval(epoch_s), "train_s": interval(40 * epoch_s),
        "gpu_hours": interval(40 * epoch_s * gpus / 3600), "joules_per_sample": 0.71, "first_steps_s": 1.93,
        "setup_s": 6.13,
    }  # fmt: skip
    if mode == "target":
        epochs = 5.0 + batch / 64
        target_s = epochs * epoch_s
        cell |= {
            "num_reached": 4, "epochs_to_target": epochs, "time_to_target_s": interval(target_s, 0.15),
            "gpu_hours_to_target": interval(target_s * gpus / 3600, 0.15),
        }  # fmt: skip
    return cell


def make_fit(law: str, batch: int, numbers: tuple[int, ...], precision: str = "bf16") -> Facts:
    """A law fitted to a series."""
    share = {"amdahl": 0.16, "usl": 0.14, "gustafson": 0.2}[law]
    one = measured_cell(1, batch, "weak")["samples_per_s"]["median"]
    names = ("contention", "coherency") if law == "usl" else ("serial_share",)
    curve = []
    for tenths in range(10, 20 * max(numbers) + 1):
        n = tenths / 10
        curve.append([n, one * n / (1 + share * (n - 1) + (law == "usl") * 0.006 * n * (n - 1))])
    return {
        "law": law, "batch": batch, "precision": precision, "rate_of_one": interval(one),
        "parameters": {name: interval(share / (1 + 20 * at), 0.3) for at, name in enumerate(names)},
        "is_descriptive": max(numbers) <= 4, "words": f"{law}: {100 * share:.1f} % of a step of one GPU is serial.",
        "curve": curve,
    }  # fmt: skip


def make_preprocessing() -> Facts:
    """Three numbers of engines by two sizes of shards, one of which failed, and librosa."""
    cells = []
    for mib, num_shards in ((16.0, 8), (64.0, 2)):
        for engines in (1, 2, 4):
            rate = 31.0 * engines**0.9 * (0.95 if mib > 20 else 1)
            cells.append({
                "name": f"engines{engines}-shards{mib:.0f}", "engines": engines, "shard_mib": mib,
                "num_shards": num_shards, "status": "ok", "reason": None, "n": 5, "tracks_per_s": interval(rate, 0.06),
                "seconds": interval(250 / rate), "speedup": interval(rate / 4.2, 0.07),
                "speedup_over_one": interval(engines**0.9),
            })  # fmt: skip
    empty: Facts = dict.fromkeys(("tracks_per_s", "seconds", "speedup", "speedup_over_one"))
    cells[-1] |= {"status": "failed", "reason": "an engine was lost", "n": 0, **empty}
    serial = {"name": "librosa", "status": "ok", "tracks_per_s": interval(4.2), "seconds": interval(14.3), "n": 5}
    return {"n_tracks": 250, "peer_tracks": 60, "cells": cells, "serial": serial}


def make_study(
    mode: str = "strong", numbers: tuple[int, ...] = (1, 2, 4), batches: tuple[int, ...] = (64, 256), unit: str = "GPU"
) -> Facts:
    """report.json of a study: at the largest batch one GPU has too little memory, and the largest N is missing."""
    cells = [measured_cell(gpus, batch, mode) for batch in batches for gpus in numbers]
    if numbers[0] == 1:
        cells.insert(1, measured_cell(1, batches[0], mode, ddp=True))
    for at, cell in enumerate(cells):
        if cell["batch"] == batches[-1] and cell["gpus"] == numbers[0] and len(batches) > 1:
            cells[at] = blank_cell(cell["gpus"], cell["batch"], mode, "oom") | {
                "reason": "CUDA out of memory: 3.1 GiB more were wanted", "peak_memory_mib": [3254.0],
            }  # fmt: skip
        elif cell["batch"] == batches[-1] and len(batches) > 1:
            cell |= dict.fromkeys(("baseline", "speedup", "efficiency", "speedup_over_ddp"))
    if len(batches) > 1 and len(numbers) > 1:
        cells[-1] = blank_cell(numbers[-1], batches[-1], mode, "missing")
    laws = ("gustafson", "usl") if mode == "weak" else ("amdahl", "usl")
    metrics = {
        "mode": mode, "unit": unit, "threads": 1, "quick": False, "num_launches": 5, "num_windows": 3, "num_epochs": 40,
        "target": 0.8 if mode == "target" else None, "missing": [f"{cells[-1]['name']}: launch 2"], "cells": cells,
        "noise_scale": [{"batch": batch, **interval(210 + batch / 4, 0.4), "n": 10} for batch in batches],
        "fits": [make_fit(law, batch, numbers) for law in laws for batch in batches[:-1]]
        + [{"law": laws[0], "batch": batches[-1], "precision": "bf16", "refused": "needs 3 numbers of GPUs"}],
        "series": [{"batch": batches[0], "precision": "bf16", "kind": "sub-linear", "words": "each doubling brings less."}],
        "advice": [
            "For the shortest time take 4 GPUs with batch 64: 40 epochs in 6.6 min.",
            "For the lowest cost take 1 GPU with batch 64: 0.39 GPU-hours.",
        ],
        "preprocess": make_preprocessing(),
    }  # fmt: skip
    machine = {
        "cpu": "AMD EPYC 9554 64-Core Processor", "cores": 64, "sockets": 1, "numa_nodes": 4, "mhz": 3100,
        "gpus": [{"name": "NVIDIA H200", "mhz": 1980}] * 2, "threads": 1, "cores_a_rank": 16,
        "links": "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-31\nGPU1\tNV18\t X \t32-63",
    }  # fmt: skip
    return {
        "job": "scaling", "name": "h200-strong", "status": "complete", "seconds": 3721.4, "git": "1ad8ebd0c0de",
        "versions": {"python": "3.11.7", "torch": "2.13.0"}, "launcher": "slurm", "notes": ["The clocks were not locked."],
        "machines": [{"host": "n1", **machine}, {"host": "n2", **machine}],
        "method": ["Each launch is a process of its own.", "Cells take turns."], "metrics": metrics,
    }  # fmt: skip


def make_rows(report: Facts) -> list[Facts]:
    """The launches of a study's cells, and one of preprocessing."""
    rows = [
        {
            **{key: cell[key] for key in ("gpus", "batch", "precision", "ddp", "status")}, "cell": cell["name"],
            "kind": "train", "launch": launch,
            "step_s": [cell["step_ms"]["median"] / 1000 * (1 + 0.01 * launch)] * 3 if cell["step_ms"] else [],
        }
        for cell in report["metrics"]["cells"]
        for launch in range(2)
    ]  # fmt: skip
    return [*rows, {"cell": "engines2-shards16", "kind": "preprocess", "launch": 0, "status": "ok"}]


def make_comparison() -> Facts:
    """Two studies: a cell faster, one slower, one that cannot be told apart."""
    cells = []
    for gpus, ratio, words in ((1, 1.21, "faster"), (2, 0.9, "slower"), (4, 1.01, "cannot be told apart")):
        place = {"name": f"gpus{gpus}-batch64-bf16", "gpus": gpus, "batch": 64, "precision": "bf16"}
        cells.append(
            {
                **place,
                "a": interval(700.0 * gpus),
                "b": interval(700.0 * gpus * ratio),
                "ratio": interval(ratio),
                "words": words,
            }
        )
    return make_study() | {
        "metrics": {
            "a": "h200-july", "b": "h200-august", "cells": cells, "only_in_a": ["gpus8-batch64-bf16"], "only_in_b": [],
            "differences": ["torch 2.12 -> 2.13", "git 1ad8ebd -> 3c7ab72"],
        },
    }  # fmt: skip
