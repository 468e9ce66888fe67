"""The figures of how quick: speed-up, efficiency, throughput, preprocessing."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from parallel_tunes.reports.page import BLACK, GREY
from parallel_tunes.reports.scaling.look import (
    HATCHES,
    MARKS,
    SMALL,
    WIDE,
    Facts,
    Mark,
    Picture,
    Series,
    add_legend,
    beside,
    cell_name,
    draw_marks,
    grid_cells,
    ideal_handle,
    ink_on,
    lines_of,
    marks_of,
    series_of,
    set_log,
    set_numbers,
    status_words,
)
from parallel_tunes.reports.scaling.tables import LAWS, count, three_figures

DASHES: dict[str, Any] = {"amdahl": (0, (6, 2)), "gustafson": (0, (2, 2)), "usl": (0, (6, 2, 1, 2))}
STATES = {"oom": "out of\nmemory", "failed": "failed", "missing": "missing"}
COLOURS = matplotlib.colormaps["cividis"]  # even steps of lightness, for any eye and in grey


def draw_speedup(metrics: Facts) -> Picture | None:
    """Speed-up against N, the line of perfect scaling and the fitted laws."""
    lines = lines_of(metrics, "speedup")
    if not lines:
        return None
    unit, marks = metrics["unit"], marks_of(metrics)
    numbers = sorted({cell["gpus"] for line in lines.values() for cell in line})
    fits = [fit for fit in metrics["fits"] if series_of(fit) in lines and "curve" in fit]
    ends = [fit["curve"][-1][0] for fit in fits]
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    right = 1.05 * max(ends) if ends else None
    is_log = set_numbers(axes, numbers, right)
    right = axes.get_xlim()[1]
    axes.plot([numbers[0], right], [numbers[0], right], color=GREY, linewidth=3, alpha=0.6, zorder=1)
    for fit in fits:
        _draw_law(axes, metrics, fit, lines[series_of(fit)], marks[series_of(fit)])
    for place, (series, line) in enumerate(lines.items()):
        at = beside(axes, (cell["gpus"] for cell in line), place, len(lines))
        draw_marks(axes, at, [cell["speedup"] for cell in line], marks[series]._replace(dashes="-"))
    if is_log:
        powers = [2.0**power for power in range(-6, 20)]
        set_log(axes, "y", powers)
        axes.set_ylim(0.8 * min(cell["speedup"]["low"] for line in lines.values() for cell in line), 1.05 * right)
    else:
        axes.set_ylim(0, 1.05 * right)
    axes.set(xlabel=f"{unit}s", ylabel="speed-up (times the rate of one)")
    handles = [_handle(marks[series]._replace(dashes="-")) for series in lines]
    handles += [_law_handle(law, fits) for law in LAWS if any(fit["law"] == law for fit in fits)]
    add_legend(drawing, [*handles, ideal_handle(f"ideal: N {unit}s, N times")])
    if fits:
        axes.axvspan(1.15 * numbers[-1], right, color="black", alpha=0.05, linewidth=0, zorder=0)
        axes.text(0.985, 0.02, "not measured", transform=axes.transAxes, ha="right", color="#57606a", fontsize=8.5)
    caption = f"Samples/s divided by those of one {unit} without DDP. Bars: 95 % intervals. Dashed: fitted laws."
    return Picture(drawing, "Speed-up", _tell(metrics, lines, "speedup", " times"), caption)


def _draw_law(axes: Axes, metrics: Facts, fit: Facts, line: list[Facts], mark: Mark) -> None:
    """A fitted curve, divided by the rate that the points are divided by."""
    rates = {cell["name"]: cell["samples_per_s"] for cell in metrics["cells"]}
    of_one = rates.get(line[-1]["baseline"]) or fit["rate_of_one"]
    at, rate = np.array(fit["curve"], float).T
    axes.plot(at, rate / of_one["median"], linestyle=DASHES[fit["law"]], color=mark.colour, linewidth=1.1, zorder=2)


def _handle(mark: Mark) -> Line2D:
    return Line2D([], [], color=mark.colour, marker=mark.marker, linestyle=mark.dashes, label=mark.name)


def _law_handle(law: str, fits: list[Facts]) -> Line2D:
    is_descriptive = any(fit["is_descriptive"] for fit in fits if fit["law"] == law)
    words = f"{LAWS[law]}, descriptive" if is_descriptive else LAWS[law]
    return Line2D([], [], color="#444444", linewidth=1.1, linestyle=DASHES[law], label=words)


def _tell(metrics: Facts, lines: dict[Series, list[Facts]], key: str, unit: str, times: float = 1) -> str:
    """The points of a figure in words."""
    points = (
        f"{cell_name(metrics, cell)}: {three_figures(times * cell[key]['median'])}{unit}"
        for line in lines.values()
        for cell in line
    )
    return "; ".join(points)


def draw_efficiency(metrics: Facts) -> Picture | None:
    """Speed-up divided by N."""
    lines = lines_of(metrics, "efficiency")
    if not lines:
        return None
    unit, marks = metrics["unit"], marks_of(metrics)
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    set_numbers(axes, (cell["gpus"] for line in lines.values() for cell in line))
    axes.axhline(100, color=GREY, linewidth=3, alpha=0.6, zorder=1)
    for place, (series, line) in enumerate(lines.items()):
        at = beside(axes, (cell["gpus"] for cell in line), place, len(lines))
        draw_marks(axes, at, [cell["efficiency"] for cell in line], marks[series], 100)
    top = max(cell["efficiency"]["high"] for line in lines.values() for cell in line)
    axes.set_ylim(0, 100 * max(1.1, 1.05 * top))
    axes.set(xlabel=f"{unit}s", ylabel="efficiency (%)")
    add_legend(drawing, [*(_handle(marks[series]) for series in lines), ideal_handle("ideal: 100 %")])
    caption = f"Speed-up divided by the number of {unit}s. Bars: 95 % intervals."
    return Picture(drawing, "Efficiency", _tell(metrics, lines, "efficiency", " %", 100), caption)


def draw_throughput(metrics: Facts) -> Picture | None:
    """Samples a second by N and batch, a panel for each precision."""
    cells = grid_cells(metrics)
    rates = [cell["samples_per_s"]["median"] for cell in cells if cell["samples_per_s"]]
    if not rates or len(cells) < 2:
        return None
    numbers, batches = (sorted({cell[key] for cell in cells}) for key in ("gpus", "batch"))
    precisions = list(dict.fromkeys(cell["precision"] for cell in cells))
    size = (WIDE, max(3.0, 1.4 + 0.55 * len(batches))) if len(precisions) > 1 else SMALL
    drawing, panels = plt.subplots(1, len(precisions), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, precision in zip(panels.flat, precisions, strict=True):
        image = axes.imshow(
            np.full((len(batches), len(numbers)), np.nan), cmap=COLOURS, aspect="auto", norm=Normalize(0, max(rates))
        )
        _fill(axes, [cell for cell in cells if cell["precision"] == precision], numbers, batches, image)
        axes.grid(visible=False)
        axes.set_xticks(range(len(numbers)), [str(number) for number in numbers])
        axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
        axes.set_xlabel(f"{metrics['unit']}s")
        axes.set_title(precision, fontsize=10)
    panels[0, 0].set_ylabel(f"batch per {metrics['unit']}" if metrics["mode"] == "weak" else "global batch")
    drawing.colorbar(image, ax=panels, label="samples/s")
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: "
        + (
            f"{three_figures(cell['samples_per_s']['median'])} samples/s"
            if cell["samples_per_s"]
            else status_words(cell)
        )
        for cell in cells
    )
    caption = "Medians. Hatched: no result, and why. Dash: not in the study."
    return Picture(drawing, "Throughput", alt, caption, is_wide=len(precisions) > 1)


def _fill(axes: Axes, cells: list[Facts], numbers: list[int], batches: list[int], image: Any) -> None:
    """Colour and number, or the reason, of each box."""
    shown = image.get_array().filled(np.nan)
    there = {(cell["gpus"], cell["batch"]): cell for cell in cells}
    for row, batch in enumerate(batches):
        for column, number in enumerate(numbers):
            cell = there.get((number, batch))
            words, ink = "–", "#57606a"
            if cell and cell["samples_per_s"]:
                rate = cell["samples_per_s"]["median"]
                shown[row, column] = rate
                words, ink = three_figures(rate), ink_on(image.cmap(image.norm(rate)))
            elif cell:
                words, ink = STATES.get(cell["status"], "no\nnumber"), "black"
                box = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="////")
                axes.add_patch(box)
            backing = (
                {"facecolor": "#eeeeee", "edgecolor": "none", "pad": 1.5}
                if ink == "black" and words[0].isalpha()
                else None
            )
            axes.text(column, row, words, ha="center", va="center", color=ink, fontsize=9.5, bbox=backing)
    image.set_data(shown)


def draw_preprocessing(metrics: Facts) -> Picture | None:
    """Tracks a second by engines, a line for each size of shards, and librosa in one process."""
    found = metrics["preprocess"]
    # without engines, in the process itself, there is no place on the axis
    cells = [cell for cell in (found or {"cells": []})["cells"] if cell["tracks_per_s"] and cell["engines"]]
    numbers = sorted({cell["engines"] for cell in cells})
    if len(numbers) < 2:
        return None
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    is_log = set_numbers(axes, numbers)
    sizes = sorted({cell["shard_mib"] for cell in cells}, key=lambda size: size or 0.0)
    handles = []
    for place, size in enumerate(sizes):
        line = sorted((cell for cell in cells if cell["shard_mib"] == size), key=lambda cell: cell["engines"])
        mark = Mark(f"shards of {size:g} MiB" if size else "log-mel shards", *MARKS[place % len(MARKS)], HATCHES[0])
        draw_marks(
            axes,
            beside(axes, [cell["engines"] for cell in line], place, len(sizes)),
            [c["tracks_per_s"] for c in line],
            mark,
        )
        handles.append(_handle(mark))
    fewest = max(cell["tracks_per_s"]["median"] for cell in cells if cell["engines"] == numbers[0])
    ends = [numbers[0], numbers[-1]]
    axes.plot(ends, [fewest, fewest * ends[1] / ends[0]], color=GREY, linewidth=3, alpha=0.6, zorder=1)
    handles.append(ideal_handle(f"ideal, from {count(ends[0], 'engine')}"))
    bottoms = [cell["tracks_per_s"]["low"] for cell in cells]
    if (serial := found["serial"]) and serial["tracks_per_s"]:
        rate = serial["tracks_per_s"]
        axes.axhline(rate["median"], color=BLACK, linestyle=(0, (1, 1.5)), linewidth=1.6)
        axes.axhspan(rate["low"], rate["high"], color=BLACK, alpha=0.12, linewidth=0)
        handles.append(Line2D([], [], color=BLACK, linestyle=(0, (1, 1.5)), label=f"{serial['name']}, serial"))
        bottoms.append(rate["low"])
    if is_log:
        set_log(axes, "y")
        axes.set_ylim(0.8 * min(bottoms), None)
    else:
        axes.set_ylim(0, None)
    axes.set(xlabel="engines", ylabel="tracks/s")
    add_legend(drawing, handles)
    alt = "; ".join(f"{cell['name']}: {three_figures(cell['tracks_per_s']['median'])} tracks/s" for cell in cells)
    caption = f"From file to shards, {count(found['n_tracks'], 'track')}. Bars and band: 95 % intervals."
    return Picture(drawing, "Preprocessing", alt, caption)
