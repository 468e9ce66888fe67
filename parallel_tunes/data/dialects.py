"""Tables as spreadsheets and their users write them, made plain: UTF-8, commas between cells, points in numbers.

What can be meant in one way only is read, and said; what cannot is refused by its name. Lines stay where they are, so that
a row is still found by its number.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from parallel_tunes.schema import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
PROBED = 200  # records, by which the separator is told
SAVE = "save it as CSV UTF-8 (comma delimited), with points in numbers"
WESTERN = "‘’“”„–—…•€£©®°«»·´¡¿\xa0"  # what people write between letters; other signs belong to another code page
RUN = re.compile(r"[^\x00-\x7f]{4,}")  # Greek, Cyrillic or Asian words; no Western one has so many in a row
NUMBER = r"^\s*[+-]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:[eE][+-]?\d+)?\s*$"
# what tells a decimal comma, commas between thousands, a decimal point, and points between thousands
COMMA = r"^\s*[+-]?(?:\d{1,3}(?:\.\d{3})+,\d+|0*,\d+|0\d*,\d+|\d+,(?:\d{1,2}|\d{4,})|\d{4,},\d+)(?:[eE][+-]?\d+)?\s*$"
COMMAS = r"^\s*[+-]?\d{1,3}(?:,\d{3})+(?:,\d{3}|\.\d+)\s*$"
POINT = r"^\s*[+-]?(?:0*\.\d+|0\d*\.\d+|\d+\.(?:\d{1,2}|\d{4,})|\d{4,}\.\d+)(?:[eE][+-]?\d+)?\s*$"
POINTS = r"^\s*[+-]?\d{1,3}(?:\.\d{3}){2,}\s*$"


def decode(path: Path, data: bytes) -> tuple[str, str]:
    """The text of a table, and its encoding for people, "" for UTF-8.

    Raises:
        UnicodeDecodeError: it is none that can be told.
        UserError: UTF-16 that is cut off.
    """
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            try:
                return data[2:].decode(name), "UTF-16"
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: UTF-16 that is damaged or cut off; {SAVE}") from error
    try:
        return data.decode().removeprefix("\ufeff"), ""
    except UnicodeDecodeError:
        text = "" if data.startswith(b"\xef\xbb\xbf") else data.decode("cp1252", "replace")
        is_western = text and all(sign < "\x80" or sign.isalpha() or sign in WESTERN for sign in set(text))
        if not is_western or RUN.search(text):
            raise
        return text, "Windows-1252"


def straighten(text: str) -> tuple[str, str]:
    """A table with commas between its cells, and what was between them, for people, "" for commas."""
    first, _, rest = text.partition("\n")
    given = re.fullmatch(r'"?sep=(.)"?\r?', first.strip(" "))
    separator = given[1] if given else find_separator(text)
    if given:  # what Excel takes for a hint; the line stays, empty
        text = "\n" + rest
    if separator == ",":
        return text, "a line sep=," if given else ""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for cells in reader:
        if cells:
            writer.writerow(cells)
        else:
            lines.write("\n")
    return lines.getvalue(), f"{SEPARATORS.get(separator, repr(separator))} between cells"


def find_separator(text: str) -> str:
    """What stands between cells: commas wherever they do, else what gives every row as many cells as the header."""
    header = text[: text.find("\n") + 1 or None]
    if "," in header and not any(separator in header for separator in SEPARATORS if separator != ","):
        return ","
    widths = {separator: len(set(found)) == 1 and found[0] for separator, found in _measure(text)}
    if widths[","] and widths[","] > 1:
        return ","
    best = max(widths, key=lambda separator: widths[separator] or 0)
    return best if (widths[best] or 0) > 1 else ","


def _measure(text: str) -> Iterator[tuple[str, list[int]]]:
    """Of each separator, how many cells the first records have by it."""
    start = text[: 1 << 20]
    for separator in SEPARATORS:
        found = list[int]()
        if separator in start or separator == ",":
            reader = csv.reader(io.StringIO(start, newline=""), delimiter=separator)
            try:
                found = [len(cells) for cells in itertools.islice(reader, PROBED + 1) if cells][:PROBED]
            except csv.Error:
                found = []
            found = found[:-1] if len(start) < len(text) and len(found) < PROBED else found  # the last may be cut
        yield separator, found or [0]


def name(start: bytes) -> str:
    """How a table is written, by its beginning, for people; "" where it is plain."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    text = start.decode(errors="replace")
    separator = find_separator(text)
    return "" if separator == "," else f"{SEPARATORS[separator]} between cells"


