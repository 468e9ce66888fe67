"""What a training or an evaluation found: figures as PNGs, a table of every answer, one HTML page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.definition import SCALES
from parallel_tunes.data.label_sets import tabulate as tabulate_labels
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.reports.page import BLUE, ORANGE, STYLE, render_page, shorten, to_png
from parallel_tunes.reports.training_labels import draw_average_precision, list_mistakes, tabulate_sets
from parallel_tunes.run import Run
from parallel_tunes.shard_work import read_levels
from parallel_tunes.train.metrics import Judged
from parallel_tunes.train.multi_label import HEADLINES

NUM_MISTAKES = 12
MOST_MELS = 20


def write(
    run: Run,
    report: dict[str, Any],
    judged: list[Judged],
    shards: ShardSet,
    examples: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write the figures, predictions.csv and report.html of a train or evaluate run.

    Args:
        examples: what augmentation makes of a crop, by its name: dB, shape (num_mels, num_frames).
    """
    split, found = next(
        ((name, figures) for name, figures in report["metrics"].items() if figures and "per_class" in figures),
        (None, None),
    )
    multi_label = "thresholds" in report
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a label in a script the font lacks
        pictures: dict[str, bytes] = {}
        rows = run.rows()
        if rows:
            loss = "binary cross-entropy (nats a label)" if multi_label else "cross-entropy (nats)"
            accuracy = "all labels of a track right, at 0.5" if multi_label else "accuracy"
            pictures["loss_curves.png"] = to_png(draw_curves(rows, "loss", loss))
            pictures["accuracy_curves.png"] = to_png(draw_curves(rows, "accuracy", accuracy))
        if found and multi_label:
            pictures["average_precision.png"] = to_png(draw_average_precision(found["per_class"], found["n"]))
        elif found:
            pictures["confusion_matrix.png"] = to_png(draw_confusion(found["confusion"], split or ""))
        if found:
            pictures["per_class.png"] = to_png(draw_per_class(found["per_class"]))
        if examples:
            pictures["augmentation.png"] = to_png(draw_examples(examples, shards))
        pictures["mel_spectrograms.png"] = to_png(draw_mels(shards, report["classes"], multi_label=multi_label))
    for name, data in pictures.items():
        run.write_bytes(name, data)
    mistakes: list[dict[str, Any]] = []
    if found:
        if multi_label:
            at = (
                judged[0],
                report["classes"],
                np.array([row["threshold"] for row in found["per_class"].values()]),
                shards.index["path"],
            )
            table, mistakes = tabulate_sets(*at), list_mistakes(*at)
        else:
            table = tabulate(judged[0], report["classes"], shards)
            wrong = table[table["label"] != table["predicted"]].sort_values("probability", ascending=False)
            mistakes = [dict(row) for _, row in wrong.head(NUM_MISTAKES).iterrows()]
        run.write_bytes("predictions.csv", table.to_csv(index=False).encode())
    page = render(report, split, found, pictures, mistakes)
    run.write_bytes("report.html", page.encode())


def tabulate(judged: Judged, classes: list[str], shards: ShardSet) -> pd.DataFrame:
    """A row a track: path, label, the label predicted and its probability."""
    best = judged.probabilities.argmax(1)
    return pd.DataFrame(
        {
            "path": shards.index["path"].iloc[judged.rows].to_numpy(),
            "label": [classes[target] for target in judged.targets],
            "predicted": [classes[number] for number in best],
            "probability": judged.probabilities.max(1).round(6),
        }
    )


def render(
    report: dict[str, Any],
    split: str | None,
    found: dict[str, Any] | None,
    pictures: dict[str, bytes],
    mistakes: list[dict[str, Any]],
) -> str:
    """The HTML page: self-contained, every text from outside escaped."""
    facts = {"report": report, "split": split, "found": found, "mistakes": mistakes, "headlines": HEADLINES}
    return render_page("training.html", facts, pictures)


def draw_curves(rows: list[dict[str, Any]], figure: str, unit: str) -> Figure:
    """Training and validation curves over epochs; seeds in the same colours."""
    drawing, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    seeds = sorted({row["seed"] for row in rows})
    for part, colour, dashes, name in (
        ("train", BLUE, "--", "training (random crops)"),
        ("valid", ORANGE, "-", "validation (whole tracks)"),
    ):
        for seed in seeds:
            mine = [row for row in rows if row["seed"] == seed and row[part]]
            label = name if seed == seeds[0] and mine else None
            epochs, values = [row["epoch"] + 1 for row in mine], [row[part][figure] for row in mine]
            axes.plot(epochs, values, dashes, color=colour, label=label, marker="o" if len(mine) < 3 else None)
    axes.set(xlabel="epoch", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    if len({row["epoch"] for row in rows}) == 1:
        axes.set_xlim(rows[0]["epoch"] + 0.5, rows[0]["epoch"] + 1.5)
    if figure == "accuracy":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return drawing


def draw_confusion(confusion: dict[str, Any], split: str, units: str = "tracks") -> Figure:
    """Counts by true and predicted label, shaded by the share of the true label."""
    counts, labels = np.asarray(confusion["counts"]), [shorten(label) for label in confusion["labels"]]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.4 + 0.45 * len(labels), 16)
    drawing, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    color="white" if shares[row, column] > 0.55 else "black",
                )
    axes.grid(visible=False)
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{split}: {units}")
    drawing.colorbar(image, ax=axes, label="share of the true label", shrink=0.75)
    return drawing


