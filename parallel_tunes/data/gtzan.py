"""GTZAN's fault-filtered lists (Kereliuk, Sturm & Larsen 2015, doi:10.1109/TMM.2015.2478068): 443, 197 and 290 tracks.

They leave out repetitions and distortions (Sturm 2012, arXiv:1306.1461) and keep artists apart. torchaudio hands them
out; they are read from its source, because its compiled part is not needed and need not fit the torch that is here.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from parallel_tunes.schema import UserError

LISTS = {"train": "filtered_train", "valid": "filtered_valid", "test": "filtered_test"}
MEND = "`pip install torchaudio==2.11.0 --no-deps` brings it"


def draw(paths: Iterable[str]) -> list[str]:
    """The split of each track by its name, `blues.00000` whatever its folder and ending; empty where it is in no list.

    Parts of a track, `blues.00000.3`, and names without the first dot, `blues00000`, go with it.

    Raises:
        UserError: the lists are not to be had, or none of the tracks is in them.
    """
    split_of = {track: name for name, tracks in read_lists().items() for track in tracks}
    names = [split_of.get(name_track(path), "") for path in paths]
    if not any(names):
        raise UserError("split=gtzan_fault_filtered: no track is called as in GTZAN, blues.00000 say")
    return names


def name_track(path: str) -> str:
    """What GTZAN calls a track of this path; empty where it calls none so."""
    match = re.match(r"([a-z]+)[._-]?(\d{5})(?!\d)", path.rpartition("/")[2].lower())
    return f"{match[1]}.{match[2]}" if match else ""


@functools.cache
def read_lists() -> dict[str, tuple[str, ...]]:
    """The tracks' names by split, from the source of the torchaudio that is installed.

    Raises:
        UserError: there is none, or one without them.
    """
    found = importlib.util.find_spec("torchaudio")  # looks for it, and runs none of it
    where = [Path(folder) / "datasets" / "gtzan.py" for folder in (found and found.submodule_search_locations) or ()]
    try:
        source = next(path for path in where if path.is_file()).read_text()
        values = {
            target.id: node.value
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return {name: tuple(map(str, ast.literal_eval(values[listed]))) for name, listed in LISTS.items()}
    except StopIteration as error:
        raise UserError(f"split=gtzan_fault_filtered: the lists are torchaudio's, which is missing; {MEND}") from error
    except (OSError, SyntaxError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"split=gtzan_fault_filtered: the torchaudio installed here has no such lists any more; {MEND}"
        ) from error