def make_plain(path: Path, frame: pd.DataFrame, separator: str, kept: frozenset[str]) -> tuple[pd.DataFrame, str]:
    """Columns of numbers with points before their decimals, and how they were written, "" where so.

    Args:
        separator: of the file, for people.
        kept: columns that are text whatever they look like.

    Raises:
        UserError: it cannot be told which they are.
    """
    cells = {
        column: pa.array(frame[column], pa.string()) for column in frame if column not in kept and column == column
    }
    suspects = {column: values for column, values in cells.items() if pc.any(pc.match_substring(values, ",")).as_py()}
    odd = {column: values for column, values in suspects.items() if _all_match(values, NUMBER)}
    rest = cells if separator or odd else {}
    has_points = {
        c: v for c, v in rest.items() if c not in suspects and _any_match(v, POINTS) and _all_match(v, NUMBER)
    }
    if not odd and not has_points:
        return frame, ""
    is_decimal = any(_any_match(values, COMMA) for values in odd.values())
    is_grouped = any(_any_match(values, COMMAS) for values in odd.values())
    others = {c: v for c, v in cells.items() if _all_match(v, NUMBER)}
    has_point = any(_any_match(values, POINT) for values in others.values())
    example = next(iter(odd or has_points))
    is_mixed = (is_decimal and (is_grouped or has_point)) or (bool(has_points) and (has_point or is_grouped))
    is_open = not (is_decimal or is_grouped or has_point or has_points)
    # between commas such cells have quotes, and are text wherever they are not all numbers in one way
    if "between cells" not in separator and (is_mixed or is_open):
        return frame, ""
    if is_mixed:
        raise UserError(
            f"{path}: its numbers are written in two ways, decimal commas and decimal points (column {example}); {SAVE}"
        )
    if is_open:
        is_decimal = "semicolons" in separator  # where commas between cells would not do
        if not is_decimal:
            first = next(text for text in odd[example].to_pylist() if "," in text)
            raise UserError(
                f"{path}: column {example} holds {first}: a decimal comma, or one between thousands? {SAVE}"
            )
    frame = frame.copy()
    if is_decimal or has_points:
        wrong = {c: v for c, v in others.items() if c in odd or pc.any(pc.match_substring(v, ".")).as_py()}
        for column, values in wrong.items():
            plain = pc.replace_substring(pc.replace_substring(values, ".", ""), ",", ".")
            frame[column] = plain.to_pandas()
        points = any(pc.any(pc.match_substring(values, ".")).as_py() for values in wrong.values())
        return frame, "decimal commas" * bool(odd) + " and " * (
            bool(odd) and points
        ) + "points between thousands" * points
    for column, values in odd.items():
        frame[column] = pc.replace_substring(values, ",", "").to_pandas()
    return frame, "commas between thousands"


def _any_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(values, pattern)).as_py())


def _all_match(values: pa.Array, pattern: str) -> bool:
    """Whether all cells that are not empty match, and there is one."""
    filled = pc.not_equal(pc.utf8_trim_whitespace(values), "")
    fits = pc.or_(pc.invert(filled), pc.match_substring_regex(values, pattern))
    return bool(pc.any(filled).as_py() and pc.all(fits).as_py())
