"""What the figures of a scaling study share: a look for each series, axes in powers of two, words for units."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from parallel_tunes.reports.page import AMBER, BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, STYLE
from parallel_tunes.reports.scaling.tables import STATUS, count

Facts = dict[str, Any]
Series = tuple[int, str]  # batch and precision: what stays the same along a line
LOOK: Any = STYLE | {"figure.dpi": 150, "axes.axisbelow": True, "hatch.linewidth": 0.8, "legend.frameon": False}
SMALL, WIDE = (5.2, 3.6), 10.6  # inches; two small ones stand side by side on a page
MARKS = [
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (SKY, "v", (0, (5, 1))),
    (AMBER, "P", (0, (3, 1, 1, 1))),
    (BLACK, "X", (0, (1, 1))),
    (GREY, "*", (0, (5, 1, 1, 1, 1, 1))),
]
HATCHES = ("", "///", "...", "\\\\\\", "xx", "++", "--", "oo")


class Picture(NamedTuple):
    """A figure and what is said of it.

    Args:
        alt: what it shows, for those who do not see it.
        caption: how to read it.
        is_wide: whether it takes a row of the page.
    """

    drawing: Figure
    title: str
    alt: str
    caption: str
    is_wide: bool = False


class Mark(NamedTuple):
    """How a series looks, and its name."""

    name: str
    colour: str
    marker: str
    dashes: Any
    hatch: str


@contextmanager
def quietly() -> Iterator[None]:
    """Names may be in a script that the font lacks: boxes stand for them, without a warning for each sign."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def marks_of(metrics: Facts) -> dict[Series, Mark]:
    """The look of each series, the same in every figure; also in grey they differ."""
    found = sorted({series_of(cell) for cell in metrics["cells"]})
    return {
        series: Mark(series_name(metrics, series), *MARKS[at % len(MARKS)], HATCHES[at % len(HATCHES)])
        for at, series in enumerate(found)
    }


def series_of(cell: Facts) -> Series:
    """The series that a cell, or a fit, is of."""
    return cell["batch"], cell["precision"]


def series_name(metrics: Facts, series: Series) -> str:
    """`batch 64`, and the precision where there are several."""
    batch, precision = series
    words = f"batch {batch} per {metrics['unit']}" if metrics["mode"] == "weak" else f"batch {batch}"
    several = len({cell["precision"] for cell in metrics["cells"]}) > 1
    return f"{words}, {precision}" if several else words


def cell_name(metrics: Facts, cell: Facts) -> str:
    """A cell in words: `2 GPUs, batch 64`."""
    wrapped = ", with DDP" if cell["gpus"] == 1 and cell["ddp"] else ""
    return f"{count(cell['gpus'], metrics['unit'])}, {series_name(metrics, series_of(cell))}{wrapped}"


def status_words(cell: Facts) -> str:
    """`out of memory`, and what else a cell can be."""
    return STATUS[cell["status"]]


def grid_cells(metrics: Facts) -> list[Facts]:
    """A cell for each point of the grid: one GPU with DDP only where it did not run without."""
    plain = {series_of(cell) for cell in metrics["cells"] if cell["gpus"] == 1 and not cell["ddp"]}
    return [cell for cell in metrics["cells"] if cell["gpus"] > 1 or not cell["ddp"] or series_of(cell) not in plain]


def lines_of(metrics: Facts, key: str) -> dict[Series, list[Facts]]:
    """The cells that have a figure, by their series and in the order of N; those of two or more N."""
    lines: dict[Series, list[Facts]] = {}
    baselines = {cell["baseline"] for cell in metrics["cells"]}
    for cell in sorted(grid_cells(metrics), key=lambda cell: cell["gpus"]):
        figure = cell[key]
        if key in ("speedup", "efficiency") and cell["name"] in baselines:
            figure = figure or {"median": 1.0, "low": 1.0, "high": 1.0}  # against itself
        if cell["status"] == "ok" and figure:
            lines.setdefault(series_of(cell), []).append(cell | {key: figure})
    return {series: lines[series] for series in sorted(lines) if len(lines[series]) > 1}


def spreads(intervals: Sequence[Facts], times: float = 1.0) -> tuple[Any, Any]:
    """Medians, shape (n,), and what error bars want: how far the ends lie from them, shape (2, n)."""
    middle = times * np.array([found["median"] for found in intervals])
    low, high = (times * np.array([found[end] for found in intervals]) for end in ("low", "high"))
    return middle, np.maximum([middle - low, high - middle], 0)


def set_log(axes: Axes, which: str, ticks: Iterable[float] | None = None) -> None:
    """A logarithmic axis with these ticks, or at 1, 2 and 5, in plain numbers.

    Matplotlib would write 10^3 as mathematics, and labels here are text.
    """
    axes.set(**{f"{which}scale": "log"})
    axis: Axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_major_locator(FixedLocator(sorted(set(ticks))) if ticks else LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())


def set_numbers(axes: Axes, numbers: Iterable[int], right: float | None = None) -> bool:
    """The axis of N: ticks where it was measured, logarithmic where it spans two doublings; whether it is."""
    numbers = sorted(set(numbers))
    is_log = numbers[-1] >= 4 * numbers[0]
    edge = 0.12 * (numbers[-1] - numbers[0])
    if is_log:
        set_log(axes, "x", numbers)
    else:
        axes.set_xticks(numbers)
    left = numbers[0] / 1.2 if is_log else numbers[0] - edge
    axes.set_xlim(left, right or (numbers[-1] * 1.2 if is_log else numbers[-1] + edge))
    return is_log


def beside(axes: Axes, numbers: Iterable[float], place: int, num_places: int) -> Any:
    """Where the marks of one of several series stand: beside N, so that they do not hide each other."""
    at = np.array(list(numbers), float)
    step = min(0.014, 0.05 / num_places) * (place - (num_places - 1) / 2)
    left, right = axes.get_xlim()
    if axes.get_xscale() == "log":
        return at * (right / left) ** step
    return at + step * (right - left)


def draw_marks(axes: Axes, at: Any, intervals: Sequence[Facts], mark: Mark, times: float = 1.0) -> None:
    """A series with its intervals."""
    middle, spread = spreads(intervals, times)
    axes.errorbar(
        at, middle, spread, color=mark.colour, marker=mark.marker, linestyle=mark.dashes, label=mark.name,
        linewidth=1.6, markersize=5.5, capsize=3, elinewidth=1.1, zorder=3,
    )  # fmt: skip


def ideal_handle(words: str) -> Line2D:
    """What stands in a legend for the thick grey line that others are held against."""
    return Line2D([], [], color=GREY, linewidth=3, alpha=0.6, label=words)


def add_legend(drawing: Figure, handles: Sequence[Any]) -> None:
    """A legend above the axes, where nothing is drawn, in as many columns as its words leave room for."""
    labels = [str(handle.get_label()) for handle in handles]
    column_in = 0.6 + 0.066 * max(map(len, labels))
    columns = max(1, int((drawing.get_figwidth() - 0.2) / column_in))
    drawing.legend(
        handles, labels, loc="outside upper left", ncols=columns, fontsize=9, columnspacing=1.2, handlelength=2.2
    )


def ink_on(colour: Any) -> str:
    """Black or white, whichever has the greater contrast on a colour (WCAG's relative luminance)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
