"""Who made a track: names out of the cells of tables, and groups of artists who have recorded together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Names = tuple[str, ...]
COLUMNS = (
    "artists",
    "artist_names",
    "artist_name",
    "artist",
    "track_artist",
    "performer",
)  # the first that is there counts
# what stands between names that are written one after the other. A comma may stand within a name, too; for groups that costs
# nothing, since the same name is taken apart in the same way everywhere
BETWEEN = re.compile(r"\s*[;|]\s*|\s+/\s+|,\s+|\s+[(\[]?(?:feat|ft|featuring)\b\.?\s+", re.IGNORECASE)


def parse_names(cell: object) -> Names | None:
    """The names in a cell: a list (parquet's), a Python or JSON list as text, or plain text; None where a list is broken.

    >>> parse_names('["Anita O\\'Day", "Gene Krupa"]')
    ("Anita O'Day", 'Gene Krupa')
    >>> parse_names("Ann; Bob (feat. Cy)")
    ('Ann', 'Bob', 'Cy')
    """
    if isinstance(cell, str):
        if not cell.startswith(("['", '["')) and cell != "[]":
            return _take_apart(cell.strip())
        if cell.endswith("']") and cell.startswith("['") and '"' not in cell and "\\" not in cell:
            # Python quotes so only names without quotes: nothing is left to parse, at a twentieth of the time
            found = cell[2:-2].split("', '")
            if not any("'" in name or not name.strip() for name in found):
                return tuple(found)
        try:
            return _checked(ast.literal_eval(cell))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if isinstance(cell, np.ndarray):
        return _checked(cell.tolist())
    return _checked(cell) if isinstance(cell, list | tuple) else ()


def _take_apart(text: str) -> Names:
    parts = [part.strip() for part in BETWEEN.split(text)]
    closed = [part[:-1] if part[-1:] in ")]" and not {"(", "["} & set(part) else part for part in parts]
    return tuple(dict.fromkeys(filter(None, closed if len(closed) > 1 else parts)))


def _checked(found: object) -> Names | None:
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) and name.strip() for name in found):
        return None
    return tuple(found)


def parse_column(cells: Iterable[object]) -> list[Names | None]:
    """`parse_names` of each; many are alike, and parsed once."""
    known: dict[str, Names | None] = {}
    parsed = []
    for cell in cells:
        if not isinstance(cell, str):
            parsed.append(parse_names(cell))
            continue
        if cell not in known:
            known[cell] = parse_names(cell)
        parsed.append(known[cell])
    return parsed


def link(credits: Sequence[Names]) -> NDArray[np.object_]:
    """Each track's group: the artists it links, those that they share other tracks with, and so on.

    Args:
        credits: each track's artists, at least one.

    Returns:
        Names of the groups, shape (num_tracks,): the first of its artists in sorted order.
    """
    names = sorted({name for artists in credits for name in artists})
    codes = {name: code for code, name in enumerate(names)}
    firsts = np.array([codes[artists[0]] for artists in credits], np.int64)
    pairs = [(codes[artists[0]], codes[other]) for artists in credits for other in artists[1:]]
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, parts = connected_components(graph, directed=False)
    _, earliest = np.unique(parts, return_index=True)  # parts count from 0, and names are sorted
    groups: NDArray[np.object_] = np.array(names, object)[earliest[parts[firsts]]]
    return groups
