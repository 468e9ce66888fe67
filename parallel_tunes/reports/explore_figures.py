"""Figures of explore: labels, groups, durations, levels, tempi, spectrograms, principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from parallel_tunes.data.material import ALL, Components, Floats, Spectra
from parallel_tunes.reports.page import BLACK, BLUE, GREY, ORANGE
from parallel_tunes.reports.popularity_figures import shorten
from parallel_tunes.reports.scaling.look import MARKS, SMALL, WIDE, Picture, add_legend, set_log

SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "white", BLUE])
MOST_BARS = 16
SKEWED = 10.0  # longest over median, from which an axis is logarithmic
MOST_COMPONENTS = 30
MOST_PANELS = 12
DENSE = 3000  # tracks, above which dots get smaller
MARKS_HZ = (64, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)


def draw_balance(counts: Mapping[str, int], num_unlabelled: int) -> Picture:
    """Tracks of each label, the most frequent first."""
    shown = list(counts.items())[:MOST_BARS]
    rows = [(shorten(label), num, BLUE) for label, num in shown]
    rest = sum(counts.values()) - sum(num for _, num in shown)
    rows += [(f"{len(counts) - len(shown)} other labels", rest, GREY)] * (rest > 0)
    rows += [("no label", num_unlabelled, GREY)] * (num_unlabelled > 0)
    drawing, axes = plt.subplots(figsize=(SMALL[0], max(2.2, 0.9 + 0.26 * len(rows))), layout="constrained")
    bars = axes.barh(range(len(rows)), [num for _, num, _ in rows], 0.7, color=[colour for _, _, colour in rows])
    axes.bar_label(bars, [f"{num:,}" for _, num, _ in rows], padding=3, fontsize=9)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("tracks")
    num = sum(counts.values()) + num_unlabelled
    alt = "Bars: " + ", ".join(f"{label} {num}" for label, num in shown) + "."
    return Picture(drawing, "Class balance", alt, f"Tracks of each label; n = {num:,} tracks of {len(counts)} labels.")


def draw_groups(sizes: Sequence[int]) -> Picture:
    """How many groups have how many tracks."""
    num, times = np.unique(np.asarray(sizes), return_counts=True)
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    if num[-1] > 30:
        edges = np.unique(np.geomspace(1, num[-1] + 1, 24).round()).tolist()
        axes.hist(np.asarray(sizes), edges, color=BLUE, edgecolor="white", linewidth=0.4)
        for which, highest in (("x", num[-1]), ("y", max(times))):
            set_log(axes, which, [10.0**power for power in range(len(str(highest)) + 1)])
        axes.set(xlim=(0.8, 1.3 * num[-1]), ylim=(0.7, 2 * len(sizes)))
    else:
        axes.bar(num, times, 0.8, color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if len(num) == 1:
            axes.set_xlim(num[0] - 2, num[0] + 2)
    axes.set(xlabel="tracks of a group", ylabel="groups")
    caption = (
        f"Groups are what no split should divide: artists, where they are known. n = {len(sizes):,} groups; "
        f"the middle one has {np.median(sizes):g}, the largest {num[-1]:,}."
    )
    return Picture(drawing, "Tracks by group", caption, caption)


def draw_histogram(values: Floats, title: str, unit: str, what: str) -> Picture:
    """A histogram with its median; logarithmic where the longest are far from it."""
    drawing, axes = plt.subplots(figsize=SMALL, layout="constrained")
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    is_log = low > 0 and high > SKEWED * middle
    if high - low < 1e-6 * max(abs(high), 1):
        axes.bar([middle], [len(values)], 0.05 * max(abs(middle), 1), color=BLUE)
        axes.set_xlim(middle - 0.5 * max(abs(middle), 1), middle + 0.5 * max(abs(middle), 1))
    else:
        num = int(np.clip(np.sqrt(len(values)), 10, 50))
        edges = np.geomspace(low, high * (1 + 1e-9), num).tolist() if is_log else num
        axes.hist(values, edges, color=BLUE, edgecolor="white", linewidth=0.4)
    if is_log:
        set_log(axes, "x")
    axes.axvline(middle, color=ORANGE, linestyle="--", linewidth=1.6, label=f"median {show_number(middle)}")
    axes.legend(loc="best", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(visible=False, axis="x")
    axes.set(xlabel=unit, ylabel="tracks")
    span = (
        f"from {show_number(low)} to {show_number(high)}, median {show_number(middle)}"
        if high > low
        else f"all {show_number(low)}"
    )
    caption = f"n = {len(values):,} tracks; {span}. {what}".strip()
    return Picture(drawing, title, caption, caption)


def draw_boxes(values: Mapping[str, Floats], title: str, unit: str, what: str) -> Picture:
    """Boxes by label, the highest median first."""
    order = sorted(values, key=lambda label: -np.median(values[label]))
    drawing, axes = plt.subplots(figsize=(SMALL[0], max(2.2, 1.0 + 0.32 * len(order))), layout="constrained")
    for at, found in enumerate(boxplot_stats([values[label] for label in order])):
        axes.plot([found["whislo"], found["whishi"]], [at, at], "|-", color=BLUE, markersize=8, linewidth=1.1, zorder=2)
        box = Rectangle((found["q1"], at - 0.3), found["q3"] - found["q1"], 0.6, facecolor="#cfe3f3", edgecolor=BLUE)
        axes.add_patch(box).set_zorder(3)
        axes.plot([found["med"]] * 2, [at - 0.3, at + 0.3], color=BLACK, linewidth=1.8, solid_capstyle="butt", zorder=4)
        beyond = found["fliers"]
        axes.plot(beyond, [at] * len(beyond), "o", markersize=3, color=ORANGE, markerfacecolor="none", alpha=0.6)
    axes.set_yticks(range(len(order)), [f"{shorten(label, 20)} ({len(values[label]):,})" for label in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(unit)
    alt = "Medians: " + ", ".join(f"{label} {np.median(values[label]):.4g}" for label in order) + "."
    caption = (
        f"Behind each label its tracks, n = {sum(map(len, values.values())):,} in all. Line: median; box: the middle half; whiskers: "
        f"to the last track within 1.5 boxes; dots: beyond. {what}"
    ).strip()
    return Picture(drawing, title, alt, caption)


def draw_spectra(spectra: Spectra) -> Picture:
    """The mean log-mel spectrogram of each label."""
    labels = list(spectra.levels)
    columns = min(len(labels), 4)
    num_rows = -(-len(labels) // columns)
    size = (WIDE if columns > 2 else 2 * SMALL[0], 0.6 + 2.0 * num_rows)
    drawing, grid = plt.subplots(
        num_rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=True, sharex=True
    )
    every = np.concatenate([levels[np.isfinite(levels)] for levels in spectra.levels.values()])
    low, high = np.quantile(every, [0.01, 0.999])
    for axes, label in zip(grid.flat, labels, strict=False):
        levels = spectra.levels[label]
        extent = (0, levels.shape[1] / spectra.frames_per_s, -0.5, len(levels) - 0.5)
        image = axes.imshow(levels, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high, extent=extent)
        mark_bands(axes, spectra, "y")
        axes.set_title(f"{shorten(label, 22)} (n = {spectra.num_tracks[label]:,})", fontsize=10)
        axes.grid(visible=False)
    for axes in list(grid.flat)[len(labels) :]:
        axes.set_axis_off()
    drawing.supxlabel("time from the start (s)", fontsize=10)
    drawing.supylabel("band, low to high" if spectra.centres_hz is None else "frequency (Hz, mel scale)", fontsize=10)
    drawing.colorbar(image, ax=grid, shrink=0.85, pad=0.01, label="mean level (dB)")
    caption = "Mean log-mel spectrogram of the tracks of each label, in dB."
    return Picture(drawing, "Mean spectrograms", f"Mean spectrograms of {len(labels)} labels.", caption, is_wide=True)


def draw_profiles(spectra: Spectra) -> Picture | None:
    """By how much each label's mean spectrum lies above or below the mean of them all; None of a single label."""
    labels = list(spectra.profile)
    if labels == [ALL] or len(labels) < 2:
        return None
    profiles = np.array([spectra.profile[label] for label in labels])
    apart = profiles - profiles.mean(0)
    most = float(np.abs(apart).max()) or 1.0
    drawing, axes = plt.subplots(figsize=(WIDE, 1.3 + 0.34 * len(labels)), layout="constrained")
    image = axes.imshow(apart, cmap=SIGNED, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(labels)), [shorten(label, 22) for label in labels])
    mark_bands(axes, spectra, "x")
    axes.set_xlabel("band, low to high" if spectra.centres_hz is None else "frequency (Hz, mel scale)")
    axes.grid(visible=False)
    drawing.colorbar(image, ax=axes, label="dB above the mean", pad=0.01)
    caption = (
        "Mean spectrum of each label minus the mean of all labels shown; blue: louder than the mean, orange: softer."
    )
    at = np.unravel_index(np.abs(apart).argmax(), apart.shape)
    alt = f"The largest difference is {apart[at]:+.1f} dB, of {labels[int(at[0])]}."
    return Picture(drawing, "Mean spectra, label by label", alt, caption, is_wide=True)


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
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
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