def draw_per_class(per_class: dict[str, Any]) -> Figure:
    """Precision and recall of each label, with its support."""
    names = list(per_class)
    drawing, axes = plt.subplots(figsize=(6, min(1.2 + 0.42 * len(names), 20)), layout="constrained")
    at = np.arange(len(names))
    axes.barh(at - 0.19, [per_class[name]["precision"] for name in names], 0.36, color=BLUE, label="precision")
    axes.barh(at + 0.19, [per_class[name]["recall"] for name in names], 0.36, color=ORANGE, label="recall")
    axes.set_yticks(at, [f"{shorten(name)} (n = {per_class[name]['support']})" for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return drawing


def draw_mels(shards: ShardSet, classes: list[str], *, multi_label: bool = False) -> Figure:
    """The log-mel spectrogram of one track of each label, with as few others as there is one; its first 10 s."""
    features = shards.manifest["features"]
    seconds_a_frame = 1 / front_end.frames_per_s(front_end.restore(features))
    is_picture = features["kind"] == "picture"  # which does not say what its bands are
    held = tabulate_labels(shards.index["label"].to_numpy(object), classes, multi_label=multi_label)
    shown = np.flatnonzero(held.any(0))[:MOST_MELS]
    columns = min(len(shown), 5)
    num_rows = -(-len(shown) // columns)
    drawing, grid = plt.subplots(
        num_rows,
        columns,
        figsize=(2.6 * columns + 0.8, 2.1 * num_rows + 0.4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    top_hz = features["fmax_hz"] or features["sample_rate_hz"] / 2
    to_mel, _ = SCALES[features["mel_scale"]]
    lowest, highest = to_mel(np.array([features["fmin_hz"], top_hz]))
    marks_hz = [
        hz for hz in (125, 500, 1000, 2000, 4000, 8000, 16000) if features["fmin_hz"] < hz < top_hz and not is_picture
    ]
    for axes, column in zip(grid.flat, shown, strict=False):
        row = int(np.where(held[:, column] > 0, held.sum(1), np.inf).argmin())
        decibels = read_levels(shards, row, max(int(10 / seconds_a_frame), 1))
        decibels -= decibels.max()
        extent = (0, decibels.shape[1] * seconds_a_frame, 0, len(decibels))
        image = axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0, extent=extent)
        bands = np.interp(
            to_mel(np.array(marks_hz, np.float64)),
            np.linspace(lowest, highest, len(decibels)),
            np.arange(len(decibels)),
        )
        axes.set_yticks(bands, [f"{hz / 1000:g}" for hz in marks_hz])
        axes.set_title(shorten(classes[column]), fontsize=10)
        axes.grid(visible=False)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    drawing.supxlabel("time (s)", fontsize=10)
    drawing.supylabel("band, low to high" if is_picture else "frequency (kHz, mel scale)", fontsize=10)
    bar = drawing.colorbar(image, ax=grid, shrink=0.8, pad=0.01)
    bar.set_label("level (dB below the clip's maximum)")
    bar.set_ticks([0, -20, -40, -60, -80], labels=["0", "20", "40", "60", "80"])
    return drawing


def draw_examples(examples: Mapping[str, NDArray[np.float32]], shards: ShardSet) -> Figure:
    """A crop as it is, and what augmentation makes of it, on one scale of levels."""
    seconds = next(iter(examples.values())).shape[1] / front_end.frames_per_s(
        front_end.restore(shards.manifest["features"])
    )
    columns = min(len(examples), 5)
    num_rows = -(-len(examples) // columns)
    size = (2.2 * columns + 0.9, 1.9 * num_rows + 0.5)
    drawing, grid = plt.subplots(
        num_rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    highest = max(float(levels.max()) for levels in examples.values())
    for axes, (name, levels) in zip(grid.flat, examples.items(), strict=False):
        extent = (0, seconds, 0, len(levels))
        image = axes.imshow(
            levels - highest, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0, extent=extent
        )
        axes.set_title(name, fontsize=10)
        axes.grid(visible=False)
    for axes in list(grid.flat)[len(examples) :]:
        axes.set_axis_off()
    drawing.supxlabel("time (s)", fontsize=10)
    drawing.supylabel("mel band", fontsize=10)
    drawing.colorbar(image, ax=grid, shrink=0.8, pad=0.01, label="level (dB below the loudest)")
    return drawing
