"""What benchmark suite=splits found: how much of an accuracy is the protocol's, on one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib

from parallel_tunes.reports.page import BLUE, render_page, to_png
from parallel_tunes.reports.popularity_words import (
    ACCURACY,
    contrast_words,
    decimals,
    interval_words,
    percent,
    show_ends,
)
from parallel_tunes.reports.relisten_figures import Look, draw_dots
from parallel_tunes.reports.relisten_words import whole
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import Table, Value
from parallel_tunes.run import Run

# what a rung takes away from the ones above it
TAKEN = {
    "tracks": "What goes are the recordings themselves: of segments dealt at random nearly every track has some to learn from and "
    "some to be judged by, and a model need only know it again",
    "unique": "What goes are copies: the same recording under two names, one to learn from and one to be judged by",
    "lists": "What goes are the faults that were found in GTZAN, and artists on both sides: its published lists leave out "
    "repetitions and distortions and keep artists apart",
    "artists": "What goes are the artists: of tracks dealt at random most are by artists that others of the tracks learnt from "
    "are by, and a model need only know their sound",
}


def write(run: Run, report: dict[str, Any]) -> None:
    """Write ladder.png and report.html."""
    rows = report["metrics"]["rows"]
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = {"ladder.png": draw(rows, run.config["model"]["name"])} if rows else {}
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    facts = {
        "report": report, "rows": rows, "pictures": pictures, "table": tabulate(rows), "steps": step_words(rows),
        "end_to_end": end_words(rows), "caveats": caveat_words(rows, report["segment_s"]), "model": run.config["model"]["name"],
    }  # fmt: skip
    filters = {"number": decimals, "ends": interval_words, "whole": whole, "begin": _begin}
    run.write_bytes("report.html", render_page("ladder.html", facts, images, filters).encode())


def draw(rows: Sequence[Facts], model: str) -> Picture:
    """The accuracy under each protocol, with its interval."""
    names = [f"{row['name']}, n = {whole(row['n'])}" for row in rows]
    caption = (
        "The same model and recipe, learnt and judged under each protocol; bars: 95 % intervals, drawn over "
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


def step_words(rows: Sequence[Facts]) -> list[str]:
    """What each step of the ladder takes."""
    return [
        f"{_begin(before['name'])} → {after['name']}. {TAKEN[after['rung']]}: {_contrast(after, before, 'the step before')}"
        for before, after in pairwise(rows)
    ]


def _begin(words: str) -> str:
    return words[0].upper() + words[1:]


def end_words(rows: Sequence[Facts]) -> str | None:
    """The last rung beside the first; None where there is but one."""
    if len(rows) < 2:
        return None
    return f"From end to end: {_contrast(rows[-1], rows[0], rows[0]['name'])}"


def _contrast(row: Facts, other: Facts, than: str) -> str:
    return contrast_words(ACCURACY, row, other, than) or "not judged."


def caveat_words(rows: Sequence[Facts], segment_s: float) -> list[str]:
    """What to keep in mind: which tracks each rung is judged by, and what it learnt from."""
    words = [
        "Each rung is judged by other tracks than the one above it, and learns from others: a step compares protocols, not models."
    ]
    if rows and rows[0]["rung"] == "segments":
        words.append(
            f"Segments are {segment_s:g} s long and judged one by one, as is common, where tracks are judged by all "
            "of their windows: that alone makes the first rung read lower. They are taken for independent, which they are not: "
            f"their interval is too narrow. Their training has {rows[0]['num_epochs']} epochs, about as many steps as the others. "
            "On the rung's own page they are called tracks."
        )
    if chosen := [row["name"] for row in rows if row["judged_by"] == "valid"]:
        words.append(
            f"Judged by the validation split, since no tracks were left to test by: {', '.join(chosen)}. That split also chose "
            "which epoch's model is kept: on others it would read a little lower."
        )
    return words
