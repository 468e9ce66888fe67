"""What an export found: how true the graphs are, what 8-bit integers cost, how large and how quick they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parallel_tunes.reports.numbers import decimals, show_ends
from parallel_tunes.reports.page import render_page
from parallel_tunes.reports.scaling.tables import Table, Value, three_figures
from parallel_tunes.run import Run

NAMES = {"torch": "torch", "float32": "ONNX, float32", "int8": "ONNX, int8"}
WORDS = {"accuracy": "accuracy", "map": "mean average precision", "auc": "AUC"}


def write(run: Run, report: dict[str, Any]) -> None:
    """Write report.html."""
    facts = {"report": report, "metrics": report["metrics"], "table": tabulate(report["metrics"])}
    facts |= {"lines": list(to_lines(report))}
    run.write_bytes("report.html", render_page("export.html", facts, {}).encode())


def tabulate(metrics: dict[str, Any]) -> Table:
    """A row a runtime: its size, its time, and what its answers are worth."""
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


def to_lines(report: dict[str, Any]) -> Iterator[str]:
    """The findings as sentences."""
    metrics = report["metrics"]
    parity, num_bytes, judged = metrics["parity"], metrics["num_bytes"], metrics["judged"]
    verdict = "within" if parity["is_held"] else "NOT within"
    yield (
        f"largest difference in probability from torch {parity['largest_difference']:.2g}, {verdict} {parity['tolerance']:g}; "
        f"n = {parity['n']} {parity['unit']} of {parity['of']}"
    )
    share = num_bytes["int8"] / num_bytes["float32"]
    yield f"{num_bytes['float32']} bytes in float32, {num_bytes['int8']} in int8: {100 * share:.0f} % of them"
    for name, ratio in metrics["ratios"].items():
        yield f"time of {name}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), {metrics['latency']['unit']}"
    if judged and "turned" in judged:
        low, high = judged["turned"]["share_ci95"]
        yield (
            f"named rightly by one of float32 and int8 and wrongly by the other: {100 * judged['turned']['share']:.1f} % "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %) of {judged['n']} {judged['split']['name']} tracks"
        )
    if judged:
        for score in (score for score in WORDS if judged["lost"].get(score) is not None):
            before, after, ends = judged["float32"][score], judged["int8"][score], judged["lost"].get(f"{score}_ci95")
            interval = f" (95 % interval {_signed(ends[0])} to {_signed(ends[1])})" if ends else ""
            yield (
                f"{WORDS[score]} {before:.4f} in float32, {after:.4f} in int8: {_signed(judged['lost'][score])} lost{interval}, "
                f"n = {judged['n']} {judged['split']['name']} {judged['unit']}"
            )


def _signed(value: float) -> str:
    """A difference of scores; what rounds to nothing has no sign."""
    return f"{round(value, 5) + 0.0:.5f}"
