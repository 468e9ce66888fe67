"""What explore found: figures as PNGs, the lists as CSV, one HTML page."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from parallel_tunes.data.material import Findings, Floats, Material, list_labels
from parallel_tunes.reports import explore_figures as figures
from parallel_tunes.reports import explore_maps as maps
from parallel_tunes.reports.explore_words import SURE, list_findings, plural, show_duration, show_probability
from parallel_tunes.reports.numbers import decimals, percent
from parallel_tunes.reports.page import render_page, to_png
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import DASH, Table, Value
from parallel_tunes.run import Run

MOST_SHOWN = 12  # labels in one figure
FEWEST = 2  # tracks behind a box
MEASURES = {"level_db": "Loudness", "tempo_bpm": "Tempo"}


def write(run: Run, report: dict[str, Any], material: Material, findings: Findings) -> None:
    """Write the figures, the lists as CSV and report.html."""
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = draw(report, material, findings)
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    found = {
        "outliers.csv": findings.outliers,
        "label_noise.csv": findings.doubts,
        "duplicates.csv": spread_twins(findings.twins),
    }
    for name, table in found.items():
        if table is not None and len(table):
            run.write_bytes(name, table.to_csv(index=False).encode(errors="surrogateescape"))
    facts = {
        "report": report, "pictures": pictures, "tables": tabulate(report), "findings": list_findings(report), "sure": SURE,
    }  # fmt: skip
    filters = {"share": percent, "number": decimals, "plural": plural, "lasting": show_duration}
    run.write_bytes("report.html", render_page("explore.html", facts, images, filters).encode())


def draw(report: Facts, material: Material, findings: Findings) -> dict[str, Picture]:
    """Every figure that there is something for, by its file's name."""
    frame, metrics, read = material.frame, report["metrics"], report["read"]
    pictures: dict[str, Picture | None] = {}
    if metrics["per_label"]:
        pictures["class_balance.png"] = figures.draw_balance(metrics["per_label"], metrics["num_unlabelled"])
    if metrics["num_groups"]:
        pictures["groups.png"] = figures.draw_groups(frame["group"].value_counts().to_list())
    if metrics["duration_s"]:
        clipped = "Of the whole files, whatever part of them is looked at." if "frames_per_s" in read else ""
        pictures["durations.png"] = figures.draw_histogram(
            finite(frame, "duration_s"), "Durations", "duration (s)", clipped
        )
    units = {"level_db": read["level_unit"], "tempo_bpm": "tempo (beats a minute)"}
    what = {"tempo_bpm": _tell_tempo(read)}
    for name, title in MEASURES.items():
        if metrics[name]:
            pictures[f"{name.partition('_')[0]}.png"] = draw_measure(
                frame, name, title, units[name], what.get(name, "")
            )
    if material.spectra:
        pictures["spectrograms.png"] = figures.draw_spectra(material.spectra)
        pictures["spectra.png"] = figures.draw_profiles(material.spectra)
    if findings.correlations is not None:
        pictures["correlations.png"] = maps.draw_correlations(findings.correlations, findings.related_names)
    pictures |= draw_maps(material, findings)
    if findings.outliers is not None:
        outliers = metrics["outliers"]
        pictures["outliers.png"] = maps.draw_scores(findings.outliers["score"], outliers["above"])
    return {name: picture for name, picture in pictures.items() if picture}


def draw_maps(material: Material, findings: Findings) -> dict[str, Picture | None]:
    """The figures of PCA, and the second map."""
    components = findings.components
    if components is None:
        return {}
    looked_at = material.frame["label"].iloc[material.rows]
    shown, labels = list_labels(looked_at, MOST_SHOWN), looked_at.to_list()
    names = maps.axis_names(components)
    points = components.scores[:, :2]
    pictures: dict[str, Picture | None] = {"scree.png": maps.draw_scree(components)}
    caption = f"n = {len(points):,} tracks. Axes: what the first two components explain."
    pictures["pca.png"] = maps.draw_scatter(points, labels, shown, names, "The tracks by PCA", caption)
    if len(shown) > 1:
        pictures["pca_labels.png"] = maps.draw_panels(points, labels, shown, names)
    if material.spectra:
        num_mels = len(next(iter(material.spectra.profile.values())))
        pictures["loadings.png"] = maps.draw_loadings(components, material.spectra, num_mels)
    if findings.embedding is not None:
        at = findings.embedded
        caption = (
            f"n = {len(at):,} tracks. Neighbours are alike; distances between far groups, and their sizes, say nothing."
        )
        pictures["tsne.png"] = maps.draw_scatter(
            findings.embedding, [labels[place] for place in at], shown, ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)"),
            "The tracks by t-SNE", caption,
        )  # fmt: skip
    return pictures


