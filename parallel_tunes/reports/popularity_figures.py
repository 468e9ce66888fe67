"""Figures of task=popularity: scores with their intervals, coefficients, calibration and the choice of C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from parallel_tunes.reports.page import BLACK, BLUE, GREY, ORANGE
from parallel_tunes.reports.scaling.look import SMALL, WIDE, Facts, Picture, add_legend, set_log

FEW = 30  # a bin of fewer tracks is drawn hollow


class Scored(NamedTuple):
    """A row of a figure or table of scores.

    Args:
        judged: as in the report's metrics; None where there is nothing to show.
        has_year: whether the year was learnt from.
        is_model: what the page is about, not what it stands beside.
    """

    name: str
    judged: Facts | None
    has_year: bool
    is_model: bool = True


class Panel(NamedTuple):
    """A score and what it is held against: a number, or another figure of the same tracks, with a name."""

    key: str
    label: str
    mark: float | str | None = None
    mark_name: str = ""


AUC = Panel("auc", "AUC", 0.5, "AUC of chance")
ACCURACY = Panel("accuracy", "accuracy", "majority_share", "share of the commonest class")


def shorten(label: str, most: int = 26) -> str:
    """A label that leaves room for what it labels."""
    return label if len(label) <= most else label[: most - 1] + "…"


def holds_zero(row: Facts) -> bool:
    """Whether an interval leaves the sign open."""
    low, high = row["ci95"]
    return bool(low <= 0 <= high)


def draw_scores(title: str, rows: Sequence[Scored], panels: Sequence[Panel], caption: str) -> Picture:
    """Dots with their intervals, a row each; a panel each score."""
    size = (WIDE, 1.35 + 0.36 * len(rows))
    drawing, grid = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, panel in zip(grid[0], panels, strict=True):
        for at, row in enumerate(rows):
            _draw_score(axes, at, row, panel)
        if isinstance(panel.mark, float):
            axes.axvline(panel.mark, color=BLACK, linestyle="--", linewidth=1, zorder=1)
        axes.set_xlabel(panel.label)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
    looks = {(row.has_year, row.is_model) for row in rows if row.judged}
    add_legend(
        drawing,
        [_key(*look) for look in sorted(looks, key=lambda look: (not look[1], look[0]))]
        + [_mark_key(panel) for panel in panels if panel.mark_name],
    )
    known = [(row.name, (row.judged or {}).get(panels[0].key)) for row in rows]
    values = "; ".join(f"{name} {value:.3f}" for name, value in known if value is not None)
    return Picture(drawing, title, f"{panels[0].label}: {values}.", caption, is_wide=True)


def _draw_score(axes: Axes, at: int, row: Scored, panel: Panel) -> None:
    judged = row.judged or {}
    value, interval = judged.get(panel.key), judged.get(f"{panel.key}_ci95")
    colour, marker = (ORANGE if row.has_year else BLUE), ("o" if row.is_model else "D")
    if value is None:
        axes.text(
            0.5,
            at,
            "not drawn" if row.judged is None else "no such score",
            transform=axes.get_yaxis_transform(),
            ha="center",
            va="center",
            color="#57606a",
            fontsize=9,
        )
        return
    if interval:
        axes.plot(interval, [at, at], color=colour, marker="|", markersize=8, linewidth=1.6)
    axes.plot(value, at, marker, color=colour, markersize=7, markerfacecolor=colour if row.is_model else "white")
    if isinstance(panel.mark, str) and judged.get(panel.mark) is not None:
        axes.plot(judged[panel.mark], at, "|", color=BLACK, markersize=17, markeredgewidth=1.6, zorder=4)


def _key(has_year: bool, is_model: bool) -> Line2D:
    colour, year = (ORANGE, "with the year") if has_year else (BLUE, "without the year")
    return Line2D(
        [], [], color=colour, marker="o" if is_model else "D", markersize=7, markerfacecolor=colour if is_model else "white",
        label=f"{'SVM' if is_model else 'baseline'}, {year}",
    )  # fmt: skip


def _mark_key(panel: Panel) -> Line2D:
    if isinstance(panel.mark, str):
        return Line2D([], [], color=BLACK, marker="|", linestyle="", markersize=13, markeredgewidth=1.6, label=panel.mark_name)  # fmt: skip
    return Line2D([], [], color=BLACK, linestyle="--", linewidth=1, label=panel.mark_name)


def draw_coefficients(column: Facts, unit: str, ends: tuple[str, str]) -> Picture:
    """The coefficient of each feature, sorted, with its interval.

    Args:
        ends: the classes that negative and positive values stand for.
    """
    rows = sorted(column["coefficients"], key=lambda row: -row["value"])
    drawing, axes = plt.subplots(figsize=(WIDE, 1.6 + 0.3 * len(rows)), layout="constrained")
    for at, row in enumerate(rows):
        open_sign = holds_zero(row)
        colour = GREY if open_sign else BLUE
        axes.plot(row["ci95"], [at, at], color=colour, marker="|", markersize=8, linewidth=1.8)
        axes.plot(row["value"], at, "o", color=colour, markersize=7, markerfacecolor="white" if open_sign else colour)
    axes.axvline(0, color=BLACK, linewidth=1)
    axes.set_yticks(range(len(rows)), [shorten(row["feature"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"← {shorten(ends[0])}      {unit}      {shorten(ends[1])} →")
    add_legend(drawing, [
        Line2D([], [], color=BLUE, marker="o", markersize=7, label="95 % interval on one side of zero"),
        Line2D([], [], color=GREY, marker="o", markersize=7, markerfacecolor="white", label="95 % interval holds zero"),
    ])  # fmt: skip
    alt = "; ".join(f"{row['feature']} {row['value']:+.2f}" for row in rows)
    caption = "Per standard deviation of a feature. Dots: fitted on all training tracks; bars: 95 % intervals."
    return Picture(drawing, "Coefficients", f"Dots with intervals: {alt}.", caption, is_wide=True)


def draw_reliability(judged: Facts, above: str, unit: str = "track") -> Picture:
    """Observed shares against predicted probabilities in ten bins, and the number of tracks, or other units, in each."""
    bins = judged["reliability"]
    said, seen, sizes = (np.array([bin_[key] for bin_ in bins]) for key in ("predicted", "observed", "n"))
    drawing, (axes, below) = plt.subplots(
        2, 1, figsize=(SMALL[0], 4.6), layout="constrained", sharex=True, height_ratios=[3, 1.2]
    )
    axes.plot([0, 1], [0, 1], "--", color=BLACK, linewidth=1, label="calibrated")
    many = sizes >= FEW
    axes.plot(said[many], seen[many], "o-", color=BLUE, markersize=6, label=f"{unit}s of a bin")
    if not many.all():
        axes.plot(said[~many], seen[~many], "o", color=GREY, markerfacecolor="white", label=f"fewer than {FEW}")
    axes.set(ylim=(-0.03, 1.03), xlim=(-0.02, 1.02), ylabel=f"share {shorten(above)}")
    bars = below.bar(said, sizes, 0.07, color=GREY)
    below.bar_label(bars, [str(n) if n < 100_000 else f"{n / 1000:.0f}k" for n in sizes], fontsize=8, padding=1)
    below.set(xlabel=f"predicted probability of {shorten(above)}", ylabel=f"{unit}s", ylim=(0, 1.35 * sizes.max()))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    alt = "; ".join(f"predicted {p:.2f}, observed {o:.2f}, n = {n}" for p, o, n in zip(said, seen, sizes, strict=True))
    counts = np.array(judged["confusion"]["counts"])
    share = float(counts[1].sum() / counts.sum())
    plain = share * (1 - share), -sum(part * np.log(max(part, 1e-12)) for part in (share, 1 - share))
    caption = (
        f"Brier score {judged['brier']:.4f}, log-loss {judged['loss']:.4f} nats; of the constant prediction {share:.3f}: "
        f"{plain[0]:.4f} and {plain[1]:.4f}."
    )
    return Picture(drawing, "Calibration", f"{alt}.", caption)


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
    caption = f"{num} folds inside the training tracks; bars: standard error over the folds."
    return Picture(drawing, "Choice of C", f"{alt}.", caption)


def _name(candidate: Facts) -> str:
    gamma = candidate.get("gamma")
    return f"C = {candidate['C']:g}" + (f", gamma = {gamma:g}" if gamma else "")


def set_wide_log(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis around these values; ticks at powers of ten where it spans many."""
    low, high = min(values), max(values)
    set_log(axes, which, sorted(set(values)) if high < 4 * low and len(set(values)) < 5 else None)
    if high > 1000 * low:
        axis: Axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator())
    pad = max((high / low) ** 0.06, 1.15)
    axes.set(**{f"{which}lim": (low / pad, high * pad)})
