"""How the time of each back end of the SVM grows with the problem, and from where on a GPU begins to pay."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from parallel_tunes.reports.scaling.look import MARKS, set_log


def draw_growth(svm: dict[str, Any]) -> Figure:
    """Seconds to the certified gap against rows × features, a line a back end; what was cut stands at the top edge.

    Args:
        svm: metrics.svm of a report.
    """
    drawing, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    rows = list(dict.fromkeys(found["row"] for found in svm["solved"]))
    for row, (colour, marker, dashes) in zip(rows, MARKS, strict=False):
        mine = sorted(
            (found["num_rows"] * found["num_features"], found["ms"] / 1000)
            for found in svm["solved"]
            if found["row"] == row
        )
        what = next(found["what"] for found in svm["solved"] if found["row"] == row)
        axes.plot(*zip(*mine, strict=True), color=colour, marker=marker, linestyle=dashes, label=what)
        with_copy = [
            (found["num_rows"] * found["num_features"], found["ms"] / 1000 + found["transfer_s"])
            for found in svm["solved"]
            if found["row"] == row and found["transfer_s"]
        ]
        if with_copy:
            copied = f"{what}, and the copy to it"
            axes.plot(
                *zip(*sorted(with_copy), strict=True),
                color=colour,
                marker=marker,
                linestyle=":",
                alpha=0.6,
                label=copied,
            )
    set_log(axes, "x", [found["num_rows"] * found["num_features"] for found in svm["solved"]])
    set_log(axes, "y")
    axes.set(xlabel="rows × features, logarithmic", ylabel="time to the certified gap (s), logarithmic")
    axes.margins(0.06)
    handles = [handle for handle in axes.get_legend_handles_labels()[0] if isinstance(handle, Line2D)]
    found = svm["crossover"]
    if found and found["values"]:
        axes.axvline(found["values"], color="black", linewidth=1)
        axes.annotate(
            f"the GPU pays from here: {found['values']:,.0f}", (found["values"], 1), xycoords=("data", "axes fraction"),
            xytext=(4, -12), textcoords="offset points", fontsize=9,
        )  # fmt: skip
    axes.legend(handles=handles, frameon=False, fontsize=9, loc="upper left")
    return drawing
