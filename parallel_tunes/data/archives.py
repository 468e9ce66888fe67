"""Packed tables: `NAME.csv`, `NAME.csv.gz` or `NAME.csv.7z` as one stream of bytes, bounded in what it unpacks to.

No path is taken from an archive: of its members only the last part of the name is looked at, and what it holds goes to an
unnamed file of ours, which is gone when it is closed.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from parallel_tunes.files import explain
from parallel_tunes.schema import UserError

ENDINGS = (".csv", ".csv.gz", ".csv.7z")  # the plain file before what it was unpacked from
TORN = "is it cut off? Fetch it again"


def find_table(folder: Path, name: str) -> Path | None:
    """The file of the table `name`; None where there is none."""
    return next((path for path in (folder / (name + ending) for ending in ENDINGS) if path.is_file()), None)


class Readable(Protocol):
    """What plain, packed and temporary files have in common."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def seek(self, offset: int, /) -> int: ...


class Stream:
    """The bytes of a table from its beginning."""

    def __init__(self, path: Path, file: Readable, max_mib: int) -> None:
        self.path = path
        self._file, self._max_mib, self._num_read = file, max_mib, 0

    def fill(self, buffer: memoryview) -> int:
        """Read into all of `buffer`, or up to the end of the table.

        Returns:
            Bytes read; fewer than asked for only at the end.

        Raises:
            UserError: the disk refuses, the archive is torn, or more than `max_mib` come out of it.
        """
        done = 0
        try:
            while done < len(buffer):
                num = self._file.readinto(buffer[done:])
                if not num:
                    break
                done += num
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{self.path}: not a gzip file that can be unpacked ({error}); {TORN}") from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({explain(error)})") from error
        self._num_read += done
        if self._num_read > self._max_mib << 20:
            raise _too_large(self.path, self._max_mib)
        return done

    def rewind(self) -> None:
        """Begin again."""
        self._file.seek(0)
        self._num_read = 0


@contextlib.contextmanager
def open_table(path: Path, *, max_mib: int, scratch: Path) -> Iterator[Stream]:
    """A table's bytes, whatever it is packed in.

    Args:
        max_mib: more than that, unpacked, is refused.
        scratch: a folder on whose disk a .7z is unpacked, since its library only pushes.

    Raises:
        UserError: it cannot be read, is no such archive or a torn one, or is too large.
    """
    try:
        if path.suffix == ".7z":
            with tempfile.TemporaryFile(dir=scratch) as unpacked:
                _unpack(path, unpacked, max_mib)
                unpacked.seek(0)
                yield Stream(path, unpacked, max_mib)
        elif path.suffix == ".gz":
            with gzip.open(path) as packed:
                yield Stream(path, packed, max_mib)
        else:
            with path.open("rb", buffering=0) as plain:
                yield Stream(path, plain, max_mib)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({explain(error)})") from error


def _unpack(path: Path, target: IO[bytes], max_mib: int) -> None:
    """Write the one table in a .7z to `target`."""
    try:
        import py7zr
    except ImportError as error:
        raise UserError(
            f"{path}: to unpack it, pip install 'parallel-tunes[kkbox]', or unpack it yourself: 7z x {path.name}"
        ) from error
    name = path.name.removesuffix(".7z")
    try:
        with py7zr.SevenZipFile(path) as archive:
            if archive.needs_password():
                raise UserError(f"{path}: needs a password; unpack it yourself: 7z x {path.name}")
            files = [member for member in archive.files if not member.is_directory]
            inside = ", ".join(repr(member.filename[:60]) for member in files[:5]) or "nothing"
            found = [member for member in files if re.split(r"[/\\]", member.filename)[-1] == name]
            if len(found) != 1:
                raise UserError(f"{path}: {len(found) or 'no'} files {name} inside; it holds {inside}")
            if found[0].is_symlink:
                raise UserError(f"{path}: {name} inside is a link; pack the table itself")
            for number, member in enumerate(archive.files):  # py7zr refuses some of the paths that we do not use
                member.file_properties()["filename"] = str(number)
            archive.extract(targets=[found[0].filename], factory=_make_factory(path, target, max_mib))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked ({explain(error)})") from error
    except Exception as error:  # of a damaged archive py7zr believes what it reads, and falls over anything
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise UserError(f"{path}: not a 7z archive that can be unpacked ({reason}); {TORN}") from error


def _make_factory(path: Path, target: IO[bytes], max_mib: int) -> Any:
    """What py7zr writes to instead of files: `target`, and no more than `max_mib`."""
    from py7zr.io import Py7zIO, WriterFactory

    class Sink(Py7zIO):
        def write(self, s: bytes | bytearray) -> int:
            if target.tell() + len(s) > max_mib << 20:
                raise _too_large(path, max_mib)
            return target.write(s)

        def read(self, size: int | None = None) -> bytes:
            return target.read(-1 if size is None else size)

        def seek(self, offset: int, whence: int = 0) -> int:
            return target.seek(offset, whence)

        def flush(self) -> None:
            target.flush()

        def size(self) -> int:
            return target.tell()

    class Factory(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            del filename  # whatever path an archive claims is not used
            return Sink()

    return Factory()


def _too_large(path: Path, max_mib: int) -> UserError:
    return UserError(f"{path}: more than data.max_mib={max_mib} MiB when unpacked")
