"""The figure of two scaling studies side by side."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from parallel_tunes.reports.page import GREEN, GREY, ORANGE
from parallel_tunes.reports.scaling.look import WIDE, Facts, Picture, add_legend, spreads
from parallel_tunes.reports.scaling.tables import three_figures

WORDS = {"faster": (GREEN, "^"), "slower": (ORANGE, "v"), "cannot be told apart": (GREY, "o")}
NAMES = {"faster": "B is faster", "slower": "B is slower", "cannot be told apart": "they cannot be told apart"}


def draw_ratios(metrics: Facts) -> Picture | None:
    """How many times as quick B is as A, a dot a cell."""
    cells = metrics["cells"]
    if not cells:
        return None
    drawing, axes = plt.subplots(figsize=(WIDE, 1.2 + 0.32 * len(cells)), layout="constrained")
    axes.axvline(1, color=GREY, linewidth=2)
    for row, cell in enumerate(cells):
        middle, spread = spreads([cell["ratio"]])
        colour, marker = WORDS[cell["words"]]
        axes.errorbar(
            middle, [row], xerr=spread, color=colour, marker=marker, capsize=3, markersize=7, linestyle="none"
        )
        words = f"{three_figures(cell['ratio']['median'])} ×"
        axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(cells)), [cell["name"] for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("rate of B divided by that of A (to the right of the line B is faster)")
    used = {cell["words"] for cell in cells}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=NAMES[words])
        for words, (colour, marker) in WORDS.items()
        if words in used
    ]
    add_legend(drawing, handles)
    alt = "; ".join(
        f"{cell['name']}: {three_figures(cell['ratio']['median'])} times, {cell['words']}" for cell in cells
    )
    caption = (
        "A dot a cell, with the 95 % interval of the ratio. Where the interval holds 1, the two cannot be told apart."
    )
    return Picture(drawing, "B against A", alt, caption, is_wide=True)
