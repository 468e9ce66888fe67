from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from parallel_tunes.serve.gate import Gate
from parallel_tunes.serve.metering import Meter

TOKEN = "correct-horse-battery"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("in")(scope, receive, send)


def ask(
    method: str = "GET", path: str = "/ready", *, token: str | None = None, is_loopback: bool = True,
    origins: tuple[str, ...] = (), base: str = "http://127.0.0.1:8000", stopping: bool = False, **headers: str,
) -> httpx.Response:  # fmt: skip
    gate = Gate(
        app, meter=Meter(), endpoints=["/ready"], is_stopping=lambda: stopping, is_loopback=is_loopback, token=token,
        origins=origins,
    )  # fmt: skip

    async def talk() -> httpx.Response:
        transport: Any = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(talk())


def test_who_calls_it_by_an_own_name_comes_in() -> None:
    for name in ("127.0.0.1:8000", "localhost", "localhost:1", "[::1]:8000", "127.8.9.1"):
        assert ask(base=f"http://{name}").status_code == 200, name


def test_another_name_is_refused_here_but_not_on_an_open_address() -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"):
        answer = ask(base=f"http://{name}")
        assert answer.status_code == 403, name
        assert "127.0.0.1 or localhost" in answer.json()["error"]
        assert ask(base=f"http://{name}", is_loopback=False).status_code == 200


def test_pages_of_other_sites_change_nothing() -> None:
    for origin, status in {
        "http://127.0.0.1:8000": 200, "https://music.example": 200, "http://127.0.0.1:3000": 403,
        "http://evil.example": 403, "null": 403, "": 403,
    }.items():  # fmt: skip
        assert ask("POST", origins=("https://music.example",), Origin=origin).status_code == status, origin
        assert ask("GET", Origin=origin).status_code == 200  # whose answer the browser keeps from them


def encode(words: bytes) -> str:
    return "Basic " + base64.b64encode(words).decode()


def test_the_token_is_asked_of_all_but_health() -> None:
    for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", encode(f"me:{TOKEN}".encode())):
        assert ask(token=TOKEN, Authorization=given).status_code == 200, given
    wrong = ("", TOKEN, "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic !!", encode(TOKEN.encode()))
    for given in (*wrong, encode(b"\xff:\xff")):
        answer = ask(token=TOKEN, Authorization=given)
        assert answer.status_code == 401, given
        # a header each: browsers take two in one for neither
        assert answer.headers.get_list("www-authenticate") == ['Basic realm="parallel_tunes"', "Bearer"]
        assert TOKEN not in answer.text
        assert ask(path="/health", token=TOKEN, Authorization=given).status_code == 200
    for path in ("/", "/v1/genre", "/metrics", "/openapi.json", "/health/", "//health"):
        assert ask(path=path, token=TOKEN).status_code == 401, path


def test_every_answer_leaves_with_the_same_headers() -> None:
    for answer in (ask(), ask(base="http://evil.example")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert "connection" not in answer.headers
    assert ask(stopping=True).headers["connection"] == "close"