def draw_scatter(points: Floats, labels: Sequence[str | None], shown: Sequence[str], names: tuple[str, str]) -> Picture:
    """Tracks by the first two components, a colour and a marker each label; the names stand at the labels' medians."""
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
    caption = f"n = {len(points):,} tracks."
    caption += " The name of a label stands at its median, where there is room." * bool(shown)
    caption += f" Beyond the edges lie {num_beyond:,} tracks." * bool(num_beyond)
    return Picture(drawing, "First two components", alt, caption, is_wide=True)


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
        "First two components by label",
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


def draw_loadings(components: Components, spectra: Spectra) -> Picture:
    """Loadings of the first two components along the mel bands."""
    drawing, grid = plt.subplots(1, 2, figsize=(WIDE, 3.0), layout="constrained", sharey=True)
    place = {name: at for at, name in enumerate(components.names)}
    bands = (
        [f"band {at}" for at in range(len(next(iter(spectra.profile.values()))))]
        if spectra.centres_hz is None
        else [f"{hz:.0f} Hz" for hz in spectra.centres_hz]
    )
    for axes, row, name in zip(grid, components.loadings, ("component 1", "component 2"), strict=False):
        for kind, colour, dashes in (("mean", BLUE, "-"), ("spread", ORANGE, "--")):
            wanted = [f"{band}, {kind}" for band in bands]
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
    caption = "Loadings of the features of mel bands on the first two components."
    return Picture(drawing, "Loadings", "Loadings of the mel bands.", caption, is_wide=True)


def mark_bands(axes: Axes, spectra: Spectra, which: str) -> None:
    """Ticks in Hz along an axis of mel bands; of pictures, whose frequencies are not known, the bands' numbers."""
    if spectra.centres_hz is None:
        return
    num = len(spectra.centres_hz)
    inside, places = list[int](), list[float]()
    for hz in reversed(MARKS_HZ):  # low ones, which lie close to each other, give way
        place = float(np.interp(hz, spectra.centres_hz, np.arange(num)))
        if spectra.centres_hz[0] < hz < spectra.centres_hz[-1] and (not places or places[-1] - place > 0.06 * num):
            inside.append(hz)
            places.append(place)
    (axes.set_yticks if which == "y" else axes.set_xticks)(places, [str(hz) for hz in inside])


def show_number(value: float) -> str:
    """Four significant figures, more before the point."""
    text = f"{value:,.0f}" if 1e4 <= abs(value) < 1e10 else f"{value:.4g}"
    return text.replace("-", "−")
