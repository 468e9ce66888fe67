"""What clients send, taken in pieces and never more than is allowed; files have no names here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import IO

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.serve.refusals import Refusal, no_room

ROW_BYTES = 1024  # of a posted row, on average
MAX_NAME = 255  # characters of a client's file name that are told back


@dataclass(frozen=True)
class Upload:
    """A file that was sent: what the client calls it, and an open file that the system forgets when it is closed."""

    name: str
    file: IO[bytes]


async def receive(request: Request, max_bytes: int, limit: str, idle_s: float) -> AsyncGenerator[bytes, None]:
    """The body of a request.

    Args:
        limit: how the bound on it is called.

    Raises:
        Refusal: it is larger than `max_bytes`, or the client is silent for `idle_s`.
    """
    too_large = Refusal(413, f"the body is larger than {limit}")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise too_large
    stream, num_bytes = request.stream(), 0
    try:
        while True:
            async with asyncio.timeout(idle_s):
                piece = await anext(stream, None)
            if piece is None:
                return
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise too_large
            yield piece
    except TimeoutError as error:
        raise Refusal(408, f"nothing came for {idle_s:g} s: send the whole body") from error
    except ClientDisconnect as error:
        raise Refusal(400, "the connection ended before the body did") from error


async def read_files(request: Request, cfg: ServeConfig) -> list[Upload]:
    """The files of a form, its fields `file`; each is to be closed.

    Raises:
        Refusal: there are none, too many, too much, or it is no such form.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refusal(415, "send the files as multipart/form-data, each in a field `file`")
    body = receive(request, cfg.max_mib << 20, f"serve.max_mib={cfg.max_mib} MiB", cfg.timeout_s)
    try:
        form = await MultiPartParser(request.headers, body, max_files=cfg.max_files + 1, max_fields=16).parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(cfg.max_files) from error
        raise Refusal(400, f"the form cannot be read ({error.message.rstrip('.')})") from error
    except OSError as error:
        raise no_room() from error
    fields = form.multi_items()
    files = [value for _, value in fields if isinstance(value, UploadFile)]
    try:
        strange = [name for name, value in fields if name != "file" or not isinstance(value, UploadFile)]
        if strange:
            raise Refusal(422, f"the form has a field {strange[0][:40]!r}; it takes files alone, in fields `file`")
        if not files:
            raise Refusal(422, "the form holds no file; send one or more, in fields `file`")
        if len(files) > cfg.max_files:
            raise _too_many(cfg.max_files)
    except Refusal:
        close(files)
        raise
    return [Upload((value.filename or "")[:MAX_NAME], value.file) for value in files]


def close(uploads: list[UploadFile] | list[Upload]) -> None:
    """Have the system forget them."""
    for upload in uploads:
        upload.file.close()


async def read_body(request: Request, cfg: ServeConfig) -> bytes:
    """The body of posted rows.

    Raises:
        Refusal: it is too much.
    """
    limit = f"{cfg.max_rows} KiB, 1 KiB for each of serve.max_rows={cfg.max_rows}"
    return b"".join([piece async for piece in receive(request, cfg.max_rows * ROW_BYTES, limit, cfg.timeout_s)])


def _too_many(max_files: int) -> Refusal:
    return Refusal(413, f"the form holds more files than serve.max_files={max_files}")
