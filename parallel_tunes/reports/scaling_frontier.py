"""The figure of time against cost: which cells are worth choosing from."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from parallel_tunes.reports.page import GREY
from parallel_tunes.reports.scaling_look import (
    WIDE,
    Facts,
    Picture,
    add_legend,
    cell_name,
    count,
    grid_cells,
    ideal_handle,
    marks_of,
    series_of,
    set_log,
)
from parallel_tunes.reports.scaling_tables import medians, three_figures, time_unit


def pareto(points: list[tuple[float, float]]) -> list[int]:
    """Which points no other beats in both time and cost, from the quickest to the cheapest."""
    best, kept = float("inf"), []
    for at in sorted(range(len(points)), key=points.__getitem__):
        if points[at][1] < best:
            best = points[at][1]
            kept.append(at)
    return kept


def draw_frontier(metrics: Facts) -> Picture | None:
    """GPU-hours against time, each cell a point; those that no other beats in both are joined."""
    keys = ("time_to_target_s", "gpu_hours_to_target") if metrics["mode"] == "target" else ("train_s", "gpu_hours")
    cells = [cell for cell in grid_cells(metrics) if cell["status"] == "ok" and all(cell[key] for key in keys)]
    if len(cells) < 2:
        return None
    marks, unit = marks_of(metrics), metrics["unit"]
    spell, spell_s = time_unit(medians(cells, keys[0]))
    points = [(cell[keys[0]]["median"] / spell_s, cell[keys[1]]["median"]) for cell in cells]
    drawing, axes = plt.subplots(figsize=(WIDE, 4.8), layout="constrained")
    kept = pareto(points)
    joined = [points[at] for at in kept]
    axes.plot(*zip(*joined, strict=True), color=GREY, linewidth=3, alpha=0.6, zorder=1)
    for at, (cell, point) in enumerate(zip(cells, points, strict=True)):
        mark = marks[series_of(cell)]
        face = mark.colour if at in kept else "white"
        axes.plot(*point, marker=mark.marker, markersize=8, markerfacecolor=face, markeredgecolor=mark.colour, zorder=3)
    for axis, values in zip("xy", zip(*points, strict=True), strict=True):
        if max(values) > 4 * min(values):
            set_log(axes, axis)
    axes.margins(0.15)
    target = (
        f"a validation accuracy of {metrics['target']:g}"
        if metrics["mode"] == "target"
        else f"{metrics['num_epochs']} epochs"
    )
    axes.set(xlabel=f"time for {target} ({spell})", ylabel=f"cost ({unit}-hours)")
    shown = {series: mark for series, mark in marks.items() if series in set(map(series_of, cells))}
    handles = [Line2D([], [], color=m.colour, marker=m.marker, linestyle="none", label=m.name) for m in shown.values()]
    add_legend(drawing, [*handles, ideal_handle("no cell beats these in both")], 4)
    label_points(axes, points, [count(cell["gpus"], unit) for cell in cells])
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: {three_figures(x)} {spell}, {three_figures(y)} {unit}-hours"
        + (", on the frontier" if at in kept else "")
        for at, (cell, (x, y)) in enumerate(zip(cells, points, strict=True))
    )
    caption = (
        f"What {target} takes and costs; left is quicker, below is cheaper. Filled and joined: the cells worth choosing from, "
        "since no other is both quicker and cheaper."
    )
    return Picture(drawing, "Time against cost", alt, caption, is_wide=True)


def label_points(axes: Axes, points: list[tuple[float, float]], words: list[str]) -> None:
    """Write a word beside each point, at the first place around it where it hides neither point nor word."""
    drawing: Any = axes.figure
    drawing.draw_without_rendering()  # settles the layout, in which the words then have no say
    at = axes.transData.transform(points)
    scale = drawing.dpi / 72
    taken = [(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in at]
    inside = axes.get_window_extent()
    for (x, y), point, word in zip(at, points, words, strict=True):
        note = axes.annotate(word, point, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=9)
        note.set_in_layout(False)
        extent = note.get_window_extent(drawing.canvas.get_renderer())
        half_x, half_y = extent.width / 2 + scale, extent.height / 2 + scale
        best: tuple[int, float, float] | None = None
        for reach in (9, 16, 26, 38, 52):
            for turn in (0, 180, 90, 270, 45, 315, 135, 225):
                right, up = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
                dx, dy = right * (half_x + (reach - 4) * scale), up * (half_y + (reach - 4) * scale)
                box = (x + dx - half_x, y + dy - half_y, x + dx + half_x, y + dy + half_y)
                outside = box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1
                clashes = sum(_overlap(box, other) for other in taken) + 100 * outside
                if best is None or clashes < best[0]:
                    best = (clashes, dx, dy)
            if best and best[0] == 0:
                break
        assert best is not None
        _, dx, dy = best
        note.set_position((dx / scale, dy / scale))
        taken.append((x + dx - half_x, y + dy - half_y, x + dx + half_x, y + dy + half_y))


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
