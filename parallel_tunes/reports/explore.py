"""The page of explore: figures as PNGs, duplicates as CSV, one HTML page."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from parallel_tunes.data.material import Findings, Floats, Material, list_labels
from parallel_tunes.reports import explore_figures as figures
from parallel_tunes.reports.numbers import decimals
from parallel_tunes.reports.page import render_page, to_png
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import DASH, Table, Value
from parallel_tunes.run import Run

MOST_SHOWN = 12  # labels in one figure
FEWEST = 2  # tracks behind a box
MEASURES = {"level_db": "Loudness", "tempo_bpm": "Tempo"}


def write(run: Run, report: dict[str, Any], material: Material, findings: Findings) -> None:
    """Write the figures, duplicates.csv and report.html."""
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = draw(report, material, findings)
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    if len(findings.duplicates):
        run.write_bytes("duplicates.csv", findings.duplicates.to_csv(index=False).encode(errors="surrogateescape"))
    facts = {"report": report, "pictures": pictures, "tables": tabulate(report)}
    run.write_bytes("report.html", render_page("explore.html", facts, images).encode())


def draw(report: Facts, material: Material, findings: Findings) -> dict[str, Picture]:
    """Every figure that there is data for, by its file's name."""
    frame, metrics, read = material.frame, report["metrics"], report["read"]
    pictures: dict[str, Picture | None] = {}
    if metrics["per_label"]:
        pictures["class_balance.png"] = figures.draw_balance(metrics["per_label"], metrics["num_unlabelled"])
    if metrics["num_groups"]:
        pictures["groups.png"] = figures.draw_groups(frame["group"].value_counts().to_list())
    if metrics["duration_s"]:
        pictures["durations.png"] = figures.draw_histogram(
            finite(frame, "duration_s"),
            "Durations",
            "duration (s)",
            "Durations of whole files." * bool(material.spectra),
        )
    units = {"level_db": read["level_unit"], "tempo_bpm": "tempo (beats a minute)"}
    notes = {"level_db": "", "tempo_bpm": _explain_tempo(read)}
    for name, title in MEASURES.items():
        if metrics[name]:
            pictures[f"{name.partition('_')[0]}.png"] = draw_measure(frame, name, title, units[name], notes[name])
    if material.spectra:
        pictures["spectrograms.png"] = figures.draw_spectra(material.spectra)
        pictures["spectra.png"] = figures.draw_profiles(material.spectra)
    pictures |= draw_components(material, findings)
    return {name: picture for name, picture in pictures.items() if picture}


def draw_components(material: Material, findings: Findings) -> dict[str, Picture | None]:
    """The figures of PCA."""
    components = findings.components
    if components is None:
        return {}
    sampled = material.frame["label"].iloc[material.rows]
    shown, labels = list_labels(sampled, MOST_SHOWN), sampled.to_list()
    names, points = figures.axis_names(components), components.scores[:, :2]
    pictures: dict[str, Picture | None] = {
        "scree.png": figures.draw_scree(components),
        "pca.png": figures.draw_scatter(points, labels, shown, names),
    }
    if len(shown) > 1:
        pictures["pca_labels.png"] = figures.draw_panels(points, labels, shown, names)
    if material.spectra:
        pictures["loadings.png"] = figures.draw_loadings(components, material.spectra)
    return pictures


def draw_measure(frame: pd.DataFrame, name: str, title: str, unit: str, note: str) -> Picture:
    """Boxes by label, or a histogram where there are no labels to compare."""
    shown = list_labels(frame["label"][np.isfinite(frame[name].to_numpy(np.float64))], MOST_SHOWN)
    values = {label: finite(frame[frame["label"] == label], name) for label in shown}
    values = {label: numbers for label, numbers in values.items() if len(numbers) >= FEWEST}
    if len(values) < 2:
        return figures.draw_histogram(finite(frame, name), title, unit, note)
    num = frame["label"].nunique()
    rest = f" The {len(values)} most frequent of {num} labels." if num > len(values) else ""
    return figures.draw_boxes(values, f"{title} by label", unit, note + rest)


def finite(frame: pd.DataFrame, name: str) -> Floats:
    """The numbers of a column that are known."""
    values: Floats = frame[name].to_numpy(np.float64)
    return np.asarray(values[np.isfinite(values)])


def _explain_tempo(read: Facts) -> str:
    if "frames_per_s" not in read:
        return "From the table."
    step = 120**2 / (60 * read["frames_per_s"])
    return (
        "Strongest period of the autocorrelation of onset strength (librosa.feature.tempo); may be half or double the perceived "
        f"tempo; resolution {step:.1f} near 120."
    )


def tabulate(report: Facts) -> dict[str, Table]:
    """The tables of the page."""
    metrics, read, tables = report["metrics"], report["read"], {}
    units = {"duration_s": "duration (s)", "level_db": read["level_unit"], "tempo_bpm": "tempo (beats a minute)"}
    rows = [
        [Value(unit), Value(f"{found['n']:,}"), *(Value(figures.show_number(found[end])) for end in ("min", "median", "max"))]
        for name, unit in units.items()
        if (found := metrics[name])
    ]  # fmt: skip
    if rows:
        tables["measures"] = Table("Measures", ["measure", "n", "least", "median", "largest"], rows)
    if report["left_out"]:
        tables["left_out"] = Table(
            "Left out", ["part", "reason"], [[Value(part), Value(why)] for part, why in report["left_out"].items()], 2
        )
    if "columns" in read:
        tables["columns"] = _column_table(read)
    if read.get("impossible"):
        rows = [
            [Value(row["reason"]), Value("; ".join(row["examples"])), Value(f"{row['num']:,}")]
            for row in read["impossible"]
        ]
        tables["impossible"] = Table("Impossible values", ["reason", "examples", "rows"], rows, 2)
    if pca := metrics.get("pca"):
        first, second = pca["loadings"]
        rows = [
            [Value(str(at + 1)), *(Value(f"{row['feature']} ({decimals(row['loading'], 2)})") for row in pair)]
            for at, pair in enumerate(zip(first, second, strict=True))
        ]
        tables["loadings"] = Table("Largest loadings", ["", "component 1", "component 2"], rows, 3)
    if metrics["duplicates"]:
        keys = ("num_sets", "num_tracks", "num_labels_differ")
        rows = [[Value(found["kind"]), *(Value(f"{found[key]:,}") for key in keys)] for found in metrics["duplicates"]]
        tables["duplicates"] = Table("Duplicates", ["kind", "sets", "tracks", "sets of differing labels"], rows)
    return tables


def _column_table(read: Facts) -> Table:
    """The contents of each column of a table."""
    rows = []
    for column in read["columns"]:
        ends = [column.get(end) for end in ("min", "median", "max")]
        faults = [column.get(key) for key in ("num_missing", "num_bad", "num_impossible")]
        rows.append(
            [
                Value(column["name"], read["left_out"].get(column["name"], "")),
                Value(column["kind"]),
                *(Value(DASH if num is None else f"{num:,}") for num in [*faults, column["num_distinct"]]),
                *(Value(DASH if end is None else figures.show_number(end)) for end in ends),
            ]
        )
    faults = ["missing", "no number", "impossible"]
    return Table("Columns", ["column", "kind", *faults, "distinct", "least", "median", "largest"], rows, 2)
