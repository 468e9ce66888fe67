"""The figures of what it costs: memory, where the time of an epoch goes, time to target, noise scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
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
    ink_on,
    marks_of,
    series_of,
    set_log,
    spreads,
    status_words,
)
from parallel_tunes.reports.scaling.tables import three_figures, time_unit

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
    caption = "The most memory that the rank which held most ever held."
    if any(cell["status"] != "ok" for cell in cells):
        caption += " Dashed outline: what was held or wanted where it did not fit (oom) or failed."
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
    caption = (
        "What an epoch is spent on. Communication is only what computing does not hide: "
        "a step less the same step without gradient sums, and what ranks wait for each other besides."
    )
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
    caption = (
        "How long until the accuracy was reached, evaluations included. Dots: medians of the launches that reached it; "
        "bars: 95 % intervals."
    )
    return Picture(drawing, "Time to the target", alt, caption, is_wide=True)


def draw_noise(metrics: Facts) -> Picture | None:
    """The gradient noise scale by batch, beside the line where they are equal."""
    found = sorted(metrics["noise_scale"], key=lambda row: row["batch"])
    if not found:
        return None
    batches = [row["batch"] for row in found]
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    middle, spread = spreads(found)
    axes.errorbar(batches, middle, spread, color=BLUE, marker="o", capsize=3, label="gradient noise scale")
    ends = [min(batches) / 1.5, max(batches) * 1.5]
    axes.plot(ends, ends, color=GREY, linewidth=3, alpha=0.6, label="as large as the batch", zorder=1)
    set_log(axes, "x", batches)
    set_log(axes, "y")
    axes.set_xlim(*ends)
    axes.set(xlabel="global batch (samples)", ylabel="gradient noise scale (samples)")
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    alt = "; ".join(f"batch {row['batch']}: {three_figures(row['median'])} samples" for row in found)
    caption = (
        "Above the grey line the batch is smaller than the noise of its gradient: a larger batch still saves steps. "
        "Below it a larger batch mostly averages what is averaged already. Bars: 95 % intervals."
    )
    return Picture(drawing, "Gradient noise scale", alt, caption)
