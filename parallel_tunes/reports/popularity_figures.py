"""Figures of task=popularity: scores with their intervals, and what features weigh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from parallel_tunes.reports.page import BLACK, BLUE, GREY, ORANGE
from parallel_tunes.reports.scaling.look import SMALL, WIDE, Facts, Picture, add_legend, ink_on

SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "white", BLUE])


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
    """What each feature weighs, sorted, with its interval.

    Args:
        ends: what lower and higher values speak for.
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
        Line2D([], [], color=GREY, marker="o", markersize=7, markerfacecolor="white", label="interval holds zero: sign cannot be said"),
    ])  # fmt: skip
    alt = "; ".join(f"{row['feature']} {row['value']:+.2f}" for row in rows)
    caption = (
        "What a standard deviation more of a feature adds, the other features the same. "
        "Dots: fitted on all training tracks; bars: 95 % intervals."
    )
    return Picture(drawing, "Coefficients", f"Dots with intervals: {alt}.", caption, is_wide=True)


def draw_heat_map(columns: Sequence[Facts], unit: str) -> Picture:
    """Features by classes; a cell whose interval holds zero is hatched and has no number."""
    features = [row["feature"] for row in columns[0]["coefficients"]]
    values = np.array([[row["value"] for row in column["coefficients"]] for column in columns]).T
    is_open = np.array([[holds_zero(row) for row in column["coefficients"]] for column in columns]).T
    norm = Normalize(-np.abs(values).max() or -1, np.abs(values).max() or 1)
    size = (max(5.2, 2.9 + 0.56 * len(columns)), 2.6 + 0.34 * len(features))
    drawing, axes = plt.subplots(figsize=size, layout="constrained")
    image = axes.imshow(np.where(is_open, 0, values), cmap=SIGNED, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if is_open[row, column]:
            box = Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0
            )
            axes.add_patch(box)
        else:
            words, ink = f"{value:+.2f}".replace("-", "−"), ink_on(SIGNED(norm(value)))
            axes.text(column, row, words, ha="center", va="center", fontsize=8, color=ink)
    axes.grid(visible=False)
    names = [shorten(column["name"], 20) for column in columns]
    axes.set_xticks(range(len(columns)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(features)), [shorten(feature) for feature in features])
    drawing.colorbar(image, ax=axes, label=unit, shrink=0.9)
    hatched = Patch(facecolor="white", edgecolor=GREY, hatch="////", label="interval holds zero: sign cannot be said")
    add_legend(drawing, [hatched])
    caption = (
        "How much a standard deviation more of a feature speaks for a class (blue) or against it (orange), each class against the rest. "
        "Compare within a column: each has a norm of one."
    )
    alt = (
        f"Heat map of {len(features)} features by {len(columns)} classes; "
        f"in {int(is_open.sum())} of {is_open.size} cells the sign cannot be said."
    )
    return Picture(drawing, "Coefficients of each class", alt, caption, is_wide=True)


def draw_importances(found: Facts) -> Picture:
    """What is lost when a feature is shuffled."""
    rows = found["features"]
    drawing, axes = plt.subplots(figsize=(SMALL[0], max(SMALL[1], 1.1 + 0.26 * len(rows))), layout="constrained")
    axes.barh(
        range(len(rows)), [row["loss"] for row in rows], 0.7, xerr=[row["deviation"] for row in rows], color=BLUE,
        error_kw={"elinewidth": 1.2, "capsize": 3},
    )  # fmt: skip
    axes.axvline(0, color=BLACK, linewidth=1)
    axes.set_yticks(range(len(rows)), [shorten(row["feature"], 22) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{found['score']} lost when shuffled")
    alt = "; ".join(f"{row['feature']} {row['loss']:.3f}" for row in rows)
    caption = (
        f"On {found['n']} validation tracks {found['score']} is {found['whole']:.3f}; each feature shuffled {found['num_shuffles']} times, "
        "bars ± one standard deviation of these. A feature whose double goes on unshuffled seems to matter little."
    )
    return Picture(drawing, "Permutation importance", f"Bars: {alt}.", caption)
