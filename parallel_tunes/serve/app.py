"""The routes of the service: what is asked goes to `service`, what it says comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from parallel_tunes.serve import answers, stream, uploads
from parallel_tunes.serve.gate import Gate
from parallel_tunes.serve.refusals import Refusal
from parallel_tunes.serve.service import Service

GENRE, RELISTEN, POPULARITY, STREAM = "/v1/genre", "/v1/relisten", "/v1/popularity", "/v1/stream"
STATE = ("/health", "/ready", "/version", "/metrics")
WIDEST = 1000  # top_k
REFUSALS = answers.refusals(400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
TopK = Annotated[int, Query(ge=1, le=WIDEST, description="labels told")]
Levels = Annotated[bool, Query(description="whether the answer has the levels that the model was given")]
router = APIRouter()


class Json(Response):
    """JSON of ASCII: what clients have sent, half characters too, can be told back."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


@router.post(GENRE, responses=REFUSALS, response_model=answers.GenreAnswer, openapi_extra=answers.FORM)
async def genre(request: Request, top_k: TopK = 3, levels: Levels = False) -> Any:
    """What files of music are: labels of each, and the probabilities of its windows."""
    service: Service = request.app.state.service
    model = service.demand("genre")
    with service.admit(GENRE):
        files = await uploads.read_files(request, service.cfg)
        try:
            deadline = service.deadline()
            found = [
                await _label(service, upload, top_k, deadline, levels=levels, is_alone=len(files) == 1)
                for upload in files
            ]
        finally:
            uploads.close(files)
    return Json({"classes": model.classes, "files": found})


async def _label(
    service: Service, upload: uploads.Upload, top_k: int, deadline: float, *, levels: bool, is_alone: bool
) -> dict[str, Any]:
    try:
        return {"file": upload.name, **await service.label(upload.file, top_k, deadline, levels=levels)}
    except Refusal as refusal:
        if is_alone:
            raise
        return {"file": upload.name, "error": refusal.sentence, "status": refusal.status}


@router.post(
    RELISTEN, responses=REFUSALS, response_model=answers.RowsAnswer, openapi_extra=answers.describe_rows("relisten")
)
async def relisten(request: Request) -> Any:
    """How probable it is that users play songs again within a month."""
    return await _rows(request, "relisten", RELISTEN, 1)


@router.post(
    POPULARITY, responses=REFUSALS, response_model=answers.RowsAnswer, openapi_extra=answers.describe_rows("popularity")
)
async def popularity(request: Request, top_k: TopK = 3) -> Any:
    """How popular tracks are, or of which class, from rows of their features."""
    return await _rows(request, "popularity", POPULARITY, top_k)


async def _rows(request: Request, task: str, endpoint: str, top_k: int) -> Json:
    service: Service = request.app.state.service
    service.demand(task)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/csv"):
        raise Refusal(415, 'send the rows as application/json, {"rows": […]}, or as text/csv')
    with service.admit(endpoint):
        body = await uploads.read_body(request, service.cfg)
        is_csv, deadline = kind == "text/csv", service.deadline()
        return Json({"rows": await service.answer_rows(task, body, is_csv=is_csv, top_k=top_k, deadline=deadline)})


@router.websocket(STREAM)
async def listen(socket: WebSocket, top_k: TopK = 3, levels: Levels = False) -> None:
    """What sound is as it comes: a greeting, then PCM; an answer each second, and for the text `end` one to the rest."""
    service: Service = socket.app.state.service
    try:
        service.demand("genre")
        with service.admit_stream(STREAM):
            await socket.accept()
            await _listen(service, socket, top_k, levels=levels)
    except Refusal as refusal:
        if socket.client_state.name == "CONNECTING":
            await socket.send_denial_response(_tell(refusal))
            return
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # who should hear it has gone
            await socket.send_text(json.dumps({"error": refusal.sentence}))
            await socket.close(1013 if refusal.status == 503 else 1008)
    except WebSocketDisconnect:
        pass


