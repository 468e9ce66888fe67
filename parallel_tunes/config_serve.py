"""The keys of serve: conf/serve/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.config_run import RunConfig
from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    host: str = key("address to listen at; any but this machine's own (127.0.0.1, ::1) needs serve.token or serve.open")
    port: int = key("port to listen at; 0: any that is free", low=0, high=65535)
    token: str | None = key(
        "what clients must know: 'Authorization: Bearer TOKEN', or as the password of HTTP's Basic; asked of all but /health",
        secret=True,
    )
    open: bool = key("true: whoever can reach serve.host may use it, without a token")
    cors: tuple[str, ...] = key(
        "origins of other sites whose pages may use it, [https://music.example] say", verbatim=True
    )
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))
    max_batch: int = key("most windows, of all requests together, in one forward pass", low=1, high=4096)
    max_wait_ms: float = key("how long a batch that is not full waits for more windows, ms", low=0, high=1000)
    queue: int = key("requests at a time; who comes then has 429 and is told when to come again", low=1, high=4096)
    streams: int = key("streams (/v1/stream) at a time; likewise", low=1, high=1024)
    max_mib: int = key("a request's body, MiB; larger ones have 413", low=1, high=4096)
    max_seconds: float = key("most seconds of a file that are decoded; longer ones have 422", low=1, high=14400)
    max_files: int = key("files a request; more have 413", low=1, high=1000)
    max_rows: int = key("rows a request, more have 422; of 1 KiB on average, larger ones have 413", low=1, high=1000000)
    timeout_s: float = key(
        "how long a request may take once it is there (503), and how long a client may be silent (408), seconds",
        low=0.1, high=3600,
    )  # fmt: skip
    workers: int | None = key("processes that decode; default one for each core, up to 4", low=1, high=64)
    decode_mib: int = key("memory that decoding a file may take, MiB; what needs more has 422", low=64)
    decode_cpu_s: int = key("CPU time that decoding a file may take, seconds; likewise", low=1, high=3600)


@dataclass(frozen=True, kw_only=True)
class ServeJob:
    """a trained model as a service: HTTP API, live stream, metrics and a page, at http://127.0.0.1:8000"""

    model_path: Path | None = key("model folder: <train run>/model")
    models: tuple[Path, ...] = key("or several, [a,b]: one of each task, genre, relisten and popularity, at most")
    serve: ServeConfig
    run: RunConfig
