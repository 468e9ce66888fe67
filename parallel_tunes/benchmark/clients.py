"""Many clients of one server, each of which posts a file again as soon as it has the answer; light beside what they measure."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Posted:
    """What became of the posts of one measurement: the status of each answer, and the seconds until it was there."""

    statuses: list[int]
    latencies_s: list[float]
    seconds: float  # of all


def make_post(path: str, data: bytes) -> bytes:
    """A request that posts a file in a form, as it goes over the line."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"
    lines = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def post_all(port: int, post: bytes, *, num_clients: int, num_posts: int) -> Posted:
    """So many posts to a server of this machine, by clients that each keep one connection."""
    return asyncio.run(_post_all(port, post, num_clients, num_posts))


async def _post_all(port: int, post: bytes, num_clients: int, num_posts: int) -> Posted:
    statuses, latencies_s, todo = list[int](), list[float](), iter(range(num_posts))

    async def be_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in todo:
            began = time.perf_counter()
            writer.write(post)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length, head
            await reader.readexactly(int(length[1]))
            latencies_s.append(time.perf_counter() - began)
            statuses.append(int(head.split()[1]))

    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(num_clients)]
    try:
        began = time.perf_counter()
        await asyncio.gather(*(be_client(*line) for line in lines))
        return Posted(statuses, latencies_s, time.perf_counter() - began)
    finally:
        for _, writer in lines:
            writer.close()
            await writer.wait_closed()
