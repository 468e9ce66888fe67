"""The page of task=popularity and of the genre SVM: scores beside baselines, splits, coefficients and the solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from parallel_tunes.reports.numbers import decimals, interval_words, percent, show_ends
from parallel_tunes.reports.page import render_page, to_png
from parallel_tunes.reports.popularity_figures import (
    ACCURACY,
    AUC,
    Panel,
    Scored,
    draw_candidates,
    draw_coefficients,
    draw_reliability,
    draw_scores,
)
from parallel_tunes.reports.scaling.look import LOOK, SMALL, WIDE, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import DASH, Table, Value, three_figures
from parallel_tunes.reports.training import draw_confusion
from parallel_tunes.run import Run

COLUMNS = {
    "accuracy": "accuracy", "auc": "AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1", "loss": "log-loss (nats)",
    "brier": "Brier score", "r2": "R²", "rmse": "RMSE (points)", "mae": "MAE (points)", "smape": "sMAPE", "mape": "MAPE",
}  # fmt: skip
PANELS = {
    "binary": [AUC, ACCURACY],
    "regression": [
        Panel("r2", "R²", 0.0, "R² of these tracks' own mean"),
        Panel("rmse", "RMSE (points of popularity)"),
    ],
    "genre": [ACCURACY, Panel("balanced_accuracy", "balanced accuracy")],
}
BASELINES = {
    "majority": "the commonest class of training",
    "mean": "the mean of training",
    "year_only": "regression on the year alone",
    "linear_regression": "linear regression",
    "linear_regression_and_year": "regression with the year",
}
SPLITS = {"random": "random", "grouped": "grouped by artist", "time": "time"}
MAIN_COLUMNS = ("accuracy", "auc", "balanced_accuracy", "r2", "rmse", "mae")


def write(run: Run, report: dict[str, Any]) -> None:
    """Write the figures and report.html of a train or evaluate run."""
    split = report["split"].get("name", "test")
    found = report["metrics"].get(split)
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = draw(report, split, found)
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    facts = {
        "report": report, "split": split, "found": found, "pictures": pictures, "tables": tabulate(report, found),
    }  # fmt: skip
    filters = {"share": percent, "number": decimals, "ends": interval_words}
    run.write_bytes("report.html", render_page("popularity.html", facts, images, filters).encode())


def draw(report: Facts, split: str, found: Facts | None) -> dict[str, Picture]:
    """Every figure that there is something for, by its file's name."""
    pictures: dict[str, Picture] = {}
    panels, solver, coefficients = PANELS[report["target"]], report.get("solver"), report.get("coefficients")
    if beside := list_baselines(report, found):
        caption = f"{split.capitalize()} tracks; bars: 95 % intervals. Baselines learnt from the same training tracks."
        pictures["baselines.png"] = draw_scores("Scores of the model and of baselines", beside, panels, caption)
    steps = list_protocols(report)
    if any(step.judged for step in steps):
        caption = "The same model under each split; bars: 95 % intervals over tracks (random split) or groups of artists (others)."
        pictures["protocols.png"] = draw_scores("Scores under each split", steps, panels, caption)
    if coefficients and len(coefficients["columns"]) == 1:
        ends = ("less popular", "more popular") if report["target"] != "genre" else tuple(report["classes"][:2])
        pictures["coefficients.png"] = draw_coefficients(coefficients["columns"][0], coefficients["unit"], ends)
    if found and "confusion" in found:
        pictures["confusion_matrix.png"] = show_confusion(found["confusion"], split)
    if found and found.get("reliability"):
        pictures["calibration.png"] = draw_reliability(found, report["classes"][1])
    if solver and solver["candidates"]:
        pictures["choice_of_c.png"] = draw_candidates(solver, report["score"])
    return pictures


def show_confusion(confusion: Facts, split: str, units: str = "tracks") -> Picture:
    """Counts of tracks, or other units; a row of the page for many classes."""
    drawing = draw_confusion(confusion, split, units)
    is_wide = len(confusion["labels"]) > 6
    width, height = drawing.get_size_inches()
    drawing.set_size_inches(max(width, WIDE if is_wide else SMALL[0]), max(height, SMALL[1]))
    alt = f"Counts of {units} by true and predicted class."
    return Picture(drawing, "Confusion", alt, "Shaded by the share of the true class.", is_wide)


def list_baselines(report: Facts, found: Facts | None) -> list[Scored]:
    """The model and what it stands beside; none where there are no baselines."""
    if not found or not report.get("baselines"):
        return []
    has_year = "year" in report["features"]
    beside = [Scored(BASELINES[name], judged, "year" in name, False) for name, judged in report["baselines"].items() if judged]  # fmt: skip
    return [Scored("support vector machine", found, has_year), *beside]


