"""A sweep of task=relisten: the runs of one command side by side, one figure of convergence and of what each is worth."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from parallel_tunes.reports.numbers import decimals, show_ends
from parallel_tunes.reports.page import GREY
from parallel_tunes.reports.popularity_figures import set_wide_log, shorten
from parallel_tunes.reports.relisten_figures import SOFT, best_rows
from parallel_tunes.reports.scaling.look import MARKS, WIDE, Facts, Picture, add_legend
from parallel_tunes.reports.scaling.tables import DASH, Table, Value
from parallel_tunes.run import Run
from parallel_tunes.schema import flatten

# keys that say where a run is and how it is watched, not what it learns
ASIDE = (
    "job", "run.", "parallel.", "train.track", "train.profile", "train.device", "train.timing",
    "data.columns", "data.threads", "data.max",
)  # fmt: skip
PANELS = (("auc", "AUC"), ("accuracy", "accuracy"))
MOST_KEYS = 2  # that a label has room for
LEAST_GAP = 0.15  # of an axis, between two values that are named on it
FAR = 1.5  # a run whose lowest loss is so many times the lowest of all leaves the axis to the others


class Sibling(NamedTuple):
    """A run of a sweep.

    Args:
        keys: of its config, flat.
        rows: of its metrics.jsonl.
    """

    name: str
    keys: Facts
    report: Facts
    rows: list[Facts]

    @property
    def status(self) -> str:
        """How it ended: complete, failed or preempted."""
        return str(self.report["status"])

    @property
    def lowest_loss(self) -> float | None:
        """The lowest validation loss of a seed, by which a run is chosen; None without validation."""
        return min((row["valid"]["loss"] for row in best_rows(self.rows)), default=None)

    def judged(self, part: str) -> Facts:
        """Its figures of test or valid; empty where it has none."""
        return self.report["metrics"].get(part) or {}


def read_sweep(run: Run, report: Facts) -> list[Sibling]:
    """The runs that have ended of the sweep that this one is of, itself among them, in their order; none where it is alone.

    Args:
        report: this run's, which is not written yet.
    """
    folder, given = run.folder, run.config["run"]
    base, _, _ = folder.name.rpartition("-")
    if given["dir"] is not None and Path(given["dir"]) == folder.parent:
        pattern = re.compile(r"(\d+)")
    elif base and (base == given["name"] if given["name"] else base.isdigit()):  # or a Slurm job's number
        pattern = re.compile(re.escape(base) + r"-(\d+)")
    else:
        return []
    if not pattern.fullmatch(folder.name):
        return []
    me, found = Sibling(folder.name, flatten(run.config), report, run.rows()), {}
    for path in folder.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and (sibling := me if path.name == me.name else _read(path, me)):
            found[int(match[1])] = sibling
    return [found[at] for at in sorted(found)] if len(found) > 1 else []


def _read(path: Path, me: Sibling) -> Sibling | None:
    """Another run of the sweep; None if it is none, or has not ended."""
    try:
        keys = flatten(yaml.safe_load((path / "config.yaml").read_text()))
        report = json.loads((path / "report.json").read_text())
        table = path / "metrics.jsonl"
        rows = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # what another program wrote may be anything
        return None
    is_same = all(keys.get(key) == me.keys.get(key) for key in ("task.name", "run.name", "run.dir"))
    return Sibling(path.name, keys, report, rows) if is_same and "status" in report else None


def swept_keys(sweep: Sequence[Sibling]) -> list[str]:
    """Keys in which the runs differ."""
    names = dict.fromkeys(key for sibling in sweep for key in sibling.keys if not key.startswith(ASIDE))
    return [key for key in names if len({str(sibling.keys.get(key)) for sibling in sweep}) > 1]


def label_runs(sweep: Sequence[Sibling]) -> list[str]:
    """What tells each run from the others: `lr 0.1`; its name where nothing does, or too much for a label."""
    keys = swept_keys(sweep) if len(swept_keys(sweep)) <= MOST_KEYS else []
    short = {key: re.sub(r"\.(name|kind)$", "", key).rpartition(".")[2] for key in keys}
    return [
        ", ".join(f"{short[key]} {_show(sibling.keys.get(key))}" for key in keys) or sibling.name for sibling in sweep
    ]


def judged_part(sweep: Sequence[Sibling]) -> str:
    """test, or valid where no run has test rows."""
    return "test" if any(sibling.judged("test") for sibling in sweep) else "valid"


def draw_sweep(sweep: Sequence[Sibling]) -> Picture:
    """Convergence, a line each run, and AUC and accuracy at the end against what was swept."""
    labels, keys, part = label_runs(sweep), swept_keys(sweep), judged_part(sweep)
    numbers = [sibling.keys.get(keys[0]) if len(keys) == 1 else None for sibling in sweep]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in numbers)
    height = 4.2 + 0.2 * max(len(sweep) - 10, 0)
    drawing, (left, *right) = plt.subplots(1, 3, figsize=(WIDE, height), layout="constrained", width_ratios=[1.5, 1, 1])
    _draw_convergence(left, sweep, labels)
    for axes, (key, name) in zip(right, PANELS, strict=True):
        score = f"{name}, {'test' if part == 'test' else 'validation'}"
        if is_number:
            _draw_against(axes, sweep, part, key, numbers)
            axes.set(xlabel=keys[0], ylabel=score)
        else:
            _draw_below(axes, sweep, part, key)
            axes.set_yticks(range(len(sweep)), [shorten(label, 24) if axes is right[0] else "" for label in labels])
            axes.set_xlabel(score)
    add_legend(drawing, [_key(at, *named) for at, named in enumerate(zip(sweep, labels, strict=True))])
    known = "; ".join(
        f"{label} {decimals(sibling.judged(part).get('auc'))}" for label, sibling in zip(labels, sweep, strict=True)
    )
    rows = "test rows; bars: 95 % intervals over users" if part == "test" else "validation rows"
    caption = (
        "Left: rings mark the epoch whose weights are kept, crosses where a training failed or stopped; losses far above the "
        f"others are given as numbers. Right: {rows}."
    )
    alt = f"AUC, {part}: {known}."
    return Picture(drawing, "Convergence, and what each run is worth", alt, caption, is_wide=True)


def _look(at: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of a run."""
    colour, marker, dashes = MARKS[at % len(MARKS)]
    return str(colour), str(marker), dashes


