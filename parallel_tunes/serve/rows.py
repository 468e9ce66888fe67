"""Rows to be answered, read from a CSV, parquet or JSON file, or as they were posted; and answers as people read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from parallel_tunes.data import tables
from parallel_tunes.schema import UserError

MAX_ROWS = 1_000_000  # of a table
SHOWN = 20  # rows in the terminal


def read_rows(file: Path, wanted: Sequence[str], max_bytes: int, say: Callable[[str], object]) -> pd.DataFrame:
    """The rows of a table; of JSON, a list of objects or {"rows": […]}, the wanted columns.

    Args:
        say: told in a line how it is written, where that is no plain CSV.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    if file.suffix.lower() != ".json":
        table = tables.read(file, [], max_mib=max(max_bytes >> 20, 1), max_rows=MAX_ROWS)
        for remark in table.remarks:
            say(remark)
        return table.frame
    try:
        if file.stat().st_size > max_bytes:
            raise UserError(f"larger than predict.max_mib={max_bytes >> 20} MiB")
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read as JSON ({str(error).splitlines()[0]})") from error
    rows = rows.get("rows") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError('expected a list of rows, each an object of column names and values, or {"rows": […]}')
    return tabulate_rows(rows, wanted)


def tabulate_rows(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame of what is asked for: each row of a hostile list may have columns of its own.

    Raises:
        UserError: there are none, too many, or they are no objects.
    """
    _check_number(len(rows), MAX_ROWS)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise UserError("expected a list of rows, each an object of column names and values")
    return pd.DataFrame([{name: row[name] for name in wanted if name in row} for row in rows], dtype=object)


def parse_rows(body: bytes, *, is_csv: bool, max_rows: int) -> list[dict[str, Any]]:
    """Rows as they were posted: CSV, or JSON {"rows": […]}.

    Raises:
        UserError: they cannot be read, are too many, or are no objects.
    """
    if is_csv:
        frame = tables.parse_csv(Path("body.csv"), body, lambda _: None)[0]
        _check_number(len(frame), max_rows)
        return [dict(zip(map(str, frame), cells, strict=True)) for cells in frame.itertuples(index=False, name=None)]
    try:
        posted = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body cannot be read as JSON ({str(error).splitlines()[0]})") from error
    rows = posted.get("rows") if isinstance(posted, dict) else posted
    if not isinstance(rows, list):
        raise UserError('expected {"rows": […]}, a list of objects of column names and values')
    _check_number(len(rows), max_rows)
    return rows


def _check_number(num: int, most: int) -> None:
    if num > most:
        raise UserError(f"{num} rows: {most} are answered at most")


def format_rows(answers: Sequence[Mapping[str, Any]]) -> str:
    """A table for people: the first rows, a line each; of songs for a user, all."""
    good = [answer for answer in answers if "reason" not in answer]
    rows = [answer for answer in good if "rank" not in answer]
    lines = [f"{answer['rank']:>4}  {answer['song_id']}  {_say(answer)}" for answer in good if "rank" in answer]
    lines += [f"{row['file']}  {row['row']:>6}  {row.get('id', '')}  {_say(row)}".rstrip() for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(f"… and {len(rows) - SHOWN} more rows, all in report.json")
    return "".join("".join(letter if letter.isprintable() else "�" for letter in line) + "\n" for line in lines)


def _say(answer: Mapping[str, Any]) -> str:
    if "popularity" in answer:
        return f"{answer['popularity']:.1f}"
    if "probability" in answer:
        unseen = "".join(f", unseen {kind}" for kind in answer.get("unseen", []))
        return f"{100 * answer['probability']:.1f} %{unseen}"
    return "  ".join(f"{best['label']} {100 * best['probability']:.1f} %" for best in answer["top"])