def draw_measure(frame: pd.DataFrame, name: str, title: str, unit: str, what: str) -> Picture:
    """Boxes by label, or a histogram where there are no labels to compare."""
    shown = list_labels(frame["label"][np.isfinite(frame[name].to_numpy(np.float64))], MOST_SHOWN)
    values = {label: finite(frame[frame["label"] == label], name) for label in shown}
    values = {label: numbers for label, numbers in values.items() if len(numbers) >= FEWEST}
    if len(values) < 2:
        return figures.draw_histogram(finite(frame, name), title, unit, what)
    num = frame["label"].nunique()
    rest = f" The {len(values)} commonest of {num} labels." if num > len(values) else ""
    return figures.draw_boxes(values, f"{title} by label", unit, what + rest)


def finite(frame: pd.DataFrame, name: str) -> Floats:
    """The numbers of a column that are known."""
    values: Floats = frame[name].to_numpy(np.float64)
    return np.asarray(values[np.isfinite(values)])


def _tell_tempo(read: Facts) -> str:
    if "frames_per_s" not in read:
        return "As the table has it."
    step = 120**2 / (60 * read["frames_per_s"])
    return (
        "From the autocorrelation of the onsets of the log-mel spectrogram (librosa.feature.tempo): the strongest period, which may "
        f"be half or double of what a listener taps; near 120 in steps of {step:.1f}."
    )


def spread_twins(twins: pd.DataFrame) -> pd.DataFrame:
    """A row a track."""
    return twins.explode("paths", ignore_index=True).rename(columns={"paths": "path"})


def tabulate(report: Facts) -> dict[str, Table]:
    """The tables of the page, by what they are of."""
    metrics, tables = report["metrics"], {}
    if outliers := metrics.get("outliers"):
        heads, rows = _track_rows(outliers["tracks"])
        cells = [
            [*row, Value(found["unusual"]), Value(f"{found['score']:.1f}")]
            for row, found in zip(rows, outliers["tracks"], strict=True)
        ]
        tables["outliers"] = Table("Outliers", [*heads, "furthest from the mean", "score"], cells, len(heads) + 1)
    if (noise := metrics.get("label_noise")) and noise["tracks"]:
        heads, rows = _track_rows(noise["tracks"])
        cells = [
            [
                *row,
                Value(found["suggested"]),
                Value("yes" if found["is_candidate"] else DASH),
                Value(show_probability(found["probability"])),
                Value(show_probability(found["suggested_probability"])),
            ]
            for row, found in zip(rows, noise["tracks"], strict=True)
        ]
        heads += ["the model says", "candidate", "probability of its label", "of what the model says"]
        tables["label_noise"] = Table("Labels to doubt", heads, cells, len(heads) - 2)
    if metrics["correlations"]:
        cells = [[Value(pair["a"]), Value(pair["b"]), Value(decimals(pair["r"]))] for pair in metrics["correlations"]]
        tables["correlations"] = Table("Columns that say the same", ["column", "and", "r"], cells, 2)
    if "columns" in report["read"]:
        tables["columns"] = _column_table(report["read"])
    if (pca := metrics.get("pca")) and "frames_per_s" not in report["read"]:
        first, second = pca["loadings"]
        cells = [
            [Value(str(at + 1)), *(Value(f"{row['feature']} ({decimals(row['loading'], 2)})") for row in pair)]
            for at, pair in enumerate(zip(first, second, strict=True))
        ]
        tables["loadings"] = Table("Loadings", ["", "component 1", "component 2"], cells, 3)
    return tables


def _track_rows(tracks: list[Facts]) -> tuple[list[str], list[list[Value]]]:
    """Path, and where known title and label, of each track."""
    keys = ["path", *(["name"] if tracks and "name" in tracks[0] else []), "label"]
    heads = {"path": "track", "name": "title", "label": "label"}
    return [heads[key] for key in keys], [[Value(str(track[key] or DASH)) for key in keys] for track in tracks]


def _column_table(read: Facts) -> Table:
    """What is in each column of a table."""
    rows = []
    for column in read["columns"]:
        ends = [column.get(end) for end in ("min", "median", "max")]
        numbers = [Value(DASH if end is None else figures.show_number(end)) for end in ends]
        faults = [
            Value(f"{column[key]:,}" if key in column else DASH) for key in ("num_missing", "num_bad", "num_impossible")
        ]
        left_out = read["left_out"].get(column["name"], "")
        rows.append(
            [
                Value(column["name"], left_out),
                Value(column["kind"]),
                *faults,
                Value(f"{column['num_distinct']:,}"),
                *numbers,
            ]
        )
    heads = [
        "column",
        "holds",
        "missing",
        "no number",
        "cannot be true",
        "different values",
        "least",
        "median",
        "largest",
    ]
    return Table("Columns", heads, rows, 2)
