"""The figures of what it costs: memory, where the time of an epoch goes, time to target, time against cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from parallel_tunes.reports.page import AMBER, BLUE, GREY, ORANGE, SKY
from parallel_tunes.reports.scaling.look import (
    SMALL,
    WIDE,
    Facts,
    Picture,
    add_legend,
    cell_name,
    grid_cells,
    ideal_handle,
    ink_on,
    marks_of,
    series_of,
    set_log,
    spreads,
    status_words,
)
from parallel_tunes.reports.scaling.tables import medians, purpose, three_figures, time_unit

PARTS = {
    "data": (SKY, "///"),
    "compute": (BLUE, ""),
    "communication": (ORANGE, "\\\\\\"),
    "evaluation": (AMBER, ""),
    "checkpoint": (GREY, "xxx"),
}


def draw_memory(metrics: Facts) -> Picture | None:
    """Peak memory of the largest rank: a bar for each batch beside each N."""
    cells = [cell for cell in grid_cells(metrics) if cell["peak_memory_mib"]]
    if not cells:
        return None
    marks = {series: mark for series, mark in marks_of(metrics).items() if series in set(map(series_of, cells))}
    numbers = sorted({cell["gpus"] for cell in cells})
    is_wide = len(marks) * len(numbers) > 12
    has_room = len(marks) * len(numbers) <= (20 if is_wide else 8)
    width = 0.84 / len(marks)
    drawing, axes = plt.subplots(figsize=(WIDE, 3.6) if is_wide else SMALL, layout="constrained")
    for cell in cells:
        place, mark = list(marks).index(series_of(cell)), marks[series_of(cell)]
        at = numbers.index(cell["gpus"]) + (place - (len(marks) - 1) / 2) * width
        peak, is_whole = max(cell["peak_memory_mib"]), cell["status"] == "ok"
        axes.bar(
            at, peak, 0.9 * width, facecolor=mark.colour if is_whole else "white", hatch=mark.hatch,
            edgecolor="white" if is_whole else mark.colour, linestyle="-" if is_whole else "--",
        )  # fmt: skip
        words = three_figures(peak) + ("" if is_whole else f"{chr(10) if has_room else ' '}{cell['status']}")
        axes.annotate(
            words, (at, peak), (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=9,
            rotation=0 if has_room else 90,
        )  # fmt: skip
    axes.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axes.set_xlim(-0.5, len(numbers) - 0.5)
    axes.set_ylim(0, (1.2 if has_room else 1.35) * max(max(cell["peak_memory_mib"]) for cell in cells))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=f"{metrics['unit']}s", ylabel="peak memory, largest rank (MiB)")
    add_legend(
        drawing, [Patch(facecolor=m.colour, edgecolor="white", hatch=m.hatch, label=m.name) for m in marks.values()]
    )
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: {three_figures(max(cell['peak_memory_mib']))} MiB"
        + ("" if cell["status"] == "ok" else f", {status_words(cell)}")
        for cell in cells
    )
    caption = "The largest peak of any rank. Dashed outline: a cell that ran out of memory or failed."
    return Picture(drawing, "Peak memory", alt, caption, is_wide)


def draw_split(metrics: Facts) -> Picture | None:
    """Where the time of an epoch goes: a bar a cell, in shares."""
    cells = [cell for cell in metrics["cells"] if cell["status"] == "ok" and cell["split"]]
    cells = [cell for cell in cells if sum(cell["split"].values()) > 0]
    if not cells:
        return None
    drawing, axes = plt.subplots(figsize=(WIDE, 1.3 + 0.32 * len(cells)), layout="constrained")
    for row, cell in enumerate(cells):
        whole, left = sum(cell["split"].values()), 0.0
        for part, (colour, hatch) in PARTS.items():
            share = 100 * cell["split"].get(part, 0.0) / whole
            axes.barh(row, share, 0.74, left, facecolor=colour, edgecolor="white", hatch=hatch)
            if share >= 6:
                backing = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
                axes.text(
                    left + share / 2, row, f"{share:.0f} %", ha="center", va="center", fontsize=9, color=ink_on(colour),
                    bbox=backing,
                )  # fmt: skip
            left += share
        axes.annotate(
            f"{three_figures(whole)} s",
            (100, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(cells)), [cell_name(metrics, cell) for cell in cells])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 100)
    axes.margins(y=0.01)
    axes.set_xlabel("share of an epoch (%); on the right its seconds")
    add_legend(drawing, [Patch(facecolor=c, edgecolor="white", hatch=h, label=part) for part, (c, h) in PARTS.items()])
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: "
        + ", ".join(f"{part} {three_figures(cell['split'].get(part, 0.0))} s" for part in PARTS)
        for cell in cells
    )
    caption = "Communication: only what computing does not hide."
    return Picture(drawing, "Where the time of an epoch goes", alt, caption, is_wide=True)


def draw_targets(metrics: Facts) -> Picture | None:
    """Time to the target by cell, and how many launches reached it."""
    cells = [cell for cell in metrics["cells"] if cell["status"] == "ok" and cell["num_reached"] is not None]
    if metrics["mode"] != "target" or not any(cell["time_to_target_s"] for cell in cells):
        return None
    unit, unit_s = time_unit(cell["time_to_target_s"]["high"] for cell in cells if cell["time_to_target_s"])
    drawing, axes = plt.subplots(figsize=(WIDE, 1.2 + 0.32 * len(cells)), layout="constrained")
    for row, cell in enumerate(cells):
        words = f"{cell['num_reached']} of {cell['n']}"
        if found := cell["time_to_target_s"]:
            middle, spread = spreads([found], 1 / unit_s)
            axes.errorbar(middle, [row], xerr=spread, color=BLUE, marker="o", capsize=3, linestyle="none")
        else:
            words += ": none reached it"
        axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(cells)), [cell_name(metrics, cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.set_xlabel(
        f"time to a validation accuracy of {metrics['target']:g} ({unit}); on the right how many reached it"
    )
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: {cell['num_reached']} of {cell['n']} reached it"
        + (f", {three_figures(found['median'] / unit_s)} {unit}" if (found := cell["time_to_target_s"]) else "")
        for cell in cells
    )
    caption = "Evaluations included. Dots: medians of the launches that reached it; bars: 95 % intervals."
    return Picture(drawing, "Time to the target", alt, caption, is_wide=True)


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
    axes.plot(*zip(*(points[at] for at in kept), strict=True), color=GREY, linewidth=3, alpha=0.6, zorder=1)
    for at, (cell, point) in enumerate(zip(cells, points, strict=True)):
        mark = marks[series_of(cell)]
        face = mark.colour if at in kept else "white"
        axes.plot(*point, marker=mark.marker, markersize=8, markerfacecolor=face, markeredgecolor=mark.colour, zorder=3)
        axes.annotate(str(cell["gpus"]), point, (6, 4), textcoords="offset points", fontsize=9.5)
    for axis, values in zip("xy", zip(*points, strict=True), strict=True):
        if max(values) > 4 * min(values):
            set_log(axes, axis)
    axes.margins(0.12)
    axes.set(xlabel=f"time for {purpose(metrics)} ({spell})", ylabel=f"cost ({unit}-hours)")
    shown = {series: mark for series, mark in marks.items() if series in set(map(series_of, cells))}
    handles = [Line2D([], [], color=m.colour, marker=m.marker, linestyle="none", label=m.name) for m in shown.values()]
    add_legend(drawing, [*handles, ideal_handle("no cell beats these in both")])
    alt = "; ".join(
        f"{cell_name(metrics, cell)}: {three_figures(x)} {spell}, {three_figures(y)} {unit}-hours"
        + (", on the frontier" if at in kept else "")
        for at, (cell, (x, y)) in enumerate(zip(cells, points, strict=True))
    )
    caption = f"Medians; the number is that of {unit}s. Filled and joined: no other cell is both faster and cheaper."
    return Picture(drawing, "Time against cost", alt, caption, is_wide=True)
