"""The page of an export: parity with torch, sizes, times and scores of each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parallel_tunes.reports.numbers import decimals, percent, show_ends
from parallel_tunes.reports.page import render_page
from parallel_tunes.reports.scaling.tables import Table, Value, three_figures
from parallel_tunes.run import Run

NAMES = {"torch": "torch", "float32": "ONNX, float32", "int8": "ONNX, int8"}
WORDS = {"accuracy": "accuracy", "map": "mean average precision", "auc": "AUC"}


def write(run: Run, report: dict[str, Any]) -> None:
    """Write report.html."""
    facts = {
        "report": report,
        "metrics": report["metrics"],
        "tables": [tabulate(report["metrics"]), compare(report["metrics"])],
    }
    run.write_bytes("report.html", render_page("export.html", facts, {}).encode())


def tabulate(metrics: dict[str, Any]) -> Table:
    """A row for each runtime: size, time, scores."""
    judged, latency = metrics["judged"], metrics["latency"]
    scores = [name for name in WORDS if judged and judged["float32"].get(name) is not None]
    rows = []
    for name, shown in NAMES.items():
        taken = latency[name]
        spread = f"{three_figures(taken['low'])} to {three_figures(taken['high'])}"
        worth = [Value(decimals(judged[name][score]), show_ends(judged[name].get(f"{score}_ci95"))) for score in scores]
        size = Value(f"{metrics['num_bytes'][name] / 1000:.0f}")
        rows.append([Value(shown), size, Value(three_figures(taken["median"]), spread), *worth])
    return Table("The runtimes", ["runtime", "size (kB)", latency["unit"], *(WORDS[score] for score in scores)], rows)


def compare(metrics: dict[str, Any]) -> Table:
    """A row for each comparison of two runtimes: their times, their scores, the tracks on which they differ."""
    judged = metrics["judged"]
    rows = [
        [Value(f"time, {name}"), Value(f"{ratio['median']:.2f}", f"{ratio['low']:.2f} to {ratio['high']:.2f}")]
        for name, ratio in metrics["ratios"].items()
    ]
    for score in (score for score in WORDS if judged and judged["lost"].get(score) is not None):
        ends = judged["lost"].get(f"{score}_ci95")
        lost = _signed(judged["lost"][score])
        rows.append([Value(f"{WORDS[score]}, float32 − int8"), Value(lost, show_ends(ends, _signed) if ends else "")])
    if judged and "turned" in judged:
        share, interval = judged["turned"]["share"], judged["turned"]["share_ci95"]
        what = "tracks that one of float32 and int8 labels correctly and the other does not"
        rows.append([Value(what), Value(percent(share), show_ends(interval, percent))])
    return Table("Compared", ["comparison", "value"], rows)


def to_lines(report: dict[str, Any]) -> Iterator[str]:
    """The verdict, then the rows of both tables."""
    metrics = report["metrics"]
    parity = metrics["parity"]
    yield (
        f"largest difference in probability from torch: {parity['largest_difference']:.2g}, tolerance {parity['tolerance']:g}, "
        f"n = {parity['n']} {parity['unit']} of {parity['of']}"
    )
    table = tabulate(metrics)
    for name, *values in table.rows:
        yield f"{name.text}: {', '.join(map(_label, table.heads[1:], values))}"
    for name, value in compare(metrics).rows:
        yield _label(name.text, value)


def _label(head: str, value: Value) -> str:
    return f"{head} {value.text}{f' ({value.spread})' if value.spread else ''}"


def _signed(value: float | None) -> str:
    """A difference of scores; a difference that rounds to 0 has no sign."""
    return decimals(None if value is None else round(value, 5) + 0.0, 5)
