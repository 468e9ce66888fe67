"""The curves of task=popularity: learning, calibration, the choice of C and the solver's gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator

from parallel_tunes.reports.page import BLACK, BLUE, GREY, ORANGE
from parallel_tunes.reports.popularity_figures import shorten
from parallel_tunes.reports.scaling.look import SMALL, Facts, Picture, add_legend, set_log

FEW = 30  # tracks, whose share says little


def draw_learning_curve(points: Sequence[Facts], score: str) -> Picture:
    """Training and validation scores against the number of training tracks."""
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    for part, colour, look, name in (("train", BLUE, "o--", "training"), ("valid", ORANGE, "s-", "validation")):
        known = [point for point in points if point[part] is not None]
        if known:
            axes.plot([p["n"] for p in known], [p[part] for p in known], look, color=colour, label=f"{name} tracks")
    numbers = [point["n"] for point in points]
    set_wide_log(axes, "x", numbers)
    axes.set(xlabel="training tracks", ylabel=score)
    axes.margins(y=0.12)
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    last = points[-1]
    parts = {"train": "training", "valid": "validation"}
    ends = ", ".join(f"{name} {last[part]:.3f}" for part, name in parts.items() if last[part] is not None)
    alt = f"With all {last['n']} training tracks: {ends}."
    caption = (
        f"{alt} Tracks are added by whole groups of artists, where these are known. A gap that stays asks for more tracks "
        "or fewer features; curves that meet and are flat ask for other features."
    )
    return Picture(drawing, "Learning curve", alt, caption)


def draw_reliability(judged: Facts, above: str, unit: str = "track") -> Picture:
    """How often it is so, against how often it was said to be, and how many tracks, or other units, stand behind each dot."""
    bins = judged["reliability"]
    said, seen, sizes = (np.array([bin_[key] for bin_ in bins]) for key in ("predicted", "observed", "n"))
    drawing, (axes, below) = plt.subplots(
        2, 1, figsize=(SMALL[0], 4.6), layout="constrained", sharex=True, height_ratios=[3, 1.2]
    )
    axes.plot([0, 1], [0, 1], "--", color=BLACK, linewidth=1, label="said and seen alike")
    many = sizes >= FEW
    axes.plot(said[many], seen[many], "o-", color=BLUE, markersize=6, label=f"{unit}s of a tenth")
    if not many.all():
        axes.plot(said[~many], seen[~many], "o", color=GREY, markerfacecolor="white", label=f"fewer than {FEW}")
    axes.set(ylim=(-0.03, 1.03), xlim=(-0.02, 1.02), ylabel=f"share {shorten(above)}")
    bars = below.bar(said, sizes, 0.07, color=GREY)
    below.bar_label(bars, [str(n) if n < 100_000 else f"{n / 1000:.0f}k" for n in sizes], fontsize=8, padding=1)
    below.set(xlabel=f"predicted probability of {shorten(above)}", ylabel=f"{unit}s", ylim=(0, 1.35 * sizes.max()))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    alt = "; ".join(f"said {p:.2f}, seen {o:.2f}, n = {n}" for p, o, n in zip(said, seen, sizes, strict=True))
    caption = (
        f"Brier score {judged['brier']:.4f}, log-loss {judged['loss']:.4f} nats; saying the same share of every {unit} would read "
        f"{_plain_brier(judged):.4f} and {_plain_loss(judged):.4f}. Dots of few {unit}s lie far off by chance."
    )
    return Picture(drawing, "Calibration", f"{alt}.", caption)


def _share_above(judged: Facts) -> float:
    counts = np.array(judged["confusion"]["counts"])
    return float(counts[1].sum() / counts.sum())


def _plain_brier(judged: Facts) -> float:
    share = _share_above(judged)
    return share * (1 - share)


def _plain_loss(judged: Facts) -> float:
    shares = np.array([_share_above(judged), 1 - _share_above(judged)])
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum())


def draw_candidates(solver: Facts, score: str) -> Picture:
    """Cross-validated scores of each C, the chosen one marked."""
    found = solver["candidates"]
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    gammas = sorted({row.get("gamma") or 0.0 for row in found})
    for at, gamma in enumerate(gammas):
        rows = [row for row in found if (row.get("gamma") or 0.0) == gamma]
        axes.errorbar(
            [row["C"] for row in rows], [row["score"] for row in rows], [row["standard_error"] or 0 for row in rows],
            fmt="o-", color=BLUE, alpha=(at + 1) / len(gammas), capsize=3,
            label=f"gamma {gamma:g}" if gamma else "mean ± standard error",
        )  # fmt: skip
    is_chosen = [row["C"] == solver["C"] and row.get("gamma") == solver.get("gamma") for row in found]
    chosen = [(row["C"], row["score"]) for row, is_it in zip(found, is_chosen, strict=True) if is_it]
    if chosen:
        axes.plot(
            *chosen[0],
            "o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=2,
            label="chosen",
        )
    set_wide_log(axes, "x", [row["C"] for row in found])
    axes.set(xlabel="C", ylabel=f"{score}, cross-validated")
    axes.margins(y=0.15)
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    alt = "; ".join(_name(row) + f": {row['score']:.3f}" for row in found)
    num = max(len(row["scores"]) for row in found)
    caption = f"{num} folds inside the training tracks. Where the bars of several C overlap, the choice between them hardly matters."
    return Picture(drawing, "Choice of C", f"{alt}.", caption)


def _name(candidate: Facts) -> str:
    gamma = candidate.get("gamma")
    return f"C = {candidate['C']:g}" + (f", gamma = {gamma:g}" if gamma else "")


def draw_gaps(rows: Sequence[Facts], tolerance: float) -> Picture | None:
    """The relative duality gap against time, a line each machine; None where none was ever proven."""
    lines: dict[int, list[Any]] = {}
    for row in rows:
        if row["gap"] is not None and row["gap"] > 0:
            lines.setdefault(row["column"], []).append((1000 * row["seconds"], row["gap"]))
    if not lines:
        return None
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    name = "gap" if len(lines) == 1 else "gap, a line each class"
    for at, line in enumerate(lines.values()):
        times_ms, gaps = zip(*line, strict=True)
        axes.plot(
            times_ms,
            gaps,
            "o-",
            color=BLUE,
            markersize=4,
            alpha=1 if len(lines) == 1 else 0.5,
            label=None if at else name,
        )
    axes.axhline(tolerance, color=ORANGE, linestyle="--", label=f"tolerance {tolerance:g}")
    set_wide_log(axes, "y", [tolerance, *(gap for line in lines.values() for _, gap in line)])
    axes.set_xlim(left=0)
    axes.set(xlabel="time (ms)", ylabel="relative duality gap")
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    last = max(line[-1][1] for line in lines.values())
    alt = f"It falls to {last:.2g}; the tolerance is {tolerance:g}."
    caption = (
        "(objective − lower bound) / lower bound: how far above the least objective the weights can be at most. "
        "Machines are learnt one after the other, each from 0 s."
    )
    return Picture(drawing, "Gap of the solver", alt, caption)


def set_wide_log(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis around these values; ticks at powers of ten where it spans many."""
    low, high = min(values), max(values)
    set_log(axes, which, sorted(set(values)) if high < 4 * low and len(set(values)) < 5 else None)
    if high > 1000 * low:
        axis: Axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator())
    pad = max((high / low) ** 0.06, 1.15)
    axes.set(**{f"{which}lim": (low / pad, high * pad)})
