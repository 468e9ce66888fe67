"""The answers to many files as one table: CSV, JSON lines or parquet, written part by part."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import IO

import pyarrow
import pyarrow.parquet

from parallel_tunes.data.label_sets import SEPARATOR
from parallel_tunes.run import Run
from parallel_tunes.serve.labels import Answer

Row = dict[str, str | float | None]


def columns_of(num_labels: int, *, multi_label: bool) -> dict[str, pyarrow.DataType]:
    """The columns of a table and their types.

    file, duration_s, of models that give several labels `labels` (`a|b`), then label_1, probability_1, label_2, … of the
    `num_labels` most probable, note, which says what of a file could not be decoded, and reason, why it has none of these.
    """
    text, number = pyarrow.string(), pyarrow.float64()
    ranked = {
        f"{name}_{place}": kind
        for place in range(1, num_labels + 1)
        for name, kind in (("label", text), ("probability", number))
    }
    labels = {"labels": text} if multi_label else {}
    return {"file": text, "duration_s": number, **labels, **ranked, "note": text, "reason": text}


def flatten(answer: Answer) -> Row:
    """An answer as a row of such columns; those that it lacks are left out, and what else is a list is joined by |."""
    row: Row = {}
    for name, value in answer.items():
        if name == "top":
            for place, entry in enumerate(value, 1):
                row |= {f"label_{place}": entry["label"], f"probability_{place}": entry["probability"]}
        elif isinstance(value, list):
            row[name] = SEPARATOR.join(entry["label"] if isinstance(entry, dict) else str(entry) for entry in value)
        else:
            row[name] = value
    return row


Parts = Iterable[list[Answer]]
Columns = dict[str, pyarrow.DataType]


def write_csv(stream: IO[bytes], parts: Parts, columns: Columns) -> None:
    """UTF-8, with a header; what is missing is an empty cell."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for answers in parts:
        writer.writerows(map(flatten, answers))
    text.detach()  # the stream is not this function's to close


def write_jsonl(stream: IO[bytes], parts: Parts, columns: Columns) -> None:
    """An answer a line, whole: with its threshold where a label has one."""
    del columns
    for answers in parts:
        stream.write(to_lines(answers))


def write_parquet(stream: IO[bytes], parts: Parts, columns: Columns) -> None:
    """A row group a part."""
    schema = pyarrow.schema(list(columns.items()))
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for answers in parts:
            writer.write_table(pyarrow.Table.from_pylist(list(map(flatten, answers)), schema))


def to_lines(answers: list[Answer]) -> bytes:
    """Answers as JSON, one a line."""
    return "".join(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n" for answer in answers).encode()


WRITERS: dict[str, Callable[[IO[bytes], Parts, Columns], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def write(run: Run, output: str, answers: list[Answer]) -> str:
    """Write answers of any kind as one table of the columns that they have; the name of its file in the run's folder."""
    rows = list(map(flatten, answers))
    names = {name: None for row in rows for name in row}
    columns = {name: pyarrow.infer_type([row.get(name) for row in rows]) for name in names}
    table = f"predictions.{output}"
    run.write(table, lambda stream: WRITERS[output](stream, [answers], columns))
    return table
