"""The pages of task=relisten and of its ladder of protocols: scores beside simple rates, slices, calibration, sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib

from parallel_tunes.reports import relisten_sweep
from parallel_tunes.reports.numbers import decimals, interval_words, percent, whole
from parallel_tunes.reports.page import render_page, to_png
from parallel_tunes.reports.popularity import COLUMNS as SCORES
from parallel_tunes.reports.popularity import score_table, show_confusion
from parallel_tunes.reports.popularity_figures import AUC, Panel, Scored, draw_reliability
from parallel_tunes.reports.relisten_figures import (
    NETWORK,
    SIMPLER,
    TREES,
    draw_dots,
    draw_loss,
    draw_progress,
    lower_rates,
)
from parallel_tunes.reports.relisten_sweep import Sibling
from parallel_tunes.reports.scaling.look import LOOK, Facts, Picture, quietly
from parallel_tunes.reports.scaling.tables import Table, Value, three_figures
from parallel_tunes.run import Run

COLUMNS = ("auc", "accuracy", "loss", "brier", "precision", "recall", "balanced_accuracy", "f1", "calibration_error")
HEADS = SCORES | {"precision": "precision at 0.5", "recall": "recall at 0.5", "calibration_error": "calibration error"}
SEEDED = COLUMNS[:6]
BASELINE = "the user's earlier rate"
ACCURACY = Panel("accuracy", "accuracy", "majority_share", "share of the commoner answer")


def write(run: Run, report: dict[str, Any]) -> None:
    """Write the figures and report.html of a train or evaluate run."""
    judged = {name: figures for name, figures in report["metrics"].items() if figures and "slices" in figures}
    split, found = next(iter(judged.items()), ("test", None))
    sweep = relisten_sweep.read_sweep(run, report) if report["job"] == "train" else []
    tables = tabulate(run, report, found, split, sweep)
    beside = (report["baselines"] or {}).get(BASELINE) if split == "test" else None
    facts = {"split": split, "found": found, "baseline": beside, "model": run.config.get("model"), "tables": tables}
    _publish(run, report, facts, lambda: draw(run, report, found, split, sweep))


def write_ladder(run: Run, report: dict[str, Any]) -> None:
    """Write ladder.png and report.html of `benchmark suite=splits task=relisten`."""
    rows = report["metrics"]["rows"]
    facts = {"rungs": rows, "tables": {"ladder": ladder_table(rows)}}
    _publish(run, report, facts, lambda: draw_ladder(rows))


def _publish(run: Run, report: Facts, facts: Facts, drawn: Callable[[], Mapping[str, Picture]]) -> None:
    with quietly(), matplotlib.rc_context(LOOK):
        pictures = drawn()
        images = {name: to_png(picture.drawing) for name, picture in pictures.items()}
    for name, image in images.items():
        run.write_bytes(name, image)
    facts = {"rungs": None, "report": report, "pictures": pictures, **facts}
    filters = {"share": percent, "number": decimals, "ends": interval_words, "whole": whole}
    run.write_bytes("report.html", render_page("relisten.html", facts, images, filters).encode())


def draw(
    run: Run, report: Facts, found: Facts | None, split: str, sweep: Sequence[Sibling]
) -> dict[str, Picture]:  # fmt: skip
    """Every figure that there is something for, by its file's name."""
    pictures: dict[str, Picture] = {}
    if found:
        pictures["scores.png"] = draw_scores(report, found, split)
        pictures["slices.png"] = draw_slices(found, split)
        pictures["calibration.png"] = draw_reliability(found, "listening again", "row")
        pictures["confusion_matrix.png"] = show_confusion(found["confusion"], split, "rows")
    if rows := run.rows():
        lowered = lower_rates(rows, run.config.get("train"))
        pictures["loss_curves.png"] = draw_loss(rows, lowered)
        pictures["score_curves.png"] = draw_progress(rows, lowered)
    if sweep:
        pictures["sweep.png"] = relisten_sweep.draw_sweep(sweep)
    return pictures


def draw_scores(report: Facts, found: Facts, split: str) -> Picture:
    """The network beside what needs none."""
    beside = list_scores(report, found, split)
    dots = {
        look: [row.judged if row.is_model == is_model else None for row in beside]
        for look, is_model in ((NETWORK, True), (SIMPLER, False))
    }
    caption = f"n = {whole(found['n'])} {split} rows of {whole(found['num_groups'])} users; bars: 95 % intervals, drawn over users."
    title = f"Scores of the network{' and of what needs none' if split == 'test' else ''}"
    return draw_dots(title, [row.name for row in beside], dots, [AUC, ACCURACY], caption)


def draw_slices(found: Facts, split: str) -> Picture:
    """The network on all rows and on parts of them."""
    judged = {f"all {split} rows": found.get("ensemble", found), **found["slices"]}
    names = [f"{name}, n = {whole(figures['n'] if figures else 0)}" for name, figures in judged.items()]
    everywhere = found.get("ensemble", found)["auc"]
    panel = Panel("auc", "AUC", everywhere, "" if everywhere is None else f"AUC of all {split} rows")
    caption = "Bars: 95 % intervals, drawn over users."
    return draw_dots("Unseen users, unseen songs", names, {NETWORK: list(judged.values())}, [panel, ACCURACY], caption)


