"""The report of a scaling study, or of two side by side: figures, tables, one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import pandas as pd

from parallel_tunes.reports.page import render_page, to_png
from parallel_tunes.reports.scaling.comparison import draw_ratios
from parallel_tunes.reports.scaling.costs import draw_frontier, draw_memory, draw_split, draw_targets
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, cell_name, quietly, status_words
from parallel_tunes.reports.scaling.speed import draw_efficiency, draw_preprocessing, draw_speedup, draw_throughput
from parallel_tunes.reports.scaling.tables import (
    Table,
    all_tables,
    comparison_table,
    count,
    fit_table,
    purpose,
    time_unit,
    told,
)
from parallel_tunes.run import Run

FIGURES: dict[str, Callable[[Facts], Picture | None]] = {
    "speedup": draw_speedup,
    "efficiency": draw_efficiency,
    "throughput": draw_throughput,
    "peak_memory": draw_memory,
    "epoch_split": draw_split,
    "time_to_target": draw_targets,
    "frontier": draw_frontier,
    "preprocessing": draw_preprocessing,
}


def write(run: Run, report: dict[str, Any]) -> None:
    """Write each figure as a PNG, cells.tex, cells.csv and report.html.

    Args:
        report: as report.json, whose `metrics` hold the study, or the comparison of two.
    """
    metrics, is_pair = report["metrics"], "a" in report["metrics"]
    pictures, images = {}, {}
    with quietly(), matplotlib.rc_context(LOOK):
        for name, draw in {"ratio": draw_ratios}.items() if is_pair else FIGURES.items():
            if picture := draw(metrics):
                pictures[name], images[name] = picture, to_png(picture.drawing)
                run.write_bytes(f"{name}.png", images[name])
    tables = [comparison_table(metrics)] if is_pair else all_tables(metrics)
    run.write_bytes("cells.tex", to_latex(tables).encode())
    run.write_bytes("cells.csv", to_csv(metrics).encode())
    facts = {"report": report, "metrics": metrics, "pictures": pictures, "tables": tables}
    if is_pair:
        page = render_page("scaling/comparison.html", facts, images)
    else:
        page = render_page("scaling/study.html", facts | study_facts(report), images, {"status": status_words})
    run.write_bytes("report.html", page.encode())


def study_facts(report: dict[str, Any]) -> Facts:
    """What the page of a study shows besides its figures and its tables of cells."""
    metrics = report["metrics"]
    every = [(cell_name(metrics, cell), cell) for cell in metrics["cells"]]
    every += [(cell["name"], cell) for cell in (metrics["preprocess"] or {"cells": []})["cells"]]
    return {
        "advice": advise(metrics),
        "absent": [(name, cell) for name, cell in every if cell["status"] != "ok" or cell["num_failed"]],
        "fits": fit_table(metrics),
        "machines": group_machines(report["machines"]),
    }


def advise(metrics: Facts) -> list[str]:
    """The recommended cell with its interval and the reason; the fastest one if it is another; the best engines."""
    cells, lines = {cell["name"]: cell for cell in metrics["cells"]}, []
    chosen, cheapest, fastest = (cells.get(metrics[key]) for key in ("recommended", "cheapest", "fastest"))
    if chosen and cheapest and fastest:
        reason = "the lowest cost" + (" and the shortest time" if chosen is fastest else "")
        if chosen is not cheapest:
            reason = (
                f"the fastest of those whose cost interval overlaps the cheapest's ({cell_name(metrics, cheapest)})"
            )
        lines.append(f"Recommended for {purpose(metrics)}: {_describe(metrics, chosen)}; {reason}")
        if fastest is not chosen:
            lines.append(f"Fastest: {_describe(metrics, fastest)}")
    elif cells:
        lines.append(f"No cell has a result for {purpose(metrics)}")
    made = [cell for cell in (metrics["preprocess"] or {"cells": []})["cells"] if cell["tracks_per_s"]]
    if made:
        best = max(made, key=lambda cell: cell["tracks_per_s"]["median"])
        gain = f", {told(best['speedup'], 'times librosa in one process')}" if best["speedup"] else ""
        rate = told(best["tracks_per_s"], "tracks/s")
        lines.append(f"Preprocessing: {best['name']}, {rate}{gain}, n = {count(best['n'], 'launch', 'es')}")
    return lines


def _describe(metrics: Facts, cell: Facts) -> str:
    """A cell with its cost, its time and their intervals."""
    is_target = metrics["mode"] == "target"
    cost, time = (
        cell[key] for key in (("gpu_hours_to_target", "time_to_target_s") if is_target else ("gpu_hours", "train_s"))
    )
    unit, unit_s = time_unit([time["median"]])
    n = cell["num_reached"] if is_target else cell["n"]
    return (
        f"{cell_name(metrics, cell)}, {told(cost, metrics['unit'] + '-hours')}, {told(time, unit, 1 / unit_s)},"
        f" n = {count(n, 'launch', 'es')}"
    )


def to_frame(table: Table) -> pd.DataFrame:
    """A table whose intervals stand in brackets behind their medians."""
    rows = [[f"{text} ({spread})" if spread else text for text, spread in row] for row in table.rows]
    return pd.DataFrame(rows, columns=table.heads)


def to_latex(tables: list[Table]) -> str:
    """The tables for a paper; they need the package booktabs."""
    return "\n".join(to_frame(table).to_latex(index=False, escape=True, caption=table.title) for table in tables)


def to_csv(metrics: Facts) -> str:
    """A row a cell with all its figures, in the units of report.json; an interval is three columns."""
    cells = [*metrics["cells"], *(metrics.get("preprocess") or {"cells": []})["cells"]]
    return pd.json_normalize(cells, sep="_").to_csv(index=False)


def to_lines(report: dict[str, Any]) -> Iterator[str]:
    """The first table and the recommendation as plain text."""
    metrics, is_pair = report["metrics"], "a" in report["metrics"]
    for table in ([comparison_table(metrics)] if is_pair else all_tables(metrics))[:1]:
        yield from to_frame(table).to_string(index=False).splitlines()
    yield from [] if is_pair else ["", *advise(metrics)]


def group_machines(machines: list[Facts]) -> list[tuple[list[str], Facts]]:
    """Machines that differ in nothing but their name, told once: the names and what they share."""
    groups: list[tuple[list[str], Facts]] = []
    for machine in machines:
        facts = {key: value for key, value in machine.items() if key != "host"}
        names = next((names for names, known in groups if known == facts), None)
        if names is None:
            groups.append(([machine["host"]], facts))
        else:
            names.append(machine["host"])
    return groups