def _key(at: int, sibling: Sibling, label: str) -> Line2D:
    colour, marker, dashes = _look(at)
    name = shorten(label, 60) + ("" if sibling.status == "complete" else f": {sibling.status}")
    return Line2D([], [], color=colour, marker=marker, linestyle=dashes, linewidth=1.8, label=name)


def _draw_convergence(axes: Axes, sweep: Sequence[Sibling], labels: Sequence[str]) -> None:
    """Losses over epochs; what is far above the others is said in words, not drawn."""
    part = "valid" if any(row["valid"] for sibling in sweep for row in sibling.rows) else "train"
    lines = [[row for row in sibling.rows if row[part]] for sibling in sweep]
    lowest = [min((row[part]["loss"] for row in rows), default=None) for rows in lines]
    far = FAR * min((loss for loss in lowest if loss is not None), default=0.0)
    num_far = 0
    for at, (sibling, rows, loss) in enumerate(zip(sweep, lines, lowest, strict=True)):
        colour, _, dashes = _look(at)
        if loss is not None and loss > far:
            words = f"{shorten(labels[at])}: {loss:.3g} nats at the lowest ↑"
            axes.annotate(
                words, (1, 1), xycoords="axes fraction", xytext=(-4, -4 - 12 * num_far), textcoords="offset points", ha="right",
                va="top", fontsize=9, color=colour,
            )  # fmt: skip
            num_far += 1
            continue
        for seed in dict.fromkeys(row["seed"] for row in rows):
            mine = [row for row in rows if row["seed"] == seed]
            epochs, losses = [row["epoch"] + 1 for row in mine], [row[part]["loss"] for row in mine]
            axes.plot(epochs, losses, color=colour, linestyle=dashes, linewidth=1.8)
            if sibling.status != "complete":
                axes.plot(epochs[-1], losses[-1], "X", color=colour, markersize=9)
        for row in best_rows(sibling.rows) if sibling.status == "complete" else []:
            place = row["epoch"] + 1, row["valid"]["loss"]
            axes.plot(*place, "o", color=colour, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
    axes.set(xlabel="epoch", ylabel=f"{'validation' if part == 'valid' else 'training'} log-loss (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.1 + 0.06 * num_far)
    axes.set_xlim(left=0.5)


def _draw_against(axes: Axes, sweep: Sequence[Sibling], part: str, key: str, numbers: Sequence[Any]) -> None:
    """A score of each run against a number, on a logarithmic axis."""
    points: list[Any] = [sibling.judged(part).get(key) for sibling in sweep]
    line = sorted((number, value) for number, value in zip(numbers, points, strict=True) if value is not None)
    axes.plot([number for number, _ in line], [value for _, value in line], color=GREY, linewidth=1, zorder=1)
    for at, sibling in enumerate(sweep):
        colour, marker, _ = _look(at)
        if points[at] is None:
            axes.text(
                numbers[at], 0.02, _why_none(sibling), transform=axes.get_xaxis_transform(), rotation=90, ha="center", fontsize=9,
                color=SOFT,
            )  # fmt: skip
            continue
        if interval := sibling.judged(part).get(f"{key}_ci95"):
            axes.plot([numbers[at]] * 2, interval, color=colour, marker="_", markersize=8, linewidth=1.6)
        axes.plot(numbers[at], points[at], marker=marker, color=colour, markersize=7)
    set_wide_log(axes, "x", numbers)
    places = np.unique(np.log(numbers))
    if len(places) > 1 and np.diff(places).min() > LEAST_GAP * np.ptp(places):
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(numbers))))