def list_protocols(report: Facts) -> list[Scored]:
    """Each split, without and with the year."""
    return [
        Scored(f"{SPLITS[row['split']]}, {'with' if row['year'] else 'without'} year", row["test"], row["year"])
        for row in report.get("protocols") or []
    ]


def tabulate(report: Facts, found: Facts | None) -> dict[str, Table]:
    """The tables of the page, by what they are of."""
    tables = {}
    if beside := list_baselines(report, found):
        tables["baselines"] = score_table("The model beside baselines", beside)
    if steps := list_protocols(report):
        tables["protocols"] = protocol_table(steps, report["protocols"])
    if report.get("coefficients"):
        tables["coefficients"] = coefficient_table(report["coefficients"]["columns"])
    if report.get("solver", {}).get("solutions"):
        tables["solver"] = solver_table(report)
    if "tracks" in report["split"]:
        tables["split"] = split_table(report["split"])
    return tables


def score_table(
    title: str, rows: Sequence[Scored], columns: Sequence[str] = tuple(COLUMNS), heads: Mapping[str, str] = COLUMNS
) -> Table:
    """Every score that a row has, its interval below it."""
    keys = [key for key in columns if any(row.judged and key in row.judged for row in rows)]
    cells = [[Value(row.name), *(_score(row.judged or {}, key) for key in keys)] for row in rows]
    return Table(title, ["", *(heads[key] for key in keys)], cells)


def protocol_table(steps: Sequence[Scored], rows: Sequence[Facts]) -> Table:
    """Scores under each split; what could not be drawn says why."""
    table = score_table("Splits, without and with the year", steps, MAIN_COLUMNS)
    has_classes = any(step.judged and "majority_share" in step.judged for step in steps)
    heads = [*table.heads, *(["commonest class"] if has_classes else []), "n", "C", "threshold"]
    cells = []
    for line, row in zip(table.rows, rows, strict=True):
        test, threshold = row["test"] or {}, row.get("threshold")
        share = [_score(test, "majority_share")] if has_classes else []
        size = Value(f"{test['n']}", f"{test['num_groups']} groups" if test.get("num_groups") else "") if test else Value(DASH)  # fmt: skip
        rest = [Value(f"{row['C']:g}" if test else DASH), Value(DASH if threshold is None else f"{threshold:g}")]
        cells.append([*line, *share, size, *rest])
    if not any(row.get("threshold") is not None for row in rows):
        heads, cells = heads[:-1], [line[:-1] for line in cells]
    return Table(table.title, heads, cells)


def coefficient_table(columns: Sequence[Facts]) -> Table:
    """A row a feature, a column a class; the interval below each coefficient."""
    rows = [
        [Value(cells[0]["feature"]), *(Value(decimals(cell["value"]), show_ends(cell["ci95"])) for cell in cells)]
        for cells in zip(*(column["coefficients"] for column in columns), strict=True)
    ]
    return Table("Coefficients", ["feature", *(column["name"] for column in columns)], rows)


def solver_table(report: Facts) -> Table:
    """What each machine ended with."""
    solutions = report["solver"]["solutions"]
    names = [column["name"] for column in (report.get("coefficients") or {"columns": []})["columns"]]
    names = names if len(names) == len(solutions) else [f"machine {at + 1}" for at in range(len(solutions))]
    rows = [
        [
            Value(name), Value(f"{made['objective']:.7g}"), Value(f"{made['bound']:.7g}"),
            Value("none proven" if made["gap"] is None else f"{made['gap']:.2g}"), Value(str(made["iterations"])),
            Value(three_figures(1000 * made["seconds"])), Value("yes" if made["is_certified"] else "no"),
        ]
        for name, made in zip(names, solutions, strict=True)
    ]  # fmt: skip
    heads = ["machine", "objective", "lower bound", "relative gap", "passes", "time (ms)", "certified"]
    return Table("Solutions", heads, rows)


def split_table(split: Facts) -> Table:
    """Tracks, groups and years of each split."""
    groups, years = split["groups"] or {}, split["years"] or {}
    rows = []
    for name, number in split["tracks"].items():
        span = years.get(name)
        words = (name, str(number), str(groups.get(name, DASH)), f"{span[0]} to {span[1]}" if span else DASH)
        rows.append([Value(text) for text in words])
    return Table("Splits", ["split", "tracks", "groups of artists", "years"], rows)


def _score(judged: Facts, key: str) -> Value:
    value, interval = judged.get(key), judged.get(f"{key}_ci95")
    show = percent if key in ("smape", "mape", "majority_share") else decimals
    return Value(
        DASH if value is None else show(value), show_ends(interval, show) if interval and value is not None else ""
    )
