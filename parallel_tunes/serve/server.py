"""The server around the service: its socket, its start, and its end, which waits for all it has accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.schema import UserError
from parallel_tunes.serve.service import Service

GRACE_S = 0.5  # after the signal to stop: who comes is told so, instead of meeting a closed door
KEEP_ALIVE_S = 30  # longer than clients keep idle connections, so that none is closed just when it is used
MAX_MESSAGE = 1 << 18  # bytes of a stream


class Server(uvicorn.Server):
    """A server that is told to stop as any job is: by its run, which hears the signals."""

    def __init__(self, config: uvicorn.Config, service: Service, should_stop: Callable[[], bool]) -> None:
        super().__init__(config)
        self._service, self._should_stop = service, should_stop
        self._until = math.inf

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the run."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        if self._should_stop() and not self._service.is_stopping:
            self._service.is_stopping, self._until = True, time.monotonic() + GRACE_S
        self.should_exit = time.monotonic() > self._until
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door; whoever has come through it, a moment ago even, is answered."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(GRACE_S)
        await super().shutdown(sockets)


def open_socket(cfg: ServeConfig) -> tuple[socket.socket, bool]:
    """A socket that listens, and whether only this machine can reach it.

    Raises:
        UserError: it cannot be had, or would be open to others without a token.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(cfg.host, cfg.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"serve.host={cfg.host}: no address of this machine ({error})") from error
    is_loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    if not is_loopback and cfg.token is None and not cfg.open:
        raise UserError(
            f"serve.host={cfg.host}: others could reach it: give serve.token=…, which they must know, or serve.open=true"
        )
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        what = f"serve.host={cfg.host} serve.port={cfg.port}"
        raise UserError(f"{what}: {error.strerror}; serve.port=0 takes a port that is free") from error
    return listener, is_loopback


def run(app: ASGIApp, listener: socket.socket, service: Service, should_stop: Callable[[], bool]) -> None:
    """Serve until told to stop, and then until all that was accepted is answered."""
    config = uvicorn.Config(
        app, http="h11", ws="websockets-sansio", lifespan="off", log_config=None, log_level="error", access_log=False,
        server_header=False, proxy_headers=False, ws_max_size=MAX_MESSAGE, timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(service.cfg.timeout_s) + 5,
    )  # fmt: skip
    Server(config, service, should_stop).run([listener])
