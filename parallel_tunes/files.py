"""Files appear by rename: written whole under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

import xxhash

TEMPORARY = ".partial-"


def write_file(
    path: Path,
    write: Callable[[IO[bytes]], object],
    *,
    before_rename: Callable[[], None] | None = None,
    is_last: bool = True,
) -> None:
    """Call `write` on a temporary file beside `path`, fsync it and rename it onto `path`.

    `before_rename` may raise to keep the old file; nothing half-written remains either way. Where another file of the same
    folder follows at once, this is not the last, and the rename is made to last with that one's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name[-100:]}")
    try:
        with partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if before_rename is not None:
            before_rename()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if is_last:
        sync_folder(path.parent)


def explain(error: OSError) -> str:
    """Why the disk refused, in words; numpy's short writes come without."""
    return error.strerror or f"the disk seems to be full ({error})"


def sync_folder(folder: Path) -> None:
    """Make the renames in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def escape(name: str | Path) -> str:
    """A file's name as text, in which bytes that are not UTF-8 stand as `\\xe9`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def write_text(path: Path, text: str) -> None:
    """`write_file` for text, UTF-8; what of a file's name is none is escaped, as JSON does it too."""
    write_file(path, lambda stream: stream.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_file` for JSON; NaN and infinities are refused, because they are no JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def remove_partials(folder: Path, only: Collection[str] | None = None) -> None:
    """Remove what a killed writer left in `folder` or below it; `only` of files with these names, where given."""
    for partial in folder.rglob(f"{TEMPORARY}*"):
        if only is None or partial.name.removeprefix(TEMPORARY).partition("-")[2] in only:
            partial.unlink(missing_ok=True)


def digest_file(path: Path) -> str:
    """XXH3-128 of a file's bytes, 32 hex digits: as fast as memory, where BLAKE2b took as long as the whole log-mel."""
    digest, buffer = xxhash.xxh3_128(), bytearray(1 << 17)
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()


def digest_json(value: object) -> str:
    """BLAKE2b-128 of a JSON value with sorted keys, 32 hex digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def digest_bytes(data: bytes) -> str:
    """XXH3-128 of bytes in memory, 32 hex digits."""
    return xxhash.xxh3_128(data).hexdigest()
