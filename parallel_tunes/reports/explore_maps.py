"""Figures of explore that map tracks and features: components, scatters, correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from parallel_tunes.data.material import Components, Floats, Spectra
from parallel_tunes.reports.explore_figures import mark_bands, show_percent
from parallel_tunes.reports.page import BLACK, BLUE, GREY, ORANGE
from parallel_tunes.reports.popularity_figures import SIGNED, shorten
from parallel_tunes.reports.scaling.look import MARKS, SMALL, WIDE, Picture, add_legend, ink_on, set_log

MOST_COMPONENTS = 30
MOST_RELATED = 60
MOST_NUMBERED = 16  # columns whose correlations are written into their cells
MOST_PANELS = 12
DENSE = 3000  # tracks, above which dots get smaller


def draw_scree(components: Components) -> Picture:
    """Shares of the variance, one by one and together."""
    explained = components.explained
    num = min(len(explained), MOST_COMPONENTS)
    at = np.arange(1, num + 1)
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    axes.bar(at, explained[:num], 0.75, color=BLUE, label="each component")
    axes.plot(at, np.cumsum(explained)[:num], color=ORANGE, marker="o", markersize=4, label="all up to it")
    axes.set(xlabel="principal component", ylabel="variance explained", ylim=(0, 1.03))
    axes.grid(visible=False, axis="x")
    show_percent(axes)
    axes.legend(loc="center right", fontsize=9)
    caption = (
        f"PCA of {len(components.names)} standardised features of n = {len(components.scores):,} tracks"
        f"{f'; the first {num} of {len(explained)} components' if num < len(explained) else ''}."
    )
    alt = "Shares: " + ", ".join(f"{100 * share:.1f} %" for share in explained[:5]) + " …"
    return Picture(drawing, "Scree", alt, caption)


def axis_names(components: Components) -> tuple[str, str]:
    """The first two components and what they explain."""
    first, second = components.explained[:2]
    return f"component 1 ({100 * first:.1f} % of the variance)", f"component 2 ({100 * second:.1f} %)"


def draw_scatter(
    points: Floats, labels: Sequence[str | None], shown: Sequence[str], names: tuple[str, str], title: str, caption: str
) -> Picture:
    """Tracks in the plane, a colour and a marker each label; the names stand at the labels' medians."""
    drawing, axes = plt.subplots(figsize=(WIDE, 6.2), layout="constrained")
    given = np.array([label if label in set(shown) else None for label in labels], object)
    is_other = np.array([label is None for label in given])
    size = 12 if len(points) <= DENSE else 4
    order = [*MARKS, *[(colour, MARKS[(at + 3) % len(MARKS)][1], "") for at, (colour, _, _) in enumerate(MARKS)]]
    if is_other.any():
        axes.scatter(points[is_other, 0], points[is_other, 1], s=size, color=GREY, alpha=0.35, linewidth=0)
    handles = []
    for at, label in enumerate(shown):
        colour, marker = order[at % len(order)][:2]
        mine = points[given == label]
        face = "none" if at >= len(MARKS) else colour
        look: Any = {"facecolors": face, "edgecolors": colour, "linewidths": 0.8 if face == "none" else 0}
        axes.scatter(mine[:, 0], mine[:, 1], s=1.6 * size, marker=marker, alpha=0.75, **look)
        words = f"{shorten(label, 20)} (n = {len(mine):,})"
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markerfacecolor=face, label=words))
    if is_other.any():
        words = "other labels or none" if len(shown) else "tracks"
        handles.append(
            Line2D([], [], color=GREY, marker="o", linestyle="", label=f"{words} (n = {int(is_other.sum()):,})")
        )
    axes.set(xlabel=names[0], ylabel=names[1])
    num_beyond = clip_view(axes, points)
    write_names(axes, {label: np.median(points[given == label], axis=0) for label in shown})
    add_legend(drawing, handles)
    alt = f"{len(points)} tracks of {len(shown)} labels in the plane."
    caption += " A label's name stands at its median, where there is room." * bool(shown)
    caption += f" Beyond the edges lie {num_beyond:,} tracks." * bool(num_beyond)
    return Picture(drawing, title, alt, caption, is_wide=True)


def write_names(axes: Axes, places: Mapping[str, Floats], room: tuple[float, float] = (0.13, 0.05)) -> None:
    """Names in the plane, those of the most frequent labels first; none over another.

    Args:
        room: that a name takes, shares of the axes' width and height.
    """
    spans = [abs(end - start) for start, end in (axes.get_xlim(), axes.get_ylim())]
    taken: list[Floats] = []
    for label, place in places.items():
        if all(np.any(np.abs(place - other) > np.multiply(spans, room)) for other in taken):
            taken.append(place)
            axes.annotate(
                shorten(label, 20), tuple(place), ha="center", va="center", fontsize=9, fontweight="bold",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            )  # fmt: skip


