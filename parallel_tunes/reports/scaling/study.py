"""What a scaling study found: figures as PNG and SVG, tables to copy from, one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import matplotlib

from parallel_tunes.reports.page import render_page, to_png, to_svg
from parallel_tunes.reports.scaling.costs import draw_memory, draw_noise, draw_split, draw_targets
from parallel_tunes.reports.scaling.formats import to_csv, to_extrap, to_latex, to_markdown
from parallel_tunes.reports.scaling.frontier import draw_frontier
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, cell_name, count, quietly, status_words
from parallel_tunes.reports.scaling.speed import draw_efficiency, draw_preprocessing, draw_speedup, draw_throughput
from parallel_tunes.reports.scaling.tables import (
    all_tables,
    fit_table,
    noise_table,
    three_figures,
    time_unit,
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
    "noise_scale": draw_noise,
    "preprocessing": draw_preprocessing,
}


def write(run: Run, report: dict[str, Any], rows: Iterable[Facts]) -> None:
    """Write each figure as a PNG and an SVG, cells.md, cells.tex, cells.csv, report.html, and extrap.json if any step was timed.

    Args:
        report: as report.json, whose `metrics` hold the study.
        rows: a launch each, with its step times.
    """
    metrics = report["metrics"]
    pictures, images = {}, {}
    with quietly(), matplotlib.rc_context(LOOK):
        for name, draw in FIGURES.items():
            if picture := draw(metrics):
                pictures[name], images[name] = picture, to_svg(picture.drawing)
                run.write_bytes(f"{name}.svg", images[name])
                run.write_bytes(f"{name}.png", to_png(picture.drawing))
    tables = all_tables(metrics)
    run.write_bytes("cells.md", to_markdown(tables).encode())
    run.write_bytes("cells.tex", to_latex(tables).encode())
    run.write_bytes("cells.csv", to_csv(metrics).encode())
    for name, text in to_extrap(rows).items():
        run.write_bytes(name, text.encode())
    run.write_bytes("report.html", render(report, pictures, images).encode())


def render(report: dict[str, Any], pictures: dict[str, Picture], images: dict[str, bytes]) -> str:
    """The HTML page: self-contained, every text from outside escaped."""
    metrics = report["metrics"]
    absent = [(cell_name(metrics, cell), cell) for cell in metrics["cells"] if cell["status"] != "ok"]
    absent += [
        (cell["name"], cell) for cell in (metrics["preprocess"] or {"cells": []})["cells"] if cell["status"] != "ok"
    ]
    facts = {
        "report": report,
        "metrics": metrics,
        "headline": headline_of(metrics),
        "pictures": pictures,
        "absent": absent,
        "tables": all_tables(metrics),
        "fits": fit_table(metrics),
        "noise": noise_table(metrics),
        "machines": group_machines(report["machines"]),
    }
    return render_page("scaling/study.html", facts, images, {"status": status_words, "figures": three_figures})


def headline_of(metrics: Facts) -> tuple[str, str] | None:
    """The one number of the study and what it is, or None where the first advice must do."""
    launches = "launch" if metrics["num_launches"] == 1 else "launches"
    cells = [cell for cell in metrics["cells"] if cell["status"] == "ok"]
    if metrics["mode"] == "target" and (reached := [cell for cell in cells if cell["time_to_target_s"]]):
        best = min(reached, key=lambda cell: cell["time_to_target_s"]["median"])
        spell, spell_s = time_unit([best["time_to_target_s"]["median"]])
        number = f"{three_figures(best['time_to_target_s']['median'] / spell_s)} {spell}"
        words = f"to a validation accuracy of {metrics['target']:g} with {cell_name(metrics, best)}"
        return (
            number,
            f"{words}; {_interval(best['time_to_target_s'], 1 / spell_s)}, reached by {best['num_reached']} of {best['n']}",
        )
    if sped := [cell for cell in cells if cell["speedup"] and cell["gpus"] > 1]:
        best = max(sped, key=lambda cell: cell["speedup"]["median"])
        words = f"speed-up over one {metrics['unit']}: {cell_name(metrics, best)}"
        return (
            f"{three_figures(best['speedup']['median'])} ×",
            f"{words}; {_interval(best['speedup'])}, n = {best['n']} {launches}",
        )
    made = [
        cell for cell in (metrics["preprocess"] or {"cells": []})["cells"] if cell["status"] == "ok" and cell["speedup"]
    ]
    if made:
        best = max(made, key=lambda cell: cell["speedup"]["median"])
        words = f"speed-up over serial librosa: {count(best['engines'], 'engine')}"
        return (
            f"{three_figures(best['speedup']['median'])} ×",
            f"{words}; {_interval(best['speedup'])}, n = {best['n']} {launches}",
        )
    return None


def _interval(found: Facts, times: float = 1.0) -> str:
    return f"95 % interval {three_figures(times * found['low'])} to {three_figures(times * found['high'])}"


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
