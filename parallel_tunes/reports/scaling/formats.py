"""The tables of a scaling study as Markdown, LaTeX and CSV, and its step times for Extra-P."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from parallel_tunes.reports.scaling.tables import Facts, Table, Value, all_tables, comparison_table

TEX = str.maketrans({
    **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}",
    "×": r"$\times$", "–": "--", "\n": " ",
})  # fmt: skip
MARKDOWN = str.maketrans({
    **{sign: f"\\{sign}" for sign in "\\`*_[]|~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ",
})  # fmt: skip


def to_markdown(tables: Iterable[Table]) -> str:
    """The tables for a README: pipes, an interval in brackets behind its median."""

    def line(boxes: Iterable[str]) -> str:
        return "| " + " | ".join(boxes) + " |"

    def lines(table: Table) -> Iterator[str]:
        rules = ["---" if at < table.num_words else "---:" for at in range(len(table.heads))]
        yield from (f"## {table.title}", "", line(table.heads), line(rules))
        for row in table.rows:
            yield line(_beside(value).translate(MARKDOWN) for value in row)

    return "\n\n".join("\n".join(lines(table)) for table in tables) + "\n"


def _beside(value: Value) -> str:
    return f"{value.text} ({value.spread})" if value.spread else value.text


def to_latex(tables: Iterable[Table]) -> str:
    """The tables for a paper; they need the package booktabs."""

    def line(boxes: Iterable[str]) -> str:
        return " & ".join(boxes) + r" \\"

    def box(value: Value) -> str:
        spread = rf" {{\scriptsize ({value.spread.translate(TEX)})}}" if value.spread else ""
        return value.text.translate(TEX) + spread

    def lines(table: Table) -> Iterator[str]:
        kinds = "l" * table.num_words + "r" * (len(table.heads) - table.num_words)
        yield from (r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}")
        yield from (rf"\caption{{{table.title.translate(TEX)}}}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule")
        yield from (line(head.translate(TEX) for head in table.heads), r"\midrule")
        yield from (line(map(box, row)) for row in table.rows)
        yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}")

    head = "% needs \\usepackage{booktabs} and, for quotation marks, \\usepackage[T1]{fontenc}\n"
    return head + "\n\n".join("\n".join(lines(table)) for table in tables) + "\n"


def to_csv(metrics: Facts) -> str:
    """A row a cell with all its figures, in the units of report.json; an interval is three columns, and what no cell has is left out."""
    preprocessing = (metrics["preprocess"] or {"cells": []})["cells"]
    kinds = [("train", cell) for cell in metrics["cells"]] + [("preprocess", cell) for cell in preprocessing]
    rows = [{"kind": kind} | dict(_flatten(cell)) for kind, cell in kinds]
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names or ["kind"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _flatten(cell: Facts) -> Iterator[tuple[str, Any]]:
    for key, figure in cell.items():
        if isinstance(figure, dict):
            for part, number in figure.items():
                yield (key if part == "median" else f"{key}_{part}"), number
        elif isinstance(figure, list):
            yield key, max(figure, default=None)
        elif figure is not None:
            yield key, figure


def to_extrap(rows: Iterable[Facts]) -> dict[str, str]:
    """The step times as Extra-P's JSON by name of file: a point for each size, a value for each window.

    Extra-P wants the same points of everything in a file: a precision beside the first has a file of its own. It wants
    two values of each parameter: what does not vary is none. Where one GPU ran with DDP and without, the one with
    stands: the model is of one program at any size.
    """
    mine = [row for row in rows if row["kind"] == "train" and row["status"] == "ok" and row.get("step_s")]
    wrapped = {_point(row) for row in mine if row["ddp"]}
    mine = [row for row in mine if row["ddp"] or _point(row) not in wrapped]
    files: dict[str, str] = {}
    for precision in dict.fromkeys(row["precision"] for row in mine):
        same = [row for row in mine if row["precision"] == precision]
        varied = [name for name in ("gpus", "batch") if len({row[name] for row in same}) > 1] or ["gpus"]
        values: dict[tuple[int, ...], list[float]] = {}
        for row in same:
            values.setdefault(tuple(row[name] for name in varied), []).extend(row["step_s"])
        points = [{"point": list(point), "values": values[point]} for point in sorted(values)]
        study = {"parameters": varied, "measurements": {"step": {"time": points}}}
        files[f"extrap-{precision}.json" if files else "extrap.json"] = json.dumps(study, indent=1) + "\n"
    return files


def _point(row: Facts) -> tuple[Any, ...]:
    return row["gpus"], row["batch"], row["precision"]


def to_lines(report: Facts) -> Iterator[str]:
    """The first table and the recommendation, or what two studies differ in, as plain text."""
    metrics = report["metrics"]
    table = comparison_table(metrics) if "a" in metrics else next(iter(all_tables(metrics)), None)
    if table:
        rows = [table.heads, *([_beside(value) for value in row] for row in table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            pairs = enumerate(zip(row, widths, strict=True))
            yield "  ".join(f"{text:{width if at < table.num_words else f'>{width}'}}" for at, (text, width) in pairs)
        yield ""
    yield from metrics.get("advice", [])
