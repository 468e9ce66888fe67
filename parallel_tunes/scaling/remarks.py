"""What else a study found, in words: bottlenecks, precisions, noise, memory, and what did not work."""

from __future__ import annotations

from collections.abc import Iterator

from parallel_tunes.scaling.intervals import Interval
from parallel_tunes.scaling.measured import Cell, Measured, interval
from parallel_tunes.scaling.words import PERCENT, counted, figure, is_apart, listed, told

WIDEST_FIRST = ("fp64", "fp32", "bf16", "fp16")  # precisions are compared with the widest there is
MOST = 6  # names of a list that are written out


def say_bottlenecks(study: Measured) -> Iterator[str]:
    """How an epoch of the fastest cell, and of one GPU, splits up."""
    shown = study.shown()
    if shown is None:
        return
    alone = [cell for cell in study.cells if cell["gpus"] == 1]
    alike = [cell for cell in alone if (cell["batch"], cell["precision"]) == (shown["batch"], shown["precision"])]
    for cell in [shown, *(alike or alone)[:1]] if shown["gpus"] > 1 else [shown]:
        shares = {part: seconds for part, seconds in (cell.get("split") or {}).items() if seconds}
        whole, which = sum(shares.values()), ", the fastest," if cell is shown else ""
        if not whole:
            continue
        parts = sorted(shares, key=lambda part: -shares[part])
        told_shares = [f"{figure(PERCENT * shares[part] / whole, 10)} % {part}" for part in parts]
        says = f"on {study.name(cell)}{which} an epoch is {listed(told_shares)}"
        others = [part for part in parts if part != "compute"]
        yield says + (f": besides compute, {others[0]} takes most" if others else "")


def say_precisions(study: Measured) -> Iterator[str]:
    """Whether a narrower precision pays, wherever the same cell has a wider one too."""
    rates: dict[tuple[int, int], dict[str, tuple[Cell, Interval]]] = {}
    for cell in study.cells:
        if rate := interval(cell, "samples_per_s"):
            rates.setdefault((cell["gpus"], cell["batch"]), {})[cell["precision"]] = (cell, rate)
    compared: dict[tuple[str, str], list[tuple[Cell, Interval, Interval]]] = {}
    for alike in rates.values():
        wide, *narrow = sorted(alike, key=_width)
        for precision in narrow:
            cell, rate = alike[precision]
            compared.setdefault((precision, wide), []).append((cell, rate, alike[wide][1]))
    for (precision, wide), pairs in compared.items():
        yield _say_precision(study, precision, wide, pairs)


def _say_precision(study: Measured, precision: str, wide: str, pairs: list[tuple[Cell, Interval, Interval]]) -> str:
    gains = sum(is_apart(rate, other) and rate.median > other.median for _, rate, other in pairs)
    losses = sum(is_apart(rate, other) and rate.median < other.median for _, rate, other in pairs)
    ratios, num = sorted(rate.median / other.median for _, rate, other in pairs), len(pairs)
    if gains == num:
        says = "pays"
    elif losses == num:
        says = "does not pay"
    elif not gains and not losses:
        says = "cannot be told to pay"
    else:
        says = f"pays in {gains} of {num} configurations, loses in {losses}, and in {num - gains - losses} it cannot be told"
    cell, rate, other = max(pairs, key=lambda pair: pair[1].median)
    span = figure(ratios[0]) + (f" to {figure(ratios[-1])}" if num > 1 else "")
    return (
        f"the precision {precision} {says}: {span} times the samples/s of {wide};"
        f" on {study.name(cell)} {told(rate, 'samples/s')} against {told(other, 'samples/s')}"
    )


def say_noise(study: Measured) -> str | None:
    """The gradient noise scale as a hint which batches are worth their samples."""
    found = study.metrics.get("noise_scale_of_all")
    if not found:
        return None
    shown = study.shown()
    noise = Interval(found["median"], found["low"], found["high"])
    says = (
        f"a hint: early in the training the gradient noise scale is {told(noise)} samples, and grows later;"
        " batches above it bring little (McCandlish et al. 2018)"
    )
    if shown is None or shown["global_batch"] <= noise.low:
        return says
    lies = "lies above it" if shown["global_batch"] > noise.high else "lies within its interval"
    return f"{says}, and the fastest, {shown['global_batch']}, {lies}"


def say_preprocessing(study: Measured) -> str | None:
    """How quick preprocessing is on the engines that are best at it."""
    found = study.metrics.get("preprocess") or {"cells": []}
    rates = {cell["name"]: rate for cell in found["cells"] if (rate := interval(cell, "tracks_per_s"))}
    if not rates:
        return None
    best = max((cell for cell in found["cells"] if cell["name"] in rates), key=lambda cell: rates[cell["name"]].median)
    on = counted(best["engines"], "engine") if best["engines"] else "its own process"
    says = f"preprocessing is quickest on {on}: {told(rates[best['name']], 'tracks/s')}"
    if over := interval(best, "speedup"):
        says += f", {told(over)} times those of librosa in one process"
    if (gain := interval(best, "speedup_over_one")) and gain.median != 1:
        says += f", and {told(gain)} times those of the fewest engines"
    return says


def say_unreached(study: Measured) -> str | None:
    """Cells of which not every launch reached the target."""
    short = [cell for cell in study.cells if study.to_target and (cell.get("num_reached") or 0) < cell["n"]]
    names = [f"{study.name(cell)} ({cell.get('num_reached') or 0} of {cell['n']} launches)" for cell in short]
    return f"not every launch came {study.purpose()}: {_some(names)}" if names else None


def say_memory(study: Measured) -> str | None:
    """Cells that ran out of memory, with the peak or the need of a rank where it is known."""
    names = []
    for cell in study.of_status("oom"):
        needs = cell.get("peak_memory_mib") or []
        names.append(study.name(cell) + (f" ({max(needs):,.0f} MiB on a {study.unit})" if needs else ""))
    return f"out of memory: {_some(names)}" if names else None


def say_failures(study: Measured) -> str | None:
    names = [
        study.name(cell) + (f" ({cell['reason']})" if cell.get("reason") else "") for cell in study.of_status("failed")
    ]
    return f"failed: {_some(names)}" if names else None


def say_missing(study: Measured) -> str | None:
    names = study.metrics.get("missing") or [study.name(cell) for cell in study.of_status("missing")]
    return f"not there yet: {_some(names)}; what is said here may change" if names else None


def _width(precision: str) -> int:
    return WIDEST_FIRST.index(precision) if precision in WIDEST_FIRST else len(WIDEST_FIRST)


def _some(names: list[str]) -> str:
    return listed(names if len(names) <= MOST else [*names[:MOST], f"{len(names) - MOST} more"])
