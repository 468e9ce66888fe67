"""Figures of task=relisten: scores with their intervals, and how a training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.reports.numbers import whole
from parallel_tunes.reports.page import BLACK, BLUE, GREEN, GREY, ORANGE
from parallel_tunes.reports.popularity_figures import Panel, set_wide_log, shorten
from parallel_tunes.reports.scaling.look import SMALL, WIDE, Facts, Picture, add_legend
from parallel_tunes.schema import build
from parallel_tunes.train.trainer import Progress, note_loss

SOFT = "#57606a"
WIDE_RANGE = 8.0  # of losses: more than that is drawn on a logarithmic axis


class Look(NamedTuple):
    """What stands for one of several models in a figure of dots."""

    name: str
    colour: str
    marker: str
    is_filled: bool = True


NETWORK = Look("network", BLUE, "o")
SIMPLER = Look("needs no network", ORANGE, "D", False)
TREES = Look("LightGBM, the control", ORANGE, "D", False)


def draw_dots(
    title: str,
    names: Sequence[str],
    found: Mapping[Look, Sequence[Facts | None]],
    panels: Sequence[Panel],
    caption: str,
) -> Picture:
    """Dots with their 95 % intervals; a row each name, a panel each score.

    Args:
        found: the scores of each look, one for each name; None where that has none.
    """
    size = (WIDE, 1.35 + (0.4 + 0.1 * (len(found) - 1)) * len(names))
    drawing, grid = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, panel in zip(grid[0], panels, strict=True):
        for at in range(len(names)):
            _draw_row(axes, at, {look: judged[at] for look, judged in found.items()}, panel)
        if isinstance(panel.mark, float):
            axes.axvline(panel.mark, color=BLACK, linestyle="--", linewidth=1, zorder=1)
        axes.set_xlabel(panel.label)
        axes.set_yticks(range(len(names)), [shorten(name, 52) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
    looks = [look for look, judged in found.items() if any(judged)]
    add_legend(drawing, [*map(_key, looks), *(_mark_key(panel) for panel in panels if panel.mark_name)])
    key = panels[0].key
    values = "; ".join(
        f"{name}, {look.name} {row[key]:.3f}"
        for look in looks
        for name, row in zip(names, found[look], strict=True)
        if row and row.get(key) is not None
    )
    return Picture(drawing, title, f"{panels[0].label}: {values or 'none'}.", caption, is_wide=True)


def _draw_row(axes: Axes, at: int, found: Mapping[Look, Facts | None], panel: Panel) -> None:
    known = {look: judged for look, judged in found.items() if judged and judged.get(panel.key) is not None}
    if not known:
        words = "all of these rows are alike" if any(found.values()) else "no such rows"
        axes.text(
            0.5, at, words, transform=axes.get_yaxis_transform(), ha="center", va="center", color=SOFT, fontsize=9
        )
    for look, judged in known.items():
        beside = at + 0.26 * (list(known).index(look) - (len(known) - 1) / 2)
        if interval := judged.get(f"{panel.key}_ci95"):
            axes.plot(interval, [beside, beside], color=look.colour, marker="|", markersize=8, linewidth=1.6)
        fill = look.colour if look.is_filled else "white"
        axes.plot(judged[panel.key], beside, look.marker, color=look.colour, markersize=7, markerfacecolor=fill)
    if known and isinstance(panel.mark, str):
        axes.plot(next(iter(known.values()))[panel.mark], at, "|", color=BLACK, markersize=17, markeredgewidth=1.6, zorder=4)  # fmt: skip


def _key(look: Look) -> Line2D:
    fill = look.colour if look.is_filled else "white"
    return Line2D(
        [], [], color=look.colour, marker=look.marker, markersize=7, markerfacecolor=fill, label=look.name
    )  # fmt: skip


def _mark_key(panel: Panel) -> Line2D:
    if isinstance(panel.mark, str):
        return Line2D([], [], color=BLACK, marker="|", linestyle="", markersize=13, markeredgewidth=1.6, label=panel.mark_name)  # fmt: skip
    return Line2D([], [], color=BLACK, linestyle="--", linewidth=1, label=panel.mark_name)


def lower_rates(rows: Sequence[Facts], train: Facts | None) -> list[tuple[int, float]]:
    """After which epochs of the first seed train.schedule=plateau lowered the learning rate, and to which share of the highest.

    Args:
        train: the run's train.… keys; None where it has none.
    """
    mine = [row for row in rows if row["seed"] == rows[0]["seed"]]
    if not train or train["schedule"] != "plateau" or not all(row["valid"] for row in mine):
        return []
    progress, cfg = Progress(), build(TrainConfig, train)
    return [
        (row["epoch"] + 1, progress.lr_factor)
        for row in mine[:-1]  # after the last no epoch follows
        if note_loss(progress, cfg, row["valid"]["loss"], row["epoch"])
    ]


def draw_loss(rows: Sequence[Facts], lowered: Sequence[tuple[int, float]]) -> Picture:
    """Training and validation loss over epochs; a ring where the weights are from."""
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    _draw_line(axes, rows, "train", "loss", (BLUE, "--"), "training")
    _draw_line(axes, rows, "valid", "loss", (ORANGE, "-"), "validation")
    best = best_rows(rows)
    if best:
        places = [row["epoch"] + 1 for row in best], [row["valid"]["loss"] for row in best]
        axes.plot(
            *places, "o", markersize=11, color=BLACK, markerfacecolor="none", markeredgewidth=1.6, label="these weights are kept"
        )  # fmt: skip
    losses = [row[part]["loss"] for row in rows for part in ("train", "valid") if row[part]]
    axes.set_ylabel("log-loss (nats)")
    if min(losses) > 0 and max(losses) > WIDE_RANGE * min(losses):
        set_wide_log(axes, "y", losses)
    _finish(axes, rows, lowered)
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    ends = ", ".join(f"seed {row['seed']}: {row['valid']['loss']:.3f} after epoch {row['epoch'] + 1}" for row in best)
    alt = f"Lowest validation loss: {ends}." if ends else f"Training loss ends at {losses[-1]:.3f}."
    caption = f"{alt} Training: the mean over an epoch, while the weights still change."
    if len({row["seed"] for row in rows}) > 1:
        caption += " A line each seed."
    return Picture(drawing, "Log-loss over epochs", alt, caption)


def draw_progress(rows: Sequence[Facts], lowered: Sequence[tuple[int, float]]) -> Picture:
    """AUC and accuracy over epochs."""
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    _draw_line(axes, rows, "valid", "auc", (GREEN, "-"), "AUC, validation", "s")
    _draw_line(axes, rows, "valid", "accuracy", (ORANGE, "-"), "accuracy, validation", "o")
    _draw_line(axes, rows, "train", "accuracy", (BLUE, "--"), "accuracy, training", "o")
    axes.set_ylabel("AUC, accuracy")
    _finish(axes, rows, lowered)
    add_legend(drawing, axes.get_legend_handles_labels()[0])
    best = best_rows(rows)
    names = (("auc", "AUC"), ("accuracy", "accuracy"))
    said = [f"{name} {best[0]['valid'][key]:.3f}" for key, name in names if best and key in best[0]["valid"]]
    alt = f"Validation of the weights that are kept: {', '.join(said)}." if said else "No validation rows."
    num = rows[0]["valid"]["n"] if best else 0
    caption = f"{alt} n = {whole(num)} validation rows, {whole(rows[0]['train']['n'])} training rows." if best else alt
    return Picture(drawing, "AUC and accuracy over epochs", alt, caption)


def best_rows(rows: Sequence[Facts]) -> list[Facts]:
    """Of each seed the epoch with the lowest validation loss, the first of several; none without validation."""
    judged = [row for row in rows if row["valid"]]
    seeds = dict.fromkeys(row["seed"] for row in judged)
    return [min((row for row in judged if row["seed"] == seed), key=lambda row: row["valid"]["loss"]) for seed in seeds]


def _draw_line(
    axes: Axes, rows: Sequence[Facts], part: str, key: str, look: tuple[str, str], name: str, marker: str = ""
) -> None:
    """A figure over epochs, a line each seed."""
    known = [row for row in rows if row[part] and row[part].get(key) is not None]
    for at, seed in enumerate(dict.fromkeys(row["seed"] for row in known)):
        mine = [row for row in known if row["seed"] == seed]
        points = [row["epoch"] + 1 for row in mine], [row[part][key] for row in mine]
        marks = marker or ("o" if len(mine) < 3 else "")
        axes.plot(*points, color=look[0], linestyle=look[1], marker=marks, markersize=4, label=None if at else name)


def _finish(axes: Axes, rows: Sequence[Facts], lowered: Sequence[tuple[int, float]]) -> None:
    """The axis of epochs, and where the learning rate was lowered."""
    for at, (epoch, factor) in enumerate(lowered):
        axes.axvline(
            epoch + 0.5, color=GREY, linestyle=":", linewidth=1.6, zorder=1, label=None if at else "learning rate lowered"
        )  # fmt: skip
        axes.annotate(
            f"× {factor:g}", (epoch + 0.5, 1), xycoords=axes.get_xaxis_transform(), xytext=(3, -2), textcoords="offset points",
            va="top", fontsize=8, color=SOFT,
        )  # fmt: skip
    last = max(row["epoch"] for row in rows) + 1
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1)
    axes.set_xlim(0.5, last + 0.5)