def _draw_below(axes: Axes, sweep: Sequence[Sibling], part: str, key: str) -> None:
    """A score of each run, one below the other."""
    for at, sibling in enumerate(sweep):
        colour, marker, _ = _look(at)
        judged = sibling.judged(part)
        if judged.get(key) is None:
            words, transform = _why_none(sibling), axes.get_yaxis_transform()
            axes.text(0.5, at, words, transform=transform, ha="center", va="center", fontsize=9, color=SOFT)
            continue
        if interval := judged.get(f"{key}_ci95"):
            axes.plot(interval, [at] * 2, color=colour, marker="|", markersize=8, linewidth=1.6)
        axes.plot(judged[key], at, marker=marker, color=colour, markersize=7)
    axes.set_ylim(len(sweep) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _why_none(sibling: Sibling) -> str:
    return "no such score" if sibling.status == "complete" else sibling.status


def sweep_table(sweep: Sequence[Sibling]) -> Table:
    """A row each run."""
    keys, part = swept_keys(sweep), judged_part(sweep)
    rows = []
    for sibling in sweep:
        judged, ended = sibling.judged(part), re.sub(r"^\w+: ", "", sibling.report.get("reason") or sibling.status)
        words = [sibling.name, *(_show(sibling.keys.get(key)) for key in keys)]
        scores = [
            Value(decimals(judged.get(key)), show_ends(judged[f"{key}_ci95"]) if judged.get(f"{key}_ci95") else "")
            for key, _ in PANELS
        ]
        spent = sibling.report.get("time_s")  # `seconds` count from the start of the whole sweep
        rest = [
            decimals(sibling.lowest_loss),
            str(len(sibling.rows)),
            f"{sum(spent.values()):.0f}" if spent else DASH,
            ended,
        ]
        rows.append([*map(Value, words), *scores, *map(Value, rest)])
    name = "test" if part == "test" else "validation"
    heads = ["run", *keys, *(f"{word}, {name}" for _, word in PANELS), "lowest validation loss (nats)"]
    return Table("The sweep", [*heads, "epochs", "time (s)", "end"], rows)


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
