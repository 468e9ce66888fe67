"""The figure of time against cost: which cells are worth choosing from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text

from parallel_tunes.reports.page import GREY
from parallel_tunes.reports.scaling.look import (
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
from parallel_tunes.reports.scaling.tables import medians, three_figures, time_unit

Point = tuple[float, float]


def pareto(points: list[Point]) -> list[int]:
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
    axes.margins(0.16)
    target = (
        f"a validation accuracy of {metrics['target']:g}"
        if metrics["mode"] == "target"
        else f"{metrics['num_epochs']} epochs"
    )
    axes.set(xlabel=f"time for {target} ({spell})", ylabel=f"cost ({unit}-hours)")
    shown = {series: mark for series, mark in marks.items() if series in set(map(series_of, cells))}
    handles = [Line2D([], [], color=m.colour, marker=m.marker, linestyle="none", label=m.name) for m in shown.values()]
    add_legend(drawing, [*handles, ideal_handle("no cell beats these in both")])
    label_points(axes, points, [count(cell["gpus"], unit) for cell in cells], kept)
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


Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


def label_points(axes: Axes, points: list[Point], words: list[str], line: list[int]) -> list[Box]:
    """Write a word beside each point where it hides no point, no word and no line; the words' boxes.

    Args:
        line: which of the points are joined; they choose first.
    """
    drawing: Any = axes.figure
    drawing.draw_without_rendering()  # settles the layout, in which the words then have no say
    pixels = drawing.dpi / 72  # a point of print
    at = axes.transData.transform(points)
    taken = [_box(x, y, 6 * pixels, 6 * pixels) for x, y in at]
    along = [start + share * (end - start) for start, end in pairwise(at[line]) for share in np.linspace(0, 1, 60)]
    taken += [_box(x, y, pixels, pixels) for x, y in along]
    boxes = []
    for which in sorted(range(len(points)), key=lambda which: which not in line):
        x, y = at[which]
        note = axes.annotate(
            words[which], points[which], (0, 0), textcoords="offset points", ha="center", va="center", fontsize=9.5,
            color="black" if which in line else "#57606a",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip
        note.set_in_layout(False)
        extent = Text.get_window_extent(note, drawing.canvas.get_renderer())  # the word's, without its arrow
        half_x, half_y = extent.width / 2, extent.height / 2
        box, is_far = _free_place((x, y), (half_x, half_y), taken, axes.get_window_extent(), pixels)
        note.set_position(((box[0] + half_x - x) / pixels, (box[1] + half_y - y) / pixels))
        if note.arrow_patch:
            note.arrow_patch.set_visible(is_far)
        taken.append(box)
        boxes.append(box)
    return boxes


def _free_place(at: Point, half: Point, taken: list[Box], inside: Any, pixels: float) -> tuple[Box, bool]:
    """The place around a point with the fewest clashes, near ones first, and whether it is far."""
    found: list[tuple[int, int, Box]] = []
    for reach in (8, 14, 22, 32, 44, 58):
        for turn in (0, 180, 90, 270, 45, 315, 135, 225):
            right, up = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
            x, y = at[0] + right * (half[0] + reach * pixels), at[1] + up * (half[1] + reach * pixels)
            box = _box(x, y, *half)
            is_outside = box[0] < inside.x0 or box[2] > inside.x1 or box[1] < inside.y0 or box[3] > inside.y1
            found.append((sum(overlap(box, other) for other in taken) + 100 * is_outside, reach, box))
    _, reach, box = min(found, key=lambda place: place[:2])
    return box, reach > 14


def _box(x: float, y: float, half_x: float, half_y: float) -> Box:
    return x - half_x, y - half_y, x + half_x, y + half_y


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
