"""What a benchmark found: the table as text, bars as PNGs, one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from parallel_tunes.reports.page import BLUE, ORANGE, SKY, STYLE, render_page, to_png
from parallel_tunes.reports.scaling.tables import three_figures
from parallel_tunes.run import Run

Cells = list[dict[str, Any]]
COLOURS = {"peer": ORANGE, "ours": BLUE, "part": SKY}
NAMES = {"peer": "peers", "ours": "ours", "part": "parts of ours"}
# groups that are drawn as clips or samples a second: longer bars are better
PER_SECOND = ("pipeline", "training", "ranks", "training_gpu", "relisten", "serving")
BARS: Any = STYLE | {"axes.grid.axis": "x", "axes.axisbelow": True}


def write(run: Run, report: dict[str, Any]) -> None:
    """Write a PNG for each group of cells, and report.html."""
    pictures = {}
    with matplotlib.rc_context(BARS):
        for group, cells in groups_of(report).items():
            pictures[group] = to_png(draw_bars(cells, group))
    for group, data in pictures.items():
        run.write_bytes(f"{group}.png", data)
    run.write_bytes("report.html", render(report, pictures).encode())


def groups_of(report: dict[str, Any]) -> dict[str, Cells]:
    """The cells by their group, in order."""
    cells: Cells = report["metrics"]["cells"]
    return {
        group: [cell for cell in cells if cell["group"] == group] for group in dict.fromkeys(c["group"] for c in cells)
    }


def to_lines(report: dict[str, Any]) -> Iterator[str]:
    """The tables as plain text."""
    metrics = report["metrics"]
    width = max(len(cell["what"]) for cell in metrics["cells"])
    for group, cells in groups_of(report).items():
        yield ""
        yield f"{metrics['groups'][group]}"
        unit = unit_of(cells)
        yield f"{'':{width}}  {f'ms a {unit}':>11}  {interval_name(metrics):>19}  {f'{unit}s/s':>9}  {'n':>5}"
        for cell in cells:
            interval = f"{three_figures(cell['low'])} to {three_figures(cell['high'])}"
            rate = three_figures(1000 / cell["median"])
            yield f"{cell['what']:{width}}  {three_figures(cell['median']):>11}  {interval:>19}  {rate:>9}  {cell['n']:>5}"
    yield ""
    width = max(map(len, metrics["ratios"]), default=0)
    for name, ratio in metrics["ratios"].items():
        low, high = metrics["intervals"][name]
        interval = f"{three_figures(low)} to {three_figures(high)}"
        yield f"{name:{width}}  {three_figures(ratio):>6} ×  {interval:>16}  {metrics['compared'][name]}"
    yield from tables_lines(metrics)
    yield from serving_lines(metrics)
    for found in metrics.get("svm", {}).get("cut", []):
        yield f"{found['row']} at {found['size']}: {found['reason']}"


def tables_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """Seconds, memory and what was learnt, as plain text."""
    if "tables" not in metrics:
        return
    yield ""
    whats = {cell["name"]: cell["what"] for cell in metrics["cells"]}
    peaks, seconds = metrics["peak_mib"], metrics["tables"]["seconds"]
    for name in (*seconds, *(name for name in peaks if name not in seconds)):
        time = f"{three_figures(seconds[name])} s" if name in seconds else ""
        peak = f"at most {peaks[name]:.0f} MiB held" if name in peaks else ""
        yield f"{whats[name]:46}  {time:>9}  {peak}".rstrip()
    if "auc" in metrics:
        yield ""
        yield f"AUC on {metrics['auc']['n']} later rows, {metrics['auc']['num_learnt']} rows learnt; at best {metrics['auc']['bayes']:.4f}"
        for name, found in metrics["auc"]["rows"].items():
            low, high = found["auc_ci95"]
            line = f"{whats[name]:46}  {found['auc']:.4f}  {low:.4f} to {high:.4f}  lr {found['lr']:g}"
            if "gain" in found:
                low, high = found["gain_ci95"]
                line += f"  {found['gain']:+.4f}, {low:+.4f} to {high:+.4f}, on {whats[found['gain_on']]}"
            yield line


def serving_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """How long clients waited, as plain text."""
    whats = {cell["name"]: cell["what"] for cell in metrics["cells"]}
    for name, found in metrics.get("serving", {}).items():
        waited = ", ".join(f"{share} % within {found[f'p{share}_ms'] or 0:.0f} ms" for share in (50, 99))
        answers = ", ".join(f"{num} × {status}" for status, num in found["statuses"].items())
        first, last = found["memory_mib"]
        yield f"{whats[name]}: {waited}; answers {answers}; memory {first} MiB at first, {last} MiB at last"


def unit_of(cells: Cells) -> str:
    """What is counted, one of them: clip, sample."""
    unit: str = cells[0]["unit"]
    return unit.removeprefix("ms a ")


def interval_name(metrics: dict[str, Any]) -> str:
    """`95 % interval`, or what so few repetitions reach."""
    level = metrics["interval_level"]
    return "95 % interval" if level >= 0.95 else f"range ({100 * level:.0f} %)"


def draw_bars(cells: Cells, group: str) -> Figure:
    """A bar a cell, with its interval and its number."""
    per_second = group in PER_SECOND

    def shown(ms: float) -> float:
        return 1000 / ms if per_second else ms

    drawing, axes = plt.subplots(figsize=(9, 1.2 + 0.3 * len(cells)), layout="constrained")
    at = np.arange(len(cells))
    medians = np.array([shown(cell["median"]) for cell in cells])
    ends = np.array([sorted((shown(cell["low"]), shown(cell["high"]))) for cell in cells]).T
    spread = np.abs(ends - medians)
    axes.barh(at, medians, 0.7, color=[COLOURS[cell["kind"]] for cell in cells], xerr=spread, error_kw={"linewidth": 1})
    for place in range(len(cells)):
        axes.annotate(
            three_figures(medians[place]),
            (ends[1][place], place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(at, [cell["what"] for cell in cells])
    axes.invert_yaxis()
    axes.margins(y=0.02)
    unit = unit_of(cells)
    words = f"{unit}s/s (longer is better)" if per_second else f"ms a {unit} (shorter is better)"
    if medians.max() > 100 * medians.min():  # else the short ones could not be seen
        axes.set_xscale("log")
        axes.set_xlim(float(ends.min()) / 2, 3 * float(ends.max()))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        words += ", logarithmic"
    else:
        axes.set_xlim(0, 1.12 * float(ends.max()))
    axes.set_xlabel(words)
    kinds = [kind for kind in COLOURS if kind in {cell["kind"] for cell in cells}]
    patches = [Patch(color=COLOURS[kind], label=NAMES[kind]) for kind in kinds]
    axes.legend(handles=patches, frameon=False, ncols=len(patches), loc="lower left", bbox_to_anchor=(0, 1))
    return drawing


def render(report: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The HTML page: self-contained, every text from outside escaped."""
    metrics = report["metrics"]
    facts = {"report": report, "metrics": metrics, "groups": groups_of(report), "interval": interval_name(metrics)}
    return render_page("benchmark.html", facts, pictures, {"figures": three_figures, "unit": unit_of})