async def _listen(service: Service, socket: WebSocket, top_k: int, *, levels: bool) -> None:
    first = await _hear(socket, service.cfg.timeout_s)
    heard = service.listen(first if isinstance(first, str) else "")
    await socket.send_text(json.dumps({"classes": service.models.genre.classes if service.models.genre else []}))
    is_last = False
    while not is_last:
        piece = await _hear(socket, service.cfg.timeout_s)
        is_last = piece == stream.END
        if isinstance(piece, str) and not is_last:
            raise Refusal(422, f"after the greeting come bytes, or the text `{stream.END}`")
        for moment in heard.feed(piece if isinstance(piece, bytes) else b"", is_last=is_last):
            await socket.send_text(json.dumps(await service.judge(moment, top_k, levels=levels)))
    await socket.close()


async def _hear(socket: WebSocket, idle_s: float) -> str | bytes:
    try:
        async with asyncio.timeout(idle_s):
            message = await socket.receive()
    except TimeoutError as error:
        raise Refusal(408, f"nothing came for {idle_s:g} s") from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text, data = message.get("text"), message.get("bytes")
    return text if isinstance(text, str) else bytes(data or b"")


@router.get("/health", response_model=answers.State)
async def health() -> Any:
    """Whether the process is there; asked for no token."""
    return Json({"status": "ok"})


@router.get("/ready", response_model=answers.State, responses=answers.refusals(401, 403, 503))
async def ready(request: Request) -> Any:
    """Whether requests are answered now."""
    if not request.app.state.service.is_ready:
        raise Refusal(503, "the server is stopping", retry_s=5)
    return Json({"status": "ready"})


@router.get("/version", response_model=answers.Version, responses=answers.refusals(401, 403))
async def version(request: Request) -> Any:
    """What is served, and within what limits."""
    return Json(request.app.state.service.describe())


@router.get("/metrics", response_class=Response, responses=answers.refusals(401, 403))
async def metrics(request: Request) -> Response:
    """Counts and latencies, for Prometheus."""
    return Response(request.app.state.service.meter.expose(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _tell(refusal: Refusal) -> Response:
    return Json({"error": refusal.sentence}, refusal.status, refusal.headers)


async def _refuse(request: Request, error: Exception) -> Response:
    """Any error as a status and a sentence."""
    if isinstance(error, Refusal):
        # the connection ends with the answer, which a client must live to read
        if request.app.state.service.is_stopping:
            with contextlib.suppress(Refusal, RuntimeError):
                async for _ in uploads.receive(request, request.app.state.service.cfg.max_mib << 20, "", 1.0):
                    pass
        return _tell(error)
    if isinstance(error, RequestValidationError):
        return _tell(_explain(error))
    if isinstance(error, HTTPException):
        where = {404: "there is nothing at this address", 405: "this address does not take that method"}
        return Json({"error": where.get(error.status_code, error.detail)}, error.status_code, error.headers)
    return _tell(Refusal(500, "the server has made a mistake, of which its log tells more"))


async def _refuse_stream(socket: WebSocket, error: Exception) -> None:
    """A stream that is asked for in the wrong way, before it begins."""
    assert isinstance(error, ValidationException)
    await socket.send_denial_response(_tell(_explain(error)))


def _explain(error: ValidationException) -> Refusal:
    found = error.errors()[0]
    return Refusal(422, f"{'.'.join(map(str, found['loc'][1:]))}: {found['msg']}")


def _page(not_found: ASGIApp) -> ASGIApp:
    """What is at all other addresses: the files of the page."""
    files = StaticFiles(directory=Path(__file__).parent / "page", html=True)

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await (files if scope["type"] == "http" else not_found)(scope, receive, send)

    return show


def build(service: Service, *, is_loopback: bool) -> ASGIApp:
    """The service as an ASGI application."""
    app = FastAPI(title="parallel_tunes", version=service.describe()["version"], docs_url=None, redoc_url=None)
    app.state.service = service
    for kind in (Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(WebSocketRequestValidationError, _refuse_stream)
    app.include_router(router)
    app.router.default = _page(app.router.default)
    cfg, endpoints = service.cfg, (GENRE, RELISTEN, POPULARITY, STREAM, *STATE, "/")
    gate = Gate(
        app, meter=service.meter, endpoints=endpoints, is_stopping=lambda: service.is_stopping,
        is_loopback=is_loopback, token=cfg.token, origins=cfg.cors,
    )  # fmt: skip
    if not cfg.cors:
        return gate
    return CORSMiddleware(
        gate, allow_origins=cfg.cors, allow_methods=["GET", "POST"], allow_headers=["Authorization", "Content-Type"]
    )
