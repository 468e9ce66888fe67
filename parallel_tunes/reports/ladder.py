"""What benchmark suite=splits found: how much of an accuracy is the protocol's, on one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib

from parallel_tunes.reports.numbers import decimals, interval_words, percent, show_ends, whole
from parallel_tunes.reports.page import BLUE, render_page, to_png
from parallel_tunes.reports.popularity_figures import ACCURACY
from parallel_tunes.reports.relisten_figures import Look, draw_dots
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import Table, Value
from parallel_tunes.run import Run


def write(run: Run, report: dict[str, Any]) -> None:
    """Write ladder.png and report.html."""
    rows = report["metrics"]["rows"]
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = {"ladder.png": draw(rows, run.config["model"]["name"])} if rows else {}
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    facts = {
        "report": report, "rows": rows, "pictures": pictures, "table": tabulate(rows), "model": run.config["model"]["name"],
    }  # fmt: skip
    filters = {"number": decimals, "ends": interval_words, "whole": whole}
    run.write_bytes("report.html", render_page("ladder.html", facts, images, filters).encode())


def draw(rows: Sequence[Facts], model: str) -> Picture:
    """The accuracy under each protocol, with its interval."""
    names = [f"{row['name']}, n = {whole(row['n'])}" for row in rows]
    caption = (
        "The same model and recipe under each protocol; bars: 95 % intervals, drawn over "
        f"{', '.join(dict.fromkeys(drawn_over(row) for row in rows))}."
    )
    return draw_dots("What each protocol reads", names, {Look(model, BLUE, "o"): rows}, [ACCURACY], caption)


def drawn_over(row: Facts) -> str:
    """What an interval's resamples are drawn of."""
    return row["unit"] if row["num_groups"] is None else "artists or other groups"


def tabulate(rows: Sequence[Facts]) -> Table:
    """A row a protocol: accuracy and its like with their intervals, of how many, learnt from how many."""
    cells = []
    for row in rows:
        groups = "" if row["num_groups"] is None else f"of {whole(row['num_groups'])} groups"
        judged = Value("test") if row["judged_by"] == "test" else Value("validation", "selected on")
        seeds = [Value(str(len(row["seeds"])), f"± {row['seeds_deviation']:.3f}")] if "seeds" in row else []
        cells.append([
            Value(row["name"]), judged, Value(decimals(row["accuracy"]), show_ends(row["accuracy_ci95"])), *seeds,
            Value(decimals(row["macro_f1"])), Value(percent(row["majority_share"])),
            Value(f"{whole(row['n'])} {row['unit']}", groups), Value(f"{whole(row['num_train'])} {row['unit']}"),
            Value(f"{row['seconds']:.0f}"),
        ])  # fmt: skip
    seeds_head = ["seeds, deviation"] if rows and "seeds" in rows[0] else []
    scores = ["accuracy", *seeds_head, "macro F1", "commonest class"]
    heads = ["protocol", "judged by", *scores, "n", "learnt from", "time (s)"]
    return Table("The ladder", heads, cells, 2)
