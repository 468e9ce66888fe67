"""A description in JSON and the file that it describes, checked against each other on load: model folders of any kind; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parallel_tunes import files
from parallel_tunes.schema import UserError


def describe(facts: Mapping[str, Any], version: int) -> bytes:
    """The description, as bytes of JSON."""
    text = json.dumps({"format": version, **facts}, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read(
    folder: Path, sizes: tuple[tuple[str, int], tuple[str, int]], *, version: int,
    find_digest: Callable[[dict[str, Any]], Any], advice: str,
) -> tuple[dict[str, Any], bytes]:  # fmt: skip
    """The description and the content of a model's folder.

    Args:
        sizes: of the description, then of the content: its name, and how large it may be, bytes.
        version: the format that is read.
        find_digest: the content's digest, in the description.
        advice: what is told where one is missing.

    Raises:
        UserError: one is missing, too large, damaged, or of another format.
    """
    (about, _), (content, _) = sizes
    for name, most in sizes:
        if not (folder / name).is_file():
            raise UserError(f"model={folder}: {name} is missing; {advice}")
        if (folder / name).stat().st_size > most:
            raise UserError(f"model={folder}: {name} is larger than any of ours")
    try:
        facts: dict[str, Any] = json.loads((folder / about).read_text())
        if facts["format"] != version:
            raise UserError(f"model={folder}: written in format {facts['format']}, this version reads {version}")
        digest = find_digest(facts)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model={folder}: {about} is damaged ({type(error).__name__}: {error})") from error
    data = (folder / content).read_bytes()
    if files.digest_bytes(data) != digest:
        raise UserError(f"model={folder}: {content} is not the one that {about} names (damaged or changed)")
    return facts, data