def draw_ladder(rows: Sequence[Facts]) -> dict[str, Picture]:
    """The network and LightGBM under each protocol."""
    dots = {look: [row[key] for row in rows] for look, key in ((NETWORK, "test"), (TREES, "control"))}
    caption = "The same network and the same trees under each protocol; bars: 95 % intervals, drawn over users."
    panels = [Panel("auc", "AUC"), ACCURACY]
    return {"ladder.png": draw_dots("What each protocol reads", [row["name"] for row in rows], dots, panels, caption)}


def list_scores(report: Facts, found: Facts, split: str) -> list[Scored]:
    """The network, its ensemble, and on the test rows what needs no network."""
    rows = [Scored("network", found, False)]
    if "ensemble" in found:
        seeds = f"{len(found['accuracy_seeds'])} seeds"
        rows = [
            Scored(f"network, mean of {seeds}", found, False),
            Scored(f"ensemble of {seeds}", found["ensemble"], False),
        ]
    baselines = (report["baselines"] or {}) if split == "test" else {}
    return rows + [Scored(name, judged, False, False) for name, judged in baselines.items()]


def tabulate(
    run: Run, report: Facts, found: Facts | None, split: str, sweep: Sequence[Sibling]
) -> dict[str, Table]:  # fmt: skip
    """The tables of the page, by what they are of."""
    counts = [(name.removeprefix("num_").replace("_", " "), num) for name, num in report["tables"].items() if num]
    tables = {
        "split": split_table(report), "counts": pair_table("what", counts),
        "columns": pair_table("column", report["columns"].items(), "embeddings"),
    }  # fmt: skip
    if found:
        tables["scores"] = score_table("Scores", list_scores(report, found, split), COLUMNS, HEADS)
        tables["slices"] = slice_table(found["slices"])
    if found and "accuracy_seeds" in found:
        singles = {
            seed: {key: found[f"{key}_seeds"][seed] for key in SEEDED if f"{key}_seeds" in found}
            for seed in found["accuracy_seeds"]
        }
        rows = [Scored(seed, judged, False) for seed, judged in singles.items()]
        tables["seeds"] = score_table("Seeds", rows, COLUMNS, HEADS)
    if "samples_per_s" in report:
        tables["learnt"] = learning_table(run, report)
    if sweep:
        tables["sweep"] = relisten_sweep.sweep_table(sweep)
    return tables


def slice_table(slices: Facts) -> Table:
    """Scores of each slice, its size beside them."""
    table = score_table("Slices", [Scored(name, judged, False) for name, judged in slices.items()], SEEDED, HEADS)
    sizes = [(judged or {"n": 0, "num_groups": 0}) for judged in slices.values()]
    rows = [
        [line[0], Value(whole(size["n"])), Value(whole(size["num_groups"])), *line[1:]]
        for line, size in zip(table.rows, sizes, strict=True)
    ]
    return Table(table.title, ["", "rows", "users", *table.heads[1:]], rows)


def split_table(report: Facts) -> Table:
    """Rows of each split, and how many of them were listened to again."""
    shares = report["share_again"]
    rows = [
        [Value(name), Value(whole(num)), Value(percent(shares[name]))] for name, num in report["split"]["rows"].items()
    ]
    return Table("Splits", ["split", "rows", "listened again"], rows)


def pair_table(what: str, pairs: Iterable[tuple[str, int]], how: str = "how many") -> Table:
    """Names and numbers."""
    return Table("", [what, how], [[Value(name), Value(whole(number))] for name, number in pairs])


def learning_table(run: Run, report: Facts) -> Table:
    """How the network was learnt, and what that cost."""
    epochs, schedule = len(run.rows()), run.config.get("train", {}).get("schedule")
    cells = {
        "global batch (rows)": whole(report["global_batch"]),
        "steps": f"{whole(report['steps'])} in {epochs} epoch{'' if epochs == 1 else 's'}",
        "highest learning rate": f"{report['lr']['highest']:g}" + (f", {schedule}" if schedule else ""),
        "parameters": whole(report["num_parameters"]),
        "precision": report["precision"],
        "speed (rows/s, median of the epochs)": whole(round(report["samples_per_s"])),
        "peak memory of a rank (MiB)": whole(round(report["peak_memory_mib"])),
        **{f"time, {name} (s)": three_figures(seconds) for name, seconds in report["time_s"].items()},
    }
    return Table("", ["what", "how much"], [[Value(name), Value(words)] for name, words in cells.items()])


def ladder_table(rows: Sequence[Facts]) -> Table:
    """AUC, accuracy and log-loss of network and control under each protocol."""
    keys, kinds = ("auc", "accuracy", "loss"), ("test", "control")
    blank = dict.fromkeys(keys)
    cells = []
    for row in rows:
        judged = [Scored("", row[kind] or blank, False) for kind in kinds]
        network, trees = score_table("", judged, keys, HEADS).rows
        pairs = [value for both in zip(network[1:], trees[1:], strict=True) for value in both]
        size = row["test"] or {"n": 0, "num_groups": 0}
        sizes = [whole(size["n"]), whole(size["num_groups"]), f"{row['seconds']:.0f}"]
        cells.append([Value(row["name"]), *pairs, *map(Value, sizes)])
    heads = [f"{HEADS[key]}, {name}" for key in keys for name in ("network", "LightGBM")]
    return Table("The ladder", ["protocol", *heads, "rows", "users", "time (s)"], cells)
