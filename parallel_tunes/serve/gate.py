"""What every request meets first: is it from here, does it know the token; and what every answer leaves with.

A page of another site that a browser shows can send requests to this machine's own address. It cannot change what the
browser says of it, in `Origin`, nor, where its name was made to point here (DNS rebinding), the name, in `Host`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parallel_tunes.serve.metering import Meter
from parallel_tunes.serve.refusals import Refusal

OPEN = ("/health",)  # asked for no token
SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LEAVES_WITH = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
    (b"cache-control", b"no-store"),
]


class Gate:
    """ASGI middleware, outside of all else.

    Args:
        endpoints: paths whose answers are counted by name.
        is_stopping: says whether clients had better connect elsewhere.
        is_loopback: whether only this machine can reach the server.
        token: that clients must know, if any.
        origins: of other sites whose pages may use it.
    """

    def __init__(
        self, app: ASGIApp, *, meter: Meter, endpoints: Collection[str], is_stopping: Callable[[], bool],
        is_loopback: bool, token: str | None, origins: Collection[str],
    ) -> None:  # fmt: skip
        self._app, self._meter, self._endpoints = app, meter, frozenset(endpoints)
        self._is_stopping = is_stopping
        self._is_loopback, self._token, self._origins = is_loopback, token, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one stream."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), 0

        async def leave(message: Message) -> None:
            nonlocal status
            if message["type"].endswith("response.start"):
                status = message["status"]
                closing = [(b"connection", b"close")] if self._is_stopping() else []
                message["headers"] = [*message.get("headers", []), *LEAVES_WITH, *closing]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, leave)
        except Refusal as refusal:
            await _say(refusal, scope, leave)
        finally:
            endpoint = scope["path"] if scope["path"] in self._endpoints else "other"
            self._meter.answered(endpoint, status, time.perf_counter() - began)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._is_loopback and not _is_loopback(host):
            raise Refusal(403, "this server is known to its own machine alone; ask it as 127.0.0.1 or localhost")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE
        if origin is not None and changes and origin not in self._origins and urlsplit(origin).netloc != host:
            raise Refusal(403, "a page of another site asks, which serve.cors does not name")
        if self._token is not None and scope["path"] not in OPEN and not self._is_known(headers):
            raise Refusal(401, "give the server's token: 'Authorization: Bearer TOKEN'")

    def _is_known(self, headers: Headers) -> bool:
        assert self._token is not None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # what a browser asks people for: the token is the password
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._token.encode())


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _say(refusal: Refusal, scope: Scope, send: Send) -> None:
    body = json.dumps({"error": refusal.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        # a header each: Chromium takes two in one for neither, and asks for no password
        headers += [(b"www-authenticate", kind) for kind in (b'Basic realm="parallel_tunes"', b"Bearer")]
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