def draw_panels(points: Floats, labels: Sequence[str | None], shown: Sequence[str], names: tuple[str, str]) -> Picture:
    """The same map, once a label, which alone is coloured."""
    shown = shown[:MOST_PANELS]
    given = np.array(list(labels), object)
    columns = min(len(shown), 5)
    num_rows = -(-len(shown) // columns)
    drawing, grid = plt.subplots(
        num_rows,
        columns,
        figsize=(WIDE, 0.5 + 2.1 * num_rows),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    size = 6 if len(points) <= DENSE else 2
    for axes, label in zip(grid.flat, shown, strict=False):
        mine = given == label
        axes.scatter(points[~mine, 0], points[~mine, 1], s=size, color="#c8ccd1", linewidth=0, rasterized=True)
        axes.scatter(points[mine, 0], points[mine, 1], s=1.5 * size, color=BLUE, linewidth=0)
        axes.set_title(f"{shorten(label, 18)} (n = {int(mine.sum()):,})", fontsize=10)
        clip_view(axes, points)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    drawing.supxlabel(names[0], fontsize=10)
    drawing.supylabel(names[1], fontsize=10)
    caption = "The same map for each label: its tracks are blue, all others grey."
    return Picture(
        drawing,
        "Where each label lies",
        f"The map of PCA, once for each of {len(shown)} labels.",
        caption,
        is_wide=True,
    )


def clip_view(axes: Axes, points: Floats) -> int:
    """Few tracks far out do not press all others together: how many lie beyond the view, five boxes from the middle half."""
    low, first, third, high = np.quantile(points, [0, 0.25, 0.75, 1], axis=0)
    reach = 5 * np.maximum(third - first, 1e-9)
    low, high = np.maximum(low, first - reach), np.minimum(high, third + reach)
    edge = np.where(high > low, 0.04 * (high - low), 1.0)
    axes.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + edge[1]))
    return int(((points < low) | (points > high)).any(1).sum())


def draw_loadings(components: Components, spectra: Spectra, num_mels: int) -> Picture:
    """What the first two components weigh along the mel bands: the features of audio are too many to name."""
    drawing, grid = plt.subplots(1, 2, figsize=(WIDE, 3.0), layout="constrained", sharey=True)
    place = {name: at for at, name in enumerate(components.names)}
    for axes, row, name in zip(grid, components.loadings, ("component 1", "component 2"), strict=False):
        for kind, colour, dashes in (("mean", BLUE, "-"), ("spread", ORANGE, "--")):
            wanted = [f"{part}, {kind}" for part in band_names(spectra, num_mels)]
            values = [row[place[name]] if name in place else np.nan for name in wanted]
            axes.plot(values, dashes, color=colour, linewidth=1.8)
        axes.axhline(0, color=BLACK, linewidth=0.8)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("band, low to high" if spectra.centres_hz is None else "frequency (Hz, mel scale)")
        mark_bands(axes, spectra, "x")
    grid[0].set_ylabel("loading")
    words = "its standard deviation over time"
    add_legend(drawing, [
        Line2D([], [], color=BLUE, label="mean level of a band"),
        Line2D([], [], color=ORANGE, linestyle="--", label=words),
    ])  # fmt: skip
    caption = (
        "What the features of mel bands weigh in the first two components: where a line is far from zero, tracks differ there "
        "along the axis of the map."
    )
    return Picture(drawing, "What the components are", "Loadings of the mel bands.", caption, is_wide=True)


def band_names(spectra: Spectra, num_mels: int) -> list[str]:
    """The mel bands as the features call them."""
    return (
        [f"band {at}" for at in range(num_mels)]
        if spectra.centres_hz is None
        else [f"{hz:.0f} Hz" for hz in spectra.centres_hz]
    )


def draw_correlations(found: Floats, names: Sequence[str]) -> Picture:
    """A heat map; of very many columns, those that go together most."""
    if len(names) > MOST_RELATED:
        strongest = (np.abs(found) - np.eye(len(found))).max(1)
        kept = np.sort(np.argsort(-strongest, kind="stable")[:MOST_RELATED])
        found = found[np.ix_(kept, kept)]
    else:
        kept = np.arange(len(names))
    num = len(kept)
    has_numbers = num <= MOST_NUMBERED
    drawing, axes = plt.subplots(figsize=(WIDE, 2.2 + (0.36 if has_numbers else 0.2) * num), layout="constrained")
    image = axes.imshow(found, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto")
    said = [shorten(names[at], 22) for at in kept]
    size = 9 if num <= 45 else 8
    axes.set_xticks(range(num), said, rotation=90, fontsize=size)
    axes.set_yticks(range(num), said, fontsize=size)
    if has_numbers:
        for (row, column), value in np.ndenumerate(found):
            ink = ink_on(SIGNED((value + 1) / 2))
            axes.text(column, row, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=9, color=ink)
    axes.grid(visible=False)
    drawing.colorbar(image, ax=axes, label="Pearson's r", shrink=0.7, pad=0.02)
    rest = f" The {num} of {len(names)} columns that go together most." if num < len(names) else ""
    caption = (
        f"Correlations of {num} columns, over the tracks that have both; columns that go together stand together.{rest}"
    )
    return Picture(drawing, "Correlations", f"Heat map of {num} by {num} correlations.", caption, is_wide=True)


def draw_scores(scores: Any, above: float) -> Picture:
    """How far out tracks lie, and where outliers begin."""
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    values = np.clip(np.asarray(scores, np.float64), None, 5 * above)
    counts, edges = np.histogram(values, int(np.clip(np.sqrt(len(values)), 10, 50)))
    axes.stairs(counts, edges, fill=True, color=BLUE, baseline=0.1)
    axes.axvline(above, color=ORANGE, linestyle="--", linewidth=1.6, label=f"outliers from {above:g} on")
    axes.set(xlabel="score (robust z of the distance)", ylabel="tracks", ylim=(0.7, 2 * counts.max()))
    set_log(axes, "y", [10.0**power for power in range(len(str(len(values))) + 1)])
    axes.legend(loc="best", fontsize=9)
    axes.grid(visible=False, axis="x")
    num = int((np.asarray(scores) > above).sum())
    rest = f" Scores above {5 * above:g} stand there." * bool((np.asarray(scores) > 5 * above).any())
    caption = f"n = {len(values):,} tracks, {num:,} of them outliers.{rest} The upright axis is logarithmic."
    return Picture(drawing, "Outlier scores", caption, caption)
